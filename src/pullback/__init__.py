"""Pullback: backpropagation that compiles a whole training step into one native program."""

from . import autograd, debug, errors, func, nn, optim, utils
from .functions import (
    abs, add, all, amax, amin, any, argmax, argmin, bmm, broadcast_to, ceil, chunk, clamp, clip, clone, cos, detach,
    div, dot, eq, erf, exp, flatten, flip, floor, gather, ge, gt, index_select, is_floating_point, isfinite, isinf,
    isnan, le, log, log_softmax, logical_and, logical_not, logical_or, logsumexp, lt, masked_fill, max, maximum,
    mean, min, minimum, mm, movedim, mul, narrow, ne, neg, norm, numel, permute, pow, reciprocal, relu, reshape,
    round, rsqrt, scatter_add, sigmoid, sign, sin, softmax, split, sqrt, square, squeeze, std, sub, sum, t, tanh,
    transpose, tril, triu, trunc, unbind, unflatten, unsqueeze, var,
)
from .graph.types import bfloat16, bool_, float16, float32, float64, int8, int32, int64, uint8
from .ops.primitive import Primitive as _Primitive  # noqa: F401
from .tensor import Tensor
from .tensor.arithmetic import where
from .tensor.creation import (
    arange, as_tensor, empty, empty_like, eye, from_dlpack, from_numpy, full, full_like, linspace, ones, ones_like, tensor,
    zeros, zeros_like,
)
from .tensor.grad_modes import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from .tensor.indexing import matmul
from .tensor.promotion import get_default_dtype, result_type, set_default_dtype
from .tensor.random import (
    Generator, default_generator, initial_seed, manual_seed, rand, rand_like, randint, randn, randn_like, randperm,
)
from .tensor.shapes import cat, stack
from .tracing import compile
from . import amp
from .amp import autocast
