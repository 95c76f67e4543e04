"""Functions that run as programs: which recording fits a call, and a new one where none does."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import threading
import warnings
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FunctionType, MethodType
from typing import Any, NamedTuple, NoReturn, Self
from weakref import ref

import numpy as np

from .. import forks, timeline
from ..errors import TraceError
from ..graph.node import next_serial
from ..graph.types import from_numpy as array_dtype
from ..memory import Plan, available_bytes, budget_of, over_budget, too_large
from ..ops.primitive import MODE
from ..runtime.fit import BFLOAT16, BLOCKS, Budget
from ..runtime.program import UNLIMITED, Program
from ..runtime.report import reported
from ..tensor import Tensor
from ..tensor.creation import from_argument, from_numpy
from ..tensor.handle import RECEIVERS, STATE, Handle
from ..tensor.promotion import Default
from ..trees import flatten, unflatten
from .check import Check, check, checked_directions
from .finite import RAISE, Policy
from .parts import meets
from .recordable import is_module, refuse
from .relations import Related, along, findings, name_of
from .replay import MISFIT, Replay
from .surroundings import Surroundings
from .trace import Trace
from .ways import Way, choose, peaks_allowed

#: from this many recordings of one function on, each further one warns
_MANY_VARIANTS = 16
#: how many recordings for the same shapes, dtypes and values of arguments are kept
_KEPT_VARIANTS = 32
_NO_ROOTS: list[Handle] = []
#: how long a fork waits for the steps of other threads, in seconds
_LONGEST_WAIT = 20.0
#: under which attribute an object keeps the steps that are its methods
_BOUND_STEPS = "_pullback_bound_steps"


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
        self._recent: _Kind | None = None
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
        if not timeline.LISTENERS:
            return self._call(args, kwargs)
        with timeline.span("step", self.__name__):
            return self._call(args, kwargs)

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
        alone = _STEPS.begin_run()
        try:
            with self._alone:
                for variant in kind.variants:
                    result = variant.attempt([*leaves, *roots] if roots else leaves, alone)
                    if result is not MISFIT:
                        self._last = variant
                        return result
        finally:
            _STEPS.end_run()
        with _STEPS.recording(), _without_collections(), reported("record", self.__name__) as report:
            hooked = frozenset(place for place, leaf in enumerate(leaves) if _is_hooked(leaf))
            variant = self._record_to_budget(kind.key, leaves, kind.shape, hooked)
            report.program = variant.program
        alone = _STEPS.begin_run()
        try:
            with self._alone:
                self._last = variant
                return variant.run([*leaves, *roots], alone)
        finally:
            _STEPS.end_run()

    def _kind_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Kind, list[Any], list[Handle]]:
        """Which recordings are for a call, its arguments one by one, and the roots of which some are views."""
        leaves, shape = flatten((args, kwargs))
        leaves = [from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
        related = Related(leaves)
        modes = MODE.grad, MODE.autocast[:2], Default.floating
        key = (shape, modes, _first_places(leaves), related.families, *map(_signature, leaves))
        return _Kind(key, shape, self._variants.setdefault(key, []), leaves), leaves, related.roots

    def plan(self, *args: Any, **kwargs: Any) -> Plan:
        """What a call with these arguments would hold in memory and compute: see `pullback.plan`."""
        kind, leaves, _ = self._kind_of(args, kwargs)
        with _STEPS.recording(), _without_collections(), reported("record", self.__name__) as report:
            hooked = frozenset(place for place, leaf in enumerate(leaves) if _is_hooked(leaf))
            variant = self._record_to_budget(kind.key, leaves, kind.shape, hooked, planned=True)
            report.program = variant.program
        return self._plan_of(variant)

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
        return self._checked(args, kwargs, checked_directions(directions))

    def _checked(self, args: tuple[Any, ...], kwargs: dict[str, Any], directions: int) -> Check:
        kind, leaves, roots = self._kind_of(args, kwargs)
        kept, total = list(kind.variants), self._recordings
        STATE.audits = []
        try:
            with _STEPS.recording(), _without_collections(), reported("record", self.__name__) as report:
                hooked = frozenset(place for place, leaf in enumerate(leaves) if _is_hooked(leaf))
                variant = self._record_to_budget(kind.key, leaves, kind.shape, hooked)
                report.program = variant.program
        finally:
            STATE.audits = None
            kind.variants[:], self._recordings = kept, total
        return check(variant, [*leaves, *roots], directions)

    def _plan_of(self, variant: Replay) -> Plan:
        return Plan(variant.program, variant.roles, self.__name__, variant.allowed, self.budget.nbytes)

    def _refuse_too_large(self, recording: ref[Replay], leaves: list[Any]) -> None:
        """Raise MemoryBudgetError for a recording that does not keep to the budget, or that there is no memory for."""
        variant = recording()
        assert variant is not None
        budget, peak = self.budget.nbytes, variant.program.memory.peak
        if isinstance(budget, int) and peak > budget:
            raise over_budget(self._plan_of(variant), budget, variant.peaks_allowed)
        needed, available = variant.new_bytes(leaves), available_bytes()
        if available is not None and needed > available:
            raise too_large(self._plan_of(variant), needed, available)

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
        kept, total = list(variants), self._recordings

        def record(way: Way) -> Replay:
            return self._record(key, leaves, shape, bound, way, planned=planned)

        variant = choose(record, self.budget)
        if not planned and isinstance(self.budget.nbytes, int) and not meets(variant, self.budget.nbytes):
            variant.peaks_allowed = peaks_allowed(record, self.budget, variant)
        variants[:] = [*kept[-(_KEPT_VARIANTS - 1) :], variant]
        self._recordings, self._parts = total + 1, variant.parts
        return variant

    def _record(
        self, key: Hashable, leaves: list[Any], shape: Any, bound: frozenset[int], way: Way,
        linked: frozenset[int] = frozenset(), planned: bool = False,
    ) -> Replay:  # fmt: skip
        """Record a call. `bound` are the places of arguments that the function also knows as its own: the recording is
        for these very tensors then, since any other would not change along with it. `linked` are the roots of views
        among the arguments, by number, that take the place of these. Nothing is compiled where it is only `planned`.
        """
        variants = self._variants.setdefault(key, [])
        total, self._recordings = self._recordings, self._recordings + 1
        if total >= _MANY_VARIANTS and total % _MANY_VARIANTS == 0:
            warnings.warn(
                f"{self.__name__} has been compiled {total} times: each shape, dtype and Python value of an "
                "argument, and each object that is bound to a name in its code, makes a program of its own. Pass what "
                "changes as tensors, and pad changing shapes.",
                stacklevel=5,
            )
        trace = Trace(first_serial=next_serial(), planned=planned, parts=way.parts, blocks=BLOCKS in way.changes)
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
            args, kwargs = unflatten(shape, proxies)
            result = self.function(*args, **kwargs)
            budget, divided = way.budget, trace.divisible and way.budget.nbytes is not None
            if divided or budget.allow - {BFLOAT16}:
                trace.planned = True  # programs among which one is chosen need not be compiled
            if divided and not way.fitted:
                budget = replace(budget, nbytes=None)
            name = functools.partial(name_of, self.function, shape)
            found = findings(trace, related, leaves, arguments, bound, linked, name)
            fits = (found.bound, found.linked) == (bound, linked)
            variant = (
                Replay(trace, arguments, result, leaves, related, found, budget, self.policy, way.changes, STATE.audits)
                if fits
                else None
            )
        finally:
            STATE.trace = None
            trace.restore()
        if variant is None:
            return self._record(key, leaves, shape, found.bound, way, found.linked, planned)
        if len(variants) >= _KEPT_VARIANTS:
            del variants[0]
        variant.before_first = functools.partial(self._refuse_too_large, ref(variant))
        variants.append(variant)
        return variant


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


class _Kind:
    """Calls that the same recordings are for, and a short way to tell that another call is one of them: it has plain
    tensors or arrays by position, all different ones, each as before.
    """

    __slots__ = ("_autocast", "_default", "_expected", "_grad", "key", "shape", "variants")

    def __init__(self, key: Hashable, shape: Any, variants: list[Replay], leaves: list[Any]):
        self.key, self.shape, self.variants = key, shape, variants
        self._grad, self._autocast, self._default = MODE.grad, MODE.autocast, Default.floating
        is_flat = shape == flatten(((None,) * len(leaves), {}))[1] and len(set(map(id, leaves))) == len(leaves)
        #: shape, dtype and whether gradients are wanted of each argument; None for calls that are not of this sort
        self._expected: list[tuple[Any, ...]] | None = None
        if is_flat and all(map(_is_plain, leaves)):
            self._expected = [(leaf._node.shape, leaf._node.dtype, leaf._node.requires_grad) for leaf in leaves]

    def leaves_of(self, args: tuple[Any, ...]) -> list[Any] | None:
        """The arguments as tensors, where the call is known at once to be of this kind; else None."""
        expected = self._expected
        if expected is None or len(args) != len(expected):
            return None
        if MODE.grad is not self._grad or MODE.autocast is not self._autocast:
            return None
        if Default.floating is not self._default:
            return None
        leaves: list[Any] = []
        if not expected:
            return leaves
        for leaf, (shape, dtype, requires_grad) in zip(args, expected, strict=True):
            if type(leaf) is np.ndarray:
                if leaf.shape != shape or requires_grad or array_dtype(leaf.dtype) != dtype:
                    return None
                leaves.append(from_argument(leaf, dtype))
                continue
            if not _is_plain(leaf):
                return None
            node = leaf._node
            if node.shape != shape or node.dtype is not dtype or node.requires_grad is not requires_grad:
                return None
            leaves.append(leaf)
        return leaves if len(leaves) < 2 or len(set(map(id, leaves))) == len(leaves) else None


def _is_plain(leaf: Any) -> bool:
    """Whether the leaf is a tensor that has its value from nowhere else, and no hooks."""
    return (
        type(leaf) is Tensor and leaf._link is None and leaf._alias is None and not (leaf._hooks or leaf._accumulated)
    )


class _BoundSteps:
    """The compiled methods of one object. A copy of the object gets none of them."""

    def __init__(self, owner: Any = None):
        self.owner = owner
        self.steps: dict[CompiledStep, CompiledStep] = {}

    def __reduce__(self) -> Any:
        return _BoundSteps, ()


def _first_places(leaves: list[Any]) -> tuple[int, ...]:
    """For each tensor among the arguments where it stands first: the same tensor given twice is one."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(id(leaf), place) for place, leaf in enumerate(leaves) if isinstance(leaf, Handle))


@contextmanager
def _without_collections() -> Iterator[None]:
    """No garbage is collected meanwhile: a recording makes tens of thousands of objects that stay, and each time that
    some more are there Python would look through all of them, and all of the caller's, for cycles.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Steps:
    """Steps run side by side; while one is recorded, which touches tensors that others may use, no other goes on.

    A run enters itself and then looks for a recorder; a recorder enters itself and then looks for runs. Whichever comes
    second sees the other, so a run takes no lock unless somebody records.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._running: dict[int, int] = {}
        self._recorder = 0
        #: who recorded before this thread forked, or None where it waited in vain
        self._before_fork: int | None = None

    def before_fork(self) -> None:
        """Wait for the steps of other threads, which would be half done in the child for ever. A thread that itself
        waits for the one that forks is not waited for longer than some seconds.
        """
        me = threading.get_ident()
        with self._changed:
            self._before_fork = None
            if not self._changed.wait_for(lambda: self._recorder in (0, me), _LONGEST_WAIT):
                return
            self._before_fork, self._recorder = self._recorder, me
            self._changed.wait_for(lambda: list(self._running) in ([], [me]), _LONGEST_WAIT)

    def after_fork_in_parent(self) -> None:
        """Let the other threads go on."""
        if self._before_fork is not None:
            with self._changed:
                self._recorder = self._before_fork
                self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Know no more of threads that are not there."""
        me = threading.get_ident()
        self._changed = threading.Condition(threading.RLock())
        self._running = {thread: depth for thread, depth in self._running.items() if thread == me}
        self._recorder = self._before_fork or 0

    def begin_run(self) -> bool:
        """Wait until nothing is being recorded by another thread. Gives whether this is the only run now."""
        me = threading.get_ident()
        running = self._running
        depth = running[me] = running.get(me, 0) + 1
        while self._recorder and self._recorder != me:
            self.end_run()
            with self._changed:
                while self._recorder not in (0, me):
                    self._changed.wait()
            running[me] = running.get(me, 0) + 1
        return depth == 1 and len(running) == 1

    def end_run(self) -> None:
        """The run that this thread began last is over."""
        me = threading.get_ident()
        left = self._running.pop(me) - 1
        if left:
            self._running[me] = left
        if self._recorder and self._recorder != me:
            with self._changed:
                self._changed.notify_all()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Wait until no other thread records or runs a step."""
        me = threading.get_ident()
        with self._changed:
            while self._recorder not in (0, me):
                self._changed.wait()
            before, self._recorder = self._recorder, me
            while list(self._running) not in ([], [me]):
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._recorder = before
                self._changed.notify_all()


_STEPS = _Steps()
forks.around(_STEPS.before_fork, _STEPS.after_fork_in_parent, _STEPS.after_fork_in_child)


def _is_hooked(leaf: Any) -> bool:
    """Whether an argument has hooks: its recordings are for this very tensor."""
    return isinstance(leaf, Handle) and bool(leaf._hooks or leaf._accumulated)


def _signature(leaf: Any) -> Hashable:
    """What of an argument a recording depends on."""
    if isinstance(leaf, Handle):
        return leaf._node.shape, leaf.dtype, leaf.requires_grad, _is_hooked(leaf)
    try:
        hash(leaf)
    except TypeError:
        raise TraceError(
            f"an argument of a compiled step is a {type(leaf).__name__}, which is neither a tensor, nor a container of "
            "them, nor hashable. Pass tensors, and keep other objects in the function's closure."
        ) from None
    return type(leaf), leaf


def compile(
    function: Callable[..., Any] | None = None,
    *,
    memory: int | float | str | None = None,
    policy: Callable[[Any], str | None] | None = None,
    allow: Collection[str] | None = None,
    on_nonfinite: str = RAISE,
    check_every: int | None = None,
    check_directions: int = 1,
    **unknown: Any,
) -> Any:
    """Make `function`, such as a whole training step, one native program; also usable as a decorator.

    The function is recorded at the first call with new shapes and dtypes of its arguments, and run as recorded after
    that. Tensors that it touches (parameters, optimizer state, random generators, `.grad`) are taken as they are at
    each call and hold their new values afterwards. Python code in it runs only while recording: values of tensors are
    not to be had there (`item()`, `if tensor:`). Arguments other than tensors and containers of them must be hashable,
    and each value makes a recording of its own.

    What the function finds outside may be bound to something else between calls, which makes a new recording:
    globals and closure variables that its code names, functions and classes among them, or that the code of functions,
    methods and properties it names; one level deep what stands in lists, dictionaries and deques, and their subclasses
    (of at most 1,000 elements), and under attributes of objects, also in `__slots__`, of classes and of Python modules
    (not those that are installed or Python's own); parameters, buffers, parts, training flags, `forward` and other
    attributes of modules; groups and state of optimizers; the default dtype. A NumPy array that is given to `tensor`
    is read anew at each call.

    Not followed is what is reached by other ways: getattr with a computed name, a container in a container, an object
    in an attribute of an object, the order of a dictionary, sets, iterators and arrays of the standard library; numbers
    that Python takes out of a NumPy array, and arrays that are computed from others; defaults of functions that are
    changed; the environment, files and clocks. Random numbers of Python's `random` and of `numpy.random` are those of
    the recording in every call: draw with Pullback's own functions, or pass them as arguments.

    Arguments may be views of one another or of tensors that the function knows: where one of these is written, all
    change along, and a recording is made for each way in which they are related. Where that cannot be, because a view
    was made a leaf, TraceError is raised.

    A place of these kinds that the function binds to a tensor it has computed holds the new tensor after each call;
    TraceError is raised if the function also uses the tensor that stood there. Other things that Python code does,
    such as counting in a variable or appending to a list, happen only while recording.

    It may be a method, decorated in its class or bound (`pb.compile(trainer.step)`), and a module: each object then
    has recordings of its own, and its attributes are followed as said above. A compiled module has the attributes of
    the module. Generators, asynchronous functions and classes are refused with TypeError. A process may fork while
    other threads are in steps: the fork waits for these to end (20 seconds at most, in case they wait for it).

    `memory` is a budget for what a call holds in tensors at once: bytes, a text such as "1.5GiB", or "least", which is
    the least that can be had for about one more forward pass. What it has no room for is computed again when it is
    needed, with the same bits. MemoryBudgetError is raised, before anything runs, where it cannot be kept, and also
    where a call needs more than the machine has free. `policy` may say of each value that could be computed again
    whether to "keep" or to "recompute" it; None leaves it to the compiler. It is asked about `Candidate`s.

    `allow` names what may be changed where the budget is not kept otherwise, or not as cheaply (docs/memory.md):
    "early-update" (a parameter is updated as soon as its gradient is complete, and `.grad` is None afterwards),
    "blocks" (the output layer and its cross entropy in blocks of rows) and "bfloat16" (float32 activations wait for the
    backward pass in bfloat16). Without it every budget gives the same bits as none.

    Where the function calls backward() and changes state, the state stays as it was, to the bit, at a call in which a
    loss or a gradient of a leaf is not finite. `on_nonfinite` says what then: "raise" NonFiniteError, which names the
    operation that made the NaN or infinity and its line; "skip", which returns as always, counts in `step.skipped` and
    warns once; "rollback", which returns as always and leaves the rest to the `Guard` whose batches the loop runs over
    (without one it raises); or "ignore", with which nothing is looked at and the state takes what comes. Where a budget
    makes use of "early-update" the loss alone is looked at, since no update waits for the gradients of other parameters
    then.

    With `check_every=k` the first call and every k-th after it are preceded by `step.check(...)` on their arguments,
    which raises CheckError where the program does not compute what it should, before anything has changed;
    `check_directions` are the directions in which slopes are looked at, 0 where a gradient is not meant to be a slope.

    >>> w = pb.ones(3, requires_grad=True)
    >>> @pb.compile
    ... def step(x):
    ...     w.grad = None
    ...     loss = (w * x).sum()
    ...     loss.backward()
    ...     with pb.no_grad():
    ...         w.sub_(0.125 * w.grad)
    ...     return loss
    >>> step(pb.ones(3)).item(), step(pb.ones(3)).item()
    (3.0, 2.625)
    """
    if unknown:
        known = [name for name in inspect.signature(compile).parameters if name != "unknown"]
        raise TypeError(f"compile() has no argument {', '.join(unknown)}; its arguments are: {', '.join(known)}")
    if function is None:
        return functools.partial(
            compile, memory=memory, policy=policy, allow=allow, on_nonfinite=on_nonfinite, check_every=check_every,
            check_directions=check_directions,
        )  # fmt: skip
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(
            compile(
                function.__func__, memory=memory, policy=policy, allow=allow, on_nonfinite=on_nonfinite,
                check_every=check_every, check_directions=check_directions,
            )
        )  # fmt: skip
    if check_every is not None and (not isinstance(check_every, int) or check_every < 1):
        raise ValueError(f"compile: check_every must be a number of calls from 1 on, or None, got {check_every!r}")
    checked_directions(check_directions)
    refuse(function)
    kind = CompiledModule if is_module(function) else CompiledStep
    return kind(function, budget_of(memory, policy, allow), on_nonfinite, check_every, check_directions)
