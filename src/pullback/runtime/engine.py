"""From pending nodes to values: the one path on which everything is computed, compiled step or not.

A graph is looked up by its structure (operations, attributes, shapes, dtypes; not the values of its leaves). A program
for that structure is made once and run as often as it comes again.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from .. import debug, forks
from ..errors import NonFiniteError, PullbackError, TraceError
from ..graph.interpreter import interpret
from ..graph.node import Graph, Node, ancestors, reachable
from ..graph.types import to_storage
from ..ops.body import plain_copy
from ..ops.primitive import ALIAS, INPUT, PARAMETER, input_node, structure
from ..timeline import span
from .arena import Arenas
from .arena import is_being_written as is_being_written
from .arena import is_calling as is_calling
from .backends import made_program
from .buffers import Buffer
from .program import Program
from .report import reported

#: programs kept for structures that come again; the least recently used goes first
_KEPT = 512
#: graphs of numbers alone (zeros, full, arange) up to so many nodes are filled in by the reference: a program for each
#: number would cost more than it saves
_FILLED = 4
#: are told what has been computed, and the memory that holds it, before the nodes are settled
INSPECTORS: list[Callable[[list[Node], list[Buffer]], None]] = []
_programs: OrderedDict[Hashable, Program] = OrderedDict()
#: of what is pending: steps have others, in which results may lie
_ARENAS = Arenas()
_lock = threading.RLock()


@forks.in_child
def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


#: gives the pending nodes that may wait for operations with these serial numbers, the least first
Pending = Callable[[Sequence[int]], Sequence[Node]]


def _nothing(serials: Sequence[int]) -> Sequence[Node]:
    return ()


def materialize(wanted: Sequence[Node], pending: Pending = _nothing) -> None:
    """Compute the nodes of `wanted`, and those of `pending` that share work with them, and settle all with values.

    What shares work would do it again later, from values that had to be kept for it: so a loss is computed by the
    program that computes the step.
    """
    outputs = list(dict.fromkeys(node for node in wanted if node.buffer is None))
    if not outputs:
        return
    with span("materialize"):
        with _lock:  # a node that another thread settles is no longer made of anything
            further = _sharing(outputs, pending)
        try:
            _compute(outputs + further)
        except NonFiniteError:
            raise  # of an inspector, whose fault it is whoever asked
        except PullbackError:
            if not further:
                raise
            _compute(outputs)  # the fault may be another's


def _sharing(outputs: list[Node], pending: Pending) -> list[Node]:
    """The pending nodes that need, or are needed by, something that is computed for `outputs`."""
    computed = {node for node in ancestors(outputs) if node.buffer is None and node.inputs}
    if not computed:
        return []
    serials, own = sorted(node.serial for node in computed), set(outputs)
    waiting = [
        node
        for node in dict.fromkeys(pending(serials))
        # the parameters of a model are initialized one by one: most are told apart by when they were made
        if node.buffer is None and node not in own and _waits_for(node, serials)
    ]
    touched: set[Node] = set()
    for node in reachable(waiting):
        if node in computed or (node.buffer is None and any(i in touched for i in node.inputs)):
            touched.add(node)
    return [node for node in waiting if node in touched]


def _waits_for(node: Node, serials: Sequence[int]) -> bool:
    """Whether one of these numbers may be of an operation that a node waits for, or of itself."""
    place = bisect_left(serials, begun(node))
    return place < len(serials) and serials[place] <= node.serial


#: by the serial number of a pending node the least one of what it was to be computed from when it was first asked for
_BEGUN: dict[int, int] = {}
_MOST_BEGUN = 100_000


def begun(node: Node) -> int:
    """A serial number that none of the pending operations that `node` needs is below."""
    if node.serial in _BEGUN:
        return _BEGUN[node.serial]
    if len(_BEGUN) >= _MOST_BEGUN:
        _BEGUN.clear()
    stack = [node]
    while stack:
        current = stack[-1]
        needed = [operand for operand in current.inputs if operand.buffer is None and operand.inputs]
        unknown = [operand for operand in needed if operand.serial not in _BEGUN]
        if unknown and current.serial not in _BEGUN:
            stack += unknown
            continue
        stack.pop()
        # where another thread clears them meanwhile, nothing is below 0 either
        least = min([current.serial, *(_BEGUN.get(operand.serial, 0) for operand in needed)])
        _BEGUN.setdefault(current.serial, least)
    return _BEGUN.get(node.serial, 0)


def _compute(wanted: list[Node]) -> None:
    """Give nodes their values. Threads look at graphs one after the other, and run what comes of them side by side."""
    with _lock:
        outputs = [node for node in wanted if node.buffer is None]  # another thread may have been faster
        graph = Graph.of(outputs)
        leaves = [node for node in graph.nodes if node.buffer is not None]
        _refuse_recorded(graph)
        is_filled = not leaves and len(graph.nodes) <= _FILLED
        if is_filled:
            values = interpret(graph, _no_leaf)
            results = [_filled(node, to_storage(v, node.dtype)) for node, v in zip(outputs, values, strict=True)]
        else:
            program = _program(graph, leaves)
    if not is_filled:
        results = [Buffer.empty(count(node), node.dtype) for node in outputs]
        program.run([leaf.buffer for leaf in leaves], results)
    for inspect in INSPECTORS:
        inspect(outputs, results)
    with _lock:
        for node, buffer in zip(outputs, results, strict=True):
            if node.buffer is None:
                node.settle(buffer)


def _refuse_recorded(graph: Graph) -> None:
    """Raise TraceError where something is used that a compiled step has made, or the body of a loop."""
    refuse_parameters(graph)
    for node in graph.nodes:
        if node.op is INPUT and node.buffer is None:
            raise TraceError(
                f"a tensor that belongs to a compiled step (made at {node.source}) is used outside of it: the step was "
                "only recorded there, and later runs do not pass that line. Return the tensor from the step."
            )


def _filled(node: Node, stored: np.ndarray) -> Buffer:
    """The node's value in memory of its own; where it is nothing but zeros, in pages that the system has zeroed."""
    repeated = stored.size > 0 and not any(stored.strides)
    if repeated and not any(stored[(0,) * stored.ndim].tobytes()):
        return Buffer.zeros(count(node), node.dtype)
    buffer = Buffer.empty(count(node), node.dtype)
    buffer.array.reshape(node.shape)[...] = stored
    return buffer


def _no_leaf(node: Node) -> np.ndarray:
    raise AssertionError(f"{node!r} is no number")


def refuse_parameters(graph: Graph) -> None:
    """Raise TraceError where something of the body of a loop, or of an example of a batch, is used outside of it."""
    for node in graph.nodes:
        if node.op is PARAMETER:
            raise TraceError(
                f"a tensor that belongs to the body of a scan or to the function under vmap (made at {node.source}) is "
                "used outside of it, or asked for its value in it: the body is recorded once and has no values. Return "
                "the tensor from the body, and choose by pb.where(...) in place of a Python `if`."
            )


def count(node: Node) -> int:
    """How many elements a node's value has."""
    total = 1
    for size in node.shape:
        total *= size
    return total


def _program(graph: Graph, leaves: list[Node]) -> Program:
    key = (structure(graph), debug.get("backend"), debug.get("cpu"))
    with _lock:
        found = _programs.get(key)
        if found is None:
            with reported("compile", "what is pending") as report:
                report.program = found = _programs[key] = made_program(*without_values(graph, leaves), arenas=_ARENAS)
            if len(_programs) > _KEPT:
                _programs.popitem(last=False)
        else:
            _programs.move_to_end(key)
        return found


def without_values(graph: Graph, leaves: Sequence[Node], first: int = 0) -> tuple[Graph, list[Node]]:
    """The graph with its leaves' values replaced by inputs, numbered from `first`: a program holds none of them."""
    refuse_parameters(graph)
    inputs = [input_node(first + i, leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]
    known: dict[Node, Node] = dict(zip(leaves, inputs, strict=True))
    nodes = []
    for node in graph.nodes:
        if node.op.kind == ALIAS and node not in known:
            # a gradient rule may hold on to tensors: it has no place in a program
            known[node] = known[node.inputs[0]]
            continue
        if node not in known:
            known[node] = node if node.op is INPUT else plain_copy(node, tuple(known[i] for i in node.inputs))
        nodes.append(known[node])
    return Graph(nodes, [known[node] for node in graph.outputs]), inputs
