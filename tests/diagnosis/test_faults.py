"""Small networks that are given one fault each, of a known place: the error names the operation, its line and how.

The line of a fault is marked by `# fault`. Every network is run in a compiled step, whose state must stay as it was,
and in code that is not compiled under detect_anomaly.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import pullback as pb
from pullback import debug
from pullback.diagnosis import OperandStatistics
from pullback.errors import NonFiniteError

nn = pb.nn
HIDDEN = -math.inf


@dataclass
class Fault:
    """A network as a loss of a parameter [2, 3] and an input [2, 3]; what the error says of it, and who is to blame."""

    loss: Callable[[Any, Any], Any]
    op: str
    how: str
    phase: str = "forward"
    primitive: str = ""
    x: float = 1.0


def _nan_input(w: Any, x: Any) -> Any:
    return (w * x).sum()  # fault


def _log_of_zero(w: Any, x: Any) -> Any:
    p = (w * 0).relu()
    return (x * p.log()).mean()  # fault


def _log_of_a_negative(w: Any, x: Any) -> Any:
    return (w * x).log().mean()  # fault


def _times_zero(w: Any, x: Any) -> Any:
    score = (w * 0).log()  # fault
    return (score * 0 * x).sum()


def _zero_by_zero(w: Any, x: Any) -> Any:
    y = w * x - w * x
    return (y / y).sum()  # fault


def _sqrt_at_zero(w: Any, x: Any) -> Any:
    return (w * x - w * x).sqrt().sum()  # fault


def _distance_of_equal_points(w: Any, x: Any) -> Any:
    square = ((w - w.detach()) ** 2).sum(1)
    return square.sqrt().mean()  # fault


def _hidden_behind_where(w: Any, x: Any) -> Any:
    y = w * 0
    safe = y.log()  # fault
    return pb.where(y > 0, safe, 0.0).sum()


def _half(w: Any, x: Any) -> Any:
    h = (w * 300).half()
    return (h * h).float().sum()  # fault


def _half_conversion(w: Any, x: Any) -> Any:
    return (w * 1e6).half().float().sum()  # fault


def _exp(w: Any, x: Any) -> Any:
    return (w * x * 200).exp().mean()  # fault


def _product(w: Any, x: Any) -> Any:
    return ((w * 1e25) @ (w.t() * 1e25)).mean()  # fault


def _softmax_of_nothing(w: Any, x: Any) -> Any:
    scores = (w * x).masked_fill(pb.tensor([[True, True, True], [False, True, False]]), HIDDEN)
    return pb.softmax(scores, -1).sum()  # fault


def _inverse(w: Any, x: Any) -> Any:
    return (w * x * 2).acos().sum()  # fault


class _Doubled(pb.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Any) -> Any:
        context.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(context: Any, cotangent: Any) -> Any:
        (x,) = context.saved_tensors
        zero = x - x
        return cotangent * 2 + zero / zero  # fault


def _wrong_backward(w: Any, x: Any) -> Any:
    return _Doubled.apply(w * x).sum()


def _constant(w: Any, x: Any) -> Any:
    return (w * x * math.nan).sum()  # fault


FAULTS = {
    "nan input": Fault(_nan_input, "mul", "argument 1 is NaN in the data", x=math.nan),
    "log of zero": Fault(_log_of_zero, "log", "logarithm of zero"),
    "log of a negative number": Fault(_log_of_a_negative, "log", "logarithm of a negative", x=-1.0),
    "infinity times zero": Fault(_times_zero, "log", "logarithm of zero"),
    "0/0": Fault(_zero_by_zero, "div", "0/0", primitive="div"),
    "sqrt at 0, backwards alone": Fault(_sqrt_at_zero, "sqrt", "division by zero", "backward", "div"),
    "equal points, backwards alone": Fault(_distance_of_equal_points, "sqrt", "division by zero", "backward", "div"),
    "behind where, backwards alone": Fault(_hidden_behind_where, "log", "division by zero: 0/0", "backward", "div"),
    "a product in float16": Fault(_half, "mul", "overflow of float16"),
    "a conversion to float16": Fault(_half_conversion, "half", "overflow of float16", primitive="convert"),
    "exp": Fault(_exp, "exp", "exp of 200 overflows float32"),
    "a matrix product": Fault(_product, "matmul", "overflow of float32"),
    "softmax over -inf alone": Fault(_softmax_of_nothing, "softmax", "softmax over nothing but -inf", primitive="sub"),
    "acos": Fault(_inverse, "acos", "outside of [-1, 1]"),
    "a rule of the user's own": Fault(_wrong_backward, "div", "0/0", "backward", "div"),
    "a NaN that was written down": Fault(_constant, "mul", "a constant that is NaN"),
}


def _marked(function: Any) -> int:
    """The line of the function (or of the Function that it applies) that is marked."""
    code = _Doubled if function is _wrong_backward else function
    lines, first = inspect.getsourcelines(code)
    (place,) = [number for number, line in enumerate(lines) if "# fault" in line]
    return first + place


class _Net(nn.Module):
    def __init__(self, loss: Callable[[Any, Any], Any]):
        super().__init__()
        self.inner = nn.Sequential(_Part(loss))

    def forward(self, x: Any) -> Any:
        return self.inner(x)


class _Part(nn.Module):
    def __init__(self, loss: Callable[[Any, Any], Any]):
        super().__init__()
        self.weight, self.loss = nn.Parameter(pb.ones(2, 3)), loss

    def forward(self, x: Any) -> Any:
        return self.loss(self.weight, x)


def _check(fault: Fault, error: NonFiniteError) -> None:
    assert (error.filename, error.lineno) == (__file__, _marked(fault.loss)), error
    assert (error.op, error.phase, error.module) == (fault.op, fault.phase, "inner.0"), error
    assert error.primitive == (fault.primitive or fault.op) and fault.how in error.how
    assert f"test_faults.py:{error.lineno}" in str(error) and "To mend it: " in str(error)


@pytest.mark.parametrize("name", FAULTS)
def test_a_compiled_step_names_the_fault_and_keeps_its_state(name: str) -> None:
    fault = FAULTS[name]
    net = _Net(fault.loss)
    optimizer = pb.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    @pb.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = net(x)
        loss.backward()
        optimizer.step()
        return loss

    with debug.override(backend="reference"), pytest.raises(NonFiniteError) as caught:
        step(pb.full((2, 3), fault.x))
    _check(fault, caught.value)
    assert caught.value.step == 1
    assert net.inner[0].weight.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize("name", FAULTS)
def test_detect_anomaly_names_the_fault(name: str) -> None:
    fault = FAULTS[name]
    net = _Net(fault.loss)
    if name == "nan input":
        return  # there are no arguments to name
    with debug.override(backend="reference"), pytest.raises(NonFiniteError) as caught, pb.autograd.detect_anomaly():
        net(pb.full((2, 3), fault.x)).backward()
    _check(fault, caught.value)
    assert caught.value.step == 0


def _masked(w: Any, x: Any) -> Any:
    return pb.softmax((w * x).masked_fill(pb.tensor([[False, True, True]] * 2), HIDDEN), -1)[:, 0].sum()


def _masked_by_addition(w: Any, x: Any) -> Any:
    return pb.log_softmax(w * x + pb.tensor([[0.0, HIDDEN, 0.0]]), -1)[:, ::2].sum()


def _largest_of_nothing(w: Any, x: Any) -> Any:
    return pb.maximum((w * x).amax(1), pb.full((2,), HIDDEN)).sum()


@pytest.mark.parametrize("loss", [_masked, _masked_by_addition, _largest_of_nothing])
def test_infinities_on_purpose_are_no_fault(loss: Callable[[Any, Any], Any]) -> None:
    net = _Net(loss)
    with debug.override(backend="reference"), pb.autograd.detect_anomaly():
        net(pb.ones(2, 3)).backward()
        assert np.isfinite(net.inner[0].weight.grad.numpy()).all()


def test_an_infinity_on_purpose_that_reaches_the_loss_is_named_where_it_was_put_in() -> None:
    w = pb.ones(2, 3, requires_grad=True)

    @pb.compile
    def step() -> None:
        w.grad = None
        hidden = w.masked_fill(pb.tensor([[True, False, False]] * 2), HIDDEN)
        hidden.sum().backward()

    with debug.override(backend="reference"), pytest.raises(NonFiniteError, match="on purpose") as caught:
        step()
    assert caught.value.op == "masked_fill"


def test_operands_are_described() -> None:
    x = pb.tensor([[1.0, 0.0, math.nan], [HIDDEN, 3.0, 4.0]], requires_grad=True)
    with pytest.raises(NonFiniteError) as caught, pb.autograd.detect_anomaly():
        (pb.tensor([1.0, 1.0, 2.0]) / x.detach()[:, :2].sum(0)[1].sub(3.0)).sum().item()
    top, bottom = caught.value.operands
    assert (top.name, top.shape, top.dtype, top.minimum, top.maximum) == ("tensor", (3,), "float32", 1.0, 2.0)
    assert (bottom.minimum, bottom.nans, bottom.infinities) == (0.0, 0, 0)
    assert str(top) == "tensor: float32[3], 1 to 2, mean 1.333, all finite"
    described = OperandStatistics("x", (2, 3), "float32", 0.0, 4.0, 2.0, 1, 1)
    assert str(described) == "x: float32[2, 3], 0 to 4, mean 2, 1 NaN and 1 infinite"


def test_of_data_that_is_nan_the_first_operation_that_computes_with_it_is_told() -> None:
    x = pb.tensor([[1.0, math.nan]])
    with pytest.raises(NonFiniteError, match="activations") as caught:
        pb.check_numerics(x.detach().t() * 2, "activations")
    assert caught.value.op == "mul" and "NaN in the data" in caught.value.how


def test_what_is_made_of_numbers_alone_is_looked_at_too() -> None:
    with pytest.raises(NonFiniteError, match="logarithm of zero"), pb.autograd.detect_anomaly():
        pb.zeros(3).log().sum().item()
