"""What a training does, seen from outside: calls of modules, losses, gradients and steps, in the order they come."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from ..diagnosis import Alert, Member, cut_of, how_cut, structural
from ..errors import GradientError, NonFiniteError
from ..graph.node import Node, ancestors, next_serial
from ..nn import Module, Parameter
from ..nn.modules.hooks import register_module_forward_hook, register_module_forward_pre_hook
from ..ops.primitive import MODE, user_source
from ..optim import Optimizer
from ..optim.hooks import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from ..optim.lr_scheduler.schedule import ScheduleEnded
from ..tensor import Tensor
from ..tensor.anomaly import fault_of
from ..tensor.grad_modes import is_grad_enabled, no_grad
from ..tensor.handle import Handle
from ..tensor.state import STATE, WATCHERS
from ..tracing import CompiledStep
from .classes import labels_of, over_another_axis
from .doubled import doubled
from .facts import STEPS, Facts
from .origins import Origins, clipped_before_unscaling, has_values
from .shapes import unlike
from .signs import parts

#: how many losses are looked at for why parameters have no gradients, and for their sign
_LOOKS = 8
#: the least number of elements of a weight from which the size of an update is told
_LARGE = 16


#: optimizers that make one step each from which on none is expected to make another; and that many times the steps to
#: be watched after which nothing else is
_EACH, _MANY = 3, 5


class Enough(BaseException):
    """Ends a script when its first steps have been seen; no `except Exception` of its own stops this."""


#: modules that behave otherwise in training
_TELL_TRAINING = ("Dropout", "BatchNorm", "AlphaDropout", "FeatureAlphaDropout", "RReLU")


class Watcher:
    """Collects the facts of a training. Learning rates are multiplied by `factor`; where that is 0, every step is
    undone, whatever the optimizer does, so that the losses are those of weights that stay as they are.
    """

    def __init__(self, factor: float, most: int = STEPS):
        self.facts, self.factor, self.most = Facts(), factor, most
        self.models: dict[int, Module] = {}
        self.optimizers: dict[int, Optimizer] = {}
        self.origins = Origins()
        self._steps: dict[int, int] = {}
        self._losses: list[Node] = []
        #: losses that nobody has asked for, by their lines: asked for, they would forget what they were made of
        self._values: list[tuple[str, Tensor]] = []
        #: why parameters had no gradient, by their ids
        self._reasons: dict[int, Alert] = {}
        #: modules in evaluation mode that were called, by their ids: their names, and the model
        self._evaluating: dict[int, tuple[str, Module]] = {}
        #: those of them that were called before a backward pass
        self._suspect: dict[str, Module] = {}
        #: of parts of losses of which the sign is known: the first that is right for minimizing, and that is not
        self._signs: dict[bool, tuple[str, str]] = {}
        #: what an optimizer is about to change: rates, and values by the ids of parameters
        self._rates: list[Any] = []
        #: labels of the losses since the last step
        self._labels: list[Tensor] = []
        #: those that had a step to themselves
        self._alone: set[int] = set()
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._weights: dict[int, np.ndarray] = {}
        self._nodes: dict[int, Node] = {}
        self._since_step = 0
        #: when an optimizer last found no gradients, as the number that the next node then had, and the line
        self._in_vain: tuple[int, str] | None = None
        #: of the losses since the last step what says why one is not finite, and its value
        self._faults: list[tuple[Callable[[], NonFiniteError | None], Tensor]] = []
        self._depth = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is done inside. Compiled steps are run as the functions that they were made of."""
        handles: list[Any] = [
            register_module_forward_pre_hook(self._before_call),
            register_module_forward_hook(self._after_call, always_call=True),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        unwatch, compiled = WATCHERS.add(self._meet), CompiledStep.__call__
        CompiledStep.__call__ = _plainly(compiled)  # type: ignore[method-assign]
        try:
            yield
        finally:
            CompiledStep.__call__ = compiled  # type: ignore[method-assign]
            unwatch()
            for handle in handles:
                handle.remove()

    # ---- calls of modules

    def _before_call(self, module: Module, args: Any) -> None:
        self._depth += 1
        if self._depth > 1 or STATE.trace is not None or not (module._modules or module._parameters):
            return
        if STATE.example is not None or STATE.loop is not None:  # where there are no values
            self.models.setdefault(id(module), module)
            return
        if not self.facts.called_at:
            self.facts.called_at = _line()
        self._look_at_inputs(args)
        self.models.setdefault(id(module), module)
        if is_grad_enabled():
            self.facts.calls += 1
            self._stop_where_nothing_follows()
            self._look_at_mode(module)

    def _after_call(self, module: Module, args: Any, result: Any) -> None:
        self._depth -= 1

    def _look_at_mode(self, module: Module) -> None:
        """Note what is in evaluation mode; what is frozen with it, or not trained at all, is so on purpose."""
        is_trained = any(p.requires_grad for p in module.parameters())
        parts = dict(module.named_modules())
        for name, part in parts.items():
            if not any(each.__name__.startswith(_TELL_TRAINING) for each in type(part).__mro__):
                continue
            if part._training and getattr(part, "p", 0.0) == 1 and name not in self.facts.dropped:
                self.facts.dropped.append(name)
            is_frozen = not any(p.requires_grad for p in _around(name, parts))
            if part._training or not is_trained or is_frozen:
                self._evaluating.pop(id(part), None)
            else:
                self._evaluating[id(part)] = name or type(part).__name__, module

    def _look_at_inputs(self, args: Any) -> None:
        given = next((a for a in args if isinstance(a, Tensor) and a.dtype.is_floating_point), None)
        if given is not None and self.facts.inputs is None and given.numel():
            values = given.detach().float().numpy().astype(np.float64)
            self.facts.inputs = float(values.mean()), float(values.std()), float(abs(values).max())

    # ---- backward passes

    def _meet(self, node: Node, what: str, owner: Handle | None) -> None:
        if STATE.trace is not None:
            return
        if what == "gradient" and owner is not None:
            if owner._grad is not None and owner._grad._node is node:
                self.origins.receive(owner, node, _line())
                self.facts.clipped_scaled = self.facts.clipped_scaled or clipped_before_unscaling(node)
            else:  # of autograd.grad: it may be assigned, and is added to nothing
                self.origins.owners[id(owner)] = owner
        elif what == "pulled":
            self.facts.pulled += 1
        elif what == "loss":
            self._begin_backward(node)

    def _begin_backward(self, node: Node) -> None:
        facts, line = self.facts, _line()
        facts.backwards += 1
        facts.backward_at = facts.backward_at or line
        if self._in_vain is not None and node.serial < self._in_vain[0]:
            facts.stepped_early_at = facts.stepped_early_at or self._in_vain[1]
        self._in_vain = None
        self._suspect.update(self._evaluating.values())
        self.origins.begin()
        self._since_step += 1
        self._losses = [*self._losses, node] if self._since_step > 1 else [node]
        value = Tensor(node).detach().sum()
        self._values.append((line, value))
        if facts.not_finite is None:
            self._faults.append((fault_of(node), value))
        if facts.backwards <= _LOOKS:
            self._look_at_sign(node)
            facts.doubled = facts.doubled or next(doubled(node), None)
            facts.unlike = facts.unlike or unlike(node)
            facts.other_axis = facts.other_axis or over_another_axis(node)
        if facts.steps < _LOOKS:
            self._labels += [Tensor(labels).detach() for labels in labels_of(node)]
        if not facts.steps:
            self._look_for_changes_by_hand()
        self._stop_where_nothing_follows()

    def _look_at_sign(self, loss: Node) -> None:
        for part in parts(loss):
            self._signs.setdefault(part.is_right, (part.operation, part.source))

    def _look_for_changes_by_hand(self) -> None:
        nodes = {key: owner._node for key, owner in self.origins.owners.items()}
        changed = any(self._nodes.get(key, node) is not node for key, node in nodes.items())
        self.facts.changed_by_hand = self.facts.changed_by_hand or changed
        self._nodes = nodes

    # ---- steps of optimizers

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        facts = self.facts
        is_new = id(optimizer) not in self.optimizers
        self.optimizers[id(optimizer)] = optimizer
        facts.stepped_at = facts.stepped_at or _line()
        if self._since_step and facts.backwards <= _LOOKS:
            self._look_at_structure()  # before anything is computed, which forgets what it was made of
        self._look_whether_losses_are_finite()
        rates = [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
        if is_new:
            facts.rates += rates
            self._keep_weights(optimizer)
        elif len(self.optimizers) == 1:
            facts.rates_rise = facts.rates_rise or any(map(float.__gt__, rates, facts.rates))
            left = [now / first for now, first in zip(rates, facts.rates, strict=False) if first]
            facts.rates_left = max(left, default=1.0)
        decays = (
            float(group.get("lr", 0.0)) * float(group.get("weight_decay", 0.0)) for group in optimizer.param_groups
        )
        facts.decay = max(facts.decay, *decays, 0.0)
        if not _has_closure(args, kwargs):
            self._look_at_gradients(_parameters(optimizer))
        self._change_rates(optimizer)

    def _look_at_gradients(self, parameters: list[Tensor]) -> None:
        facts = self.facts
        stale = self.origins.use(parameters)
        if stale:
            facts.uncleared += 1
            facts.uncleared_at = facts.uncleared_at or stale
        elif not any(p._grad is not None and has_values(p._grad) for p in parameters):
            self._in_vain = next_serial(), _line()
            if not any(id(p) in self.origins.owners for p in parameters):
                facts.without_gradients += 1
            elif self.origins.is_made_zero(parameters):
                facts.zero_gradients += 1
            elif self._since_step:
                self._look_at_what_made_zeros(parameters)
        elif not facts.backwards:
            facts.are_assigned = True

    def _look_at_what_made_zeros(self, parameters: list[Tensor]) -> None:
        """Tell gradients that were cleared, None or zeros anew, from those that something was computed with."""
        nodes = [p._grad._node for p in parameters if p._grad is not None]
        made = next((n.source for n in nodes if n.op.name != "expand" and n.source is not None), None)
        if made is None:
            self.facts.cleared_too_late_at = self.facts.cleared_too_late_at or _line()
        else:
            self.facts.zeroed_by = self.facts.zeroed_by or (made.operation, str(made))

    def _look_whether_losses_are_finite(self) -> None:
        """While what they were made of is there: a step writes over it."""
        faults, self._faults = self._faults, []
        for fault, value in faults:
            if self.facts.not_finite is None and not math.isfinite(float(value.item())):
                found = fault()
                if found is not None:
                    self.facts.not_finite = str(found), f"{found.filename}:{found.lineno}", self.facts.steps

    def _look_at_structure(self) -> None:
        """Note why parameters are without gradients, while it can still be seen."""
        known = {*self.origins.owners, *self._reasons}
        missing = [p for model in self.models.values() for p in model.parameters() if id(p) not in known]
        for p in missing:
            found = structural(self._losses, [Member("", p._node, p.requires_grad, False, True)])
            self._reasons.update((id(p), alert) for alert in found)

    def _keep_weights(self, optimizer: Optimizer) -> None:
        weights = [p for p in _parameters(optimizer) if p.ndim > 1 and p.numel() >= _LARGE and p._grad is not None]
        self._weights = {id(p): p.detach().float().numpy().astype(np.float64) for p in weights}

    def _change_rates(self, optimizer: Optimizer) -> None:
        groups = optimizer.param_groups
        self._rates = [group.get("lr") for group in groups]
        if self.factor == 0:
            for p in _parameters(optimizer):
                self._kept.setdefault(id(p), (p, p.detach().clone()))
        elif self.factor != 1:
            for group in groups:
                if "lr" in group:
                    group["lr"] = group["lr"] * self.factor

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if _has_closure(args, kwargs):
            self._look_at_gradients(_parameters(optimizer))
            # a line search asks for more losses, of weights that it only tries
            self._values = [(line, value) for line, value in {line: v for line, v in reversed(self._values)}.items()]
        if self.factor == 0:
            with no_grad():
                for p, value in self._kept.values():
                    p.copy_(value)
        elif self.factor != 1:
            for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
                if "lr" in group:
                    group["lr"] = rate
        self._look_at_first_update(optimizer)
        self._steps[id(optimizer)] = self._steps.get(id(optimizer), 0) + 1
        self.facts.steps = max(self._steps.values())
        self._since_step = 0
        self._read_losses()
        self._read_labels()
        if self.facts.steps >= self.most or (self.facts.steps == 1 and len(self.optimizers) >= _MANY * self.most):
            raise Enough

    def _look_at_first_update(self, optimizer: Optimizer) -> None:
        kept, self._weights = self._weights, {}
        before = after = 0.0
        for p in _parameters(optimizer) if kept else ():
            old = kept.get(id(p))
            if old is not None and old.any():
                before += float(np.square(old).sum())
                after += float(np.square(p.detach().float().numpy() - old).sum())
        if before:
            self.facts.first_update = max(self.facts.first_update, math.sqrt(after / before))

    def _read_losses(self) -> None:
        values, self._values = self._values, []
        for line, value in values:
            loss = float(value.item())
            self.facts.losses.setdefault(line, []).append(loss if math.isfinite(loss) else math.inf)

    def _read_labels(self) -> None:
        given, self._labels = self._labels, []
        values = np.concatenate([labels.numpy().ravel() for labels in given]) if given else np.zeros(0, np.int64)
        values = values[values >= 0]  # others have no part in the loss
        if values.size > 1:
            self.facts.labels += int(values.size)
            self.facts.labelled += 1
            if (values == values[0]).all():
                self.facts.alike += 1
                self._alone.add(int(values[0]))
                self.facts.alone = len(self._alone)

    def _stop_where_nothing_follows(self) -> None:
        facts = self.facts
        if not facts.steps and (facts.backwards > self.most or facts.calls > 3 * self.most):
            raise Enough

    # ---- the end

    def run(self, function: Callable[[], object]) -> Facts:
        """Call the function, and give the facts of what it did."""
        facts = self.facts
        try:
            # a schedule may be shorter than what is watched
            with suppress(Enough, ScheduleEnded), self.watching():
                function()
        except SystemExit as ended:
            if ended.code not in (None, 0):
                facts.error = "SystemExit", str(ended.code), ""
        except Exception as error:
            facts.error = type(error).__name__, str(error), _raised_at(error)
            if isinstance(error, GradientError) and isinstance(error.root, Node):
                facts.severed = self._severed(error.root)
        if facts.error is None:
            self._read_losses()
        groups = [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]
        facts.optimizers = len(self.optimizers)
        facts.made_anew = self._made_anew()
        facts.maximizes = bool(groups) and all(group.get("maximize", False) for group in groups)
        if (not facts.maximizes) not in self._signs:
            facts.turned = self._signs.get(facts.maximizes)
        self._sum_up()
        return facts

    def _made_anew(self) -> tuple[int, bool] | None:
        """See `Facts.made_anew`: optimizers that keep nothing for parameters may be made for each step."""
        optimizers, facts = list(self.optimizers.values()), self.facts
        shapes = {tuple(p.shape for p in _parameters(optimizer)) for optimizer in optimizers}
        if facts.steps != 1 or len(optimizers) < _EACH or len(shapes) > 1 or facts.backwards < len(optimizers):
            return None
        every = [{id(p) for p in _parameters(optimizer)} for optimizer in optimizers]
        are_others = len(set[int]().union(*every)) == sum(map(len, every))
        kept = (value for o in optimizers for state in o.state.values() for value in state.values())
        keeps = any(value is not None for value in kept)
        return (len(optimizers), are_others) if are_others or keeps else None

    def _severed(self, loss: Node) -> tuple[str, str]:
        """Where and how the way from the parameters to a loss without a graph is cut; empty where there is no way."""
        history = sorted(ancestors([loss], stop_at_buffers=False), key=lambda node: node.serial)
        trained = [p for model in self.models.values() for p in model.parameters() if p.requires_grad]
        cut = next((found for p in trained if (found := cut_of(history, p._node)) is not None), None)
        return ("", "") if cut is None else (str(cut.source or ""), how_cut(cut))

    def _sum_up(self) -> None:
        """What is known of each parameter at the end: a gradient that came later is one."""
        facts, received = self.facts, self.origins.owners
        optimized = {id(p) for optimizer in self.optimizers.values() for p in _parameters(optimizer)}
        for name, model in self._suspect.items():  # but not those of a teacher
            if any(id(p) in received and (id(p) in optimized or not optimized) for p in model.parameters()):
                facts.evaluating.append(name)
        seen: set[int] = set()
        # the whole before its parts, where some of them are called by themselves too
        for model in sorted(self.models.values(), key=lambda m: -sum(1 for _ in m.modules())):
            own = [(name, p) for name, p in model.named_parameters() if id(p) not in seen]
            seen.update(id(p) for _, p in own)
            is_trained = any(id(p) in optimized for _, p in own)
            facts.parameters += len(own)
            for name, p in own:
                if not p.requires_grad:
                    facts.resting += id(p) not in optimized
                    facts.frozen += [name] if id(p) in optimized else []
                elif id(p) in received and id(p) not in optimized and is_trained:
                    facts.structure.append(_not_stepped(name, p))
                elif id(p) in optimized and p.ndim > 1 and self.origins.is_zero(p):
                    facts.structure.append(_zero(name))
                elif id(p) in self._reasons and id(p) in optimized and id(p) not in received:
                    alert = self._reasons[id(p)]
                    facts.structure.append((alert.kind, name, alert.reason, alert.remedy))
        for key, owner in received.items():  # of layers that no module knows, as those in a list
            if optimized and key not in seen | optimized and isinstance(owner, Parameter) and not facts.strangers:
                facts.structure.append(_of_no_module(f"a parameter {list(owner.shape)}"))
        if facts.structure and received and not received.keys() & (seen | optimized):
            facts.made_of_number_at = facts.backward_at
        facts.loose = sum(
            p.requires_grad for o in self.optimizers.values() for p in _parameters(o) if id(p) not in seen
        )
        with_gradients = seen & received.keys()
        if optimized and with_gradients and not optimized & received.keys():
            facts.strangers = len(optimized), len(with_gradients)


def _around(name: str, parts: Mapping[str, Module]) -> list[Tensor]:
    """The parameters of a module or, where it has none, as dropout, those of the next one around it that has."""
    while name and next(parts[name].parameters(), None) is None:
        name = name.rpartition(".")[0]
    return [*parts[name].parameters()]


def _of_no_module(name: str) -> tuple[str, str, str, str]:
    return (
        "not_in_optimizer", name, "it has a gradient, and no module and no optimizer knows it",
        "keep layers in nn.ModuleList or nn.Sequential: model.parameters() does not find what stands in a list",
    )  # fmt: skip


def _zero(name: str) -> tuple[str, str, str, str]:
    return (
        "zero_gradient", name, "it is 0 everywhere, and so is its gradient at each step: nothing comes through zeros",
        "draw weights at random, as nn.init does",
    )  # fmt: skip


def _not_stepped(name: str, parameter: Tensor) -> tuple[str, str, str, str]:
    """Why a parameter with a gradient was not updated."""
    others = (one for one in gc.get_objects() if isinstance(one, Optimizer))
    if any(parameter is p for optimizer in others for p in _parameters(optimizer)):
        return (
            "not_stepped", name, "it has a gradient, and the step() of its optimizer was not called",
            "call step() of each optimizer after backward()",
        )  # fmt: skip
    return (
        "not_in_optimizer", name, "it has a gradient, and no optimizer knows it",
        "give the optimizer model.parameters() after all parts of the model have been made, or add_param_group",
    )  # fmt: skip


def _has_closure(args: Any, kwargs: Any) -> bool:
    """Whether step() is to compute loss and gradients itself."""
    return bool(args and args[0] is not None) or kwargs.get("closure") is not None


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _plainly(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """A way to call compiled steps in which only the updates of optimizers are compiled."""

    def call(self: CompiledStep, *args: Any, **kwargs: Any) -> Any:
        is_update = str(getattr(self.function, "__module__", "")).startswith(Optimizer.__module__.rpartition(".")[0])
        return compiled(self, *args, **kwargs) if is_update else self.function(*args, **kwargs)

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


__all__ = ["Enough", "Watcher"]
