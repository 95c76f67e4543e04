"""Convolution kernels: which of the two kinds computes a node, and how each is cut into tasks.

Where the window is small (forward, and the gradient by the input) a task computes a block of output places of one
image: `convolution_places`. Where the window is an image itself, and the result small (the gradient by the window), a
task sums over some of the images and the parts are added up: `convolution_windows`. Both read the input where it lies,
or from a padded copy of what the task needs, which stays in the cache; no matrix of windows is made in memory.

Work is cut by the shapes and the processor's caches alone, never by the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..compiler.fuse import Group
from ..graph.node import Node
from .convolution_places import places_launches
from .convolution_windows import windows_launches
from .launch import Launch
from .target import Target


def emit_convolution(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches, in order, that compute a group of kind CONVOLUTION."""
    (node,) = group.members
    rank = len(node["stride"])
    taps, places = math.prod(node.inputs[1].shape[:rank]), math.prod(node.shape[1 : rank + 1])
    loadable = lambda other: other is not node and in_memory(other)  # noqa: E731
    kind = windows_launches if taps > places else places_launches
    return kind(node, loadable, target)
