"""From a group to its launches: which emitter lowers which kind, and which groups are alike.

Groups of the same structure, as the layers of a deep network are, are emitted once: their launches differ in the nodes
only. So compile time grows with the number of distinct kernels and not with depth.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from .. import forks
from ..compiler.groups import ATTEND, COLUMNS, CONVOLUTION, JOIN, LOOP, PRODUCT, PUT, RECUR, SCATTER, Group, elements
from ..graph.node import Node, exact
from ..ops.convolution import multiplications
from ..timeline import span
from .attention import attention_work, emit_attention
from .columns import emit_columns
from .convolution import emit_convolution
from .indexed import emit_join, emit_put, emit_scatter
from .launch import Launch, Workspace
from .loops import emit_loops, operation_cost
from .products import emit_product
from .recurrence import emit_recurrence
from .target import Target
from .templates import Store, Template, key_of, read, written

#: launches of groups seen, by structure, with numbers in place of nodes; the oldest go first
_SEEN: OrderedDict[Hashable, list[Template]] = OrderedDict()
_MOST_SEEN = 4096
_LOCK = threading.Lock()


@forks.in_child
def _renew_lock() -> None:
    global _LOCK
    _LOCK = threading.Lock()


def emit(group: Group, in_memory: Callable[[Node], bool], target: Target, store: Store | None = None) -> list[Launch]:
    """The launches, in order, that compute the stored members of a group of any kind but CHECK and CALL.

    `in_memory(node)` tells which values are in memory when the group is done. What another process has emitted for the
    same structure is taken from `store`, and what is emitted is put there.
    """
    if not any(elements(node) for node in group.stored):
        return []
    nodes = _nodes_of(group, in_memory)
    key = (target, _structure(group, nodes, in_memory))
    with _LOCK:
        templates = _SEEN.get(key)
    if templates is None:
        templates = _stored(group, nodes, in_memory, key, store)
        with _LOCK:
            _SEEN[key] = templates
            while len(_SEEN) > _MOST_SEEN:
                _SEEN.popitem(last=False)
    workspaces: dict[int, Workspace] = {}
    return [template.launch(nodes, workspaces) for template in templates]


def _stored(
    group: Group, nodes: list[Node], in_memory: Callable[[Node], bool], key: tuple[Target, Hashable],
    store: Store | None,
) -> list[Template]:  # fmt: skip
    """The templates of a group, from the store where it has them."""
    place = None if store is None else key_of(*key)
    if store is None or place is None:
        return _emitted(group, nodes, in_memory, key[0])
    with span("read the cache"):
        payload = store.get(place)
        templates = None if payload is None else read(payload, len(nodes))
    if templates is None:
        templates = _emitted(group, nodes, in_memory, key[0])
        with span("write the cache"):
            store.put(place, written(templates))
    return templates


def _emitted(group: Group, nodes: list[Node], in_memory: Callable[[Node], bool], target: Target) -> list[Template]:
    with span(f"emit {group.kind}", group):
        launches = _emit(group, in_memory, target)
    main = [launch for launch in launches if not launch.work]
    if main:
        main[-1].work = _work(group)
    numbers = {node: number for number, node in enumerate(nodes)}
    workspaces: dict[Workspace, int] = {}
    return [Template.of(launch, numbers, workspaces) for launch in launches]


def _emit(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    if group.kind == LOOP:
        return emit_loops(group, in_memory, target)
    if group.kind == COLUMNS:
        return emit_columns(group, in_memory, target)
    if group.kind == CONVOLUTION:
        return emit_convolution(group, in_memory, target)
    if group.kind == PRODUCT:
        return emit_product(group, in_memory, target)
    if group.kind == ATTEND:
        return emit_attention(group, in_memory, target)
    by_index = {SCATTER: emit_scatter, PUT: emit_put, JOIN: emit_join, RECUR: emit_recurrence}
    assert group.kind in by_index, group.kind
    return by_index[group.kind](group, in_memory, target)


def _work(group: Group) -> int:
    """Operations of a group: some eighty take a nanosecond, in elementwise kernels as in products (AMD Zen 4)."""
    first = next(iter(group.members))
    if group.kind == ATTEND:
        return attention_work(group)
    if group.kind in (LOOP, PRODUCT):
        work = group.size * (operation_cost(group.inner) + 2 * len(group.stored))
        return work + (2 * elements(first) * first.inputs[0].shape[-1] if group.kind == PRODUCT else 0)
    if group.kind == CONVOLUTION:
        following = operation_cost(group.inner) - first.op.cost
        return 2 * multiplications(first) + group.size * (following + 2 * (len(group.stored) - 1))
    return 4 * sum(elements(node) for node in (first, *first.inputs))


def _nodes_of(group: Group, in_memory: Callable[[Node], bool]) -> list[Node]:
    """The group's members, then all that computing them can come to, down to what is in memory."""
    found = dict.fromkeys(group.members)
    stack = list(reversed(group.members))
    while stack:
        node = stack.pop()
        if node in group.members or not in_memory(node):
            for operand in node.inputs:
                if operand not in found:
                    found[operand] = None
                    stack.append(operand)
    return list(found)


def _structure(group: Group, nodes: list[Node], in_memory: Callable[[Node], bool]) -> Hashable:
    """All that the code of a group depends on."""
    numbers = {node: number for number, node in enumerate(nodes)}
    rows: list[Hashable] = []
    for node in nodes:
        known = node not in group.members and in_memory(node)
        attributes = () if known else tuple(map(exact, node.attributes.values()))
        inputs = () if known else tuple(numbers[i] for i in node.inputs)
        same = node in group.constants
        rows.append((node.op, attributes, node.shape, node.dtype, inputs, known, in_memory(node), same))
    stored = tuple(numbers[node] for node in group.stored)
    share = None if group.share is None else (group.share.rows, group.share.each)
    return group.kind, group.size, group.row, group.columns, share, tuple(group.members.values()), stored, tuple(rows)
