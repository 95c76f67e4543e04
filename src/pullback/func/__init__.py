"""Derivatives of functions of tensors, under the names of torch.func."""

from .transforms import grad, grad_and_value, jvp, value_and_grad, vjp

__all__ = ["grad", "grad_and_value", "jvp", "value_and_grad", "vjp"]
