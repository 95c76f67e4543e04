"""The half-Cauchy distribution."""

from __future__ import annotations

import math

from ..tensor import Tensor
from .cauchy import Cauchy
from .half import Half


class HalfCauchy(Half):
    """The size of Cauchy's numbers around 0, half of them below `scale`. It has no mean."""

    _base = Cauchy

    @property
    def mean(self) -> Tensor:
        """Infinity."""
        return self.scale.detach() * 0 + math.inf

    @property
    def variance(self) -> Tensor:
        """Infinity."""
        return self.base_dist.variance


__all__ = ["HalfCauchy"]
