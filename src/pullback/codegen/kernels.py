"""From a group to its launches: which emitter lowers which kind, and which groups are alike.

Groups of the same structure, as the layers of a deep network are, are emitted once: their launches differ in the nodes
only. So compile time grows with the number of distinct kernels and not with depth.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from ..compiler.fuse import ATTEND, COLUMNS, CONVOLUTION, JOIN, LOOP, PRODUCT, PUT, SCATTER, Group, elements
from ..compiler.index import View
from ..graph.node import Node, exact
from ..ops.convolution import multiplications
from ..timeline import span
from .attention import attention_work, emit_attention
from .columns import emit_columns
from .convolution import emit_convolution
from .indexed import emit_join, emit_put, emit_scatter
from .launch import Argument, Launch, Workspace
from .loops import emit_loops, operation_cost
from .products import emit_product
from .target import Target


@dataclass
class _Template:
    """A launch with the numbers of nodes in place of the nodes."""

    pattern: Launch
    arguments: list[tuple[str, int, int]]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    exact: tuple[int, ...]

    @classmethod
    def of(cls, launch: Launch, numbers: Mapping[Any, int]) -> _Template:
        """The template of a launch on the nodes that `numbers` counts."""
        arguments = []
        for argument in launch.arguments:
            if isinstance(argument, int):
                arguments.append(("number", argument, 0))
            elif isinstance(argument, Workspace):
                arguments.append(("workspace", id(argument), argument.nbytes))
            elif isinstance(argument, View):
                arguments.append(("view", numbers[argument.base], argument.offset))
            else:
                arguments.append(("node", numbers[argument], 0))
        places = [tuple(sorted(numbers[n] for n in some)) for some in (launch.reads, launch.writes, launch.exact)]
        pattern = Launch(
            launch.code, launch.tasks, [], launch.scratch_bytes, set(), set(), set(), launch.work, launch.in_place
        )
        return cls(pattern, arguments, *places)

    def launch(self, nodes: list[Node], workspaces: dict[int, Workspace]) -> Launch:
        """The launch on other nodes; workspaces are shared by the launches of one group."""
        arguments: list[Argument] = []
        for kind, what, more in self.arguments:
            if kind == "number":
                arguments.append(what)
            elif kind == "workspace":
                arguments.append(workspaces.setdefault(what, Workspace(more)))
            else:
                arguments.append(View(nodes[what], (), more) if kind == "view" else nodes[what])
        reads, writes, exact_ = ({nodes[i] for i in some} for some in (self.reads, self.writes, self.exact))
        pattern = self.pattern
        return Launch(
            pattern.code,
            pattern.tasks,
            arguments,
            pattern.scratch_bytes,
            reads,
            writes,
            exact_,
            pattern.work,
            pattern.in_place,
        )


#: launches of groups seen, by structure, with numbers in place of nodes; the oldest go first
_SEEN: OrderedDict[Hashable, list[_Template]] = OrderedDict()
_MOST_SEEN = 4096
_LOCK = threading.Lock()


def emit(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches, in order, that compute the stored members of a group of any kind but CHECK and CALL.

    `in_memory(node)` tells which values are in memory when the group is done.
    """
    if not any(elements(node) for node in group.stored):
        return []
    nodes = _nodes_of(group, in_memory)
    key = (target, _structure(group, nodes, in_memory))
    with _LOCK:
        templates = _SEEN.get(key)
    if templates is None:
        with span(f"emit {group.kind}", group):
            launches = _emit(group, in_memory, target)
        if launches:
            launches[-1].work = _work(group)
        numbers = {node: number for number, node in enumerate(nodes)}
        templates = [_Template.of(launch, numbers) for launch in launches]
        with _LOCK:
            _SEEN[key] = templates
            while len(_SEEN) > _MOST_SEEN:
                _SEEN.popitem(last=False)
    workspaces: dict[int, Workspace] = {}
    return [template.launch(nodes, workspaces) for template in templates]


def _emit(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    if group.kind == LOOP:
        return [emit_loops(group, in_memory, target)]
    if group.kind == COLUMNS:
        return [emit_columns(group, in_memory, target)]
    if group.kind == CONVOLUTION:
        return emit_convolution(group, in_memory, target)
    if group.kind == PRODUCT:
        return emit_product(group, in_memory, target)
    if group.kind == ATTEND:
        return emit_attention(group, in_memory, target)
    by_index = {SCATTER: emit_scatter, PUT: emit_put, JOIN: emit_join}
    assert group.kind in by_index, group.kind
    return by_index[group.kind](group, in_memory, target)


def _work(group: Group) -> int:
    """Operations of a group; those of a matrix product count an eighth: they run in full vectors from registers."""
    first = next(iter(group.members))
    if group.kind == ATTEND:
        return attention_work(group)
    if group.kind in (LOOP, PRODUCT):
        work = group.size * (operation_cost(group.members) + 2 * len(group.stored))
        return work + (elements(first) * first.inputs[0].shape[-1] // 4 if group.kind == PRODUCT else 0)
    if group.kind == CONVOLUTION:
        return multiplications(first) // 4
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
    return group.kind, group.size, group.row, tuple(group.members.values()), stored, tuple(rows)
