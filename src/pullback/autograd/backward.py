"""backward() and grad(): gradients of tensors, on top of the transformation of graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..differentiate import gradients, spend
from ..errors import GradientError, ShapeError
from ..graph.node import Node
from ..ops.elementwise import add
from ..ops.movement import expand
from ..ops.primitive import MODE, constant, grad_mode, user_source
from ..timeline import span


def backward(output: Any, gradient: Any, retain_graph: bool, create_graph: bool, inputs: Sequence[Any] | None) -> None:
    """See `Tensor.backward`."""
    from ..tensor.anomaly import look
    from ..tensor.handle import RECEIVERS, STATE

    root = output.node
    _check_history(root)
    cotangent = _cotangent(root, gradient)
    receivers: list[Any]
    if inputs is None:
        nodes = [n for n in _history(root) if n in RECEIVERS]
        receivers = [RECEIVERS[n]() for n in nodes]
    else:
        receivers = list(inputs)
        nodes = [t.node for t in receivers]
    looks = MODE.anomaly and STATE.trace is None and STATE.loop is None and STATE.example is None
    with span("differentiate"):
        found = gradients([root], [cotangent], nodes, create_graph, retain_graph or looks)
    if looks:
        look([root], found)
        if not retain_graph:
            spend([root], nodes)
    STATE.watch(root, "loss")
    for receiver, value in zip(receivers, found, strict=True):
        if receiver is not None and value is not None:
            before = receiver._collected()
            with grad_mode(create_graph):
                total = value if before is None else add(before.node, value)
            receiver._collect(output._wrap(total))
            if receiver.is_leaf:
                STATE.watch(total, "gradient", receiver, None if before is None else before.node)
            for hook in list((receiver._accumulated or {}).values()):
                hook(receiver)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `outputs` with respect to `inputs`, a tuple as long as `inputs`; `.grad` is not touched.

    `grad_outputs` are the cotangents of the outputs (needed where they have more than one element). An input that the
    outputs do not depend on raises GradientError, or gives None with `allow_unused`.

    >>> x = pb.tensor(3.0, requires_grad=True)
    >>> pb.autograd.grad(x * x, x)[0].item()
    6.0
    """
    from ..tensor.anomaly import look
    from ..tensor.handle import STATE

    outputs, inputs = _as_tuple(outputs), _as_tuple(inputs)
    given = _as_tuple(grad_outputs) if grad_outputs is not None else (None,) * len(outputs)
    roots = [o.node for o in outputs]
    for root in roots:
        _check_history(root)
    cotangents = [_cotangent(root, g) for root, g in zip(roots, given, strict=True)]
    retain = create_graph if retain_graph is None else retain_graph
    looks = MODE.anomaly and STATE.trace is None and STATE.loop is None and STATE.example is None
    found = gradients(roots, cotangents, [i.node for i in inputs], create_graph, retain or looks)
    if looks:
        look(roots, found)
        if not retain:
            spend(roots, [i.node for i in inputs])
    if not create_graph:  # what is differentiated again is part of another loss
        _watch(roots, inputs, found)
    for index, value in enumerate(found):
        if value is None and not allow_unused:
            raise GradientError(
                f"input {index} of shape {list(inputs[index].shape)} was not used in computing the outputs "
                f"(at {user_source()}); pass allow_unused=True to get None for it"
            )
    return tuple(None if value is None else outputs[0]._wrap(value) for value in found)


def _watch(roots: list[Node], inputs: Sequence[Any], found: Sequence[Node | None]) -> None:
    """A step that is being recorded looks at whether outputs and gradients of leaves are finite."""
    from ..tensor.handle import STATE

    for root in roots:
        STATE.watch(root, "loss")
    for receiver, value in zip(inputs, found, strict=True):
        if value is not None and receiver.is_leaf:
            STATE.watch(value, "gradient", receiver)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _check_history(root: Node) -> None:
    if not root.requires_grad:
        raise GradientError(
            f"backward() on a tensor with no graph (at {user_source()}): it does not require grad, or was computed "
            "under no_grad(), from detached tensors, or by a compiled function (which must call backward() itself). "
            "Set requires_grad=True on what the gradient is wanted for."
        )


def _cotangent(root: Node, gradient: Any) -> Node:
    if gradient is None:
        if root.shape not in ((), (1,)) and any(size != 1 for size in root.shape):
            raise GradientError(
                f"backward() without a gradient takes a tensor of one element, got shape {list(root.shape)} "
                f"(at {user_source()}). Reduce it with .sum() or .mean(), or pass gradient=, its cotangent."
            )
        return expand(constant(1.0, root.dtype), root.shape)
    node = gradient.node
    if node.shape != root.shape or node.dtype is not root.dtype:
        raise ShapeError(
            f"the gradient passed to backward must be {root.dtype.name}{list(root.shape)}, got "
            f"{node.dtype.name}{list(node.shape)} (at {user_source()})"
        )
    return node


def _history(root: Node) -> list[Node]:
    """All nodes that `root` depends on differentiably, itself included, in the order in which they were made."""
    found: set[Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            if node.op.name != "detach":
                stack.extend(i for i in node.inputs if i.requires_grad)
    return sorted(found, key=lambda n: n.serial)
