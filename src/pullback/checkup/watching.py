"""What a training does, seen from outside: calls of modules, losses, gradients and steps, in the order they come."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..diagnosis import Member, structural
from ..graph.node import Node
from ..nn import Module
from ..nn.modules.hooks import register_module_forward_hook, register_module_forward_pre_hook
from ..ops.primitive import MODE, user_source
from ..optim import Optimizer
from ..optim.hooks import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from ..tensor import Tensor
from ..tensor.grad_modes import is_grad_enabled
from ..tensor.handle import STATE, Handle, add_watcher
from ..tracing import CompiledStep

#: how many steps are watched
STEPS = 20


class Enough(BaseException):
    """Ends a script when its first steps have been seen; no `except Exception` of its own stops this."""


@dataclass
class Facts:
    """What was seen. All of it can be written as JSON."""

    losses: list[float] = field(default_factory=list)
    steps: int = 0
    backwards: int = 0
    calls: int = 0
    #: lines: of the first call of the model, backward() and step()
    called_at: str = ""
    backward_at: str = ""
    stepped_at: str = ""
    #: parameters that had gradients left from the step before when backward() was called
    uncleared: int = 0
    #: steps that found no gradient, and whether backward() had been called before them
    without_gradients: int = 0
    cleared_too_late: bool = False
    #: modules in evaluation mode whose results depend on it
    evaluating: list[str] = field(default_factory=list)
    #: what stands in the graph: rows (kind, where, reason, remedy)
    structure: list[tuple[str, str, str, str]] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)
    parameters: int = 0
    rates: list[float] = field(default_factory=list)
    #: mean, deviation and largest magnitude of the model's first input of floats
    inputs: tuple[float, float, float] | None = None
    #: the name and message of an exception that ended it, and its line
    error: tuple[str, str, str] | None = None


#: modules that behave otherwise in training
_TELL_TRAINING = ("Dropout", "BatchNorm", "AlphaDropout", "FeatureAlphaDropout", "RReLU")


class Watcher:
    """Collects the facts of a training."""

    def __init__(self, factor: float, most: int = STEPS):
        self.facts, self.factor, self.most = Facts(), factor, most
        self.models: dict[int, Module] = {}
        self.optimizers: dict[int, Optimizer] = {}
        self._received: set[int] = set()
        self._given: set[int] = set()
        self._losses: list[Node] = []
        #: losses that nobody has asked for: asked for, they would forget what they were made of
        self._values: list[Tensor] = []
        self._since_step = 0
        self._depth = 0
        self._entered = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is done inside. Compiled steps are run as the functions that they were made of."""
        handles: list[Any] = [
            register_module_forward_pre_hook(self._before_call),
            register_module_forward_hook(self._after_call, always_call=True),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        unwatch, compiled = add_watcher(self._meet), CompiledStep.__call__
        CompiledStep.__call__ = _plainly(compiled)  # type: ignore[method-assign]
        try:
            yield
        finally:
            CompiledStep.__call__ = compiled  # type: ignore[method-assign]
            unwatch()
            for handle in handles:
                handle.remove()

    # ---- what is met

    def _before_call(self, module: Module, args: Any) -> None:
        self._depth += 1
        if self._depth > 1 or STATE.trace is not None:
            return
        if not self.facts.called_at:
            self.facts.called_at = _line()
        if is_grad_enabled():
            self.facts.calls += 1
            self._stop_where_nothing_follows()
        if any(p.requires_grad for p in module.parameters()) or module._modules or module._parameters:
            self._look_at_model(module, args)

    def _after_call(self, module: Module, args: Any, result: Any) -> None:
        self._depth -= 1

    def _look_at_model(self, module: Module, args: Any) -> None:
        if is_grad_enabled():
            self.models.setdefault(id(module), module)
            for name, part in module.named_modules():
                told = any(each.__name__.startswith(_TELL_TRAINING) for each in type(part).__mro__)
                if told and not part._training and name not in self.facts.evaluating:
                    self.facts.evaluating.append(name or type(part).__name__)
        given = next((a for a in args if isinstance(a, Tensor) and a.dtype.is_floating_point), None)
        if given is not None and self.facts.inputs is None and given.numel():
            values = given.detach().float().numpy().astype(np.float64)
            self.facts.inputs = float(values.mean()), float(values.std()), float(abs(values).max())

    def _meet(self, node: Node, what: str, owner: Handle | None) -> None:
        if STATE.trace is not None:
            return
        if what == "gradient":
            self._received.add(id(owner))
        elif what == "loss":
            self._begin_backward(node)

    def _begin_backward(self, node: Node) -> None:
        facts = self.facts
        facts.backwards += 1
        facts.backward_at = facts.backward_at or _line()
        if not self._since_step and facts.steps:
            left = [p for model in self.models.values() for p in model.parameters() if p.grad is not None]
            facts.uncleared += any(bool((p.grad != 0).any()) for p in left)  # type: ignore[union-attr]
        self._since_step += 1
        self._losses = [*self._losses, node] if self._since_step > 1 else [node]
        self._values.append(Tensor(node).detach().sum())
        self._stop_where_nothing_follows()

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        facts = self.facts
        known = id(optimizer) in self.optimizers
        self.optimizers[id(optimizer)] = optimizer
        facts.stepped_at = facts.stepped_at or _line()
        if not known:
            facts.rates += [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
            for group in optimizer.param_groups if self.factor != 1 else ():
                group["lr"] = group["lr"] * self.factor
        if facts.steps == 0 and self._losses:
            self._look_at_structure()
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        if not any(g is not None and bool((g != 0).any()) for g in gradients):
            facts.without_gradients += 1
            facts.cleared_too_late = facts.cleared_too_late or bool(self._since_step)

    def _look_at_structure(self) -> None:
        optimized = {id(p) for o in self.optimizers.values() for group in o.param_groups for p in group["params"]}
        facts = self.facts
        seen: set[int] = set()
        # the whole before its parts, where some of them are called by themselves too
        for model in sorted(self.models.values(), key=lambda m: -sum(1 for _ in m.modules())):
            members = []
            for name, p in model.named_parameters():
                if id(p) in seen:
                    continue
                seen.add(id(p))
                facts.parameters += 1
                if not p.requires_grad:
                    facts.frozen.append(name)
                members.append(Member(name, p._node, p.requires_grad, id(p) in self._received, id(p) in optimized))
            alerts = structural(self._losses, members)
            facts.structure += [(a.kind, a.where, a.reason, a.remedy) for a in alerts]

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.facts.steps += 1
        self._since_step = 0
        self._read_losses()
        if self.facts.steps >= self.most:
            raise Enough

    def _read_losses(self) -> None:
        values, self._values = self._values, []
        self.facts.losses += [float(value.item()) for value in values]

    def _stop_where_nothing_follows(self) -> None:
        facts = self.facts
        if not facts.steps and (facts.backwards > self.most or facts.calls > 3 * self.most):
            raise Enough

    def run(self, function: Callable[[], object]) -> Facts:
        """Call the function, and give the facts of what it did."""
        try:
            with suppress(Enough), self.watching():
                function()
        except SystemExit as ended:
            if ended.code not in (None, 0):
                self.facts.error = "SystemExit", str(ended.code), ""
        except Exception as error:
            self.facts.error = type(error).__name__, str(error), _raised_at(error)
        if self.facts.error is None:
            self._read_losses()
        self.facts.losses = [loss if math.isfinite(loss) else math.inf for loss in self.facts.losses]
        return self.facts


def _plainly(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """A way to call compiled steps in which the user's own are not compiled."""

    def call(self: CompiledStep, *args: Any, **kwargs: Any) -> Any:
        own = str(getattr(self.function, "__module__", "")).startswith(__name__.partition(".")[0] + ".")
        return compiled(self, *args, **kwargs) if own else self.function(*args, **kwargs)

    return call


def _line() -> str:
    before, MODE.source = MODE.source, None
    try:
        source = user_source()
    finally:
        MODE.source = before
    return str(source) if source is not None else ""


def _raised_at(error: BaseException) -> str:
    """The innermost line of the traceback that is not the package's own."""
    found, trace = "", error.__traceback__
    package = sys.modules[__name__.partition(".")[0]].__path__[0]
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((package, "<frozen")) and "runpy" not in file:
            found = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


__all__ = ["STEPS", "Enough", "Facts", "Watcher"]
