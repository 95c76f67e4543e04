"""The Dirichlet and the beta distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.creation import arange
from ..tensor.draws import standard_gamma
from ..tensor.joining import stack
from . import constraints
from .distribution import Distribution, Shape
from .utils import broadcast_all


class Dirichlet(Distribution):
    """Probabilities along the last axis, with density in proportion to the product of p ** (concentration - 1).

    Its values have no gradient to the concentration here, so `rsample` is not there.
    """

    arg_constraints: ClassVar = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex

    def __init__(self, concentration: Tensor, validate_args: bool | None = None):
        if not concentration.ndim:
            raise ValueError(f"Dirichlet: concentration must have an axis of classes (at {user_source()})")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args)

    @property
    def mean(self) -> Tensor:
        """The concentration in parts of its sum."""
        return self.concentration / self.concentration.sum(-1, True)

    @property
    def mode(self) -> Tensor:
        """In proportion to concentration - 1; where all of it is below 1 the first class."""
        above = (self.concentration - 1).clamp(min=0.0)
        peak = (arange(self._event_shape[0]) == 0).expand_as(above)
        corner = (self.concentration < 1).all(-1, keepdim=True)
        return where(corner, peak.to(above.dtype), above / above.sum(-1, True))

    @property
    def variance(self) -> Tensor:
        """Of each probability alone."""
        whole = self.concentration.sum(-1, True)
        return self.concentration * (whole - self.concentration) / (whole.pow(2) * (whole + 1))

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Gamma numbers in parts of their sum. A host call."""
        drawn = standard_gamma(self.concentration.detach().expand(self._extended_shape(sample_shape)))
        return drawn / drawn.sum(-1, True)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        value, count = self._value(value), self.concentration
        return (count - 1.0).xlogy(value).sum(-1) + count.sum(-1).lgamma() - count.lgamma().sum(-1)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        k, count = self.concentration.shape[-1], self.concentration
        whole = count.sum(-1)
        rest = (k - whole) * whole.digamma() + ((count - 1.0) * count.digamma()).sum(-1)
        return count.lgamma().sum(-1) - whole.lgamma() - rest


class Beta(Distribution):
    """A probability with density in proportion to p ** (concentration1 - 1) * (1 - p) ** (concentration0 - 1).

    Its values have no gradient to the concentrations here, so `rsample` is not there.
    """

    arg_constraints: ClassVar = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None):
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        super().__init__(self.concentration1.shape, (), validate_args)

    @property
    def _dirichlet(self) -> Dirichlet:
        return Dirichlet(stack([self.concentration1, self.concentration0], -1), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """concentration1 in parts of the sum of both."""
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Tensor:
        """The probability of the greatest density."""
        return self._dirichlet.mode[..., 0]

    @property
    def variance(self) -> Tensor:
        """The variance."""
        whole = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (whole.pow(2) * (whole + 1))

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Values between 0 and 1. A host call."""
        return self._dirichlet.sample(sample_shape)[..., 0]

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        value = self._value(value)
        return self._dirichlet.log_prob(stack([value, 1.0 - value], -1))

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return self._dirichlet.entropy()


__all__ = ["Beta", "Dirichlet"]
