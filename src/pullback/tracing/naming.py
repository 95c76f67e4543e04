"""What the inputs and outputs of a recorded step are for, and what they are called in plans and reports."""

from __future__ import annotations

from collections.abc import Sequence

from ..memory.lives import GRADIENTS, INPUTS, OPTIMIZER, PARAMETERS, Named
from ..tensor.handle import Handle
from .trace import Captured, Trace


def input_names(trace: Trace, captured: Sequence[Captured], places: Sequence[int]) -> dict[int, Named]:
    """What the captured tensors, which are the inputs at these places, are."""
    called = trace.names()
    place_of = {id(one.tensor): place for one, place in zip(captured, places, strict=True)}
    return {place: _named(trace, called, one, place_of) for one, place in zip(captured, places, strict=True)}


def argument_names(leaves: Sequence[object], positions: Sequence[int], places: Sequence[int]) -> dict[int, Named]:
    """What the arguments are that are the inputs at these places: from the lines that made them, where these are known.
    `positions` are theirs among `leaves`, behind which there are the roots of views.
    """
    found = {}
    for position, place in zip(positions, places, strict=True):
        leaf = leaves[position] if position < len(leaves) else None
        found[place] = Named(INPUTS, "", leaf._node.source if isinstance(leaf, Handle) else None)
    return found


def _named(trace: Trace, called: dict[int, str], captured: Captured, place_of: dict[int, int]) -> Named:
    if id(captured.tensor) in trace.optimizer_state:
        _, parameter = trace.optimizer_state[id(captured.tensor)]
        name = _state_name(trace, called, captured)
        return Named(OPTIMIZER, name, captured.original.source, place_of.get(parameter))
    if captured.owner is not None:
        name = called.get(id(captured.owner), "")
        return Named(GRADIENTS, f"gradient of {name}" if name else "gradient", None)
    # what belongs to a module is its own, trained or not: frozen weights, codes, running statistics
    is_own = captured.node.requires_grad or id(captured.tensor) in called
    role = PARAMETERS if is_own else INPUTS
    return Named(role, called.get(id(captured.tensor), ""), captured.original.source)


def _state_name(trace: Trace, called: dict[int, str], captured: Captured) -> str:
    """As "exp_avg of 0.weight"."""
    own, parameter = trace.optimizer_state[id(captured.tensor)]
    return f"{own} of {called[parameter]}" if parameter in called and captured.node.shape else own


def gradient_names(trace: Trace, gradients: Sequence[tuple[Handle, int]]) -> dict[int, str]:
    """The names of the tensors whose gradients the outputs at these places are."""
    called = trace.names()
    return {place: called.get(id(owner), "") for owner, place in gradients}


def state_names(trace: Trace, states: Sequence[tuple[Captured, int]]) -> dict[int, str]:
    """What the tensors are called whose new values the outputs at these places are."""
    called = trace.names()
    return {
        place: _state_name(trace, called, state)
        if id(state.tensor) in trace.optimizer_state
        else called.get(id(state.tensor), "")
        for state, place in states
    }


__all__ = ["argument_names", "gradient_names", "input_names", "state_names"]
