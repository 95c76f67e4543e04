"""Convolution kernels: which of the two kinds computes a node, and how each is cut into tasks.

Where the window is small (forward, and the gradient by the input) a task computes a block of output places of one
image: `convolution_places`. Where the window is an image itself, and the result small (the gradient by the window), a
task sums over some of the images and the parts are added up: `convolution_windows`. Both read the input where it lies,
or from a padded copy of what the task needs, which stays in the cache; no matrix of windows is made in memory. What
follows a convolution in its group is computed from what a task has made (`convolution_epilogue`).

Work is cut by the shapes and the processor's caches alone, never by the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

from ..compiler.groups import Group
from ..graph.node import Node
from ..ops.convolution import is_by_windows
from .convolution_places import places_launches
from .convolution_windows import windows_launches
from .launch import Launch
from .target import Target


def emit_convolution(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches, in order, that compute a group of kind CONVOLUTION."""
    node = next(iter(group.members))
    kind = windows_launches if is_by_windows(node) else places_launches
    return kind(group, in_memory, target)
