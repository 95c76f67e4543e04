"""The gamma distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.draws import standard_gamma
from ..tensor.limits import finfo
from . import constraints
from .distribution import Distribution, Shape
from .utils import broadcast_all, lazy_property


class Gamma(Distribution):
    """The gamma distribution of shape `concentration` and mean concentration / rate.

    Its values have no gradient to the concentration here, so `rsample` is not there.
    """

    arg_constraints: ClassVar = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None):
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.rate.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """concentration / rate."""
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        """(concentration - 1) / rate, or 0 where that is negative."""
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Tensor:
        """concentration / rate²."""
        return self.concentration / self.rate.pow(2)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Values above 0. A host call."""
        shape = self._extended_shape(sample_shape)
        drawn = standard_gamma(self.concentration.detach().expand(shape)) / self.rate.detach().expand(shape)
        return drawn.clamp(min=finfo(drawn.dtype).tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        value = self._value(value)
        count, rate = self.concentration, self.rate
        return count.xlogy(rate) + (count - 1).xlogy(value) - rate * value - count.lgamma()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of `value` and less. A host call."""
        return self.concentration.igamma(self.rate * self._value(value))

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        count = self.concentration
        return count - self.rate.log() + count.lgamma() + (1.0 - count) * count.digamma()


class Chi2(Gamma):
    """The distribution of the sum of squares of `df` standard normal numbers."""

    arg_constraints: ClassVar = {"df": constraints.positive}

    def __init__(self, df: Any, validate_args: bool | None = None):
        (df,) = broadcast_all(df)
        df = self._parameter("df", df, constraints.positive, validate_args)
        super().__init__(0.5 * df, 0.5, validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        """The distribution with parameters expanded to `batch_shape`."""
        made = super().expand(batch_shape, _instance)
        made.concentration, made.rate = (x.expand(made.batch_shape) for x in (self.concentration, self.rate))
        return made

    @lazy_property
    def df(self) -> Tensor:
        """The degrees of freedom."""
        return self.concentration * 2


__all__ = ["Chi2", "Gamma"]
