"""One of several classes, by its number."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.creation import arange
from ..tensor.draws import multinomial
from ..tensor.joining import broadcast_tensors
from ..tensor.limits import finfo
from . import constraints
from .distribution import Shape
from .probabilities import OfProbabilities


class Categorical(OfProbabilities):
    """The number of a class, with probabilities in proportion to `probs`, or of which `logits` are the logarithms up to
    a constant, along the last axis.

    >>> policy = pb.distributions.Categorical(logits=pb.tensor([[0.0, 0.0], [0.0, 100.0]]))
    >>> policy.log_prob(pb.tensor([0, 1]))
    tensor([-0.6931,  0.0000])
    """

    arg_constraints: ClassVar = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True
    _classes = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        shape = self._given(probs, logits, validate_args).shape
        self._num_events = shape[-1]
        super().__init__(shape[:-1], (), validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The numbers of the classes."""
        return constraints.integer_interval(0, self._num_events - 1)

    @property
    def mean(self) -> Tensor:
        """NaN: classes have none."""
        return self._param.detach()[..., 0] * 0 + math.nan

    @property
    def mode(self) -> Tensor:
        """The most probable class."""
        return self._param.argmax(-1)

    @property
    def variance(self) -> Tensor:
        """NaN: classes have none."""
        return self.mean

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Numbers of classes, int64."""
        probs = self.probs.detach().reshape((-1, self._num_events))
        count = math.prod(sample_shape)
        return multinomial(probs, count, True).t().reshape(self._extended_shape(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithms of the classes' probabilities."""
        number = self._value(value).long().unsqueeze(-1)
        number, logits = broadcast_tensors(number, self.logits)
        return logits.gather(-1, number[..., :1]).squeeze(-1)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        logits = self.logits.clamp(min=finfo(self._param.dtype).min)
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The numbers of all classes."""
        values = arange(self._num_events).reshape((-1, *(1,) * len(self._batch_shape)))
        return values.expand(-1, *self._batch_shape) if expand else values


__all__ = ["Categorical"]
