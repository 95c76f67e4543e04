"""The profiler: what ran while a block ran, as tables and as a trace."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .. import timeline
from ..runtime import stamps
from ..runtime.program import KernelTimes
from ..timeline import Span, listen
from . import rows as summing
from .rows import KernelRun, Kernels, Row
from .table import SORTS, format_table
from .trace import write_trace

_BY = ("kernel", "line", "operation")


class profile:
    """Measure where time goes in the block: `with pb.profile() as prof: step(x, y)`, then `print(prof)`.

    All kernels that run meanwhile are timed, in compiled steps and outside of them, on all threads, and so is the
    Python around them: recording, compiling, feeding programs. What runs is the same code with a look at the clock
    before and after each task, about 50 ns together; without a profile nothing is added.

    A block may be entered again, which adds to what is there; several may be nested, each measures for itself.
    Memory: about 40 bytes a kernel, thread and run.

    `kernels`, `lines`, `operations` and `python` are lists of `Row`, longest first; `seconds` is the time inside the
    block. A kernel that serves several lines is shared among them by the work that it does for each.

    >>> x = pb.ones(64, 64)
    >>> x[0, 0].item()
    1.0
    >>> with pb.profile() as prof:
    ...     y = (x @ x).relu().tolist()
    >>> [(row.name, row.operations) for row in prof.operations]
    [('matmul', 524288.0), ('relu', 8192.0)]
    """

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._kernels = Kernels()
        self._blocks: list[tuple[int, int]] = []
        self._open: tuple[ExitStack, int] | None = None
        #: the threads that entered the block
        self._threads: set[int] = set()
        self._summed: tuple[int, dict[str, Any]] = (-1, {})

    def __enter__(self) -> profile:
        if self._open is not None:
            raise RuntimeError("this profile is being taken already; make another for a block inside of it")
        stamps.prepare()  # the profiler's own code is no part of what is measured
        stack = ExitStack()
        stack.enter_context(listen(self._spans.append, kernels=True))
        self._threads.add(threading.get_ident())
        self._open = stack, timeline.now()
        return self

    def __exit__(self, *error: object) -> None:
        if self._open is None:
            raise RuntimeError("this profile is not being taken: enter it first, by `with`")
        stack, begin = self._open
        self._open = None
        self._blocks.append((begin, timeline.now()))
        stack.close()

    @property
    def seconds(self) -> float:
        """The time inside the block, in seconds; of all blocks if there were several."""
        open_ = [(self._open[1], timeline.now())] if self._open is not None else []
        return sum(end - begin for begin, end in (*self._blocks, *open_)) * 1e-9

    @property
    def kernels(self) -> list[Row]:
        """A row for each kernel, named by what it computes, with the line that it does most for."""
        return self._rows("kernel")

    @property
    def lines(self) -> list[Row]:
        """A row for each line of your code that kernels worked for."""
        return self._rows("line")

    @property
    def operations(self) -> list[Row]:
        """A row for each operation, such as "linear", "linear backward" and "optimizer.step"."""
        return self._rows("operation")

    @property
    def python(self) -> list[Row]:
        """Rows for what is not in kernels: recording, compiling, feeding programs, host calls, your own Python."""
        return self._rows("python")

    def key_averages(self) -> list[Row]:
        """As `operations`, by PyTorch's name."""
        return self.operations

    def table(self, by: str = "kernel", sort: str = "time", rows: int = 20) -> str:
        """The rows `by` "kernel", "line" or "operation", with those of Python, as text.

        `sort` is one of time, calls, operations, bytes, limit and name; `rows` the most that are shown.
        """
        if by not in _BY:
            raise ValueError(f"by must be one of {', '.join(_BY)}, got {by!r}")
        if sort not in SORTS:
            raise ValueError(f"sort must be one of {', '.join(SORTS)}, got {sort!r}")
        if not isinstance(rows, int) or rows < 1:
            raise ValueError(f"rows must be a whole number of at least 1, got {rows!r}")
        return format_table(self._rows(by), self.python, self.seconds, sort, rows)

    def __str__(self) -> str:
        return self.table()

    def export_chrome_trace(self, path: str | Path) -> None:
        """Write everything as a trace that chrome://tracing and https://ui.perfetto.dev show, a row for each thread.

        Kernels stand on the rows of the threads that ran them; JSON, in the Trace Event Format.
        """
        write_trace(Path(path), list(self._spans), self._kernels)

    def _rows(self, what: str) -> list[Row]:
        spans = list(self._spans)
        if self._summed[0] != len(spans):
            self._summed = len(spans), {}
        known = self._summed[1]
        if "runs" not in known:
            found = [s.detail for s in spans if isinstance(s.detail, KernelTimes)]
            known["runs"] = [run for times in found for run in self._kernels.runs(times)]
        runs: list[KernelRun] = known["runs"]
        if what == "python":
            return summing.of_python(spans, self.seconds, sum(run.seconds for run in runs), self._threads)
        if what not in known:
            known[what] = getattr(summing, f"by_{what}")(runs)
        return known[what]
