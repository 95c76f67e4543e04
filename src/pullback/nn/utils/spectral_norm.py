"""The older spectral normalization of `nn.utils`, with its own names in state dictionaries.

As with parametrizations the weight is a property of a class of the module's own, computed where it is read; PyTorch
computes it in a hook before forward, which gives the same. `parametrizations` has the newer one.
"""

from __future__ import annotations

from typing import Any

from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.random import randn
from .. import functional as F
from ..parameter import Parameter
from .computed import keep_computed, keep_no_more, weight_of
from .parametrizations import _TRANSPOSED, as_matrix, power_iterations


def spectral_norm(
    module: Any, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Any:
    """Have a weight be `weight_orig` divided by its largest singular value, which each training forward follows.

    Miyato et al., "Spectral Normalization" (2018): `n_power_iterations` steps of the power method before each forward
    in training, on the vectors `weight_u` and `weight_v`. See `parametrizations.spectral_norm` for the newer form.
    """
    if n_power_iterations <= 0:
        raise ValueError(f"n_power_iterations must be positive, got {n_power_iterations} (at {user_source()})")
    weight = weight_of("spectral_norm", module, name)
    axis = (1 if isinstance(module, _TRANSPOSED) else 0) if dim is None else dim
    matrix = as_matrix(weight.detach(), axis)
    del module._parameters[name]
    module.register_parameter(f"{name}_orig", Parameter(weight.detach()))
    for part, size in zip("uv", matrix.shape, strict=True):
        module.register_buffer(f"{name}_{part}", F.normalize(randn(size, dtype=weight.dtype), dim=0, eps=eps))

    def _iterate(self: Any, _: Any) -> None:
        if self.training:
            matrix = as_matrix(getattr(self, f"{name}_orig").detach(), axis)
            u, v = getattr(self, f"{name}_u"), getattr(self, f"{name}_v")
            power_iterations(matrix.mT, v, u, n_power_iterations, eps)  # here v is the first to move

    def _read(self: Any) -> Tensor:
        original = getattr(self, f"{name}_orig")
        u, v = getattr(self, f"{name}_u").clone(), getattr(self, f"{name}_v").clone()
        return original / u.dot(as_matrix(original, axis).mv(v))

    handle = module.register_forward_pre_hook(_iterate)

    def undo(owner: Any) -> None:
        del owner._forward_pre_hooks[handle.id]
        del owner._parameters[f"{name}_orig"]
        for part in "uv":
            delattr(owner, f"{name}_{part}")

    keep_computed("spectral_norm", module, name, _read, undo)
    return module


def remove_spectral_norm(module: Any, name: str = "weight") -> Any:
    """Make the weight a parameter again, of the value that it has."""
    return keep_no_more("spectral_norm", module, name)


__all__ = ["remove_spectral_norm", "spectral_norm"]
