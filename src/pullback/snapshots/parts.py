"""What a snapshot takes of a part of a run, and how the part takes it back."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from ..errors import StateDictError
from ..tensor.random import Generator
from .description import describe, rebuild


class Kind(NamedTuple):
    """A kind of part: which objects are of it, what is saved of them, and how it is given back (None: it cannot be)."""

    holds: Callable[[Any], bool]
    take: Callable[[Any], Any]
    give: Callable[[Any, Any], Any] | None


def _set_bits(generator: np.random.Generator, state: Any) -> None:
    kind, own = state["bit_generator"], type(generator.bit_generator).__name__
    if kind != own:
        raise StateDictError(
            f"the state is that of a NumPy generator made of {kind}, and this one is made of {own}: make it by "
            f"np.random.Generator(np.random.{kind}())"
        )
    generator.bit_generator.state = state


#: by the name that stands in a snapshot; the first that holds an object is its kind
KINDS = {
    "state_dict": Kind(
        lambda part: hasattr(part, "state_dict") and hasattr(part, "load_state_dict"),
        lambda part: part.state_dict(),
        lambda part, state: part.load_state_dict(state),
    ),
    "generator": Kind(
        lambda part: isinstance(part, Generator),
        lambda part: part.get_state(),
        lambda part, state: part.set_state(state),
    ),
    "numpy": Kind(lambda part: isinstance(part, np.random.Generator), lambda part: part.bit_generator.state, _set_bits),
    "random": Kind(
        lambda part: isinstance(part, random.Random),
        lambda part: part.getstate(),
        lambda part, state: part.setstate(state),
    ),
    "value": Kind(lambda part: True, lambda part: part, None),
}


def give_all(parts: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Give each part its state. Where one refuses, those before it get back what they had, and so does that one if it
    takes it.
    """
    undo: list[Callable[[], None]] = []
    try:
        for name, part in parts.items():
            undo.append(_keeping(part))
            give = KINDS[kind_of(part)].give
            assert give is not None
            give(part, states[name])
    except BaseException as error:
        for back in reversed(undo):
            try:
                back()
            except BaseException as late:  # it refuses what it has given itself; the others get theirs all the same
                error.add_note(f"besides, a part has not taken its own state back: {type(late).__name__}: {late}")
        raise


def _keeping(part: Any) -> Callable[[], None]:
    """What gives a part back what it has now: a module its very tensors, others a copy of their state."""
    if hasattr(part, "_kept_values"):
        return cast("Callable[[], None]", part._kept_values())
    kind = KINDS[kind_of(part)]
    description, arrays = describe(kind.take(part), copy=True)
    give = kind.give
    assert give is not None
    return lambda: give(part, rebuild(description, arrays))


def kind_of(part: Any) -> str:
    """The name of the kind of a part."""
    return next(name for name, kind in KINDS.items() if kind.holds(part))


__all__ = ["KINDS", "Kind", "give_all", "kind_of"]
