"""Pullback: backpropagation that compiles a whole training step into one native program."""

from typing import TYPE_CHECKING

from . import (
    amp,
    array_api,
    autograd,
    debug,
    errors,
    func,
    functions,
    linalg,
    nn,
    optim,
    profiler,
    signal,
    special,
    utils,
)
from .func import vmap
from .functions import *  # noqa: F403 (the list is long, and stands there)
from .graph.types import DType as dtype
from .graph.types import bfloat16, float16, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64
from .graph.types import bool_ as bool
from .linalg.decompositions import lu_unpack
from .nn.functional import (
    bilinear,
    channel_shuffle,
    cosine_similarity,
    pairwise_distance,
    pdist,
    pixel_shuffle,
    pixel_unshuffle,
)
from .nn.functional.distance import cdist
from .nn.functional.grid import affine_grid_generator, grid_sampler, grid_sampler_2d, grid_sampler_3d
from .nn.functional.padding import constant_pad_nd
from .profiler import profile
from .runtime.threads import get_num_threads, set_num_threads
from .tensor import Tensor
from .tensor.arithmetic import where
from .tensor.autocast_mode import autocast, get_autocast_dtype, is_autocast_enabled
from .tensor.creation import (
    arange,
    as_tensor,
    empty,
    empty_like,
    eye,
    fill,
    from_dlpack,
    from_numpy,
    full,
    full_like,
    linspace,
    logspace,
    ones,
    ones_like,
    scalar_tensor,
    tensor,
    tril_indices,
    triu_indices,
    zeros,
    zeros_like,
)
from .tensor.grad_modes import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from .tensor.limits import can_cast, finfo, iinfo, promote_types
from .tensor.products import matmul
from .tensor.promotion import get_default_dtype, result_type, set_default_dtype
from .tensor.random import (
    Generator,
    default_generator,
    initial_seed,
    manual_seed,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
)
from .tensor.sorting import (
    bucketize,
    isin,
    searchsorted,
)
from .tensor.statistics import (
    cumulative_trapezoid,
    trapezoid,
    trapz,
)
from .tracing import compile, plan

# PyTorch's other names of the same types
half, float, double = float16, float32, float64
short, int, long = int16, int32, int64

__version__: str

if not TYPE_CHECKING:

    def __getattr__(name: str) -> str:
        if name == "__version__":
            # looked up when asked for: it takes longer than a small training step
            from importlib.metadata import version

            return version("pullback")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Generator",
    "Tensor",
    "__version__",
    "affine_grid_generator",
    "amp",
    "arange",
    "array_api",
    "as_tensor",
    "autocast",
    "autograd",
    "bfloat16",
    "bilinear",
    "bool",
    "bucketize",
    "can_cast",
    "cdist",
    "channel_shuffle",
    "compile",
    "constant_pad_nd",
    "cosine_similarity",
    "cumulative_trapezoid",
    "debug",
    "default_generator",
    "double",
    "dtype",
    "empty",
    "empty_like",
    "enable_grad",
    "errors",
    "eye",
    "fill",
    "finfo",
    "float",
    "float16",
    "float32",
    "float64",
    "from_dlpack",
    "from_numpy",
    "full",
    "full_like",
    "func",
    "get_autocast_dtype",
    "get_default_dtype",
    "get_num_threads",
    "grid_sampler",
    "grid_sampler_2d",
    "grid_sampler_3d",
    "half",
    "iinfo",
    "inference_mode",
    "initial_seed",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_autocast_enabled",
    "is_grad_enabled",
    "isin",
    "linalg",
    "linspace",
    "logspace",
    "long",
    "lu_unpack",
    "manual_seed",
    "matmul",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "optim",
    "pairwise_distance",
    "pdist",
    "pixel_shuffle",
    "pixel_unshuffle",
    "plan",
    "profile",
    "profiler",
    "promote_types",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "result_type",
    "scalar_tensor",
    "searchsorted",
    "set_default_dtype",
    "set_grad_enabled",
    "set_num_threads",
    "short",
    "signal",
    "special",
    "tensor",
    "trapezoid",
    "trapz",
    "tril_indices",
    "triu_indices",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "utils",
    "vmap",
    "where",
    "zeros",
    "zeros_like",
]
__all__ += functions.__all__
