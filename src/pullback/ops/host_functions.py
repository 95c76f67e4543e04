"""Functions that take as many steps as their arguments ask for, in NumPy: what host calls of them compute."""

from __future__ import annotations

import math

import numpy as np

from .arithmetic import NumPyArithmetic
from .primitive import Primitive
from .special import ERFC, LGAMMA, TERMS_OF_EULER_MACLAURIN
from .special_tables import TEMME

#: a series or fraction that has not converged by then never does
_MOST_STEPS = 20_000
#: from where on the incomplete gamma function near its middle is expanded in 1/a: the series takes sqrt(a) steps
_LARGE = 1e4


def _by_reference(function: Primitive, x: np.ndarray) -> np.ndarray:
    assert function.body is not None
    return np.asarray(function.body(NumPyArithmetic(), x))


def _lgamma(x: np.ndarray) -> np.ndarray:
    return _by_reference(LGAMMA, x)


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
    # to the last bit: nearer to 1 than this a change need not ever be
    while n < _MOST_STEPS and np.any(np.abs(change - 1) > 3e-16):
        n += 1
        factor, b = -n * (n - a), b + 2
        d = factor * d + b
        c = b + factor / c
        d = 1 / np.where(np.abs(d) < tiny, tiny, d)
        c = np.where(np.abs(c) < tiny, tiny, c)
        change = d * c
        result = result * change
    return result


def _expanded(a: np.ndarray, x: np.ndarray, upper: bool) -> np.ndarray:
    """The regularized function for a >= 10,000 and x within 0.3 a of it, by Temme's uniform expansion (1979; DLMF
    8.12): erfc(eta sqrt(a/2))/2 and a small rest, eta^2/2 = r - 1 - log(r) with r = x/a.
    """
    distance = (x - a) / a
    # log(1 + d) - d by the series of the inverse hyperbolic tangent of s, of which the first term is taken off exactly
    s = distance / (2 + distance)
    odd = sum(s ** (2 * k) * (2 / (2 * k + 1)) for k in range(1, 12))
    half_square = s * distance - s * odd
    eta = np.copysign(np.sqrt(2 * half_square), distance)
    rest = sum(np.polynomial.polynomial.polyval(eta, row) * a**-k for k, row in enumerate(TEMME))
    rest = np.exp(-a * half_square) / np.sqrt(2 * math.pi * a) * rest
    middle = 0.5 * _by_reference(ERFC, np.copysign(np.sqrt(a * half_square), eta if upper else -eta))
    return middle + rest if upper else middle - rest


def incomplete_gamma(a: np.ndarray, x: np.ndarray, upper: bool) -> np.ndarray:
    """The regularized incomplete gamma function: the lower one, P(a, x), or the upper one, Q(a, x) = 1 - P(a, x)."""
    shape = np.broadcast_shapes(a.shape, x.shape)
    a, x = (np.broadcast_to(np.asarray(v, np.float64), shape) for v in (a, x))
    with np.errstate(all="ignore"):
        regular = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
        a_, x_ = np.where(regular, a, 1.0), np.where(regular, x, 1.0)
        large = (a_ >= _LARGE) & (np.abs(x_ - a_) <= 0.3 * a_)
        expanded = _expanded(np.where(large, a_, _LARGE), np.where(large, x_, _LARGE), upper)
        a_, x_ = np.where(large, 1.0, a_), np.where(large, 1.0, x_)
        by_series = x_ < a_ + 1
        power = a_ * np.log(x_) - x_
        factor = np.exp(power - _lgamma(a_))
        # divided by a where the logarithm of gamma(a) would be beyond that of a float
        below = np.exp(power - _lgamma(a_ + 1)) * _series(np.where(by_series, a_, 1.0), np.where(by_series, x_, 0.5))
        above = factor * _fraction(np.where(by_series, 1.0, a_), np.where(by_series, 3.0, x_))
        lower = np.where(by_series, below, 1 - above)
        summed = np.where(by_series, 1 - below, above) if upper else lower
        result = np.clip(np.where(large, expanded, summed), 0.0, 1.0)
        one, zero = (0.0, 1.0) if upper else (1.0, 0.0)
        result = np.where(np.isinf(x), one, np.where(np.isinf(a), zero, result))
        result = np.where(x == 0, zero, np.where(a == 0, one, result))
        wrong = (a < 0) | (x < 0) | np.isnan(a) | np.isnan(x) | ((a == 0) & (x == 0)) | (np.isinf(a) & np.isinf(x))
        return np.where(wrong, np.nan, result)


def _sum_of_powers(s: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The sum of (q + i)^-s over i >= 0 for s > 1 and q > 0: ten terms, then Euler's and Maclaurin's formula, whose
    error the terms before make small however large s is.
    """
    total, w = np.zeros(q.shape), q
    for _ in range(10):
        total, w = total + np.power(w, -s), w + 1
    power = np.power(w, -s)
    rest = power * w / (s - 1) + power / 2
    term, rising = power / w, s
    for k, coefficient in enumerate(TERMS_OF_EULER_MACLAURIN):
        rest = rest + term * rising * coefficient
        term = term / (w * w)
        rising = rising * (s + 2 * k + 1) * (s + 2 * k + 2)
    return total + np.where(power == 0, 0.0, rest)


def zeta(s: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Hurwitz's zeta function, the sum of (q + i)^-s over i >= 0. Where q is negative and s whole, the terms below zero
    are those of two such sums of positive numbers, so that it takes no longer however far below zero q is.
    """
    shape = np.broadcast_shapes(s.shape, q.shape)
    s, q = (np.broadcast_to(np.asarray(v, np.float64), shape) for v in (s, q))
    with np.errstate(all="ignore"):
        regular = (s > 1) & np.isfinite(q) & np.isfinite(s) & ((q > 0) | ((q != np.floor(q)) & (s == np.floor(s))))
        s_, q_ = np.where(regular, s, 2.0), np.where(regular, q, 10.0)
        first = np.where(q_ < 0, q_ - np.floor(q_), q_)  # the least of q + i above zero
        total = _sum_of_powers(s_, first)
        if np.any(q_ < 0):
            below = _sum_of_powers(s_, np.where(q_ < 0, 1 - first, 1.0)) - _sum_of_powers(s_, 1 - np.minimum(q_, 0.0))
            total = total + np.where(q_ < 0, np.where(s_ % 2 == 0, below, -below), 0.0)
        poles = (s == 1) | ((s > 1) & (q <= 0) & (q == np.floor(q)))
        result = np.where(regular, total, np.where(poles, math.inf, np.nan))
        return np.where((s > 1) & (q == math.inf), 0.0, np.where((s == math.inf) & (q > 1), 0.0, result))
