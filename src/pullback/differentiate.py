"""Reverse mode as a transformation from graph to graph.

The cotangents of the outputs are carried back through the graph in reverse topological order; where several paths meet
in a node their cotangents are added before it is passed on. Every rule builds ordinary nodes, so the result can be
differentiated again, compiled, or computed by the reference. After Rumelhart, Hinton & Williams (Nature 323, 1986);
the graph form follows Griewank & Walther, "Evaluating Derivatives" (2008), chapter 3.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from .errors import GradientError
from .graph.node import Node
from .ops.elementwise import add, convert
from .ops.gradient_hooks import HOOKED, after_hooks
from .ops.host import RESULT
from .ops.movement import expand
from .ops.primitive import Lowering, autocast_mode, constant, grad_mode, own_lines, source_of
from .ops.reduction import sum_to_shape
from .ops.scan import PART, REPEAT


def gradients(
    outputs: Sequence[Node],
    cotangents: Sequence[Node],
    wanted: Sequence[Node],
    create_graph: bool = False,
    retain_graph: bool = True,
) -> list[Node | None]:
    """The gradient of sum(outputs * cotangents) with respect to each node of `wanted`.

    None stands for a node that the outputs do not depend on; zeros for one that they depend on only through operations
    whose slope is zero everywhere, such as floor. Cost: each operation on a path from a wanted node to an
    output is visited once. With `create_graph` the gradients can be differentiated again; without `retain_graph` the
    operations passed through cannot be differentiated a second time.
    """
    path = _path(outputs, set(wanted))
    _check_not_spent(outputs, path, set(wanted))
    arrived: dict[Node, Any] = {}
    # rules run in the dtypes of what they differentiate, whatever region backward() is called in
    with grad_mode(create_graph), autocast_mode(Lowering()):
        for output, given in zip(outputs, cotangents, strict=True):
            if output in path:
                _accumulate(arrived, output, output, given)
        results: dict[Node, Node] = {}
        flat: set[Node] = set()
        targets = set(wanted)
        hooked = {node for node in HOOKED if node in path}
        for node in sorted(path, key=lambda n: n.serial, reverse=True):
            cotangent = arrived.pop(node, None)
            if cotangent is None:
                continue
            if node in hooked:
                with source_of(node, backward=True), own_lines():
                    cotangent = after_hooks(node, cotangent)
            if node in targets:
                results[node] = cotangent
            with source_of(node, backward=True):
                _pass_on(node, cotangent, path, arrived, flat)
        met = _path(list(flat), targets - results.keys())
        for node in wanted:  # nodes are made in this order, and not in that of a set
            if node in met:
                results.setdefault(node, expand(constant(0.0, node.dtype), node.shape))
    if not retain_graph:
        spend(outputs, wanted)
    return [results.get(node) for node in wanted]


def _path(outputs: Sequence[Node], wanted: set[Node]) -> set[Node]:
    """The nodes through which an output depends differentiably on a wanted node, both ends included."""
    found = _differentiable(outputs)
    path: set[Node] = set()
    for node in sorted(found, key=lambda n: n.serial):
        if node in wanted or (node.op.name != "detach" and any(i in path for i in node.inputs)):
            path.add(node)
    return path


def _differentiable(outputs: Sequence[Node]) -> set[Node]:
    """The nodes that the outputs depend on differentiably, themselves included."""
    found: set[Node] = set()
    stack = [node for node in outputs if node.requires_grad]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            if node.op.name != "detach":
                stack.extend(i for i in node.inputs if i.requires_grad)
    return found


def spend(outputs: Sequence[Node], wanted: Sequence[Node]) -> None:
    """Note which histories are used up: of operations whose rules look at values, and of all that depends on them."""
    for node in sorted(_path(outputs, set(wanted)), key=lambda n: n.serial):
        if node.op.name != "detach" and node.inputs and (not node.op.linear or any(i.spent for i in node.inputs)):
            node.spend()


def _check_not_spent(outputs: Sequence[Node], path: set[Node], wanted: set[Node]) -> None:
    """A history can be gone through once more only where it is linear throughout, and still there."""
    for node in sorted(path | {n for n in _differentiable(outputs) if not n.inputs}, key=lambda n: n.serial):
        if node.spent and not (node.op.linear and node.inputs) and node not in wanted:
            raise GradientError(
                f"a second backward pass through the same graph: {node.op.name} (made at {node.source}) was already "
                "differentiated and what it kept was let go. Call the first backward with retain_graph=True, or "
                "compute the loss again."
            )


def _pass_on(node: Node, cotangent: Any, path: set[Node], arrived: dict[Node, Any], flat: set[Node]) -> None:
    """Add the cotangents of the inputs to `arrived`; inputs in which the operation is flat are entered in `flat`.

    The cotangent of what has several results is that of each of them.
    """
    if node.op is RESULT:
        _accumulate(arrived.setdefault(node.inputs[1], {}), node["place"], node, cotangent)
        return
    if node.op is PART:
        _accumulate(arrived.setdefault(node.inputs[0], {}), (node["of"], node["place"]), node, cotangent)
        return
    indices = [index for index, operand in enumerate(node.inputs) if operand in path]
    if node.op is REPEAT:
        passed_on = node.op.pullbacks(node, cotangent, indices, gradients)  # type: ignore[operator]
    else:
        passed_on = node.op.pull(node, cotangent, indices)
    for index, passed in zip(indices, passed_on, strict=True):
        if passed is not None:
            _accumulate(arrived, node.inputs[index], node.inputs[index], passed)
        elif not node.op.joint:  # a rule of the user's own that gives None says that there is no dependence
            flat.add(node.inputs[index])


def _accumulate(arrived: dict[Any, Any], key: Hashable, node: Node, cotangent: Node) -> None:
    """Add a cotangent of `node` to what has arrived under `key`."""
    fitted = convert(sum_to_shape(cotangent, node.shape), node.dtype)
    before = arrived.get(key)
    arrived[key] = fitted if before is None else add(before, fitted)
