"""Adam with a byte for both moments of an element: Li, Chen & Zhu, "Memory Efficient Optimizers with 4-bit States"
(2023), as its authors publish it (thu-ml/low-bit-optimizers).

The first moment has a scale for each block of 128 elements. The second has rank-1 normalization: the scale of an
element is the least of the greatest numbers that stand in its row, its column, and so on by every axis; with one axis
that is longer than 1, the greatest of its block. The codes are those of `ops.moment_code`.

The greatest numbers by axis must be known before the first code is written, and depend on all of the new moment. It is
computed for each axis and not kept, from the gradient and the old codes, 5 bytes an element; and again in the pass that
updates parameter and codes, block by block. A matrix's update so moves 24 bytes an element in three passes, where one
in float32 moves 28.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import reduce
from inspect import signature
from typing import Any

from ..graph.node import Node, Shape
from ..graph.types import float32, uint8
from ..ops.dynamic_code import float_of_bits, magnitude_bits
from ..ops.elementwise import lt, mul, where
from ..ops.moment_code import ZEROS, apart, decode_first, decode_second, encode_moments
from ..ops.movement import expand, reshape
from ..ops.primitive import user_source
from ..ops.reduction import reduce_max
from ..quant.blockwise import blocks_of, greatest, inverse, repeated
from ..tensor import Tensor
from .adam import Adam, bounded, decayed, squares
from .adamw import AdamW
from .groups import Group, check_options
from .optimizer import Optimizer, Slot

#: parameters of no more elements keep their moments in full
LARGEST_IN_FULL = 4096
#: elements of the first moment that share a scale
_BLOCK = 128
_CODES, _FIRST, _SECOND = "moments", "exp_avg_scales", "exp_avg_sq_scales"


class _InBlocks:
    """The scales of the second moment of a vector: of each block the greatest element."""

    def __init__(self, shape: Shape, held: list[Node]):
        self._held = held[0]

    def measure(self, make: Callable[[int], Node]) -> None:
        """Look at the new moment before its codes are made; blocks are looked at one by one."""

    def old(self, like: Node) -> Node:
        """The scales by which the codes were made, one an element."""
        return repeated(self._held, like, _BLOCK)

    def shares(self, new: Node) -> tuple[Node, list[Node]]:
        """The new moment as shares of its scales, and these."""
        scales = greatest(new, _BLOCK)
        return mul(new, repeated(inverse(scales), new, _BLOCK)), [scales]


class _ByAxis:
    """The scales of the second moment of a matrix, or what has more axes: the least of what is the greatest along the
    others at an element's place of each axis.
    """

    def __init__(self, shape: Shape, held: list[Node]):
        self._shape, self._held, self._new = shape, held, list[Node]()

    def measure(self, make: Callable[[int], Node]) -> None:
        """Find the greatest numbers of the new moment, which `make` gives for each axis apart."""
        axes = range(len(self._shape))
        for axis in axes:
            bits = magnitude_bits(make(axis))
            found = float_of_bits(reduce_max(bits, tuple(other for other in axes if other != axis)))
            self._new.append(reshape(found, self._held[axis].shape))

    def old(self, like: Node) -> Node:
        """The scales by which the codes were made, one an element."""
        return expand(reduce(_lesser, self._held), self._shape)

    def shares(self, new: Node) -> tuple[Node, list[Node]]:
        """The new moment as shares of its scales, and these."""
        # the quotient of the least of them is the greatest of their quotients, of which there are few
        of_all = reduce(_greater, [inverse(scales) for scales in self._new])
        return mul(new, expand(of_all, self._shape)), self._new


def _lesser(x: Node, y: Node) -> Node:
    """The lesser, in one instruction where `minimum` takes three to keep a NaN of x: of a NaN, both scales are NaN."""
    return where(lt(x, y), x, y)


def _greater(x: Node, y: Node) -> Node:
    return where(lt(y, x), x, y)


def _is_vector(shape: Shape) -> bool:
    """Whether at most one axis is longer than 1: the other's one scale for each element would be as long as it."""
    return sum(size > 1 for size in shape) < 2


def _second_slots(shape: Shape) -> dict[str, Shape]:
    """The scales of a second moment, by name: along every axis, or one a block."""
    if _is_vector(shape):
        return {_SECOND: (blocks_of(math.prod(shape), _BLOCK),)}
    ones = [1] * len(shape)
    return {f"{_SECOND}_{axis}": (*ones[:axis], size, *ones[axis + 1 :]) for axis, size in enumerate(shape)}


class _FourBits(Optimizer):
    """An Adam that keeps its moments as codes. It stands before the class whose update it makes, and takes its
    arguments.
    """

    def __init__(self, params: Iterable[Any], *args: Any, **options: Any):
        make = super().__init__
        check_options(type(self), make, (params, *args), options)
        make(params, *args, **options)

    def __init_subclass__(cls) -> None:
        """Show the arguments of the class whose update it makes."""
        if _FourBits in cls.__bases__:
            cls.__signature__ = signature(cls.__bases__[-1])  # type: ignore[attr-defined]

    def _check_hyperparameters(self, group: Group) -> None:
        super()._check_hyperparameters(group)
        if group["amsgrad"]:
            raise ValueError(
                f"{type(self).__name__} has no amsgrad: its codes are for two moments, and not for a maximum of them "
                f"(at {user_source()}). AdamW8bit and Adam8bit have it."
            )

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        if parameter.numel() <= LARGEST_IN_FULL:
            return super()._slots(parameter, group)
        blocks = (blocks_of(parameter.numel(), _BLOCK),)
        scales = {_FIRST: blocks, **_second_slots(parameter.shape)}
        codes = Slot(parameter.shape, ZEROS, uint8)
        return {_CODES: codes, **{name: Slot(shape, dtype=float32) for name, shape in scales.items()}}

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        if _CODES not in state:
            super()._update(parameter, bounded(gradient, parameter), state, group, rate)
            return
        names = list(_second_slots(parameter.shape))
        kind = _InBlocks if _is_vector(parameter.shape) else _ByAxis
        second = kind(parameter.shape, [state[name].node for name in names])
        second.measure(lambda axis: _next_squares(parameter, gradient, state, group, rate, second, axis))
        moments = _decoded(state, second)
        super()._update(parameter, bounded(gradient, parameter), {**state, **moments}, group, rate)
        first, squared = (moments[name].node for name in ("exp_avg", "exp_avg_sq"))
        scales = greatest(first, _BLOCK)
        shares, its_scales = second.shares(squared)
        codes = encode_moments(mul(first, repeated(inverse(scales), first, _BLOCK)), shares)
        for name, node in zip((_CODES, _FIRST, *names), (codes, scales, *its_scales), strict=True):
            state[name].copy_(Tensor._wrap(node))


def _decoded(state: dict[str, Tensor], second: _InBlocks | _ByAxis) -> dict[str, Tensor]:
    codes = state[_CODES].node
    scales = repeated(state[_FIRST].node, codes, _BLOCK)
    return {
        "exp_avg": Tensor._wrap(mul(decode_first(codes), scales)),
        "exp_avg_sq": Tensor._wrap(mul(decode_second(codes), second.old(codes))),
    }


def _next_squares(
    parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor,
    second: _InBlocks | _ByAxis, number: int,
) -> Node:  # fmt: skip
    """All of the new second moment, to be measured: made apart, so that it is not kept for who makes it anew."""
    _, g = decayed(parameter, bounded(gradient, parameter), group, rate)
    codes = apart(state[_CODES].node, number)
    held = mul(decode_second(codes), second.old(codes))
    return squares(g, Tensor._wrap(held), group["betas"][1]).node


class Adam4bit(_FourBits, Adam):
    """`Adam` with both moments of an element in one byte: see `Adam` for the arguments and `AdamW4bit` for the rest."""


class AdamW4bit(_FourBits, AdamW):
    """`AdamW` with both moments of an element in one byte: Li, Chen & Zhu, "Memory Efficient Optimizers with 4-bit
    States" (2023).

    The state holds about 1.04 bytes a parameter and not 8: codes under "moments", a float32 for each block of 128
    elements under "exp_avg_scales", and one for each row and each column under "exp_avg_sq_scales_0" and "_1": of
    matrices of few rows 4 / rows bytes a parameter more. (Of a vector, or a matrix of one row or column, one a block;
    of more axes one a place of each.) The update decodes, computes in float32 what `AdamW` computes, and encodes, in
    one pass, after passes that measure the second moment. Parameters of at most 4,096 elements keep their state in
    full. Gradients beyond ±2^63, whose squares overflow, count as that. `amsgrad` raises ValueError.

    >>> w = pb.ones(64, 128, requires_grad=True)
    >>> optimizer = pb.optim.AdamW4bit([w], lr=1e-2)
    >>> w.square().sum().backward()
    >>> optimizer.step()
    >>> optimizer.state[w]["moments"].dtype, optimizer.state[w]["exp_avg_scales"].shape
    (pullback.uint8, pullback.Size([64]))
    """


__all__ = ["Adam4bit", "AdamW4bit"]
