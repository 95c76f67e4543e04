"""Optimizer: groups of parameters, their hyperparameters and their state, in PyTorch's layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import ref

import numpy as np

from ..errors import GradientError, StateDictError, TraceError
from ..graph.types import float32, float64
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import full, tensor, zeros
from ..tensor.grad_modes import enable_grad, no_grad
from ..tensor.handle import STATE, Store, outside_trace
from ..tracing import compile

Group = dict[str, Any]


class Optimizer:
    """The base of optimizers. A subclass gives `_update`, and `_state_names`, the tensors it keeps for a parameter.

    `params` are tensors, or dictionaries {"params": tensors, hyperparameters…}, each a group of its own. Every
    update is
    one composition of all parameters' new values, so that a compiled step writes each parameter in one pass.

    `param_groups[i]["lr"]` may be changed at any time, also between calls of a compiled step, which reads it before
    each call. A change of another hyperparameter has a compiled step recorded anew.
    """

    def __init__(self, params: Tensor | Iterable[Any], defaults: Group):
        self.defaults = defaults
        self._state = _States()
        self.param_groups: list[Group] = []
        #: the learning rate of each group as a tensor of shape (), float64
        self._rates: list[Tensor] = []
        #: the numbers that those tensors hold, so that looking for a change reads no tensor
        self._written: list[float] = []
        #: the update as a step of its own, once it has been needed
        self._alone: Callable[[list[list[Tensor | None]]], None] | None = None
        if isinstance(params, Tensor):
            raise TypeError(
                f"{type(self).__name__} takes an iterable of tensors or of groups, got one tensor (at "
                f"{user_source()}); "
                "write [tensor]"
            )
        listed = list(params)
        if not listed:
            raise ValueError(
                f"{type(self).__name__} got no parameters (at {user_source()}): an empty list, or a generator "
                f"that was used "
                "up. Pass model.parameters()."
            )
        for group in listed if isinstance(listed[0], Mapping) else [{"params": listed}]:
            self.add_param_group(group)

    @property
    def state(self) -> dict[Tensor, dict[str, Tensor]]:
        """The tensors kept for each parameter, by name. Recorded steps follow whatever is changed in it."""
        return self._state

    @state.setter
    def state(self, value: Mapping[Tensor, Mapping[str, Tensor]]) -> None:
        held = dict(value)
        self._state.clear()
        self._state.update(held)

    # ---- groups

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with hyperparameters of their own; those not given are the defaults."""
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise TypeError(
                f'a parameter group must be a dictionary with "params", got {param_group!r} (at {user_source()})'
            )
        unknown = [key for key in param_group if key not in self.defaults and key not in ("params", "initial_lr")]
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no hyperparameter {', '.join(map(repr, unknown))} (at "
                f"{user_source()}); it has "
                f"{', '.join(self.defaults)}"
            )
        held = param_group["params"]
        group = {**self.defaults, **param_group, "params": [held] if isinstance(held, Tensor) else list(held)}
        self._check_parameters(group["params"])
        self._check_hyperparameters(group)
        value = _value(group["lr"])
        with outside_trace():
            self._rates.append(tensor(value, dtype=float64))
        self._written.append(value)
        self.param_groups.append(group)

    def _check_parameters(self, params: list[Any]) -> None:
        seen = {id(p) for group in self.param_groups for p in group["params"]}
        for position, parameter in enumerate(params):
            if not isinstance(parameter, Tensor):
                raise TypeError(
                    f"parameter {position} is a {type(parameter).__name__}, not a tensor (at {user_source()})"
                    + ("; pass model.parameters(), not named_parameters()" if isinstance(parameter, tuple) else "")
                )
            what = f"parameter {position}, {parameter.dtype.name}{list(parameter.shape)},"
            if not parameter.is_leaf:
                raise GradientError(
                    f"{what} is not a leaf but computed (at {user_source()}): it would never get a gradient"
                )
            if not parameter.dtype.is_floating_point:
                raise TypeError(f"{what} is not floating point and cannot be optimized (at {user_source()})")
            if id(parameter) in seen:
                raise ValueError(f"{what} is given twice (at {user_source()}): it would be updated twice a step")
            seen.add(id(parameter))

    def _check_hyperparameters(self, group: Group) -> None:
        """Raise ValueError where a hyperparameter is out of its range."""
        rate = group["lr"]
        if isinstance(rate, Tensor) and rate.numel() != 1:
            raise ValueError(
                f"lr must be a number or a tensor of one element, got shape {list(rate.shape)} (at {user_source()})"
            )
        self._require("lr", _value(rate), 0.0)
        self._require("weight_decay", group["weight_decay"], 0.0)

    @staticmethod
    def _require(name: str, value: Any, low: float, below: float = math.inf) -> None:
        if not isinstance(value, (int, float)) or not low <= value < below:
            limit = "finite" if below == math.inf else f"below {below}"
            raise ValueError(f"{name} must be at least {low} and {limit}, got {value!r} (at {user_source()})")

    # ---- stepping

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or make them zeros."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad = parameter.grad.detach() * 0

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
        """Give every parameter with a gradient, and its state, the values that follow, inside a recording."""
        with no_grad():
            for number, (group, rate) in enumerate(zip(self.param_groups, self._rates, strict=True)):
                pairs = [(p, g) for p, g in zip(group["params"], gradients[number], strict=True) if g is not None]
                if not pairs:
                    continue
                self._prepare([p for p, _ in pairs], group)
                self._follow(group, number)
                STATE.trace.depend_on(self.state, *(self.state[p] for p, _ in pairs))  # type: ignore[union-attr]
                for parameter, gradient in pairs:
                    sign = -gradient if group.get("maximize") else gradient
                    self._update(parameter, sign, self.state[parameter], group, rate)

    def _compiled_update(self) -> Callable[[list[list[Tensor | None]]], None]:
        """`_update_all` as a compiled step, for code that is not compiled itself: building its graph anew at every step
        would take longer than a small network's forward and backward pass do.
        """
        if self._alone is None:
            # recordings must not keep the optimizer alive that keeps them
            me = ref(self)

            def update(gradients: list[list[Tensor | None]]) -> None:
                optimizer = me()
                assert optimizer is not None
                optimizer._update_all(gradients)

            self._alone = compile(update)
        return self._alone

    def __getstate__(self) -> dict[str, Any]:
        """A copy of an optimizer makes recordings of its own."""
        return {**vars(self), "_alone": None}

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        """The new value of one parameter and of its state. `state["step"]` counts this step already."""
        raise NotImplementedError

    def _state_names(self, group: Group) -> tuple[str, ...]:
        """The names of the state tensors of a parameter's own shape, which start at zero."""
        return ()

    def _counts_steps(self, group: Group) -> bool:
        """Whether there is a counter of steps in the state."""
        return True

    def _refresh_rates(self) -> None:
        """Bring the tensors of the learning rates up to date with the groups."""
        for number, group in enumerate(self.param_groups):
            value = _value(group["lr"])
            if value != self._written[number]:
                self._require("lr", value, 0.0)
                self._rates[number].copy_(tensor(value, dtype=float64))
                self._written[number] = value

    def _follow(self, group: Group, number: int) -> None:
        """Have the program see what the user changes in the group between two calls."""
        assert STATE.trace is not None
        STATE.trace.before_call(_Refresh(ref(self)))
        if not isinstance(group["lr"], Tensor) and group["lr"] != self._written[number]:
            raise TraceError(
                f"the learning rate was changed from {self._written[number]} to {group['lr']} between two step() of "
                f"one compiled function (at {user_source()}): all steps of a function take the rate from before "
                "the call. Change it between calls."
            )
        STATE.trace.guard(lambda: tuple((k, v) for k, v in group.items() if k not in ("params", "lr", "initial_lr")))

    def _prepare(self, parameters: list[Tensor], group: Group) -> None:
        """Make the state of parameters that have none, and count the step.

        Parameters whose first step was the same, and that have had a gradient at every step since, share one counter.
        """
        counts = self._counts_steps(group)
        with outside_trace():
            counter = _number(0.0, float32) if counts else None
            for parameter in parameters:
                held = self.state.setdefault(parameter, {})
                if counter is not None:
                    # what has state but no counter comes from a dictionary without one, and has begun
                    begun = any(name in held for name in self._state_names(group))
                    held.setdefault("step", _number(1.0, float32) if begun and "step" not in held else counter)
                for name in self._state_names(group):
                    if name not in held:
                        held[name] = _ready(zeros(parameter.shape, dtype=parameter.dtype))
        if counts:
            for shared in {id(c): c for c in (self.state[p]["step"] for p in parameters)}.values():
                self._count(shared, parameters, group)

    def _count(self, counter: Tensor, parameters: list[Tensor], group: Group) -> None:
        """Advance a counter; parameters without a gradient this time are left with the old one."""
        sharing = {p for p in group["params"] if self.state.get(p, {}).get("step") is counter}
        behind = sharing - set(parameters)
        if behind:
            if STATE.trace is not None and id(counter) in STATE.trace.captured:
                raise TraceError(
                    f"which parameters have gradients changed between two steps of one compiled function (at "
                    f"{user_source()}); call step() once in it"
                )
            with outside_trace():
                left = _number(counter.item(), float32)
            for parameter in behind:
                self.state[parameter]["step"] = left
        counter.add_(1)

    # ---- saving

    def state_dict(self) -> dict[str, Any]:
        """{"state": {number of the parameter: its tensors}, "param_groups": [hyperparameters and numbers]}."""
        numbers = {p: n for n, p in enumerate(p for group in self.param_groups for p in group["params"])}
        state = {
            numbers[p]: {name: value.detach() for name, value in held.items()} for p, held in self.state.items() if held
        }
        groups = [{**group, "params": [numbers[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take state and hyperparameters of the same kind of optimizer over parameters of the same shapes.

        Raises StateDictError, with nothing changed, where groups or shapes differ.
        """
        saved_groups, saved_state = state_dict["param_groups"], state_dict["state"]
        faults = self._misfits(saved_groups, saved_state)
        if faults:
            lines = [f"the state dictionary does not fit this {type(self).__name__} (at {user_source()}):", *faults]
            raise StateDictError("\n".join(lines))
        with outside_trace(), no_grad():
            for group, saved in zip(self.param_groups, saved_groups, strict=True):
                known = {*self.defaults, "initial_lr"}
                group.update({key: value for key, value in saved.items() if key in known})
                held = [
                    {name: value for name, value in saved_state.get(number, {}).items() if value is not None}
                    for number in saved["params"]
                ]
                counters = self._loaded_counters(group["params"], held)
                for parameter, values, counter in zip(group["params"], held, counters, strict=True):
                    self._load(parameter, values, counter)

    def _load(self, parameter: Tensor, values: Mapping[str, Any], counter: Tensor | None) -> None:
        """Make the state of one parameter, but for its counter, the `values`: in the tensors that are there where they
        are of the same names, so that what is recorded goes on.
        """
        own = self.state.get(parameter, {})
        loaded = {name: _copied(value, parameter) for name, value in values.items() if name != "step"}
        if counter is not None:
            loaded["step"] = counter
        if own.keys() == loaded.keys() and own.get("step") is counter:
            for name in loaded.keys() - {"step"}:
                own[name].copy_(loaded[name])
        else:
            self.state[parameter] = loaded

    def _loaded_counters(self, parameters: list[Tensor], held: list[dict[str, Any]]) -> list[Tensor | None]:
        """The counter for each parameter: the one that it has, brought to the loaded value, where the parameters that
        share it are loaded with the same value; else a new one for all parameters that are there.
        """
        values = [_steps(state["step"]) if "step" in state else None for state in held]
        own = [self.state.get(parameter, {}).get("step") for parameter in parameters]
        pairs = list(zip(own, values, strict=True))
        shared = {id(counter): (counter, value) for counter, value in pairs}
        if all((c is None) == (v is None) and shared[id(c)][1] == v for c, v in pairs):
            for counter, value in shared.values():
                if counter is not None:
                    counter.copy_(_number(value, float32))  # type: ignore[arg-type]
            return own
        made = {value: _number(value, float32) for value in values if value is not None}
        return [None if value is None else made[value] for value in values]

    def _misfits(self, groups: list[Any], state: Mapping[int, Any]) -> list[str]:
        faults = []
        sizes, saved_sizes = ([len(g["params"]) for g in gs] for gs in (self.param_groups, groups))
        if sizes != saved_sizes:
            return [f"  groups: parameters {saved_sizes} in the dictionary, {sizes} in the optimizer"]
        for own, saved in zip(self.param_groups, groups, strict=True):
            expected = set(self._state_names({**own, **saved}))
            for number, parameter in zip(saved["params"], own["params"], strict=True):
                held = {name: value for name, value in state.get(number, {}).items() if value is not None}
                if held and set(held) - {"step"} != expected:
                    faults.append(
                        f"  parameter {number}: state {sorted(held)} in the dictionary, {sorted(expected)} expected"
                    )
                for name, value in held.items():
                    if name != "step" and tuple(np.shape(value)) != parameter.shape:
                        faults.append(
                            f"  wrong shape: parameter {number}, {name}: {list(np.shape(value))} in the dictionary, "
                            f"{list(parameter.shape)} in the optimizer"
                        )
        return faults

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {key}: {value}" for key, value in sorted(group.items()) if key != "params"]
        return "\n".join([*lines, ")"])


class _States(Store):
    """The state of each parameter, a store of its own."""

    def __setitem__(self, parameter: Tensor, state: Mapping[str, Tensor]) -> None:
        super().__setitem__(parameter, state if isinstance(state, Store) else Store(state))


@dataclass(frozen=True)
class _Refresh:
    """Brings an optimizer's rates up to date before a call; a recording does not keep the optimizer alive."""

    optimizer: ref[Optimizer]

    def __call__(self) -> None:
        optimizer = self.optimizer()
        if optimizer is not None:
            optimizer._refresh_rates()


def require_fused(fused: bool | None) -> None:
    """Raise ValueError for fused=False: there is no other kind of update here."""
    if fused is not None and not fused:
        raise ValueError(f"updates are always fused, so fused must be True or None, got {fused!r} (at {user_source()})")


def _value(rate: Any) -> Any:
    return rate.item() if isinstance(rate, Tensor) else rate


def _ready(made: Tensor) -> Tensor:
    """The tensor with its value computed and in memory of its own."""
    made._buffer()
    return made


def _number(value: float, dtype: Any = float64) -> Tensor:
    return _ready(full((), value, dtype=dtype))


def _copied(value: Any, parameter: Tensor) -> Tensor:
    copy = value.detach().clone() if isinstance(value, Tensor) else tensor(np.asarray(value))
    return _ready(copy.to(parameter.dtype))


def _steps(value: Any) -> float:
    return float(value.item()) if hasattr(value, "item") else float(value)


__all__ = ["Optimizer", "require_fused"]
