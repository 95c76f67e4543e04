"""Functions that take as many steps as their arguments ask for, in NumPy: what host calls of them compute."""

from __future__ import annotations

import math

import numpy as np

from .special import TERMS_OF_EULER_MACLAURIN


def zeta(s: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Hurwitz's zeta function, the sum of (q + i)^-s over i >= 0.

    Below zero, where s is whole, the terms of negative numbers are those of positive ones, but for the sign: the number
    of steps does not depend on how far below.
    """
    shape = np.broadcast_shapes(s.shape, q.shape)
    s, q = (np.broadcast_to(np.asarray(v, np.float64), shape) for v in (s, q))
    with np.errstate(all="ignore"):
        below = (q < 0) & (q != np.floor(q)) & (s == np.floor(s))
        regular = (s > 1) & np.isfinite(q) & np.isfinite(s) & ((q > 0) | below)
        s_, q_ = np.where(regular, s, 2.0), np.where(regular, q, 10.0)
        result = _zeta_above_zero(s_, np.where(below, q_ - np.floor(q_), q_))
        if below.any():
            negative = _zeta_above_zero(s_, np.where(below, np.ceil(q_) - q_, 10.0))
            negative = negative - _zeta_above_zero(s_, np.where(below, 1 - q_, 10.0))
            result = result + np.where(below, np.where(s_ % 2 == 1, -negative, negative), 0.0)
        poles = (s == 1) | ((s > 1) & (q <= 0) & (q == np.floor(q)))
        result = np.where(regular, result, np.where(poles, math.inf, np.nan))
        return np.where((s > 1) & (q == math.inf), 0.0, np.where((s == math.inf) & (q > 1), 0.0, result))


def _zeta_above_zero(s: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The sum for q > 0: ten terms, then Euler's and Maclaurin's formula, whose error they make small however large s
    is.
    """
    total, w = np.zeros_like(s), q
    for _ in range(10):
        total = total + np.power(w, -s)
        w = w + 1
    power = np.power(w, -s)
    rest = power * w / (s - 1) + power / 2
    term, rising = power / w, s
    for k, coefficient in enumerate(TERMS_OF_EULER_MACLAURIN):
        rest = rest + term * rising * coefficient
        term = term / (w * w)
        rising = rising * (s + 2 * k + 1) * (s + 2 * k + 2)
    return total + np.where(power == 0, 0.0, rest)
