"""What the class `Tensor` makes of what it is called with, as PyTorch's does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..graph.node import Node
from ..ops.host import detach
from ..ops.primitive import user_source
from .creation import _check_device, tensor, zeros
from .handle import Handle
from .promotion import get_default_dtype
from .size import Size
from .views import Link


def given(made: Handle, data: tuple[Any, ...], device: Any) -> tuple[Node, Link | None]:
    """The node of `Tensor(*data)`, and the link to the tensor that it shares its elements with, if that is one.

    Sizes, or a `Size`, make zeros; numbers in one list, tuple or array are copied, both in the default dtype.
    """
    _check_device(device)
    if all(map(_is_size, data)) and data:
        return _zeros(tuple(map(int, data))), None
    if len(data) != 1 or not isinstance(data[0], (Handle, np.ndarray, Sequence)) or isinstance(data[0], str):
        said = ", ".join(repr(item)[:40] for item in data)
        raise TypeError(
            f"Tensor() takes sizes, or elements as one list, array or tensor, got {said} (at {user_source()}); "
            "tensor() takes a number too"
        )
    if isinstance(data[0], Size):
        return _zeros(tuple(data[0])), None
    if not isinstance(data[0], Handle):
        return tensor(data[0], get_default_dtype()).node, None
    base, movement = data[0]._detached_from()
    link = Link(base, movement, base._stamp())
    link.enlist(made)
    return detach(data[0].node), link


def one_of(kind: str, said: tuple[Any, ...], data: Any) -> tuple[Any, ...]:
    """What was given by place or by the name `data`; neither is an empty list."""
    if isinstance(data, tuple) and not data:
        return said
    if said not in ((), ((),)):
        raise TypeError(f"{kind}() got multiple values for argument 'data' (at {user_source()})")
    return (data,)


def _is_size(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _zeros(sizes: tuple[int, ...]) -> Node:
    if any(size < 0 for size in sizes):
        raise ShapeError(f"a shape cannot have negative sizes, got {list(sizes)} (at {user_source()})")
    return zeros(sizes, dtype=get_default_dtype()).node


__all__ = ["given", "one_of"]
