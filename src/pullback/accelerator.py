"""What scripts ask of `torch.accelerator` before they choose a device: there is none beside the CPU."""


def is_available() -> bool:
    """False: Pullback runs on the CPU."""
    return False


def device_count() -> int:
    """0: Pullback runs on the CPU."""
    return 0


def current_accelerator(check_available: bool = False) -> None:
    """None: there is no device beside the CPU."""


__all__ = ["current_accelerator", "device_count", "is_available"]
