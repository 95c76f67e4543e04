"""Axes of a batch taken as axes of one value."""

from __future__ import annotations

from ..ops.primitive import user_source
from ..tensor import Tensor
from . import constraints
from .distribution import Distribution, Shape
from .utils import sum_rightmost


class Independent(Distribution):
    """`base_distribution` with the last `reinterpreted_batch_ndims` axes of its batch as axes of the value: log_prob is
    summed over them.

    >>> base = pb.distributions.Normal(pb.zeros(3), pb.ones(3))
    >>> pb.distributions.Independent(base, 1).event_shape
    pullback.Size([3])
    """

    def __init__(
        self, base_distribution: Distribution, reinterpreted_batch_ndims: int, validate_args: bool | None = None
    ):
        batch, event = base_distribution.batch_shape, base_distribution.event_shape
        if not 0 <= reinterpreted_batch_ndims <= len(batch):
            raise ValueError(
                f"Independent: the batch {list(batch)} has no {reinterpreted_batch_ndims} axes to take (at "
                f"{user_source()})"
            )
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, reinterpreted_batch_ndims
        kept = len(batch) - reinterpreted_batch_ndims
        super().__init__(batch[:kept], batch[kept:] + event, validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base's."""
        return self.base_dist.has_rsample

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """Whether the base has, unless axes of its batch are axes of a value."""
        return self.base_dist.has_enumerate_support and not self.reinterpreted_batch_ndims

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """Of all elements of one value."""
        count = self.reinterpreted_batch_ndims
        return constraints.independent(self.base_dist.support, count) if count else self.base_dist.support

    @property
    def mean(self) -> Tensor:
        """The base's."""
        return self.base_dist.mean

    @property
    def mode(self) -> Tensor:
        """The base's."""
        return self.base_dist.mode

    @property
    def variance(self) -> Tensor:
        """The base's."""
        return self.base_dist.variance

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """The base's values."""
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """The base's values as functions of its parameters."""
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum of the base's over the axes that were taken."""
        return sum_rightmost(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> Tensor:
        """The sum of the base's."""
        return sum_rightmost(self.base_dist.entropy(), self.reinterpreted_batch_ndims)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The base's values, where no axes of its batch are axes of a value."""
        if self.reinterpreted_batch_ndims:
            raise NotImplementedError(f"Enumeration over cartesian product is not implemented (at {user_source()})")
        return self.base_dist.enumerate_support(expand)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist}, {self.reinterpreted_batch_ndims})"


__all__ = ["Independent"]
