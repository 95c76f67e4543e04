"""Gradients of tensors: `backward`, `grad`, and rules of one's own."""

from ..tensor.anomaly import detect_anomaly, set_detect_anomaly
from ..tensor.grad_modes import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from . import function, functional, grad_mode
from .backward import backward, grad
from .function import Function
from .gradcheck import gradcheck, gradgradcheck
from .variable import Variable

__all__ = [
    "Function",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "function",
    "functional",
    "grad",
    "grad_mode",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]
