"""What one part contributes to the loss of the whole batch."""

from __future__ import annotations

from typing import Any

from ..errors import GradientError
from ..graph.node import Node
from ..ops.body import substituted
from ..ops.host import CUSTOM, SEVERAL
from ..ops.movement import expand
from ..ops.primitive import constant
from .classes import SAME, Mixed, Rows
from .division import Division

_MEND = (
    "Give weight=, a function of a part that gives its weight in a weighted mean of the parts' losses, such as the "
    'number of its examples; or let loss_fn give a sum over examples (reduction="sum") divided by a count.'
)


def refusal(root: Node, found: object) -> GradientError:
    """The error for a loss that does not divide into what parts contribute."""
    if isinstance(found, Mixed):
        where = found.where
        line = where.source
        name = where.op.name if line is None or not line.operation else line.operation
        why = f"{name} (at {line}) puts examples together in a way that is not linear in sums over the batch"
    else:
        kind = "has a value for each example" if isinstance(found, Rows) else "is not a sum over the batch"
        why = f"the loss, of shape {list(root.shape)}, {kind}"
    return GradientError(
        f"accumulate: the gradient of the batch cannot be had from its parts: {why}, so that the parts' losses do not "
        f"add up to the loss of the batch. {_MEND}"
    )


def refused_change(value: Node) -> GradientError:
    """The error for a loss whose function also gives a tensor a value that comes from the batch."""
    line = value.source
    name = value.op.name if line is None or not line.operation else line.operation
    return GradientError(
        f"accumulate: {name} (at {line}) changes a tensor, such as a running average, by what it sees of the batch, "
        "and parts would change it otherwise. Put the module into evaluation mode, or give weight=, a function of a "
        "part that gives its weight, to have parts change it one after the other."
    )


def share(division: Division, root: Node, part: Node, first: bool) -> Node:
    """What a part, whose loss is `part`, contributes to the loss of the whole batch, which is `root`.

    What is added once only is contributed by the `first` part.
    """
    if division.classes[root] == SAME:
        return part if first else _zero(part)
    theirs = _counterparts(division, root, part)
    made: dict[Node, Node] = {}
    instead: dict[Node, Node] = {}
    for node in sorted(theirs, key=lambda n: n.serial):
        own = theirs[node]
        inputs: list[Node] = []
        for index, operand in enumerate(node.inputs):
            if (node, index) in division.once and not first:
                inputs.append(_zero(own.inputs[index]))
            elif (node, index) in division.known:
                inputs.append(operand)
            else:
                inputs.append(made.get(operand, own.inputs[index]))
        made[node] = instead[own] = _on(own, tuple(inputs), instead)
    return made.get(root, part)


def _on(own: Node, inputs: tuple[Node, ...], instead: dict[Node, Node]) -> Node:
    """The same operation on other inputs. A gradient rule of its own reads what stands `instead` of nodes it knows."""
    if own.op not in (CUSTOM, SEVERAL):
        return own.with_inputs(inputs)
    rule = own["rule"]

    def on_others(_: Node, cotangent: Any) -> list[Node | None]:
        found = rule(own, cotangent)
        settled = substituted([g for g in found if g is not None], instead)
        return [None if g is None else settled[g] for g in found]

    attributes = {**own.attributes, "rule": on_others}
    return Node(own.op, inputs, attributes, own.shape, own.dtype, own.requires_grad, own.source)


def _counterparts(division: Division, root: Node, part: Node) -> dict[Node, Node]:
    """For each node that is another one for a part: what it was recorded as for this part."""
    found: dict[Node, Node] = {}
    stack = [(root, part)] if root in division.changed else []
    while stack:
        node, own = stack.pop()
        if node in found:
            continue
        if node.op is not own.op or len(node.inputs) != len(own.inputs):
            raise GradientError(
                f"accumulate: loss_fn computes something else for a part of {division.examples} examples than for all "
                f"of them: {own.op.name} in place of {node.op.name} (at {own.source or node.source}). {_MEND}"
            )
        found[node] = own
        stack.extend(
            (operand, own.inputs[index])
            for index, operand in enumerate(node.inputs)
            if operand in division.changed and (node, index) not in division.known
        )
    return found


def _zero(like: Node) -> Node:
    return expand(constant(0, like.dtype), like.shape)
