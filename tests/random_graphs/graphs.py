"""The graph of a seed: operations drawn from all families, and totals of what they gave."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import hypothesis.strategies as st
import numpy as np

from pullback.ops import elementwise as e
from pullback.ops import movement, reduction
from pullback.ops.primitive import constant

from .elementwise import ELEMENTWISE
from .indexing import INDEXING
from .maker import MOST, WORST, Known, Maker, rounded
from .movement import MOVEMENT
from .others import OTHERS
from .products import PRODUCTS

#: their order, and that of the operations in each, decides what a seed gives
_FAMILIES = (ELEMENTWISE, MOVEMENT, PRODUCTS, INDEXING, OTHERS)
_OPERATIONS = [operation for family in _FAMILIES for operation in family.operations]


@dataclass(frozen=True)
class RandomGraph:
    """All nodes in the order in which they were made, the outputs among them, and what makes them again."""

    seed: int
    operations: int
    pool: tuple[Known, ...]
    outputs: tuple[Known, ...]

    def __repr__(self) -> str:
        return f"random_graph(seed={self.seed}, operations={self.operations})"


def random_graph(seed: int, operations: int) -> RandomGraph:
    """The graph of a seed; with more operations it grows at its end."""
    make = Maker(seed)
    while len(make.pool) < operations:
        made = make.choose(_OPERATIONS)(make)
        if made.error > WORST or (made.dtype.is_floating_point and made.size > MOST):
            continue
        make.pool.append(made)
    others = [k for k in make.pool[:-1] if make.chance(0.15)]
    return RandomGraph(seed, operations, tuple(make.pool), (make.pool[-1], *others[-3:], *_totals(seed, make.pool)))


def _totals(seed: int, pool: list[Known]) -> list[Known]:
    """Totals of the last results that a reduction or an index made: as they are, of their squares, or of another
    elementwise function, in another shape or order. No choice of the graph itself depends on theirs.
    """
    random = np.random.default_rng((seed, 1))
    made = [
        k
        for k in pool
        if k.node.op.name in ("sum", "max", "scatter_add")
        and k.dtype.is_floating_point
        and math.prod(k.shape) > 1
        and k.size <= 100
    ]
    return [_total(random, k) for k in made[-2:]]


def _total(random: np.random.Generator, x: Known) -> Known:
    choice, node = random.integers(4), x.node
    if random.random() < 0.3:
        node = movement.reshape(node, (math.prod(x.shape),))
    elif random.random() < 0.3:
        node = movement.permute(node, tuple(reversed(range(len(x.shape)))))
    if choice == 1:
        x = replace(x, node=e.absolute(node))
    elif choice == 2:
        half = replace(x, node=e.mul(node, constant(0.5, x.dtype)), scale=None if x.scale is None else x.scale + 1)
        x = rounded(half.node, half.size, half.error, half.scale, half.finite)
    elif choice == 3:
        scale = None if x.scale is None else 2 * x.scale
        x = rounded(e.mul(node, node), x.size * x.size, 2 * x.size * x.error + x.error**2, scale, x.finite)
    count, axes = math.prod(x.shape), tuple(range(len(x.shape)))
    if random.random() < 0.2:
        return replace(x, node=reduction.reduce_max(x.node, axes))
    return rounded(reduction.reduce_sum(x.node, axes), x.size * count, x.error * count, x.scale, x.finite, 1 + count)


def random_graphs(most: int = 14) -> st.SearchStrategy[RandomGraph]:
    """Graphs of at most `most` operations; a failure shrinks to the shortest beginning of its seed that fails."""
    return st.builds(random_graph, st.integers(0, 2**32 - 1), st.integers(1, most))
