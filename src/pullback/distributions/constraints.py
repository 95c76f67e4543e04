"""What values parameters and results of distributions may have: `check` says it element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensor import Tensor


class Constraint:
    """A condition on values; its last `event_dim` axes belong to one value."""

    def __init__(self, name: str, check: Callable[[Tensor], Tensor], event_dim: int = 0, is_discrete: bool = False):
        self.name, self._check, self.event_dim, self.is_discrete = name, check, event_dim, is_discrete

    def check(self, value: Tensor) -> Tensor:
        """Where the condition holds, without the axes of one value."""
        return self._check(value.detach())

    def __repr__(self) -> str:
        return self.name


def _whole(value: Tensor) -> Tensor:
    return value % 1 == 0


def independent(base: Constraint, count: int) -> Constraint:
    """`base` of all elements of the last `count` axes."""

    def check(value: Tensor) -> Tensor:
        held = base.check(value)
        return held.flatten(held.ndim - count).all(-1) if count else held

    return Constraint(f"independent({base}, {count})", check, base.event_dim + count, base.is_discrete)


def interval(low: Any, high: Any) -> Constraint:
    """From `low` to `high`, both included."""
    return Constraint(f"interval({low}, {high})", lambda x: (x >= low) & (x <= high))


def integer_interval(low: Any, high: Any) -> Constraint:
    """The whole numbers from `low` to `high`, both included."""
    name = f"integer_interval({low}, {high})"
    return Constraint(name, lambda x: _whole(x) & (x >= low) & (x <= high), is_discrete=True)


def greater_than_eq(low: Any) -> Constraint:
    """`low` and above."""
    return Constraint(f"greater_than_eq({low})", lambda x: x >= low)


def _is_positive_definite(x: Tensor) -> Tensor:
    from ..linalg import cholesky_ex

    symmetric = (x - x.mT).abs().flatten(-2).amax(-1) <= 1e-6
    return symmetric & (cholesky_ex(x).info == 0)


def _is_lower_cholesky(x: Tensor) -> Tensor:
    upper = x.tril() == x
    return upper.flatten(-2).all(-1) & (x.diagonal(dim1=-2, dim2=-1) > 0).all(-1)


real = Constraint("real", lambda x: x == x)  # NaN is no number
real_vector = independent(real, 1)
positive = Constraint("positive", lambda x: x > 0)
nonnegative = Constraint("nonnegative", lambda x: x >= 0)
nonnegative_integer = Constraint("nonnegative_integer", lambda x: _whole(x) & (x >= 0), is_discrete=True)
unit_interval = interval(0.0, 1.0)
boolean = Constraint("boolean", lambda x: (x == 0) | (x == 1), is_discrete=True)
simplex = Constraint("simplex", lambda x: (x >= 0).all(-1) & ((x.sum(-1) - 1).abs() < 1e-6), 1)
one_hot = Constraint("one_hot", lambda x: ((x == 0) | (x == 1)).all(-1) & (x.sum(-1) == 1), 1, True)
lower_cholesky = Constraint("lower_cholesky", _is_lower_cholesky, 2)
positive_definite = Constraint("positive_definite", _is_positive_definite, 2)


__all__ = [
    "Constraint",
    "boolean",
    "greater_than_eq",
    "independent",
    "integer_interval",
    "interval",
    "lower_cholesky",
    "nonnegative",
    "nonnegative_integer",
    "one_hot",
    "positive",
    "positive_definite",
    "real",
    "real_vector",
    "simplex",
    "unit_interval",
]
