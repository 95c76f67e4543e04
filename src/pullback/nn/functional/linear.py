"""Linear maps, one-hot vectors and layer normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...autograd.function import with_gradient
from ...errors import DTypeError, ShapeError
from ...graph.node import Node
from ...graph.types import INTEGER, int64
from ...ops import elementwise as e
from ...ops.indexing import bounded
from ...ops.primitive import constant, iota, user_source
from ...tensor import Tensor
from ...tensor.arguments import whole_number
from ...tensor.autocast_mode import lowered
from ...tensor.shapes import as_shape
from .activation import finished, widened


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b. Shapes: input [..., in], weight [out, in], bias [out], result [..., out]."""
    input, weight, bias = lowered(input, weight, bias)
    if weight.ndim not in (1, 2) or not input.ndim or input.shape[-1] != weight.shape[-1]:
        raise ShapeError(
            f"linear: the last axis of input {list(input.shape)} must have the size of the last axis of weight "
            f"{list(weight.shape)}, [out, in] (at {user_source()})"
        )
    _check_dtypes("linear", input, weight)
    product = input @ weight.T
    return product if bias is None else product + fitting("linear", "bias", bias, product)


def _check_dtypes(name: str, input: Tensor, weight: Tensor) -> None:
    if input.dtype is not weight.dtype:
        raise DTypeError(
            f"{name}: input and weight must have one dtype, got {input.dtype.name} and {weight.dtype.name} "
            f"(at {user_source()}). Convert one with .to(dtype)."
        )


def fitting(name: str, role: str, given: Tensor, result: Tensor) -> Tensor:
    """`given`, which must broadcast to the shape of `result`; ShapeError in the words of the function `name`."""
    axes = zip(reversed(given.shape), reversed(result.shape), strict=False)
    if given.ndim > result.ndim or any(size not in (1, wanted) for size, wanted in axes):
        raise ShapeError(
            f"{name}: {role} {list(given.shape)} does not broadcast to {list(result.shape)} (at {user_source()})"
        )
    return given


def indices(name: str, tensor: Tensor) -> Node:
    """An integer tensor as an int64 node; DTypeError where it is not one."""
    if tensor.dtype.category != INTEGER:
        raise DTypeError(f"{name}: indices must be integers, got {tensor.dtype.name} (at {user_source()}); use .long()")
    return e.convert(tensor.node, int64)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 vectors of `num_classes` with 1 at the named place, else 0. -1: one more than the greatest, read at
    once.
    """
    index = indices("one_hot", tensor)
    if num_classes == -1:
        if tensor.numel() == 0:
            raise ShapeError(f"one_hot: no elements to find the number of classes from (at {user_source()}); pass it")
        num_classes = int(tensor.amax().item()) + 1
    num_classes = whole_number(num_classes, "one_hot", "num_classes")
    if num_classes <= 0:
        raise ValueError(f"one_hot: num_classes must be positive, got {num_classes} (at {user_source()})")
    checked = Tensor(bounded(index, 0, num_classes, "one_hot: class"))
    return (checked.unsqueeze(-1) == class_numbers((num_classes,), 0)).long()


def class_numbers(shape: tuple[int, ...], axis: int) -> Tensor:
    """0, 1, 2 … along `axis` of `shape`, size 1 along the others: made where it is read, never stored."""
    sizes = tuple(size if a == axis else 1 for a, size in enumerate(shape))
    return Tensor(iota(sizes, axis, int64))


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axes, whose sizes are `normalized_shape`.

    Ba, Kiros & Hinton, "Layer Normalization" (2016); the variance is that of the population. The gradient is the
    three-term formula rstd * (g - mean(g) - x̂ mean(g x̂)) from x, its mean and rstd, two numbers a row.
    """
    shape = as_shape((normalized_shape,))
    if not shape or input.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"layer_norm: the last axes of input {list(input.shape)} must be normalized_shape {list(shape)} "
            f"(at {user_source()})"
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.shape != shape:
            raise ShapeError(
                f"layer_norm: {name} {list(tensor.shape)} must have normalized_shape {list(shape)} (at {user_source()})"
            )
    result = normalized(widened("layer_norm", input), tuple(range(-len(shape), 0)), math.prod(shape), eps)
    if weight is not None:
        result = result * widened("layer_norm", weight)
    if bias is not None:
        result = result + widened("layer_norm", bias)
    return finished(result, input)


def reciprocal_root(variance: Tensor, eps: float) -> Tensor:
    """1 / sqrt(variance + eps), and NaN where the variance has overflowed: 0, of which nobody would know, otherwise."""
    root = Tensor(e.sqrt(e.add(variance.node, constant(eps, variance.dtype))))
    return 1 / root + variance.detach() * 0


def normalized(x: Tensor, axes: tuple[int, ...], count: int, eps: float) -> Tensor:
    """x̂ along `axes`, of `count` elements.

    The mean and rstd keep their histories, through which the rule is differentiated a second time.
    """

    def mean(t: Tensor) -> Tensor:
        return t.sum(axes, keepdim=True) * (1 / max(count, 1))

    centre = mean(x)
    distance = x - centre
    reciprocal = reciprocal_root(mean(distance * distance), eps)
    hat = distance * reciprocal

    def rule(_: Tensor, cotangent: Tensor) -> list[Tensor]:
        return [reciprocal * (cotangent - mean(cotangent) - hat * mean(cotangent * hat))]

    return with_gradient(hat, [x], rule)
