"""Where values live: there is the CPU."""

from __future__ import annotations

from ..ops.primitive import user_source


class device(str):
    """A device, of which there is one: "cpu". Equal to that string.

    >>> pb.device("cpu:0").type
    'cpu'
    """

    __slots__ = ("index",)
    index: int | None  # type: ignore[assignment]

    def __new__(cls, type: str = "cpu", index: int | None = None) -> device:
        """The device of that name; ValueError for any but the CPU."""
        name, _, number = type.partition(":")
        if name != "cpu" or not (number or "0").isdigit() or (number and index is not None):
            raise ValueError(f'device {type!r} is not there (at {user_source()}); Pullback runs on "cpu"')
        made = str.__new__(cls, name)
        made.index = int(number) if number else index
        return made

    @property
    def type(self) -> str:
        """Always "cpu"."""
        return "cpu"

    def __repr__(self) -> str:
        return "device(type='cpu')" if self.index is None else f"device(type='cpu', index={self.index})"


CPU = device()


def get_default_device() -> device:
    """The CPU."""
    return CPU


def set_default_device(device: str | None) -> None:
    """Have tensors made on the CPU, where they always are; ValueError for any other device."""
    if device not in (None, "cpu"):
        raise ValueError(f'device {device!r} is not there (at {user_source()}); Pullback runs on "cpu"')


__all__ = ["CPU", "device", "get_default_device", "set_default_device"]
