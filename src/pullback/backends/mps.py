"""Apple's GPUs, which scripts look for before they choose a device."""


def is_available() -> bool:
    """False: Pullback runs on the CPU."""
    return False


def is_built() -> bool:
    """False: Pullback runs on the CPU."""
    return False


__all__ = ["is_available", "is_built"]
