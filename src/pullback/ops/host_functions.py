"""Functions that take as many steps as their arguments ask for, in NumPy: what host calls of them compute."""

from __future__ import annotations

import math

import numpy as np

from .arithmetic import NumPyArithmetic
from .special import LGAMMA, TERMS_OF_EULER_MACLAURIN

#: a series or fraction that has not converged by then never does
_MOST_STEPS = 20_000


def _lgamma(x: np.ndarray) -> np.ndarray:
    assert LGAMMA.body is not None
    return np.asarray(LGAMMA.body(NumPyArithmetic(), x))


def _series(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The sum of x^n / ((a + 1) … (a + n)), for x < a + 1."""
    term, total, n = np.ones_like(x), np.ones_like(x), 0
    while n < _MOST_STEPS and np.any(term > total * 1e-17):
        n += 1
        term = term * (x / (a + n))
        total = total + term
    return total


def _fraction(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """1/(x + 1 - a - 1 (1 - a)/(x + 3 - a - 2 (2 - a)/…)), for x >= a + 1, by Lentz's method."""
    tiny = 1e-300
    b = x + 1 - a
    c, d = np.full_like(x, 1 / tiny), 1 / b
    result, n = d, 0
    change = np.full_like(x, 2.0)
    while n < _MOST_STEPS and np.any(np.abs(change - 1) > 1e-16):
        n += 1
        factor, b = -n * (n - a), b + 2
        d = factor * d + b
        c = b + factor / c
        d = 1 / np.where(np.abs(d) < tiny, tiny, d)
        c = np.where(np.abs(c) < tiny, tiny, c)
        change = d * c
        result = result * change
    return result


def incomplete_gamma(a: np.ndarray, x: np.ndarray, upper: bool) -> np.ndarray:
    """The regularized incomplete gamma function: the lower one, P(a, x), or the upper one, Q(a, x) = 1 - P(a, x)."""
    shape = np.broadcast_shapes(a.shape, x.shape)
    a, x = (np.broadcast_to(np.asarray(v, np.float64), shape) for v in (a, x))
    with np.errstate(all="ignore"):
        regular = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
        a_, x_ = np.where(regular, a, 1.0), np.where(regular, x, 1.0)
        by_series = x_ < a_ + 1
        power = a_ * np.log(x_) - x_
        factor = np.exp(power - _lgamma(a_))
        # divided by a where the logarithm of gamma(a) would be beyond that of a float
        below = np.exp(power - _lgamma(a_ + 1)) * _series(np.where(by_series, a_, 1.0), np.where(by_series, x_, 0.5))
        above = factor * _fraction(np.where(by_series, 1.0, a_), np.where(by_series, 3.0, x_))
        lower = np.where(by_series, below, 1 - above)
        result = np.clip(np.where(by_series, 1 - below, above) if upper else lower, 0.0, 1.0)
        one, zero = (0.0, 1.0) if upper else (1.0, 0.0)
        result = np.where(np.isinf(x), one, np.where(np.isinf(a), zero, result))
        result = np.where(x == 0, zero, np.where(a == 0, one, result))
        wrong = (a < 0) | (x < 0) | np.isnan(a) | np.isnan(x) | ((a == 0) & (x == 0)) | (np.isinf(a) & np.isinf(x))
        return np.where(wrong, np.nan, result)


def zeta(s: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Hurwitz's zeta function, the sum of (q + i)^-s over i >= 0: ten terms and those below 10, then Euler's and
    Maclaurin's formula, whose error the terms before make small however large s is.
    """
    shape = np.broadcast_shapes(s.shape, q.shape)
    s, q = (np.broadcast_to(np.asarray(v, np.float64), shape) for v in (s, q))
    with np.errstate(all="ignore"):
        regular = (s > 1) & np.isfinite(q) & np.isfinite(s) & ((q > 0) | ((q != np.floor(q)) & (s == np.floor(s))))
        s_, w = np.where(regular, s, 2.0), np.where(regular, q, 10.0)
        total = np.zeros(shape)
        steps = 0
        while np.any(below := (w < 10) | (steps < 10)):
            steps += 1
            total = total + np.where(below, np.power(w, -s_), 0.0)
            w = np.where(below, w + 1, w)
        power = np.power(w, -s_)
        rest = power * w / (s_ - 1) + power / 2
        term, rising = power / w, s_
        for k, coefficient in enumerate(TERMS_OF_EULER_MACLAURIN):
            rest = rest + term * rising * coefficient
            term = term / (w * w)
            rising = rising * (s_ + 2 * k + 1) * (s_ + 2 * k + 2)
        total = total + np.where(power == 0, 0.0, rest)
        poles = (s == 1) | ((s > 1) & (q <= 0) & (q == np.floor(q)))
        result = np.where(regular, total, np.where(poles, math.inf, np.nan))
        return np.where((s > 1) & (q == math.inf), 0.0, np.where((s == math.inf) & (q > 1), 0.0, result))
