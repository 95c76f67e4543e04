"""The incomplete gamma function in NumPy: what host calls of `igamma` and `igammac` compute.

P(a, x) is the share of the integral of gamma(a) that lies below x, Q(a, x) that above. Each is computed from whichever
of the two is not near 1: by Temme's expansion where x is near a large a, elsewhere by a series or a continued fraction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache

import numpy as np

from .arithmetic import NumPyArithmetic
from .special import ERFC, LGAMMA
from .special_tables import LOG_GAMMA_64, STIRLING

#: from here on a is large: gamma(a) by Stirling's series, and Temme's expansion near x = a
_LARGE = 20.0
#: how far the expansion is taken (in eta), and its terms in eta and in 1/a, of which the last are below 2^-53 there
_NEAR, _POWERS, _ORDERS = 0.8, 26, 14
#: no series or fraction takes as many steps where it is used
_MOST_STEPS = 2000

_Case = tuple[np.ndarray, Callable[[np.ndarray, np.ndarray], np.ndarray]]


def incomplete_gamma(a: np.ndarray, x: np.ndarray, upper: bool) -> np.ndarray:
    """Q(a, x) where `upper`, else P(a, x)."""
    shape = np.broadcast_shapes(a.shape, x.shape)
    a, x = (np.broadcast_to(np.asarray(v, np.float64), shape) for v in (a, x))
    one, zero = (0.0, 1.0) if upper else (1.0, 0.0)
    with np.errstate(all="ignore"):
        regular = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
        result = np.where(np.isinf(x), one, np.where(np.isinf(a), zero, np.nan))
        result = np.where(x == 0, zero, np.where(a == 0, one, result))
        result[regular] = np.clip((_upper if upper else _lower)(a[regular], x[regular]), 0.0, 1.0)
        wrong = (a < 0) | (x < 0) | np.isnan(a) | np.isnan(x) | ((a == 0) & (x == 0)) | (np.isinf(a) & np.isinf(x))
        return np.where(wrong, np.nan, result)


def gamma_density(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x^(a - 1) exp(-x) / gamma(a): the slope of P(a, x) by x."""
    shape = np.broadcast_shapes(a.shape, x.shape)
    a, x = (np.broadcast_to(np.asarray(v, np.float64), shape) for v in (a, x))
    with np.errstate(all="ignore"):
        regular = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
        a_, x_ = np.where(regular, a, 1.0), np.where(regular, x, 1.0)
        share = _density(a_, x_)
        inside = np.where(share == 0, 0.0, share * (a_ / x_))
        small = np.minimum(a_, _LARGE)
        inside = np.where(a_ < _LARGE, np.exp((small - 1) * np.log(x_) - x_ - _log_gamma(small)), inside)
        at_zero = np.where(a < 1, np.inf, np.where(a == 1, 1.0, 0.0))
        beyond = np.where((a >= 0) & (x > 0), 0.0, np.where((a > 0) & (x == 0), at_zero, np.nan))
        return np.where(regular, inside, beyond)


def _lower(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """P of positive finite numbers, in one axis."""
    cases = [(_near(a, x), _lower_near), ((x <= 1) | (x <= a), _lower_series)]
    return _by_case(a, x, cases, lambda a, x: 1 - _fraction(a, x))


def _upper(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Q of positive finite numbers, in one axis."""
    near_one = a > np.where(x <= 0.5, -0.4 / np.log(np.minimum(x, 0.5)), 0.75 * x)  # P is small (bounds of Cephes)
    cases = [
        (_near(a, x), _upper_near),
        ((x <= 1.1) & ~near_one, _upper_series),
        ((x <= 1.1) | (x < a), lambda a, x: 1 - _lower_series(a, x)),
    ]
    return _by_case(a, x, cases, _fraction)


def _by_case(
    a: np.ndarray, x: np.ndarray, cases: Sequence[_Case], otherwise: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """The function of the first case that holds, element by element."""
    result, left = np.empty_like(a), np.ones(a.shape, bool)
    for holds, function in [*cases, (left, otherwise)]:
        chosen = left & holds
        result[chosen] = function(a[chosen], x[chosen])
        left = left & ~chosen
    return result


def _log_gamma(x: np.ndarray) -> np.ndarray:
    assert LGAMMA.body is not None
    return np.asarray(LGAMMA.body(NumPyArithmetic(), x))


def _log_gamma_above(a: np.ndarray) -> np.ndarray:
    """log(gamma(1 + a)), which is small where a is: 1 + a is not rounded."""
    low = np.minimum(a, 0.5)
    near = low * (1 + low) * np.polynomial.polynomial.polyval(low, LOG_GAMMA_64) - np.log1p(low)
    return np.where(a < 0.5, near, _log_gamma(1 + a))


def _distance(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x/a - 1 - log(x/a), whose first terms near 1 cancel: there by the series of atanh."""
    excess = (x - a) / a
    t = excess / (2 + excess)
    series = np.polynomial.polynomial.polyval(t * t, [1 / n for n in range(3, 63, 2)])
    return np.where(np.abs(t) < 0.5, t * (excess - 2 * t * t * series), excess - np.log(x / a))


def _density(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x^a exp(-x) / gamma(a + 1); of a large a without logarithms as large, of which the digits would be lost."""
    large = np.maximum(a, _LARGE)
    inverse = 1 / large
    correction = inverse * np.polynomial.polynomial.polyval(inverse * inverse, STIRLING)
    by_stirling = np.exp(-large * _distance(large, x) - correction) / np.sqrt(2 * math.pi * large)
    small = np.minimum(a, _LARGE)
    return np.where(a >= _LARGE, by_stirling, np.exp(small * np.log(x) - x - _log_gamma_above(small)))


# ---- away from a large a


def _lower_series(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """P by the sum of x^n / ((a + 1) … (a + n)), for x no larger than a, or than 1."""
    term, total, n = np.ones_like(x), np.ones_like(x), 0
    while n < _MOST_STEPS and np.any(term > total * 1e-17):
        n += 1
        term = term * (x / (a + n))
        total = total + term
    return _density(a, x) * total


def _upper_series(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Q for a small a and x: 1 - x^a / gamma(1 + a) and the sum of -a (-x)^n / (n! (a + n)), so scaled."""
    logarithm = a * np.log(x) - _log_gamma_above(a)
    term, total = np.ones_like(x), np.zeros_like(x)
    for n in range(1, 22):
        term = term * (-x / n)
        total = total + term / (a + n)
    return -np.expm1(logarithm) - np.exp(logarithm) * a * total


def _fraction(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Q by 1/(x + 1 - a - 1 (1 - a)/(x + 3 - a - 2 (2 - a)/…)), for x larger than a and 1, by Lentz's method."""
    tiny = 1e-300
    b = x + 1 - a
    c, d = np.full_like(x, 1 / tiny), 1 / b
    result, n = d, 0
    goes_on = np.ones(x.shape, bool)
    while n < _MOST_STEPS and goes_on.any():
        n += 1
        factor, b = -n * (n - a), b + 2
        d = factor * d + b
        c = b + factor / c
        d = 1 / np.where(np.abs(d) < tiny, tiny, d)
        c = np.where(np.abs(c) < tiny, tiny, c)
        result = np.where(goes_on, result * (d * c), result)
        goes_on &= np.abs(d * c - 1) > 2e-16
    return _density(a, x) * a * result


# ---- near a large a: Temme, "The asymptotic expansion of the incomplete gamma functions" (1979)


def _near(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (a >= _LARGE) & (2 * _distance(a, x) < _NEAR * _NEAR)


def _lower_near(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    return _expansion(a, x, -1.0)


def _upper_near(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    return _expansion(a, x, 1.0)


def _expansion(a: np.ndarray, x: np.ndarray, side: float) -> np.ndarray:
    """The share above (side 1) or below x (side -1), in which nothing is lost however large a is."""
    half_square = _distance(a, x)
    eta = np.copysign(np.sqrt(2 * half_square), x - a)
    total = np.zeros_like(a)
    for row in reversed(_coefficients()):
        total = total / a + np.polynomial.polynomial.polyval(eta, row)
    rest = np.exp(-a * half_square) / np.sqrt(2 * math.pi * a) * total
    assert ERFC.body is not None
    return 0.5 * np.asarray(ERFC.body(NumPyArithmetic(), side * eta * np.sqrt(a / 2))) + side * rest


@cache
def _coefficients() -> tuple[tuple[float, ...], ...]:
    """By k and n, those of eta^n / a^k (DLMF 8.12.10 to 8.12.13), from exact fractions."""
    alpha = [Fraction(0), Fraction(1)]  # of eta in x/a - 1
    for n in range(2, _POWERS + 2 * _ORDERS + 2):
        mixed = sum((j * alpha[j] * alpha[n - j + 1] for j in range(2, n)), Fraction(0))
        alpha.append((alpha[n - 1] - mixed) / (n + 1))
    first = [Fraction(-1, 3), *((n + 2) * alpha[n + 2] for n in range(1, len(alpha) - 2))]
    rows, odd = [first], 1
    for k in range(1, _ORDERS):
        odd *= 2 * k + 1
        stirling = (-1) ** k * odd * alpha[2 * k + 1]
        before = rows[-1]
        rows.append([stirling * first[n] + (n + 2) * before[n + 2] for n in range(len(before) - 2)])
    return tuple(tuple(float(c) for c in row[:_POWERS]) for row in rows)
