"""Functions that a node's cotangent passes once it has arrived from everywhere.

A node keeps its own, so that a function that knows a tensor of that node is collected together with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakSet

from ..graph.node import Node

#: gives another cotangent, or None for the one that it was given
GradientHook = Callable[[Node], Node | None]

#: the nodes that have hooks
HOOKED: WeakSet[Node] = WeakSet()


def attach(node: Node, hooks: Mapping[Any, GradientHook]) -> None:
    """Have the node's cotangents pass `hooks`, as they stand there when one arrives."""
    node.hooks = hooks
    HOOKED.add(node)


def hooks_of(node: Node) -> Mapping[Any, GradientHook] | None:
    """What was attached to the node, if anything."""
    return node.hooks if node in HOOKED else None


def after_hooks(node: Node, cotangent: Node) -> Node:
    """The cotangent as the node's hooks leave it."""
    for hook in list(node.hooks.values()):
        cotangent = hook(cotangent) or cotangent
    return cotangent


__all__ = ["HOOKED", "GradientHook", "after_hooks", "attach", "hooks_of"]
