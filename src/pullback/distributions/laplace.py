"""The Laplace distribution: exponential to both sides of `loc`, with mean distance `scale`."""

from __future__ import annotations

import math

from ..tensor import Tensor
from ..tensor.limits import finfo
from ..tensor.random import rand
from .distribution import Shape
from .located import Located


class Laplace(Located):
    """The Laplace distribution: exponential to both sides of `loc`, with mean distance `scale`."""

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
