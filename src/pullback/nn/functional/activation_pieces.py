"""Activations put together from pieces: thresholds, shrinkage, exponential units, gates.

Where two pieces meet the gradient is PyTorch's. The 16-bit floats are widened at the start and rounded once at the end.
"""

from __future__ import annotations

import math
from functools import partial

from ...errors import ShapeError
from ...graph.types import float32
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arguments import real
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import lowered
from ...tensor.promotion import require_float
from ...tensor.random import Generator, rand
from ...tensor.reductions import normalize_axis
from .activation import finished, softmax, softplus, widened

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """The element where it is above `threshold`, else `value`; NaN stays."""
    result = where(input <= threshold, value, input)
    return finished(result, input, inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """Each element brought into [min_val, max_val]; no gradient at the ends."""
    if real(min_val, "hardtanh", "min_val") > real(max_val, "hardtanh", "max_val"):
        raise ValueError(f"hardtanh: min_val {min_val} is above max_val {max_val} (at {user_source()})")
    result = where(input <= min_val, min_val, where(input >= max_val, max_val, input))
    return finished(result, input, inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """Each element brought into [0, 6]."""
    return hardtanh(input, 0, 6, inplace)


def _exponential_unit(x: Tensor, scale: float, steepness: float, linear: float = 1.0) -> Tensor:
    """linear * x above 0, else scale * (exp(steepness * x) - 1)."""
    positive = x > 0
    below = (where(positive, 0.0, x) * steepness).expm1() * scale
    return where(positive, x if linear == 1 else x * linear, below)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, else alpha * (exp(x) - 1); Clevert et al., "ELU" (ICLR 2016)."""
    return finished(_exponential_unit(widened("elu", input), alpha, 1.0), input, inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """ELU, scaled so that layers keep mean 0 and variance 1; Klambauer et al. (NeurIPS 2017)."""
    x = widened("selu", input)
    return finished(_exponential_unit(x, _SELU_ALPHA * _SELU_SCALE, 1.0, _SELU_SCALE), input, inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, else alpha * (exp(x / alpha) - 1); Barron (2017)."""
    if alpha == 0:
        raise ZeroDivisionError(f"celu: alpha must not be 0 (at {user_source()})")
    return finished(_exponential_unit(widened("celu", input), alpha, 1 / alpha), input, inplace)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x above 0, else weight * x: one weight, or one for each channel (axis 1); He et al. (ICCV 2015)."""
    input, weight = lowered(input, weight)
    require_float("prelu", input)
    if weight.ndim > 1 or weight.dtype is not input.dtype:
        raise ShapeError(
            f"prelu: the weight must have at most one axis and the input's dtype, got {weight.dtype.name}"
            f"{list(weight.shape)} for {input.dtype.name}{list(input.shape)} (at {user_source()})"
        )
    channels = input.shape[1] if input.ndim >= 2 else 1
    if weight.numel() != 1:
        if input.ndim == 0 or weight.numel() != channels:
            raise ShapeError(
                f"prelu: {weight.numel()} weights for {channels} channels of input {list(input.shape)} "
                f"(at {user_source()}); give one, or one a channel"
            )
        weight = weight.reshape(*(-1 if axis == min(1, input.ndim - 1) else 1 for axis in range(input.ndim)))
    elif weight.ndim:
        weight = weight.reshape(())
    x, slope = widened("prelu", input), widened("prelu", weight)
    return finished(where(x > 0, x, slope * x), input)


def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """x above 0, else a times x: in training a is random, uniform on [lower, upper), else their mean."""
    if real(lower, "rrelu", "lower") > real(upper, "rrelu", "upper"):
        raise ValueError(f"rrelu: lower {lower} is above upper {upper} (at {user_source()})")
    x = widened("rrelu", input)
    slope: Tensor | float = (lower + upper) / 2
    if training:
        slope = rand(x.shape, dtype=x.dtype, generator=generator) * (upper - lower) + lower
    return finished(where(x > 0, x, x * slope), input, inplace)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half along `dim` times the sigmoid of the second; Dauphin et al. (ICML 2017)."""
    require_float("glu", input)
    if input.ndim == 0 or input.shape[dim] % 2:
        size = input.shape[dim] if input.ndim else "no"
        raise ShapeError(f"glu: axis {dim} must have an even size, has {size} (at {user_source()})")
    half = input.shape[dim] // 2
    x = widened("glu", input)
    return finished(x.narrow(dim, 0, half) * x.narrow(dim, half, half).sigmoid(), input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)); Misra (BMVC 2020)."""
    x = widened("mish", input)
    return finished(x * softplus(x).tanh(), input, inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """(x + 3) / 6 brought into [0, 1]."""
    x = widened("hardsigmoid", input)
    return finished(where(x <= -3, 0.0, where(x < 3, x / 6 + 0.5, where(x >= 3, 1.0, math.nan))), input, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x); Howard et al., MobileNetV3 (ICCV 2019)."""
    x = widened("hardswish", input)
    low, high = x <= -3, x >= 3
    middle = where(low | high, 0.0, x)  # an infinite x would make the cotangent of what is not chosen NaN
    return finished(where(low, 0.0, where(high, x, middle * (middle + 3) / 6)), input, inplace)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """The element where its magnitude is above `lambd`, else 0."""
    x = widened("hardshrink", input)
    return finished(where((x >= -lambd) & (x <= lambd), 0.0, x), input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """The element drawn toward 0 by `lambd`, and 0 where that would cross it."""
    if real(lambd, "softshrink", "lambd") < 0:
        raise ValueError(f"softshrink: lambd must not be negative, got {lambd} (at {user_source()})")
    x = widened("softshrink", input)
    return finished(where(x > lambd, x - lambd, where(x < -lambd, x + lambd, x * 0.0)), input)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    if not input.dtype.is_floating_point:
        return input - input.tanh()
    x = widened("tanhshrink", input)
    return finished(x - x.tanh(), input)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    if not input.dtype.is_floating_point:
        return input / (1 + input.abs())
    x = widened("softsign", input)
    return finished(x / (1 + x.abs()), input)


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Samples that are nearly one-hot, differentiable by `logits`; with `hard` one-hot, with the gradient of the soft.

    Jang, Gu & Poole (ICLR 2017). `eps` has no use, in PyTorch neither: another value than the default raises.
    """
    if eps != 1e-10:
        raise ValueError(f"gumbel_softmax: eps has no effect and must be left at 1e-10, got {eps}")
    dim = normalize_axis(dim, logits.ndim, "gumbel_softmax")
    x = widened("gumbel_softmax", logits)
    uniform = rand(x.shape, dtype=float32, generator=generator).clamp(min=2.0**-25)
    soft = softmax((x - (-uniform.log()).log().to(x.dtype)) / tau, dim)
    if not hard:
        return finished(soft, logits)
    chosen = soft.detach()
    first = chosen.argmax(dim, keepdim=True)
    one_hot = (first == _places(chosen, dim)).to(x.dtype)
    return finished(one_hot - chosen + soft, logits)


def _places(x: Tensor, dim: int) -> Tensor:
    """0, 1, 2 … along `dim`, to be broadcast."""
    from ...tensor.creation import arange

    axis = dim % x.ndim
    return arange(x.shape[axis]).reshape(*(-1 if i == axis else 1 for i in range(x.ndim)))


hardtanh_, threshold_ = partial(hardtanh, inplace=True), partial(threshold, inplace=True)
elu_, selu_, celu_ = partial(elu, inplace=True), partial(selu, inplace=True), partial(celu, inplace=True)
rrelu_ = partial(rrelu, inplace=True)
