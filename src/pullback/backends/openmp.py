"""OpenMP, which scripts ask for."""


def is_available() -> bool:
    """False: threads are Pullback's own."""
    return False


__all__ = ["is_available"]
