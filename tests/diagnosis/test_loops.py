"""Faults in the bodies of loops: the user's line in the body, and the step of the loop."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import pullback as pb
from pullback import debug
from pullback.errors import NonFiniteError

nn = pb.nn
STEPS, BAD = 20, 17


class _Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.given, self.recurrent = nn.Linear(3, 16), nn.Linear(4, 16)

    def forward(self, x: Any, h: Any, c: Any) -> Any:
        i, f, g, o = (self.given(x) + self.recurrent(h)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class _Net(nn.Module):
    """A loss of what `body(cell, carries, slice)` gives at each step, from the first to the last or the other way."""

    def __init__(self, body: Callable[..., Any], reverse: bool = False) -> None:
        super().__init__()
        self.cell, self.body, self.reverse = _Cell(), body, reverse

    def forward(self, x: Any) -> Any:
        start = pb.zeros(2, 4), pb.zeros(2, 4)
        scan = pb.func.scan
        _, outputs = scan(lambda carries, given: self.body(self.cell, carries, given), start, x, reverse=self.reverse)
        return outputs.square().mean()


def _of_the_slice(cell: Any, carries: Any, x: Any) -> Any:
    h, c = cell(x, *carries)
    return (h, c), h * x.sum().log()  # fault


def _of_the_carry(cell: Any, carries: Any, x: Any) -> Any:
    h, c = cell(x, *carries)
    rising = carries[1].detach() * 0 + 1 + carries[0].detach() * 0
    gap = (x - 1).abs().sum() + rising.mean() - 1
    return (h + gap.log() * 0, c), h  # fault


def _before_the_loop(cell: Any, carries: Any, x: Any) -> Any:
    safe = x.log()  # fault
    h, c = cell(safe, *carries)
    return (h, c), h


def _backwards_alone(cell: Any, carries: Any, x: Any) -> Any:
    h, c = cell(x, *carries)
    gate = (h * x.sum()).square().sum(-1, keepdim=True)
    return (h, c), gate.sqrt()  # fault


FAULTS = {
    "a slice": (_of_the_slice, 0.0, "log", "forward"),
    "a carry": (_of_the_carry, 1.0, "log", "forward"),
    "what is computed for all steps at once": (_before_the_loop, 0.0, "log", "forward"),
    "backwards alone": (_backwards_alone, 0.0, "sqrt", "backward"),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_loop_is_named_with_its_line_and_its_step(name: str, reverse: bool) -> None:
    body, bad, op, phase = FAULTS[name]
    net = _Net(body, reverse)
    x = pb.full((STEPS, 2, 3), 2.0)
    x[BAD] = bad
    lines, first = inspect.getsourcelines(body)
    (place,) = [number for number, line in enumerate(lines) if "# fault" in line]

    def step(x: Any) -> None:
        net.zero_grad()
        net(x).backward()

    for compiled in (True, False):
        run = pb.compile(step) if compiled else step
        with debug.override(backend="reference"), pytest.raises(NonFiniteError) as caught, pb.autograd.detect_anomaly():
            run(x)
        error = caught.value
        assert (error.op, error.phase, error.time, error.times) == (op, phase, BAD, (BAD,)), error
        assert (error.filename, error.lineno, error.module) == (__file__, first + place, "_Net"), error
        assert f"at step {BAD} of the loop" in str(error)


def test_loops_in_loops() -> None:
    def inner(total: Any, x: Any) -> Any:
        total = total + (x - 5).abs().log()
        return total, total

    def outer(total: Any, row: Any) -> Any:
        total, _ = pb.func.scan(inner, total, row * total.exp().clamp(1, 1))
        return total, total

    x = pb.ones(4, 3)
    x[2, 1] = 5.0
    x.requires_grad_()
    with debug.override(backend="reference"), pytest.raises(NonFiniteError) as caught, pb.autograd.detect_anomaly():
        pb.func.scan(outer, pb.zeros(()), x)[0].item()
    assert (caught.value.times, caught.value.op, caught.value.how) == ((2, 1), "log", "logarithm of zero")


def test_a_recurrent_layer_names_the_step_of_data_that_is_nan() -> None:
    layer = nn.LSTM(3, 4)
    x = pb.zeros(STEPS, 2, 3)
    x[BAD, 1] = pb.nan

    @pb.compile
    def step(x: Any) -> None:
        layer(x)[0].sum().backward()

    with (
        debug.override(backend="reference"),
        pytest.raises(NonFiniteError, match=r"in the data at \[17, 1, 0\]") as caught,
    ):
        step(x)
    assert caught.value.module == "LSTM" and caught.value.index == (BAD, 1, 0)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_check_in_the_body_of_a_loop_or_of_a_batch(compiled: bool) -> None:
    """Whatever stands in what; what is checked need not be a result."""
    rows = pb.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0], [7.0, 8.0, 9.0]])

    def cell(h: Any, x: Any) -> Any:
        pb.check_numerics(x.log(), "the logarithms")
        return h + x, h

    def looped(x: Any) -> Any:
        return pb.func.scan(cell, pb.zeros(3), x)[0]

    def nested(x: Any) -> Any:
        return pb.func.scan(lambda h, row: (pb.func.scan(cell, h, row)[0], h), pb.zeros(()), x)[0]

    def batched(x: Any) -> Any:
        return pb.func.vmap(lambda row: pb.func.scan(cell, pb.zeros(()), row)[0])(x)

    def within(x: Any) -> Any:
        def step(h: Any, row: Any) -> Any:
            checked = pb.func.vmap(lambda e: pb.check_numerics(e.log(), "the logarithms"), randomness="different")
            return h + 0 * checked(row).clamp(min=0.0), h

        return pb.func.scan(step, pb.zeros(3), x)[0]

    for run, times in ((looped, 1), (nested, 2), (batched, None), (within, 1)):
        with debug.override(backend="reference"):
            taken = pb.compile(run) if compiled else run
            assert taken(rows + 1).isfinite().all()
            with pytest.raises(
                NonFiniteError, match=r"(?s)check_numerics: the logarithms.*logarithm of zero"
            ) as caught:
                taken(rows)
        assert (caught.value.op, caught.value.filename) == ("log", __file__)
        assert times is None or caught.value.time == times, run.__name__
