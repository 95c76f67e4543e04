"""Derivatives of functions of tensors, under the names of torch.func; and loops, as jax.lax.scan has them."""

from .loops import scan
from .transforms import grad, grad_and_value, jvp, value_and_grad, vjp
from .vmap import vmap

__all__ = ["grad", "grad_and_value", "jvp", "scan", "value_and_grad", "vjp", "vmap"]
