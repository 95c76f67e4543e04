"""Tensors as codes of 4 bits: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs" (2023).

A code is the place in a table of 16 numbers from -1 to 1, and a block of elements, taken in the order in which they
lie, shares a scale, its greatest magnitude. NF4 has as many codes for each part of a normal distribution of the same
weight; FP4 are floats with a sign, two bits of exponent and one of mantissa. With double quantization the scales, less
their mean, are codes of 8 bits in blocks of their own. Names and layout are bitsandbytes': two codes a byte, the first
one in the upper half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import DTypeError, ShapeError
from ..graph.node import Node, Shape
from ..graph.types import DType, float32, uint8
from ..ops import dynamic_code
from ..ops.dynamic_code import float_of_bits, magnitude_bits
from ..ops.elementwise import SHIFT_RIGHT, add, bit_and, convert, div, eq, maximum, mul, scalar, where
from ..ops.movement import concatenate, expand, pad, reshape, slice_
from ..ops.primitive import apply, iota, user_source
from ..ops.reduction import reduce_max
from ..ops.table_code import decode_table, encode_table
from ..tensor import Tensor
from ..tensor.arguments import whole_number
from ..tensor.grad_modes import no_grad
from .blockwise import BLOCK, quantize_blockwise
from .operands import check_floats, check_tensors

#: NormalFloat: quantiles of the normal distribution, scaled to end at -1 and 1, with a zero; as published
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
#: floats of 4 bits, by their code: the upper half are the negative ones
FP4 = (
    0.0, 0.005208333333333333, 2 / 3, 1.0, 1 / 3, 0.5, 1 / 6, 0.25,
    -0.0, -0.005208333333333333, -2 / 3, -1.0, -1 / 3, -0.5, -1 / 6, -0.25,
)  # fmt: skip
TABLES = {"nf4": NF4, "fp4": FP4}
#: elements that may share a scale
BLOCK_SIZES = (64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class NestedState:
    """What scales were before they became codes of 8 bits: of their blocks the greatest magnitude, float32, and what
    had been subtracted from all of them, a float32 number.
    """

    absmax: Tensor
    offset: Tensor
    blocksize: int = BLOCK


@dataclass(frozen=True)
class QuantState:
    """What there is to codes of 4 bits besides themselves.

    `absmax` is the scale of each block of `blocksize` elements: float32, or with double quantization a code, uint8, to
    which `state2` belongs. `shape` and `dtype` are those of what was quantized, `quant_type` is "nf4" or "fp4".
    """

    absmax: Tensor
    shape: tuple[int, ...]
    dtype: DType
    blocksize: int = 64
    quant_type: str = "nf4"
    state2: NestedState | None = None

    @property
    def nested(self) -> bool:
        """Whether the scales are codes themselves."""
        return self.state2 is not None

    @property
    def code(self) -> tuple[float, ...]:
        """The numbers that codes stand for."""
        return TABLES[self.quant_type]


def table_of(quant_type: str, name: str) -> tuple[float, ...]:
    """The table of a kind of codes; ValueError where there is none of the name."""
    if not isinstance(quant_type, str) or quant_type not in TABLES:
        raise ValueError(f"{name}: quant_type must be one of {sorted(TABLES)}, got {quant_type!r} (at {user_source()})")
    return TABLES[quant_type]


def check_blocksize(blocksize: int, name: str) -> None:
    """Raise ValueError where blocks have another size than there is."""
    if whole_number(blocksize, name, "blocksize") not in BLOCK_SIZES:
        raise ValueError(f"{name}: blocksize must be one of {BLOCK_SIZES}, got {blocksize!r} (at {user_source()})")


# ---- nodes


def _blocks(size: int, blocksize: int) -> int:
    return -(-size // blocksize)


def _spread(scales: Node, blocksize: int) -> Node:
    """Each scale for all elements of its block: [blocks, blocksize]."""
    blocks = scales.shape[0]
    return expand(reshape(scales, (blocks, 1)), (blocks, blocksize))


def _encoded(values: Node, table: tuple[float, ...], blocksize: int) -> tuple[Node, Node]:
    """The codes of values [elements], two a byte, and the scales of their blocks.

    What is left behind whole blocks is divided by its scale, and these are multiplied by its inverse, as bitsandbytes
    does on processors: for numbers halfway between two codes it decides which.
    """
    size = values.shape[0]
    whole = size - size % blocksize
    if whole in (0, size):
        return _encoded_alike(values, table, blocksize, divides=not whole)
    parts = ((0, whole), False), ((whole, size), True)
    found = [_encoded_alike(slice_(values, (part,)), table, blocksize, divides) for part, divides in parts]
    packed, scales = zip(*found, strict=True)
    return concatenate(packed, 0), concatenate(scales, 0)


def _encoded_alike(values: Node, table: tuple[float, ...], blocksize: int, divides: bool) -> tuple[Node, Node]:
    size = values.shape[0]
    blocks = _blocks(size, blocksize)
    whole = reshape(pad(values, ((0, blocks * blocksize - size),)), (blocks, blocksize))
    scales = float_of_bits(reduce_max(magnitude_bits(whole), (1,)))
    # one quotient a block; that of a scale below the least normal number would overflow
    least = maximum(scales, scalar(2.0**-126, scales))
    inverse = div(scalar(1.0, scales), least)
    shares = div(whole, _spread(least, blocksize)) if divides else mul(whole, _spread(inverse, blocksize))
    codes = reshape(encode_table(shares, table=table), (blocks * blocksize // 2, 2))
    upper, lower = (slice_(codes, ((0, codes.shape[0]), (place, place + 1))) for place in (0, 1))
    packed = reshape(add(mul(upper, scalar(16, upper)), lower), (codes.shape[0],))
    return slice_(packed, ((0, (size + 1) // 2),)), scales


def decoded(packed: Node, scales: Node, shape: Shape, table: tuple[float, ...], blocksize: int) -> Node:
    """What codes, two a byte, stand for, by the scale of each block: float32 of `shape`.

    The operations are elementwise ones on whole blocks, which a matrix product does as it packs the operand.
    """
    size = math.prod(shape)
    blocks = _blocks(size, blocksize)
    held = reshape(packed, (math.prod(packed.shape),))
    pairs = (blocks, blocksize // 2, 2)
    whole = pad(held, ((0, blocks * blocksize // 2 - held.shape[0]),))
    both = expand(reshape(whole, (*pairs[:2], 1)), pairs)
    first = eq(iota(pairs, 2, uint8), scalar(0, both))
    codes = where(first, apply(SHIFT_RIGHT, both, count=4), bit_and(both, scalar(15, both)))
    numbers = reshape(decode_table(codes, table=table), (blocks, blocksize))
    values = mul(numbers, _spread(scales, blocksize))
    return reshape(slice_(reshape(values, (blocks * blocksize,)), ((0, size),)), shape)


def scales_of(absmax: Node, nested: tuple[Node, Node] | None) -> Node:
    """The scales of blocks, float32, out of their own codes where they have such: with (absmax, offset) of these."""
    if nested is None:
        return absmax
    greatest, offset = nested
    count, blocks = absmax.shape[0], greatest.shape[0]
    spread = slice_(reshape(_spread(greatest, BLOCK), (blocks * BLOCK,)), ((0, count),))
    return add(mul(dynamic_code.decode_signed(absmax), spread), expand(reshape(offset, (1,)), (count,)))


# ---- tensors


def quantize_4bit(
    A: Tensor, blocksize: int = 64, compress_statistics: bool = False, quant_type: str = "nf4"
) -> tuple[Tensor, QuantState]:
    """The codes of a tensor of floats, uint8[ceil(elements / 2), 1], and what belongs to them.

    `compress_statistics` is double quantization: the scales become codes of 8 bits in blocks of 256. The error of an
    element is at most 0.152 (NF4) or 0.167 (FP4) of its block's scale, and with double quantization that of the scale
    besides. A block of zeros gives zeros. A NaN or an infinity makes its block's scale, and so all that is decoded of
    it, NaN or infinite; with double quantization, which has a mean over all scales, of the whole tensor. It has no
    gradient. Raises DTypeError for integers, ValueError for a blocksize or quant_type that there is not. (bitsandbytes'
    default is FP4.)

    >>> codes, state = pb.quant.quantize_4bit(pb.tensor([0.5, -2.0, 0.0]))
    >>> codes.shape, state.absmax
    (pullback.Size([2, 1]), tensor([2.]))
    >>> pb.quant.dequantize_4bit(codes, state)
    tensor([ 0.4922, -2.0000,  0.0000])
    """
    check_floats("quantize_4bit", A=A)
    table = table_of(quant_type, "quantize_4bit")
    check_blocksize(blocksize, "quantize_4bit")
    with no_grad():
        values = convert(A.detach().node, float32)
        found, scales = _encoded(reshape(values, (A.numel(),)), table, blocksize)
        codes = Tensor._wrap(reshape(found, (found.shape[0], 1)))
        absmax, nested = Tensor._wrap(scales), None
        if compress_statistics and A.numel():
            offset = absmax.double().mean().float()  # of great scales the sum is beyond float32
            absmax, greatest = quantize_blockwise(absmax - offset)
            nested = NestedState(greatest, offset)
    return codes, QuantState(absmax, tuple(A.shape), A.dtype, blocksize, quant_type, nested)


def dequantize_4bit(A: Tensor, quant_state: QuantState) -> Tensor:
    """What `quantize_4bit` has made codes of, in its shape and dtype.

    Raises DTypeError or ShapeError where codes or scales are not of the kind that it gives.
    """
    check_tensors("dequantize_4bit", A=A)
    if not isinstance(quant_state, QuantState):
        raise TypeError(
            f"dequantize_4bit: quant_state must be the QuantState that quantize_4bit gave, got "
            f"{type(quant_state).__name__} (at {user_source()})"
        )
    state = quant_state
    size = math.prod(state.shape)
    if A.dtype is not uint8 or state.absmax.dtype is not (uint8 if state.nested else float32):
        raise DTypeError(
            f"dequantize_4bit takes uint8 codes, with scales in float32, or uint8 where they are codes, got "
            f"{A.dtype.name} and {state.absmax.dtype.name} (at {user_source()})"
        )
    wanted = (size + 1) // 2, _blocks(size, state.blocksize)
    if (A.numel(), state.absmax.numel()) != wanted:
        raise ShapeError(
            f"dequantize_4bit: {size} elements have {wanted[0]} bytes and {wanted[1]} scales, got {A.numel()} and "
            f"{state.absmax.numel()} (at {user_source()})"
        )
    with no_grad():
        nested = state.state2
        parts = None if nested is None else (nested.absmax.detach().node, nested.offset.detach().node)
        scales = scales_of(state.absmax.detach().node, parts)
        values = decoded(A.detach().node, scales, state.shape, state.code, state.blocksize)
        return Tensor._wrap(convert(values, state.dtype))


__all__ = ["FP4", "NF4", "NestedState", "QuantState", "dequantize_4bit", "quantize_4bit"]
