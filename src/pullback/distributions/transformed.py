"""Distributions that are functions of uniform, exponential, gamma and normal numbers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.creation import ones_like, tensor, zeros_like
from . import constraints
from .distribution import Distribution, Shape
from .exponential import Exponential
from .gamma import Gamma
from .gumbel import GAMMA
from .normal import Normal
from .transformed_distribution import TransformedDistribution
from .transforms import AffineTransform, ExpTransform, PowerTransform, StickBreakingTransform, Transform
from .uniform import Uniform
from .utils import broadcast_all, lazy_property


class _OfParameters(TransformedDistribution):
    """A distribution whose functions are made of its parameters, after these were looked at."""

    def __init__(self, base: Distribution, validate_args: bool | None):
        super().__init__(base, self._functions(), validate_args)
        self.transforms = self._functions()

    def _functions(self) -> list[Transform]:
        raise NotImplementedError

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        """The distribution with parameters expanded to `batch_shape`."""
        made = super().expand(batch_shape, _instance)
        made.transforms = made._functions()
        return made


class Pareto(_OfParameters):
    """scale * exp(x) of exponential numbers of the rate `alpha`."""

    arg_constraints: ClassVar = {"alpha": constraints.positive, "scale": constraints.positive}

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None):
        self.scale, self.alpha = broadcast_all(scale, alpha)
        super().__init__(Exponential(self.alpha, validate_args), validate_args)

    def _functions(self) -> list[Transform]:
        return [ExpTransform(), AffineTransform(0, self.scale)]

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """From `scale` on."""
        return constraints.greater_than_eq(self.scale.detach())

    @property
    def mean(self) -> Tensor:
        """alpha scale / (alpha - 1), infinite where `alpha` is 1 or less."""
        alpha = self.alpha.clamp(min=1)
        return alpha * self.scale / (alpha - 1)

    @property
    def mode(self) -> Tensor:
        """`scale`."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """The variance, infinite where `alpha` is 2 or less."""
        alpha = self.alpha.clamp(min=2)
        return self.scale.square() * alpha / ((alpha - 1).square() * (alpha - 2))

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return (self.scale / self.alpha).log() + (1 + self.alpha.reciprocal())


class Weibull(_OfParameters):
    """scale * x ** (1 / concentration) of standard exponential numbers."""

    arg_constraints: ClassVar = {"scale": constraints.positive, "concentration": constraints.positive}
    support = constraints.positive

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None):
        self.scale, self.concentration = broadcast_all(scale, concentration)
        super().__init__(Exponential(ones_like(self.scale), validate_args=False), validate_args)

    @lazy_property
    def concentration_reciprocal(self) -> Tensor:
        """1 / concentration."""
        return self.concentration.reciprocal()

    def _functions(self) -> list[Transform]:
        return [PowerTransform(self.concentration_reciprocal), AffineTransform(0, self.scale)]

    @property
    def mean(self) -> Tensor:
        """scale Γ(1 + 1 / concentration)."""
        return self.scale * (1 + self.concentration_reciprocal).lgamma().exp()

    @property
    def mode(self) -> Tensor:
        """The value of the greatest density."""
        return self.scale * ((self.concentration - 1) / self.concentration) ** self.concentration_reciprocal

    @property
    def variance(self) -> Tensor:
        """The variance."""
        part = self.concentration_reciprocal
        return self.scale.square() * ((1 + 2 * part).lgamma().exp() - (2 * (1 + part).lgamma()).exp())

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        part = self.concentration_reciprocal
        return GAMMA * (1 - part) + (self.scale * part).log() + 1


class Kumaraswamy(_OfParameters):
    """A probability of density a b p ** (a - 1) * (1 - p ** a) ** (b - 1), with a and b the concentrations 1 and 0."""

    arg_constraints: ClassVar = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None):
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        unit = Uniform(zeros_like(self.concentration0), ones_like(self.concentration0), validate_args=False)
        super().__init__(unit, validate_args)

    def _functions(self) -> list[Transform]:
        first, last = (PowerTransform(c.reciprocal()) for c in (self.concentration0, self.concentration1))
        return [first, AffineTransform(1.0, -1.0), last]

    def _moment(self, order: int) -> Tensor:
        above, b = 1 + order / self.concentration1, self.concentration0
        return b * (above.lgamma() + b.lgamma() - (above + b).lgamma()).exp()

    @property
    def mean(self) -> Tensor:
        """The expected value."""
        return self._moment(1)

    @property
    def mode(self) -> Tensor:
        """The value of the greatest density; NaN where a concentration is below 1."""
        a, b = self.concentration1, self.concentration0
        found = (b.reciprocal() * (-b).log1p() - (-b * a).log1p()).exp()
        return where((a < 1) | (b < 1), math.nan, found)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self._moment(2) - self.mean.square()

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        a, b = self.concentration1, self.concentration0
        return (1 - 1 / b) + (1 - 1 / a) * ((b + 1).digamma() + GAMMA) - a.log() - b.log()


class InverseGamma(TransformedDistribution):
    """1 / x of gamma numbers.

    Its values have no gradient to the concentration here, so `rsample` is not there.
    """

    arg_constraints: ClassVar = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive
    base_dist: Gamma

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None):
        base = Gamma(concentration, rate, validate_args)
        super().__init__(base, PowerTransform(tensor(-1.0, dtype=base.rate.dtype)), validate_args)

    @lazy_property
    def concentration(self) -> Tensor:
        """The base's."""
        return self.base_dist.concentration

    @lazy_property
    def rate(self) -> Tensor:
        """The base's."""
        return self.base_dist.rate

    @property
    def mean(self) -> Tensor:
        """rate / (concentration - 1), infinite where the concentration is 1 or less."""
        return where(self.concentration > 1, self.rate / (self.concentration - 1), math.inf)

    @property
    def mode(self) -> Tensor:
        """rate / (concentration + 1)."""
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Tensor:
        """The variance, infinite where the concentration is 2 or less."""
        below = (self.concentration - 1).square() * (self.concentration - 2)
        return where(self.concentration > 2, self.rate.square() / below, math.inf)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        count = self.concentration
        return count + self.rate.log() + count.lgamma() - (1 + count) * count.digamma()


class LogisticNormal(TransformedDistribution):
    """Probabilities of one class more than there are normal numbers: `StickBreakingTransform` of these."""

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.simplex

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        base = Normal(loc, scale, validate_args)
        base = base if base.batch_shape else base.expand((1,))
        super().__init__(base, StickBreakingTransform(), validate_args)

    @lazy_property
    def loc(self) -> Tensor:
        """The base's mean."""
        return self.base_dist.base_dist.loc  # type: ignore[attr-defined]

    @lazy_property
    def scale(self) -> Tensor:
        """The base's standard deviation."""
        return self.base_dist.base_dist.scale  # type: ignore[attr-defined]


__all__ = ["InverseGamma", "Kumaraswamy", "LogisticNormal", "Pareto", "Weibull"]
