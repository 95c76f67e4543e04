"""Calling Python from inside a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..graph.types import DType
from ..ops import host
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.handle import Handle
from ..tensor.state import STATE


def host_call(function: Callable[..., np.ndarray], shape: Sequence[int], dtype: DType, *tensors: Tensor) -> Tensor:
    """The result of a Python function of NumPy arrays, called each time the value is computed, in compiled steps too.

    `function` is given one array a tensor (bfloat16 as float32) and must return an array of `shape`, converted to
    `dtype`; it must not change its arguments, and may be called once, twice or never. It has no gradient: wrap it in a
    `pullback.autograd.Function` to give it one.

    >>> x = pb.tensor([3.0, 1.0, 2.0])
    >>> pb.utils.host_call(np.sort, (3,), pb.float32, x)
    tensor([1., 2., 3.])
    """
    if not callable(function):
        raise TypeError(f"host_call takes a function first, got {function!r} (at {user_source()})")
    for tensor in tensors:
        if not isinstance(tensor, Handle):
            raise TypeError(f"host_call takes tensors after the dtype, got {tensor!r} (at {user_source()})")
    code = getattr(function, "__code__", None)
    if STATE.trace is not None and code is not None:
        STATE.trace.called_at_runs.add(code)
    node = host.host_call(tuple(t.node for t in tensors), function, tuple(int(s) for s in shape), dtype)
    return Tensor(node)


__all__ = ["host_call"]
