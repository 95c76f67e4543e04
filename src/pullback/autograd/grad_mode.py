"""PyTorch's file of the modes in which history is recorded or not."""

from ..tensor.grad_modes import enable_grad, inference_mode, no_grad, set_grad_enabled

__all__ = ["enable_grad", "inference_mode", "no_grad", "set_grad_enabled"]
