"""The older weight and spectral normalization of `nn.utils`, with their own names in state dictionaries.

As with parametrizations the weight is a property of a class of the module's own, computed where it is read; PyTorch
computes it in a hook before forward, which gives the same. `parametrizations` has the newer ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.grad_modes import no_grad
from ...tensor.random import randn
from .. import functional as F
from ..parameter import Parameter
from .computed import compute, computed_no_more
from .parametrizations import _TRANSPOSED, as_matrix, norm_except_dim, power_iterations

#: in a module's attributes: what its computed weights are, by kind and name, with what takes them away
_COMPUTED = "_computed_weights"


def _weight_of(function: str, module: Any, name: str) -> Parameter:
    weight = module._parameters.get(name)
    if weight is None:
        raise ValueError(f"{function}: {type(module).__name__} has no parameter {name!r} (at {user_source()})")
    return weight


def _compute(kind: str, module: Any, name: str, read: Callable[[Any], Tensor], undo: Callable[[Any], None]) -> None:
    """Have `module.name` be what `read` gives, until `undo` takes what it is computed from away from the module, or
    from a copy of it.
    """
    compute(module, name, read)
    module.__dict__.setdefault(_COMPUTED, {})[kind, name] = undo


def _remove(kind: str, module: Any, name: str) -> Any:
    undo = module.__dict__.get(_COMPUTED, {}).pop((kind, name), None)
    if undo is None:
        raise ValueError(f"{type(module).__name__} has no {kind} of {name!r} (at {user_source()})")
    with no_grad():
        value = getattr(module, name).detach().clone()
    undo(module)
    computed_no_more(module, name)
    module.register_parameter(name, Parameter(value))
    return module


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Have a weight computed from its lengths along `dim`, `weight_g`, and its direction, `weight_v`.

    Salimans & Kingma, "Weight Normalization" (2016). See `parametrizations.weight_norm` for the newer form.
    """
    axis = -1 if dim is None else dim
    weight = _weight_of("weight_norm", module, name)
    del module._parameters[name]
    module.register_parameter(f"{name}_g", Parameter(norm_except_dim(weight.detach(), axis)))
    module.register_parameter(f"{name}_v", Parameter(weight.detach()))

    def read(self: Any) -> Tensor:
        v = getattr(self, f"{name}_v")
        return v * (getattr(self, f"{name}_g") / norm_except_dim(v, axis))

    def undo(owner: Any) -> None:
        for part in "gv":
            del owner._parameters[f"{name}_{part}"]

    _compute("weight_norm", module, name, read, undo)
    return module


def remove_weight_norm(module: Any, name: str = "weight") -> Any:
    """Make the weight a parameter again, of the value that it has."""
    return _remove("weight_norm", module, name)


def spectral_norm(
    module: Any, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Any:
    """Have a weight be `weight_orig` divided by its largest singular value, which each training forward follows.

    Miyato et al., "Spectral Normalization" (2018): `n_power_iterations` steps of the power method before each forward
    in training, on the vectors `weight_u` and `weight_v`. See `parametrizations.spectral_norm` for the newer form.
    """
    if n_power_iterations <= 0:
        raise ValueError(f"n_power_iterations must be positive, got {n_power_iterations} (at {user_source()})")
    weight = _weight_of("spectral_norm", module, name)
    axis = (1 if isinstance(module, _TRANSPOSED) else 0) if dim is None else dim
    matrix = as_matrix(weight.detach(), axis)
    del module._parameters[name]
    module.register_parameter(f"{name}_orig", Parameter(weight.detach()))
    for part, size in zip("uv", matrix.shape, strict=True):
        module.register_buffer(f"{name}_{part}", F.normalize(randn(size, dtype=weight.dtype), dim=0, eps=eps))

    def iterate(self: Any, _: Any) -> None:
        if self.training:
            matrix = as_matrix(getattr(self, f"{name}_orig").detach(), axis)
            u, v = getattr(self, f"{name}_u"), getattr(self, f"{name}_v")
            power_iterations(matrix.mT, v, u, n_power_iterations, eps)  # here v is the first to move

    def read(self: Any) -> Tensor:
        original = getattr(self, f"{name}_orig")
        u, v = getattr(self, f"{name}_u").clone(), getattr(self, f"{name}_v").clone()
        return original / u.dot(as_matrix(original, axis).mv(v))

    handle = module.register_forward_pre_hook(iterate)

    def undo(owner: Any) -> None:
        del owner._forward_pre_hooks[handle.id]
        del owner._parameters[f"{name}_orig"]
        for part in "uv":
            delattr(owner, f"{name}_{part}")

    _compute("spectral_norm", module, name, read, undo)
    return module


def remove_spectral_norm(module: Any, name: str = "weight") -> Any:
    """Make the weight a parameter again, of the value that it has."""
    return _remove("spectral_norm", module, name)


__all__ = ["remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm"]
