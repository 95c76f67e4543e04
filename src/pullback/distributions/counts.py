"""How many trials succeed, of a fixed number, of several classes, or before a number of failures."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..nn.functional import logsigmoid, softplus
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.creation import arange, ones_like, zeros
from ..tensor.draws import binomial, poisson, standard_gamma
from ..tensor.joining import broadcast_tensors
from . import constraints
from .categorical import Categorical
from .distribution import Distribution, Shape
from .probabilities import OfProbabilities
from .utils import broadcast_all, lazy_property


class _OfCount(OfProbabilities):
    """A distribution of `total_count` and of `probs` or `logits`, all of one shape."""

    total_count: Tensor

    def _with_count(self, total_count: Any, probs: Any, logits: Any, validate_args: bool | None) -> Shape:
        value = self._given(probs, logits, validate_args)
        count = total_count.to(value.dtype) if isinstance(total_count, Tensor) else total_count
        self.total_count, self.__dict__["probs" if logits is None else "logits"] = broadcast_all(count, value)
        return self._param.shape


class Binomial(_OfCount):
    """How many of `total_count` trials succeed, each with the probability `probs`, of log-odds `logits`."""

    arg_constraints: ClassVar = {
        "total_count": constraints.nonnegative_integer,
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }
    has_enumerate_support = True

    def __init__(self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        super().__init__(self._with_count(total_count, probs, logits, validate_args), (), validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """From 0 to all."""
        return constraints.integer_interval(0, self.total_count.detach())

    @property
    def mean(self) -> Tensor:
        """n p."""
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        """The most probable number."""
        return ((self.total_count + 1) * self.probs).floor().minimum(self.total_count)

    @property
    def variance(self) -> Tensor:
        """n p (1 - p)."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Numbers in floats. A host call."""
        shape = self._extended_shape(sample_shape)
        return binomial(self.total_count.detach().expand(shape), self.probs.detach().expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        value, count, logits = self._value(value), self.total_count, self.logits
        ways = (count + 1).lgamma() - (value + 1).lgamma() - (count - value + 1).lgamma()
        return ways + value * logits - count * softplus(logits)

    def entropy(self) -> Tensor:
        """The entropy in nats, where all have one `total_count`."""
        found = self.log_prob(self.enumerate_support(False))
        return -(found.exp() * found).sum(0)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """From 0 to all, where all have one `total_count`."""
        most = int(self.total_count.max())
        if int(self.total_count.min()) != most:
            raise NotImplementedError(
                f"Binomial: Inhomogeneous total count not supported by `enumerate_support` (at {user_source()})"
            )
        values = arange(1 + most).to(self._param.dtype).reshape((-1, *(1,) * len(self._batch_shape)))
        return values.expand(-1, *self._batch_shape) if expand else values


class NegativeBinomial(_OfCount):
    """How many trials succeed, each with the probability `probs`, until `total_count` have failed."""

    arg_constraints: ClassVar = {
        "total_count": constraints.greater_than_eq(0),
        "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
    }
    support = constraints.nonnegative_integer

    def __init__(self, total_count: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        super().__init__(self._with_count(total_count, probs, logits, validate_args), (), validate_args)

    @property
    def mean(self) -> Tensor:
        """n p / (1 - p)."""
        return self.total_count * self.logits.exp()

    @property
    def mode(self) -> Tensor:
        """The most probable number."""
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Tensor:
        """n p / (1 - p)²."""
        return self.mean / (-self.logits).sigmoid()

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Numbers in floats, Poisson's of a gamma number. Host calls."""
        shape = self._extended_shape(sample_shape)
        count = self.total_count.detach().expand(shape)
        drawn = standard_gamma(where(count > 0, count, 1.0)) * self.logits.detach().exp()
        return poisson(where(count > 0, drawn, 0.0))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        value, count = self._value(value), self.total_count
        ways = (count + value).lgamma() - (1.0 + value).lgamma() - count.lgamma()
        ways = where(count + value == 0, 0.0, ways)
        return count * logsigmoid(-self.logits) + value * logsigmoid(self.logits) + ways


class Multinomial(Distribution):
    """How often each class comes in `total_count` draws of a `Categorical`."""

    arg_constraints: ClassVar = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(self, total_count: int = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        if not isinstance(total_count, int):
            raise NotImplementedError(
                f"Multinomial: inhomogeneous total_count is not supported, got {total_count!r} (at {user_source()})"
            )
        self.total_count, self._categorical = total_count, Categorical(probs, logits, validate_args)
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        """Counts of as many draws at most."""
        return constraints.multinomial(self.total_count)

    @lazy_property
    def probs(self) -> Tensor:
        """The probabilities of the classes."""
        return self._categorical.probs

    @lazy_property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Shape:
        """The shape of the parameter."""
        return self._categorical.param_shape

    @property
    def mean(self) -> Tensor:
        """n p."""
        return self.total_count * self.probs

    @property
    def variance(self) -> Tensor:
        """n p (1 - p) of each class alone."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Counts in floats."""
        drawn = self._categorical.sample((self.total_count, *sample_shape)).movedim(0, -1)
        counts = zeros(self._extended_shape(sample_shape), dtype=drawn.dtype)
        return counts.scatter_add(-1, drawn, ones_like(drawn)).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        logits, value = broadcast_tensors(self.logits, self._value(value))
        logits = where((value == 0) & (logits == -math.inf), 0.0, logits)
        ways = (value.sum(-1) + 1).lgamma() - (value + 1).lgamma().sum(-1)
        return ways + (logits * value).sum(-1)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        alone = Binomial(self.total_count, self.probs, validate_args=False)
        values = alone.enumerate_support(expand=False)[1:]
        repeated = (alone.log_prob(values).exp() * (values + 1).lgamma()).sum((0, -1))
        return self.total_count * self._categorical.entropy() - math.lgamma(self.total_count + 1) + repeated


__all__ = ["Binomial", "Multinomial", "NegativeBinomial"]
