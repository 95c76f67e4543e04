"""Derivatives of functions of tensors and modules as functions, under the names of torch.func; and loops, as
jax.lax.scan has them.
"""

from .jacobians import hessian, hvp, jacfwd, jacrev
from .loops import scan
from .modules import functional_call, stack_module_state
from .transforms import grad, grad_and_value, jvp, linearize, value_and_grad, vjp
from .vmap import vmap

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "hvp",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "scan",
    "stack_module_state",
    "value_and_grad",
    "vjp",
    "vmap",
]
