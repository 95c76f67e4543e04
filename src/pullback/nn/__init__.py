"""Networks: modules, their functions, how parameters start, and what is done with them as a whole."""

from . import attention, common_types, functional, grad, init, modules, utils
from .modules import *  # noqa: F403 (the list is long, and stands there)
from .parameter import Buffer, Parameter, UninitializedBuffer, UninitializedParameter

__all__ = [
    "Buffer",
    "Parameter",
    "UninitializedBuffer",
    "UninitializedParameter",
    "attention",
    "common_types",
    "functional",
    "grad",
    "init",
    "utils",
]
__all__ += modules.__all__
