"""Tensors whose values have not been computed; those that a computation passes by are computed along with it.

Most of what waits has nothing to do with what is asked for: the parameters of a model are drawn one by one, and asked
for one by one. So what has waited for a while is kept with the serial numbers between which all that it needs was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

import numpy as np

from ..graph.node import Node
from ..ops.primitive import MODE
from ..runtime import engine

if TYPE_CHECKING:
    from .handle import Handle


class _Index(NamedTuple):
    """Tensors by their ids, and the least and the greatest serial number of the operations that each waits for."""

    keys: list[int]
    begun: np.ndarray
    ended: np.ndarray


#: all that wait, by id; a WeakSet would compare tensors. What has a value meanwhile leaves when it is met
_PENDING: dict[int, ref[Handle]] = {}
#: up to so many are gone through one by one
_FEW = 200
#: the ids of those that are in no index
_FRESH: dict[int, None] = {}
_index = _Index([], np.empty(0, np.int64), np.empty(0, np.int64))
#: how many fresh ones have been gone through since there is this index
_gone_through = 0


def wait(tensor: Handle) -> None:
    """Enter a tensor among the pending ones; it leaves when it dies or has a value."""
    key = id(tensor)

    def leave(_: object) -> None:
        _PENDING.pop(key, None)
        _FRESH.pop(key, None)

    _PENDING[key] = ref(tensor, leave)
    _FRESH[key] = None


def since(serial: int) -> list[Node]:
    """The nodes from this number on that tensors have and that have no values yet, the newest first."""
    tensors = [tensor for entry in _PENDING.copy().values() if (tensor := entry()) is not None]
    nodes = {tensor._node for tensor in tensors if tensor._node.serial >= serial and tensor._node.buffer is None}
    return sorted(nodes, key=lambda node: -node.serial)


def materialize(nodes: Sequence[Node]) -> None:
    """Compute the values of `nodes`, together with those of pending tensors that they depend on; while anomalies are
    looked for not with those from before, which are nobody's fault.
    """
    least = MODE.anomaly_since if MODE.anomaly else 0
    met: list[Handle] = []

    def waiting(serials: Sequence[int]) -> list[Node]:
        met.extend(_waiting_for(serials))
        return [node for tensor in met if (node := tensor._node).serial >= least]

    engine.materialize(nodes, waiting)
    _let_go(met)


def _waiting_for(serials: Sequence[int]) -> list[Handle]:
    """The pending tensors that may wait for operations with these numbers, the least first: all fresh ones, and those
    with one of the numbers between the two that they are kept with.
    """
    global _gone_through
    if len(_PENDING) <= _FEW:
        found = [tensor for entry in _PENDING.copy().values() if (tensor := entry()) is not None]
    else:
        _gone_through += len(_FRESH)
        if _gone_through > 2 * len(_PENDING):
            _make_index()
        keys, begun, ended = _index
        numbers = np.array([*serials, np.iinfo(np.int64).max])
        places = np.flatnonzero(numbers[np.searchsorted(numbers, begun)] <= ended).tolist()
        found = _tensors([*_FRESH.copy(), *(keys[place] for place in places)])
    _let_go(found)
    return [tensor for tensor in found if tensor._node.buffer is None]


def _make_index() -> None:
    global _index, _gone_through
    keys = list(_PENDING.copy())
    tensors = _tensors(keys)
    _let_go(tensors)
    waiting = [(id(tensor), node) for tensor in tensors if (node := tensor._node).buffer is None]
    begun = np.array([engine.begun(node) for _, node in waiting], np.int64)
    _index = _Index([key for key, _ in waiting], begun, np.array([node.serial for _, node in waiting], np.int64))
    _gone_through = 0
    for key in keys:
        _FRESH.pop(key, None)


def _tensors(keys: Sequence[int]) -> list[Handle]:
    """Those of the pending tensors with these ids that are still there."""
    entries = [entry for key in keys if (entry := _PENDING.get(key)) is not None]
    return [tensor for entry in entries if (tensor := entry()) is not None]


def _let_go(tensors: Sequence[Handle]) -> None:
    """Wait no longer for those that have values."""
    for tensor in tensors:
        if tensor._node.buffer is not None:
            _PENDING.pop(id(tensor), None)
            _FRESH.pop(id(tensor), None)


__all__ = ["materialize", "since", "wait"]
