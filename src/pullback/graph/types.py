"""Element types: what a tensor may hold, how it is stored, computed in and promoted.

Each `DType` names three things that differ for the 16-bit floats: how it is stored, in which type arithmetic on it
is done (`compute`), and which NumPy type carries its values in the reference interpreter (`carrier`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import DTypeError

BOOL, INTEGER, FLOAT = 0, 1, 2


@dataclass(frozen=True, eq=False)
class DType:
    """One element type. Compared by identity; there is exactly one object for each name.

    `name` as users write it; `category` orders bool < integer < float for promotion; `itemsize` in bytes;
    `storage` is the NumPy type of the bytes in memory, `carrier` the NumPy type of the values in the interpreter.
    """

    name: str
    category: int
    itemsize: int
    storage: np.dtype
    carrier: np.dtype

    def __repr__(self) -> str:
        return f"pullback.{self.name}"

    def __reduce__(self) -> tuple[Callable[[str], DType], tuple[str]]:
        return (from_name, (self.name,))

    @property
    def is_floating_point(self) -> bool:
        return self.category == FLOAT

    @property
    def is_unsigned(self) -> bool:
        """Whether it is bool or one of the integers that have no sign."""
        return self.storage.kind in "bu" and self.category != FLOAT

    @property
    def compute(self) -> DType:
        """The type that arithmetic on this type is done in: float32 for the 16-bit floats, itself otherwise."""
        return float32 if self in (float16, bfloat16) else self


def _dtype(name: str, category: int, storage: str, carrier: str | None = None) -> DType:
    stored = np.dtype(storage)
    return DType(name, category, stored.itemsize, stored, np.dtype(carrier or storage))


bool_ = _dtype("bool", BOOL, "bool")
uint8 = _dtype("uint8", INTEGER, "uint8")
uint16 = _dtype("uint16", INTEGER, "uint16")
uint32 = _dtype("uint32", INTEGER, "uint32")
uint64 = _dtype("uint64", INTEGER, "uint64")
int8 = _dtype("int8", INTEGER, "int8")
int16 = _dtype("int16", INTEGER, "int16")
int32 = _dtype("int32", INTEGER, "int32")
int64 = _dtype("int64", INTEGER, "int64")
float16 = _dtype("float16", FLOAT, "float16", "float32")
#: NumPy has no bfloat16: its bytes are held as uint16, its values in float32.
bfloat16 = _dtype("bfloat16", FLOAT, "uint16", "float32")
float32 = _dtype("float32", FLOAT, "float32")
float64 = _dtype("float64", FLOAT, "float64")

ALL = (bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float16, bfloat16, float32, float64)
_SIGNED = {d.itemsize: d for d in (int8, int16, int32, int64)}
_BY_NAME = {d.name: d for d in ALL}
_BY_NUMPY = {d.storage: d for d in ALL if d is not bfloat16}


def from_name(name: str) -> DType:
    """The dtype called `name`, such as "float32"."""
    return _BY_NAME[name]


def from_numpy(dtype: np.dtype) -> DType | None:
    """The dtype whose storage is exactly `dtype`, or None where there is none."""
    return _BY_NUMPY.get(np.dtype(dtype))


def promote(a: DType, b: DType) -> DType:
    """The smallest type that holds both, by PyTorch's table for tensors of equal standing.

    The higher category wins; the two 16-bit floats meet in float32. An unsigned integer with a signed one that is not
    wider needs the signed one of twice its size, which PyTorch has for uint8 only and NumPy for all but uint64: with
    that there is none, and DTypeError is raised.
    """
    if a is b:
        return a
    if a.category != b.category:
        return a if a.category > b.category else b
    wider, other = (a, b) if a.itemsize > b.itemsize else (b, a)
    if a.category == FLOAT:
        return float32 if a.itemsize == b.itemsize else wider
    if a.is_unsigned == b.is_unsigned or (other.is_unsigned and wider.itemsize > other.itemsize):
        return wider
    unsigned = a if a.is_unsigned else b
    signed = _SIGNED.get(2 * unsigned.itemsize)
    if signed is None:
        raise DTypeError(
            f"no integer dtype holds every {a.name} and every {b.name}; convert one of them, such as with .to(pb.int64)"
        )
    return signed


def round_bfloat16(values: np.ndarray) -> np.ndarray:
    """`values` (float32) rounded to the nearest bfloat16, ties to even, still in float32."""
    return decode_bfloat16(encode_bfloat16(values))


def encode_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 values to the uint16 bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = np.asarray(values, np.float32, order="C").view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)


def decode_bfloat16(bits: np.ndarray) -> np.ndarray:
    """uint16 bits of bfloat16 numbers to float32, exactly."""
    return (np.asarray(bits).astype(np.uint32, order="C") << 16).view(np.float32)


def to_carrier(stored: np.ndarray, dtype: DType) -> np.ndarray:
    """Values as the interpreter computes with them, from the array as it is stored."""
    return decode_bfloat16(stored) if dtype is bfloat16 else stored.astype(dtype.carrier, copy=False)


def to_storage(values: np.ndarray, dtype: DType) -> np.ndarray:
    """The array as it is stored, from values in the carrier type; rounds the 16-bit floats."""
    if dtype is bfloat16:
        return encode_bfloat16(values)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values).astype(dtype.storage, copy=False)


def round_to(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Values in the carrier type, rounded to what `dtype` can hold."""
    if dtype is bfloat16:
        return round_bfloat16(np.asarray(values))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values).astype(dtype.storage, copy=False).astype(dtype.carrier, copy=False)
