"""The half-normal distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.creation import zeros_like
from ..tensor.random import randn
from . import constraints
from .distribution import Distribution, Shape
from .normal import Normal
from .utils import broadcast_all


class HalfNormal(Distribution):
    """The size of normal numbers of mean 0 and standard deviation `scale`."""

    arg_constraints: ClassVar = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, scale: Any, validate_args: bool | None = None):
        (scale,) = broadcast_all(scale)
        self.scale = self._parameter("scale", scale, validate_args)
        super().__init__(scale.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """scale * sqrt(2 / π)."""
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def mode(self) -> Tensor:
        """0."""
        return zeros_like(self.scale)

    @property
    def variance(self) -> Tensor:
        """scale² (1 - 2 / π)."""
        return self.scale.pow(2) * (1 - 2 / math.pi)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """The size of scale * a standard normal number."""
        return (self.scale * randn(self._extended_shape(sample_shape), dtype=self.scale.dtype)).abs()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density: -infinity below 0."""
        value = self._value(value)
        found = Normal(zeros_like(self.scale), self.scale, validate_args=False).log_prob(value) + math.log(2)
        return where(value >= 0, found, -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of `value` and less."""
        return 2 * Normal(0.0, self.scale, validate_args=False).cdf(self._value(value)) - 1

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose `cdf` is `value`."""
        return Normal(0.0, self.scale, validate_args=False).icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return 0.5 + 0.5 * math.log(2 * math.pi) + self.scale.log() - math.log(2)


__all__ = ["HalfNormal"]
