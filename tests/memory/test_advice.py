"""What an error says of changes that no step keeps to its budget with, and that it is not searched for twice."""

import re
from collections.abc import Callable

import pytest

import pullback as pb
from pullback import nn
from pullback.compiler.retention import Solver
from pullback.errors import MemoryBudgetError
from pullback.memory import Plan
from pullback.memory.savings import RANK, forms
from pullback.memory.sizes import format_bytes
from pullback.tracing import ways

pytestmark = pytest.mark.native("the reference has no arena")


def steps() -> tuple[Callable[[int], Callable[[pb.Tensor], pb.Tensor]], pb.Tensor]:
    """Steps by how many parts the batch is divided into, and a batch."""
    model = nn.Sequential(*[layer for _ in range(2) for layer in (nn.Linear(24, 24), nn.Tanh())])

    def in_parts(parts: int) -> Callable[[pb.Tensor], pb.Tensor]:
        optimizer = pb.optim.SGD(model.parameters(), lr=0.1)

        def step(x: pb.Tensor) -> pb.Tensor:
            optimizer.zero_grad()
            if parts > 1:
                loss = pb.accumulate(lambda part: model(part).square().mean(), x, parts=parts)
            else:
                loss = model(x).square().mean()
                loss.backward()
            optimizer.step()
            return loss

        return step

    return in_parts, pb.zeros(64, 24)


def test_where_no_change_is_enough_the_best_together_are_told() -> None:
    """Each with its bytes, as plans under the same budget have them; parts with what is computed again in them."""
    in_parts, x = steps()
    budget = 12_000
    with pytest.raises(MemoryBudgetError) as caught:
        pb.compile(in_parts(1), memory=budget)(x)
    words = str(caught.value)
    divided = re.search(r"micro-batches: .*parts=(\d+)\): (\d+) bytes", words)
    together = re.search(r"together: allow=\[(.*)\], with .*parts=(\d+)\): (\d+) bytes", words)
    assert divided is not None and together is not None and "not looked at" not in words
    parts, peak = map(int, divided.groups())
    assert pb.plan(in_parts(parts), x, memory=budget).peak_bytes == peak > budget
    assert peak <= pb.plan(in_parts(2), x, memory=budget).peak_bytes
    allow = [name.strip("'") for name in together[1].split(", ")]
    assert pb.plan(in_parts(int(together[2])), x, memory=budget, allow=allow).peak_bytes == int(together[3]) < peak
    alone = re.search(r"allow=\['early-update'\]: (\d+) bytes", words)
    assert alone is not None and int(together[3]) < int(alone[1])


def test_an_output_layer_in_blocks_is_told_of_together_with_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own backward passes, block by block, are not the step's."""
    monkeypatch.setattr(ways, "_MANY_NODES", 0)
    model, x, target = nn.Linear(8, 2048), pb.zeros(1024, 8), pb.zeros(1024, dtype=pb.int64)

    def loss_of(batch: tuple[pb.Tensor, pb.Tensor]) -> pb.Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def step(x: pb.Tensor, target: pb.Tensor) -> None:
        model.zero_grad()
        loss_of((x, target)).backward()

    def in_parts(x: pb.Tensor, target: pb.Tensor) -> None:
        model.zero_grad()
        pb.accumulate(loss_of, (x, target), parts=parts)

    budget = 400_000
    with pytest.raises(MemoryBudgetError) as caught:
        pb.compile(step, memory=budget)(x, target)
    together = re.search(r"together: allow=\['blocks'\], with .*parts=(\d+)\): (\d+) bytes", str(caught.value))
    assert together is not None
    parts = int(together[1])
    planned = pb.plan(in_parts, x, target, memory=budget, allow=["blocks"])
    assert planned.peak_bytes == int(together[2]) and "blocks" in planned.changes


def test_what_a_policy_costs_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "_MANY_NODES", 0)
    in_parts, x = steps()
    less = pb.plan(in_parts(1), x, memory=1).peak_bytes  # the fewest that are found
    with pytest.raises(MemoryBudgetError) as caught:
        pb.compile(in_parts(1), memory=less, policy=lambda candidate: "keep")(x)
    planned = pb.plan(in_parts(1), x, memory=less).peak_bytes
    assert caught.value.least > planned
    _, _, advice = str(caught.value).partition("what would bring it down:\n  - ")
    assert advice.startswith(f"without the policy: {planned} bytes")


def test_changes_for_which_there_is_no_time_are_said_not_to_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    in_parts, x = steps()
    monkeypatch.setattr(ways, "_SECONDS", 0.0)
    with pytest.raises(MemoryBudgetError, match="were not looked at") as caught:
        pb.compile(in_parts(1), memory=12_000)(x)
    assert "allow=" not in str(caught.value) and "an optimizer" not in str(caught.value)


def test_mixed_precision_is_proposed_with_the_peak_that_it_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "_MANY_NODES", 0)  # so that few numbers of parts are tried
    model, x = nn.Sequential(nn.Linear(8, 48), nn.Linear(48, 8)), pb.zeros(96, 8)
    calls: list[bool] = []

    def step(x: pb.Tensor, strict: bool = False) -> pb.Tensor:
        calls.append(pb.is_autocast_enabled())
        model.zero_grad()
        y = model(x)
        assert not strict or y.dtype is pb.float32
        loss = y.square().mean()
        loss.backward()
        return loss

    def said(*args: object) -> re.Match[str] | None:
        with pytest.raises(MemoryBudgetError) as caught:
            pb.compile(step, memory=12_000)(*args)
        return re.search(r"mixed precision: .* region of (pullback\.autocast.*): (\d+) bytes", str(caught.value))

    found = said(x)
    assert found is not None and set(calls) == {False, True}
    with pb.autocast("cpu", dtype=pb.bfloat16):
        assert found[1] == 'pullback.autocast("cpu", dtype=pullback.bfloat16)'
        assert pb.plan(step, x, memory=12_000).peak_bytes == int(found[2])
        assert said(x) is None
    with pytest.raises(MemoryBudgetError, match="what mixed precision would bring cannot be told: it raises Assertion"):
        pb.compile(step, memory=12_000)(x, True)
    assert not pb.is_autocast_enabled()
    assert all(p.dtype is pb.float32 and p.grad is None for p in model.parameters())


def test_a_step_is_looked_at_by_its_own_operations_and_one_of_too_many_is_said_not_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not by what the refused program computes again."""
    model, x = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(8, 8), nn.GELU())]), pb.zeros(512, 8)

    def step(x: pb.Tensor) -> pb.Tensor:
        model.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    own = len(pb.plan(step, x).nodes())
    assert len(pb.plan(step, x, memory=20_000).nodes()) > own
    monkeypatch.setattr(ways, "_SECONDS", 0.0)
    for most, said in ((own, "several together, were not looked at"), (own - 1, f"the step has {own} operations")):
        monkeypatch.setattr(ways, "_FEW_NODES", most)
        with pytest.raises(MemoryBudgetError, match=said):
            pb.compile(step, memory=20_000)(x)


def test_nothing_beside_state_and_inputs_is_looked_at_where_these_alone_are_too_much() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
    optimizer = pb.optim.Adam(model.parameters())
    calls: list[int] = []

    @pb.compile(memory=60_000)
    def step(x: pb.Tensor) -> None:
        calls.append(1)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    with pytest.raises(MemoryBudgetError, match=r"state and inputs alone are 11\d KiB: what allow=, micro-") as caught:
        step(pb.zeros(64, 64))
    assert "moments in 8 bits" in str(caught.value) and len(calls) == 1


def test_weights_under_adapters_are_what_codes_would_save_and_adapters_are_not() -> None:
    def said(quantized: bool, adapted: bool) -> tuple[str, int, int]:
        model = nn.Sequential(nn.Linear(96, 96), nn.Tanh(), nn.Linear(96, 96))
        if quantized:
            nn.utils.quantize_model(model)
        if adapted:
            pb.lora.apply(model, 4, 8, "all-linear")
        model.append(nn.Linear(96, 96, bias=False))  # trained, beside adapters or not

        def step(x: pb.Tensor) -> pb.Tensor:
            model.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            return loss

        with pytest.raises(MemoryBudgetError) as caught:
            pb.compile(step, memory=1)(pb.zeros(2, 96))
        held = [p for p in [*model.parameters(), *model.buffers()] if p.ndim == 2]
        fixed = sum(p.nbytes for p in held if not p.requires_grad)
        return str(caught.value), fixed, sum(p.nbytes for p in held)

    words, fixed, _ = said(False, True)
    codes = 2 * (96 * 96 // 2 + 144 + 4 + 4)
    assert fixed == 2 * 96 * 96 * 4
    assert f"their weights are {format_bytes(fixed)}, and would be {format_bytes(codes)}" in words
    assert "skip=[…] of those that are trained" in words and "their weights, gradients" not in words
    assert "in 4 bits" not in said(True, True)[0]
    words, _, all_of_them = said(False, False)
    # adapters of rank 16 with their gradients; there is no optimizer here
    coded = 3 * codes // 2 + 2 * 3 * 16 * (96 + 96) * 4
    assert f"are {format_bytes(2 * all_of_them)}, and would be {format_bytes(coded)}" in words


def test_other_forms_of_state_take_what_a_step_with_them_holds() -> None:
    def planned(make: Callable[..., pb.optim.Optimizer], change: Callable[[nn.Module], object] = id) -> Plan:
        layers = nn.Linear(96, 80), nn.BatchNorm1d(80), nn.Tanh(), nn.Linear(80, 96, bias=False)
        model = nn.Sequential(nn.Embedding(40, 96), *layers, nn.Linear(96, 40, bias=False))
        model[5].weight = model[0].weight  # stays as it is
        change(model)
        optimizer = make([p for p in model.parameters() if p.requires_grad])

        def step(x: pb.Tensor) -> pb.Tensor:
            optimizer.zero_grad()
            loss = model(x).float().square().mean()
            loss.backward()
            optimizer.step()
            return loss

        return pb.plan(step, pb.zeros(8, dtype=pb.int64))

    def adapt(model: nn.Module) -> None:
        nn.utils.quantize_model(model)
        pb.lora.apply(model, RANK, 2 * RANK, ["1", "4"])

    plain = planned(pb.optim.AdamW)
    expected = {
        "model.to(bfloat16)": planned(pb.optim.AdamW, lambda model: model.to(pb.bfloat16)),
        "quantize_model": planned(pb.optim.AdamW, adapt),
        "moments in 8 bits": planned(pb.optim.AdamW8bit),
        "both of Adam's moments": planned(pb.optim.AdamW4bit),
        "factored": planned(pb.optim.Adafactor),
    }
    found = forms(plain)
    assert len(found) == 2 + 3 + 3, found
    for form in found:
        (plan,) = (plan for start, plan in expected.items() if form.technique.startswith(start))
        assert form.nbytes == sum(b.nbytes for b in plan.buffers if b.role == form.role), form
    # of a state with sizes of its own nothing is said for adapters
    assert not [f for f in forms(expected["factored"]) if f.role == "optimizer" and "lora" in f.technique]


def test_a_problem_is_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a plan, for the step that follows."""
    in_parts, x = steps()
    planned = pb.plan(in_parts(1), x, memory="least").peak_bytes

    def solve(*args: object) -> None:
        raise AssertionError("searched for once more")

    monkeypatch.setattr(Solver, "_solve", solve)
    assert pb.plan(in_parts(1), x, memory="least").peak_bytes == planned


def test_the_fewest_bytes_of_a_step_with_many_values_are_no_more_than_the_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pullback.runtime.fit._FEW_VALUES", 0)  # this one would not be taken for a large one
    words, scores = nn.Embedding(1000, 32), nn.Linear(32, 1000, bias=False)
    layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True, norm_first=True)
    scores.weight = words.weight
    model, batch = nn.Sequential(words, layer, scores), (pb.zeros(8, 24, dtype=pb.int64),) * 2

    def loss_fn(batch: tuple[pb.Tensor, pb.Tensor]) -> pb.Tensor:
        return nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    def step(*batch: pb.Tensor) -> None:
        model.zero_grad()
        pb.accumulate(loss_fn, batch, parts=8)

    fewest = pb.plan(step, *batch, memory=1).peak_bytes
    assert fewest <= pb.plan(step, *batch, memory="least").peak_bytes
    assert pb.plan(step, *batch, memory=fewest).peak_bytes <= fewest
