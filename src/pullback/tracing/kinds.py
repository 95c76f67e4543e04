"""Which calls the same recordings are for: of the same shapes and dtypes, and the same values that are no tensors."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TraceError
from ..graph.types import from_numpy as array_dtype
from ..ops.primitive import MODE
from ..tensor import Tensor
from ..tensor.creation import from_argument
from ..tensor.handle import Handle
from ..tensor.promotion import Default
from ..trees import flatten

if TYPE_CHECKING:
    from .replay import Replay


class Kind:
    """Calls that the same recordings are for, and a short way to tell that another call is one of them: it has plain
    tensors or arrays by position, all different ones, each as before.
    """

    __slots__ = ("_autocast", "_default", "_expected", "_grad", "key", "shape", "variants")

    def __init__(self, key: Hashable, shape: Any, variants: list[Replay], leaves: list[Any]):
        self.key, self.shape, self.variants = key, shape, variants
        self._grad, self._autocast, self._default = MODE.grad, MODE.autocast, Default.floating
        is_flat = shape == flatten(((None,) * len(leaves), {}))[1] and len(set(map(id, leaves))) == len(leaves)
        #: shape, dtype and whether gradients are wanted of each argument; None for calls that are not of this sort
        self._expected: list[tuple[Any, ...]] | None = None
        if is_flat and all(map(is_plain, leaves)) and not any(map(has_history, leaves)):
            self._expected = [(leaf._node.shape, leaf._node.dtype, leaf._node.requires_grad) for leaf in leaves]

    def leaves_of(self, args: tuple[Any, ...]) -> list[Any] | None:
        """The arguments as tensors, where the call is known at once to be of this kind; else None."""
        expected = self._expected
        if expected is None or len(args) != len(expected):
            return None
        if MODE.grad is not self._grad or MODE.autocast is not self._autocast:
            return None
        if Default.floating is not self._default:
            return None
        leaves: list[Any] = []
        if not expected:
            return leaves
        for leaf, (shape, dtype, requires_grad) in zip(args, expected, strict=True):
            if type(leaf) is np.ndarray:
                if leaf.shape != shape or requires_grad or array_dtype(leaf.dtype) != dtype:
                    return None
                leaves.append(from_argument(leaf, dtype))
                continue
            if not is_plain(leaf):
                return None
            node = leaf._node
            if node.shape != shape or node.dtype is not dtype or node.requires_grad is not requires_grad:
                return None
            if requires_grad and has_history(leaf):
                return None
            leaves.append(leaf)
        return leaves if len(leaves) < 2 or len(set(map(id, leaves))) == len(leaves) else None


def is_plain(leaf: Any) -> bool:
    """Whether the leaf is a tensor that has its value from nowhere else, and no hooks."""
    return (
        type(leaf) is Tensor and leaf._link is None and leaf._alias is None and not (leaf._hooks or leaf._accumulated)
    )


def has_history(leaf: Any) -> bool:
    """Whether an argument was computed from something that gradients of it belong to."""
    return isinstance(leaf, Handle) and leaf.requires_grad and not leaf.is_leaf


def first_places(leaves: list[Any]) -> tuple[int, ...]:
    """For each tensor among the arguments where it stands first: the same tensor given twice is one."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(id(leaf), place) for place, leaf in enumerate(leaves) if isinstance(leaf, Handle))


def is_hooked(leaf: Any) -> bool:
    """Whether an argument has hooks: its recordings are for this very tensor."""
    return isinstance(leaf, Handle) and bool(leaf._hooks or leaf._accumulated)


def signature(leaf: Any) -> Hashable:
    """What of an argument a recording depends on."""
    if isinstance(leaf, Handle):
        return leaf._node.shape, leaf.dtype, leaf.requires_grad, is_hooked(leaf), has_history(leaf)
    try:
        hash(leaf)
    except TypeError:
        raise TraceError(
            f"an argument of a compiled step is a {type(leaf).__name__}, which is neither a tensor, nor a container of "
            "them, nor hashable. Pass tensors, and keep other objects in the function's closure."
        ) from None
    return type(leaf), leaf
