"""`Checkpointer`: the newest whole snapshot, one process at a time, and nothing lost by what goes wrong."""

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pullback as pb
from pullback.errors import SnapshotError, SnapshotLockError, StateDictError
from pullback.snapshots import checkpointer as module


def names(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name != ".lock")


def path(directory: Path, step: int) -> Path:
    return directory / f"step-{step:012d}.safetensors"


class Part:
    """Something with a state."""

    def __init__(self, state: Any = None):
        self.state = state

    def state_dict(self) -> Any:
        return {"held": self.state}

    def load_state_dict(self, state: Any) -> None:
        self.state = state["held"]


def test_the_parts_of_a_run_come_back(tmp_path: Path) -> None:
    generators = pb.Generator(1), np.random.default_rng(2), random.Random(3)
    model, part = pb.nn.Linear(2, 2), Part((1, pb.ones(2).bfloat16()))
    with pb.Checkpointer(tmp_path / "a" / "b") as snapshots:
        assert snapshots.restore(model=model) is None
        pb.manual_seed(4)
        pb.rand(1)
        snapshots.save(
            7, model=model, part=part, a=generators[0], b=generators[1], c=generators[2], best=1.5, nothing=None
        )
        expected = [pb.rand(3).tolist(), pb.rand(3, generator=generators[0]).tolist()]
        expected += [generators[1].random(), generators[2].random()]
    others = pb.Generator(5), np.random.default_rng(6), random.Random(7)
    other, empty = pb.nn.Linear(2, 2), Part()
    with pb.Checkpointer(tmp_path / "a" / "b") as snapshots:
        found = snapshots.restore(model=other, part=empty, a=others[0], b=others[1], c=others[2], scheduler=None)
        assert (found, snapshots.values) == (7, {"best": 1.5, "nothing": None})
    drawn = [pb.rand(3).tolist(), pb.rand(3, generator=others[0]).tolist(), others[1].random(), others[2].random()]
    assert drawn == expected
    assert other.weight.tolist() == model.weight.tolist()
    assert (empty.state[0], empty.state[1].dtype) == (1, pb.bfloat16)


def test_values_are_those_of_the_moment_of_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let = threading.Event()
    write = module.write
    monkeypatch.setattr(module, "write", lambda *a: (let.wait(10), write(*a)))
    weight, array = pb.nn.Parameter(pb.ones(3)), np.ones(3)

    @pb.compile
    def step() -> None:
        with pb.no_grad():
            weight.add_(1)

    step()
    part = Part([weight, array])
    with pb.Checkpointer(tmp_path) as snapshots:
        snapshots.save(1, part=part)
        step(), step()
        array += 5
        let.set()
        snapshots.wait()
        snapshots.restore(part=part)
    assert [part.state[0].tolist(), part.state[1].tolist()] == [[2, 2, 2], [1, 1, 1]]


def test_the_newest_are_kept_and_only_turns_are_taken(tmp_path: Path) -> None:
    with pb.Checkpointer(tmp_path, keep=2, every=3) as snapshots:
        assert [snapshots.save(step, value=step) for step in range(1, 11)] == [step % 3 == 0 for step in range(1, 11)]
        assert snapshots.save(11, force=True)
    assert names(tmp_path) == [path(tmp_path, 9).name, path(tmp_path, 11).name]


def test_the_one_before_is_taken_where_the_newest_is_damaged(tmp_path: Path) -> None:
    with pb.Checkpointer(tmp_path) as snapshots:
        for step in (1, 2, 3):
            snapshots.save(step, part=Part(step))
    path(tmp_path, 3).write_bytes(path(tmp_path, 3).read_bytes()[:-1])
    path(tmp_path, 2).unlink()
    path(tmp_path, 2).symlink_to(path(tmp_path, 1))
    part = Part()
    with pb.Checkpointer(tmp_path) as snapshots:
        with pytest.warns(UserWarning) as warned:
            assert snapshots.restore(part=part) == 1
        said = [str(warning.message) for warning in warned]
        assert said[0].startswith(f"{path(tmp_path, 3)}: its tensors have")
        assert said[1] == (
            f"{path(tmp_path, 2)}: it is a symbolic link, which is not followed here; "
            "the snapshot of step 1 is used instead"
        )
        assert [warning.filename for warning in warned] == [__file__] * 2
        snapshots.save(2, part=Part("again"))
    assert part.state == 1
    assert names(tmp_path) == [path(tmp_path, 1).name, path(tmp_path, 2).name]
    assert not path(tmp_path, 2).is_symlink()


def test_foreign_files_are_no_snapshots(tmp_path: Path) -> None:
    pb.save({"weight": pb.ones(1)}, path(tmp_path, 5))
    with pb.Checkpointer(tmp_path / "other") as other:
        other.save(3, part=Part())
    path(tmp_path / "other", 3).rename(path(tmp_path, 4))
    path(tmp_path, 3).mkdir()
    (tmp_path / "step-6.safetensors").write_text("not a name that is given")
    with pb.Checkpointer(tmp_path) as snapshots:
        assert snapshots.steps() == [3, 4, 5]
        with pytest.raises(SnapshotError, match="none of its 3 snapshots is whole") as caught:
            snapshots.restore(part=Part())
    for fault in ("not written by a Checkpointer", "step 3 under another name", "no regular file"):
        assert fault in str(caught.value)


def test_what_does_not_fit_is_refused_before_anything_changes(tmp_path: Path) -> None:
    part, generator = Part(1), pb.Generator(1)
    with pb.Checkpointer(tmp_path) as snapshots:
        snapshots.save(1, part=Part(2), number=3)
        with pytest.raises(SnapshotError, match="has no part 'scaler'; it has part, number"):
            snapshots.restore(part=part, scaler=Part())
        with pytest.raises(TypeError, match=r"number is a plain value, which is in Checkpointer\.values"):
            snapshots.restore(part=part, number=0)
        with pytest.raises(SnapshotError, match="'part' is a state_dict, not a generator"):
            snapshots.restore(part=generator)
        with pytest.raises(TypeError, match=r"parts\.f cannot be saved"):
            snapshots.save(2, f=lambda: 0)
        with pytest.raises(SnapshotError, match=r"no snapshot of step 9, only of \[1\]"):
            snapshots.restore(step=9)
    assert part.state == 1


class Choosy(Part):
    """Takes what it is given, and then finds that it does not like it."""

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        if state["held"] == "bad":
            raise ValueError("not this one")


def test_all_parts_are_as_before_where_one_refuses_its_state(tmp_path: Path) -> None:
    def made(trained: bool, state: str) -> dict[str, Any]:
        model = pb.nn.Sequential(pb.nn.Linear(2, 2), pb.nn.BatchNorm1d(2))
        optimizer = pb.optim.Adam(model.parameters(), lr=0.5 if trained else 0.1)
        parts = {"model": model, "optimizer": optimizer, "generator": pb.Generator(int(trained)), "last": Choosy(state)}
        if trained:
            model(pb.randn(4, 2)).square().sum().backward()
            optimizer.step()
        return parts

    def states(parts: dict[str, Any]) -> str:
        given = [parts["generator"].get_state().tolist(), parts["last"].state, pb.get_rng_state().tolist()]
        given += [value.tolist() for value in parts["model"].state_dict().values()]
        kept = parts["optimizer"].state_dict()
        given += [{name: t.tolist() for name, t in held.items()} for held in kept["state"].values()]
        return repr([*given, kept["param_groups"]])

    with pb.Checkpointer(tmp_path) as snapshots:
        snapshots.save(1, **made(True, "bad"))
        for trained in (False, True):
            parts = made(trained, "good")
            before = states(parts)
            with pytest.raises(ValueError, match="not this one"):
                snapshots.restore(**parts)
            assert states(parts) == before


class Stubborn(Part):
    """It takes no state at all, its own neither."""

    def load_state_dict(self, state: Any) -> None:
        raise KeyError("newer")


def test_a_part_that_refuses_its_own_state_too_does_not_keep_the_others_from_theirs(tmp_path: Path) -> None:
    model, generator = pb.nn.Linear(2, 2), pb.Generator(1)
    with pb.Checkpointer(tmp_path) as snapshots:
        snapshots.save(1, model=model, generator=generator, part=Stubborn())
        with pb.no_grad():
            model.weight.add_(1.0)
        pb.rand(1, generator=generator)
        before = model.weight.tolist(), generator.get_state().tolist()
        with pytest.raises(KeyError, match="newer") as caught:
            snapshots.restore(model=model, generator=generator, part=Stubborn())
    assert (model.weight.tolist(), generator.get_state().tolist()) == before
    assert "has not taken its own state back: KeyError" in caught.value.__notes__[0]


def test_a_generator_of_another_kind_is_told(tmp_path: Path) -> None:
    with pb.Checkpointer(tmp_path) as snapshots:
        snapshots.save(1, numbers=np.random.Generator(np.random.MT19937(1)))
        with pytest.raises(StateDictError, match="made of MT19937, and this one is made of PCG64"):
            snapshots.restore(numbers=np.random.default_rng(1))


def test_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    with pb.Checkpointer(tmp_path / "run") as snapshots:
        snapshots.save(1, value=1)
        snapshots.wait()
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        for call in (snapshots.steps, snapshots.restore, lambda: snapshots.save(2, value=2)):
            with pytest.raises(SnapshotError, match="it is gone: it was removed, or renamed"):
                call()


def test_a_directory_that_another_run_has_made_anew_is_left_alone(tmp_path: Path) -> None:
    with pb.Checkpointer(tmp_path / "run", keep=1) as snapshots:
        snapshots.save(1, value=1)
        snapshots.wait()
        shutil.rmtree(tmp_path / "run")
        with pb.Checkpointer(tmp_path / "run") as others:
            others.save(1, value="another's")
            others.wait()
            for call in (snapshots.steps, snapshots.restore, lambda: snapshots.save(2, value=2)):
                with pytest.raises(SnapshotError, match="another one is there now, which is not this one's"):
                    call()
            assert others.restore() == 1 and others.values == {"value": "another's"}


def test_threads_save_one_after_another(tmp_path: Path) -> None:
    taken: list[bool] = []
    with pb.Checkpointer(tmp_path, keep=10) as snapshots:
        threads = [threading.Thread(target=lambda: taken.append(snapshots.save(5, value=1))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert taken == [True] * 6 and names(tmp_path) == [path(tmp_path, 5).name]


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SnapshotError, match="it is a file, and no directory"):
        pb.Checkpointer(tmp_path / "file")
    with pytest.raises(TypeError, match="dir must be a path, got int"):
        pb.Checkpointer(3)  # type: ignore[arg-type]


def test_a_run_that_starts_anew_does_not_push_out_another(tmp_path: Path) -> None:
    with pb.Checkpointer(tmp_path, keep=1) as snapshots:
        snapshots.save(100)
    with pb.Checkpointer(tmp_path, keep=1) as snapshots:
        with pytest.raises(SnapshotError, match=r"later step 100: restore\(\) it first"):
            snapshots.save(1)
        assert snapshots.restore() == 100
        with pytest.raises(SnapshotError, match=r"restore\(step=…\) an earlier one"):
            snapshots.save(50)
    assert names(tmp_path) == [path(tmp_path, 100).name]


def test_a_run_goes_back_and_on(tmp_path: Path) -> None:
    with pb.Checkpointer(tmp_path) as snapshots:
        for step in (1, 2, 3):
            snapshots.save(step)
        assert snapshots.restore(step=1) == 1
        snapshots.save(2)
        snapshots.wait()
        assert snapshots.steps() == [1, 2]


# ---- what goes wrong


def test_a_full_disk_is_an_error_at_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pb.Checkpointer(tmp_path) as snapshots:
        snapshots.save(1, part=Part(1))
        snapshots.wait()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            snapshots.save(2, part=Part(2))
            with pytest.raises(SnapshotError, match=r"000002.safetensors: cannot be written \(No space left"):
                snapshots.save(3, part=Part(3))
        assert names(tmp_path) == [path(tmp_path, 1).name]
        snapshots.save(3, part=Part(3))
    assert names(tmp_path) == [path(tmp_path, 1).name, path(tmp_path, 3).name]


def test_an_error_of_the_last_writing_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise SnapshotError("here", "broken")

    monkeypatch.setattr(module, "write", fail)
    with pytest.raises(SnapshotError, match="here: broken"), pb.Checkpointer(tmp_path) as snapshots:
        snapshots.save(1)
    with pytest.raises(KeyError) as caught, pb.Checkpointer(tmp_path) as snapshots:
        snapshots.save(1)
        raise KeyError("the run's own")
    assert caught.value.__notes__ == ["besides, the last snapshot was not written: here: broken"]


def test_a_second_one_is_refused_and_a_dead_ones_lock_taken_over(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        import pullback as pb
        snapshots = pb.Checkpointer(sys.argv[1])
        snapshots.save(1, value=[pb.ones(3)])
        snapshots.wait()
        open(os.path.join(sys.argv[1], ".step-000000000002.safetensors.0123abcd.tmp"), "w")
        reading, writing = os.pipe()
        child = os.fork()
        if not child:  # it must not keep the lock of its parent
            try:
                snapshots.save(2)
            except pb.errors.SnapshotLockError:
                os.write(writing, b"!")
                signal.pause()
        os.read(reading, 1)
        print(child, flush=True)
        signal.pause()
    """
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        "\n".join(line[8:] for line in program.splitlines()),
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        with pytest.raises(SnapshotLockError, match=f"{tmp_path} is in use by process {process.pid} on") as caught:
            pb.Checkpointer(tmp_path)
        assert caught.value.pid == process.pid
        process.kill()
        process.wait()
        try:
            with pb.Checkpointer(tmp_path) as snapshots:
                assert snapshots.restore() == 1
        finally:
            os.kill(child, 9)
    assert names(tmp_path) == [path(tmp_path, 1).name]


def test_two_in_one_process_and_after_closing(tmp_path: Path) -> None:
    first = pb.Checkpointer(tmp_path)
    with pytest.raises(SnapshotLockError, match="another Checkpointer of this process"):
        pb.Checkpointer(tmp_path)
    first.close()
    second = pb.Checkpointer(tmp_path)
    with pytest.raises(SnapshotLockError, match="closed"):
        first.save(1)
    del second
    pb.Checkpointer(tmp_path).close()


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(SnapshotError, match="cannot be used"):
        pb.Checkpointer(tmp_path / "run")
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("arguments", [{"keep": 0}, {"every": 0}, {"keep": True}, {"every": 1.5}])
def test_arguments_are_checked(arguments: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="whole number of at least 1"):
        pb.Checkpointer(tmp_path, **arguments)
