"""What the user allows a step to change for its budget; and what is done for memory without being allowed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pullback as pb
from layout_checker import check_layout
from pullback import debug
from pullback.compiler.groups import Fusion
from pullback.compiler.narrow import chosen_for, in_numbers, narrowable, narrowed
from pullback.compiler.retention import Solver
from pullback.errors import MemoryBudgetError, TraceError
from pullback.runtime.fit import Fitter
from pullback.runtime.layout import Layout

pytestmark = pytest.mark.native("the reference has no memory to plan")
nn, F = pb.nn, pb.nn.functional


class Case:
    """A training step: layers with many rows, or with more parameters than activations (wide); or a small language
    model with a tied embedding.
    """

    def __init__(self, kind: str = "layers", end: bool = False, clip: bool = False):
        pb.manual_seed(3)
        self.kind, self.end, self.clip = kind, end, clip
        if kind != "language":
            layers = [layer for _ in range(6) for layer in (nn.Linear(48, 48), nn.GELU())]
            self.model, self.x = nn.Sequential(*layers), pb.randn(160 if kind == "layers" else 8, 48)
        else:
            self.model = nn.ModuleList([nn.Embedding(1024, 32), nn.Linear(32, 32), nn.Linear(32, 1024, bias=False)])
            self.model[2].weight = self.model[0].weight
            self.x = pb.randint(0, 1024, (512,))
        self.optimizer = pb.optim.AdamW(self.model.parameters(), lr=0.01)

    def loss(self, x: pb.Tensor) -> pb.Tensor:
        if self.kind != "language":
            return F.mse_loss(self.model(x), x)
        hidden = self.model[1](self.model[0](x)).tanh()
        return F.cross_entropy(self.model[2](hidden), x.flip(0))

    def step(self, x: pb.Tensor) -> pb.Tensor:
        if not self.end:
            self.optimizer.zero_grad()
        loss = self.loss(x)
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.end:
            self.optimizer.zero_grad()
        return loss

    def trained(self, threads: int = 1, **budget: Any) -> tuple[list[np.ndarray], Any]:
        """Everything after two steps, and the compiled step."""
        compiled = pb.compile(self.step, **budget)
        with debug.override(num_threads=threads, verify=True):
            losses = [compiled(self.x).numpy() for _ in range(2)]
        check_layout(compiled.program.layout)
        assert compiled.memory.peak_bytes == compiled.program.memory.peak
        return [*losses, *(t.detach().numpy() for t in self.model.state_dict().values())], compiled

    def peak(self, **budget: Any) -> int:
        return pb.plan(self.step, self.x, **budget).peak_bytes


def bits(values: list[np.ndarray]) -> list[bytes]:
    return [value.tobytes() for value in values]


# ---- what needs no permission


def test_gradients_that_nobody_keeps_are_freed_as_they_are_used() -> None:
    """A step that ends with zero_grad(): under a budget the updates come right behind the gradients, unless they wait
    until all gradients are known to be finite.
    """
    kept, freed = Case(), Case(end=True)
    plain, _ = kept.trained()
    peak = freed.peak()
    again = 0
    for share, threads in ((0.99, 1), (0.9, 2), (0.75, 3)):
        case = Case(end=True)
        found, step = case.trained(threads, memory=int(share * peak))
        assert bits(found) == bits(plain)
        again += step.program.is_plain
    assert again  # by order alone
    least = [pb.compile(c.step, memory="least", on_nonfinite="ignore").plan(c.x).peak_bytes for c in (freed, kept)]
    assert least[0] < least[1]


def test_the_two_gradients_of_a_tied_embedding_lie_in_one_place() -> None:
    case = Case("language")
    plan = pb.plan(case.step, case.x)
    table = 1024 * 32 * 4
    alive = [[b for b in plan.at(step) if b.nbytes == table and b.offset is not None] for step in range(plan.steps)]
    assert max(map(len, alive)) == 1
    one, _ = case.trained()
    two, _ = Case("language").trained(2)
    assert bits(one) == bits(two)


def test_a_sum_onto_which_rows_are_scattered_is_right() -> None:
    random = np.random.default_rng(0)
    base, rows = (random.standard_normal(shape).astype(np.float32) for shape in ((50, 70), (90, 70)))
    index = random.integers(0, 50, 90)
    expected = base.copy()
    np.add.at(expected, index, rows)

    @pb.compile
    def step(base: pb.Tensor, rows: pb.Tensor, index: pb.Tensor) -> list[pb.Tensor]:
        zeros = pb.zeros(50, 70)
        scattered = zeros.index_add(0, index, rows)
        onto = base @ pb.eye(70)  # what the rows are made of
        own = onto + zeros.index_add(0, index, rows + 0 * onto[:1])
        return [base + zeros.index_add(0, index, rows), scattered + scattered, own]

    found = step(pb.tensor(base), pb.tensor(rows), pb.tensor(index))
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(found[1].numpy(), 2 * (expected - base), atol=1e-4)
    np.testing.assert_allclose(found[2].numpy(), expected, atol=1e-4)


# ---- permissions


def test_what_is_no_permission_is_refused() -> None:
    with pytest.raises(ValueError, match=r"allow has no 'int8'; what may be allowed:\n  - 'early-update': .*\n  - 'bl"):
        pb.compile(len, memory="1GiB", allow=["int8"])
    with pytest.raises(TypeError, match=r"allow must be a collection of names, such as \['blocks'\]"):
        pb.plan(len, memory="1GiB", allow="blocks")
    with pytest.raises(ValueError, match="there is none: give memory= too"):
        pb.compile(len, allow=["blocks"])


def test_an_early_update_frees_its_gradient() -> None:
    plain, step = Case("wide").trained()
    peak, gradients = step.program.memory.peak, 6 * 48 * 49 * 4
    # what fits needs no permission
    case = Case("wide")
    assert pb.plan(case.step, case.x, memory=peak, allow=["early-update"]).changes == {}
    for parameter in case.model.parameters():  # gradients of before are let go as they are by zero_grad()
        parameter.grad = pb.ones_like(parameter)
    budget = peak - gradients // 2
    with pytest.raises(MemoryBudgetError, match=r"allow=\['early-update'\]: \d+ bytes .*in the budget"):
        Case("wide").trained(memory=budget)
    found, step = case.trained(2, memory=budget, allow=["early-update"])
    assert bits(found) == bits(plain)
    assert all(parameter.grad is None for parameter in case.model.parameters())
    plan = step.plan(case.x)
    assert plan.peak_bytes <= budget and list(plan.changes) == ["early-update"]
    assert "allowed and done: early-update: 12 gradients" in str(plan) and plan.to_dict()["changes"] == plan.changes


def test_an_early_update_that_a_norm_forbids() -> None:
    case = Case(clip=True)
    with pytest.raises(TraceError, match=r"gradients of several parameters \(they meet at .*test_allow.py:"):
        pb.plan(case.step, case.x, memory=1, allow=["early-update"])


def test_gradients_that_are_added_to_stay() -> None:
    """Without zero_grad() the next step adds to what is there."""
    case = Case()

    def step(x: pb.Tensor) -> pb.Tensor:
        loss = case.loss(x)
        loss.backward()
        case.optimizer.step()
        return loss

    assert pb.plan(step, case.x, memory=1, allow=["early-update"]).changes == {}


@pytest.mark.parametrize("clip", [False, True])
def test_each_of_several_updates_in_a_step_may_be_made_early(clip: bool) -> None:
    def trained(**budget: Any) -> tuple[list[np.ndarray], Any]:
        case = Case("wide")

        def step(x: pb.Tensor) -> pb.Tensor:
            for _ in range(3):
                case.optimizer.zero_grad()
                loss = case.loss(x)
                loss.backward()
                if clip:
                    nn.utils.clip_grad_norm_(case.model.parameters(), 1.0)
                case.optimizer.step()
            return loss

        compiled = pb.compile(step, **budget)
        losses = [compiled(case.x).numpy() for _ in range(2)]
        return [*losses, *(p.detach().numpy() for p in case.model.parameters())], compiled

    plain, whole = trained()
    if clip:
        with pytest.raises(TraceError, match="an update waits for the gradients of several parameters"):
            trained(memory="least", allow=["early-update"])
        return
    found, early = trained(memory="least", allow=["early-update"])
    assert bits(found) == bits(plain) and early.memory.peak_bytes < whole.memory.peak_bytes
    assert list(early.plan(Case("wide").x).changes) == ["early-update"]


def test_activations_may_wait_in_bfloat16() -> None:
    plain, step = Case().trained()
    least = Case().peak(memory="least")
    plans = [
        pb.plan(Case().step, Case().x, memory=b, allow=["bfloat16"])
        for b in (int(0.8 * step.program.memory.peak), "least")
    ]
    assert plans[0].recomputed_flops == 0 and list(plans[0].changes) == ["bfloat16"]
    assert "activations wait for the backward pass" in plans[0].changes["bfloat16"]
    assert plans[1].peak_bytes <= least
    assert Case().peak(memory=1, allow=["bfloat16"]) < Case().peak(memory=1)  # the fewest that are found
    for step in (Several("lstm").step, Several("penalty").step):  # where making again costs more than here
        assert pb.plan(step, memory="least", allow=["bfloat16"]).peak_bytes < pb.plan(step, memory="least").peak_bytes
    budget = plans[0].peak_bytes
    found, _ = Case().trained(memory=budget, allow=["bfloat16"])
    again, _ = Case().trained(3, memory=budget, allow=["bfloat16"])
    assert bits(found) == bits(again)
    assert found[0].tobytes() == plain[0].tobytes() != b""  # the forward pass is as it was
    assert bits(found)[1:] != bits(plain)[1:]
    np.testing.assert_allclose(found[1], plain[1], rtol=0.02)


class Several:
    """Two updates in a step, the second one's forward pass by weights that the first has made."""

    def __init__(self, kind: str):
        pb.manual_seed(3)
        self.kind, self.x = kind, pb.randn(5, 64, 16)
        deep = [layer for _ in range(4) for layer in (nn.Linear(48, 48), nn.Tanh())]
        self.cell = nn.LSTMCell(16, 48) if kind == "lstm" else nn.Sequential(nn.Linear(16, 48), *deep)
        self.head = nn.Sequential(nn.Linear(48, 48), nn.GELU(), nn.Linear(48, 16))
        self.optimizer = pb.optim.SGD([*self.cell.parameters(), *self.head.parameters()], lr=0.1)

    def step(self) -> pb.Tensor:
        for number in range(2):
            loss = self._recurrent() if self.kind == "lstm" else self._penalized(number)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return loss

    def _recurrent(self) -> pb.Tensor:
        hidden = cell = pb.zeros(64, 48)
        loss = pb.zeros(())
        for x in self.x:
            hidden, cell = self.cell(x, (hidden, cell))
            loss = loss + F.mse_loss(self.head(hidden), x)
        return loss

    def _penalized(self, number: int) -> pb.Tensor:
        x = self.x.reshape(-1, 16).requires_grad_()
        made = self.head(self.cell(x))
        if number == 0:
            return F.mse_loss(made, x)
        (slope,) = pb.autograd.grad(made.sum(), x, create_graph=True)
        return made.mean() + (slope.norm(dim=1) - 1).square().mean()

    def trained(self, **budget: Any) -> tuple[list[np.ndarray], Any]:
        step = pb.compile(self.step, **budget)
        loss = step().numpy()
        return [loss, *(p.detach().numpy() for p in (*self.cell.parameters(), *self.head.parameters()))], step


@pytest.mark.parametrize("kind", ["lstm", "penalty"])
def test_activations_of_several_updates_may_wait_in_bfloat16(kind: str) -> None:
    plain, whole = Several(kind).trained()
    peak = whole.program.memory.peak

    def keep(candidate: Any) -> str:
        return "keep"

    fewest = pb.plan(Several(kind).step, memory=1, policy=keep, allow=["bfloat16"]).peak_bytes
    for budget, policy in ((int(0.8 * peak), None), ("least", None), (fewest, keep)):
        found, step = Several(kind).trained(memory=budget, policy=policy, allow=["bfloat16"])
        assert step.memory.peak_bytes == step.plan().peak_bytes <= (peak if budget == "least" else budget)
        for value, right in zip(found, plain, strict=True):
            np.testing.assert_allclose(value, right, rtol=0.02, atol=2e-3 * np.abs(right).max())
    assert step.plan().recomputed_flops == 0 and "bfloat16" in step.plan().changes


def test_a_permission_to_round_adds_no_work() -> None:
    peak = Case().peak()
    for share in (0.95, 0.85, 0.75, 0.65):
        plain, allowed = (
            pb.plan(Case().step, Case().x, memory=int(share * peak), allow=allow) for allow in ([], ["bfloat16"])
        )
        assert allowed.peak_bytes <= share * peak
        assert allowed.recomputed_flops <= plain.recomputed_flops


def test_values_wait_rounded_where_that_lowers_a_peak_and_nowhere_else() -> None:
    program = pb.plan(Several("lstm").step)._program

    def lay_out(fusion: Fusion) -> Layout:
        return Layout(fusion, program.inputs, program.aliases, program.resident, lambda _: None, True)

    fitter = Fitter(program.layout, lay_out, None)
    known = fitter.known
    values, base = narrowable(fitter.first.fusion, known), known.solver.base
    assert chosen_for(values, known, base.peak) == []
    limit = int(0.9 * base.peak)
    chosen = chosen_for(values, known, limit)
    made = {value.node: value.made for value in values}
    middle = len(base.bytes) // 2
    assert min(made[node] for node in chosen) < middle < max(made[node] for node in chosen)  # both updates' peaks
    assert Solver(in_numbers(fitter.first.fusion, known, chosen)).base.peak <= limit


def test_what_rounding_would_give_is_known_from_numbers() -> None:
    case = Case()
    program = pb.plan(case.step, case.x)._program

    def lay_out(fusion: Fusion) -> Layout:
        return Layout(fusion, program.inputs, program.aliases, program.resident, lambda _: None, True)

    fitter = Fitter(program.layout, lay_out, None)
    known, fusion = fitter.known, fitter.first.fusion
    values = [value.node for value in narrowable(fusion, known)]
    for chosen in (values[:3], values):
        numbers = Solver(in_numbers(fusion, known, chosen)).base.peak
        graph = Fitter(lay_out(narrowed(fusion, chosen)), lay_out, None).known.solver.base.peak
        assert numbers < known.solver.base.peak
        assert 0.99 * graph <= numbers <= 1.01 * graph


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_output_layer_in_blocks(reduction: str) -> None:
    pb.manual_seed(0)
    x, w, b = (
        pb.randn(512, 16, requires_grad=True),
        pb.randn(1024, 16, requires_grad=True),
        pb.zeros(1024, requires_grad=True),
    )
    target = pb.randint(0, 1024, (512,))
    target[::7] = -100

    def step() -> list[pb.Tensor]:
        logits = F.linear(x.reshape(4, 128, 16), w, b)
        loss = F.cross_entropy(logits.reshape(-1, 1024), target, reduction=reduction, label_smoothing=0.1)
        return [loss, *pb.autograd.grad(loss.sum(), [x, w, b])]

    whole = pb.compile(step)
    expected = [value.numpy() for value in whole()]
    blocks = pb.compile(step, memory=int(0.8 * whole.program.memory.peak), allow=["blocks"])
    for value, right in zip(blocks(), expected, strict=True):
        np.testing.assert_allclose(value.numpy(), right, rtol=1e-4, atol=1e-5 * max(1, np.abs(right).max()))
    assert blocks.plan().changes == {"blocks": "the output layer and its cross entropy in blocks of 128 rows"}


def test_all_permissions_together() -> None:
    peaks = [
        Case("language").peak(memory="least", allow=allow)
        for allow in ([], ["blocks"], ["early-update"], ["bfloat16"], ["blocks", "early-update", "bfloat16"])
    ]
    assert peaks[-1] == min(peaks) < peaks[0]
