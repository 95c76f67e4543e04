"""The half-normal distribution."""

from __future__ import annotations

import math

from ..tensor import Tensor
from .half import Half
from .normal import Normal


class HalfNormal(Half):
    """The size of normal numbers of mean 0 and standard deviation `scale`."""

    _base = Normal

    @property
    def mean(self) -> Tensor:
        """scale * sqrt(2 / π)."""
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        """scale² (1 - 2 / π)."""
        return self.scale.pow(2) * (1 - 2 / math.pi)


__all__ = ["HalfNormal"]
