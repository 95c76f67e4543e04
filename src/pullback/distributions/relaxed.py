"""Classes and bits relaxed to numbers between (Maddison et al., "The concrete distribution", 2017)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.creation import tensor
from ..tensor.random import rand
from . import constraints
from .bernoulli import Bernoulli
from .categorical import Categorical
from .distribution import Distribution, Shape
from .utils import clamp_probs, probs_to_logits


class RelaxedOneHotCategorical(Distribution):
    """Probabilities that come near one-hot vectors of a `Categorical` as the temperature falls."""

    arg_constraints: ClassVar = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._categorical = Categorical(probs, logits, validate_args)
        self.temperature = temperature
        shape = self._categorical.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args)

    @property
    def probs(self) -> Tensor:
        """The probabilities of the classes."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return self._categorical.logits

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """The softmax of the logits with Gumbel numbers added, divided by the temperature."""
        unit = clamp_probs(rand(self._extended_shape(sample_shape), dtype=self.logits.dtype))
        return ((self.logits - (-unit.log()).log()) / self.temperature).softmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        count, value = self._event_shape[0], self._value(value)
        temperature = self.temperature if isinstance(self.temperature, Tensor) else tensor(float(self.temperature))
        scale = math.lgamma(count) - temperature.log() * (1 - count)
        score = self.logits - value.log() * temperature
        score = (score - score.logsumexp(-1, keepdim=True)).sum(-1)
        return score + scale - value.log().sum(-1)


class RelaxedBernoulli(Distribution):
    """Numbers between 0 and 1 that come near those of a `Bernoulli` as the temperature falls."""

    arg_constraints: ClassVar = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._bernoulli = Bernoulli(probs, logits, validate_args)
        self.temperature = temperature
        super().__init__(self._bernoulli.batch_shape, (), validate_args)

    @property
    def probs(self) -> Tensor:
        """The probabilities of 1."""
        return self._bernoulli.probs

    @property
    def logits(self) -> Tensor:
        """Their log-odds."""
        return self._bernoulli.logits

    def _logistic(self, sample_shape: Shape) -> Tensor:
        unit = clamp_probs(rand(self._extended_shape(sample_shape), dtype=self.logits.dtype))
        return (unit.log() - (-unit).log1p() + self.logits) / self.temperature

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """The sigmoid of the logits with logistic numbers added, divided by the temperature."""
        return self._logistic(sample_shape).sigmoid()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        odds = probs_to_logits(self._value(value), True)
        temperature = self.temperature if isinstance(self.temperature, Tensor) else tensor(float(self.temperature))
        difference = self.logits - odds * temperature
        of_odds = temperature.log() + difference - 2 * difference.exp().log1p()
        return of_odds - (value.log() + (-value).log1p())


__all__ = ["RelaxedBernoulli", "RelaxedOneHotCategorical"]
