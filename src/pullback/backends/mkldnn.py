"""oneDNN's switches, which have nothing to act on: Pullback makes its own kernels."""

from contextlib import AbstractContextManager

from .switches import switched

enabled, deterministic, allow_tf32 = True, False, True


def is_available() -> bool:
    """False: oneDNN is not used."""
    return False


def flags(enabled: bool = False, deterministic: bool = False, allow_tf32: bool = True) -> AbstractContextManager[None]:
    """A context manager in which the switches have these values, as in PyTorch."""
    return switched(globals(), enabled=enabled, deterministic=deterministic, allow_tf32=allow_tf32)


__all__ = ["allow_tf32", "deterministic", "enabled", "flags", "is_available"]
