"""Groups of parameters: what users may write in them, and what is wrong with what they wrote.

The messages begin as PyTorch's do, so that who looks one up finds what is said about it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from inspect import signature
from numbers import Real
from typing import Any

from ..errors import GradientError
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.state import outside_trace

Group = dict[str, Any]

#: what stands in a group besides hyperparameters: its parameters, and what schedules write there
NOT_HYPERPARAMETERS = (
    "params",
    "param_names",
    "initial_lr",
    "max_lr",
    "min_lr",
    "base_momentum",
    "max_momentum",
    "min_momentum",
    "swa_lr",
)
#: which of PyTorch's ways of doing the one update is used: here there is one way, which is all of them
WAYS = ("foreach", "fused", "capturable")
#: hyperparameter: what PyTorch calls it, the least value, and the greatest
LIMITS = {
    "lr": ("learning rate", 0.0, math.inf),
    "weight_decay": ("weight_decay value", 0.0, math.inf),
    "eps": ("epsilon value", 0.0, math.inf),
    "momentum": ("momentum value", 0.0, math.inf),
    "rho": ("rho value", 0.0, 1.0),
    "lr_decay": ("lr_decay value", 0.0, math.inf),
    "initial_accumulator_value": ("initial_accumulator_value value", 0.0, math.inf),
    "momentum_decay": ("momentum_decay value", 0.0, math.inf),
}


def number(value: Any) -> Any:
    """A hyperparameter as a Python number: the element of a tensor, also while a step is being recorded."""
    if isinstance(value, Tensor):
        with outside_trace():
            return value.item()
    return value


def plain(value: Any) -> Any:
    """A hyperparameter without tensors in it."""
    return tuple(map(number, value)) if isinstance(value, tuple | list) else number(value)


def within(called: str, value: Any, low: float, high: float = math.inf, below: bool = False) -> None:
    """Raise ValueError unless `value` is a finite number from `low` to `high` (or below it)."""
    if not isinstance(value, Real) or not low <= value <= high or math.isinf(value) or (below and value == high):  # type: ignore[operator]
        limit = "finite" if high == math.inf else f"{'below' if below else 'at most'} {high}"
        raise ValueError(f"Invalid {called}: {value!r}; it must be at least {low} and {limit} (at {user_source()})")


def check_ways(group: Group) -> None:
    """Raise where flags about how to compute an update contradict each other or ask for what is not there."""
    for flag in WAYS:
        if group.get(flag) not in (None, False, True):
            raise ValueError(f"{flag} must be True, False or None, got {group[flag]!r} (at {user_source()})")
    if group.get("differentiable"):
        raise ValueError(
            f"differentiable=True is not supported (at {user_source()}): step() changes parameters in place and leaves "
            "no history. To differentiate through an update, compute it from autograd.grad(…, create_graph=True)."
        )
    if group.get("foreach") and group.get("fused"):
        raise RuntimeError(f"`fused` and `foreach` cannot be `True` together (at {user_source()})")


def check_numbers(group: Group) -> None:
    """Raise ValueError where a hyperparameter that has the same limits everywhere is beyond them."""
    rate = group.get("lr")
    if isinstance(rate, Tensor) and rate.numel() != 1:
        raise ValueError(f"Tensor lr must be 1-element, got shape {list(rate.shape)} (at {user_source()})")
    for name, (called, low, high) in LIMITS.items():
        if name in group and not isinstance(group[name], tuple):
            within(called, number(group[name]), low, high)
    if "betas" in group:
        group["betas"] = _checked_betas(group)


def _checked_betas(group: Group) -> tuple[float, ...]:
    betas = tuple(group["betas"])
    if len(betas) != 2:
        raise ValueError(f"betas must be two numbers, got {betas!r} (at {user_source()})")
    tensors = [isinstance(beta, Tensor) for beta in betas]
    if any(tensors) and not all(tensors):
        raise ValueError(f"betas must be either both floats or both Tensors, got {betas!r} (at {user_source()})")
    for position, beta in enumerate(betas):
        if tensors[position] and group.get("foreach") and not group.get("capturable"):
            raise ValueError(
                f"betas[{position}] as a Tensor is not supported for capturable=False and foreach=True "
                f"(at {user_source()})"
            )
        if tensors[position] and beta.numel() != 1:
            raise ValueError(f"Tensor betas[{position}] must be 1-element (at {user_source()})")
        within(f"beta parameter at index {position}", number(beta), 0.0, 1.0, below=True)
    return tuple(map(number, betas))


def listed(params: Any, kind: str) -> list[Any]:
    """What an optimizer was given, as a list."""
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise TypeError(
            f"{kind}: params argument given to the optimizer should be an iterable of Tensors or dicts, but got one "
            f"{type(params).__name__} (at {user_source()}); write [tensor]"
        )
    found = list(params)
    if not found:
        raise ValueError(
            f"optimizer got an empty parameter list: {kind} got no parameters (at {user_source()}), an empty list or a "
            "generator that was used up. Pass model.parameters()."
        )
    return found


def split_names(params: Any) -> tuple[list[Any], list[str] | None]:
    """The tensors of a group, and their names if they came as pairs (name, tensor) as of named_parameters()."""
    if isinstance(params, set | frozenset):
        raise TypeError(
            "optimizer parameters need to be organized in ordered collections: the order of tensors in a set changes "
            f"between runs (at {user_source()}); use a list"
        )
    held = [params] if isinstance(params, Tensor) else list(params)
    names = [pair[0] for pair in held if isinstance(pair, tuple)]
    if names and len(names) != len(held):
        raise ValueError(
            "all optimizer params should be with/without names. Some param names are missing: "
            f"{len(names)} of {len(held)} have one (at {user_source()})"
        )
    return [pair[1] if isinstance(pair, tuple) else pair for pair in held], names or None


def check_parameters(params: list[Any], groups: list[Group]) -> None:
    """Raise unless all are leaves of floating point, each given once among `groups` and the new ones."""
    elsewhere = {id(p) for group in groups for p in group["params"]}
    seen: set[int] = set()
    for position, parameter in enumerate(params):
        if not isinstance(parameter, Tensor):
            raise TypeError(
                f"optimizer can only optimize Tensors, but parameter {position} is a {type(parameter).__name__} "
                f"(at {user_source()})"
            )
        what = f"parameter {position}, {parameter.dtype.name}{list(parameter.shape)},"
        if not parameter.is_leaf:
            raise GradientError(
                f"can't optimize a non-leaf Tensor: {what} is not a leaf but computed (at {user_source()}), and would "
                "never get a gradient"
            )
        if not parameter.dtype.is_floating_point:
            raise TypeError(f"{what} is not floating point and cannot be optimized (at {user_source()})")
        if id(parameter) in elsewhere:
            raise ValueError(
                f"some parameters appear in more than one parameter group: {what} is given twice (at {user_source()})"
            )
        if id(parameter) in seen:
            raise ValueError(
                f"a parameter group with duplicate parameters: {what} is given twice (at {user_source()}) and would be "
                "updated twice a step"
            )
        seen.add(id(parameter))


def check_names(names: list[str] | None, groups: list[Group]) -> None:
    """Raise ValueError where one group has names and another has none."""
    for group in groups:
        if (names is None) != ("param_names" not in group):
            raise ValueError(
                "all optimizer param groups should be with/without names. cannot add param group "
                f"{'without' if names is None else 'with'} names to the optimizer (at {user_source()})"
            )


def check_options(
    kind: type, make: Callable[..., Any], args: Iterable[Any], options: Mapping[str, Any], *further: str
) -> None:
    """Raise TypeError where `make`, a method of another class to which the arguments of `kind` but `further` go, does
    not take these.
    """
    takes = signature(make)
    try:
        takes.bind(*args, **options)
    except TypeError as error:
        names = [*(name for name in takes.parameters if name != "params"), *further]
        raise TypeError(f"{kind.__name__}: {error} (at {user_source()}); its options are {names}") from None


class _Required:
    """The default of a hyperparameter that has none."""

    def __repr__(self) -> str:
        return "<required parameter>"


#: a default of one's own optimizer that says that every group must give the value
required = _Required()


def check_keys(param_group: Any, defaults: Group, kind: str) -> None:
    """Raise where a group is no dictionary with "params", or has what is nearly a hyperparameter: a misspelt one. What
    else users write there is theirs, and is kept."""
    if not isinstance(param_group, Mapping) or "params" not in param_group:
        raise TypeError(
            f'param_group must be a dict with "params", but got {type(param_group).__name__} {param_group!r} '
            f"(at {user_source()})"
        )
    for name, default in defaults.items():
        if default is required and name not in param_group:
            raise ValueError(
                f"parameter group didn't specify a value of required optimization parameter {name} (at {user_source()})"
            )
    for key in param_group:
        if key in defaults or key in NOT_HYPERPARAMETERS or not isinstance(key, str):
            continue
        meant = get_close_matches(key, defaults, n=1, cutoff=0.85)
        if meant:
            raise ValueError(f"{kind} has no hyperparameter {key!r} (at {user_source()}); it has {meant[0]!r}")


__all__ = [
    "LIMITS",
    "NOT_HYPERPARAMETERS",
    "Group",
    "check_keys",
    "check_names",
    "check_numbers",
    "check_options",
    "check_parameters",
    "check_ways",
    "listed",
    "number",
    "plain",
    "required",
    "split_names",
    "within",
]
