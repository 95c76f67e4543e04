"""Classes and bits relaxed to numbers between (Maddison et al., "The concrete distribution", 2017)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.creation import tensor
from ..tensor.joining import broadcast_tensors
from ..tensor.random import rand
from . import constraints
from .bernoulli import Bernoulli
from .categorical import Categorical
from .distribution import Distribution, Shape
from .one_hot_categorical import OneHotCategorical
from .probabilities import OfProbabilities
from .transformed_distribution import TransformedDistribution
from .transforms import ExpTransform, SigmoidTransform
from .utils import clamp_probs, lazy_property


def _logarithm(temperature: Any, like: Tensor) -> Tensor:
    return temperature.log() if isinstance(temperature, Tensor) else tensor(math.log(temperature), dtype=like.dtype)


class ExpRelaxedCategorical(Distribution):
    """The logarithms of the values of `RelaxedOneHotCategorical`."""

    arg_constraints: ClassVar = OneHotCategorical.arg_constraints
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._categorical = Categorical(probs, logits, validate_args)
        self.temperature = temperature
        shape = self._categorical.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args)

    @lazy_property
    def probs(self) -> Tensor:
        """The probabilities of the classes."""
        return self._categorical.probs

    @lazy_property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return self._categorical.logits

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """The log-softmax of the logits with Gumbel numbers added, divided by the temperature."""
        unit = clamp_probs(rand(self._extended_shape(sample_shape), dtype=self.logits.dtype))
        return ((self.logits - (-unit.log()).log()) / self.temperature).log_softmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        count = self._event_shape[0]
        logits, value = broadcast_tensors(self.logits, self._value(value))
        score = (logits - value * self.temperature).log_softmax(-1).sum(-1)
        return score + math.lgamma(count) + _logarithm(self.temperature, value) * (count - 1)


class LogitRelaxedBernoulli(OfProbabilities):
    """The log-odds of the values of `RelaxedBernoulli`."""

    arg_constraints: ClassVar = Bernoulli.arg_constraints
    support = constraints.real
    has_rsample = True

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self.temperature = temperature
        super().__init__(self._given(probs, logits, validate_args).shape, (), validate_args)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """The logits with logistic numbers added, divided by the temperature."""
        unit = clamp_probs(rand(self._extended_shape(sample_shape), dtype=self.logits.dtype))
        return (unit.log() - (-unit).log1p() + self.logits) / self.temperature

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        difference = self.logits - self._value(value) * self.temperature
        return _logarithm(self.temperature, value) + difference - 2 * difference.exp().log1p()


class _Relaxed(TransformedDistribution):
    base_dist: ExpRelaxedCategorical | LogitRelaxedBernoulli

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


class RelaxedOneHotCategorical(_Relaxed):
    """Probabilities that come near one-hot vectors of a `Categorical` as the temperature falls."""

    arg_constraints: ClassVar = OneHotCategorical.arg_constraints
    support = constraints.simplex

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        base = ExpRelaxedCategorical(temperature, probs, logits, validate_args)
        super().__init__(base, ExpTransform(), validate_args)


class RelaxedBernoulli(_Relaxed):
    """Numbers between 0 and 1 that come near those of a `Bernoulli` as the temperature falls."""

    arg_constraints: ClassVar = Bernoulli.arg_constraints
    support = constraints.unit_interval

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        base = LogitRelaxedBernoulli(temperature, probs, logits, validate_args)
        super().__init__(base, SigmoidTransform(), validate_args)


__all__ = ["ExpRelaxedCategorical", "LogitRelaxedBernoulli", "RelaxedBernoulli", "RelaxedOneHotCategorical"]
