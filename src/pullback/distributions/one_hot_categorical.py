"""One of several classes, as a 1 among zeros."""

from __future__ import annotations

from typing import Any, ClassVar

from ..tensor import Tensor
from ..tensor.creation import arange
from . import constraints
from .categorical import Categorical
from .distribution import Distribution, Shape
from .utils import lazy_property


class OneHotCategorical(Distribution):
    """`Categorical` whose values are 1 at the place of the class and 0 elsewhere."""

    arg_constraints: ClassVar = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.one_hot
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._categorical = Categorical(probs, logits, validate_args)
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

    @property
    def mean(self) -> Tensor:
        """The probabilities."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The most probable class."""
        return self._one_hot(self.probs.argmax(-1))

    @property
    def variance(self) -> Tensor:
        """p (1 - p)."""
        return self.probs * (1 - self.probs)

    def _one_hot(self, number: Tensor) -> Tensor:
        places = arange(self._event_shape[0])
        return (number.unsqueeze(-1) == places).to(self.probs.dtype)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Values in floats."""
        return self._one_hot(self._categorical.sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        return self._categorical.log_prob(self._value(value).argmax(-1))

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All classes."""
        count = self._event_shape[0]
        values = self._one_hot(arange(count)).reshape((count, *(1,) * len(self._batch_shape), count))
        return values.expand(count, *self._batch_shape, count) if expand else values


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """`OneHotCategorical` of which gradients go to the probabilities as if the values were these (Bengio et al.,
    "Estimating or propagating gradients through stochastic neurons", 2013)."""

    has_rsample = True

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Values, less the probabilities without their history, and the probabilities."""
        values = self.sample(sample_shape)
        return values + (self.probs - self.probs.detach())


__all__ = ["OneHotCategorical", "OneHotCategoricalStraightThrough"]
