"""The scaler of losses: PyTorch's numbers, outside compiled steps and inside, through overflow and back."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import pullback as pb

torch = pytest.importorskip("torch")

OPTIONS: dict[str, Any] = {"init_scale": 2.0**14, "growth_interval": 2}


def run(library: Any, compiled: bool, clip: bool, steps: int = 12) -> tuple[list[list[float]], np.ndarray, Any]:
    """Losses and scales of steps of which the third and the eighth overflow float16 on the way back, and the weight."""
    random = np.random.default_rng(0)
    values = [random.standard_normal(shape).astype(np.float32) for shape in ((8, 8), (8, 8), (4, 8), (4, 8))]
    first, second = (library.tensor(v / 3, requires_grad=True) for v in values[:2])
    x, y = (library.tensor(v) for v in values[2:])
    factor = library.tensor(1.0)
    optimizer = library.optim.Adam([first, second], lr=0.05)
    scaler = library.amp.GradScaler("cpu", **OPTIONS)

    def step(x: Any, y: Any, factor: Any) -> Any:
        optimizer.zero_grad()
        with library.autocast("cpu", dtype=library.float16):
            hidden = (x @ first).tanh()
            out = hidden @ second
        loss = ((out.float() - y) ** 2).mean() * factor
        scaler.scale(loss).backward()
        if clip:
            scaler.unscale_(optimizer)
            library.nn.utils.clip_grad_norm_([first, second], 0.5)
        scaler.step(optimizer)
        scaler.update()
        return loss

    taken = pb.compile(step) if compiled else step
    found = []
    for number in range(steps):
        factor.fill_(300.0 if number in (2, 7) else 1.0)
        loss = taken(x, y, factor)
        found.append([loss.item(), scaler.get_scale()])
    return found, first.detach().numpy().copy(), scaler


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_overflow_and_back_are_pytorchs(compiled: bool, clip: bool) -> None:
    expected, weight, theirs = run(torch, False, clip)
    found, own, scaler = run(pb, compiled, clip)
    scales = [scale for _, scale in expected]
    assert len({*scales}) >= 3, f"the run does not reach an overflow: {scales}"
    assert [scale for _, scale in found] == scales
    np.testing.assert_allclose(np.array(found)[:, 0], np.array(expected)[:, 0], rtol=3e-3)
    np.testing.assert_allclose(own, weight, atol=3e-3)
    assert scaler.state_dict() == theirs.state_dict()


def test_a_step_that_overflows_changes_neither_parameters_nor_moments() -> None:
    w = pb.ones(3, requires_grad=True)
    optimizer = pb.optim.AdamW([w], lr=0.1)
    scaler = pb.amp.GradScaler("cpu", init_scale=4.0)

    @pb.compile
    def step(c: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = (w.half() * c.half()).float().sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    step(pb.ones(3))
    before = [w.detach().numpy().copy(), *(v.numpy().copy() for v in optimizer.state[w].values())]
    step(pb.full((3,), 30000.0))
    after = [w.detach().numpy(), *(v.numpy() for v in optimizer.state[w].values())]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, old)
    assert scaler.get_scale() == 2.0
    step(pb.ones(3))
    assert (w.detach().numpy() != before[0]).all()


def test_a_loss_that_is_not_finite_is_a_fault_and_no_matter_of_scale() -> None:
    w = pb.ones(3, requires_grad=True)
    optimizer, scaler = pb.optim.SGD([w], lr=0.1), pb.amp.GradScaler("cpu")

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        loss = (w * x).log().sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    step(pb.ones(3))
    with pytest.raises(pb.errors.NonFiniteError, match="log"):
        step(-pb.ones(3))
    assert scaler.get_scale() == 2.0**16


def test_two_optimizers_step_apart_and_the_scale_minds_both() -> None:
    a, b = pb.ones(2, requires_grad=True), pb.ones(2, requires_grad=True)
    first, second = pb.optim.SGD([a], lr=0.5), pb.optim.SGD([b], lr=0.5)
    scaler = pb.amp.GradScaler("cpu", init_scale=8.0)

    @pb.compile
    def step(c: pb.Tensor) -> None:
        first.zero_grad()
        second.zero_grad()
        loss = a.sum() + (b.half() * c.half()).float().sum()
        scaler.scale(loss).backward()
        scaler.step(first)
        scaler.step(second)
        scaler.update()

    step(pb.full((2,), 20000.0))
    assert a.tolist() == [0.5, 0.5] and b.tolist() == [1.0, 1.0] and scaler.get_scale() == 4.0


def test_a_state_of_pytorch_is_taken_and_a_bad_one_is_not() -> None:
    theirs = torch.amp.GradScaler("cpu", init_scale=32.0, growth_interval=7)
    theirs.scale(torch.tensor(1.0))
    scaler = pb.amp.GradScaler("cpu")
    scaler.load_state_dict(theirs.state_dict())
    assert scaler.state_dict() == theirs.state_dict()
    for change in (
        *({"scale": scale} for scale in (float("nan"), 1e39, 1e-50, "65536")),
        {"growth_interval": 0},
        {"backoff_factor": 2.0},
        {"_growth_tracker": None},
    ):
        with pytest.raises(pb.errors.StateDictError, match="not the state"):
            scaler.load_state_dict({**theirs.state_dict(), **change})
    with pytest.raises(pb.errors.StateDictError, match="one that is not enabled"):
        scaler.load_state_dict({})
    with pytest.raises(pb.errors.StateDictError, match="lacks scale"):
        scaler.load_state_dict({"_growth_tracker": 0})


def test_what_is_done_in_a_wrong_order_is_refused() -> None:
    w = pb.ones(1, requires_grad=True)
    optimizer, scaler = pb.optim.SGD([w], lr=0.1), pb.amp.GradScaler("cpu", init_scale=2.0)
    for call in (lambda: scaler.step(optimizer), lambda: scaler.unscale_(optimizer), scaler.update):
        with pytest.raises(AssertionError, match=r"but _scale is None\.  This may indicate your script did not use"):
            call()
    scaler.scale(w)
    with pytest.raises(RuntimeError, match="before step"):
        scaler.update()
    scaler.scale(w.sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.step(optimizer)
    scaler.update()
    assert w.item() == pytest.approx(0.9)
    with pytest.raises(pb.errors.GradientError, match="closure"):
        scaler.step(optimizer, closure=lambda: None)

    @pb.compile
    def half() -> None:
        scaler.scale(w.sum()).backward()
        scaler.step(optimizer)

    half()
    with pytest.raises(
        pb.errors.TraceError, match=r"unscaled inside a compiled function, .* outside of it .*in one fun"
    ):
        scaler.update()
    with pytest.raises(
        pb.errors.TraceError, match=r"unscaled inside a compiled function, and what follows is inside an"
    ):
        pb.compile(scaler.update)()
    scaler, optimizer = pb.amp.GradScaler("cpu", **OPTIONS), pb.optim.SGD([w], lr=0.1)
    scaler.scale(w.sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(pb.errors.TraceError, match=r"unscaled outside of compiled functions, and what .* inside one"):
        pb.compile(lambda: scaler.step(optimizer))()


def test_gradients_in_float16_are_refused_as_by_pytorch() -> None:
    for library in (torch, pb):
        w = library.ones(2, dtype=library.float16, requires_grad=True)
        scaler, optimizer = library.amp.GradScaler("cpu", init_scale=2.0), library.optim.SGD([w], lr=0.1)
        scaler.scale(w.sum()).backward()
        with pytest.raises(ValueError, match=r"Attempting to unscale FP16 gradients\."):
            scaler.step(optimizer)


def test_wrong_arguments_raise() -> None:
    for options in (
        {"growth_factor": 1.0},
        {"backoff_factor": 1.0},
        {"init_scale": 0.0},
        {"growth_interval": 1.5},
        {"growth_interval": True},
    ):
        with pytest.raises(ValueError, match="must be"):
            pb.amp.GradScaler("cpu", **options)
    with pytest.raises(TypeError, match="takes a tensor or an iterable"):
        pb.amp.GradScaler("cpu").scale(3.0)


def test_one_that_is_switched_off_passes_everything_through() -> None:
    w = pb.ones(1, requires_grad=True)
    optimizer, scaler = pb.optim.SGD([w], lr=0.1), pb.amp.GradScaler(enabled=False)
    loss = w.sum()
    assert scaler.scale(loss) is loss and not scaler.is_enabled()
    loss.backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert w.item() == pytest.approx(0.9) and scaler.get_scale() == 1.0 and scaler.state_dict() == {}


@pytest.mark.parametrize("compiled", [True, False])
def test_the_scale_grows_after_the_interval_and_lists_are_scaled(compiled: bool) -> None:
    w = pb.ones(2, requires_grad=True)
    optimizer, scaler = pb.optim.SGD([w], lr=0.1), pb.amp.GradScaler("cpu", init_scale=2.0, growth_interval=2)

    def step() -> None:
        optimizer.zero_grad()
        one, two = scaler.scale([w[0], w[1]])
        (one + two).backward()
        scaler.step(optimizer)
        scaler.update()

    run = pb.compile(step) if compiled else step
    scales = []
    for _ in range(5):
        run()
        scales.append(scaler.get_scale())
    assert scales == [2.0, 4.0, 4.0, 8.0, 8.0]
    scaler.set_growth_factor(4.0)
    run()
    assert scaler.get_scale() == 32.0


@pytest.mark.parametrize("name", ["AdamW", "SGD", "AdamW8bit"])
def test_a_scaled_step_holds_what_one_without_a_scale_holds(name: str) -> None:
    def peak(enabled: bool) -> int:
        model = pb.nn.Linear(128, 128)
        optimizer = getattr(pb.optim, name)(model.parameters(), lr=0.01)
        scaler = pb.amp.GradScaler("cpu", enabled=enabled)

        @pb.compile
        def step(x: pb.Tensor) -> pb.Tensor:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss

        return step.plan(pb.ones(8, 128)).peak_bytes

    assert peak(True) <= peak(False) + 1024, "the state of a scaled step is written aside"


def fault_of(policy: str, clip: bool, make: Any) -> tuple[Any, Any, Any, Any]:
    """A compiled step of `make(weight, number)` in which a scaler steps; its weight, and its scaler."""
    weight = pb.nn.Parameter(pb.ones(3))
    optimizer, scaler = pb.optim.Adam([weight], lr=0.1), pb.amp.GradScaler("cpu", init_scale=2.0**15)

    @pb.compile(on_nonfinite=policy)
    def step(number: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = make(weight, number)
        scaler.scale(loss).backward()
        if clip:
            scaler.unscale_(optimizer)
            pb.nn.utils.clip_grad_norm_([weight], 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss

    return step, weight, optimizer, scaler


#: loss, operation, phase, how; finite with 1, and not with 0, in the backward pass alone
NO_MATTER_OF_SCALE = {
    "division": (lambda w, n: w.sum() + (w * n / (w * n)).nan_to_num(0.0).sum(), "div", "division by zero: 0/0"),
    "slope": (lambda w, n: (w * n).sqrt().sum(), "sqrt", "division by zero"),
    "half": (lambda w, n: (w * n).half().sqrt().float().sum(), "sqrt", "division by zero"),
    "chosen": (lambda w, n: pb.where(w * n > 0, (w * n).log(), 0.0).sum(), "log", "division by zero: 0/0"),
}


@pytest.mark.parametrize("name", NO_MATTER_OF_SCALE)
def test_a_fault_of_the_backward_pass_that_no_scale_mends_is_told_at_once(name: str) -> None:
    make, op, how = NO_MATTER_OF_SCALE[name]
    step, weight, optimizer, scaler = fault_of("raise", name == "slope", make)
    step(pb.ones(()))
    step(pb.ones(()))
    before = [weight.tolist(), *(v.tolist() for v in optimizer.state[weight].values()), scaler.state_dict()]
    with pytest.raises(pb.errors.NonFiniteError, match="a gradient, with a loss scale of 1, is not finite") as caught:
        step(pb.zeros(()))
    fault = caught.value
    assert (fault.op, fault.how) == (op, how) and fault.filename == __file__ and fault.step == 3
    assert fault.phase == ("forward" if name == "division" else "backward")
    after = [weight.tolist(), *(v.tolist() for v in optimizer.state[weight].values()), scaler.state_dict()]
    assert after == before
    step(pb.ones(()))
    assert weight.tolist() != before[0]


@pytest.mark.parametrize("policy", ["skip", "ignore"])
def test_what_no_scale_mends_is_done_with_as_the_policy_says(policy: str) -> None:
    step, weight, _, scaler = fault_of(policy, False, NO_MATTER_OF_SCALE["half"][0])
    step(pb.ones(()))
    before = weight.tolist()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            step(pb.zeros(()))
    assert weight.tolist() == before
    if policy == "skip":
        assert step.skipped == 3 and scaler.get_scale() == 2.0**15
        assert ["division by zero" in str(each.message) for each in told] == [True]
        assert told[0].filename == __file__
    else:
        assert scaler.get_scale() == 2.0**12 and not told


def test_what_a_scale_mends_below_1_too_lowers_it_in_silence() -> None:
    def make(w: pb.Tensor, n: pb.Tensor) -> pb.Tensor:
        return (w.half() * n.half()).float().sum() * 1e4

    step, weight, _, scaler = fault_of("raise", False, make)
    scales = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            step(pb.full((), 50.0))
            scales.append(scaler.get_scale())
    assert scales[:3] == [2.0**14, 2.0**13, 2.0**12] and scales[-1] == 0.125  # 50 · 1e4 / 8 is below 65504
    assert weight.tolist() != [1.0] * 3


def test_undecorated_steps_tell_once_what_no_scale_mends() -> None:
    weight = pb.nn.Parameter(pb.zeros(3))
    optimizer, scaler = pb.optim.SGD([weight], lr=0.1), pb.amp.GradScaler("cpu")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(25):
            optimizer.zero_grad()
            scaler.scale((weight * weight).sqrt().sum()).backward()
            scaler.step(optimizer)
            scaler.update()
    assert ["no scale mends" in str(each.message) for each in told] == [True] and scaler.get_scale() < 1.0


def test_undecorated_steps_take_every_finite_gradient() -> None:
    w = pb.ones(2, requires_grad=True)
    optimizer, scaler = pb.optim.SGD([w], lr=1e-30), pb.amp.GradScaler("cpu", init_scale=1.0)
    scaler.scale((w * pb.tensor([1e30, -1e20])).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert w.tolist() == [0.0, 1.0] and scaler.get_scale() == 1.0


def apart(backward_policy: str | None, step_policy: str | None, clears: bool) -> tuple[list[float], bool]:
    """The scales of steps of two micro-batches whose gradients and whose update are programs of their own, or none,
    and whether the weights have moved.
    """
    pb.manual_seed(0)
    model = pb.nn.Linear(8, 8)
    optimizer, scaler = pb.optim.SGD(model.parameters(), lr=0.1), pb.amp.GradScaler("cpu", init_scale=2.0**20)
    before = model.weight.tolist()

    def micro(x: pb.Tensor) -> None:
        with pb.autocast("cpu", dtype=pb.float16):
            loss = model(x).float().square().mean()
        scaler.scale(loss).backward()

    def update() -> None:
        scaler.unscale_(optimizer)
        pb.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        scaler.step(optimizer)
        scaler.update()
        if clears:
            optimizer.zero_grad()

    if backward_policy is not None:
        micro = pb.compile(micro, on_nonfinite=backward_policy)
    if step_policy is not None:
        update = pb.compile(update, on_nonfinite=step_policy)
    scales = []
    for _ in range(5):
        if not clears:
            optimizer.zero_grad()
        micro(pb.randn(4, 8))
        micro(pb.randn(4, 8))
        update()
        scales.append(scaler.get_scale())
    return scales, model.weight.tolist() != before


@pytest.mark.parametrize("clears", [True, False])
@pytest.mark.parametrize("policies", [(None, "raise"), ("raise", None), ("raise", "raise"), ("skip", "skip")])
def test_an_overflow_of_gradients_made_elsewhere_lowers_the_scale(
    policies: tuple[str | None, str | None], clears: bool
) -> None:
    expected = apart(None, None, clears)
    assert apart(*policies, clears) == expected == ([2.0**19, 2.0**18, 2.0**17, 2.0**17, 2.0**17], True)


def test_what_is_no_matter_of_the_scale_is_told_where_the_scaler_steps_elsewhere() -> None:
    weight = pb.nn.Parameter(pb.ones(3))
    scaler = pb.amp.GradScaler("cpu", init_scale=2.0**15)

    @pb.compile
    def micro(number: pb.Tensor) -> None:
        scaler.scale((weight * number).sqrt().sum()).backward()

    micro(pb.ones(()))
    micro(pb.ones(()))
    before = weight.grad.tolist()
    with pytest.raises(pb.errors.NonFiniteError, match="a gradient, with a loss scale of 1, is not finite") as caught:
        micro(pb.zeros(()))
    assert (caught.value.op, caught.value.phase, weight.grad.tolist()) == ("sqrt", "backward", before)
    with pytest.raises(pb.errors.NonFiniteError, match="the loss is not finite"):
        micro(-pb.ones(()))
    assert weight.grad.tolist() == before


@pytest.mark.parametrize("compiled", [False, True])
def test_an_optimizer_of_what_has_no_gradient_is_refused_as_by_pytorch(compiled: bool) -> None:
    for library in (pb, torch):
        other, scaler = library.nn.Parameter(library.ones(2)), library.amp.GradScaler("cpu", init_scale=8.0)
        optimizer, trained = library.optim.SGD([other], lr=0.1), library.nn.Parameter(library.ones(2))

        def step(optimizer: Any = optimizer, trained: Any = trained, scaler: Any = scaler) -> None:
            scaler.scale(trained.sum()).backward()
            scaler.step(optimizer)
            scaler.update()

        with pytest.raises(AssertionError, match="No inf checks were recorded for this optimizer"):
            (pb.compile(step) if compiled and library is pb else step)()


@pytest.mark.parametrize("clears", [False, True])
def test_what_a_generators_loss_leaves_in_the_discriminator_may_overflow(clears: bool) -> None:
    """The step of adversaries with one scaler: nobody uses those gradients, and the scale falls as outside of compiled
    steps.
    """
    nn = pb.nn

    def scales(compiled: bool) -> tuple[list[float], list[list[float]]]:
        pb.manual_seed(0)
        maker, judge = nn.Linear(8, 16), nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
        of_maker, of_judge = pb.optim.Adam(maker.parameters()), pb.optim.Adam(judge.parameters())
        scaler = pb.amp.GradScaler("cpu", init_scale=2.0**24)

        def step(z: pb.Tensor, x: pb.Tensor) -> None:
            with pb.autocast("cpu", dtype=pb.float16):
                made = maker(z)
                loss = nn.functional.softplus(-judge(x)).mean() + nn.functional.softplus(judge(made.detach())).mean()
            of_judge.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(of_judge)
            with pb.autocast("cpu", dtype=pb.float16):
                loss = nn.functional.softplus(-judge(made)).mean()
            of_maker.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(of_maker)
            scaler.update()
            if clears:
                of_judge.zero_grad()

        taken, found = pb.compile(step) if compiled else step, []
        for _ in range(10):
            taken(pb.randn(16, 8) * 30, pb.randn(16, 16) * 10)
            found.append(scaler.get_scale())
        return found, maker.weight.tolist()

    own, theirs = scales(True), scales(False)
    assert own[0] == theirs[0] and len({*own[0]}) > 3
    np.testing.assert_allclose(own[1], theirs[1], atol=1e-4)


def test_a_factor_that_float32_does_not_have_is_pytorchs() -> None:
    def found(library: Any) -> list[float]:
        w = library.ones(1, requires_grad=True)
        optimizer = library.optim.SGD([w], lr=0.1)
        scaler = library.amp.GradScaler(
            "cpu", init_scale=5e6 / 3, backoff_factor=0.3, growth_factor=1.7, growth_interval=1
        )
        scales = []
        for bad in (True, False, False, True, False):
            optimizer.zero_grad()
            scaler.scale((w * (float("inf") if bad else 1.0)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
        return scales

    assert found(pb) == found(torch)
