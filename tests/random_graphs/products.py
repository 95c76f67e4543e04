"""Reductions, matrix products, attention and convolution."""

from __future__ import annotations

import math
from dataclasses import replace

from pullback.graph.node import Node
from pullback.graph.types import bfloat16, bool_, float16, float32, float64, int32
from pullback.ops import attention, contraction, convolution, movement, reduction
from pullback.ops import elementwise as e
from pullback.ops.primitive import apply

from .maker import LARGEST, PRECISION, SLACK, Family, Known, Maker, rounded

PRODUCTS = Family()


@PRODUCTS.operation(4)
def _reductions(make: Maker) -> Known:
    x = make.operand(1, 2)
    axes = make.axes(len(x.shape))
    count = math.prod(x.shape[axis] for axis in axes)
    build = make.choose((reduction.reduce_sum, reduction.reduce_sum, reduction.reduce_max, reduction.reduce_min))
    if build is reduction.reduce_min and x.finite and x.dtype.is_floating_point and count > 1:
        size, error = 4 * x.size * x.size * count, 16 * x.size * x.error * count
        return rounded(reduction.spread(x.node, axes), size, error, None, True, 4 * (4 + count))
    if build is not reduction.reduce_sum:
        return replace(x, node=build(x.node, axes)) if count else x
    return rounded(build(x.node, axes), x.size * count, x.error * count, x.scale, x.finite, 1 + count)


@PRODUCTS.operation(2)
def _softmax(make: Maker) -> Known:
    """The chain that row kernels are made for: two reductions along one axis and what stands between them."""
    x = make.operand(2, finite=True)
    if not x.shape or 0 in x.shape:
        return x
    axes = (make.choose((len(x.shape) - 1, 0)),)
    kept = reduction.kept_shape(x.shape, axes)
    shifted = e.sub(x.node, movement.reshape(reduction.reduce_max(x.node, axes), kept))
    raised = e.exp(shifted)
    node = e.div(raised, movement.reshape(reduction.reduce_sum(raised, axes), kept))
    count = x.shape[axes[0]]
    return rounded(node, 1.0, 4 * x.error + 4 * PRECISION[x.dtype] * (x.size + count), None, True, 4 * SLACK)


@PRODUCTS.operation(3)
def _matrix_product(make: Maker) -> Known:
    x = make.operand(2) if make.chance(0.9) else make.operand(1)
    if len(x.shape) < 2:
        x = make.leaf((make.dimension(), make.dimension()), x.dtype)
    *batch, rows, inner = x.shape
    columns = make.dimension()
    if math.prod((*batch, inner, columns)) > LARGEST or math.prod((*batch, rows, columns)) > LARGEST:
        return x
    y = make.leaf((*batch, columns, inner) if (turned := make.chance(0.4)) else (*batch, inner, columns), x.dtype)
    right = movement.swap_last(y.node) if turned else y.node
    left = x.node
    size = x.size * y.size * max(inner, 1)
    scale = None if x.scale is None or y.scale is None else x.scale + y.scale
    error = (x.error * y.size) * max(inner, 1)
    node = contraction.matmul(left, right)
    return rounded(node, size, error, scale, x.finite and y.finite, 1 + inner)


@PRODUCTS.operation(2)
def _product_of_rounded(make: Maker) -> Known:
    """A product of operands that are converted to 16 bits for it, by way of another dtype or as they are: numbers that
    all of these hold, so that only the result is rounded.
    """
    rows, inner, columns = (make.dimension() for _ in range(3))
    to, between = make.choose((bfloat16, float16)), make.choose((float32, int32, bool_, float64, float16, bfloat16))
    x, y = (make.leaf(shape, float32, finite=True) for shape in ((rows, inner), (inner, columns)))
    left = movement.flip(x.node, (0,)) if make.chance(0.3) else x.node
    product = contraction.matmul(e.convert(e.convert(left, between), to), e.convert(y.node, to))
    size = (1.0 if between is bool_ else x.size) * y.size * max(inner, 1)
    known = rounded(product, size, 0.0, None, True)
    return replace(known, node=e.convert(product, float32))


@PRODUCTS.operation(1)
def _summed_product(make: Maker) -> Known:
    """All elements of a product, or its columns, summed as they are or squared: what its own kernel can do."""
    x = _matrix_product(make)
    if not x.shape or not x.dtype.is_floating_point or 0 in x.shape:
        return x
    if make.chance(0.5):
        size, error = x.size * x.size, 2 * x.size * x.error
        x = rounded(e.mul(x.node, x.node), size, error, None if x.scale is None else 2 * x.scale, x.finite)
    axes = tuple(range(len(x.shape) - int(make.chance(0.5))))
    count = math.prod(x.shape[axis] for axis in axes)
    return rounded(reduction.reduce_sum(x.node, axes), x.size * count, x.error * count, x.scale, x.finite, 1 + count)


@PRODUCTS.operation(2)
def _attention(make: Maker) -> Known:
    """Attention and what belongs to it, the gradients with the log_sum and delta that go with them."""
    query = make.operand(2, finite=True)
    if len(query.shape) < 2:
        query = make.leaf((make.dimension(), make.dimension()), query.dtype, finite=True)
    *batch, length, features = query.shape
    keys, width = make.dimension(), make.dimension()
    largest = math.prod((*batch, max(length, keys), max(features, width, keys, length)))
    if largest > LARGEST or 0 in (length, keys):
        return query
    key, value, cotangent = (
        make.leaf((*batch, *shape), query.dtype, finite=True)
        for shape in ((keys, features), (keys, width), (length, width))
    )
    scores = (*batch, length, keys)
    mask, choice = (make.leaf(scores, bool_) if make.chance(0.4) else None for _ in range(2))
    scale, kept = 0.5 / max(features, 1), None if choice is None else 1.5
    nodes = query.node, key.node, value.node
    result = attention.attention(*nodes, scale, make.chance(0.5), mask and mask.node, choice and choice.node, kept)
    epsilon = PRECISION[query.dtype]
    size, reach = 0.5 * query.size * key.size, 1 + keys + length + features + width
    relative = key.size * query.error + 4 * SLACK * epsilon * (reach + size)
    log_sum, *gradients = _attention_gradients(result, cotangent.node)
    slope = 2 * (kept or 1.0) * max(width, 1) * value.size * cotangent.size
    every = [
        (result, (kept or 1.0) * value.size),
        (log_sum, size + math.log(keys) + 1),
        (gradients[0], scale * slope * key.size),
        (gradients[1], scale * slope * length * (query.size + 1)),
        (gradients[2], (kept or 1.0) * length * cotangent.size),
    ]
    node, bound = make.choose(every)
    finite = node is not log_sum or mask is None  # a query that may look at nothing has infinity
    return Known(node, bound, 4 * bound * relative + 1e-30, None, finite)


def _attention_gradients(result: Node, cotangent: Node) -> list[Node]:
    """log_sum and the three gradients of an attention node."""
    options = {name: value for name, value in result.attributes.items() if name != "axes"}
    log_sum = apply(attention.LOG_SUM, *result.inputs, **options)
    delta = reduction.reduce_sum(e.mul(result, cotangent), (len(result.shape) - 1,))
    operands = (*result.inputs, log_sum, delta, cotangent)
    return [log_sum, *(apply(op, *operands, axes=None, **options) for op in attention.GRADIENTS)]


@PRODUCTS.operation(2)
def _convolved(make: Maker) -> Known:
    """Some value's elements as images with groups and channels, under a window of any steps."""
    x = make.operand(2, finite=True)
    left = math.prod(x.shape)
    if not 0 < left <= 800:
        return x
    shape: list[int] = []
    for _ in range(make.choose((3, 4, 4))):
        shape.append(make.choose([d for d in range(1, min(left, 20) + 1) if left % d == 0]))
        left //= shape[-1]
    shape.append(left)
    n, *sizes, groups, channels = shape
    taps = [1 + make.below(4) for _ in sizes]
    window = make.leaf((*taps, groups, channels, make.choose((1, 2, 3, 9))), x.dtype, finite=True)
    stride, apart, spread = ([1 + make.below(3) for _ in sizes] for _ in range(3))
    padding = [(make.below(5) - 1, make.below(5) - 1) for _ in sizes]
    places = list(map(convolution.output_size, sizes, taps, stride, padding, apart, spread))
    if 0 in places or n * math.prod(places) * groups * window.node.shape[-1] > LARGEST:
        return x
    node = convolution.convolution(
        movement.reshape(x.node, tuple(shape)), window.node, tuple(stride), tuple(padding), tuple(apart), tuple(spread)
    )
    inner = math.prod(taps) * channels
    scale = None if x.scale is None or window.scale is None else x.scale + window.scale
    size, error = x.size * window.size * inner, x.error * window.size * inner
    return rounded(node, size, error, scale, True, 1 + inner)
