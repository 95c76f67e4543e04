"""The Laplace distribution: exponential to both sides of `loc`, with mean distance `scale`."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.limits import finfo
from ..tensor.random import rand
from . import constraints
from .distribution import Distribution, Shape
from .utils import broadcast_all


class Laplace(Distribution):
    """The Laplace distribution: exponential to both sides of `loc`, with mean distance `scale`."""

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        loc, scale = broadcast_all(loc, scale)
        self.loc = self._parameter("loc", loc, validate_args)
        self.scale = self._parameter("scale", scale, validate_args)
        super().__init__(loc.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """2 scale²."""
        return 2 * self.scale.square()

    @property
    def stddev(self) -> Tensor:
        """sqrt(2) scale."""
        return math.sqrt(2) * self.scale

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """By inverting the distribution."""
        unit = rand(self._extended_shape(sample_shape), dtype=self.loc.dtype) * 2 - 1
        unit = unit.clamp(min=finfo(unit.dtype).eps - 1)
        return self.loc - self.scale * unit.sign() * (-unit.abs()).log1p()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        return -(2 * self.scale).log() - (self._value(value) - self.loc).abs() / self.scale

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of `value` and less."""
        distance = self._value(value) - self.loc
        return 0.5 - 0.5 * distance.sign() * (-distance.abs() / self.scale).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose `cdf` is `value`."""
        term = value - 0.5
        return self.loc - self.scale * term.sign() * (-2 * term.abs()).log1p()

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return 1 + (2 * self.scale).log()


__all__ = ["Laplace"]
