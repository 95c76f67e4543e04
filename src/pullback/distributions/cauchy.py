"""The Cauchy distribution around `loc`, half of it within `scale`. It has no mean."""

from __future__ import annotations

import math

from ..tensor import Tensor
from ..tensor.random import rand
from .distribution import Shape
from .located import Located


class Cauchy(Located):
    """The Cauchy distribution around `loc`, half of it within `scale`. It has no mean."""

    @property
    def mean(self) -> Tensor:
        """NaN: there is none."""
        return self.loc.detach() * 0 + math.nan

    @property
    def mode(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Infinity."""
        return self.loc.detach() * 0 + math.inf

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """By inverting the distribution."""
        unit = rand(self._extended_shape(sample_shape), dtype=self.loc.dtype)
        return self.icdf(unit)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        distance = (self._value(value) - self.loc) / self.scale
        return -math.log(math.pi) - self.scale.log() - (distance**2).log1p()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of `value` and less."""
        return ((self._value(value) - self.loc) / self.scale).atan() / math.pi + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose `cdf` is `value`."""
        return (math.pi * (value - 0.5)).tan() * self.scale + self.loc

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return math.log(4 * math.pi) + self.scale.log()


__all__ = ["Cauchy"]
