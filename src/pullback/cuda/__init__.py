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


def manual_seed_all(seed: int) -> None:
    """Nothing: there is no generator of a GPU to seed. `pullback.manual_seed` seeds the one of the CPU."""


def empty_cache() -> None:
    """Nothing: there is no memory of a GPU to give back."""


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
    "is_available",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "memory_allocated",
]
