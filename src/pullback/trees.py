"""Nested tuples, lists and dicts taken apart into their leaves and put together again."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any


def flatten(tree: Any) -> tuple[list[Any], Hashable]:
    """The leaves in order, and the shape of the nesting (hashable)."""
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree: Any, leaves: list[Any]) -> Hashable:
    if isinstance(tree, (tuple, list)):
        return type(tree), tuple(_flatten(item, leaves) for item in tree)
    if isinstance(tree, dict):
        return dict, tuple(tree), tuple(_flatten(item, leaves) for item in tree.values())
    leaves.append(tree)
    return None


def unflatten(shape: Any, leaves: list[Any]) -> Any:
    """The tree of that shape with the given leaves."""
    return _unflatten(shape, iter(leaves))


def _unflatten(shape: Any, leaves: Iterator[Any]) -> Any:
    if shape is None:
        return next(leaves)
    if shape[0] is dict:
        return {key: _unflatten(item, leaves) for key, item in zip(shape[1], shape[2], strict=True)}
    items = [_unflatten(item, leaves) for item in shape[1]]
    return shape[0](*items) if hasattr(shape[0], "_fields") else shape[0](items)


def leaf_count(shape: Any) -> int:
    """How many leaves a tree of that shape has."""
    if shape is None:
        return 1
    return sum(leaf_count(part) for part in (shape[2] if shape[0] is dict else shape[1]))
