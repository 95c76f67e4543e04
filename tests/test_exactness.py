"""The same script gives the same bits: for any number of threads, with and without a budget, checkpointed calls, a
profiler, checks, and a resume in the middle.

Each case runs the same training of the same model in another manner; all losses and the whole state at the end must be
equal to the bit.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pullback as pb
from oracle import numbers
from pullback import debug
from pullback.runtime import native as programs

nn, functional = pb.nn, pb.nn.functional
STEPS, STOPPED = 6, 3


class Block(nn.Module):
    """Attention and a feed-forward network with dropout, as in a GPT; its second half checkpointed if asked."""

    def __init__(self, checkpointed: bool):
        super().__init__()
        self.checkpointed = checkpointed
        self.norm1, self.norm2 = nn.LayerNorm(48), nn.LayerNorm(48)
        self.attention = nn.MultiheadAttention(48, 4, dropout=0.1, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Dropout(0.2), nn.Linear(96, 48))

    def forward(self, x: Any) -> Any:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        if self.checkpointed:
            return pb.utils.checkpoint.checkpoint(lambda x: x + self.feed(self.norm2(x)), x, use_reentrant=False)
        return x + self.feed(self.norm2(x))


class Network(nn.Module):
    """Convolution, batch norm, a loop, attention and a tied table: what has an order of summation of its own."""

    def __init__(self, checkpointed: bool = False):
        super().__init__()
        self.table = nn.Embedding(31, 48)
        self.convolution, self.norm = nn.Conv1d(48, 48, 3, padding=1), nn.BatchNorm1d(48)
        self.loop = nn.GRU(48, 48, batch_first=True)
        self.blocks = nn.ModuleList([Block(checkpointed) for _ in range(2)])

    def forward(self, x: Any) -> Any:
        x = self.table(x)
        x = x + self.norm(self.convolution(x.transpose(1, 2))).relu().transpose(1, 2)
        x = x + self.loop(x)[0]
        for block in self.blocks:
            x = block(x)
        return x @ self.table.weight.T


class Run:
    """A training that can be stopped and gone on with."""

    def __init__(self, checkpointed: bool = False, clipped: bool = True, **options: Any):
        pb.manual_seed(11)
        self.model = Network(checkpointed)
        self.optimizer = pb.optim.AdamW(self.model.parameters(), lr=3e-3)
        self.scheduler = pb.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, STEPS)
        self.losses: list[bytes] = []

        @pb.compile(**options)
        def step(x: Any, y: Any) -> Any:
            self.optimizer.zero_grad()
            loss = functional.cross_entropy(self.model(x).flatten(0, 1), y.flatten())
            loss.backward()
            if clipped:
                nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
            self.optimizer.step()
            return loss

        self.step = step

    def go(self, first: int, last: int, around: Callable[[], Any] = nullcontext) -> None:
        """The steps from `first` on, up to `last`."""
        for number in range(first, last):
            data = np.random.default_rng(number).integers(0, 31, (2, 4, 24))
            with around():
                self.losses.append(numbers(self.step(pb.tensor(data[0]), pb.tensor(data[1])).detach()).tobytes())
            self.scheduler.step()

    def bits(self) -> list[bytes]:
        """The losses and the state at the end."""
        kept = (value for state in self.optimizer.state.values() for value in state.values())
        tensors = [*self.model.parameters(), *self.model.buffers(), *kept, pb.get_rng_state()]
        return [*self.losses, *(numbers(tensor.detach()).tobytes() for tensor in tensors)]


@pytest.fixture(scope="module")
def plain() -> list[bytes]:
    with debug.override(num_threads=1):
        run = Run()
        run.go(0, STEPS)
    assert len(set(run.losses)) == STEPS, "the losses of different steps are the same"
    return run.bits()


def _trained(around: Callable[[], Any] = nullcontext, threads: int = 2, **options: Any) -> list[bytes]:
    with debug.override(num_threads=threads):
        run = Run(**options)
        run.go(0, STEPS, around)
    return run.bits()


def _differences(found: list[bytes], plain: list[bytes]) -> list[int]:
    assert len(found) == len(plain)
    return [place for place, (a, b) in enumerate(zip(found, plain, strict=True)) if a != b]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(threads: int, plain: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_SMALL_WORK", -np.inf)
    monkeypatch.setattr(programs, "_TRIED_WORK", -np.inf)
    assert not _differences(_trained(threads=threads), plain)


@pytest.mark.parametrize("part", [0.95, 0.8, 0.65])
def test_budgets(part: float, plain: list[bytes]) -> None:
    with debug.override(num_threads=2):
        run = Run()
        x = pb.zeros(4, 24, dtype=pb.int64)
        peak, least = (
            run.step.plan(x, x).peak_bytes,
            pb.compile(run.step.function, memory="least").plan(x, x).peak_bytes,
        )
    assert not _differences(_trained(memory=max(int(part * peak), least)), plain)


def test_the_least_memory(plain: list[bytes]) -> None:
    assert not _differences(_trained(memory="least"), plain)


def test_checkpointed_calls(plain: list[bytes]) -> None:
    assert not _differences(_trained(checkpointed=True), plain)


def test_updates_as_soon_as_gradients_are_there() -> None:
    plain = _trained(clipped=False)
    assert not _differences(_trained(clipped=False, memory="least", allow=["early-update"]), plain)


def test_a_profiler(plain: list[bytes]) -> None:
    assert not _differences(_trained(around=pb.profile), plain)


@pytest.mark.parametrize("every", [1, 4])
def test_a_monitor(every: int, plain: list[bytes]) -> None:
    with debug.override(num_threads=2):
        run = Run()
        with pb.Monitor(run.model, run.optimizer, every=every) as monitor:
            run.go(0, STEPS)
    assert monitor.steps == STEPS and monitor.records
    assert not _differences(run.bits(), plain)


def test_checks(plain: list[bytes]) -> None:
    assert not _differences(_trained(check_every=4), plain)


@pytest.mark.parametrize("what", ["ignore", "skip"])
def test_what_is_done_about_infinities(what: str, plain: list[bytes]) -> None:
    assert not _differences(_trained(on_nonfinite=what), plain)


def _parts(run: Run) -> dict[str, Any]:
    return {"model": run.model, "optimizer": run.optimizer, "scheduler": run.scheduler}


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    with debug.override(num_threads=2), pb.Checkpointer(tmp_path / "run") as snapshots:
        run = Run()
        run.go(0, STOPPED)
        snapshots.save(STOPPED, losses=run.losses, **_parts(run))
    return tmp_path / "run"


@pytest.mark.parametrize("options", [{}, {"memory": "least"}, {"checkpointed": True}], ids=str)
def test_a_resume(options: dict[str, Any], stopped: Path, plain: list[bytes]) -> None:
    with debug.override(num_threads=1), pb.Checkpointer(stopped) as snapshots:
        run = Run(**options)
        pb.manual_seed(99)
        assert snapshots.restore(**_parts(run)) == STOPPED
        run.losses = list(snapshots.values["losses"])
        run.go(STOPPED, STEPS)
    assert not _differences(run.bits(), plain)
