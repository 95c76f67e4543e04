"""What copies of tensors have, by `copy` and by `pickle`, which is how processes hand each other tensors."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GradientError
from ..graph.calm import disturb
from ..graph.types import DType
from ..ops.primitive import buffer_node, user_source
from ..runtime.buffers import Buffer
from .handle import Handle

if TYPE_CHECKING:
    from . import Tensor


def _attributes(tensor: Handle) -> tuple[dict[str, Any], dict[str, Any]]:
    """What users have set on a tensor, and the values of its slots."""
    state = object.__reduce_ex__(tensor, 2)[2]
    own, slots = state if isinstance(state, tuple) else (state, {})
    return own or {}, slots


def shallow(tensor: Handle) -> Handle:
    """A tensor with the node, the gradient and the base of this one."""
    own, slots = _attributes(tensor)
    copied = type(tensor).__new__(type(tensor))
    for name, value in (*slots.items(), *own.items()):
        object.__setattr__(copied, name, value)
    copied._readers = None
    if copied._link is not None:
        copied._link = copy.copy(copied._link)
        copied._link.enlist(copied)
    disturb()
    return copied


def deep(tensor: Handle, memo: dict[int, Any]) -> Handle:
    """A leaf of the same value, with copies of its gradient and of what users have set on it."""
    copied = leaf_copy(tensor, memo)
    if (gradient := tensor.grad) is not None:
        copied.grad = copy.deepcopy(gradient, memo)
    for name, value in _attributes(tensor)[0].items():
        object.__setattr__(copied, name, copy.deepcopy(value, memo))
    return copied


def leaf_copy(tensor: Handle, memo: dict[int, Any]) -> Handle:
    """A leaf of the same value and nothing else."""
    if not tensor.is_leaf:
        raise GradientError(
            f"Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol (at "
            f"{user_source()}); use .detach().clone()"
        )
    copied = type(tensor).__new__(type(tensor))
    Handle.__init__(copied, tensor.node)
    copied._set_leaf(tensor.node, tensor.requires_grad)
    memo[id(tensor)] = copied
    return copied


def reduced(tensor: Handle) -> tuple[Any, ...]:
    """What pickles a tensor: its value, whether it requires a gradient, and what users have set on it.

    Not its history, its gradient or its hooks, and of a view not its base: as in PyTorch it is read as a leaf.
    """
    array = np.array(tensor._buffer().array.reshape(tensor._node.shape))
    own, slots = _attributes(tensor)
    own = {**own, **{name: value for name, value in slots.items() if name not in Handle.__slots__}}
    return rebuilt, (type(tensor), array, tensor._node.dtype, tensor._node.requires_grad, own)


def rebuilt(kind: type[Tensor], array: np.ndarray, dtype: DType, requires_grad: bool, own: dict[str, Any]) -> Tensor:
    """A leaf of this class from its value, as it is stored."""
    tensor = kind.__new__(kind)
    Handle.__init__(tensor, buffer_node(Buffer.of(array.reshape(-1), copy=True), array.shape, dtype))
    if requires_grad:
        tensor._set_own_leaf(tensor._node, True)
    for name, value in own.items():
        object.__setattr__(tensor, name, value)
    return tensor


__all__ = ["deep", "leaf_copy", "rebuilt", "reduced", "shallow"]
