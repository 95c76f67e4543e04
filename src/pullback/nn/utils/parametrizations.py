"""Parametrizations that PyTorch has ready: weight normalization, spectral normalization, orthogonal matrices."""

from __future__ import annotations

from typing import Any

from ... import linalg
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import eye, zeros_like
from ...tensor.grad_modes import no_grad
from ...tensor.joining import cat
from ...tensor.random import randn
from .. import functional as F
from ..modules.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from ..modules.module import Module
from .parametrize import register_parametrization

_TRANSPOSED = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)


def norm_except_dim(v: Tensor, dim: int) -> Tensor:
    """The 2-norms of the slices of `v` along `dim`, of size 1 in the other axes; for -1 that of all of it."""
    if dim == -1:
        return v.norm()
    return v.square().sum([a for a in range(v.ndim) if a != dim % v.ndim], keepdim=True).sqrt()


class _WeightNorm(Module):
    """g v / ‖v‖: Salimans & Kingma, "Weight Normalization" (2016)."""

    def __init__(self, dim: int | None = 0):
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        """The weight of length `weight_g` in direction `weight_v`."""
        return weight_v * (weight_g / norm_except_dim(weight_v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The lengths, and the weight itself as the direction."""
        return norm_except_dim(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Have a weight computed from its lengths along `dim` (original0) and its direction (original1).

    State dictionaries of the older `nn.utils.weight_norm` load: `weight_g` and `weight_v`.
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def renamed(state: dict[str, Any], prefix: str, *_: Any) -> None:
        for old, new in (("g", "original0"), ("v", "original1")):
            if f"{prefix}{name}_{old}" in state:
                state[f"{prefix}parametrizations.{name}.{new}"] = state.pop(f"{prefix}{name}_{old}")

    module._register_load_state_dict_pre_hook(renamed)
    return module


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """The weight as a matrix whose rows go along `dim`."""
    if dim != 0:
        weight = weight.permute(dim, *(a for a in range(weight.ndim) if a != dim))
    return weight.flatten(1)


def power_iterations(matrix: Tensor, u: Tensor, v: Tensor, count: int, eps: float) -> None:
    """`count` steps of the power method towards the largest singular value, into `u` and `v`."""
    with no_grad():
        for _ in range(count):
            u.copy_(F.normalize(matrix.mv(v), dim=0, eps=eps))
            v.copy_(F.normalize(matrix.mT.mv(u), dim=0, eps=eps))


class _SpectralNorm(Module):
    """weight / σ: Miyato et al., "Spectral Normalization" (2018); σ by the power method."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12):
        super().__init__()
        if n_power_iterations <= 0:
            raise ValueError(f"n_power_iterations must be positive, got {n_power_iterations} (at {user_source()})")
        if not -weight.ndim <= dim < weight.ndim:
            raise IndexError(f"spectral_norm: dim {dim} is no axis of {list(weight.shape)} (at {user_source()})")
        self.dim = dim % weight.ndim
        self.eps = eps
        if weight.ndim > 1:
            self.n_power_iterations = n_power_iterations
            matrix = as_matrix(weight.detach(), self.dim)
            for name, size in (("_u", matrix.shape[0]), ("_v", matrix.shape[1])):
                self.register_buffer(name, F.normalize(randn(size, dtype=weight.dtype), dim=0, eps=eps))
            power_iterations(matrix, self._u, self._v, 15, eps)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight whose largest singular value is 1, nearly."""
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            power_iterations(matrix, self._u, self._v, self.n_power_iterations, self.eps)
        sigma = self._u.clone().dot(matrix.mv(self._v.clone()))
        return weight / sigma

    def right_inverse(self, value: Tensor) -> Tensor:
        """The value: it is taken to be of spectral norm 1."""
        return value


def spectral_norm(
    module: Any, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Any:
    """Have a weight divided by its largest singular value."""
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"{type(module).__name__} has no tensor {name!r} (at {user_source()})")
    if dim is None:
        dim = 1 if isinstance(module, _TRANSPOSED) else 0
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))


class _Orthogonal(Module):
    """Matrices of orthonormal columns (or rows) from free ones: Lezcano-Casado & Martínez-Rubio (2019)."""

    base: Tensor | None

    def __init__(self, weight: Tensor, orthogonal_map: str, use_trivialization: bool):
        super().__init__()
        self.shape, self.orthogonal_map = weight.shape, orthogonal_map
        self.trivializes = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        """The orthogonal matrix of the free one."""
        transposed = X.shape[-2] < X.shape[-1]
        X = X.mT if transposed else X
        Q = self._reflections(X) if self.orthogonal_map == "householder" else self._rotation(X)
        if self.trivializes and self.base is not None:
            Q = self.base @ Q
        return Q.mT if transposed else Q

    def _reflections(self, X: Tensor) -> Tensor:
        A = X.tril(-1)
        tau = 2.0 / (1.0 + (A * A).sum(-2))
        signs = X.detach().diagonal(dim1=-2, dim2=-1).trunc()
        return linalg.householder_product(A, tau) * signs.unsqueeze(-2)

    def _rotation(self, X: Tensor) -> Tensor:
        n, k = X.shape[-2:]
        X = X.tril()
        if n != k:
            X = cat([X, X.new_zeros(*X.shape[:-1], n - k)], -1)
        A = X - X.mT
        if self.orthogonal_map == "matrix_exp":
            Q = linalg.matrix_exp(A)
        else:
            identity = eye(n, dtype=A.dtype)
            Q = linalg.solve(identity - A * 0.5, identity + A * 0.5)
        return Q[..., :k] if n != k else Q

    def right_inverse(self, Q: Tensor) -> Tensor:
        """The free matrix of an orthogonal one; what is not orthogonal is made so first."""
        if Q.shape != self.shape:
            raise ValueError(f"expected a matrix {list(self.shape)}, got {list(Q.shape)} (at {user_source()})")
        transposed = Q.shape[-2] < Q.shape[-1]
        start, Q = Q, Q.mT if transposed else Q
        n, k = Q.shape[-2:]
        if not self.trivializes:
            if self.orthogonal_map != "householder":
                raise NotImplementedError(
                    "the matrix exponential and the Cayley map can be assigned to with use_trivialization=True only "
                    f"(at {user_source()})"
                )
            A, tau = linalg.geqrf(Q)
            signs = A.diagonal(dim1=-2, dim2=-1).sign()
            signs = signs * (1 - 2 * (tau == 0).to(signs.dtype))
            on_diagonal = eye(n, k, dtype=A.dtype)
            A = A * (1 - on_diagonal) + signs.unsqueeze(-2) * on_diagonal
            return A.mT if transposed else A
        if n != k:
            Q = cat([Q, randn(*Q.shape[:-2], n, n - k, dtype=Q.dtype)], -1)
        self.base = _made_orthogonal(Q)
        negative = zeros_like(start) - eye(start.shape[-2], start.shape[-1], dtype=start.dtype)
        return negative


def _made_orthogonal(A: Tensor) -> Tensor:
    """The orthogonal factor of A, with the signs that leave an orthogonal A as it is."""
    packed, tau = linalg.geqrf(A)
    Q = linalg.householder_product(packed, tau)
    return (Q * packed.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)).detach()


def orthogonal(
    module: Any, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Any:
    """Have a matrix, or a batch of them, be orthogonal: by "matrix_exp", "cayley" or "householder".

    The first is the default for square matrices, the last for others.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"{type(module).__name__} has no tensor {name!r} (at {user_source()})")
    if weight.ndim < 2:
        raise ValueError(f"orthogonal takes matrices, got {list(weight.shape)} (at {user_source()})")
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.shape[-2] == weight.shape[-1] else "householder"
    if orthogonal_map not in ("matrix_exp", "cayley", "householder"):
        raise ValueError(
            f'orthogonal_map must be "matrix_exp", "cayley" or "householder", got {orthogonal_map!r} '
            f"(at {user_source()})"
        )
    return register_parametrization(module, name, _Orthogonal(weight, orthogonal_map, use_trivialization), unsafe=True)


__all__ = ["orthogonal", "spectral_norm", "weight_norm"]
