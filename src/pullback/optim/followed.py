"""What a recording of an optimizer's update is told before each call: its members, its settings, its rates as they are.

A recording does not keep the optimizer alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..tensor import Tensor
from .groups import NOT_HYPERPARAMETERS, Group, number, plain

if TYPE_CHECKING:
    from .optimizer import Optimizer


@dataclass(frozen=True)
class Refresh:
    """Brings an optimizer's rates up to date."""

    optimizer: ref[Optimizer]

    def __call__(self) -> None:
        optimizer = self.optimizer()
        if optimizer is not None:
            optimizer._refresh_rates()


class Members:
    """Gives which parameters an optimizer has: one that is added or replaced makes a new recording."""

    __slots__ = ("_optimizer",)

    def __init__(self, optimizer: ref[Optimizer]):
        self._optimizer = optimizer

    def __call__(self) -> tuple[tuple[int, ...], ...]:
        optimizer = self._optimizer()
        return () if optimizer is None else tuple([tuple(map(id, group["params"])) for group in optimizer.param_groups])


class Settings:
    """Gives what of a group a program depends on: of what it follows, whether it is zero, since then there is no state.

    It is found again only where the group holds other objects than before, or some that may change.
    """

    __slots__ = ("_followed", "_found", "_get", "_group", "_held", "_size")

    def __init__(self, group: Group, followed: Mapping[str, Tensor]):
        self._group, self._followed = group, followed
        #: what the group held when that was found; None where it may change and be the same object
        self._held: tuple[Any, ...] | None = None

    def __call__(self) -> tuple[Any, ...]:
        group = self._group
        try:
            if self._held is not None and len(group) == self._size and all(map(is_, self._get(group), self._held)):
                return self._found
        except KeyError:  # a name is gone, and another one stands in its place
            self._held = None
        return self._find()

    def _find(self) -> tuple[Any, ...]:
        group = self._group
        names = [name for name in group if name != "lr" and name not in NOT_HYPERPARAMETERS]
        held = tuple(group[name] for name in names)
        self._found = tuple(
            (name, bool(first_of(value))) if name in self._followed else (name, plain(value))
            for name, value in zip(names, held, strict=True)
        )
        self._size, self._get = len(group), itemgetter(*names, *names[:1])  # of one name it would give no tuple
        self._held = (*held, *held[:1]) if names and all(map(_is_fixed, held)) else None
        return self._found


def _is_fixed(value: Any) -> bool:
    """Whether the value of a hyperparameter is always the same while it is the same object."""
    if type(value) is tuple:
        return all(map(_is_fixed, value))
    return value is None or type(value) in (bool, int, float, str)


def first_of(value: Any) -> Any:
    """The number of a hyperparameter, or the first of several, as of betas."""
    return number(value[0]) if isinstance(value, tuple) else number(value)


__all__ = ["Members", "Refresh", "Settings", "first_of"]
