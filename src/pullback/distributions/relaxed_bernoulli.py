"""Bits relaxed to numbers between (Maddison et al., "The concrete distribution", 2017)."""

from __future__ import annotations

from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.random import rand
from . import constraints
from .bernoulli import Bernoulli
from .distribution import Shape
from .probabilities import OfProbabilities
from .relaxed import Relaxed, logarithm
from .transforms import SigmoidTransform
from .utils import clamp_probs


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
        return logarithm(self.temperature, value) + difference - 2 * difference.exp().log1p()


class RelaxedBernoulli(Relaxed):
    """Numbers between 0 and 1 that come near those of a `Bernoulli` as the temperature falls."""

    arg_constraints: ClassVar = Bernoulli.arg_constraints
    support = constraints.unit_interval

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        base = LogitRelaxedBernoulli(temperature, probs, logits, validate_args)
        super().__init__(base, SigmoidTransform(), validate_args)


__all__ = ["LogitRelaxedBernoulli", "RelaxedBernoulli"]
