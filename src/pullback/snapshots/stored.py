"""Arrays as a safetensors file holds them, and what a fault of a file is before it is known which file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph import types
from ..graph.types import DType


class Fault(Exception):
    """What is wrong with a file, in words; whoever knows the file's name makes an error of it."""


#: element types as safetensors names them
DTYPES: dict[str, DType] = {
    "BOOL": types.bool_,
    "U8": types.uint8,
    "U16": types.uint16,
    "U32": types.uint32,
    "U64": types.uint64,
    "I8": types.int8,
    "I16": types.int16,
    "I32": types.int32,
    "I64": types.int64,
    "F16": types.float16,
    "BF16": types.bfloat16,
    "F32": types.float32,
    "F64": types.float64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Stored:
    """The elements of an array row by row: `flat` is one-dimensional, of the storage type of `dtype`."""

    dtype: DType
    shape: tuple[int, ...]
    flat: np.ndarray

    @property
    def array(self) -> np.ndarray:
        """The elements in their shape."""
        return self.flat.reshape(self.shape)

    @property
    def bytes(self) -> memoryview:
        """The elements as they are written."""
        return self.flat.view(np.uint8).data


__all__ = ["DTYPES", "NAMES", "Fault", "Stored"]
