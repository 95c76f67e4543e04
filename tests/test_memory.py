"""Memory: places in the arena held against an independent checker, and steps that leave nothing behind."""

from __future__ import annotations

import gc
import itertools
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pullback as pb
from benchmarks import workloads
from pullback.compiler.place import ALIGNMENT, Placement, Request, place
from pullback.runtime.buffers import live_bytes

#: what a process may grow by for the allocator's own sake
RESIDENT_SLACK = 4 << 20
STEPS = {"compiled": 1000, "undecorated": 200}


# ---- the arena


def check(requests: list[Request], placement: Placement) -> None:
    """Assert that a placement is right, step by step: what is alive at a step lies aligned, apart, and in the arena."""
    assert len(placement.offsets) == len(requests)
    for step in range(max((r.last for r in requests), default=-1) + 1):
        alive = sorted(
            (o, o + r.nbytes) for o, r in zip(placement.offsets, requests, strict=True) if r.first <= step <= r.last
        )
        for start, end in alive:
            assert start >= 0 and start % ALIGNMENT == 0 and end <= placement.nbytes
        for (_, end), (start, _) in itertools.pairwise(alive):
            assert end <= start, f"two values share bytes {start} to {end} at step {step}"


def aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def live_sums(requests: list[Request]) -> list[int]:
    """The bytes alive at each step, each value rounded up to whole cache lines."""
    steps = range(max((r.last for r in requests), default=-1) + 1)
    return [sum(aligned(r.nbytes) for r in requests if r.first <= step <= r.last) for step in steps]


@st.composite
def request(draw: st.DrawFn) -> Request:
    first = draw(st.integers(0, 20))
    return Request(
        draw(st.one_of(st.integers(1, 300), st.integers(1, 1 << 24))), first, first + draw(st.integers(0, 20))
    )


@pytest.mark.parametrize("many", [0, 10**6], ids=["by time", "by size"])
@given(requests=st.lists(request(), max_size=40))
def test_places_do_not_overlap(many: int, requests: list[Request]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pullback.compiler.place._MANY", many)
        placement = place(requests)
        assert placement == place(requests)
    check(requests, placement)
    assert placement.nbytes >= max(live_sums(requests), default=0)
    assert placement.nbytes <= sum(aligned(r.nbytes) for r in requests)


def test_a_long_list_is_placed_well() -> None:
    """A deep network: what is kept to the backward pass, and what is passed on at once."""
    depth = 2000
    kept = [Request(4096, i, 2 * depth - i) for i in range(depth)]
    passed = [Request(1000 + i % 7 * 512, i, i + 1) for i in range(2 * depth)]
    placement = place(kept + passed)
    check((kept + passed)[::97], placement._replace(offsets=placement.offsets[::97]))
    assert placement.nbytes <= 1.05 * max(live_sums(kept + passed)[depth - 2 : depth + 2])


@given(st.lists(st.integers(1, 10000), max_size=20))
def test_values_in_a_row_share_one_place(sizes: list[int]) -> None:
    requests = [Request(nbytes, step, step) for step, nbytes in enumerate(sizes)]
    assert place(requests).nbytes == max(live_sums(requests), default=0)


@pytest.mark.parametrize("seed", [3, 4, 8, 11, 13])
def test_what_lies_too_high_is_placed_earlier(seed: int) -> None:
    """Largest first takes some hundredths more than what lives at once here."""
    rng = np.random.default_rng(seed)
    sizes, first, life = rng.integers(1, 400, 60) * ALIGNMENT, rng.integers(0, 40, 60), rng.integers(0, 15, 60)
    requests = [Request(*map(int, each)) for each in zip(sizes, first, first + life, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pullback.compiler.place._FEW", 0)
        before = place(requests).nbytes
    placement = place(requests)
    check(requests, placement)
    assert placement.nbytes < before - (before - max(live_sums(requests))) / 3


def test_the_checker_finds_faults() -> None:
    requests = [Request(100, 0, 1), Request(100, 1, 2)]
    check(requests, Placement([0, 128], 256))
    for wrong in (
        Placement([0, 64], 256),
        Placement([0, 128], 200),
        Placement([0, 130], 256),
        Placement([-64, 128], 256),
    ):
        with pytest.raises(AssertionError):
            check(requests, wrong)


def test_a_row_is_written_over_the_one_it_is_made_from() -> None:
    """Between two products, softmax needs no memory of its own: nobody reads the scores after it."""
    x, w, v = pb.randn(64, 8), pb.randn(8, 1024), pb.randn(1024, 8)

    def attended(scores: pb.Tensor) -> pb.Tensor:
        return scores.softmax(-1) @ v

    @pb.compile
    def step() -> pb.Tensor:
        return attended(x @ w)

    @pb.compile
    def keeping() -> pb.Tensor:
        scores = x @ w
        return attended(scores) + scores[3, 5]

    scores = 64 * 1024 * 4
    found, kept = step().numpy(), keeping().numpy()
    assert step.program.memory.arena - keeping.program.memory.arena <= -scores
    one = (x.numpy() @ w.numpy())[3, 5]
    np.testing.assert_allclose(found, kept - one, atol=1e-5)


# ---- what a program says it needs


def test_memory_is_known() -> None:
    workload = workloads.build(pb, "mlp")
    step = pb.compile(workload.step)
    step()
    memory = step.program.memory
    parameters = sum(p.numel() for p in workload.model.parameters()) * 4
    data = (32 * 128) * 4 + 32 * 8
    assert memory.total == memory.arena + memory.inputs + memory.outputs
    # parameters and two averages in; those and the loss out; gradients stay in the arena
    assert 3 * parameters + data <= memory.inputs <= 3 * parameters + data + 1024
    assert 3 * parameters <= memory.outputs <= 3 * parameters + 1024
    assert memory.arena >= parameters
    before = memory
    step()
    assert step.program.memory == before


def test_the_arena_is_smaller_than_all_temporaries() -> None:
    def chain(length: int) -> int:
        x, w = pb.randn(64, 256), pb.randn(256, 256)

        @pb.compile
        def run() -> pb.Tensor:
            y = x
            for _ in range(length):
                y = (y @ w).softmax(-1)
            return y.sum()

        run()
        return run.program.memory.arena

    assert chain(24) == chain(12)


# ---- nothing grows


def resident_bytes() -> int:
    """The memory of this process that is in use now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(run: Callable[[], Any], steps: int) -> tuple[int, int, int]:
    """Bytes of buffers, Python objects, and resident bytes that `steps` more runs leave behind."""
    for _ in range(2):  # tuples are no longer counted once a collection has found nothing in them to follow
        for _ in range(20):
            run()
        gc.collect()
    # the list of all objects is itself some megabytes, and stands outside of what is measured
    buffers, objects, resident = live_bytes(), len(gc.get_objects()), resident_bytes()
    for _ in range(steps):
        run()
    gc.collect()
    resident = resident_bytes() - resident
    return live_bytes() - buffers, len(gc.get_objects()) - objects, resident


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize("kind", STEPS)
def test_steps_leave_nothing_behind(kind: str) -> None:
    workload = workloads.build(pb, "mlp")
    step = pb.compile(workload.step) if kind == "compiled" else workload.step
    buffers, objects, resident = growth(lambda: step().item(), STEPS[kind])
    assert buffers == 0
    assert abs(objects) <= 20
    assert resident <= RESIDENT_SLACK


@pytest.mark.parametrize("kind", STEPS)
def test_a_kept_loss_keeps_itself_alone(kind: str) -> None:
    workload = workloads.build(pb, "mlp")
    step = pb.compile(workload.step) if kind == "compiled" else workload.step
    losses: list[pb.Tensor] = []
    buffers, objects, resident = growth(lambda: losses.append(step()), STEPS[kind])
    # a loss of four bytes, and a handful of objects for it: no graph, no parameter
    assert buffers <= 4 * STEPS[kind] + 4096
    assert objects <= 12 * STEPS[kind]
    assert resident <= RESIDENT_SLACK + 4096 * STEPS[kind]


@pytest.mark.parametrize("kind", STEPS)
def test_old_parameters_are_let_go(kind: str) -> None:
    workload = workloads.build(pb, "mlp")
    step = pb.compile(workload.step) if kind == "compiled" else workload.step
    step(), step()
    weight = next(iter(workload.model.parameters()))
    seen = []
    for _ in range(5):
        seen.append(weakref.ref(weight._buffer()))
        loss = step()
    gc.collect()
    alive = {id(buffer) for entry in seen if (buffer := entry()) is not None}
    assert alive <= {id(weight._buffer())}, "an old value of a parameter is still alive"
    assert loss.numel() == 1


def test_a_value_that_is_held_stays_as_it_was() -> None:
    workload = workloads.build(pb, "mlp")
    step = pb.compile(workload.step)
    step()
    weight = next(iter(workload.model.parameters()))
    view, copied = weight.detach(), weight.detach().clone()
    kept = view.numpy()
    before = kept.copy()
    for _ in range(3):
        step()
    assert (kept == before).all() and (copied.numpy() == before).all()
    # a view is no value that is held: it follows, whether it was looked at before or not
    assert (view.numpy() != before).any() and (view.numpy() == weight.detach().numpy()).all()
    assert (weight.detach().numpy() != before).any()
