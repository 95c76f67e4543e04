"""What classes and bits have in common that are relaxed to numbers between."""

from __future__ import annotations

import math
from typing import Any

from ..tensor import Tensor
from ..tensor.creation import tensor
from .transformed_distribution import TransformedDistribution
from .utils import lazy_property


def logarithm(temperature: Any, like: Tensor) -> Tensor:
    """That of a temperature, which may be a number."""
    return temperature.log() if isinstance(temperature, Tensor) else tensor(math.log(temperature), dtype=like.dtype)


class Relaxed(TransformedDistribution):
    """A function of a base that has a temperature, and `probs` or `logits`."""

    base_dist: Any

    @property
    def temperature(self) -> Any:
        """How far from whole values they are."""
        return self.base_dist.temperature

    @lazy_property
    def probs(self) -> Tensor:
        """The probabilities."""
        return self.base_dist.probs

    @lazy_property
    def logits(self) -> Tensor:
        """Their logarithms; of single bits their log-odds."""
        return self.base_dist.logits


__all__ = ["Relaxed", "logarithm"]
