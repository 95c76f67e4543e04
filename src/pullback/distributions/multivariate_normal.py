"""Normal distributions of vectors."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..linalg import cholesky, inv, solve_triangular
from ..ops.elementwise import broadcast_shapes
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.random import randn
from . import constraints
from .distribution import Distribution, Shape
from .utils import lazy_property


class MultivariateNormal(Distribution):
    """Normal vectors of mean `loc` and the covariance given by one of three matrices: itself, its inverse, or its lower
    Cholesky factor, which is the cheapest."""

    arg_constraints: ClassVar = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, covariance_matrix: Tensor | None = None, precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None, validate_args: bool | None = None,
    ):  # fmt: skip
        matrices = {
            "covariance_matrix": covariance_matrix,
            "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }
        given = {name: matrix for name, matrix in matrices.items() if matrix is not None}
        if len(given) != 1:
            raise ValueError(
                f"MultivariateNormal takes one of {', '.join(matrices)}, got {len(given)} of them (at {user_source()})"
            )
        ((name, matrix),) = given.items()
        if loc.ndim < 1 or matrix.ndim < 2:
            raise ValueError(f"MultivariateNormal: loc must be a vector and {name} a matrix (at {user_source()})")
        batch = broadcast_shapes("MultivariateNormal", tuple(matrix.shape[:-2]), tuple(loc.shape[:-1]))
        self.loc = loc.expand(*batch, loc.shape[-1])
        self.__dict__[name] = matrix.expand(*batch, *matrix.shape[-2:])
        super().__init__(batch, self.loc.shape[-1:], validate_args)
        self._factor = _factor(name, self.__dict__[name])

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        """The distribution with parameters expanded to `batch_shape`."""
        made = super().expand(batch_shape, _instance)
        made._factor = self._factor.expand(*batch_shape, *self._factor.shape[-2:])
        return made

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return self._factor

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        return self.scale_tril @ self.scale_tril.mT

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        return inv(self.covariance_matrix)

    @property
    def mean(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The covariance's diagonal."""
        return self._factor.square().sum(-1)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """loc + scale_tril @ standard normal numbers."""
        unit = randn(self._extended_shape(sample_shape), dtype=self.loc.dtype)
        return self.loc + (self._factor @ unit.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        distance = self._value(value) - self.loc
        unit = solve_triangular(self._factor, distance.unsqueeze(-1), upper=False).squeeze(-1)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + unit.square().sum(-1)) - self._half_log_det()

    def _half_log_det(self) -> Tensor:
        return self._factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return 0.5 * self._event_shape[0] * (1.0 + math.log(2 * math.pi)) + self._half_log_det()


def _factor(name: str, matrix: Tensor) -> Tensor:
    """The lower Cholesky factor of the covariance."""
    if name == "scale_tril":
        return matrix
    return cholesky(matrix if name == "covariance_matrix" else inv(matrix))


__all__ = ["MultivariateNormal"]
