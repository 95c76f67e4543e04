"""The doctor: a training's first steps, run in processes of their own, so that nothing of the user's changes."""

from __future__ import annotations

import io
import json
import os
import runpy
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from ..ops.primitive import user_source
from .facts import STEPS, Facts
from .judging import FactsAt, judge
from .report import Report
from .watching import Watcher


def doctor(step: Callable[..., Any], *args: Any, steps: int = STEPS) -> Report:
    """Go through the checklist for training on a real step: gradients cleared, backward() called, the optimizer
    stepped, train mode, parameters with gradients, labels in range, inputs normalized, a loss that falls on one batch,
    the sign of the loss, a sane learning rate. Print the report; `report.faults` are what is wrong, with line and mend.

    `step(*args)` trains once, compiled or not. It is run `steps` times as it is, and again with weights that stay as
    they are, with which the losses are compared; where they do not fall, with other learning rates too. All of that is
    in forks of this process: nothing of the model, the optimizer, generators or any other object here changes. Systems
    without fork raise NotImplementedError.

    >>> model = pb.nn.Linear(3, 2)
    >>> optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    >>> def step(x, y):
    ...     loss = pb.nn.functional.cross_entropy(model(x), y)
    ...     loss.backward()
    ...     optimizer.step()
    >>> report = pb.doctor(step, pb.randn(16, 3), pb.randint(0, 2, (16,)))
    >>> [fault.check for fault in report.faults]
    ['gradients cleared']
    """
    if type(steps) is not int or steps < 2:
        raise ValueError(f"doctor: steps must be a whole number of at least 2, got {steps!r}")
    function = getattr(step, "function", step) if getattr(type(step), "is_compiled_step", False) else step

    def trained() -> None:
        for _ in range(steps):
            function(*args)

    return judge(_facts_at(trained, steps), _place(function), same_batch=True)


def examine_script(path: Path, arguments: list[str], steps: int = STEPS) -> Report:
    """The same for the first steps of a script, run unchanged with these arguments."""

    def ran() -> None:
        sys.argv = [str(path), *arguments]
        sys.path.insert(0, str(path.resolve().parent))
        runpy.run_path(str(path), run_name="__main__")

    return judge(_facts_at(ran, steps), str(path), same_batch=False)


def _place(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else str(user_source() or "")


def _facts_at(function: Callable[[], object], steps: int) -> FactsAt:
    """What the function does by the factor on its learning rates, each tried once, when it is asked for."""
    return cache(lambda factor: _apart(function, factor, steps))


def _apart(function: Callable[[], object], factor: float, steps: int) -> Facts:
    """The facts of the function's first steps, in a fork of this process."""
    if not hasattr(os, "fork"):
        raise NotImplementedError("the doctor needs fork(), so that the steps it tries change nothing here")
    sys.stdout.flush(), sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _answer(function, factor, steps, writing)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError("the process that tried the step ended without an answer: it was killed, or called os._exit")
    row = json.loads(text)
    if "traceback" in row:
        raise RuntimeError(f"the doctor itself failed:\n{row['traceback']}")
    return Facts(**row)


def _answer(function: Callable[[], object], factor: float, steps: int, writing: int) -> None:
    """In the child: write the facts, and end without a word of anybody's."""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            row = asdict(Watcher(factor, steps).run(function))
    except BaseException:
        row = {"traceback": traceback.format_exc()}
    try:
        with open(writing, "w", encoding="utf-8") as pipe:
            pipe.write(json.dumps(row))
    finally:
        os._exit(0)


__all__ = ["doctor", "examine_script"]
