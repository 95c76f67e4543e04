"""How parameters start: PyTorch's functions, which fill a tensor in place and return it."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import eye as identity
from ..tensor.creation import tensor as make
from ..tensor.grad_modes import no_grad
from ..tensor.random import Generator, rand, randn

_LINEAR = (
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "sigmoid",
)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity; `param` is the slope of leaky_relu (0.01)."""
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        if param is not None and (isinstance(param, bool) or not isinstance(param, int | float)):
            raise ValueError(f"calculate_gain: negative_slope {param!r} is not a number (at {user_source()})")
        return math.sqrt(2.0 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ValueError(f"calculate_gain: nonlinearity {nonlinearity!r} is not known (at {user_source()})")


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform on [a, b)."""
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal of the given mean and standard deviation."""
    with no_grad():
        return tensor.normal_(mean, std, generator)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Normal, cut to [a, b]: by the quantile function of uniform numbers, in float64 (computed at once)."""
    if not a < b or std <= 0:
        raise ValueError(f"trunc_normal_: needs a < b and std > 0, got a={a}, b={b}, std={std} (at {user_source()})")

    def distribution(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    low, high = distribution((a - mean) / std), distribution((b - mean) / std)
    draws = rand(tensor.shape, dtype=None, generator=generator).double().numpy()
    values = [_normal_quantile(low + (high - low) * float(u)) * std + mean for u in draws.reshape(-1)]
    with no_grad():
        return tensor.copy_(make(values, dtype=tensor.dtype).reshape(tensor.shape).clamp(a, b))


def _normal_quantile(probability: float) -> float:
    from statistics import NormalDist

    # the ends themselves, which a uniform draw of 0 can reach, have no finite quantile
    return NormalDist().inv_cdf(min(max(probability, 1e-300), 1 - 1e-16))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Every element `val`."""
    with no_grad():
        return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Every element 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Every element 1."""
    return constant_(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """A matrix with ones on its diagonal, else 0."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_ takes a matrix, got shape {list(tensor.shape)} (at {user_source()})")
    with no_grad():
        return tensor.copy_(identity(tensor.shape[0], tensor.shape[1], dtype=tensor.dtype))


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """How many inputs each output has, and outputs each input: weight is [out, in, places…]."""
    if tensor.ndim < 2:
        raise ShapeError(
            f"the number of inputs and outputs is not defined for shape {list(tensor.shape)}: at least 2 axes "
            f"are needed "
            f"(at {user_source()})"
        )
    places = math.prod(tensor.shape[2:])
    return tensor.shape[1] * places, tensor.shape[0] * places


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform on ±gain sqrt(6 / (in + out)): Glorot & Bengio (2010)."""
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal of standard deviation gain sqrt(2 / (in + out)): Glorot & Bengio (2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor))), generator)


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    """How many inputs each output has ("fan_in", in capitals too), or outputs each input ("fan_out")."""
    if mode.lower() not in ("fan_in", "fan_out"):
        raise ValueError(f'mode must be "fan_in" or "fan_out", got {mode!r} (at {user_source()})')
    return _calculate_fan_in_and_fan_out(tensor)[mode.lower() == "fan_out"]


def _kaiming_deviation(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    return calculate_gain(nonlinearity, a) / math.sqrt(max(_calculate_correct_fan(tensor, mode), 1))


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Uniform on ±gain sqrt(3 / in) (or out, with mode "fan_out"): He et al. (2015); `a` is leaky_relu's slope."""
    bound = math.sqrt(3.0) * _kaiming_deviation(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Normal of standard deviation gain / sqrt(in) (or out, with mode "fan_out"): He et al. (2015)."""
    return normal_(tensor, 0.0, _kaiming_deviation(tensor, a, mode, nonlinearity), generator)


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution's weight [out, in, places…] that keeps as many input channels as it can in each of `groups`."""
    if tensor.ndim not in (3, 4, 5):
        raise ShapeError(f"dirac_ takes 3, 4 or 5 axes, got shape {list(tensor.shape)} (at {user_source()})")
    if groups <= 0 or tensor.shape[0] % groups:
        raise ValueError(f"dirac_: {tensor.shape[0]} outputs are no multiple of groups {groups} (at {user_source()})")
    each = tensor.shape[0] // groups
    values = np.zeros(tensor.shape, np.float32)
    kept = np.arange(min(each, tensor.shape[1]))
    middle = tuple(size // 2 for size in tensor.shape[2:])
    for group in range(groups):
        places: tuple[Any, ...] = (group * each + kept, kept, *middle)
        values[places] = 1
    return _filled(tensor, values)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """`gain` times a matrix [first axis, all others] of orthonormal rows or columns, whichever are fewer.

    Drawn uniformly among all such (Mezzadri, "How to generate random matrices from the classical compact groups",
    2007): the QR decomposition of normal numbers with a positive diagonal of R, in float64 (computed at once). Saxe,
    McClelland & Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks" (2013).
    """
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_ takes at least 2 axes, got shape {list(tensor.shape)} (at {user_source()})")
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    with no_grad():
        draws = randn(max(rows, columns), min(rows, columns), generator=generator).numpy().astype(np.float64)
    basis, upper = np.linalg.qr(draws)
    basis = basis * np.sign(np.diagonal(upper))
    return _filled(tensor, (basis.T if rows < columns else basis).reshape(tensor.shape) * gain)


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Normal with deviation `std`, but ceil(`sparsity` rows) random elements of each column 0 (computed at once).

    Martens, "Deep learning via Hessian-free optimization" (2010).
    """
    if tensor.ndim != 2:
        raise ShapeError(f"sparse_ takes a matrix, got shape {list(tensor.shape)} (at {user_source()})")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparse_: sparsity must lie between 0 and 1, got {sparsity} (at {user_source()})")
    rows, columns = tensor.shape
    with no_grad():
        values = (randn(rows, columns, generator=generator) * std).numpy().copy()
        order = rand(rows, columns, generator=generator).numpy().argsort(axis=0)
    np.put_along_axis(values, order[: math.ceil(sparsity * rows)], 0.0, axis=0)
    return _filled(tensor, values)


def _filled(tensor: Tensor, values: np.ndarray) -> Tensor:
    with no_grad():
        return tensor.copy_(make(values).to(tensor.dtype))


# PyTorch's own parts of these, which scripts import
_no_grad_uniform_, _no_grad_normal_, _no_grad_trunc_normal_ = uniform_, normal_, trunc_normal_
_no_grad_fill_, _no_grad_zero_ = constant_, zeros_


def _make_deprecate(meth: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function under its former name, without the underscore, which PyTorch warns of."""
    name = meth.__name__

    @functools.wraps(meth)
    def deprecated_init(*args: Any, **kwargs: Any) -> Tensor:
        warnings.warn(
            f"`nn.init.{name[:-1]}` is now deprecated in favor of `nn.init.{name}`.", FutureWarning, stacklevel=2
        )
        return meth(*args, **kwargs)

    deprecated_init.__name__ = deprecated_init.__qualname__ = name[:-1]
    return deprecated_init


_RENAMED: tuple[Callable[..., Tensor], ...] = (
    *(uniform_, normal_, constant_, dirac_, orthogonal_, sparse_, eye_),
    *(xavier_uniform_, xavier_normal_, kaiming_uniform_, kaiming_normal_),
)
uniform, normal, constant, dirac, orthogonal, sparse, eye, *_others = map(_make_deprecate, _RENAMED)
xavier_uniform, xavier_normal, kaiming_uniform, kaiming_normal = _others


__all__ = [
    "calculate_gain",
    "constant",
    "constant_",
    "dirac",
    "dirac_",
    "eye",
    "eye_",
    "kaiming_normal",
    "kaiming_normal_",
    "kaiming_uniform",
    "kaiming_uniform_",
    "normal",
    "normal_",
    "ones_",
    "orthogonal",
    "orthogonal_",
    "sparse",
    "sparse_",
    "trunc_normal_",
    "uniform",
    "uniform_",
    "xavier_normal",
    "xavier_normal_",
    "xavier_uniform",
    "xavier_uniform_",
    "zeros_",
]
