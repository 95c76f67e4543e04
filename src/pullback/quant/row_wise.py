"""Matrices as codes of 8 bits with a scale for each row: Dettmers et al., "LLM.int8()" (2022), for weights alone.

A code is a whole number from -127 to 127, and stands for that part of 127 of the greatest magnitude in its row. Names
and meaning are bitsandbytes'.
"""

from __future__ import annotations

from ..errors import DTypeError, ShapeError
from ..graph.node import Node
from ..graph.types import DType, float32, int8
from ..ops.dynamic_code import float_of_bits, magnitude_bits
from ..ops.elementwise import convert, div, maximum, mul, rint, scalar
from ..ops.movement import expand, pad, reshape
from ..ops.primitive import user_source
from ..ops.reduction import reduce_max
from ..tensor import Tensor
from ..tensor.grad_modes import no_grad
from .operands import check_floats, check_tensors

_LARGEST = 127


def _of_rows(numbers: Node, shape: tuple[int, ...]) -> Node:
    return expand(reshape(numbers, (shape[0], 1)), shape)


def decoded_rows(codes: Node, stats: Node) -> Node:
    """What codes [rows, columns] stand for, by the greatest magnitude of each row: float32."""
    return mul(convert(codes, float32), _of_rows(mul(stats, scalar(1 / _LARGEST, stats)), codes.shape))


def int8_vectorwise_quant(A: Tensor) -> tuple[Tensor, Tensor]:
    """The codes of a matrix of floats, int8 of its shape, and the greatest magnitude of each row, float32[rows].

    The error of an element is at most 1/254 of its row's greatest magnitude. A row of zeros gives zeros; a NaN or an
    infinity makes all that is decoded of its row NaN or infinite. It has no gradient. Raises DTypeError for integers,
    ShapeError for what is no matrix.

    >>> pb.quant.int8_vectorwise_quant(pb.tensor([[0.5, -1.0], [0.0, 0.0]]))[0]
    tensor([[  64, -127],
            [   0,    0]], dtype=pullback.int8)
    """
    check_floats("int8_vectorwise_quant", A=A)
    if A.ndim != 2:
        raise ShapeError(f"int8_vectorwise_quant takes a matrix, got {list(A.shape)} (at {user_source()})")
    with no_grad():
        values = convert(A.detach().node, float32)
        # rows without elements have a zero for their greatest magnitude
        padded = values if values.shape[1] else pad(values, ((0, 0), (0, 1)))
        stats = float_of_bits(reduce_max(magnitude_bits(padded), (1,)))
        share = div(scalar(_LARGEST, stats), maximum(stats, scalar(2.0**-120, stats)))
        codes = convert(rint(mul(values, _of_rows(share, values.shape))), int8)
        return Tensor._wrap(codes), Tensor._wrap(stats)


def int8_vectorwise_dequant(A: Tensor, stats: Tensor, dtype: DType = float32) -> Tensor:
    """What `int8_vectorwise_quant` has made codes of, in `dtype`.

    Raises DTypeError or ShapeError where codes or magnitudes are not of the kind that it gives.
    """
    check_tensors("int8_vectorwise_dequant", A=A, stats=stats)
    if A.dtype is not int8 or stats.dtype is not float32:
        raise DTypeError(
            f"int8_vectorwise_dequant takes int8 codes and float32 magnitudes, got {A.dtype.name} and "
            f"{stats.dtype.name} (at {user_source()})"
        )
    if A.ndim != 2 or tuple(stats.shape) != tuple(A.shape[:1]):
        raise ShapeError(
            f"int8_vectorwise_dequant takes codes [rows, columns] and magnitudes [rows], got {list(A.shape)} and "
            f"{list(stats.shape)} (at {user_source()})"
        )
    with no_grad():
        return Tensor._wrap(convert(decoded_rows(A.detach().node, stats.detach().node), dtype))


__all__ = ["int8_vectorwise_dequant", "int8_vectorwise_quant"]
