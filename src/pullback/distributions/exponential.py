"""The exponential distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.creation import zeros, zeros_like
from . import constraints
from .distribution import Distribution, Shape
from .utils import broadcast_all


class Exponential(Distribution):
    """The exponential distribution of mean 1 / rate."""

    arg_constraints: ClassVar = {"rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, rate: Any, validate_args: bool | None = None):
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """1 / rate."""
        return self.rate.reciprocal()

    @property
    def mode(self) -> Tensor:
        """0."""
        return zeros_like(self.rate)

    @property
    def stddev(self) -> Tensor:
        """1 / rate."""
        return self.rate.reciprocal()

    @property
    def variance(self) -> Tensor:
        """1 / rate²."""
        return self.rate.pow(-2)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """A standard exponential number / rate."""
        return zeros(self._extended_shape(sample_shape), dtype=self.rate.dtype).exponential_() / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        return self.rate.log() - self.rate * self._value(value)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of `value` and less."""
        return 1 - (-self.rate * self._value(value)).exp()

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose `cdf` is `value`."""
        return -(-value).log1p() / self.rate

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return 1.0 - self.rate.log()


__all__ = ["Exponential"]
