"""The Gumbel distribution: of the greatest of many numbers."""

from __future__ import annotations

import math

from ..tensor import Tensor
from ..tensor.limits import finfo
from ..tensor.random import rand
from .distribution import Shape
from .located import Located


class Gumbel(Located):
    """The Gumbel distribution: of the greatest of many numbers."""

    @property
    def mean(self) -> Tensor:
        """loc + scale * Euler's constant."""
        return self.loc + self.scale * 0.57721566490153286

    @property
    def mode(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """π² scale² / 6."""
        return self.scale.square() * (math.pi**2 / 6)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """By inverting the distribution."""
        unit = rand(self._extended_shape(sample_shape), dtype=self.loc.dtype)
        return self.icdf(unit.clamp(min=finfo(unit.dtype).tiny, max=1 - finfo(unit.dtype).eps))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        y = (self.loc - self._value(value)) / self.scale
        return (y - y.exp()) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of `value` and less."""
        return (-((self.loc - self._value(value)) / self.scale).exp()).exp()

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose `cdf` is `value`."""
        return self.loc - self.scale * (-value.log()).log()

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return self.scale.log() + (1 + 0.57721566490153286)


__all__ = ["Gumbel"]
