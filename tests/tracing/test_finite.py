"""The guard of a compiled step: a bad step changes no bit of the state, and a good one costs nothing."""

import inspect
import math
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import pullback as pb
from benchmarks import workloads
from oracle import numbers
from pullback.compiler.describe import describe
from pullback.errors import NonFiniteError
from pullback.tracing.finite import taking_faults

nn = pb.nn


def _state(model: Any, optimizer: Any) -> list[bytes]:
    held = [*model.parameters(), *model.buffers(), *(v for s in optimizer.state.values() for v in s.values())]
    return [numbers(tensor.detach()).tobytes() for tensor in (*held, pb.get_rng_state())]


def _trained(optimizer: str, clip: bool, **options: Any) -> tuple[Any, Any, Any]:
    """A network with running averages and dropout, its optimizer and its step; clipped or not."""
    pb.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 2))
    kept = getattr(pb.optim, optimizer)(model.parameters(), lr=0.01)

    @pb.compile(**options)
    def step(x: Any) -> Any:
        kept.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        kept.step()
        return loss

    return model, kept, step


@pytest.mark.parametrize(("optimizer", "clip"), [("SGD", False), ("Adam", True), ("AdamW", False)])
def test_a_bad_step_changes_no_bit_and_the_next_goes_on(optimizer: str, clip: bool) -> None:
    model, kept, step = _trained(optimizer, clip)
    other, others, undisturbed = _trained(optimizer, clip)
    pb.manual_seed(5)
    good, bad = pb.randn(8, 4), pb.full((8, 4), math.nan)
    start = pb.get_rng_state()
    for _ in range(3):
        step(good)
    before = _state(model, kept)
    was, held = numbers(model[0].weight.detach()).copy(), model[0].weight.detach() * 1.0  # which is still pending
    with pytest.raises(NonFiniteError) as caught:
        step(bad)
    assert _state(model, kept) == before and caught.value.step == 4
    with pytest.raises(NonFiniteError):
        step(bad)
    step(good), step(good)
    assert np.array_equal(numbers(held), was) and not np.array_equal(was, numbers(model[0].weight.detach()))
    after = _state(model, kept)
    pb.set_rng_state(start)
    for _ in range(5):
        undisturbed(good)
    assert _state(other, others) == after


def test_skipped_steps_are_counted_and_told_once() -> None:
    model, kept, step = _trained("Adam", True, on_nonfinite="skip")
    good, bad = pb.ones(8, 4), pb.full((8, 4), math.nan)
    step(good)
    before = _state(model, kept)
    with pytest.warns(UserWarning, match=r"a step was skipped.*argument 1 is NaN in the data"):
        assert math.isnan(step(bad).item())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(bad)
    assert _state(model, kept) == before and step.skipped == 2
    step(good)
    assert _state(model, kept) != before and step.skipped == 2


def test_what_is_to_be_ignored_reaches_the_state() -> None:
    model, _, step = _trained("SGD", False, on_nonfinite="ignore")
    step(pb.full((8, 4), math.nan))
    assert np.isnan(numbers(model[3].weight.detach())).all() and step.skipped == 0


@pytest.mark.parametrize("how", ["clip_grad_norm_", "check_numerics"])
def test_what_is_asked_for_by_name_is_not_ignored(how: str) -> None:
    w, buffer = pb.ones(2, requires_grad=True), pb.zeros(2)

    @pb.compile(on_nonfinite="ignore")
    def step(x: Any) -> Any:
        w.grad = None
        loss = (w * x).sum()
        loss.backward()
        if how == "clip_grad_norm_":
            pb.nn.utils.clip_grad_norm_([w], 1.0, error_if_nonfinite=True)
        else:
            pb.check_numerics(w.grad, "the gradient")
        with pb.no_grad():
            w.sub_(0.5 * w.grad)
            buffer.copy_(x.log())
        return loss

    step(pb.tensor([0.0, 4.0]))
    assert buffer[0].item() == -math.inf  # which nobody asked about
    before = w.tolist()
    with pytest.raises(NonFiniteError, match=r"check_numerics: the (norm of the gradients|gradient) is not") as caught:
        step(pb.tensor([0.0, math.nan]))
    assert isinstance(caught.value, RuntimeError), "as PyTorch's is"
    assert w.tolist() == before and step.skipped == 0
    step(pb.tensor([0.0, 4.0]))
    assert w.tolist() != before


def test_policies_are_checked() -> None:
    with pytest.raises(ValueError, match="'raise', 'skip', 'rollback', 'ignore', got 'stop'"):
        pb.compile(lambda x: x, on_nonfinite="stop")


def test_without_a_guard_there_is_nobody_to_roll_back() -> None:
    _, _, step = _trained("SGD", False, on_nonfinite="rollback")
    with pytest.raises(NonFiniteError) as caught:
        step(pb.full((8, 4), math.nan))
    assert "pullback.Guard" in caught.value.__notes__[0]


def _descent(scale: float, **options: Any) -> tuple[Any, Any]:
    w = pb.ones(3, requires_grad=True)

    @pb.compile(**options)
    def step(x: Any) -> Any:
        w.grad = None
        loss = (w * x).sum()
        loss.backward()
        with pb.no_grad():
            w.sub_(w.grad * scale)
        return loss

    return w, step


def test_gradients_whose_squares_overflow_are_applied() -> None:
    w, step = _descent(1e-25)
    x = pb.tensor([1e25, -1e25, 1e20])
    for _ in range(2):  # the second by the program that was made for it
        assert math.isfinite(step(x).item())
    assert np.allclose(numbers(w.detach()), [-1.0, 3.0, 1.0 - 2e-5])
    assert np.allclose(numbers(w.grad), numbers(x))
    with pytest.raises(NonFiniteError):
        step(pb.tensor([math.inf, 0.0, 0.0]))
    assert np.allclose(numbers(w.detach()), [-1.0, 3.0, 1.0 - 2e-5])


def test_a_gradient_that_is_added_to_stays_what_it_was() -> None:
    w = pb.ones(2, requires_grad=True)

    @pb.compile
    def add(x: Any) -> None:
        (w * x).sum().backward()

    add(pb.ones(2)), add(pb.ones(2))
    with pytest.raises(NonFiniteError):
        add(pb.tensor([math.nan, 1.0]))
    assert w.grad.tolist() == [2.0, 2.0]
    add(pb.ones(2))
    assert w.grad.tolist() == [3.0, 3.0]


def test_names_that_a_bad_step_binds_keep_what_they_had() -> None:
    kept = {"hidden": pb.zeros(2)}
    w = pb.ones(2, requires_grad=True)

    @pb.compile(on_nonfinite="skip")
    def step(x: Any) -> Any:
        w.grad = None
        hidden = (w * x).tanh()
        kept["hidden"] = hidden.detach()
        hidden.sum().backward()
        with pb.no_grad():
            w.sub_(w.grad)

    step(pb.zeros(2))
    with pytest.warns(UserWarning, match="skipped"):
        step(pb.full((2,), math.nan))
    assert kept["hidden"].tolist() == [0.0, 0.0]


def test_a_checked_value_stops_a_step_that_changes_nothing() -> None:
    @pb.compile
    def scores(x: Any) -> Any:
        return pb.check_numerics(x.log(), "the scores") + 1

    assert scores(pb.ones(2)).tolist() == [1.0, 1.0]
    with pytest.raises(NonFiniteError, match=r"(?s)check_numerics: the scores.*logarithm of zero") as caught:
        scores(pb.zeros(2))
    assert (caught.value.op, caught.value.step) == ("log", 2)
    x = pb.ones(2, requires_grad=True)
    assert pb.check_numerics(x) is x
    assert pb.func.vmap(pb.check_numerics)(x).tolist() == [1.0, 1.0]
    with pytest.raises(NonFiniteError, match="a checked value is not finite"):
        pb.func.vmap(pb.check_numerics)(x / 0)


def _costs(name: str, changes: dict[str, int], **options: Any) -> tuple[Any, list[bytes], int, int]:
    pb.manual_seed(0)
    workload = workloads.build(pb, name, **changes)
    step = pb.compile(workload.step, **options)
    for _ in range(3):
        loss = step()
    program = step.program
    groups = dict.fromkeys(group for _, group in program.kernels())
    moved = sum(describe(group, program.in_memory.__contains__).nbytes for group in groups)
    return loss, _state(workload.model, workload.optimizer), len(program.kernels()), moved


SMALLER = {"gpt-char": dict(layers=1, width=32, heads=2, context=16, batch=2)}


@pytest.mark.native("the reference has no launches")
@pytest.mark.parametrize("name", ["mlp", "sigmoid20", "gpt-char"])
def test_the_guard_reads_no_gradient_again_and_changes_no_bit(name: str) -> None:
    loss, state, launches, moved = _costs(name, SMALLER.get(name, {}))
    plain_loss, plain_state, plain_launches, plain_moved = _costs(name, SMALLER.get(name, {}), on_nonfinite="ignore")
    assert loss.item() == plain_loss.item() and state == plain_state
    assert moved < 1.001 * plain_moved
    # without clipping there are sums to be put together
    assert launches <= plain_launches + (0 if name == "gpt-char" else 4)


def test_the_guard_gives_the_same_bits_for_any_number_of_threads() -> None:
    found = []
    for threads in (1, 2):
        with pb.debug.override(num_threads=threads):
            model, kept, step = _trained("Adam", False)
            for value in (1.0, 2.0):
                step(pb.full((8, 4), value))
            with pytest.raises(NonFiniteError):
                step(pb.full((8, 4), math.nan))
            found.append(_state(model, kept))
    assert found[0] == found[1]


def _root(w: Any, x: Any) -> Any:
    return (w * x).sum().sqrt()


@pytest.mark.parametrize(
    ("gradient", "what"),
    [
        (lambda w, x: pb.func.grad(_root)(w, x), "a gradient"),
        (lambda w, x: pb.func.grad_and_value(_root)(w, x)[0], "a gradient"),
        (lambda w, x: pb.func.jacrev(_root)(w, x), "a gradient"),
        (lambda w, x: pb.func.vmap(pb.func.grad(_root), in_dims=(None, 0))(w, x.unsqueeze(0)).mean(0), "a gradient"),
        (None, "a new value"),
    ],
    ids=["grad", "grad_and_value", "jacrev", "vmap", "none"],
)
def test_what_no_backward_has_made_is_looked_at(gradient: Any, what: str) -> None:
    weight = nn.Parameter(pb.ones(4))
    optimizer = pb.optim.SGD([weight], lr=0.1)

    @pb.compile
    def step(x: Any) -> None:
        if gradient is not None:
            weight.grad = gradient(weight, x)
            optimizer.step()
        else:
            with pb.no_grad():
                weight.mul_(1 / x)

    step(pb.full((4,), 2.0))
    before = weight.tolist()
    with pytest.raises(NonFiniteError, match=f"^{what} is not finite at call 2"):
        step(pb.zeros(4))
    assert weight.tolist() == before and all(map(math.isfinite, before))


def test_what_writes_no_parameter_has_no_guard() -> None:
    average, seen = pb.ones(4), pb.zeros(4)

    @pb.compile
    def step(x: Any) -> None:
        average.mul_(0.9).add_(0.1 / x)
        seen.add_(1)

    step(pb.zeros(4))
    assert average.tolist() == [math.inf] * 4 and seen.tolist() == [1.0] * 4


def test_an_update_that_is_not_compiled_takes_what_comes() -> None:
    weight = nn.Parameter(pb.ones(4))
    optimizer = pb.optim.SGD([weight], lr=0.1)
    weight.grad = pb.full((4,), math.nan)
    optimizer.step()
    assert all(map(math.isnan, weight.tolist()))


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_a_first_step_that_fails_leaves_an_optimizer_without_state(policy: str) -> None:
    """And the recording is good for the steps that follow, whose bits are those of a run without the failure."""

    def run(first: float) -> tuple[list[Any], Any, Any]:
        w, v = pb.ones(3, requires_grad=True), pb.ones(2, requires_grad=True)
        optimizer = pb.optim.Adam([{"params": [w]}, {"params": [v], "lr": 0.1}], lr=0.01)

        @pb.compile(on_nonfinite=policy)
        def step(x: pb.Tensor) -> pb.Tensor:
            optimizer.zero_grad()
            loss = (w * x).log().sum() + v.square().sum()
            loss.backward()
            optimizer.step()
            return loss

        step.plan(pb.ones(3))
        step.check(pb.ones(3))
        assert not optimizer.state and not optimizer.state_dict()["state"]
        if first <= 0:
            with pytest.warns(UserWarning) if policy == "skip" else pytest.raises(NonFiniteError):
                step(pb.full((3,), first))
            assert not optimizer.state and not optimizer.state_dict()["state"]
        for factor in (1.0, 2.0):
            step(pb.full((3,), factor))
        assert optimizer.state[w]["step"].item() == 2 and step._recordings == 1
        return [t.tolist() for t in (w, v, optimizer.state[v]["exp_avg_sq"])], optimizer, step

    expected, _, _ = run(1.0)
    found, _, _ = run(-1.0)
    assert found == expected


def test_a_recording_that_fails_leaves_an_optimizer_without_state() -> None:
    w = pb.ones(3, requires_grad=True)
    optimizer = pb.optim.Adam([w])

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        w.sum().backward()
        optimizer.step()
        return x @ pb.ones(7)

    with pytest.raises(pb.errors.ShapeError):
        step(pb.ones(3))
    assert not optimizer.state
    assert step(pb.ones(7)).item() == 7 and optimizer.state[w]["step"].item() == 1


def test_state_that_is_loaded_after_a_failure_is_what_the_next_step_goes_on_from() -> None:
    w = pb.ones(3, requires_grad=True)
    optimizer = pb.optim.Adam([w], lr=0.1)

    @pb.compile
    def step(x: pb.Tensor) -> None:
        optimizer.zero_grad()
        (w * x).log().sum().backward()
        optimizer.step()

    with pytest.raises(NonFiniteError):
        step(-pb.ones(3))
    other = pb.optim.Adam([v := pb.ones(3, requires_grad=True)], lr=0.1)
    v.grad = pb.ones(3)
    other.step()
    optimizer.load_state_dict(other.state_dict())
    step(pb.ones(3))
    assert optimizer.state[w]["step"].item() == 2


def test_gradients_that_are_made_zeros_forget_a_nan() -> None:
    layer = pb.nn.Linear(2, 1)
    for parameter in layer.parameters():
        parameter.grad = pb.full(tuple(parameter.shape), float("nan"))
    layer.zero_grad(set_to_none=False)
    assert all(p.grad.tolist() == pb.zeros_like(p).tolist() for p in layer.parameters())
    layer.bias.grad.fill_(float("inf"))
    pb.optim.SGD(layer.parameters(), lr=0.1).zero_grad(set_to_none=False)
    assert layer.bias.grad.tolist() == [0.0]


def test_a_gradient_that_is_assigned_after_others_were_cleared_is_looked_at_by_itself() -> None:
    w = pb.nn.Parameter(pb.ones(3))
    optimizer = pb.optim.SGD([w], lr=0.1)

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        for gradient in (pb.ones(3), x / x):
            optimizer.zero_grad()
            w.grad = gradient
            optimizer.step()
        return w.sum()

    with pytest.raises(NonFiniteError, match="a gradient is not finite"):
        step(pb.zeros(3))
    assert w.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("over_examples", [False, True])
def test_a_plain_tensor_that_is_written_with_a_gradient_of_it_is_kept_from_bad_values(over_examples: bool) -> None:
    w = pb.ones(3)  # weights as users of functional transforms keep them

    def loss(w: pb.Tensor, x: pb.Tensor) -> pb.Tensor:
        return (w * x).sum().sqrt()

    @pb.compile
    def step(x: pb.Tensor) -> None:
        if over_examples:
            w.sub_(0.1 * pb.func.vmap(pb.func.grad(loss), in_dims=(None, 0))(w, x).mean(0))
        else:
            w.sub_(0.1 * pb.func.grad(loss)(w, x[0]))

    step(pb.ones(2, 3))
    before = w.tolist()
    with pytest.raises(NonFiniteError, match="sqrt"):
        step(pb.zeros(2, 3))
    assert w.tolist() == before


@pytest.mark.parametrize("policy", ["skip", "rollback", "ignore"])
def test_what_a_step_returns_of_its_gradients_is_what_they_are(policy: str) -> None:
    """The update reads zeros in place of gradients that are not finite; the caller does not."""
    w, layer = pb.ones(4, requires_grad=True), pb.nn.Linear(4, 4)
    optimizer = pb.optim.SGD([w, *layer.parameters()], lr=0.1)

    def step(x: pb.Tensor) -> tuple[pb.Tensor, ...]:
        optimizer.zero_grad()
        (layer(x) @ w).square().mean().backward()
        assert w.grad is not None
        gradient, before = w.grad, w.detach().clone()
        found = gradient.isfinite().all(), gradient.abs().max(), gradient * 1, gradient.clone(), w - 0.1 * gradient
        optimizer.step()
        return *found, (w - before).norm()

    taken = pb.compile(step, on_nonfinite=policy)
    finite, largest, scaled, copied, moved, _ = taken(pb.ones(3, 4))
    assert finite and largest < 100 and scaled.tolist() == copied.tolist()
    kept = w.tolist()
    with warnings.catch_warnings(), suppress(NonFiniteError):
        warnings.simplefilter("ignore")
        results: list[Any] = []
        with taking_faults(lambda fault: None):
            results = list(taken(pb.full((3, 4), math.nan)))
    finite, largest, scaled, copied, moved, change = results
    assert not finite
    for value in (largest, scaled, copied, moved):
        assert value.isnan().all()
    if policy != "ignore":
        assert w.tolist() == kept and change == 0.0


def test_a_division_by_what_only_native_code_rounds_to_zero_is_named() -> None:
    w, x = pb.tensor([0.3, 0.7, 0.11]), pb.randn(7, 3, generator=pb.Generator(0))
    y = pb.compile(lambda: (x @ w).tanh())()

    @pb.compile
    def step() -> None:
        gradient = pb.func.grad(lambda w: ((x @ w).tanh() - y).square().sum())(w)
        w.sub_(gradient / gradient.norm())  # fault

    with pytest.raises(NonFiniteError) as caught:
        step()
    lines, start = inspect.getsourcelines(test_a_division_by_what_only_native_code_rounds_to_zero_is_named)
    fault = next(start + number for number, line in enumerate(lines) if "# fault" in line)
    assert (caught.value.op, caught.value.lineno) == ("div", fault)
    assert caught.value.how.startswith("division by")


def test_a_gradient_that_was_changed_before_an_update_that_was_left_out_is_nan() -> None:
    """It is made behind the guard, and must not look as if all were well."""
    w = pb.ones(2, requires_grad=True)
    optimizer = pb.optim.SGD([w], lr=0.1)

    @pb.compile(on_nonfinite="skip")
    def step(x: pb.Tensor) -> None:
        optimizer.zero_grad()
        (x * w).sum().backward()
        pb.nn.utils.clip_grad_value_([w], 0.5)
        optimizer.step()

    step(pb.ones(2))
    assert w.grad is not None and w.grad.tolist() == [0.5, 0.5]
    kept = w.tolist()
    with pytest.warns(UserWarning, match="a step was skipped"):
        step(pb.tensor([1.0, math.nan]))
    assert w.grad.isnan().all() and w.tolist() == kept
