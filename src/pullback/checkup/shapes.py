"""Losses that compare each output with each target: shapes that differ are broadcast, (64, 1) and (64,) to (64, 64).

The loss function warns, which is easily lost among what a training prints. The model learns the mean of the targets.
"""

from __future__ import annotations

from typing import NamedTuple

from ..graph.node import Node, ancestors

_LOSSES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


class Unlike(NamedTuple):
    """A loss, the shapes of its input and target, and the line."""

    loss: str
    input: str
    target: str
    line: str


def unlike(loss: Node) -> Unlike | None:
    """The first loss in what a loss was made of whose input and target are not of one shape."""
    for node in sorted(ancestors([loss], stop_at_buffers=False), key=lambda n: n.serial):
        function = "" if node.source is None else node.source.operation
        if function in _LOSSES and node.op.name == "sub":
            shapes = [list(operand.shape) for operand in node.inputs]
            if all(shapes) and shapes[0] != shapes[1]:  # a number is a delta of the loss's own
                return Unlike(function, str(shapes[0]), str(shapes[1]), str(node.source))
    return None


__all__ = ["Unlike", "unlike"]
