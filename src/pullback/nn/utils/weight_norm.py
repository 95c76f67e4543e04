"""The older weight normalization of `nn.utils`, with its own names in state dictionaries.

As with parametrizations the weight is a property of a class of the module's own, computed where it is read; PyTorch
computes it in a hook before forward, which gives the same. `parametrizations` has the newer one.
"""

from __future__ import annotations

from typing import Any

from ...tensor import Tensor
from ..parameter import Parameter
from .computed import keep_computed, keep_no_more, weight_of
from .parametrizations import norm_except_dim


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Have a weight computed from its lengths along `dim`, `weight_g`, and its direction, `weight_v`.

    Salimans & Kingma, "Weight Normalization" (2016). See `parametrizations.weight_norm` for the newer form.
    """
    axis = -1 if dim is None else dim
    weight = weight_of("weight_norm", module, name)
    del module._parameters[name]
    module.register_parameter(f"{name}_g", Parameter(norm_except_dim(weight.detach(), axis)))
    module.register_parameter(f"{name}_v", Parameter(weight.detach()))

    def _read(self: Any) -> Tensor:
        v = getattr(self, f"{name}_v")
        return v * (getattr(self, f"{name}_g") / norm_except_dim(v, axis))

    def undo(owner: Any) -> None:
        for part in "gv":
            del owner._parameters[f"{name}_{part}"]

    keep_computed("weight_norm", module, name, _read, undo)
    return module


def remove_weight_norm(module: Any, name: str = "weight") -> Any:
    """Make the weight a parameter again, of the value that it has."""
    return keep_no_more("weight_norm", module, name)


__all__ = ["remove_weight_norm", "weight_norm"]
