"""Functions that run as programs: which recording fits a call, and a new one where none does."""

from __future__ import annotations

import copy
import functools
import sys
import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from types import FunctionType, MethodType
from typing import Any, NamedTuple, NoReturn, Self
from weakref import ref

import numpy as np

from .. import debug, forks, timeline
from ..errors import MemoryBudgetError, TraceError
from ..graph.node import Node, next_serial
from ..graph.types import bfloat16
from ..memory import Plan, WouldHelp, address_space, available_bytes, over_budget, too_large
from ..ops.primitive import MODE
from ..runtime.fit import BFLOAT16, BLOCKS, Budget
from ..runtime.program import UNLIMITED, Program
from ..runtime.report import reported
from ..tensor import Tensor
from ..tensor.autocast_mode import autocast
from ..tensor.creation import from_numpy
from ..tensor.handle import RECEIVERS, Handle
from ..tensor.promotion import Default
from ..tensor.state import STATE
from ..trees import flatten, unflatten
from .check import Check, check, checked_directions
from .divided import Divided, Untold
from .finite import IGNORE, RAISE, Policy
from .kinds import Kind, first_places, has_history, is_hooked, signature
from .relations import Related, along, findings, name_of
from .replay import MISFIT, Replay
from .surroundings import Surroundings
from .trace import Trace
from .turns import STEPS, without_collections
from .ways import Way, choose, would_help

#: from this many recordings of one function on, each further one warns
_MANY_VARIANTS = 16
#: how many recordings for the same shapes, dtypes and values of arguments are kept
_KEPT_VARIANTS = 32
_NO_ROOTS: list[Handle] = []
#: under which attribute an object keeps the steps that are its methods
_BOUND_STEPS = "_pullback_bound_steps"


class _Call(NamedTuple):
    """What a call was recorded for, but for its arguments, of which there are `arity`: see `CompiledStep._record`."""

    key: Hashable
    shape: Any
    bound: frozenset[int]
    arity: int


#: what there may be too little of beside memory
_OF_ADDRESSES = " of its address space, which has a limit (ulimit -v),"


class _Free(NamedTuple):
    """Bytes that a run needs, those that there are, and of what if not of memory."""

    needed: int
    available: int | None
    of: str = ""


class _Refused(BaseException):
    """A recording that is not run, since it takes too much memory: more than the budget, or, where that is `free`, of
    what the machine has or the process may map. No error of the user's: what would help is found, and raised with it,
    when no step is running any more.
    """

    def __init__(self, recording: Replay, call: _Call, leaves: list[Any], free: _Free | None = None):
        super().__init__()
        self.recording, self.call, self.leaves, self.free = recording, call, leaves, free


def _lock_of(step: ref[CompiledStep]) -> threading.RLock:
    """What whoever runs a step holds."""
    found = step()
    return found._alone if found is not None else threading.RLock()


class CompiledStep:
    """A function that runs as one native program. Made by `pullback.compile`."""

    #: for code that cannot import this class
    is_compiled_step = True

    def __init__(
        self, function: Callable[..., Any], budget: Budget = UNLIMITED, on_nonfinite: str = RAISE,
        check_every: int | None = None, check_directions: int = 1,
    ):  # fmt: skip
        is_function = isinstance(function, (FunctionType, MethodType))
        functools.update_wrapper(self, function, updated=("__dict__",) if is_function else ())
        self.__name__: str = getattr(function, "__name__", type(function).__name__)
        self.budget = budget
        #: what is done where a loss or a gradient is not finite
        self.policy = Policy(on_nonfinite)
        #: after how many calls the step is compared with the reference again; None: never
        self.check_every, self.check_directions = check_every, check_directions
        self._variants: dict[Hashable, list[Replay]] = {}
        self._last: Replay | None = None
        #: how the last call was, since most are like the one before
        self._recent: Kind | None = None
        self._recordings, self._parts = 0, 1
        #: held while a recording is fed, run and taken in: two threads' calls come one after the other
        forks.register(self)
        self.function = function  # last: from here on a module's attributes are set where they belong

    def renew_locks(self) -> None:
        """In a forked child another thread of the parent may have held the lock."""
        self._alone = threading.RLock()

    def __repr__(self) -> str:
        count = sum(map(len, self._variants.values()))
        return f"<compiled step {self.__name__} with {count} recording{'' if count == 1 else 's'}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if STATE.trace is not None:
            return self.function(*args, **kwargs)
        try:
            if not timeline.LISTENERS:
                return self._call(args, kwargs)
            with timeline.span("step", self.__name__):
                return self._call(args, kwargs)
        except _Refused as found:
            refused = found
        raise self._refusal(refused)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """The step as a method of `instance`: a step of its own, with recordings of its own, that the instance keeps.

        Kept by anything else it would keep the instance, which its recordings know, from ever being collected.
        """
        if instance is None:
            return self
        if isinstance(instance, type):
            return MethodType(self, instance)
        held = getattr(instance, "__dict__", None)
        if held is None:
            raise TraceError(
                f"{self.__name__} is a compiled method, and a {type(instance).__name__} keeps its attributes in "
                "__slots__, with no place for recordings of its own. Leave out __slots__, or compile a function that "
                "is given the object's tensors."
            )
        bound = held.get(_BOUND_STEPS)
        if bound is None or bound.owner is not instance:  # a shallow copy comes with those of its original
            bound = held[_BOUND_STEPS] = _BoundSteps(instance)
        step = bound.steps.get(self)
        if step is None:
            step = bound.steps.setdefault(self, CompiledStep(MethodType(self.function, instance), *self._options()))
        return step

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.check_every is not None and self.policy.calls % self.check_every == 0:
            self._checked(args, kwargs, self.check_directions)
        self.policy.calls += 1
        kind, roots = self._recent, _NO_ROOTS
        leaves = None if kwargs or kind is None else kind.leaves_of(args)
        if kind is None or leaves is None:
            kind, leaves, roots = self._kind_of(args, kwargs)
            self._recent = kind
        if MODE.anomaly and any(map(self._is_blind, kind.variants)):
            return self._plainly(kind, leaves)
        alone = STEPS.begin_run()
        try:
            with self._alone:
                for variant in kind.variants:
                    result = variant.attempt([*leaves, *roots] if roots else leaves, alone)
                    if result is not MISFIT:
                        self._last = variant
                        return result
        finally:
            STEPS.end_run()
        with STEPS.recording(), without_collections(), reported("record", self.__name__) as report:
            hooked = frozenset(place for place, leaf in enumerate(leaves) if is_hooked(leaf))
            variant = self._record_to_budget(kind.key, leaves, kind.shape, hooked)
            report.program = variant.program
        if "plan" in debug.get("debug"):
            print(self._plan_of(variant), file=sys.stderr)
        if MODE.anomaly and self._is_blind(variant):
            return self._plainly(kind, leaves)
        alone = STEPS.begin_run()
        try:
            with self._alone:
                self._last = variant
                return variant.run([*leaves, *roots], alone)
        finally:
            STEPS.end_run()

    def _is_blind(self, variant: Replay) -> bool:
        """Whether `detect_anomaly` would see nothing of a run: the function is then called in its place."""
        return self.policy.on_nonfinite != IGNORE and not (variant.guard is not None and variant.guard.is_of_the_step)

    def _plainly(self, kind: Kind, leaves: list[Any]) -> Any:
        """Call the function itself, with what a recording is given."""
        args, kwargs = unflatten(kind.shape, leaves)
        return self.function(*args, **kwargs)

    def _kind_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Kind, list[Any], list[Handle]]:
        """Which recordings are for a call, its arguments one by one, and the roots of which some are views."""
        leaves, shape = flatten((args, kwargs))
        leaves = [from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
        related = Related(leaves)
        modes = MODE.grad, MODE.autocast[:2], Default.floating
        key = (shape, modes, first_places(leaves), related.families, *map(signature, leaves))
        return Kind(key, shape, self._variants.setdefault(key, []), leaves), leaves, related.roots

    def plan(self, *args: Any, **kwargs: Any) -> Plan:
        """What a call with these arguments would hold in memory and compute: see `pullback.plan`."""
        kind, leaves, roots = self._kind_of(args, kwargs)
        for variant in kind.variants:
            if variant.is_for([*leaves, *roots]):
                self._parts = variant.parts
                return self._plan_of(variant)
        with STEPS.recording(), without_collections(), reported("record", self.__name__) as report:
            hooked = frozenset(place for place, leaf in enumerate(leaves) if is_hooked(leaf))
            variant = self._record_to_budget(kind.key, leaves, kind.shape, hooked, planned=True)
            report.program = variant.program
            return self._plan_of(variant)

    def plan_in(self, way: Way, args: Sequence[Any]) -> tuple[Plan, int]:
        """What a call would hold in memory and compute that is recorded in this way, and into how many parts its batch
        is divided. Raises Untold where it cannot be recorded so.
        """
        kind, leaves, _ = self._kind_of(tuple(args), {})
        hooked = frozenset(place for place, leaf in enumerate(leaves) if is_hooked(leaf))
        variant = self._record(kind.key, leaves, kind.shape, hooked, way, planned=True)
        return self._plan_of(variant), min(variant.parts, max(variant.divisible, 1))

    def check(self, *args: Any, directions: int = 1, **kwargs: Any) -> Check:
        """Compare what the compiled step computes on these arguments with what it should compute; nothing changes.

        Each kernel's values are compared with those of the NumPy reference in float64 on the same operands, the
        program's results with those of the recording as a whole, and gradients with finite differences of what they
        differentiate, along `directions` random directions (0: not at all, as for straight-through estimators). Raises
        CheckError with the first kernel, its line and its module. Takes many times as long as a step, and holds every
        value in float64; the function is recorded anew, so that its Python runs once.

        >>> model = pb.nn.Linear(4, 1)
        >>> optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
        >>> @pb.compile
        ... def step(x):
        ...     optimizer.zero_grad()
        ...     loss = model(x).square().mean()
        ...     loss.backward()
        ...     optimizer.step()
        ...     return loss
        >>> sorted(step.check(pb.ones(8, 4)).gradients)
        ['bias', 'weight']
        """
        if STATE.trace is not None:
            raise TraceError("step.check() inside of a compiled step: the step is only recorded there. Call it outside")
        try:
            return self._checked(args, kwargs, checked_directions(directions))
        except _Refused as found:
            refused = found
        raise self._refusal(refused)

    def _checked(self, args: tuple[Any, ...], kwargs: dict[str, Any], directions: int) -> Check:
        kind, leaves, roots = self._kind_of(args, kwargs)
        kept, total = list(kind.variants), self._recordings
        STATE.audits = []
        try:
            with STEPS.recording(), without_collections(), reported("record", self.__name__) as report:
                hooked = frozenset(place for place, leaf in enumerate(leaves) if is_hooked(leaf))
                variant = self._record_to_budget(kind.key, leaves, kind.shape, hooked)
                report.program = variant.program
        finally:
            STATE.audits = None
            kind.variants[:], self._recordings = kept, total
        return check(variant, [*leaves, *roots], directions)

    def _plan_of(self, variant: Replay) -> Plan:
        kept = variant.unbudgeted_bytes
        return Plan(variant.program, variant.roles, self.__name__, variant.allowed, self.budget.nbytes, kept)

    def _refuse_too_large(self, recording: ref[Replay], call: _Call, leaves: list[Any]) -> None:
        """Raise _Refused for a recording that does not keep to the budget, or that there is no memory for."""
        variant = recording()
        assert variant is not None
        budget, peak = self.budget.nbytes, variant.program.memory.peak
        if isinstance(budget, int) and peak > budget:
            raise _Refused(variant, call, leaves)
        needed, mapped = variant.new_bytes(leaves)
        for free in (_Free(needed, available_bytes()), _Free(mapped, address_space(), _OF_ADDRESSES)):
            if free.available is not None and free.needed > free.available:
                raise _Refused(variant, call, leaves, free)

    def _refusal(self, refused: _Refused) -> MemoryBudgetError:
        """The error for a recording that was refused, with what would bring its memory down."""
        variant, budget = refused.recording, self.budget.nbytes
        if refused.free is None:
            assert isinstance(budget, int)
            return over_budget(self._plan_of(variant), budget, self._would_help(refused, budget))
        needed, available, of = refused.free
        assert available is not None
        limit = variant.program.memory.peak - needed + available
        return too_large(self._plan_of(variant), needed, available, self._would_help(refused, limit), of)

    def _would_help(self, refused: _Refused, limit: int) -> WouldHelp:
        call, leaves = refused.call, refused.leaves[: refused.call.arity]
        variants = self._variants[call.key]
        kept = list(variants)

        def record(way: Way) -> Replay:
            return self._record(call.key, leaves, call.shape, call.bound, way, planned=True)

        try:
            with STEPS.recording(), without_collections():
                return would_help(record, self.budget, limit, refused.recording)
        finally:
            variants[:] = kept

    def _options(self) -> tuple[Budget, str, int | None, int]:
        return self.budget, self.policy.on_nonfinite, self.check_every, self.check_directions

    def __copy__(self) -> Self:
        """A step of the same function, without recordings."""
        return type(self)(self.function, *self._options())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A step without recordings: of the same function, or of the copy where it is a method or a module."""
        return type(self)(copy.deepcopy(self.function, memo), *self._options())

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"a compiled step ({self.__name__}) cannot be pickled: it holds native programs. "
            "Pickle what the function needs, such as state_dict(), and call pullback.compile again."
        )

    @property
    def memory(self) -> Held:
        """What the last call held in memory: `step.memory.peak_bytes`."""
        return Held(self.program.held_bytes())

    @property
    def program(self) -> Program:
        """The program of the last call."""
        if self._last is None:
            raise TraceError("the step has not been called yet, so there is no program")
        return self._last.program

    @property
    def skipped(self) -> int:
        """How many calls changed nothing because a loss or a gradient was not finite (`on_nonfinite="skip"`)."""
        return self.policy.skipped

    @property
    def parts(self) -> int:
        """Into how many parts the last call, or the last plan, divides what `accumulate` is to divide by itself."""
        return self._parts

    def _record_to_budget(
        self, key: Hashable, leaves: list[Any], shape: Any, bound: frozenset[int], planned: bool = False
    ) -> Replay:
        """Record a call in the way that keeps to the budget in the least time: in as many parts as it asks for where
        `accumulate` leaves that open, and with the changes that it allows where they are needed.
        """
        variants = self._variants.setdefault(key, [])
        kept, unbudgeted = list(variants), list[int]()
        self._count_recordings()

        def record(way: Way) -> Replay:
            recording = self._record(key, leaves, shape, bound, way, planned=planned)
            unbudgeted.append(recording.program.unbudgeted_bytes)
            return recording

        variant = choose(record, self.budget)
        # the first one has the whole batch in one, and nothing is changed
        variant.unbudgeted_bytes = unbudgeted[0]
        call = _Call(key, shape, bound, len(leaves))
        variant.before_first = functools.partial(self._refuse_too_large, ref(variant), call)
        variant.lock = functools.partial(_lock_of, ref(self))
        variants[:] = [*kept[-(_KEPT_VARIANTS - 1) :], variant]
        self._parts = variant.parts
        return variant

    def _count_recordings(self) -> None:
        """Count a recording, with all that are made to choose among for it, and warn where there are many."""
        total, self._recordings = self._recordings, self._recordings + 1
        if total >= _MANY_VARIANTS and total % _MANY_VARIANTS == 0:
            warnings.warn(
                f"{self.__name__} has been compiled {total} times: each shape, dtype and Python value of an "
                "argument, and each object that is bound to a name in its code, makes a program of its own. Pass what "
                "changes as tensors, and pad changing shapes.",
                stacklevel=5,
            )

    def _record(
        self, key: Hashable, leaves: list[Any], shape: Any, bound: frozenset[int], way: Way,
        linked: frozenset[int] = frozenset(), grads: frozenset[int] = frozenset(), planned: bool = False,
    ) -> Replay:  # fmt: skip
        """Record a call. `bound` are the places of arguments that the function also knows as its own: the recording is
        for these very tensors then, since any other would not change along with it; so it is for the gradients of
        `grads`, by their tensors' ids. `linked` are the roots of views among the arguments, by number, that take the
        place of these. Nothing is compiled where it is only `planned`.
        """
        variants = self._variants.setdefault(key, [])
        trace = Trace(next_serial(), planned, grads, parts=way.parts, blocks=BLOCKS in way.changes)
        trace.surroundings = Surroundings(self.function, trace, leaves)
        related = Related(leaves)
        proxies, arguments = list(leaves), []
        made: dict[int, Tensor] = {}
        between = []
        STATE.trace = trace
        if STATE.audits is not None:  # those of a recording that this one takes the place of are none of its own
            STATE.audits = []

        def argument(position: int, leaf: Handle) -> Tensor:
            node = trace.new_input(leaf._node, leaf.requires_grad)
            made[id(leaf)] = proxy = Tensor(node)
            if leaf.requires_grad:
                RECEIVERS[node] = ref(proxy)
            arguments.append((position, proxy, node))
            return proxy

        try:
            for number in sorted(linked):
                root = argument(len(leaves) + number, related.roots[number])
                for place in related.members(number):
                    views = along(root, related.paths.get(place, ()))
                    made.setdefault(id(leaves[place]), views[-1])
                    between.append(views)  # which a detached one does not keep alive
            for position, leaf in enumerate(leaves):
                if isinstance(leaf, Handle) and id(leaf) in made:
                    proxies[position] = made[id(leaf)]
                elif isinstance(leaf, Handle) and position not in bound:
                    proxies[position] = argument(position, leaf)
            if way.divided:
                if bound or linked:
                    raise Untold("an argument is a view of another, or a tensor that the function knows")
                trace.planned, trace.divided = True, Divided(self.function, shape, proxies, trace)
                result = trace.divided.run()
            elif way.lowered:
                result = self._lowered(shape, proxies)
            else:
                args, kwargs = unflatten(shape, proxies)
                result = self.function(*args, **kwargs)
            name = functools.partial(name_of, self.function, shape)
            budget, divided = way.budget, trace.divisible and way.budget.nbytes is not None
            if divided or budget.allow - {BFLOAT16}:
                trace.planned = True  # programs among which one is chosen need not be compiled
            if divided and not way.fitted:
                budget = replace(budget, nbytes=None)
            found = findings(trace, related, leaves, arguments, bound, linked, name)
            fits = (found.bound, found.linked, found.grads) == (bound, linked, grads)
            if fits:
                self._check_histories(leaves, arguments, name)
            variant = (
                Replay(trace, arguments, result, leaves, related, found, budget, self.policy, way.changes, STATE.audits)
                if fits
                else None
            )
        finally:
            STATE.trace = None
            trace.restore()
        if variant is None:
            return self._record(key, leaves, shape, found.bound, way, found.linked, found.grads, planned)
        if len(variants) >= _KEPT_VARIANTS:
            del variants[0]
        variants.append(variant)
        return variant

    def _check_histories(
        self, leaves: list[Any], arguments: list[tuple[int, Tensor, Node]], name: Callable[[int], str]
    ) -> None:
        """Raise TraceError where the gradient of an argument would have to go on to what that was computed from."""
        for place, proxy, _ in arguments:
            if place < len(leaves) and proxy._grad is not None and has_history(leaves[place]):
                raise TraceError(
                    f"{self.__name__} calls backward(), and {name(place)} was computed from something else that "
                    f"requires grad (at {leaves[place]._node.source}): its gradient could not leave the step. Compute "
                    "it inside the step, or pass it with .detach()."
                )

    def _lowered(self, shape: Any, proxies: list[Any]) -> Any:
        """What the function gives in a region of autocast, for which it may not be written."""
        args, kwargs = unflatten(shape, proxies)
        try:
            with autocast("cpu", bfloat16):
                return self.function(*args, **kwargs)
        except Exception as error:  # whatever the user's code raises for dtypes that it does not expect
            raise Untold(f"it raises {type(error).__name__} there: {error}") from None


class Held(NamedTuple):
    """Bytes of tensors that a call really held at once: the program's arena, and the memory that its inputs and outputs
    lay in, each byte once. That is what the plan says, but where two inputs share memory (less), or where somebody
    holds old values that must stay (more).
    """

    peak_bytes: int


class CompiledModule(CompiledStep):
    """A module that runs as one native program. It has what the module has: parameters(), train(), attributes."""

    def __getattr__(self, name: str) -> Any:
        module = self.__dict__.get("function")
        if module is None or name.startswith("__"):
            raise AttributeError(f"a compiled module has no attribute {name!r}")
        return getattr(module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        module = self.__dict__.get("function")
        if module is None or name in self.__dict__:
            super().__setattr__(name, value)
        else:
            setattr(module, name, value)


class _BoundSteps:
    """The compiled methods of one object. A copy of the object gets none of them."""

    def __init__(self, owner: Any = None):
        self.owner = owner
        self.steps: dict[CompiledStep, CompiledStep] = {}

    def __reduce__(self) -> Any:
        return _BoundSteps, ()
