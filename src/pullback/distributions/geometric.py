"""The number of failures before the first success of probability `probs`."""

from __future__ import annotations

from typing import Any, ClassVar

from ..nn.functional import binary_cross_entropy_with_logits
from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.creation import zeros_like
from ..tensor.limits import finfo
from ..tensor.random import rand
from . import constraints
from .distribution import Shape
from .probabilities import OfProbabilities
from .utils import broadcast_all


class _AboveZero(constraints.Constraint):
    """In (0, 1]."""

    def check(self, value: Tensor) -> Tensor:
        return (value > 0) & (value <= 1)


class Geometric(OfProbabilities):
    """The number of failures before the first success of probability `probs`."""

    arg_constraints: ClassVar = {"probs": _AboveZero(), "logits": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        super().__init__(self._given(probs, logits, validate_args).shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """1 / p - 1."""
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        """0."""
        return zeros_like(self.probs)

    @property
    def variance(self) -> Tensor:
        """(1 / p - 1) / p."""
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """By inverting the distribution."""
        probs = self.probs.detach()
        unit = rand(self._extended_shape(sample_shape), dtype=probs.dtype).clamp(min=finfo(probs.dtype).tiny)
        return (unit.log() / (-probs).log1p()).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        value, probs = broadcast_all(self._value(value), self.probs)
        probs = where((probs == 1) & (value == 0), 0.0, probs)
        return value * (-probs).log1p() + self.probs.log()

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs


__all__ = ["Geometric"]
