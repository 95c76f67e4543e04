"""What scripts ask of `torch.cuda` before they choose a device: there is none, and nothing to seed."""

from typing import TYPE_CHECKING, Any

from . import amp


def is_available() -> bool:
    """False: Pullback runs on the CPU."""
    return False


def device_count() -> int:
    """0: Pullback runs on the CPU."""
    return 0


def manual_seed(seed: int) -> None:
    """Nothing: there is no generator of a GPU to seed. `pullback.manual_seed` seeds the one of the CPU."""
    int(seed)  # what is no seed is refused all the same


def manual_seed_all(seed: int) -> None:
    """Nothing: there is no generator of a GPU to seed. `pullback.manual_seed` seeds the one of the CPU."""
    int(seed)  # what is no seed is refused all the same


def empty_cache() -> None:
    """Nothing: there is no memory of a GPU to give back."""


def is_initialized() -> bool:
    """False: there is nothing to initialize."""
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """False: there is no GPU. On the CPU bfloat16 is computed everywhere."""
    return False


def is_tf32_supported() -> bool:
    """False: there is no GPU."""
    return False


def get_arch_list() -> list[str]:
    """No architectures of GPUs: there is code for none."""
    return []


def get_rng_state_all() -> list[Any]:
    """No states: there are no generators of GPUs."""
    return []


def memory_reserved(device: object = None) -> int:
    """0: no memory of a GPU is taken."""
    return 0


def max_memory_reserved(device: object = None) -> int:
    """0: no memory of a GPU is taken."""
    return 0


def memory_stats(device: object = None) -> dict[str, int]:
    """Nothing: no memory of a GPU is taken."""
    return {}


def memory_allocated(device: object = None) -> int:
    """0: no memory of a GPU is taken. What a step takes of the CPU's is told by `plan`."""
    return 0


def max_memory_allocated(device: object = None) -> int:
    """0: no memory of a GPU is taken. What a step takes of the CPU's is told by `plan`."""
    return 0


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        raise AttributeError(f"pullback.cuda.{name} is not there: there is no GPU, and is_available() says so")


__all__ = [
    "amp",
    "device_count",
    "empty_cache",
    "get_arch_list",
    "get_rng_state_all",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "is_tf32_supported",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
]
