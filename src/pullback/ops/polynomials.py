"""Orthogonal polynomials of any degree, an element at a time, in NumPy: what host calls of them compute.

Each follows from its two predecessors, as PyTorch computes it, so that the cost is proportional to the greatest degree.
Chebyshev's have closed forms between -1 and 1, where a long recurrence would lose digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import DomainError

Array = np.ndarray

#: what a recurrence goes up to: it takes about a second then
_GREATEST_DEGREE = 100_000


@dataclass(frozen=True)
class Family:
    """Polynomials p₀ = 1, p₁ = `first`(x), p_{k+1} = `after`(k, x, p_{k-1}, p_k)."""

    first: Callable[[Array], Array]
    after: Callable[[int, Array, Array, Array], Array]
    #: p_n(x) from the angle whose cosine is x, where |x| < 1
    by_angle: Callable[[Array, Array], Array] | None = None
    #: of Chebyshev's polynomials the shifted ones are those of 2x - 1
    shifted: bool = False
    #: the degree by type of float beyond which PyTorch gives NaN
    limit: tuple[float, float] = (math.inf, math.inf)

    def __call__(self, x: Array, n: Array) -> Array:
        """p_n(x), n rounded towards 0; 0 where n is negative or not finite."""
        x, n = np.broadcast_arrays(x, n)
        with np.errstate(all="ignore"):
            degree = np.where(np.isfinite(n), np.trunc(n), -1.0)
            at = x + x - x.dtype.type(1) if self.shifted else x
            by_angle = (degree > 8) & (np.abs(at) < 1) if self.by_angle is not None else np.zeros(x.shape, bool)
            result = self._by_recurrence(at, np.where(by_angle, 0.0, degree))
            if self.by_angle is not None:
                angle = np.arccos(np.where(by_angle, at, 0.5))
                result = np.where(by_angle, self.by_angle(angle, degree.astype(x.dtype)), result)
            result = np.where(degree > self.limit[x.dtype.itemsize == 8], math.nan, result)
        return np.where(degree < 0, 0.0, result).astype(x.dtype)

    def _by_recurrence(self, x: Array, degree: Array) -> Array:
        before, last = np.ones_like(x), self.first(x)
        result = np.where(degree <= 0, before, np.where(degree == 1, last, x.dtype.type(math.nan)))
        k = 1
        # a NaN stays one, and so does a value past the type's range come to it, or to an end of the degrees
        while np.any(going := (degree > k) & ~np.isnan(last) & (degree <= self.limit[x.dtype.itemsize == 8])):
            if k == _GREATEST_DEGREE:
                raise DomainError(
                    f"a polynomial's degree is {np.max(degree[going]):.0f}: each degree up to it has to be computed, "
                    f"so that it may be {_GREATEST_DEGREE} at most"
                )
            before, last = last, self.after(k, x, before, last)
            k += 1
            result = np.where(degree == k, last, result)
        return result


def _chebyshev(k: int, x: Array, before: Array, last: Array) -> Array:
    return (x + x) * last - before


def _half(function: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda angle, n: function((n + n.dtype.type(0.5)) * angle) / function(angle / 2)


_LIMIT = (128.0, 512.0)

CHEBYSHEV_T = Family(lambda x: x, _chebyshev, lambda angle, n: np.cos(n * angle))
CHEBYSHEV_U = Family(lambda x: x + x, _chebyshev, lambda angle, n: np.sin((n + 1) * angle) / np.sin(angle))
CHEBYSHEV_V = Family(lambda x: x + x - 1, _chebyshev, _half(np.cos))
CHEBYSHEV_W = Family(lambda x: x + x + 1, _chebyshev, _half(np.sin))
SHIFTED_CHEBYSHEV_T = Family(CHEBYSHEV_T.first, _chebyshev, CHEBYSHEV_T.by_angle, True)
SHIFTED_CHEBYSHEV_U = Family(CHEBYSHEV_U.first, _chebyshev, CHEBYSHEV_U.by_angle, True)
SHIFTED_CHEBYSHEV_V = Family(CHEBYSHEV_V.first, _chebyshev, CHEBYSHEV_V.by_angle, True)
SHIFTED_CHEBYSHEV_W = Family(CHEBYSHEV_W.first, _chebyshev, CHEBYSHEV_W.by_angle, True)
HERMITE_H = Family(lambda x: x + x, lambda k, x, p, q: (x + x) * q - 2 * k * p, limit=_LIMIT)
HERMITE_HE = Family(lambda x: x, lambda k, x, p, q: x * q - k * p, limit=_LIMIT)
LAGUERRE_L = Family(lambda x: 1 - x, lambda k, x, p, q: ((2 * k + (1 - x)) * q - k * p) / (k + 1))
LEGENDRE_P = Family(lambda x: x, lambda k, x, p, q: ((2 * k + 1) * x * q - k * p) / (k + 1))
