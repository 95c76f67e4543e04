"""cuDNN's switches. As in PyTorch without a GPU there is nothing that they could act on.

Results have the same bits each time, and kernels are made for the shapes of each step, whatever they say.
"""

enabled, benchmark, deterministic, allow_tf32 = True, False, False, True
benchmark_limit = 10


def is_available() -> bool:
    """False: there is no GPU."""
    return False


def version() -> None:
    """None: there is no cuDNN."""


__all__ = ["allow_tf32", "benchmark", "benchmark_limit", "deterministic", "enabled", "is_available", "version"]
