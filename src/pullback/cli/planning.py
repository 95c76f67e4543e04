"""`pullback plan`: what training a model would take, from plans of its step."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pullback as pb

from ..errors import CompileError, PullbackError
from ..memory import LEAST, Plan, format_bytes, parse_bytes
from ..memory.page import drawing_library
from ..train import models
from ..train.weights import check_writable

DTYPES = {"float32": pb.float32, "bfloat16": pb.bfloat16}


class Training(NamedTuple):
    """A model to plan: one of `models.SIZES`, an optimizer, the size of a batch, whether blocks are checkpointed, as
    what codes the weights of linear layers are kept, and of what rank the adapters are that are trained in their stead
    (0 for none).
    """

    model: str
    optimizer: str
    batch: int
    tokens: int
    dtype: str
    checkpoint: bool = False
    quantize: str | None = None
    lora_r: int = 0

    def plan(self, **budget: Any) -> Plan:
        """The plan of a step, with the arguments of `pullback.plan`."""
        model = models.language_model(self.model, DTYPES[self.dtype])
        if self.checkpoint:
            model.gradient_checkpointing_enable()
        if self.quantize is not None:
            pb.nn.utils.quantize_model(model, self.quantize)
        if self.lora_r:
            pb.lora.apply(model, self.lora_r, 2 * self.lora_r, _adapted(model))
        optimizer = models.OPTIMIZERS[self.optimizer]([p for p in model.parameters() if p.requires_grad])
        step, arguments = models.training_step(model, optimizer, self.batch, self.tokens)
        plan = pb.plan(step, *arguments, **budget)
        low = [] if self.quantize is None else [self.quantize]
        low += [f"adapters of rank {self.lora_r}"] if self.lora_r else []
        said = ", ".join([self.dtype, *low, self.optimizer, f"{self.batch} × {self.tokens} tokens"])
        plan.name = f"{self.model} ({said})"
        return plan


def _adapted(model: pb.nn.Module) -> list[str]:
    """The linear layers of the blocks: all but the one that gives the scores."""
    kinds = (pb.nn.Linear, pb.nn.Linear4bit, pb.nn.Linear8bit)
    return [name for name, module in model.named_modules() if "." in name and isinstance(module, kinds)]


def budget_of(memory: str) -> int | str:
    """What `--memory` names: bytes, or the fewest. Raises ValueError where it is neither."""
    if memory == LEAST:
        return memory
    try:
        return parse_bytes(memory, "--memory")
    except ValueError as error:
        raise ValueError(f'{error}; or "least"') from None


class Answer(NamedTuple):
    """Whether a step can be run in some memory, that in words, and the plan with which it is (or the one as it is)."""

    enough: bool
    words: str
    plan: Plan


def fits(plan: Plan, memory: str, replan: Callable[[int | str], Plan]) -> Answer:
    """Whether a step can be run in `memory`, as it is or with values computed again."""
    budget = budget_of(memory)
    if isinstance(budget, str):
        least = replan(budget)
        found = f"{format_bytes(least.peak_bytes)}{_at_the_price(least)}"
        return Answer(True, f"the least for at most about one more forward pass is {found}", least)
    if plan.peak_bytes <= budget:
        return Answer(True, f"it fits in {format_bytes(budget)}", plan)
    state = max(
        sum(int(plan.timeline[role][step]) for role in ("parameters", "optimizer", "gradients", "inputs"))
        for step in (0, plan.steps - 1)
    )
    if state > budget:
        alone = f"parameters, optimizer state and gradients alone take {format_bytes(state)}"
        return Answer(False, f"it cannot be run in {format_bytes(budget)}: {alone}", plan)
    least = replan(budget)
    if not least.over_budget_bytes:
        peak = f"{format_bytes(least.peak_bytes)} at the peak{_at_the_price(least)}"
        return Answer(True, f"it fits in {format_bytes(budget)} with memory={memory!r}: {peak}", least)
    words = f"it cannot be run in {format_bytes(budget)}: the least is {format_bytes(least.peak_bytes)}"
    return Answer(False, words, plan)


def _at_the_price(plan: Plan) -> str:
    if not plan.recomputed_flops:
        return ""
    more = plan.recomputed_flops / (plan.flops - plan.recomputed_flops)
    return f", at {f'{more:.0%}' if more >= 0.01 else 'less than 1%'} more FLOP"


class Own(NamedTuple):
    """A step of the user's own, with its arguments."""

    step: Callable[..., Any]
    arguments: tuple[Any, ...]

    def plan(self, **budget: Any) -> Plan:
        """The plan of the step, with the arguments of `pullback.plan`."""
        return pb.plan(self.step, *self.arguments, **budget)


def load(name: str) -> Own:
    """The step and its arguments that the function named "module:function" gives.

    Raises ValueError where there is none, or it gives something else.
    """
    module_name, _, function_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        raise ValueError(f"--model: a step of your own is named module:function, got {name!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"--model: there is no module {module_name!r} here or among what is installed") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"--model: {module_name} has no function {function_name!r}")
    _check_call(function, (), f"{name} is called without arguments")
    given = function()
    if not (
        isinstance(given, tuple) and len(given) == 2 and callable(given[0]) and isinstance(given[1], (tuple, list))
    ):
        raise ValueError(f"--model: {name} must give a step and a tuple of its arguments, it gave {_kind(given)}")
    _check_call(given[0], given[1], f"the step that {name} gives is called with the arguments that it gives")
    return Own(given[0], tuple(given[1]))


def _check_call(function: Callable[..., Any], arguments: tuple[Any, ...] | list[Any], words: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # something native, which tells when it is called
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise ValueError(f"--model: {words}: {error}") from None


def _kind(given: object) -> str:
    """What somebody gave, in words that stay short however large it is."""
    kind = f"something of type {type(given).__name__}"
    return f"{kind} with {len(given)} elements" if isinstance(given, (tuple, list)) else kind


@contextmanager
def running(name: str) -> Iterator[None]:
    """For the time that the user's own code runs: modules are found here, as `python -m` finds them, and what the code
    raises becomes a ValueError in one message with its line.
    """
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    except (Exception, SystemExit) as error:
        words = _told(error)
        if words is None:
            raise
        raise ValueError(f"--model {name}: {words}") from None
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _told(error: BaseException) -> str | None:
    """An error of the user's code in words; None where it is none of his, and its stack is what tells most."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if _is_ours(frames[-1][0]) and isinstance(error, (AssertionError, CompileError)):
        return None
    own = [frame for frame in frames if not _is_ours(frame[0]) and not frame[0].startswith("<frozen ")]
    own = [frame for frame in own if not frame[0].startswith(_INSTALLED)] or own
    if isinstance(error, SyntaxError) and error.filename is not None:
        own, words = [(error.filename, error.lineno or 0)], f"SyntaxError: {error.msg}"
    elif isinstance(error, SystemExit):
        words = f"it exited with {error.code!r}"
    else:
        words = f"{type(error).__name__}: {error}".removesuffix(": ")
    if not own:
        return words if isinstance(error, PullbackError) else None
    where = "{}:{}".format(*own[-1])
    return words if where in words else f"{where}: {words}"


_PACKAGE = os.path.dirname(pb.__file__) + os.sep
#: the programs of others: where a line of the user's called them, that one is named
_INSTALLED = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib"))


def _is_ours(file: str) -> bool:
    return file.startswith(_PACKAGE)


def check_path(path: Path | None) -> None:
    """Raise ValueError, OSError or ImportError where a plan cannot be saved to `path`, before any time is spent."""
    if path is None:
        return
    if path.suffix not in (".html", ".htm", ".json"):
        raise ValueError(f"--save: a plan is saved to a name that ends in .html or .json, got {path.name!r}")
    try:
        check_writable(path)
    except OSError as error:
        raise OSError(f"--save: {error}") from None
    if path.exists() and not os.access(path, os.W_OK):
        raise OSError(f"--save: {path}: cannot be written: permission denied")
    if path.suffix != ".json":
        drawing_library()
