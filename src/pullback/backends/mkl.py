"""Intel's MKL, which scripts ask for."""


def is_available() -> bool:
    """False: matrix products are Pullback's own kernels."""
    return False


__all__ = ["is_available"]
