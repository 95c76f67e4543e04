"""From a group to its launches: which emitter lowers which kind."""

from __future__ import annotations

from collections.abc import Callable

from ..compiler.fuse import CHECK, COLUMNS, JOIN, LOOP, PRODUCT, PUT, SCATTER, Group, elements
from ..graph.node import Node
from .columns import emit_columns
from .indexed import emit_join, emit_put, emit_scatter
from .launch import Launch
from .loops import emit_loops
from .products import emit_product
from .target import Target


def emit(
    group: Group, in_memory: Callable[[Node], bool], target: Target, aliased: Callable[[Node], bool]
) -> list[Launch]:
    """The launches, in order, that compute the stored members of a group of any kind but CHECK and CALL."""
    if not any(elements(node) for node in group.stored):
        return []
    if group.kind == LOOP:
        return [emit_loops(group, in_memory, target)]
    if group.kind == COLUMNS:
        return [emit_columns(group, in_memory, target)]
    if group.kind == PRODUCT:
        return emit_product(group, in_memory, target, aliased)
    by_index = {SCATTER: emit_scatter, PUT: emit_put, JOIN: emit_join}
    assert group.kind in by_index and group.kind != CHECK, group.kind
    return by_index[group.kind](group, in_memory, target)
