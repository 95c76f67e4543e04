"""step.check(): a step is compared with what it should compute, and the first thing that is wrong is named."""

import inspect
from typing import Any

import numpy as np
import pytest

import pullback as pb
from benchmarks import workloads
from oracle import numbers
from pullback.codegen.arithmetic import LLVMArithmetic
from pullback.compiler import pipeline
from pullback.errors import CheckError
from pullback.graph.node import Graph, Node
from pullback.ops import elementwise

nn = pb.nn

#: every workload, at sizes that the reference goes through in little time
SIZES: dict[str, dict[str, Any]] = {
    "mlp": {},
    "sigmoid20": {},
    "ppo": {},
    "lstm": {"batch": 2, "steps": 10},
    "gpt-char": {"layers": 1, "batch": 2},
    "gpt-mid": {"layers": 1, "batch": 1, "width": 96, "context": 64},
    "gpt2": {"layers": 1, "batch": 1, "width": 96, "context": 32, "vocabulary": 1000},
    "gpt-deep": {"layers": 3, "batch": 1, "width": 64, "context": 16},
    "resnet20": {"blocks": 1, "batch": 2, "size": 8},
}


@pytest.mark.native("the reference has no kernels")
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", SIZES)
def test_every_workload_computes_what_it_should(name: str, bf16: bool) -> None:
    pb.manual_seed(1)
    work = workloads.build(pb, name, bf16=bf16, **SIZES[name])
    found = pb.compile(work.step).check()
    assert found.kernels > 5 and len(found.gradients) == len(list(work.model.parameters())), str(found)
    if not bf16:
        assert max(found.gradients.values()) < 1e-4, str(found)
    assert len(found.slopes) == 1 and (found.slopes[0].agrees or not found.slopes[0].is_conclusive), str(found)


def test_every_workload_has_a_size() -> None:
    assert {*workloads.NAMES, *workloads.BY_NAME} == set(SIZES)


def _step(forward: Any, parameters: list[Any]) -> Any:
    optimizer = pb.optim.Adam(parameters, lr=0.01)

    @pb.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = forward(x)
        loss.backward()
        optimizer.step()
        return loss

    step.optimizer = optimizer
    return step


def test_a_check_changes_nothing() -> None:
    def run(checks: bool) -> list[bytes]:
        pb.manual_seed(5)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        step = _step(lambda x: model(x).square().mean(), list(model.parameters()))
        for _ in range(3):
            if checks:
                step.check(pb.ones(6, 4))
            step(pb.ones(6, 4))
            held = model[0].weight.grad
            if checks:
                before = numbers(held).tobytes()
                step.check(pb.ones(6, 4))
                assert numbers(held).tobytes() == before, "the check wrote over a gradient that is held"
        state = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters()), pb.get_rng_state()]
        return [numbers(tensor.detach()).tobytes() for tensor in state]

    assert run(False) == run(True)


def test_gradients_that_are_zero_on_paper_are_told_apart() -> None:
    pb.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    found = _step(lambda x: model(x).square().mean(), list(model.parameters())).check(pb.randn(16, 4))
    assert len(found.zeros) == 1 and max(found.zeros.values()) < 1e-6, str(found)
    assert len(found.gradients) == 5 and max(found.gradients.values()) < 1e-4
    assert "1 gradient is 0 but for rounding" in str(found)


@pytest.mark.native("the reference has no kernels")
def test_a_wrong_kernel_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    sine = LLVMArithmetic.sin
    monkeypatch.setattr(
        LLVMArithmetic, "sin", lambda self, x: self.mul(sine(self, x), self.constant(1.01, self.dtype(x)))
    )
    w = pb.full((37,), 0.3, requires_grad=True)

    def forward(x: Any) -> Any:
        y = (w * x).cos()
        return (y * 1.6180339).sin().sum()  # the fault

    with pytest.raises(CheckError, match=r"(?s)kernel \w+ \(.*sin.*fault of Pullback's own") as caught:
        _step(forward, [w]).check(pb.linspace(0.1, 2.0, 37))
    error = caught.value
    with open(__file__) as lines:
        fault = next(n for n, line in enumerate(lines, 1) if line.rstrip().endswith("# the fault"))
    assert (error.what, error.op, error.filename, error.phase) == ("kernel", "sum", __file__, "forward")
    assert error.lineno == fault and error.kernel, str(error)
    assert error.actual == pytest.approx(1.01 * error.expected, rel=1e-3)


@pytest.mark.native("the reference has no kernels")
def test_one_wrong_element_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    sine = LLVMArithmetic.sin

    def wrong(self: Any, x: Any) -> Any:
        largest = self.lt(self.constant(1.999, self.dtype(x)), x)
        return self.select(largest, self.constant(0.5, self.dtype(x)), sine(self, x))

    monkeypatch.setattr(LLVMArithmetic, "sin", wrong)
    with pytest.raises(CheckError, match="1 of 501 elements are off") as caught:
        pb.compile(lambda x: (x * 1.0000002).sin()).check(pb.linspace(0.1, 2.0, 501))
    assert caught.value.index == (500,)


@pytest.mark.native("the reference has no kernels")
def test_a_wrong_pass_is_told_from_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(graph: Graph) -> Graph:
        new: dict[Node, Node] = {}
        for node in graph.nodes:
            inputs = tuple(new[i] for i in node.inputs)
            wrong = node.op is elementwise.SIN
            new[node] = elementwise.cos(*inputs) if wrong else node.with_inputs(inputs)
        return Graph([new[n] for n in graph.nodes], [new[n] for n in graph.outputs])

    monkeypatch.setattr(pipeline, "PASSES", (mistaken, *pipeline.PASSES))
    w = pb.full((19,), 0.3, requires_grad=True)
    with pytest.raises(CheckError, match="each kernel of which is right") as caught:
        _step(lambda x: (w * x).sin().sum(), [w]).check(pb.linspace(0.1, 2.0, 19))
    assert caught.value.what == "result"


class _Halved(pb.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Any) -> Any:
        context.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(context: Any, cotangent: Any) -> Any:
        return cotangent * context.saved_tensors[0]  # 2 x it should be


def test_a_wrong_rule_of_the_users_own_is_named_at_the_line_that_applied_it() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))

    def forward(x: Any) -> Any:
        y = model[1](model[0](x))
        z = _Halved.apply(y)  # applied here
        return model[2](z).square().mean()

    step = _step(forward, list(model.parameters()))
    with pytest.raises(CheckError, match="not the slope") as caught:
        step.check(pb.linspace(-1.0, 1.0, 12).view(4, 3))
    with open(__file__) as lines:
        line = next(n for n, text in enumerate(lines, 1) if text.rstrip().endswith("# applied here"))
    error = caught.value
    assert (error.what, error.filename, error.lineno, error.phase) == ("gradient", __file__, line, "backward")
    assert error.operand == 0 and "that of its operand (tanh: float32[4, 5]) gives" in str(error)
    assert step.check(pb.linspace(-1.0, 1.0, 12).view(4, 3), directions=0).slopes == []


class _Forgetting(pb.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(context: Any, cotangent: Any) -> Any:
        return None


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another way"])
def test_a_rule_that_gives_nothing_says_that_the_slope_is_zero(beside: bool) -> None:
    layer, other = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(x: Any) -> Any:
        y = layer(x)
        z = _Forgetting.apply(layer(x))  # forgotten here
        return ((z + y) if beside else z * other(x)).square().mean()

    with pytest.raises(CheckError, match="not the slope") as caught:
        _step(forward, [*layer.parameters(), *other.parameters()]).check(pb.linspace(-1.0, 1.0, 12).view(4, 3))
    with open(__file__) as lines:
        line = next(n for n, text in enumerate(lines, 1) if text.rstrip().endswith("# forgotten here"))
    assert (caught.value.what, caught.value.lineno) == ("gradient", line)


def test_what_no_gradient_goes_through_is_no_fault() -> None:
    w = pb.tensor([0.5, -1.5, 2.5], requires_grad=True)

    def forward(x: Any) -> Any:
        with pb.no_grad():
            scale = w.abs().max()
        straight = w + (w.round() - w).detach()
        return (straight * x / scale).sum() + (w.detach() * w).sum() + w.clamp(0, 1).sum()

    assert _step(forward, [w]).check(pb.tensor([1.0, 2.0, 3.0])).slopes[0].agrees


def test_at_a_kink_differences_tell_nothing() -> None:
    w = pb.zeros(3, requires_grad=True)
    found = _step(lambda x: (w * x).abs().sum() + (w * x).amax(), [w]).check(pb.ones(3))
    assert not found.slopes[0].is_conclusive
    assert "kink" in str(found)


def test_second_derivatives_and_several_passes_are_checked() -> None:
    w = pb.tensor([0.5, -1.5], requires_grad=True)

    def forward(x: Any) -> Any:
        inner = (w.exp() * x).sum()
        (slope,) = pb.autograd.grad(inner, w, create_graph=True)
        return slope.square().sum()

    found = _step(forward, [w]).check(pb.tensor([1.0, 2.0]))
    assert len(found.slopes) == 2 and all(slope.agrees for slope in found.slopes)


@pytest.mark.native("the reference has no kernels")
def test_loops_budgets_and_host_calls_are_checked() -> None:
    model, head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 4)
    x = pb.linspace(-1, 1, 2 * 40 * 3).view(2, 40, 3)

    def forward(x: Any) -> Any:
        y, _ = model(x)
        return pb.linalg.inv(head(y[:, -1]).T @ y[:, -1] + 3 * pb.eye(4)).square().mean()

    parameters = [*model.parameters(), *head.parameters()]
    found = _step(forward, parameters).check(x)
    assert len(found.gradients) == len(parameters)
    optimizer = pb.optim.SGD(parameters, lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = forward(x)
        loss.backward()
        optimizer.step()
        return loss

    lean = pb.compile(step, memory="least")
    assert lean.check(x).kernels > 5


def test_check_every_looks_before_the_first_call_and_each_kth_after(monkeypatch: pytest.MonkeyPatch) -> None:
    w = pb.ones(3, requires_grad=True)

    @pb.compile(check_every=3)
    def step(x: Any) -> Any:
        w.grad = None
        loss = (w * x).square().sum()
        loss.backward()
        return loss

    seen: list[int] = []
    real = type(step)._checked

    def noted(self: Any, *args: Any) -> Any:
        seen.append(self.policy.calls)
        return real(self, *args)

    monkeypatch.setattr(type(step), "_checked", noted)
    for _ in range(7):
        step(pb.ones(3))
    assert seen == [0, 3, 6]
    for wrong in (0, -1, 1.5, "2", True):
        with pytest.raises(ValueError, match="check_every must be"):
            pb.compile(check_every=wrong)(lambda: None)


def test_wrong_use_is_refused() -> None:
    step = pb.compile(lambda x: x + 1)
    with pytest.raises(ValueError, match="directions must be a whole number from 0 on"):
        step.check(pb.ones(2), directions=-1)
    with pytest.raises(pb.errors.TraceError, match="inside of a compiled step"):
        pb.compile(lambda x: step.check(x))(pb.ones(2))
    assert np.isfinite(step(pb.ones(2)).sum().item())


@pytest.mark.native("the reference has no kernels")
@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_a_step_that_is_not_finite_is_no_fault_of_the_program(what: str, policy: str) -> None:
    w = pb.tensor([-1.0, 2.0] if what == "loss" else [0.0, 0.0], requires_grad=True)
    optimizer = pb.optim.SGD([w], lr=0.1)

    @pb.compile(on_nonfinite=policy, check_every=1)
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (w * x).log().sum() if what == "loss" else (w * x).square().sum().sqrt()
        loss.backward()
        optimizer.step()
        return loss

    found = step.check(pb.ones(2))
    assert not found.is_finite and found.kernels and "not finite" in str(found)
    if policy == "raise":
        with pytest.raises(pb.errors.NonFiniteError):
            step(pb.ones(2))
    else:
        with pytest.warns(UserWarning, match="skipped"):
            step(pb.ones(2))
        assert step.skipped == 1


def test_what_the_users_hooks_have_changed_is_not_held_against_the_gradient() -> None:
    w, v = pb.ones(3, requires_grad=True), pb.tensor([1.0, 2.0, 3.0], requires_grad=True)
    w.register_hook(lambda gradient: gradient.clamp(-0.1, 0.1))

    def forward(x: Any) -> Any:
        y = v.exp() * x
        return (w * y).sum()

    assert _step(forward, [w, v]).check(pb.ones(3)).slopes[0].agrees

    def halved(x: Any) -> Any:
        y = v * x
        y.register_hook(lambda gradient: gradient * 0.5)
        return (y * y).sum()

    assert not _step(halved, [v]).check(pb.ones(3)).slopes


def test_a_rule_that_is_no_slope_can_be_trained_with_checks() -> None:
    w = pb.tensor([0.4, 1.6], requires_grad=True)

    @pb.compile(check_every=1, check_directions=0)
    def step(x: Any) -> Any:
        w.grad = None
        loss = (_Halved.apply(w) * x).sum()
        loss.backward()
        return loss

    step(pb.ones(2))


def test_a_small_part_of_the_loss_counts() -> None:
    w = pb.linspace(0.1, 2.0, 19).requires_grad_()
    with pytest.raises(CheckError, match="not the slope"):
        _step(lambda x: (w * x).sin().sum() + 1e-4 * _Halved.apply(w).sum(), [w]).check(pb.ones(19))


def test_checks_are_no_recordings_and_leave_a_steps_own_arguments_alone(recwarn: pytest.WarningsRecorder) -> None:
    @pb.compile(check_every=1)
    def step(x: Any, *, directions: Any) -> Any:
        return (x * directions).sum()

    for _ in range(20):
        step(pb.ones(2), directions=pb.tensor([2.0, 3.0]))
    assert not [warning for warning in recwarn if "has been compiled" in str(warning.message)]


class _Half(pb.autograd.Function):
    """A right rule, which keeps its result."""

    @staticmethod
    def forward(context: Any, x: pb.Tensor) -> pb.Tensor:
        y = x.exp()
        context.save_for_backward(y)
        return y

    @staticmethod
    def backward(context: Any, cotangent: pb.Tensor) -> pb.Tensor:
        (y,) = context.saved_tensors
        return cotangent * y


class _WrongSquare(pb.autograd.Function):
    @staticmethod
    def forward(context: Any, x: pb.Tensor, factor: pb.Tensor) -> pb.Tensor:
        context.save_for_backward(x, factor)
        return x * x * factor

    @staticmethod
    def backward(context: Any, cotangent: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
        x, factor = context.saved_tensors
        return cotangent * x * factor, cotangent * x * x


@pytest.mark.parametrize("nested", [False, True])
def test_a_wrong_rule_in_the_body_of_a_loop_is_named_itself(nested: bool) -> None:
    pb.manual_seed(0)
    w, x = pb.ones(3, requires_grad=True), pb.randn(5, 3)

    def cell(h: pb.Tensor, x: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
        h = (_Half.apply(h * 0.1) * 0.5 + x * w).tanh()
        return h, _WrongSquare.apply(h, w)

    def outer(h: pb.Tensor, x: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
        return pb.func.scan(cell, h, pb.stack([x, x * 2]))

    @pb.compile
    def step() -> None:
        w.grad = None
        _, outputs = pb.func.scan(outer if nested else cell, pb.zeros(3), x)
        outputs.sum().backward()

    with pytest.raises(CheckError, match="not the slope") as caught:
        step.check()
    error = caught.value
    line = inspect.getsourcelines(cell)[1] + 2
    assert (error.op, error.lineno, error.filename, error.phase) == ("apply", line, __file__, "backward")
    assert error.operand == 0 and "its operand 1 of 2 (" in str(error)


@pytest.mark.parametrize("rule", [_Half, _WrongSquare])
@pytest.mark.parametrize("nested", [False, True])
def test_gradients_for_each_example_are_compared_with_slopes(nested: bool, rule: Any) -> None:
    w = pb.nn.Parameter(pb.linspace(0.5, 1.5, 3))

    def loss(w: pb.Tensor, x: pb.Tensor) -> pb.Tensor:
        made = rule.apply(w * x) if rule is _Half else rule.apply(x * w, w)
        return made.sin().sum()

    each = pb.func.vmap(pb.func.grad(loss), in_dims=(None, 0))
    of_all = pb.func.vmap(each, in_dims=(None, 0)) if nested else each

    @pb.compile
    def step(x: pb.Tensor) -> None:
        found = of_all(w.detach(), x)
        with pb.no_grad():
            w.sub_(0.1 * found.reshape(-1, 3).mean(0))

    x = pb.linspace(-1.0, 2.0, 24).reshape(2, 4, 3) if nested else pb.linspace(-1.0, 2.0, 12).reshape(4, 3)
    if rule is _Half:
        found = step.check(x)
        assert len(found.slopes) == (4 if nested else 2) and not found.unchecked, "the first and the last example"
        assert all(slope.agrees and slope.by_gradient for slope in found.slopes)
        return
    with pytest.raises(CheckError, match="not the slope") as caught:
        step.check(x)
    line = inspect.getsourcelines(loss)[1] + 1
    assert (caught.value.op, caught.value.lineno, caught.value.operand) == ("apply", line, 0)


def test_gradients_in_the_body_of_a_loop_are_told_to_be_compared_with_no_slope() -> None:
    w = pb.nn.Parameter(pb.ones(3))

    def cell(w: pb.Tensor, x: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
        return w - 0.1 * pb.func.grad(lambda w: (w * x).square().sum())(w), x

    @pb.compile
    def step(x: pb.Tensor) -> None:
        with pb.no_grad():
            w.copy_(pb.func.scan(cell, w.detach(), x)[0])

    found = step.check(pb.ones(4, 3))
    assert len(found.unchecked) == 1
    assert "NOT compared with a slope" in str(found) and __file__ in str(found)


@pytest.mark.parametrize("name", ["Adam", "Lion", "Adagrad"])
def test_updates_that_go_by_the_signs_of_gradients_of_16_bits_are_no_fault(name: str) -> None:
    """Rounding decides the sign of a gradient that is next to nothing, and with it where the first update goes."""
    for seed in range(2):
        pb.manual_seed(seed)
        encoder = pb.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        model = pb.nn.Sequential(pb.nn.Embedding(50, 32), encoder, pb.nn.Linear(32, 50))
        optimizer = getattr(pb.optim, name)(model.parameters(), lr=0.01)

        @pb.compile
        def step(tokens: pb.Tensor, model: Any = model, optimizer: Any = optimizer) -> pb.Tensor:
            optimizer.zero_grad()
            with pb.autocast("cpu", dtype=pb.bfloat16):
                scores = model(tokens[:, :-1]).flatten(0, 1)
                loss = pb.nn.functional.cross_entropy(scores, tokens[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            return loss

        assert step.check(pb.randint(0, 50, (16, 33)), directions=0).gradients
