"""Derivatives of every operator in scope along a direction: forward, reverse, finite differences; to second order."""

from pathlib import Path

import pytest

from operator_derivatives import (
    NOT_ALONG_ANY_DIRECTION,
    check_first,
    check_second,
    differentiable_samples,
    has_second,
)
from pullback import debug

IN_SCOPE = Path(__file__).with_name("operators.txt").read_text(encoding="utf-8").split()
IN_SCOPE = [name for name in IN_SCOPE if name not in NOT_ALONG_ANY_DIRECTION]
#: samples of each operator
SAMPLES = 2


@pytest.mark.parametrize("name", IN_SCOPE)
def test_forward_reverse_and_finite_differences_agree(name: str) -> None:
    with debug.override(backend="reference"):
        for scalar, point in differentiable_samples(name, SAMPLES):
            check_first(scalar, point)


@pytest.mark.parametrize("name", [name for name in IN_SCOPE if has_second(name)])
def test_second_derivatives_are_those_of_finite_differences(name: str) -> None:
    with debug.override(backend="reference"):
        for scalar, point in differentiable_samples(name, SAMPLES):
            check_second(scalar, point)
