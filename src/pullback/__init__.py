"""Pullback: backpropagation that compiles a whole training step into one native program."""

import math
from typing import TYPE_CHECKING

from . import (
    accelerator,
    amp,
    array_api,
    autograd,
    backends,
    cpu,
    cuda,
    debug,
    distributions,
    errors,
    func,
    functions,
    inplace_functions,
    linalg,
    lora,
    monitoring,
    nn,
    optim,
    profiler,
    quant,
    signal,
    special,
    testing,
    utils,
)
from .accumulation import accumulate
from .checkup import doctor
from .diagnosis import Alert
from .func import vmap
from .functions import *  # noqa: F403 (the list is long, and stands there)
from .graph.types import DType as dtype
from .graph.types import bfloat16, float16, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64
from .graph.types import bool_ as bool
from .inplace_functions import *  # noqa: F403
from .linalg.decompositions import lu_unpack
from .linalg.low_rank import pca_lowrank, svd_lowrank
from .linalg.methods import geqrf, lu, orgqr, ormqr
from .monitoring import Monitor
from .nn.functional import (
    bilinear,
    channel_shuffle,
    cosine_similarity,
    pairwise_distance,
    pdist,
    pixel_shuffle,
    pixel_unshuffle,
    top_level,
)
from .nn.functional.distance import cdist
from .nn.functional.grid import affine_grid_generator, grid_sampler, grid_sampler_2d, grid_sampler_3d
from .nn.functional.padding import constant_pad_nd
from .nn.functional.top_level import *  # noqa: F403
from .profiler import profile
from .recovery import Guard
from .runtime.threads import get_num_threads, set_num_threads
from .settings import (
    are_deterministic_algorithms_enabled,
    get_float32_matmul_precision,
    set_float32_matmul_precision,
    use_deterministic_algorithms,
)
from .signal.windows import bartlett_window, blackman_window, hamming_window, hann_window, kaiser_window
from .snapshots import Checkpointer, load, save
from .tensor import COMPLEX, Tensor
from .tensor.anomaly import check_numerics
from .tensor.arithmetic import where
from .tensor.autocast_mode import (
    autocast,
    clear_autocast_cache,
    get_autocast_dtype,
    is_autocast_cache_enabled,
    is_autocast_enabled,
    set_autocast_cache_enabled,
    set_autocast_dtype,
    set_autocast_enabled,
)
from .tensor.creation import (
    arange,
    as_tensor,
    asarray,
    empty,
    empty_like,
    eye,
    fill,
    from_dlpack,
    from_numpy,
    frombuffer,
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
from .tensor.device import device, get_default_device, set_default_device
from .tensor.differences import gradient
from .tensor.display import set_printoptions
from .tensor.draws import bernoulli, binomial, multinomial, normal, poisson
from .tensor.grad_modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .tensor.legacy import (
    BFloat16Tensor,
    BoolTensor,
    ByteTensor,
    CharTensor,
    DoubleTensor,
    FloatTensor,
    HalfTensor,
    IntTensor,
    LongTensor,
    ShortTensor,
    set_default_tensor_type,
)
from .tensor.limits import can_cast, finfo, iinfo, promote_types
from .tensor.memory_format import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    layout,
    memory_format,
    preserve_format,
    strided,
)
from .tensor.metadata import is_tensor
from .tensor.products import matmul
from .tensor.promotion import get_default_dtype, result_type, set_default_dtype
from .tensor.random import (
    Generator,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
    seed,
    set_rng_state,
)
from .tensor.size import Size
from .tensor.sorting import (
    bucketize,
    isin,
    searchsorted,
)
from .tensor.spellings import spell_functions
from .tensor.statistics import (
    cumulative_trapezoid,
    histogramdd,
    trapezoid,
    trapz,
)
from .tracing import compile, plan
from .utils.einops_backend import await_einops

# PyTorch's other names of the same types
half, float, double = float16, float32, float64
short, int, long = int16, int32, int64

pi, e, inf, nan = math.pi, math.e, math.inf, math.nan
newaxis = None

__version__: str

if not TYPE_CHECKING:

    def __getattr__(name: str) -> str:
        if name == "__version__":
            # looked up when asked for: it takes longer than a small training step
            from importlib.metadata import version

            return version("pullback")
        if name in COMPLEX:
            raise AttributeError(
                f"pullback.{name} is not there: complex numbers, and with them FFTs, are out of scope for now"
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Alert",
    "BFloat16Tensor",
    "BoolTensor",
    "ByteTensor",
    "CharTensor",
    "Checkpointer",
    "DoubleTensor",
    "FloatTensor",
    "Generator",
    "Guard",
    "HalfTensor",
    "IntTensor",
    "LongTensor",
    "Monitor",
    "ShortTensor",
    "Size",
    "Tensor",
    "__version__",
    "accelerator",
    "accumulate",
    "affine_grid_generator",
    "amp",
    "arange",
    "are_deterministic_algorithms_enabled",
    "array_api",
    "as_tensor",
    "asarray",
    "autocast",
    "autograd",
    "backends",
    "bartlett_window",
    "bernoulli",
    "bfloat16",
    "bilinear",
    "binomial",
    "blackman_window",
    "bool",
    "bucketize",
    "can_cast",
    "cdist",
    "channel_shuffle",
    "channels_last",
    "channels_last_3d",
    "check_numerics",
    "clear_autocast_cache",
    "compile",
    "constant_pad_nd",
    "contiguous_format",
    "cosine_similarity",
    "cpu",
    "cuda",
    "cumulative_trapezoid",
    "debug",
    "default_generator",
    "device",
    "distributions",
    "doctor",
    "double",
    "dtype",
    "e",
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
    "frombuffer",
    "full",
    "full_like",
    "func",
    "geqrf",
    "get_autocast_dtype",
    "get_default_device",
    "get_default_dtype",
    "get_float32_matmul_precision",
    "get_num_threads",
    "get_rng_state",
    "gradient",
    "grid_sampler",
    "grid_sampler_2d",
    "grid_sampler_3d",
    "half",
    "hamming_window",
    "hann_window",
    "histogramdd",
    "iinfo",
    "inf",
    "inference_mode",
    "initial_seed",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_autocast_cache_enabled",
    "is_autocast_enabled",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "is_tensor",
    "isin",
    "kaiser_window",
    "layout",
    "linalg",
    "linspace",
    "load",
    "logspace",
    "long",
    "lora",
    "lu",
    "lu_unpack",
    "manual_seed",
    "matmul",
    "memory_format",
    "monitoring",
    "multinomial",
    "nan",
    "newaxis",
    "nn",
    "no_grad",
    "normal",
    "ones",
    "ones_like",
    "optim",
    "orgqr",
    "ormqr",
    "pairwise_distance",
    "pca_lowrank",
    "pdist",
    "pi",
    "pixel_shuffle",
    "pixel_unshuffle",
    "plan",
    "poisson",
    "preserve_format",
    "profile",
    "profiler",
    "promote_types",
    "quant",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "result_type",
    "save",
    "scalar_tensor",
    "searchsorted",
    "seed",
    "set_autocast_cache_enabled",
    "set_autocast_dtype",
    "set_autocast_enabled",
    "set_default_device",
    "set_default_dtype",
    "set_default_tensor_type",
    "set_float32_matmul_precision",
    "set_grad_enabled",
    "set_num_threads",
    "set_printoptions",
    "set_rng_state",
    "short",
    "signal",
    "special",
    "strided",
    "svd_lowrank",
    "tensor",
    "testing",
    "trapezoid",
    "trapz",
    "tril_indices",
    "triu_indices",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "use_deterministic_algorithms",
    "utils",
    "vmap",
    "where",
    "zeros",
    "zeros_like",
]
__all__ += functions.__all__
__all__ += inplace_functions.__all__
__all__ += top_level.__all__

spell_functions(globals())
await_einops()
