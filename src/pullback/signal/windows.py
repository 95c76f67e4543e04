"""Windows of M points under PyTorch's names, counted in float64 and rounded once.

`sym` gives a symmetric window, to design filters with; without it the window is periodic: the first M points of the
symmetric one of M + 1, for spectra. A window of no points is empty, one of a single point is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from ..graph.types import DType, float32, float64
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import tensor
from ..tensor.promotion import get_default_dtype


def _window(
    name: str, M: int, dtype: DType | None, device: str | None, requires_grad: bool, count: Callable[[], np.ndarray]
) -> Tensor:
    """`count`'s points for M > 1, and 1 for one, in `dtype`."""
    if isinstance(M, bool) or not isinstance(M, int) or M < 0:
        raise ValueError(f"{name}: M must be a whole number from 0 on, got {M!r} (at {user_source()})")
    if dtype not in (None, float32, float64):
        raise ValueError(f"{name}: a window is of float32 or float64, got {dtype!r} (at {user_source()})")
    points = np.ones(M) if M < 2 else count()
    return tensor(points, dtype=dtype or get_default_dtype(), device=device, requires_grad=requires_grad)


def _at_least(name: str, what: str, value: float, positive: bool) -> None:
    if not (value > 0 if positive else value >= 0):
        raise ValueError(
            f"{name}: {what} must {'be positive' if positive else 'not be negative'}, got {value!r} "
            f"(at {user_source()})"
        )


def _steps(M: int, sym: bool) -> int:
    """How many steps the whole window has."""
    return M - 1 if sym else M


def _cosines(M: int, weights: list[float], sym: bool) -> np.ndarray:
    angle = 2 * math.pi / _steps(M, sym) * np.arange(M)
    return np.asarray(sum((-1) ** i * weight * np.cos(i * angle) for i, weight in enumerate(weights)))


def bartlett(
    M: int,
    *,
    sym: bool = True,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """The triangle from 0 to 1 and back.

    >>> pb.signal.windows.bartlett(5)
    tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000])
    """
    return _window(
        "bartlett", M, dtype, device, requires_grad, lambda: 1 - np.abs(2 / _steps(M, sym) * np.arange(M) - 1)
    )


def blackman(
    M: int,
    *,
    sym: bool = True,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Blackman's window: 0.42 - 0.5 cos + 0.08 cos of twice the angle."""
    return _window("blackman", M, dtype, device, requires_grad, lambda: _cosines(M, [0.42, 0.5, 0.08], sym))


def cosine(
    M: int,
    *,
    sym: bool = True,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Half a wave of the sine, its ends half a step away from 0."""
    return _window(
        "cosine", M, dtype, device, requires_grad, lambda: np.sin(math.pi / (_steps(M, sym) + 1) * (np.arange(M) + 0.5))
    )


def exponential(
    M: int,
    *,
    center: float | None = None,
    tau: float = 1.0,
    sym: bool = True,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """exp(-|k - center| / tau); a `center` of one's own is for periodic windows."""
    _at_least("exponential", "tau", tau, True)
    if sym and center is not None:
        raise ValueError(f"exponential: a symmetric window has its own center, got {center!r} (at {user_source()})")
    return _window(
        "exponential",
        M,
        dtype,
        device,
        requires_grad,
        lambda: np.exp(-np.abs(np.arange(M) - (_steps(M, sym) / 2 if center is None else center)) / tau),
    )


def gaussian(
    M: int,
    *,
    std: float = 1.0,
    sym: bool = True,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """The bell of standard deviation `std`, in points."""
    _at_least("gaussian", "std", std, True)
    return _window(
        "gaussian",
        M,
        dtype,
        device,
        requires_grad,
        lambda: np.exp(-(((np.arange(M) - _steps(M, sym) / 2) / std) ** 2) / 2),
    )


def general_cosine(
    M: int,
    *,
    a: Iterable[float],
    sym: bool = True,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """The sum of cosines of multiples of the angle, with the weights `a` and alternating signs."""
    if not isinstance(a, Iterable) or not (weights := list(a)):
        raise ValueError(f"general_cosine: a must be a list of weights and not empty, got {a!r} (at {user_source()})")
    return _window("general_cosine", M, dtype, device, requires_grad, lambda: _cosines(M, weights, sym))


def general_hamming(
    M: int,
    *,
    alpha: float = 0.54,
    sym: bool = True,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """alpha - (1 - alpha) cos."""
    return _window("general_hamming", M, dtype, device, requires_grad, lambda: _cosines(M, [alpha, 1 - alpha], sym))


def hamming(
    M: int,
    *,
    sym: bool = True,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Hamming's window: 0.54 - 0.46 cos."""
    return _window("hamming", M, dtype, device, requires_grad, lambda: _cosines(M, [0.54, 0.46], sym))


def hann(
    M: int,
    *,
    sym: bool = True,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Hann's window: 0.5 - 0.5 cos."""
    return _window("hann", M, dtype, device, requires_grad, lambda: _cosines(M, [0.5, 0.5], sym))


def kaiser(
    M: int,
    *,
    beta: float = 12.0,
    sym: bool = True,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Kaiser's window: I0(beta sqrt(1 - k²)) / I0(beta) for k from -1 to 1."""
    _at_least("kaiser", "beta", beta, False)
    return _window(
        "kaiser",
        M,
        dtype,
        device,
        requires_grad,
        lambda: np.i0(beta * np.sqrt(np.maximum(1 - (2 / _steps(M, sym) * np.arange(M) - 1) ** 2, 0))) / np.i0(beta),
    )


def nuttall(
    M: int,
    *,
    sym: bool = True,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Nuttall's window of four cosines."""
    return _window(
        "nuttall",
        M,
        dtype,
        device,
        requires_grad,
        lambda: _cosines(M, [0.3635819, 0.4891775, 0.1365995, 0.0106411], sym),
    )


def bartlett_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """bartlett, periodic unless said otherwise."""
    return bartlett(window_length, sym=not periodic, dtype=dtype, device=device, requires_grad=requires_grad)


def blackman_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """blackman, periodic unless said otherwise."""
    return blackman(window_length, sym=not periodic, dtype=dtype, device=device, requires_grad=requires_grad)


def hann_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """hann, periodic unless said otherwise."""
    return hann(window_length, sym=not periodic, dtype=dtype, device=device, requires_grad=requires_grad)


def hamming_window(
    window_length: int,
    periodic: bool = True,
    alpha: float = 0.54,
    beta: float = 0.46,
    *,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """alpha - beta cos, periodic unless said otherwise."""
    return _window(
        "hamming_window",
        window_length,
        dtype,
        device,
        requires_grad,
        lambda: _cosines(window_length, [alpha, beta], not periodic),
    )


def kaiser_window(
    window_length: int,
    periodic: bool = True,
    beta: float = 12.0,
    *,
    dtype: DType | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """kaiser, periodic unless said otherwise."""
    return kaiser(window_length, beta=beta, sym=not periodic, dtype=dtype, device=device, requires_grad=requires_grad)


__all__ = [
    "bartlett",
    "blackman",
    "cosine",
    "exponential",
    "gaussian",
    "general_cosine",
    "general_hamming",
    "hamming",
    "hann",
    "kaiser",
    "nuttall",
]
