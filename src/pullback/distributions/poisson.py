"""The Poisson distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.draws import poisson
from . import constraints
from .distribution import Distribution, Shape
from .utils import broadcast_all


class Poisson(Distribution):
    """The number of events of which `rate` are expected."""

    arg_constraints: ClassVar = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer

    def __init__(self, rate: Any, validate_args: bool | None = None):
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """`rate`."""
        return self.rate

    @property
    def mode(self) -> Tensor:
        """The whole number at and below `rate`."""
        return self.rate.floor()

    @property
    def variance(self) -> Tensor:
        """`rate`."""
        return self.rate

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Counts in floats."""
        return poisson(self.rate.detach().expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        rate, value = broadcast_all(self.rate, self._value(value))
        return value.xlogy(rate) - rate - (value + 1).lgamma()


__all__ = ["Poisson"]
