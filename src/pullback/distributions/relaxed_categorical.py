"""Classes relaxed to numbers between (Maddison et al., "The concrete distribution", 2017)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.joining import broadcast_tensors
from ..tensor.random import rand
from . import constraints
from .categorical import Categorical
from .distribution import Distribution, Shape
from .one_hot_categorical import OneHotCategorical
from .relaxed import Relaxed, logarithm
from .transforms import ExpTransform
from .utils import clamp_probs, lazy_property


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
        return score + math.lgamma(count) + logarithm(self.temperature, value) * (count - 1)


class RelaxedOneHotCategorical(Relaxed):
    """Probabilities that come near one-hot vectors of a `Categorical` as the temperature falls."""

    arg_constraints: ClassVar = OneHotCategorical.arg_constraints
    support = constraints.simplex

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        base = ExpRelaxedCategorical(temperature, probs, logits, validate_args)
        super().__init__(base, ExpTransform(), validate_args)


__all__ = ["ExpRelaxedCategorical", "RelaxedOneHotCategorical"]
