"""1 with the probability `probs`, of log-odds `logits`, else 0."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..nn.functional import binary_cross_entropy_with_logits
from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.creation import arange
from ..tensor.draws import bernoulli
from . import constraints
from .distribution import Shape
from .probabilities import OfProbabilities
from .utils import broadcast_all


class Bernoulli(OfProbabilities):
    """1 with the probability `probs`, of log-odds `logits`, else 0."""

    arg_constraints: ClassVar = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.boolean
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        super().__init__(self._given(probs, logits, validate_args).shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """The probability of 1."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The more probable; NaN where both are as probable."""
        probs = self.probs
        return where(probs == 0.5, math.nan, (probs >= 0.5).to(probs.dtype))

    @property
    def variance(self) -> Tensor:
        """p (1 - p)."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Values in floats."""
        return bernoulli(self.probs.detach().expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        logits, value = broadcast_all(self.logits, self._value(value))
        return -binary_cross_entropy_with_logits(logits, value, reduction="none")

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 and 1."""
        values = arange(2).to(self._param.dtype).reshape((-1, *(1,) * len(self._batch_shape)))
        return values.expand(-1, *self._batch_shape) if expand else values


__all__ = ["Bernoulli"]
