"""What scripts ask of `torch.cpu`: the device that there is, of which nothing is left running behind a call."""

from . import amp


def is_available() -> bool:
    """True."""
    return True


def is_initialized() -> bool:
    """True: there is nothing to begin with."""
    return True


def device_count() -> int:
    """1: all of the processor is one device."""
    return 1


def current_device() -> str:
    """ "cpu"."""
    return "cpu"


def synchronize(device: object = None) -> None:
    """Nothing: a compiled step has run when its call returns, and what is yet to be computed is computed when it is
    read.
    """


__all__ = ["amp", "current_device", "device_count", "is_available", "is_initialized", "synchronize"]
