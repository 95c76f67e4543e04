"""Derivatives of functions of tensors, under the names of torch.func; and loops, as jax.lax.scan has them."""

from .jacobians import hessian, hvp, jacfwd, jacrev
from .loops import scan
from .transforms import grad, grad_and_value, jvp, linearize, value_and_grad, vjp
from .vmap import vmap

__all__ = [
    "grad",
    "grad_and_value",
    "hessian",
    "hvp",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "scan",
    "value_and_grad",
    "vjp",
    "vmap",
]
