"""Student's t and the F distribution, quotients of normal and gamma numbers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.draws import standard_gamma
from ..tensor.limits import finfo
from ..tensor.random import randn
from . import constraints
from .distribution import Distribution, Shape
from .utils import broadcast_all


class StudentT(Distribution):
    """loc + scale * x, where x is a normal number divided by the root of a mean of `df` squares of such.

    Its values have no gradient to `df` here, so `rsample` is not there.
    """

    arg_constraints: ClassVar = {"df": constraints.positive, "loc": constraints.real, "scale": constraints.positive}
    support = constraints.real

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None):
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        super().__init__(self.df.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """`loc`, or NaN where `df` is 1 or less."""
        return where(self.df <= 1, math.nan, self.loc)

    @property
    def mode(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """scale² df / (df - 2), infinite where `df` is 2 or less, and NaN where it is 1 or less."""
        found = self.scale.square() * self.df / (where(self.df > 2, self.df, 3.0) - 2)
        return where(self.df > 2, found, where(self.df > 1, math.inf, math.nan))

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """A normal number divided by the root of a gamma number. A host call."""
        shape = self._extended_shape(sample_shape)
        df = self.df.detach().expand(shape)
        chance = randn(shape, dtype=df.dtype) * (2 * standard_gamma(0.5 * df) / df).rsqrt()
        return self.loc.detach() + self.scale.detach() * chance

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        df, y = self.df, (self._value(value) - self.loc) / self.scale
        constant = (0.5 * df).lgamma() - (0.5 * (df + 1)).lgamma() + 0.5 * (df.log() + math.log(math.pi))
        return -0.5 * (df + 1) * (y.square() / df).log1p() - constant - self.scale.log()

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        half, more = 0.5 * self.df, 0.5 * (self.df + 1)
        beta = half.lgamma() + math.lgamma(0.5) - more.lgamma()
        return self.scale.log() + more * (more.digamma() - half.digamma()) + 0.5 * self.df.log() + beta


class FisherSnedecor(Distribution):
    """The quotient of means of `df1` and `df2` squares of normal numbers.

    Its values have no gradient to the parameters here, so `rsample` is not there.
    """

    arg_constraints: ClassVar = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None):
        self.df1, self.df2 = broadcast_all(df1, df2)
        super().__init__(self.df1.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """df2 / (df2 - 2), or NaN where `df2` is 2 or less."""
        df2 = where(self.df2 <= 2, math.nan, self.df2)
        return df2 / (df2 - 2)

    @property
    def mode(self) -> Tensor:
        """The value of the greatest density; NaN where `df1` is 2 or less."""
        found = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return where(self.df1 <= 2, math.nan, found)

    @property
    def variance(self) -> Tensor:
        """The variance; NaN where `df2` is 4 or less."""
        df2 = where(self.df2 <= 4, math.nan, self.df2)
        return 2 * df2.square() * (self.df1 + df2 - 2) / (self.df1 * (df2 - 2).square() * (df2 - 4))

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Gamma numbers divided by such. Host calls."""
        shape = self._extended_shape(sample_shape)
        one, other = self.df1.detach().expand(shape), self.df2.detach().expand(shape)
        tiny = finfo(one.dtype).tiny
        below = (standard_gamma(0.5 * other) / other).clamp(min=tiny)
        return (standard_gamma(0.5 * one) / one / below).clamp(min=tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        value, one, other, ratio = self._value(value), self.df1 * 0.5, self.df2 * 0.5, self.df1 / self.df2
        constant = (one + other).lgamma() - one.lgamma() - other.lgamma() + one * ratio.log()
        return constant + (one - 1) * value.log() - (one + other) * (ratio * value).log1p()


__all__ = ["FisherSnedecor", "StudentT"]
