"""Mixed precision. So far only switched off: code that carries an `autocast(..., enabled=False)` runs as it is."""

from __future__ import annotations

from types import TracebackType

from ..graph.types import DType, bfloat16
from ..ops.primitive import user_source


class autocast:
    """The context in which PyTorch runs chosen operations in a lower precision.

    Pullback computes in the dtypes that tensors have, so `enabled=True` raises NotImplementedError; convert the model
    with `.to(dtype)` where all of it may run low.
    """

    def __init__(self, device_type: str = "cpu", dtype: DType = bfloat16, enabled: bool = True):
        if enabled:
            raise NotImplementedError(
                f'autocast("{device_type}", dtype={dtype!r}) at {user_source()}: mixed precision is not there yet. '
                "Pass enabled=False, or convert the model with .to(dtype)."
            )

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        return None


__all__ = ["autocast"]
