"""Distributions of functions of values."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import ref

from ..tensor import Tensor
from . import constraints
from .distribution import Distribution, Shape
from .transforms import ComposeTransform, Transform


class TransformedDistribution(Distribution):
    """The distribution of `transforms`, one after the other, of values of `base_distribution`.

    What it drew last is remembered with where it came from, so that log_prob of it inverts nothing.
    """

    def __init__(
        self, base_distribution: Distribution, transforms: Transform | Sequence[Transform],
        validate_args: bool | None = None,
    ):  # fmt: skip
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        self.base_dist, self._transform = base_distribution, ComposeTransform(self.transforms)
        shape = base_distribution.batch_shape + base_distribution.event_shape
        count = max(len(base_distribution.event_shape), self._transform.event_dim)
        cut = len(shape) - count
        self._drawn: tuple[ref[Tensor], Tensor] | None = None
        super().__init__(shape[:cut], shape[cut:], validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base's."""
        return self.base_dist.has_rsample

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """What the last of the functions gives."""
        given = self._transform.codomain
        extra = len(self._event_shape) - given.event_dim
        return constraints.independent(given, extra) if extra > 0 else given

    def _remembered(self, y: Tensor, x: Tensor) -> Tensor:
        self._drawn = (ref(y), x)
        return y

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """The function of the base's values."""
        x = self.base_dist.sample(sample_shape)
        return self._remembered(self._transform(x).detach(), x)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """The function of the base's values, through which gradients go."""
        x = self.base_dist.rsample(sample_shape)
        return self._remembered(self._transform(x), x)

    def _before(self, value: Tensor) -> Tensor:
        drawn = self._drawn
        return drawn[1] if drawn is not None and drawn[0]() is value else self._transform.inverse(value)

    def log_prob(self, value: Tensor) -> Tensor:
        """The base's of what is before, less the logarithm of what the function stretches by."""
        x = self._before(value)
        value = self._value(value)
        stretched = self._transform.log_abs_det_jacobian(x, value)
        extra = len(self._event_shape) - self._transform.event_dim
        stretched = stretched.sum(tuple(range(-extra, 0))) if extra else stretched
        base = self.base_dist.log_prob(x)
        more = len(self._event_shape) - len(self.base_dist.event_shape)
        return (base.sum(tuple(range(-more, 0))) if more else base) - stretched

    def cdf(self, value: Tensor) -> Tensor:
        """The base's of what is before; 1 less that, where the function falls."""
        return self._turned(self.base_dist.cdf(self._before(value)))

    def icdf(self, value: Tensor) -> Tensor:
        """The function of the base's; of the base's of 1 less the value, where the function falls."""
        return self._transform(self.base_dist.icdf(self._turned(value)))

    def _turned(self, probability: Tensor) -> Tensor:
        sign = self._transform.sign
        return sign * (probability - 0.5) + 0.5 if isinstance(sign, Tensor) or sign < 0 else probability

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_dist}, {self.transforms})"


__all__ = ["TransformedDistribution"]
