"""cuDNN's switches. As in PyTorch without a GPU there is nothing that they could act on.

Results have the same bits each time, and kernels are made for the shapes of each step, whatever they say.
"""

from contextlib import AbstractContextManager

from .switches import switched

enabled, benchmark, deterministic, allow_tf32 = True, False, False, True
benchmark_limit = 10


def is_available() -> bool:
    """False: there is no GPU."""
    return False


def flags(
    enabled: bool = False,
    benchmark: bool = False,
    benchmark_limit: int = 10,
    deterministic: bool = False,
    allow_tf32: bool = True,
) -> AbstractContextManager[None]:
    """A context manager in which the switches have these values, as in PyTorch."""
    return switched(
        globals(),
        enabled=enabled,
        benchmark=benchmark,
        benchmark_limit=benchmark_limit,
        deterministic=deterministic,
        allow_tf32=allow_tf32,
    )


def version() -> None:
    """None: there is no cuDNN."""


__all__ = [
    "allow_tf32",
    "benchmark",
    "benchmark_limit",
    "deterministic",
    "enabled",
    "flags",
    "is_available",
    "version",
]
