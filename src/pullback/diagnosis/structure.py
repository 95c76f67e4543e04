"""Why a parameter has no gradient: found in the graph that a loss was made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..graph.node import Node, ancestors
from .alert import Alert


class Member(NamedTuple):
    """A parameter: its name, the node that stands for it (None where nothing has read it), whether it requires grad,
    has a gradient, and stands in the optimizer.
    """

    name: str
    node: Node | None
    requires_grad: bool
    has_gradient: bool
    is_optimized: bool


def structural(losses: Sequence[Node], members: Iterable[Member]) -> list[Alert]:
    """An alert for each parameter that is not trained for a reason that stands in the graph."""
    history = sorted(ancestors(losses, stop_at_buffers=False), key=lambda node: node.serial)
    found = (_alert(history, member) for member in members)
    return [alert for alert in found if alert is not None]


def _alert(history: Sequence[Node], member: Member) -> Alert | None:
    if member.has_gradient:
        return None if member.is_optimized else _not_optimized(member)
    if not member.requires_grad:
        return _frozen(member) if member.is_optimized else None
    cut = None if member.node is None else cut_of(history, member.node)
    if cut is None:
        return Alert(
            "unreached", member.name, None, None, "the loss does not depend on it, so its gradient is None",
            "use it in forward(), or leave it out of the model; a result that the loss leaves out has no gradient",
        )  # fmt: skip
    line = f" at {cut.source}" if cut.source is not None else ""
    return Alert(
        "detached", member.name, None, None,
        f"the way from it to the loss is cut{line}, by {how_cut(cut)}, so its gradient is None",
        "take the detach(), .data, no_grad() or conversion to numbers out of the forward pass there",
    )  # fmt: skip


def cut_of(history: Sequence[Node], parameter: Node) -> Node | None:
    """The node at which the way from `parameter` to a loss is cut, among those that the loss was made of, which stand
    in order; None where there is no way. What an operation itself cuts off beside the way, as ReLU its mask and a
    normalization its statistics, is not taken for the cut if there is another.
    """
    depends, cuts = {parameter}, []
    for node in history:
        if node not in depends and any(i in depends for i in node.inputs):
            if node.op.name == "detach" or not node.requires_grad:
                cuts.append(node)
            else:
                depends.add(node)
    return min(cuts, key=_likely, default=None)


#: what the user calls to cut a graph on purpose
_DETACHING = ("detach", "detach_", "data", "tolist", "numpy")


def _likely(cut: Node) -> tuple[int, int]:
    """The less, the likelier it is that a way ends here: on purpose, or under no_grad(), and then by an operation that
    lets no gradient through. Behind the last of these the way does not go on.
    """
    if cut.op.name != "detach":
        return (1 if cut.dtype.is_floating_point else 3), cut.serial
    on_purpose = cut.source is None or cut.source.operation in ("", *_DETACHING)
    return (0, cut.serial) if on_purpose else (2, -cut.serial)


def how_cut(cut: Node) -> str:
    """What it was that cut the way."""
    called = cut.source.operation if cut.source is not None and cut.source.operation else cut.op.name
    if cut.op.name == "detach":
        return "detach()" if called in _DETACHING else f"{called}, through which no gradient goes"
    return f"{called}, computed under no_grad() or without a gradient"


def _frozen(member: Member) -> Alert:
    return Alert(
        "frozen", member.name, None, None, "requires_grad is False, and it stands in the optimizer all the same",
        "call requires_grad_(True) on it to train it, or give the optimizer only what is to be trained",
    )  # fmt: skip


def _not_optimized(member: Member) -> Alert:
    return Alert(
        "not_in_optimizer", member.name, None, None, "it has a gradient, and the optimizer does not know it",
        "give the optimizer model.parameters() after all parts of the model have been made, or add_param_group",
    )  # fmt: skip


__all__ = ["Member", "cut_of", "how_cut", "structural"]
