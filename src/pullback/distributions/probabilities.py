"""What distributions of given probabilities, or their logarithms, have in common."""

from __future__ import annotations

import math
from typing import Any

from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.size import Size
from . import constraints
from .distribution import Distribution
from .utils import broadcast_all, logits_to_probs, probs_to_logits

_not_all_zero = constraints.Constraint("not all 0", lambda x: (x > 0).any(-1), 1)
_below_infinity = constraints.Constraint("below infinity", lambda x: x < math.inf)


class OfProbabilities(Distribution):
    """A distribution that takes `probs` or `logits`, and tells both; with `_classes` along the last axis."""

    _classes = False
    _usual: float | None = None

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
            wanted = self.validates if validate_args is None else validate_args
            if wanted:
                value = self._held(value, constraints.nonnegative, "probs must be nonnegative")
                value = self._held(value, _not_all_zero, "probs must not all be 0")
            value = value / value.sum(-1, keepdim=True)
        elif self._classes:
            if self.validates if validate_args is None else validate_args:
                value = self._held(value, _below_infinity, "logits must be numbers below infinity")
            value = value - value.logsumexp(-1, keepdim=True)
        else:
            value = self._parameter(name, value, validate_args)
        self._is_logits = name == "logits"
        self._param = value
        return value

    @property
    def probs(self) -> Tensor:
        """The probabilities."""
        return logits_to_probs(self._param, not self._classes) if self._is_logits else self._param

    @property
    def logits(self) -> Tensor:
        """Their log-odds; of several classes their logarithms."""
        return self._param if self._is_logits else probs_to_logits(self._param, not self._classes)

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter."""
        return self._param.shape

    def _new(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._param.new_empty(*args, **kwargs)

    def __repr__(self) -> str:
        name = "logits" if self._is_logits else "probs"
        return f"{type(self).__name__}({name}: {list(self._param.shape) if self._param.ndim else self._param})"


__all__ = ["OfProbabilities"]
