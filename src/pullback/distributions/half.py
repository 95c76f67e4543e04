"""The sizes of normal numbers and of Cauchy's, around 0."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.creation import zeros_like
from . import constraints
from .located import Located
from .transformed_distribution import TransformedDistribution
from .transforms import AbsTransform
from .utils import broadcast_all, lazy_property


class Half(TransformedDistribution):
    """The size of values of a distribution that is even around 0."""

    arg_constraints: ClassVar = {"scale": constraints.positive}
    support = constraints.nonnegative
    base_dist: Located
    _base: type[Located]

    def __init__(self, scale: Any, validate_args: bool | None = None):
        (scale,) = broadcast_all(scale)
        scale = self._parameter("scale", scale, constraints.positive, validate_args)
        super().__init__(self._base(0, scale, validate_args=False), AbsTransform(), validate_args)

    @lazy_property
    def scale(self) -> Tensor:
        """The base's."""
        return self.base_dist.scale

    @property
    def mode(self) -> Tensor:
        """0."""
        return zeros_like(self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density: -infinity below 0."""
        value = self._value(value)
        return where(value >= 0, self.base_dist.log_prob(value) + math.log(2), -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of `value` and less."""
        return 2 * self.base_dist.cdf(self._value(value)) - 1

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose `cdf` is `value`."""
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return self.base_dist.entropy() - math.log(2)


__all__ = ["Half"]
