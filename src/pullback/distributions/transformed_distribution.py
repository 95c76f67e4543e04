"""Distributions of functions of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from weakref import ref

from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.grad_modes import no_grad
from ..tensor.size import Size
from . import constraints
from .distribution import Distribution, Shape
from .independent import Independent
from .transform import ComposeTransform, Transform
from .utils import sum_rightmost


class TransformedDistribution(Distribution):
    """The distribution of `transforms`, one after the other, of values of `base_distribution`.

    What it drew last is remembered with where it came from, so that log_prob of it inverts nothing.
    """

    arg_constraints: ClassVar = {}

    def __init__(
        self, base_distribution: Distribution, transforms: Transform | Sequence[Transform],
        validate_args: bool | None = None,
    ):  # fmt: skip
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        if not all(isinstance(transform, Transform) for transform in self.transforms):
            raise ValueError(
                f"transforms must be a Transform or a list of Transforms, got {transforms!r} (at {user_source()})"
            )
        whole = ComposeTransform(self.transforms)
        taken, given = whole.domain.event_dim, whole.codomain.event_dim
        self.base_dist, shape = _fitted(base_distribution, whole)
        self._drawn: tuple[ref[Tensor], list[Tensor]] | None = None
        cut = len(shape) - max(given, len(base_distribution.event_shape) + given - taken)
        super().__init__(shape[:cut], shape[cut:], validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        """The base expanded."""
        made = super().expand(batch_shape, _instance)
        shape: Shape = Size(batch_shape) + self._event_shape
        for transform in reversed(self.transforms):
            shape = transform.inverse_shape(shape)
        made.base_dist = self.base_dist.expand(shape[: len(shape) - len(self.base_dist.event_shape)])
        made._drawn = None
        return made

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base's."""
        return self.base_dist.has_rsample

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """What the last of the functions gives."""
        given = self.transforms[-1].codomain if self.transforms else self.base_dist.support
        extra = len(self._event_shape) - given.event_dim
        return constraints.independent(given, extra) if extra > 0 else given

    def _through(self, x: Tensor) -> Tensor:
        """The function of the base's value, remembered with all that lies between."""
        values = [x]
        for transform in self.transforms:
            values.append(transform(values[-1]))
        y = values.pop()
        self._drawn = (ref(y), values)
        return y

    def _back(self, y: Tensor) -> list[Tensor]:
        """The base's value, what lies between, and `y`."""
        if self._drawn is not None and self._drawn[0]() is y:
            return [*self._drawn[1], y]
        values = [y]
        for transform in reversed(self.transforms):
            values.append(transform.inv(values[-1]))
        return values[::-1]

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """The function of the base's values."""
        with no_grad():
            return self._through(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """The function of the base's values, through which gradients go."""
        return self._through(self.base_dist.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The base's of what is before, less the logarithm of what the functions stretch by."""
        values = self._back(value)
        values[-1] = self._value(value)
        count, total = len(self._event_shape), None
        for place in reversed(range(len(self.transforms))):
            transform = self.transforms[place]
            count += transform.domain.event_dim - transform.codomain.event_dim
            each = transform.log_abs_det_jacobian(values[place], values[place + 1])
            each = sum_rightmost(each, count - transform.domain.event_dim)
            total = each if total is None else total + each
        base = sum_rightmost(self.base_dist.log_prob(values[0]), count - len(self.base_dist.event_shape))
        return base if total is None else base - total

    def cdf(self, value: Tensor) -> Tensor:
        """The base's of what is before; 1 less that, where the function falls."""
        return self._turned(self.base_dist.cdf(self._back(value)[0]))

    def icdf(self, value: Tensor) -> Tensor:
        """The function of the base's; of the base's of 1 less the value, where the function falls."""
        return ComposeTransform(self.transforms)(self.base_dist.icdf(self._turned(value)))

    def _turned(self, probability: Tensor) -> Tensor:
        sign = ComposeTransform(self.transforms).sign
        return sign * (probability - 0.5) + 0.5 if isinstance(sign, Tensor) or sign < 0 else probability


def _fitted(base: Distribution, whole: Transform) -> tuple[Distribution, Size]:
    """The base with the axes that the function wants of one value, and the shape of what this gives."""
    shape, count, taken = base.batch_shape + base.event_shape, len(base.event_shape), whole.domain.event_dim
    if len(shape) < taken:
        raise ValueError(
            f"base_distribution needs to have shape with size at least {taken}, but got {list(shape)} (at "
            f"{user_source()})"
        )
    given = Size(whole.forward_shape(shape))
    before = Size(whole.inverse_shape(given))
    if before != shape:
        base = base.expand(before[: len(before) - count])
    return (Independent(base, taken - count) if taken > count else base), given


__all__ = ["TransformedDistribution"]
