"""PyTorch's names for how tensors lie in memory: dense, and their elements by rows. There is no other way here."""

from __future__ import annotations

from ..ops.primitive import user_source


class _Named:
    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"pullback.{self.name}"


class memory_format(_Named):
    """The order in which elements lie, as `clone(memory_format=)` and its like take it."""

    __slots__ = ()


contiguous_format, preserve_format = memory_format("contiguous_format"), memory_format("preserve_format")
channels_last, channels_last_3d = memory_format("channels_last"), memory_format("channels_last_3d")


class layout(_Named):
    """Whether a tensor's elements all lie in memory, with a stride for each axis; those of all tensors here do."""

    __slots__ = ()


strided = layout("strided")


def _name(given: object) -> str:
    return str(given).rpartition(".")[2]


def check_memory_format(name: str, given: object, *allowed: memory_format) -> None:
    """Raise ValueError unless a memory format that was `given` is one of `allowed`: those that change nothing.

    They are told by their names, so that PyTorch's own constants are taken too.
    """
    name_given = _name(given)
    if given is None or name_given in map(_name, allowed):
        return
    if name_given in (channels_last.name, channels_last_3d.name):
        raise ValueError(
            f"{name}: memory_format {given!r} is not there (at {user_source()}): tensors lie by rows, and compiled "
            "steps lay out what is between them as it is fastest. Leave it out"
        )
    raise ValueError(
        f"{name}: memory_format must be {' or '.join(map(repr, allowed))}, got {given!r} (at {user_source()})"
    )


__all__ = [
    "channels_last",
    "channels_last_3d",
    "check_memory_format",
    "contiguous_format",
    "layout",
    "memory_format",
    "preserve_format",
    "strided",
]
