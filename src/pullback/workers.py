"""Worker processes that answer requests, beside the process that trains.

They are started from a clean process (forkserver, or spawn where there is none), because a fork of a process with
native threads has what those threads held and not the threads. Requests and answers travel through a pipe a worker, by
multiprocessing's own means: between a process and its child only.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import connection, reduction
from typing import Any
from weakref import finalize

from .errors import WorkerError
from .runtime.threads import set_num_threads

#: how often a worker looks whether its parent is still there, in seconds
_LOOK = 5.0
#: how long a worker may take to end by itself, in seconds
_GRACE = 1.0

Reducers = Mapping[type, Callable[[Any], Any]]


class Pool:
    """`count` processes, each of which calls `make(number, *arguments)` once, and what that gives on every request."""

    def __init__(
        self, count: int, make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...], reducers: Reducers,
        context: Any, timeout: float,
    ):  # fmt: skip
        self.timeout = timeout
        self._connections: list[Any] = []
        self._processes: list[Any] = []
        #: the requests of each worker that have not been answered yet
        self._waiting: list[list[Any]] = [[] for _ in range(count)]
        #: those that have given an answer
        self._answered: set[int] = set()
        self._close = finalize(self, _close, self._connections, self._processes)
        _register(reducers)
        try:
            for number in range(count):
                self._start(number, make, arguments, reducers, _context(context))
        except BaseException:
            self.close()
            raise

    def _start(self, number: int, make: Any, arguments: Any, reducers: Reducers, context: Any) -> None:
        ours, theirs = context.Pipe()
        forked = context.get_start_method() == "fork"
        inherited = [*self._connections, ours] if forked else []
        process = context.Process(
            target=_main,
            args=(number, theirs, inherited, make, arguments, reducers),
            name=f"pullback-worker-{number}",
            daemon=True,
        )
        try:
            process.start()
        except (EOFError, ConnectionError) as error:
            raise WorkerError(_NO_GUARD) from error
        except Exception as error:
            if not isinstance(error, (AttributeError, TypeError)) and type(error).__name__ != "PicklingError":
                raise
            raise TypeError(
                f"worker processes cannot be given the dataset and functions of the loader ({error}): define them at "
                "the top of a module, or pass multiprocessing_context='fork' or num_workers=0"
            ) from error
        finally:
            theirs.close()
        self._connections.append(ours)
        self._processes.append(process)

    def submit(self, worker: int, request: Any) -> None:
        """Send a request; its answer is the next that `receive` has not given yet."""
        self._waiting[worker].append(request)
        # of a worker that died it is told when the answer is waited for, after the answers that it still gave
        with suppress(BrokenPipeError, ConnectionError):
            self._connections[worker].send(request)

    def waiting(self, worker: int) -> int:
        """How many requests of a worker have not been answered."""
        return len(self._waiting[worker])

    def receive(self, worker: int, what: Callable[[Any], str], failed: Callable[[Exception], Any] | None = None) -> Any:
        """The next answer of a worker; raises what its call raised, or gives what `failed` makes of that. WorkerError
        where it died or took longer than the timeout, with `what` it was at, in words, of the request.
        """
        succeeded, value = self._answer(worker, what)
        if succeeded:
            return value
        if failed is None:
            raise value.error()
        return failed(value.error())

    def discard(self, worker: int) -> None:
        """Wait for the next answer of a worker, whatever it is. WorkerError as of `receive`."""
        self._answer(worker, str)

    def _answer(self, worker: int, what: Callable[[Any], str]) -> tuple[bool, Any]:
        answers, process = self._connections[worker], self._processes[worker]
        request = self._waiting[worker][0]
        ready = connection.wait([answers, process.sentinel], self.timeout or None)
        if not ready:
            raise WorkerError(
                f"DataLoader worker {worker} (process {process.pid}) took longer than timeout={self.timeout} seconds "
                f"at {what(request)}"
            )
        try:
            if answers not in ready and not answers.poll():
                raise EOFError
            answer: tuple[bool, Any] = answers.recv()
        except (EOFError, ConnectionError):
            process.join(_GRACE)
            unguarded = process.exitcode == 1 and worker not in self._answered
            raise WorkerError(
                f"DataLoader worker {worker} (process {process.pid}) {_end(process.exitcode)} at {what(request)}"
                + (f"; {_NO_GUARD}" if unguarded else "")
            ) from None
        self._answered.add(worker)
        self._waiting[worker].pop(0)
        return answer

    def close(self) -> None:
        """End the processes."""
        self._close()


class Failure:
    """An exception of a worker on its way to the parent: its class, and its traceback as text."""

    def __init__(self, worker: int, error: Exception):
        self.kind: type[Exception] | None = type(error)
        try:
            reduction.ForkingPickler.dumps(self.kind)
        except Exception:
            # a class that the parent cannot find is told by its name in the text
            self.kind = None
        text = "".join(traceback.format_exception(error))
        self.text = f"Caught {type(error).__name__} in DataLoader worker process {worker}.\nOriginal {text}"

    def error(self) -> Exception:
        """The exception to raise: of the same class where that can be made of a text."""
        try:
            return (self.kind or WorkerError)(_Text(self.text))
        except Exception:
            return WorkerError(self.text)


class _Text(str):
    """A text that KeyError shows in its lines, and not on one with the ends of lines escaped."""

    def __repr__(self) -> str:
        return str(self)


_NO_GUARD = (
    "the worker processes of a DataLoader could not be started. Each of them imports the script, which must not start "
    "them then: put its work under `if __name__ == '__main__':`, or pass multiprocessing_context='fork'"
)


def _context(wanted: Any) -> Any:
    """The way in which processes are started."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise WorkerError(_NO_GUARD)
    if wanted is None:
        wanted = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    if wanted == "forkserver":
        _preload()
    if isinstance(wanted, str):
        if wanted not in multiprocessing.get_all_start_methods():
            raise ValueError(
                f"multiprocessing_context must be one of {multiprocessing.get_all_start_methods()}, got {wanted!r}"
            )
        return multiprocessing.get_context(wanted)
    return wanted


def _preload() -> None:
    """Have the server that workers are forked from import once what each needs, unless the program has said what."""
    from multiprocessing import forkserver

    if forkserver._forkserver._preload_modules == ["__main__"]:  # type: ignore[attr-defined]
        multiprocessing.set_forkserver_preload(["__main__", "pullback.utils.data"])


def _register(reducers: Reducers) -> None:
    for kind, reduce in reducers.items():
        reduction.ForkingPickler.register(kind, reduce)


def _end(code: int | None) -> str:
    if code is None:
        return "closed its pipe"
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = " (the system does that when memory runs out)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def _close(connections: list[Any], processes: list[Any]) -> None:
    for each in connections:
        each.close()
    for process in processes:
        process.join(_GRACE)
        if process.is_alive():
            process.terminate()
            process.join(_GRACE)
        if process.is_alive():
            process.kill()
            process.join()


# ---- in the worker


def _main(number: int, answers: Any, inherited: list[Any], make: Any, arguments: Any, reducers: Reducers) -> None:
    for each in inherited:
        each.close()
    # an interrupt of the terminal is for the parent, which ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _register(reducers)
    set_num_threads(1)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(answers, requests), daemon=True).start()
    serve: Callable[[Any], Any] | None = None
    while True:
        request = requests.get()
        if request is _END:
            return
        try:
            if serve is None:
                serve = make(number, *arguments)
            answer = True, serve(request)
        except Exception as error:
            answer = False, Failure(number, error)
        try:
            _send(number, answers, answer)
        except (BrokenPipeError, ConnectionError):
            return


_END = object()


def _send(number: int, answers: Any, answer: tuple[bool, Any]) -> None:
    try:
        content = reduction.ForkingPickler.dumps(answer)
    except Exception as error:
        error.add_note("while a batch was sent to the process that trains")
        content = reduction.ForkingPickler.dumps((False, Failure(number, error)))
    answers.send_bytes(content)


def _listen(pipe: Any, requests: queue.SimpleQueue[Any]) -> None:
    """Take requests in as they come, so that the parent never waits for a worker that waits for the parent; and end
    the process when the parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    forked = os.getppid() == parent.pid
    try:
        while True:
            while not pipe.poll(_LOOK):
                if not parent.is_alive() or (forked and os.getppid() != parent.pid):
                    os._exit(1)
            requests.put(pipe.recv())
    except (EOFError, OSError):
        requests.put(_END)


__all__ = ["Failure", "Pool", "Reducers"]
