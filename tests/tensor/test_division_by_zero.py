"""Integers divided by a zero raise, as in PyTorch, where the quotient is computed, in compiled steps too."""

from __future__ import annotations

import numpy as np
import pytest

import pullback as pb
from pullback.errors import DivisionByZero

DIVISIONS = {
    "//": lambda x, y: x // y,
    "%": lambda x, y: x % y,
    "remainder": pb.remainder,
    "fmod": pb.fmod,
    "floor_divide": pb.floor_divide,
    "div floor": lambda x, y: pb.div(x, y, rounding_mode="floor"),
    "div trunc": lambda x, y: pb.div(x, y, rounding_mode="trunc"),
}


@pytest.mark.parametrize("divide", DIVISIONS.values(), ids=DIVISIONS)
@pytest.mark.parametrize("dtype", [pb.int64, pb.int32, pb.int8, pb.uint8])
def test_a_zero_among_the_divisors_raises_and_names_its_place(divide, dtype) -> None:
    x, y = pb.full((2, 3), 7, dtype=dtype), pb.tensor([[1, 2, 3], [4, 0, 5]]).to(dtype)
    with pytest.raises(DivisionByZero, match=r"position \[1, 1\]"):
        divide(x, y).numpy()
    with pytest.raises(ZeroDivisionError):
        divide(x, y[1]).numpy()  # broadcast
    assert np.isfinite(divide(x, y[0]).numpy()).all()


@pytest.mark.parametrize("divide", DIVISIONS.values(), ids=DIVISIONS)
def test_a_number_zero_raises_at_once_except_for_no_elements(divide) -> None:
    with pytest.raises(RuntimeError, match="divided by 0"):
        divide(pb.tensor([1, 2]), 0)
    assert divide(pb.empty(0, dtype=pb.int64), 0).shape == (0,)
    assert divide(pb.empty(0, dtype=pb.int64), pb.tensor([0])).numpy().size == 0


def test_a_number_divided_by_a_zero_raises() -> None:
    for divide in (lambda y: 1 // y, lambda y: 1 % y):
        with pytest.raises(DivisionByZero):
            divide(pb.tensor([2, 0])).numpy()
        assert divide(pb.tensor([2, 3])).tolist() == [divide(2), divide(3)]


def test_floats_divided_by_zero_are_infinite_or_nan() -> None:
    x, y = pb.tensor([1.0, -1.0]), pb.tensor([0, 0])
    assert (x // y).tolist() == [np.inf, -np.inf]
    assert np.isnan((x % 0).numpy()).all()


@pytest.mark.parametrize("divide", DIVISIONS.values(), ids=DIVISIONS)
def test_a_compiled_step_raises_at_the_call_that_divides_by_zero_and_goes_on(divide) -> None:
    step = pb.compile(lambda x, y: divide(x, y) + 1)
    x = pb.tensor([[-7, 8, 9]] * 2)
    good, bad = pb.tensor([2, -3, 4]), pb.tensor([2, -3, 0])
    expected = (divide(x, good) + 1).tolist()
    assert step(x, good).tolist() == expected
    with pytest.raises(DivisionByZero, match=r"position \[2\]"):
        step(x, bad).numpy()
    assert step(x, good).tolist() == expected


def test_vmap_checks_every_divisor() -> None:
    x = pb.tensor([6, 8])
    each = pb.vmap(lambda y: x // y)
    assert each(pb.tensor([[1, 2], [3, 4]])).tolist() == [[6, 4], [2, 2]]
    with pytest.raises(DivisionByZero):
        each(pb.tensor([[1, 2], [3, 0]])).numpy()
