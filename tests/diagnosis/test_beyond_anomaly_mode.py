"""What PyTorch's anomaly mode does not do, on one example each: it costs much (launches and bytes of the guard are in
`tests/tracing/test_finite.py`), sees no infinities, not the forward pass, no compiled code, and may name another line.
"""

from typing import Any

import pytest

import pullback as pb
from pullback.errors import NonFiniteError


def _infinite(x: Any) -> Any:
    score = x.log()  # the true line
    later = score.exp() + score.abs()
    return later.sum()


def _nan_three_lines_on(x: Any) -> Any:
    score = x.log()  # the true line
    shifted = score + 1
    hidden = shifted * 0
    return hidden.sum()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("loss", [_infinite, _nan_three_lines_on])
def test_an_infinity_of_the_forward_pass_is_named_at_its_line(loss: Any, compiled: bool) -> None:
    w = pb.ones(3, requires_grad=True)

    def step(x: Any) -> None:
        w.grad = None
        loss(w * x).backward()

    with pb.debug.override(backend="reference"), pytest.raises(NonFiniteError) as caught, pb.autograd.detect_anomaly():
        (pb.compile(step) if compiled else step)(pb.tensor([1.0, 0.0, 2.0]))
    error = caught.value
    assert (error.op, error.phase, error.how) == ("log", "forward", "logarithm of zero")
    assert error.lineno == loss.__code__.co_firstlineno + 1 and error.filename == __file__
