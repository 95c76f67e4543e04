"""A tensor as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..graph.types import bool_, float32, int64, to_carrier

if TYPE_CHECKING:
    from .handle import Handle


def describe(tensor: Handle) -> str:
    """`tensor([1., 2.], requires_grad=True)`; inside a trace, where there is no value, dtype and shape."""
    from .handle import STATE

    notes = []
    if STATE.trace is not None:
        return f"<traced tensor {tensor.dtype.name}{list(tensor.shape)}>"
    values = to_carrier(tensor._array(), tensor.dtype)
    if tensor.dtype not in (float32, int64, bool_) or (values.size == 0 and tensor.dtype is not float32):
        notes.append(f"dtype={tensor.dtype!r}")
    if values.size == 0:
        body = "[]" if values.ndim == 1 else f"[], size={tuple(tensor.shape)}"
    else:
        whole = values.dtype.kind != "f" or bool(np.all(values[np.isfinite(values)] % 1 == 0))
        body = np.array2string(
            values,
            separator=", ",
            precision=4,
            threshold=1000,
            prefix="tensor(",
            floatmode="maxprec" if whole else "fixed",
        )
    if tensor.requires_grad:
        notes.append("requires_grad=True" if tensor.is_leaf else f"grad_fn=<{tensor._node.op.name}>")
    return "tensor(" + ", ".join([body, *notes]) + ")"
