"""What distributions of given probabilities, or their logarithms, have in common."""

from __future__ import annotations

import math
from typing import Any

from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.size import Size
from . import constraints
from .distribution import Distribution
from .utils import broadcast_all, lazy_property, logits_to_probs, probs_to_logits


class _NotAllZero(constraints.Constraint):
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value > 0).any(-1)


_not_all_zero = _NotAllZero()
_below_infinity = constraints.less_than(math.inf)


class OfProbabilities(Distribution):
    """A distribution that takes `probs` or `logits`, and tells both; with `_classes` along the last axis."""

    _classes = False

    def _given(self, probs: Any, logits: Any, validate_args: bool | None) -> Tensor:
        """The one that was given, looked at."""
        if (probs is None) == (logits is None):
            raise ValueError(
                f"{type(self).__name__} takes either probs or logits, got {'neither' if probs is None else 'both'} "
                f"(at {user_source()})"
            )
        name = "logits" if probs is None else "probs"
        (value,) = broadcast_all(logits if probs is None else probs)
        if self._classes and not value.ndim:
            raise ValueError(f"{type(self).__name__}: {name} must have an axis of classes (at {user_source()})")
        if self._classes and name == "probs":
            value = self._parameter(name, value, constraints.nonnegative, validate_args)
            value = self._parameter(name, value, _not_all_zero, validate_args)
            value = value / value.sum(-1, keepdim=True)
        elif self._classes:
            value = self._parameter(name, value, _below_infinity, validate_args)
            value = value - value.logsumexp(-1, keepdim=True)
        self.__dict__[name] = value
        return value

    def _look_at(self, name: str, constraint: constraints.Constraint) -> None:
        """Of classes the parameter was looked at before it was normalized, which rounds."""
        if not self._classes:
            super()._look_at(name, constraint)

    @property
    def _param(self) -> Tensor:
        """The one that was given."""
        return self.__dict__["logits" if "logits" in self.__dict__ else "probs"]

    @lazy_property
    def probs(self) -> Tensor:
        """The probabilities."""
        return logits_to_probs(self.logits, not self._classes)

    @lazy_property
    def logits(self) -> Tensor:
        """Their log-odds; of several classes their logarithms."""
        return probs_to_logits(self.probs, not self._classes)

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter."""
        return self._param.shape

    def _new(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._param.new_empty(*args, **kwargs)


__all__ = ["OfProbabilities"]
