"""Invertible functions of values, with the logarithm of what they stretch by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..nn.functional import softplus
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import tensor
from . import constraints
from .utils import broadcast_all, clamp_probs


class Transform:
    """A function of values and its inverse; its last `event_dim` axes belong to one value.

    `cache_size` is 0 or 1 as in PyTorch, whose 1 remembers the last value and where it came from; here
    `TransformedDistribution` always does.
    """

    event_dim = 0
    #: what it gives, and whether it grows (1) or falls (-1)
    codomain = constraints.real
    sign: Any = 1

    def __init__(self, cache_size: int = 0):
        if cache_size not in (0, 1):
            raise ValueError(f"cache_size must be 0 or 1, got {cache_size} (at {user_source()})")

    def __call__(self, x: Tensor) -> Tensor:
        """The function of `x`."""
        raise NotImplementedError

    def inverse(self, y: Tensor) -> Tensor:
        """The value whose function is `y`."""
        raise NotImplementedError

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of the size of the derivative at `x`, where the function is `y`."""
        raise NotImplementedError

    @property
    def inv(self) -> Transform:
        """The inverse function."""
        return _Inverse(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Inverse(Transform):
    def __init__(self, base: Transform):
        super().__init__()
        self.base, self.event_dim, self.sign = base, base.event_dim, base.sign

    def __call__(self, x: Tensor) -> Tensor:
        return self.base.inverse(x)

    def inverse(self, y: Tensor) -> Tensor:
        return self.base(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self.base.log_abs_det_jacobian(y, x)

    @property
    def inv(self) -> Transform:
        return self.base


class AffineTransform(Transform):
    """loc + scale * x; with `event_dim` 1 of vectors."""

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0):
        super().__init__(cache_size)
        if not isinstance(scale, Tensor) and not float(scale):
            raise ValueError(f"AffineTransform: scale must not be 0 (at {user_source()})")
        self.loc, self.scale, self.event_dim = loc, scale, event_dim
        self.sign = scale.detach().sign() if isinstance(scale, Tensor) else math.copysign(1.0, float(scale))

    def __call__(self, x: Tensor) -> Tensor:
        return self.loc + self.scale * x

    def inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        scale = self.scale if isinstance(self.scale, Tensor) else tensor(float(self.scale), dtype=x.dtype)
        each = scale.abs().log().expand_as(x)
        return each.sum(tuple(range(-self.event_dim, 0))) if self.event_dim else each


class ExpTransform(Transform):
    """exp(x)."""

    codomain = constraints.positive

    def __call__(self, x: Tensor) -> Tensor:
        return x.exp()

    def inverse(self, y: Tensor) -> Tensor:
        return y.log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x


class TanhTransform(Transform):
    """tanh(x). Of values that were not drawn by it the inverse is exact only away from -1 and 1."""

    codomain = constraints.interval(-1.0, 1.0)

    def __call__(self, x: Tensor) -> Tensor:
        return x.tanh()

    def inverse(self, y: Tensor) -> Tensor:
        return y.atanh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        # log(1 - tanh(x)²) in a form that does not cancel
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))


class SigmoidTransform(Transform):
    """sigmoid(x)."""

    codomain = constraints.unit_interval

    def __call__(self, x: Tensor) -> Tensor:
        return clamp_probs(x.sigmoid())

    def inverse(self, y: Tensor) -> Tensor:
        inside = clamp_probs(y)
        return inside.log() - (-inside).log1p()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -softplus(-x) - softplus(x)


class PowerTransform(Transform):
    """x ** exponent of positive x."""

    codomain = constraints.positive

    def __init__(self, exponent: Any, cache_size: int = 0):
        super().__init__(cache_size)
        (self.exponent,) = broadcast_all(exponent)
        self.sign = self.exponent.detach().sign()

    def __call__(self, x: Tensor) -> Tensor:
        return x.pow(self.exponent)

    def inverse(self, y: Tensor) -> Tensor:
        return y.pow(1 / self.exponent)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.exponent * y / x).abs().log()


class ComposeTransform(Transform):
    """One function after the other."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0):
        super().__init__(cache_size)
        self.parts = list(parts)
        self.event_dim = max((part.event_dim for part in self.parts), default=0)
        self.sign = math.prod(part.sign for part in self.parts)
        if self.parts:
            self.codomain = self.parts[-1].codomain

    def __call__(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part.inverse(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        total: Any = 0.0
        for part in self.parts:
            after = part(x)
            each = part.log_abs_det_jacobian(x, after)
            extra = self.event_dim - part.event_dim
            total = total + (each.sum(tuple(range(-extra, 0))) if extra else each)
            x = after
        return total


__all__ = [
    "AffineTransform",
    "ComposeTransform",
    "ExpTransform",
    "PowerTransform",
    "SigmoidTransform",
    "TanhTransform",
    "Transform",
]
