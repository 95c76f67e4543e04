"""DLPack capsules (version 1.0, and those before it): arrays passed between libraries without a copy.

NumPy makes and reads the capsules. It has no bfloat16, so those go through it as the uint16 of their bits, and the type
that the capsule states is rewritten on the way out and on the way in.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

_UNSIGNED, _BFLOAT = 1, 4
_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_name_of = ctypes.pythonapi.PyCapsule_GetName
_name_of.restype, _name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]


class _Tensor(ctypes.Structure):
    """DLTensor, as dlpack.h declares it."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("type_code", ctypes.c_uint8),
        ("type_bits", ctypes.c_uint8),
        ("type_lanes", ctypes.c_uint16),
    )


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned up to its tensor; before version 1.0 the tensor stands first."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


def _tensor_in(capsule: Any) -> _Tensor:
    name = _name_of(capsule)
    address = _pointer_of(capsule, name)
    return _Versioned.from_address(address).tensor if name == b"dltensor_versioned" else _Tensor.from_address(address)


def exported(array: np.ndarray, is_bfloat16: bool, **options: Any) -> Any:
    """The capsule of an array; of bfloat16 the array holds the bits. `options` are those of `__dlpack__`."""
    capsule = array.__dlpack__(**options)
    if is_bfloat16:
        _tensor_in(capsule).type_code = _BFLOAT
    return capsule


class _Passed:
    """A capsule that NumPy is to read."""

    def __init__(self, capsule: Any):
        self.capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def imported(source: Any, copy: bool | None = None) -> tuple[np.ndarray, bool]:
    """The array on the memory of any object that has `__dlpack__`, and whether it holds the bits of bfloat16.

    BufferError where the memory is not this machine's own.
    """
    device = tuple(int(part) for part in source.__dlpack_device__())
    if device[0] != 1:
        raise BufferError(f"from_dlpack: the tensor is on DLPack device {device}; move it to the CPU first")
    try:
        capsule = source.__dlpack__(max_version=(1, 0), copy=copy)
    except TypeError:  # an exporter from before version 1.0 takes no such arguments
        capsule = source.__dlpack__()
    tensor = _tensor_in(capsule)
    is_bfloat16 = tensor.type_code == _BFLOAT and tensor.type_bits == 16
    if is_bfloat16:
        tensor.type_code = _UNSIGNED
    array = np.from_dlpack(_Passed(capsule))
    return (array.copy() if copy else array), is_bfloat16


__all__ = ["exported", "imported"]
