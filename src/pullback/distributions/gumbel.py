"""The Gumbel distribution: of the greatest of many numbers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.creation import full_like
from ..tensor.limits import finfo
from . import constraints
from .transformed_distribution import TransformedDistribution
from .transforms import AffineTransform, ExpTransform
from .uniform import Uniform
from .utils import broadcast_all

#: Euler's constant
GAMMA = 0.57721566490153286


class Gumbel(TransformedDistribution):
    """The Gumbel distribution: of the greatest of many numbers."""

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        self.loc, self.scale = broadcast_all(loc, scale)
        limits = finfo(self.loc.dtype)
        inside = full_like(self.loc, limits.tiny), full_like(self.loc, 1 - limits.eps)
        logarithm = ExpTransform().inv
        moved = [logarithm, AffineTransform(0, -1), logarithm, AffineTransform(self.loc, -self.scale)]
        super().__init__(Uniform(*inside, validate_args=False), moved, validate_args)
        # of parameters that were looked at
        self.transforms[-1] = AffineTransform(self.loc, -self.scale)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The distribution with parameters expanded to `batch_shape`."""
        made = super().expand(batch_shape, _instance)
        made.transforms = [*self.transforms[:-1], AffineTransform(made.loc, -made.scale)]
        return made

    @property
    def mean(self) -> Tensor:
        """loc + scale * Euler's constant."""
        return self.loc + self.scale * GAMMA

    @property
    def mode(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """π² scale² / 6."""
        return self.scale.square() * (math.pi**2 / 6)

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
        return self.scale.log() + (1 + GAMMA)


__all__ = ["GAMMA", "Gumbel"]
