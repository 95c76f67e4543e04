"""Mixtures of distributions of one kind."""

from __future__ import annotations

from typing import ClassVar

from ..ops.primitive import user_source
from ..tensor import Tensor
from . import constraints
from .categorical import Categorical
from .distribution import Distribution, Shape


class MixtureSameFamily(Distribution):
    """One of the components along the last axis of `component_distribution`'s batch, chosen by a `Categorical`."""

    arg_constraints: ClassVar = {}

    def __init__(
        self, mixture_distribution: Categorical, component_distribution: Distribution,
        validate_args: bool | None = None,
    ):  # fmt: skip
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError(
                f"The Mixture distribution needs to be an instance of Categorical, got {mixture_distribution!r} (at "
                f"{user_source()})"
            )
        if not isinstance(component_distribution, Distribution):
            raise ValueError(
                f"The Component distribution needs to be a Distribution, got {component_distribution!r} (at "
                f"{user_source()})"
            )
        batch = component_distribution.batch_shape
        count = mixture_distribution.param_shape[-1]
        if not batch or batch[-1] != count:
            raise ValueError(
                f"MixtureSameFamily: the components' batch {list(batch)} must end with the {count} of the mixture (at "
                f"{user_source()})"
            )
        self._mixture, self._component = mixture_distribution, component_distribution
        self._event_ndims = len(component_distribution.event_shape)
        super().__init__(batch[:-1], component_distribution.event_shape, validate_args)

    @property
    def mixture_distribution(self) -> Categorical:
        """What chooses."""
        return self._mixture

    @property
    def component_distribution(self) -> Distribution:
        """What is chosen from."""
        return self._component

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """That of all components."""
        return constraints.MixtureSameFamilyConstraint(self._component.support)

    def _weights(self) -> Tensor:
        probs = self._mixture.probs
        return probs.reshape((*probs.shape, *(1,) * self._event_ndims))

    @property
    def mean(self) -> Tensor:
        """The components' means, weighted."""
        return (self._weights() * self._component.mean).sum(-1 - self._event_ndims)

    @property
    def variance(self) -> Tensor:
        """What is within the components and between their means."""
        axis, mean = -1 - self._event_ndims, self._component.mean
        between = (mean - self.mean.unsqueeze(axis)).square()
        return (self._weights() * (self._component.variance + between)).sum(axis)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Of every component, and then the one that was chosen."""
        axis = -1 - self._event_ndims
        chosen, drawn = self._mixture.sample(sample_shape), self._component.sample(sample_shape)
        index = chosen.reshape((*chosen.shape, *(1,) * (1 + self._event_ndims)))
        index = index.expand(*chosen.shape, 1, *self._event_shape)
        return drawn.gather(drawn.ndim + axis, index).squeeze(axis)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the weighted sum of the components' densities."""
        each = self._component.log_prob(self._value(value).unsqueeze(-1 - self._event_ndims))
        return (each + self._mixture.logits.log_softmax(-1)).logsumexp(-1)

    def cdf(self, value: Tensor) -> Tensor:
        """The weighted sum of the components'."""
        return (self._component.cdf(value.unsqueeze(-1)) * self._mixture.probs).sum(-1)

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self._mixture},\n  {self._component})"


__all__ = ["MixtureSameFamily"]
