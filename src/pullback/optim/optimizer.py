"""Optimizer: groups of parameters, their hyperparameters and their state, in PyTorch's layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import ref

from ..errors import StateDictError, TraceError
from ..graph.node import Node, Shape
from ..graph.types import DType, float32, float64
from ..ops.primitive import MODE, user_source
from ..tensor import Tensor
from ..tensor.creation import full, tensor, zeros_like
from ..tensor.grad_modes import enable_grad, no_grad
from ..tensor.promotion import get_default_dtype
from ..tensor.state import STATE, outside_trace
from ..tensor.store import Store
from ..tracing import compile
from .followed import Members, Refresh, Settings, first_of
from .groups import (
    Group,
    check_keys,
    check_names,
    check_numbers,
    check_parameters,
    check_ways,
    listed,
    number,
    plain,
    required,
    split_names,
)
from .hooks import OptimizerHooks, register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from .saving import array_of, is_state, misfits, own_value, saved_number


@dataclass(frozen=True)
class Slot:
    """A tensor that an optimizer keeps for a parameter: its shape, what it starts as, and its dtype where that is not
    the parameter's.
    """

    shape: Shape
    start: float = 0.0
    dtype: DType | None = None


class Optimizer(OptimizerHooks):
    """The base of optimizers.

    `params` are tensors, pairs (name, tensor) as of `named_parameters()`, or dictionaries {"params": tensors,
    hyperparameters…}, each a group of its own. Every update is one composition of all parameters' new values, so that
    a compiled step writes each parameter in one pass.

    `param_groups[i]["lr"]` may be changed at any time, also between calls of a compiled step, which reads it before
    each call. A change of another hyperparameter has a compiled step recorded anew, unless a schedule makes it (see
    `follow`). Other keys of a group are the user's own and are kept, as in PyTorch; what is nearly the name of a
    hyperparameter raises ValueError.

    PyTorch's flags: `foreach`, `fused` and `capturable` choose among implementations of one and the same update; here
    there is one, fused over each parameter and its state, and any value of them gives it. `differentiable=True` raises
    ValueError.

    A subclass gives `_update`, and `_slots` and `_numbers` for what it keeps; or, as in PyTorch, a `step` of its own
    that changes `param_groups` and `state` as it likes.
    """

    def __init__(self, params: Tensor | Iterable[Any], defaults: Group):
        super().__init__()
        self.defaults = defaults | self._further
        self._state = _States()
        self.param_groups: list[Group] = []
        #: the learning rate of each group as a tensor of shape ()
        self._rates: list[Tensor] = []
        #: the numbers that those tensors hold, so that looking for a change reads no tensor
        self._written: list[float] = []
        #: further hyperparameters that programs read from tensors, by name: one tensor a group
        self._followed: dict[str, list[Tensor]] = {}
        #: the update as a step of its own, once it has been needed: by whether `detect_anomaly` looks at it
        self._alone: dict[bool, Callable[[list[list[Tensor | None]]], None]] = {}
        #: while an update is recorded, what has been computed of numbers that parameters share
        self._shared: dict[tuple[Any, int], Any] = {}
        found = listed(params, type(self).__name__)
        for group in found if isinstance(found[0], Mapping) else [{"params": found}]:
            self.add_param_group(group)

    #: the numbers of the state that are computed from themselves, in their own precision
    _growing: ClassVar[frozenset[str]] = frozenset()
    #: defaults of hyperparameters that a class adds to those of the one whose update it makes
    _further: Group = {}  # noqa: RUF012

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:
        """The tensors kept for each parameter, by name. Recorded steps follow whatever is changed in it."""
        return self._state

    @state.setter
    def state(self, value: Mapping[Tensor, Mapping[str, Any]]) -> None:
        held = dict(value)
        self._state.clear()
        self._state.update(held)

    # ---- groups

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with hyperparameters of their own; those not given are the defaults."""
        check_keys(param_group, self.defaults, type(self).__name__)
        params, names = split_names(param_group["params"])
        check_parameters(params, self.param_groups)
        check_names(names or param_group.get("param_names"), self.param_groups)
        group = {**self.defaults, **param_group, "params": params}
        if names is not None:
            group["param_names"] = names
        self._check_hyperparameters(group)
        value = number(group.get("lr", 0.0))
        with outside_trace():
            # what is computed of a tensor's rate is rounded to its dtype, as in PyTorch
            dtype = group["lr"].dtype if isinstance(group.get("lr"), Tensor) else float64
            self._rates.append(tensor(value, dtype=dtype))
            for name, tensors in self._followed.items():
                tensors.append(tensor(first_of(group[name]), dtype=float64))
        self._written.append(value)
        self.param_groups.append(group)

    def _withdraw_group(self) -> None:
        """Take back the group that was added last."""
        self.param_groups.pop(), self._rates.pop(), self._written.pop()
        for tensors in self._followed.values():
            tensors.pop()

    def _check_hyperparameters(self, group: Group) -> None:
        """Raise ValueError where a hyperparameter is out of its range."""
        check_ways(group)
        check_numbers(group)

    def follow(self, name: str) -> None:
        """Have compiled steps read "momentum", or the first of "betas", before each call as they do the learning rate,
        so that changing it records nothing anew. Schedules that change it ask for this."""
        if name not in ("momentum", "betas") or name not in self.defaults:
            raise ValueError(f"{type(self).__name__} has no {name!r} to follow (at {user_source()})")
        if name not in self._followed:
            with outside_trace():
                self._followed[name] = [tensor(first_of(group[name]), dtype=float64) for group in self.param_groups]

    # ---- stepping

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or make them zeros."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad = zeros_like(parameter.grad)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; `closure`, if given, computes the loss first and is its
        result.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        gradients = [[parameter.grad for parameter in group["params"]] for group in self.param_groups]
        if STATE.trace is not None:
            self._update_all(gradients)
        elif any(gradient is not None for of_group in gradients for gradient in of_group):
            self._compiled_update()(gradients)
        return loss

    def _update_all(self, gradients: list[list[Tensor | None]]) -> None:
        """Give every parameter with a gradient, and its state, the values that follow, inside a recording. Hooks of the
        kind "updated" are told which parameters, and what they were.
        """
        assert STATE.trace is not None
        STATE.trace.depend_on(self._hooks["updated"])
        before: list[tuple[Tensor, Node]] = []
        if self._hooks["updated"]:
            parameters = [parameter for group in self.param_groups for parameter in group["params"]]
            given = [gradient for of_group in gradients for gradient in of_group]
            before = [(p, p.node) for p, g in zip(parameters, given, strict=True) if g is not None]
        self._compute_updates(gradients)
        self._call("updated", before)

    def _compute_updates(self, gradients: list[list[Tensor | None]]) -> None:
        STATE.trace.guard(Members(ref(self)))  # type: ignore[union-attr]
        with no_grad():
            given = [
                [(p, g) for p, g in zip(group["params"], of_group, strict=True) if g is not None]
                for group, of_group in zip(self.param_groups, gradients, strict=True)
            ]
            for group, pairs in zip(self.param_groups, given, strict=True):
                self._prepare([p for p, _ in pairs], group)
            for place, (group, rate) in enumerate(zip(self.param_groups, self._rates, strict=True)):
                pairs = given[place]
                if not pairs:
                    continue
                options = self._follow(group, place)
                parameters = [p for p, _ in pairs]
                counters = self._shared_numbers(parameters, group)
                states = [self.state[p] for p in parameters]
                STATE.trace.depend_on(self.state, *states)  # type: ignore[union-attr]
                for parameter, state in zip(parameters, states, strict=True):
                    held = ((id(value), (name, id(parameter))) for name, value in state.items())
                    STATE.trace.optimizer_state.update(held)  # type: ignore[union-attr]
                for numbers in counters:
                    self._begin(numbers, options)
                for parameter, gradient in pairs:
                    signed = -gradient if options.get("maximize") else gradient
                    self._update(parameter, signed, self.state[parameter], options, rate)
                for numbers in counters:
                    self._end(numbers, options, rate)
        self._shared.clear()

    def _once(self, number: Tensor, group: Group, make: Callable[[], Any]) -> Any:
        """What `make` computes of a number that many parameters of a group share, computed for the first of them."""
        key = number.node, id(group)
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def _compiled_update(self) -> Callable[[list[list[Tensor | None]]], None]:
        """`_update_all` as a compiled step, for code that is not compiled itself: building its graph anew at every step
        would take longer than a small network's forward and backward pass do.
        """
        looks = MODE.anomaly
        if looks not in self._alone:
            # recordings must not keep the optimizer alive that keeps them
            me = ref(self)

            def update(gradients: list[list[Tensor | None]]) -> None:
                optimizer = me()
                assert optimizer is not None
                optimizer._update_all(gradients)
                if looks:
                    optimizer._watch_states()

            update.__name__ = f"{type(self).__name__}.step"  # what plans and errors call it
            # code that is not compiled takes what comes, as in PyTorch
            self._alone[looks] = compile(update, on_nonfinite="raise" if looks else "ignore")
        return self._alone[looks]

    def _watch_states(self) -> None:
        """Have the step that is being recorded change nothing where a new value is not finite."""
        for group in self.param_groups:
            for parameter in group["params"]:
                STATE.watch(parameter.node, "update")
                for name, value in self.state.get(parameter, {}).items():
                    if isinstance(value, Tensor):
                        STATE.watch(value.node, "update", message=name)

    def __getstate__(self) -> dict[str, Any]:
        """A copy of an optimizer makes recordings of its own."""
        return {**vars(self), "_alone": {}, "_shared": {}}

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        """The new value of one parameter and of its state. `state["step"]` counts this step already."""
        raise NotImplementedError

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        """The tensors kept for a parameter, by name."""
        return {}

    def _numbers(self, group: Group) -> dict[str, float]:
        """The numbers kept for a parameter, by name, and what they start as; "step" counts its steps."""
        return {"step": 0.0}

    def _remedy(self, parameter: Tensor, held: Mapping[str, Any], group: Group) -> str:
        """What can be done about saved state that is other than what is kept for a parameter, as the end of a line."""
        return ""

    def _begin(self, numbers: dict[str, Tensor], group: Group) -> None:
        """Advance the numbers that the parameters of a step share, before it."""
        if "step" in numbers:
            numbers["step"].add_(1)

    def _end(self, numbers: dict[str, Tensor], group: Group, rate: Tensor) -> None:
        """Advance those that the step itself needed as they were."""

    def _refresh_rates(self) -> None:
        """Bring the tensors of the learning rates, and of what else is followed, up to date with the groups."""
        for place, group in enumerate(self.param_groups):
            value = number(group.get("lr", 0.0))
            if value != self._written[place]:
                if not math.isfinite(value):
                    raise ValueError(f"Invalid learning rate: it must be finite, got {value!r} (at {user_source()})")
                self._rates[place].fill_(value)
                self._written[place] = value
            for name, tensors in self._followed.items():
                tensors[place].copy_(tensor(first_of(group[name]), dtype=float64))

    def _follow(self, group: Group, place: int) -> Group:
        """Have the program see what the user changes in the group between two calls; gives the group as the program
        knows it, where what is followed is a tensor and all else a number."""
        assert STATE.trace is not None
        STATE.trace.before_call(Refresh(ref(self)))
        if not isinstance(group["lr"], Tensor) and group["lr"] != self._written[place]:
            raise TraceError(
                f"the learning rate was changed from {self._written[place]} to {group['lr']} between two step() of "
                f"one compiled function (at {user_source()}): all steps of a function take the rate from before "
                "the call. Change it between calls."
            )
        followed = {name: tensors[place] for name, tensors in self._followed.items()}
        STATE.trace.guard(Settings(group, followed))
        options = {key: plain(value) if key in self.defaults else value for key, value in group.items()}
        for name, value in followed.items():
            held = options[name]
            # what is zero stays a number: there is no state then, and whether it is zero is part of the recording
            if first_of(held):
                options[name] = (value, *held[1:]) if isinstance(held, tuple) else value
        return options

    def _prepare(self, parameters: list[Tensor], group: Group) -> None:
        """Make the state of parameters that have none.

        Parameters whose first step was the same, and that have had a gradient at every step since, share their numbers.
        """
        starts, prepare = self._numbers(group), STATE.trace.prepare  # type: ignore[union-attr]
        with outside_trace():
            fresh: dict[str, Tensor] = {}
            for parameter in parameters:
                if parameter not in self.state:
                    prepare(self.state, parameter, Store())
                held = self.state[parameter]
                slots = self._slots(parameter, group)
                # what has state but no counter comes from a dictionary without one, and has begun
                begun = any(name in held for name in slots)
                for name, start in starts.items():
                    if name not in held and begun:
                        prepare(held, name, scalar(1.0 if name == "step" else start))
                    elif name not in held:
                        if name not in fresh:
                            fresh[name] = scalar(start)
                        prepare(held, name, fresh[name])
                for name, slot in slots.items():
                    if name not in held:  # it is allocated when the step is known to have room
                        prepare(held, name, full(slot.shape, slot.start, dtype=slot.dtype or parameter.dtype))

    def _shared_numbers(self, parameters: list[Tensor], group: Group) -> list[dict[str, Tensor]]:
        """The numbers of a step's parameters, each set once; parameters without a gradient are left with the old."""
        names = list(self._numbers(group))
        if not names:
            return []
        sets = {id(self.state[p][names[0]]): {name: self.state[p][name] for name in names} for p in parameters}
        for numbers in sets.values():
            first = numbers[names[0]]
            sharing = {p for p in group["params"] if p in self.state and self.state[p].get(names[0]) is first}
            behind = sharing - set(parameters)
            if not behind:
                continue
            if STATE.trace is not None and id(first) in STATE.trace.captured:
                raise TraceError(
                    f"which parameters have gradients changed between two steps of one compiled function (at "
                    f"{user_source()}); call step() once in it"
                )
            with outside_trace():
                left = {name: _ready(value.clone()) for name, value in numbers.items()}
            for parameter in behind:
                self.state[parameter].update(left)
        return list(sets.values())

    # ---- saving

    def state_dict(self) -> dict[str, Any]:
        """{"state": {number of the parameter: its tensors}, "param_groups": [hyperparameters and numbers]}."""
        self._call("state_dict_pre")
        numbers = {p: n for n, p in enumerate(p for group in self.param_groups for p in group["params"])}
        state = {
            numbers[p]: {name: self._saved(value) for name, value in held.items()}
            for p, held in self.state.items()
            if held
        }
        groups = [
            {**{k: v for k, v in group.items() if k != "params"}, "params": [numbers[p] for p in group["params"]]}
            for group in self.param_groups
        ]
        return self._pass_through("state_dict_post", {"state": dict(sorted(state.items())), "param_groups": groups})

    def _saved(self, value: Any) -> Any:
        """A value of the state as state_dict() gives it."""
        return value.detach() if isinstance(value, Tensor) else value

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take state and hyperparameters of the same kind of optimizer over parameters of the same shapes.

        The dictionary may be this library's or PyTorch's. Raises StateDictError, with nothing changed, where groups or
        shapes differ, codes or their scales are of another dtype, values are not finite, counters or scales are below
        0, or where it is no state of an optimizer.
        """
        if isinstance(state_dict, Mapping):
            state_dict = self._pass_through("load_pre", dict(state_dict))
        if not is_state(state_dict):
            raise StateDictError(
                f"this is not the state of an optimizer, which has state and param_groups (at {user_source()})"
            )
        saved_groups, saved_state = state_dict["param_groups"], state_dict["state"]
        faults = misfits(self, saved_groups, saved_state)
        if faults:
            lines = [f"the state dictionary does not fit this {type(self).__name__} (at {user_source()}):", *faults]
            raise StateDictError("\n".join(lines))
        with outside_trace(), no_grad():
            for group, saved in zip(self.param_groups, saved_groups, strict=True):
                group.update({key: own_value(value) for key, value in saved.items() if key != "params"})
                held = [
                    {name: value for name, value in saved_state.get(place, {}).items() if value is not None}
                    for place in saved["params"]
                ]
                self._load(group, held)
        self._call("load_post")

    def _load(self, group: Group, held: list[dict[str, Any]]) -> None:
        """Take over what is held for each parameter of a group: into the tensors that are there where they are of the
        same names, so that what is recorded goes on.
        """
        if not self._is_known:
            for parameter, values in zip(group["params"], held, strict=True):
                self.state[parameter] = {name: own_value(value) for name, value in values.items()}
            return
        names = list(dict.fromkeys(("step", *self._numbers(group))))
        numbers = self._loaded_numbers(group["params"], held, names)
        for parameter, values, counted in zip(group["params"], held, numbers, strict=True):
            dtypes = {name: slot.dtype or parameter.dtype for name, slot in self._slots(parameter, group).items()}
            tensors = {n: _ready(tensor(array_of(v)).to(dtypes[n])) for n, v in values.items() if n not in names}
            own = self.state.get(parameter, {})
            if own.keys() == tensors.keys() | counted.keys() and all(own[n] is value for n, value in counted.items()):
                for name, value in tensors.items():
                    own[name].copy_(value)
            else:
                both = {**tensors, **counted}
                # in the order that they were saved in, so that what is saved next is the same
                self.state[parameter] = {name: both[name] for name in values}

    def _loaded_numbers(
        self, parameters: list[Tensor], held: list[dict[str, Any]], names: list[str]
    ) -> list[dict[str, Tensor]]:
        """The numbers for each parameter: those that it has, brought to the loaded values, where the parameters that
        share them are loaded with the same; else new ones for all parameters of the same values.
        """
        values = [
            {name: self._loaded_number(name, state[name], parameter) for name in names if name in state}
            for parameter, state in zip(parameters, held, strict=True)
        ]
        states = [self.state.get(parameter, {}) for parameter in parameters]
        own = [{name: state[name] for name in names if name in state} for state in states]
        pairs = [(tensors[n], v[n]) for tensors, v in zip(own, values, strict=True) for n in tensors if n in v]
        shared = {id(tensor): value for tensor, value in pairs}
        fits = all(
            o.keys() == v.keys() and all(shared[id(o[n])] == v[n] and (o[n].dtype is float64) >= v[n][1] for n in o)
            for o, v in zip(own, values, strict=True)
        )
        if fits:
            for tensors, numbers in zip(own, values, strict=True):
                for name, number_tensor in tensors.items():
                    number_tensor.fill_(numbers[name][0])
            return own
        made: dict[Any, dict[str, Tensor]] = {}
        for numbers in values:
            key = tuple(numbers.items())
            if key not in made:
                made[key] = {name: scalar(*value) for name, value in numbers.items()}
        return [made[tuple(numbers.items())] for numbers in values]

    def _loaded_number(self, name: str, value: Any, parameter: Tensor) -> tuple[float, bool]:
        """A saved number, and whether it is kept in float64: our own as it was saved, so that a run goes on with the
        same bits. PyTorch brings its own to the parameter's dtype, which matters to the `_growing`.
        """
        saved, double = saved_number(value)
        follows = name in self._growing and not isinstance(value, Tensor)
        return saved, parameter.dtype is float64 if follows else double

    @property
    def _is_known(self) -> bool:
        """Whether `_slots` and `_numbers` say what the state holds, and not a `step` of a user's own."""
        return type(self)._update is not Optimizer._update

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for place, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {place}")
            lines += [f"    {key}: {value}" for key, value in sorted(group.items()) if key != "params"]
        return "\n".join([*lines, ")"])


class _States(Store):
    """The state of each parameter, a store of its own, empty at first."""

    def __missing__(self, parameter: Tensor) -> Any:
        self[parameter] = {}
        return self[parameter]

    def __setitem__(self, parameter: Tensor, state: Mapping[str, Tensor]) -> None:
        super().__setitem__(parameter, state if isinstance(state, Store) else Store(state))


def _ready(made: Tensor) -> Tensor:
    """The tensor with its value computed and in memory of its own."""
    made._buffer()
    return made


def scalar(value: float, double: bool = False) -> Tensor:
    """A number of the state: float32 as PyTorch keeps it, float64 where that is the default dtype."""
    return _ready(full((), value, dtype=float64 if double or get_default_dtype() is float64 else float32))


def alike(parameter: Tensor, *names: str) -> dict[str, Slot]:
    """Slots of the parameter's shape that start as zeros."""
    return {name: Slot(parameter.shape) for name in names}


def is_on(value: Any) -> bool:
    """Whether a hyperparameter is other than zero; a tensor that is followed always is."""
    return isinstance(value, Tensor) or bool(value)


def power(base: float | Tensor, exponent: Tensor) -> Tensor:
    """base ** exponent for a base from 0 to 1 and a number of steps, in float64."""
    if isinstance(base, Tensor):
        return (exponent * base.log()).exp()
    return (exponent * math.log(base)).exp() if base else exponent * 0


__all__ = [
    "Group",
    "Optimizer",
    "Slot",
    "alike",
    "is_on",
    "power",
    "register_optimizer_step_post_hook",
    "register_optimizer_step_pre_hook",
    "required",
    "scalar",
]
