"""Tensors as codes of one byte and a float32 for each block of 256 elements: Dettmers et al., "8-bit Optimizers via
Block-wise Quantization" (2022).

The scale of a block is the greatest magnitude in it, and the codes those of `ops.dynamic_code`, for numbers from -1 to
1. Blocks are taken in the order in which the elements lie; the last one may have fewer. It is
filled up with zeros, which lie nowhere and make no magnitude greater.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..errors import DTypeError, ShapeError
from ..graph.node import Node
from ..graph.types import float32, uint8
from ..ops import dynamic_code
from ..ops.dynamic_code import float_of_bits, magnitude_bits
from ..ops.elementwise import absolute, convert, div, maximum, mul, scalar
from ..ops.movement import expand, pad, reshape, slice_
from ..ops.primitive import user_source
from ..ops.reduction import reduce_max
from ..tensor import Tensor
from ..tensor.creation import arange
from ..tensor.grad_modes import no_grad
from .operands import check_floats, check_tensors

#: elements that share a scale
BLOCK = 256
#: the least normal float32
_LEAST = 2.0**-126


def decoded(codes: Node, scales: Node, signed: bool) -> Node:
    """Codes as what they stand for: float32."""
    values = dynamic_code.decode_signed(codes) if signed else dynamic_code.decode_unsigned(codes)
    return mul(values, repeated(scales, codes))


def encoded(values: Node, signed: bool) -> tuple[Node, Node]:
    """The codes of values and the scale of each block, its greatest magnitude."""
    scales = greatest(values)
    shares = mul(values, repeated(inverse(scales), values))
    return (dynamic_code.encode_signed(shares) if signed else dynamic_code.encode_unsigned(shares)), scales


def greatest(values: Node, block: int = BLOCK) -> Node:
    """The greatest magnitude of each block of values: float32."""
    size = math.prod(values.shape)
    blocks = blocks_of(size, block)
    filled = pad(reshape(magnitude_bits(values), (size,)), ((0, blocks * block - size),))
    return float_of_bits(reduce_max(reshape(filled, (blocks, block)), (1,)))


def inverse(scales: Node) -> Node:
    """What values are multiplied by to be shares of their scales: one quotient a scale."""
    # that of a scale below the least normal number would overflow
    return div(scalar(1.0, scales), maximum(scales, scalar(_LEAST, scales)))


def repeated(scales: Node, like: Node, block: int = BLOCK) -> Node:
    """Each scale for all elements of its block."""
    blocks = scales.shape[0]
    filled = reshape(expand(reshape(scales, (blocks, 1)), (blocks, block)), (blocks * block,))
    return reshape(slice_(filled, ((0, math.prod(like.shape)),)), like.shape)


def blocks_of(size: int, block: int = BLOCK) -> int:
    """How many blocks hold `size` elements."""
    return -(-size // block)


def quantize_blockwise(x: Tensor, signed: bool = True) -> tuple[Tensor, Tensor]:
    """The codes of `x`, uint8 of its shape, and the scale of each block, float32[ceil(elements / 256)].

    `signed=False` is for values that are not negative, with twice as many codes for each magnitude; of others it takes
    the magnitude. The error of an element is at most 0.0071 of its block's scale (0.0036 unsigned), and falls with its
    magnitude: a tenth of the scale has half as many codes, and the error a fifth. A NaN or an infinity makes its
    block's scale, and so all that is decoded of it, NaN or infinite. It has no gradient. Raises DTypeError
    for integers.

    >>> codes, scales = pb.quant.quantize_blockwise(pb.tensor([0.5, -2.0, 0.0]))
    >>> codes.dtype, scales
    (pullback.uint8, tensor([2.]))
    >>> pb.quant.dequantize_blockwise(codes, scales)
    tensor([ 0.4953, -1.9859,  0.0000])
    """
    check_floats("quantize_blockwise", x=x)
    with no_grad():
        node = convert(x.detach().node, float32)
        codes, scales = encoded(node if signed else absolute(node), signed)
        return Tensor._wrap(codes), Tensor._wrap(scales)


def dequantize_blockwise(codes: Tensor, scales: Tensor, signed: bool = True) -> Tensor:
    """What `quantize_blockwise` has made codes of: float32 of their shape, each the map's number times its scale.

    Raises DTypeError or ShapeError where codes or scales are not of the kind that it gives.
    """
    check_tensors("dequantize_blockwise", codes=codes, scales=scales)
    if codes.dtype is not uint8 or scales.dtype is not float32:
        raise DTypeError(
            f"dequantize_blockwise takes uint8 codes and float32 scales, got {codes.dtype.name} and "
            f"{scales.dtype.name} (at {user_source()})"
        )
    if scales.shape != (blocks_of(codes.numel()),):
        raise ShapeError(
            f"dequantize_blockwise: {codes.numel()} codes have {blocks_of(codes.numel())} scales, got "
            f"{list(scales.shape)} (at {user_source()})"
        )
    with no_grad():
        return Tensor._wrap(decoded(codes.detach().node, scales.detach().node, signed))


def dynamic_map(signed: bool = True) -> Tensor:
    """What codes stand for, in ascending order: float32[256], bitsandbytes' map to a unit in the last place.

    >>> pb.quant.dynamic_map()[-2:]
    tensor([0.9930, 1.0000])
    """
    codes = arange(256).to(uint8)
    read: Callable[[Node], Node] = dynamic_code.decode_signed if signed else dynamic_code.decode_unsigned
    with no_grad():
        return Tensor._wrap(read(codes.node))


__all__ = ["BLOCK", "dequantize_blockwise", "dynamic_map", "quantize_blockwise"]
