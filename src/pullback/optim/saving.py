"""State dictionaries of optimizers, this library's and PyTorch's: values taken over, and what does not fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tensor import Tensor
from ..tensor.creation import tensor

if TYPE_CHECKING:
    from .optimizer import Optimizer


def array_of(value: Any) -> Any:
    """A saved number or tensor, of whichever library, as what `tensor` takes."""
    if isinstance(value, Tensor):
        # bfloat16 has no NumPy type: float32 holds it
        return value.detach().float().numpy() if value.dtype.name == "bfloat16" else value.detach().numpy()
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        return value.detach().float().cpu().numpy()
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    return np.asarray(value)


def saved_number(value: Any) -> tuple[float, bool]:
    """A saved counter, and whether it was kept in float64."""
    array = array_of(value)
    return float(array), hasattr(value, "dtype") and array.dtype == np.float64


def own_value(value: Any) -> Any:
    """A hyperparameter, or a value of a user's own optimizer, with tensors copied into this library's."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if hasattr(value, "detach"):
        return tensor(array_of(value))
    if isinstance(value, tuple | list):
        # files that know only lists give tuples back as lists
        return tuple(own_value(item) for item in value)
    return value


def is_state(given: object) -> bool:
    """Whether something has the form of an optimizer's state."""
    if not isinstance(given, Mapping) or not isinstance(given.get("state"), Mapping):
        return False
    groups = given.get("param_groups")
    return isinstance(groups, (list, tuple)) and all(isinstance(g, Mapping) and "params" in g for g in groups)


def misfits(optimizer: Optimizer, groups: list[Any], state: Mapping[int, Any]) -> list[str]:
    """What of a saved state does not fit, a line of text each."""
    sizes, saved_sizes = ([len(g["params"]) for g in gs] for gs in (optimizer.param_groups, groups))
    if sizes != saved_sizes:
        return [f"  groups: parameters {saved_sizes} in the dictionary, {sizes} in the optimizer"]
    if not optimizer._is_known:
        return []
    faults = []
    for own, saved in zip(optimizer.param_groups, groups, strict=True):
        merged = {**own, **{key: value for key, value in saved.items() if key != "params"}}
        numbers = {"step", *optimizer._numbers(merged)}
        for place, parameter in zip(saved["params"], own["params"], strict=True):
            held = {name: value for name, value in state.get(place, {}).items() if value is not None}
            slots = optimizer._slots(parameter, merged)
            if held and set(held) - numbers != set(slots):
                remedy = optimizer._remedy(parameter, held, merged)
                faults.append(
                    f"  parameter {place}: state {sorted(held)} in the dictionary, {sorted(slots)} expected{remedy}"
                )
                continue
            faults += [
                f"  wrong shape: parameter {place}, {name}: {list(np.shape(held[name]))} in the dictionary, "
                f"{list(slot.shape)} in the optimizer"
                for name, slot in slots.items()
                if held and tuple(np.shape(held[name])) != slot.shape
            ]
            faults += [
                f"  wrong dtype: parameter {place}, {name}: {_dtype_name(held[name])} in the dictionary, "
                f"{slot.dtype.name} expected"
                for name, slot in slots.items()
                if held and slot.dtype is not None and _dtype_name(held[name]) != slot.dtype.name
            ]
            if not faults:
                faults += [f"  {told}: parameter {place}, {name}" for name, told in _bad_values(held, numbers)]
    return faults


def _bad_values(held: Mapping[str, Any], numbers: Collection[str]) -> Iterator[tuple[str, str]]:
    """What of a parameter's saved state no optimizer can have made, and would spoil the weights."""
    for name, value in held.items():
        array = array_of(value)
        if array.dtype.kind not in "fiub" or (name in numbers and array.ndim):
            yield name, f"no number ({value!r:.40})" if name in numbers else "no numbers"
        elif not np.isfinite(array).all():
            yield name, "not finite"
        elif (name in numbers or _is_of_squares(name)) and (array < 0).any():
            yield name, "below 0"


def _is_of_squares(name: str) -> bool:
    """Whether a moment of this name is made of squares or magnitudes, or scales codes."""
    return "_scales" in name or "_sq" in name or name in ("square_avg", "acc_delta", "exp_inf", "sum")


def _dtype_name(value: Any) -> str:
    """The dtype of a saved tensor, of whichever library: codes, and what scales them, are not converted."""
    dtype = getattr(value, "dtype", type(value).__name__)
    return getattr(dtype, "name", str(dtype).removeprefix("torch."))


__all__ = ["array_of", "is_state", "misfits", "own_value", "saved_number"]
