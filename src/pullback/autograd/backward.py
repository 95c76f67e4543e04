"""backward() and grad(): gradients of tensors, on top of the transformation of graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..diagnosis import Audit
from ..differentiate import gradients, spend
from ..errors import GradientError, ShapeError
from ..graph.node import Node
from ..ops.elementwise import add, convert, where
from ..ops.host import SEVERAL
from ..ops.movement import expand
from ..ops.primitive import MODE, constant, grad_mode, user_source
from ..ops.scan import REPEAT
from ..timeline import span

if TYPE_CHECKING:
    from ..tensor.state import Seeker


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradient of the sum of `tensors` to `.grad` of every leaf they depend on (or of `inputs` only).

    `grad_tensors` are their cotangents; a tensor of more than one element needs one. The graph can be gone through
    once, unless `retain_graph` (by default the value of `create_graph`) is true. A `.grad` that is added to is a new
    tensor; who holds the one before keeps what it was (PyTorch adds in place).

    >>> x = pb.tensor(3.0, requires_grad=True)
    >>> pb.autograd.backward([x * x, x])
    >>> x.grad.item()
    7.0
    """
    from ..tensor.arguments import truth

    create_graph = truth(create_graph, "backward", "create_graph")
    retain = create_graph if retain_graph is None else truth(retain_graph, "backward", "retain_graph")
    _backward(_as_tuple(tensors), grad_tensors, retain, create_graph, inputs)


def backward_where(counts: Any, loss: Any) -> None:
    """`loss.backward()` where the scalar `counts` (bool) is true. Where it is not, `.grad` receives zeros, whatever the
    pass finds: the cotangent of a loss of weight 0 is 0, and 0 times what is infinite or NaN would be NaN.
    """

    def counting(gradient: Node) -> Node:
        return where(counts.node, gradient, expand(constant(0, gradient.dtype), gradient.shape))

    _backward((loss,), None, False, False, None, counting)


def _backward(
    outputs: tuple[Any, ...], grad_tensors: Any, retain: bool, create_graph: bool, inputs: Any,
    settled: Callable[[Node], Node] | None = None,
) -> None:  # fmt: skip
    """Each gradient that is found is what `settled` makes of it."""
    from ..tensor.handle import RECEIVERS, Handle
    from ..tensor.state import STATE

    roots = [o.node for o in outputs]
    for root in roots:
        _check_history(root)
    if STATE.trace is not None and STATE.trace.divided is not None:
        is_plain = grad_tensors is None and inputs is None and not retain
        if STATE.trace.divided.takes(outputs if is_plain else None):
            return
    cotangents = _cotangents(roots, grad_tensors)
    receivers: list[Any]
    sought: list[tuple[Seeker, Node]] = []
    if inputs is None:
        history = _history(roots)
        nodes = [n for n in history if n in RECEIVERS]
        receivers = [RECEIVERS[n]() for n in nodes]
        sought = _sought(history)
    else:
        receivers = list(_as_tuple(inputs))
        if not receivers:
            raise GradientError(f"backward(): inputs are none (at {user_source()}); leave them out for all leaves")
        nodes = [t.node for t in receivers]
    with span("differentiate"):
        found = _looked_at(roots, cotangents, [*nodes, *(node for _, node in sought)], create_graph, retain)
    if settled is not None:
        found = [None if value is None else settled(value) for value in found]
    for root in roots:
        STATE.watch(root, "loss")
    for (seeker, node), value in zip(sought, found[len(nodes) :], strict=True):
        if value is not None:
            seeker.receive(node, value)
    for receiver, value in zip(receivers, found[: len(nodes)], strict=True):
        if receiver is not None and value is not None:
            before = receiver._collected()
            with grad_mode(create_graph):
                total = value if before is None else add(before.node, value)
            receiver._collect(Handle._wrap(total))
            if receiver.is_leaf:
                STATE.watch(total, "gradient", receiver, None if before is None else before.node)
            for hook in list((receiver._accumulated or {}).values()):
                hook(receiver)


def _sought(history: Sequence[Node]) -> list[tuple[Seeker, Node]]:
    """The nodes between leaves and loss of which somebody wants the gradients."""
    from ..tensor.state import SEEKERS, STATE

    if not SEEKERS or STATE.loop is not None or STATE.example is not None:
        return []
    # of what was gone through before, the pass is to say so itself
    open_ = {node for node in history if not node.spent}
    return [(seeker, node) for seeker in SEEKERS for node in seeker.seek(open_)]


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `outputs` with respect to `inputs`, a tuple as long as `inputs`; `.grad` is not touched.

    `grad_outputs` are the cotangents of the outputs (needed where they have more than one element); with
    `is_grads_batched` many of each along their first axis, and so of the gradients. An input that the outputs do not
    depend on raises GradientError, or gives None with `allow_unused`, and zeros with `materialize_grads`.

    >>> x = pb.tensor(3.0, requires_grad=True)
    >>> pb.autograd.grad(x * x, x)[0].item()
    6.0
    """
    from ..tensor.arguments import truth

    if not only_inputs:
        raise GradientError(f"grad() gives gradients of inputs only; call backward() for .grad (at {user_source()})")
    if materialize_grads and allow_unused is False:
        raise GradientError(f"grad(): materialize_grads is for unused inputs, which are refused (at {user_source()})")
    create_graph = truth(create_graph, "grad", "create_graph")
    materialize_grads = truth(materialize_grads, "grad", "materialize_grads")
    retain = create_graph if retain_graph is None else truth(retain_graph, "grad", "retain_graph")
    unused = allow_unused is not None and truth(allow_unused, "grad", "allow_unused")
    outputs, inputs = _as_tuple(outputs), _as_tuple(inputs)
    if is_grads_batched:
        found = _batched(outputs, inputs, grad_outputs, retain, create_graph)
    else:
        found = _gradients(outputs, inputs, grad_outputs, retain, create_graph)
    if materialize_grads:
        lead = _as_tuple(grad_outputs)[0].shape[:1] if is_grads_batched else ()
        return tuple(i.new_zeros((*lead, *i.shape)) if g is None else g for i, g in zip(inputs, found, strict=True))
    for index, value in enumerate(found):
        if value is None and not unused:
            raise GradientError(
                f"input {index} of shape {list(inputs[index].shape)} was not used in computing the outputs "
                f"(at {user_source()}); pass allow_unused=True to get None for it"
            )
    return found


def _gradients(outputs: Any, inputs: Any, given: Any, retain: bool, create_graph: bool) -> tuple[Any, ...]:
    """A gradient, or None, for each of `inputs`."""
    roots = [o.node for o in outputs]
    for root in roots:
        _check_history(root)
    nodes = [i.node for i in inputs]
    found = _looked_at(roots, _cotangents(roots, given), nodes, create_graph, retain)
    if not create_graph:  # what is differentiated again is part of another loss
        _watch(roots, inputs, found)
    return tuple(None if value is None else outputs[0]._wrap(value) for value in found)


def _looked_at(
    roots: list[Node], cotangents: list[Node], nodes: list[Node], create_graph: bool, retain: bool
) -> Sequence[Node | None]:
    """The gradients; where anomalies are looked for, they are looked for in them."""
    from ..tensor.anomaly import look
    from ..tensor.state import STATE

    looks = MODE.anomaly and STATE.trace is None and STATE.loop is None and STATE.example is None
    if STATE.audits is not None:
        if STATE.is_in_a_loop:
            kept = None
        else:
            kept = STATE.audits if STATE.example is None else STATE.example.audits
        audit = None if kept is None else _audit(roots, cotangents, create_graph)
        # hooks are those of the nodes of one example, and of no copies of them
        if kept is not None and audit is not None and (STATE.example is None or not audit.is_hooked):
            kept.append(audit)
        elif STATE.trace is not None:
            STATE.trace.unaudited.append(str(user_source()))
    found = gradients(roots, cotangents, nodes, create_graph, retain or looks)
    if looks:
        look(roots, found)
        if not retain:
            spend(roots, nodes)
    return found


def _audit(roots: list[Node], cotangents: list[Node], create_graph: bool) -> Audit:
    """The cotangents of everything that the pass goes through, beside those that it gives. What a rule gives none for
    has one of zeros: that is what it says of the slope.
    """
    history = _history(roots)
    # what has several results has no cotangent of its own
    nodes = [node for node in history if node.op not in (SEVERAL, REPEAT) and node.dtype.is_floating_point]
    found = gradients(roots, cotangents, nodes, create_graph)
    known = {n: expand(constant(0.0, n.dtype), n.shape) if c is None else c for n, c in zip(nodes, found, strict=True)}
    return Audit(roots, cotangents, history, known)


def _watch(roots: list[Node], inputs: Sequence[Any], found: Sequence[Node | None]) -> None:
    """A step that is being recorded looks at whether outputs and gradients of leaves are finite."""
    from ..tensor.state import STATE

    for root in roots:
        STATE.watch(root, "loss")
    for receiver, value in zip(inputs, found, strict=True):
        if value is not None and receiver.is_leaf:
            STATE.watch(value, "gradient", receiver)


def _batched(outputs: Any, inputs: Any, given: Any, retain: bool, create_graph: bool) -> tuple[Any, ...]:
    """The gradients by each of many cotangents, along a first axis."""
    from ..tensor.joining import stack

    given = _as_tuple(given)
    sizes = {g.shape[:1] for g in given if g is not None}
    if len(sizes) != 1 or sizes <= {(), (0,)}:
        raise ShapeError(f"grad(): is_grads_batched takes cotangents with one first axis (at {user_source()})")
    ((count,),) = sizes
    rows = [
        _gradients(outputs, inputs, [None if g is None else g[i] for g in given], retain or i + 1 < count, create_graph)
        for i in range(count)
    ]
    return tuple(None if column[0] is None else stack(list(column)) for column in zip(*rows, strict=True))


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _check_history(root: Node) -> None:
    if not root.requires_grad:
        error = GradientError(
            f"backward() on a tensor with no graph (at {user_source()}): it does not require grad, or was computed "
            "under no_grad(), from detached tensors, or by a compiled function (which must call backward() itself). "
            "Set requires_grad=True on what the gradient is wanted for."
        )
        error.root = root
        raise error


def _cotangents(roots: Sequence[Node], given: Any) -> list[Node]:
    """A cotangent for each of `roots`: those given, and 1 for a tensor of one element."""
    each = (None,) * len(roots) if given is None else _as_tuple(given)
    if len(each) != len(roots):
        raise ShapeError(f"{len(each)} cotangents were given for {len(roots)} tensors (at {user_source()})")
    return [_cotangent(root, gradient) for root, gradient in zip(roots, each, strict=True)]


def _cotangent(root: Node, gradient: Any) -> Node:
    if gradient is None:
        if root.shape not in ((), (1,)) and any(size != 1 for size in root.shape):
            raise GradientError(
                f"backward() without a gradient takes a tensor of one element, got shape {list(root.shape)} "
                f"(at {user_source()}). Reduce it with .sum() or .mean(), or pass gradient=, its cotangent."
            )
        return expand(constant(1.0, root.dtype), root.shape)
    node = gradient.node
    if node.dtype.is_floating_point and root.dtype.is_floating_point:
        node = convert(node, root.dtype)
    if node.shape != root.shape or node.dtype is not root.dtype:
        raise ShapeError(
            f"the gradient passed to backward must be {root.dtype.name}{list(root.shape)}, got "
            f"{node.dtype.name}{list(node.shape)} (at {user_source()})"
        )
    return node


def _history(roots: Sequence[Node]) -> list[Node]:
    """All nodes that `roots` depend on differentiably, themselves included, in the order in which they were made."""
    found: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            if node.op.name != "detach":
                stack.extend(i for i in node.inputs if i.requires_grad)
    return sorted(found, key=lambda n: n.serial)
