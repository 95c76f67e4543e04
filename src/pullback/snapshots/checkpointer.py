"""Checkpointer: a directory of snapshots, the newest few of a run, from which a killed run goes on."""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from weakref import finalize

from ..errors import SnapshotError, SnapshotLockError
from ..ops.primitive import user_source
from ..runtime.locks import DirectoryLock, Taken
from ..tensor.random import default_generator, get_rng_state
from .description import describe
from .files import AnyPath, read, sync_directory, write
from .parts import KINDS, give_all, kind_of
from .stored import Stored

_FORMAT = 1
_NAME = re.compile(r"step-(\d{12,})\.safetensors")
_TEMPORARY = re.compile(r"\.step-\d{12,}\.safetensors\.[0-9a-f]{8}\.tmp")
_LOCK = ".lock"


class Checkpointer:
    """Keeps the newest `keep` snapshots of a run in the directory `dir`, a file each, written in the background.

    `save` and `restore` take any parts by name: what has `state_dict` and `load_state_dict` (models, optimizers,
    schedulers, scalers, loaders, monitors), generators (Pullback's, NumPy's, Python's), and plain values that `pb.save`
    takes. The default generator is always among them. With `every`, only steps that are multiples of it are saved.

    One process at a time has the directory: SnapshotLockError in any other, until this one calls `close` (or leaves the
    `with`), or ends in any way.

    >>> model = pb.nn.Linear(3, 2)
    >>> optimizer = pb.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> with pb.Checkpointer("run", keep=2, every=10) as snapshots:
    ...     start = snapshots.restore(model=model, optimizer=optimizer) or 0
    ...     for step in range(start + 1, 31):  # a step of training, and then
    ...         taken = snapshots.save(step, model=model, optimizer=optimizer)
    >>> snapshots.steps()
    [20, 30]
    """

    def __init__(self, dir: AnyPath, keep: int = 3, every: int | None = None):
        if not isinstance(dir, (str, os.PathLike)):
            raise TypeError(f"Checkpointer: dir must be a path, got {type(dir).__name__} (at {user_source()})")
        for name, value in (("keep", keep), ("every", 1 if every is None else every)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Checkpointer: {name} must be a whole number of at least 1, got {value!r}")
        self.directory, self.keep, self.every = Path(dir), keep, every
        #: the plain values of the snapshot that was restored
        self.values: dict[str, Any] = {}
        #: snapshots that the run has left behind by going back to an earlier one
        self._abandoned: set[int] = set()
        self._looked = False
        #: held by the thread that saves or restores
        self._turn = threading.RLock()
        self._lock = _locked(self.directory)
        self._writer = _Writer()
        self._at_exit = finalize(self, _Writer.report, self._writer)
        self._remove(name for name in self._names() if _TEMPORARY.fullmatch(name))

    # ---- saving

    def save(self, step: int, *, force: bool = False, **parts: Any) -> bool:
        """Take a snapshot of the run after `step` steps, if it is the turn of that step or `force`; tells whether.

        All values are copied before it returns, and written while the run goes on. The writing before is waited for,
        and an error of it raised: SnapshotError, with the older snapshots as they were.
        """
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 10**18:
            raise ValueError(f"save: step must be a whole number from 0, got {step!r} (at {user_source()})")
        with self._turn:
            self._check_open("save")
            if not force and self.every is not None and step % self.every:
                self._writer.raise_error()
                return False
            self.wait()
            self._check_future(step)
            tree = {
                "checkpoint": _FORMAT,
                "step": step,
                "generator": get_rng_state(),
                "kinds": {name: kind_of(part) for name, part in parts.items()},
                "parts": {name: KINDS[kind_of(part)].take(part) for name, part in parts.items()},
            }
            description, arrays = describe(tree, copy=True)
            self._writer.start(lambda: self._write(step, description, arrays))
        return True

    def _check_future(self, step: int) -> None:
        """A run that starts anew in the directory of another must not push that one's snapshots out."""
        later = [found for found in self.steps() if found > step and found not in self._abandoned]
        if later:
            what = "restore() it first" if not self._looked else "restore(step=…) an earlier one to go back"
            raise SnapshotError(
                self.directory,
                f"step {step} is to be saved, but there is a snapshot of the later step {later[-1]}: {what}, or take "
                "another directory",
            )

    def _write(self, step: int, description: Any, arrays: dict[str, Stored]) -> None:
        self._check_place()
        path = self._path(step)
        write(path, description, arrays, f".{path.name}.{secrets.token_hex(4)}.tmp")
        self._abandoned.discard(step)
        kept = [found for found in self.steps() if found not in self._abandoned][-self.keep :]
        self._remove(self._path(found).name for found in self.steps() if found not in kept)
        self._abandoned.clear()

    def _remove(self, names: Any) -> None:
        """Remove files of the directory; nothing that is none, and no target of a link."""
        removed = False
        for name in names:
            path = self.directory / name
            if not stat.S_ISDIR(path.lstat().st_mode):
                path.unlink()
                removed = True
        if removed:
            sync_directory(self.directory)

    def wait(self) -> None:
        """Wait until the snapshot under way is on the disk; raises the error of its writing."""
        with self._turn:
            self._writer.wait()

    # ---- restoring

    def steps(self) -> list[int]:
        """The steps of which there are snapshots, in order, whole or not."""
        found = (_NAME.fullmatch(name) for name in self._names())
        return sorted(int(match[1]) for match in found if match and match[0] == self._path(int(match[1])).name)

    def restore(self, *, step: int | None = None, **parts: Any) -> int | None:
        """Give each of `parts` its state of the newest snapshot that is whole, or of that of `step`, and the default
        generator its own; the step of the snapshot, or None where there is none yet.

        A damaged snapshot is passed over with a warning that names the file and its fault. Plain values are in
        `values` afterwards. Raises SnapshotError where no snapshot is whole or one lacks a part that is asked for, and
        what a part's `load_state_dict` raises where the state does not fit it. Nothing is changed then, in any part.
        """
        with self._turn:
            self._check_open("restore")
            self.wait()
            steps = self.steps()
            if step is not None and step not in steps:
                raise SnapshotError(self.directory, f"there is no snapshot of step {step}, only of {steps}")
            self._looked = self._looked or not steps
            if not steps:
                return None
            found, tree = self._read_one(steps) if step is None else (step, self._read(step))
            self._give(self._path(found), tree, parts)
            self._looked = True
            self._abandoned = {other for other in steps if other > found}
            return found

    def _read_one(self, steps: list[int]) -> tuple[int, dict[str, Any]]:
        """The newest snapshot that is whole."""
        faults: list[SnapshotError] = []
        for step in reversed(steps):
            try:
                tree = self._read(step)
            except SnapshotError as error:
                faults.append(error)
                continue
            for fault in faults:
                warnings.warn(f"{fault}; the snapshot of step {step} is used instead", UserWarning, stacklevel=3)
            return step, tree
        said = "\n  ".join(map(str, faults))
        raise SnapshotError(self.directory, f"none of its {len(steps)} snapshots is whole:\n  {said}")

    def _read(self, step: int) -> dict[str, Any]:
        path = self._path(step)
        try:
            tree = read(path, follow=False, foreign=False)
        except FileNotFoundError:
            raise SnapshotError(path, "it is gone") from None
        if not isinstance(tree, dict) or tree.get("checkpoint") != _FORMAT:
            raise SnapshotError(path, "it was not written by a Checkpointer")
        kinds = tree.get("kinds")
        if tree.get("step") != step:
            raise SnapshotError(path, f"it is the snapshot of step {tree.get('step')!r} under another name")
        if (
            not isinstance(kinds, dict)
            or not isinstance(tree.get("parts"), dict)
            or kinds.keys() != tree["parts"].keys()
        ):
            raise SnapshotError(path, "its parts are not those that it says")
        return tree

    def _give(self, path: Path, tree: dict[str, Any], parts: dict[str, Any]) -> None:
        wanted = {name: part for name, part in parts.items() if part is not None}
        kinds = tree["kinds"]
        for name, part in wanted.items():
            if name not in kinds:
                raise SnapshotError(path, f"it has no part {name!r}; it has {', '.join(kinds) or 'none'}")
            if KINDS[kind_of(part)].give is None:
                raise TypeError(f"restore: {name} is a plain value, which is in Checkpointer.values after restore()")
            if kind_of(part) != kinds[name]:
                raise SnapshotError(path, f"its part {name!r} is a {kinds[name]}, not a {kind_of(part)}")
        generator = {"the default generator": default_generator()}
        give_all({**wanted, **generator}, {**tree["parts"], "the default generator": tree["generator"]})
        self.values = {name: tree["parts"][name] for name, kind in kinds.items() if kind == "value"}

    # ---- the directory

    def _names(self) -> list[str]:
        """Of all files in the directory."""
        self._check_place()
        try:
            return os.listdir(self.directory)
        except OSError as error:
            raise SnapshotError(self.directory, f"it cannot be read ({error.strerror or error})") from error

    def _check_place(self) -> None:
        """Raise SnapshotError where the directory is not the one that is locked."""
        if self._lock.held and not self._lock.is_in_place:
            what = "another one is there now, which is not this one's" if self.directory.exists() else "it is gone"
            raise SnapshotError(self.directory, f"{what}: it was removed, or renamed, while this run had it")

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:012d}.safetensors"

    def _check_open(self, what: str) -> None:
        if not self._lock.held:
            raise SnapshotLockError(
                f"{what}: this Checkpointer of {self.directory} is closed, or was another process's"
            )

    def close(self) -> None:
        """Wait for the snapshot under way and let others have the directory; raises the error of its writing."""
        try:
            self.wait()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except Exception as late:
            error.add_note(f"besides, the last snapshot was not written: {late}")


def _locked(directory: Path) -> DirectoryLock:
    if directory.exists() and not directory.is_dir():
        raise SnapshotError(directory, "it is a file, and no directory for snapshots")
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            sync_directory(directory.parent)
        return DirectoryLock(directory / _LOCK)
    except Taken as taken:
        who = (
            "another Checkpointer of this process: close() it"
            if taken.pid == os.getpid()
            else f"process {taken.pid} on {taken.host}: stop it"
        )
        raise SnapshotLockError(
            f"{directory} is in use by {who}, or take another directory. Two runs cannot save to one.", taken.pid
        ) from None
    except OSError as error:
        raise SnapshotError(directory, f"cannot be used ({error.strerror or error})") from error


class _Writer:
    """One thread at a time that writes, and the error that it ended with."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Do `work` in a thread; what was started before must have been waited for."""
        # no daemon: the interpreter waits for it at its end
        self._thread = threading.Thread(target=self._run, args=(work,), name="pullback-snapshot")
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error

    def wait(self) -> None:
        """Wait for the thread and raise its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.raise_error()

    def raise_error(self) -> None:
        """Raise the error of a thread that has ended, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def report(self) -> None:
        """Say what nobody has asked for, when the Checkpointer is gone or the process ends."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            print(f"a snapshot was not written: {self._error}", file=sys.stderr)


__all__ = ["Checkpointer"]
