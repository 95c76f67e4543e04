"""What a guard is given, looked at before a run depends on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..ops.primitive import user_source
from ..snapshots import Checkpointer
from ..snapshots.parts import KINDS, kind_of


def check_numbers(whole: Mapping[str, tuple[Any, int]], factors: Mapping[str, Any], limits: Mapping[str, Any]) -> None:
    """`whole` are whole numbers with the least that each may be, `factors` lie between 0 and 1, and `limits` are above
    0, or None.
    """
    for name, (number, least) in whole.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ValueError(f"Guard: {name} must be a whole number of at least {least}, got {number!r}{_here()}")
    for name, factor in factors.items():
        if not _is_number(factor) or not 0 < factor < 1:
            raise ValueError(f"Guard: {name} must lie between 0 and 1, got {factor!r}{_here()}")
    for name, limit in limits.items():
        if limit is not None and not (_is_number(limit) and limit > 0):
            raise ValueError(f"Guard: {name} must be a number above 0, or None, got {limit!r}{_here()}")


def check_parts(parts: Mapping[str, Any], optimizers: Iterable[Any]) -> None:
    """Each part must be such that its state can be given back."""
    for name, part in parts.items():
        if KINDS[kind_of(part)].give is None:
            raise TypeError(
                f"Guard: {name} is a {type(part).__name__}, which cannot be given back a state; a part has state_dict "
                f"and load_state_dict, or is a generator{_here()}"
            )
        if name in ("guard", "loader"):
            raise ValueError(f"Guard: a part cannot be called {name!r}, which is the guard's own{_here()}")
    for optimizer in optimizers:
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(f"Guard: optimizer is a {type(optimizer).__name__}, which has no param_groups{_here()}")


def check_sources(alerts: Iterable[Any], checkpointer: object) -> None:
    """Alerts come from functions, or from what has a method of that name."""
    for source in alerts:
        if not callable(getattr(source, "alert", source)):
            raise TypeError(
                f"Guard: alerts are functions, or have a method alert(), as a Monitor; got {type(source).__name__}"
                f"{_here()}"
            )
    if checkpointer is not None and not isinstance(checkpointer, Checkpointer):
        raise TypeError(f"Guard: checkpointer must be a Checkpointer, got {type(checkpointer).__name__}{_here()}")


def has_position(loader: object) -> bool:
    """Whether a loader knows its position itself. A list or a tuple has that of the guard; TypeError for others."""
    if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
        return True
    if loader is None or isinstance(loader, (list, tuple)):
        return False
    raise TypeError(
        f"Guard.resume: a {type(loader).__name__} cannot go on from a position; give a loader with state_dict and "
        f"load_state_dict, such as pullback.utils.data.DataLoader, a list or a tuple{_here()}"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _here() -> str:
    return f" (at {user_source()})"


__all__ = ["check_numbers", "check_parts", "check_sources", "has_position"]
