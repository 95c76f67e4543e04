"""Whether a run survives: killed at random moments, and its snapshots damaged. `python -m benchmarks.kills`.

A run trains a small network (dropout, Adam, a schedule, shuffled batches) and takes a snapshot after every step. It is
killed by SIGKILL at a random moment, started again, and so on; each time that it comes to its end, its last snapshot
must be the same bytes as that of a run that nobody killed. Then the newest snapshot of a finished run is damaged in
random ways: the one before must be restored, with a warning.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import pullback as pb

_KEEP = 3


# ---- the run


class _Noisy(pb.utils.data.Dataset):
    """Examples with noise that is drawn when they are asked for, from the generators that anybody may use."""

    def __init__(self, inputs: pb.Tensor):
        self.inputs = inputs.numpy()

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        x = self.inputs[index] + 0.1 * np.random.standard_normal(16).astype(np.float32)
        return x * np.float32(random.choice((-1, 1))), x.sum(keepdims=True)


def run(directory: Path, steps: int) -> None:
    """Train to the end, from the newest snapshot in `directory` on."""
    pb.manual_seed(0)
    nn, data = pb.nn, pb.utils.data
    model = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 1))
    optimizer = pb.optim.Adam(model.parameters(), lr=0.01)
    scheduler = pb.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.9)
    inputs = pb.randn(100, 16, generator=pb.Generator(1))
    loader = data.DataLoader(_Noisy(inputs), 10, shuffle=True, generator=pb.Generator(2))
    monitor = pb.Monitor(model, optimizer, every=5)

    @pb.compile
    def train(x: pb.Tensor, y: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "loader": loader, "monitor": monitor}
    with warnings.catch_warnings():
        # a snapshot that is passed over ends the run: a kill must never damage one
        warnings.simplefilter("error")
        with pb.Checkpointer(directory, keep=_KEEP) as snapshots:
            step = snapshots.restore(**parts) or 0
            while step < steps:
                for x, y in loader:
                    loss = train(x, y)
                    scheduler.step()
                    step += 1
                    snapshots.save(step, loss=loss.item(), **parts)
                    if step == steps:
                        break


def start(directory: Path, steps: int) -> int:
    """The run in a process of its own, which has only this module imported."""
    child = os.fork()
    if not child:
        code = 1
        try:
            run(directory, steps)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def last(directory: Path, steps: int) -> bytes:
    """The last snapshot of a finished run."""
    return (directory / f"step-{steps:012d}.safetensors").read_bytes()


# ---- kills


def kill_at_random(home: Path, kills: int, steps: int, chance: random.Random) -> tuple[int, int]:
    """How many runs were brought to their ends over so many kills, and how many ended in other bytes."""
    _finish(start(home / "clean", steps))
    began = time.monotonic()
    _finish(start(home / "again", steps))
    seconds = time.monotonic() - began
    expected = last(home / "clean", steps)
    done, ended, different = 0, 0, int(last(home / "again", steps) != expected)
    while done < kills:
        directory = home / f"run-{ended}"
        while done < kills:
            fresh, began = not directory.exists(), time.monotonic()
            child = start(directory, steps)
            if _killed(child, chance.uniform(0, 1.1 * seconds)):
                done += 1
                continue
            if fresh:
                # what a run takes now, so that most moments lie within one on a machine that others use too
                seconds = time.monotonic() - began
            break
        else:
            _finish(start(directory, steps))
        left = [name for name in os.listdir(directory) if name.endswith(".tmp")]
        ended += 1
        different += bool(left) or last(directory, steps) != expected
        shutil.rmtree(directory)
    return ended, different


def _killed(child: int, after: float) -> bool:
    """Whether the child was still there to be killed after so many seconds; it must end well otherwise."""
    end = time.monotonic() + after
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            _check(status)
            return False
        time.sleep(min(0.001, max(0.0, end - time.monotonic())))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    _check(status)
    return False


def _finish(child: int) -> None:
    _check(os.waitpid(child, 0)[1])


def _check(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise RuntimeError(f"a run ended with {code}")


# ---- damage


def _truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _bit_flipped(content: bytes, chance: random.Random) -> bytes:
    changed, place = bytearray(content), chance.randrange(len(content))
    changed[place] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _header_bit_flipped(content: bytes, chance: random.Random) -> bytes:
    changed, place = bytearray(content), chance.randrange(8 + int.from_bytes(content[:8], "little"))
    changed[place] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _block_zeroed(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    size = min(chance.choice([16, 512, 4096]), len(content) - place)
    return content[:place] + bytes(size) + content[place + size :]


def _block_moved(content: bytes, chance: random.Random) -> bytes:
    place, other = (chance.randrange(len(content) - 64) for _ in range(2))
    return content[:place] + content[other : other + 64] + content[place + 64 :]


def _longer(content: bytes, chance: random.Random) -> bytes:
    return content + chance.randbytes(chance.randrange(1, 100))


def _random_bytes(content: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice([0, 1, 8, 9, 1000]))


def _length_that_lies(content: bytes, chance: random.Random) -> bytes:
    return chance.choice([0, 1, 2**31, 2**63, len(content), len(content) - 8]).to_bytes(8, "little") + content[8:]


def _foreign(content: bytes, chance: random.Random) -> bytes:
    header = chance.choice([
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"__metadata__":{"pullback":"[]"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
        b'{"../../w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b"[" * 100_000,
    ])  # fmt: skip
    return len(header).to_bytes(8, "little") + header + bytes(4)


DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [
    _truncated, _bit_flipped, _header_bit_flipped, _block_zeroed, _block_moved, _longer, _random_bytes,
    _length_that_lies, _foreign,
]  # fmt: skip


class Held:
    """A part that keeps what it is given."""

    state: Any = None

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def damage_at_random(finished: Path, damages: int, chance: random.Random) -> tuple[Counter[str], list[str]]:
    """How many damaged files of each kind were passed over for the one before, and what went otherwise."""
    with pb.Checkpointer(finished) as snapshots:
        before, newest = snapshots.steps()[-2:]
    path = finished / f"step-{newest:012d}.safetensors"
    content, passed, wrong = path.read_bytes(), Counter[str](), list[str]()
    expected = pb.load(finished / f"step-{before:012d}.safetensors")["parts"]["model"]
    while passed.total() + len(wrong) < damages:
        kind = chance.choice(DAMAGES)
        damaged = kind(content, chance)
        if damaged == content:
            continue
        path.write_bytes(damaged)
        part = Held()
        with warnings.catch_warnings(record=True) as said, pb.Checkpointer(finished) as snapshots:
            warnings.simplefilter("always")
            step = snapshots.restore(model=part)
        named = any(str(path) in str(warning.message) for warning in said)
        same = all(part.state[name].tolist() == expected[name].tolist() for name in expected)
        if (step, named, same) == (before, True, True):
            passed[kind.__name__.strip("_").replace("_", " ")] += 1
        else:
            wrong.append(f"{kind.__name__}: restored step {step}, named {named}, same {same}")
    path.write_bytes(content)
    return passed, wrong


def main() -> int:
    """Kill and damage, say what came of it; 1 where anything was lost or accepted that should not be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--damages", type=int, default=200)
    parser.add_argument("--steps", type=int, default=60, help="how many steps a run has")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and damages")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="pullback-kills-") as home:
        ended, different = kill_at_random(Path(home), options.kills, options.steps, chance)
        print(f"{options.kills} kills over {ended} runs: {different} ended in other bytes than the run without kills")
        passed, wrong = damage_at_random(Path(home) / "clean", options.damages, chance)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(passed.items()))
    print(f"{options.damages} damaged files: {len(wrong)} accepted or not named ({kinds})")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return int(bool(different or wrong))


if __name__ == "__main__":
    sys.exit(main())
