"""Rows of what reads images at positions that a tensor names."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from operation_rows import RANDOM, Row, normal

#: positions of which no coordinate is at an element, an edge or halfway between: there PyTorch's kernels differ by size
POSITIONS = RANDOM.uniform(-2.2, 2.2, size=(2, 3, 2, 2))
IN_VOLUMES = RANDOM.uniform(-1.7, 1.7, size=(1, 2, 2, 3, 3))


def _samplings() -> Iterator[Row]:
    choices = (
        ("bilinear", "zeros", False),
        ("bilinear", "reflection", True),
        ("nearest", "border", False),
        ("bicubic", "zeros", True),
        ("bicubic", "reflection", False),
    )
    for mode, padding, corners in choices:
        yield Row(
            f"grid_sample, {mode}, {padding}, corners {'aligned' if corners else 'outside'}",
            lambda f, x, grid, mode=mode, padding=padding, corners=corners: f.nn.functional.grid_sample(
                x, grid, mode, padding, corners
            ),
            (normal(2, 3, 4, 5), POSITIONS),
            (  # one element, and no place to read
                (normal(1, 1, 1, 1), POSITIONS[:1]),
                (normal(2, 3, 4, 5), np.zeros((2, 0, 2, 2))),
            ),
            smooth=False,  # PyTorch has no second derivatives of it: the database's samples have finite differences
        )
    for mode, padding in (("bilinear", "border"), ("nearest", "zeros")):
        yield Row(
            f"grid_sample of volumes, {mode}, {padding}",
            lambda f, x, grid, mode=mode, padding=padding: f.nn.functional.grid_sample(x, grid, mode, padding, False),
            (normal(1, 2, 3, 2, 4), IN_VOLUMES),
            smooth=False,
        )


def _affine() -> Iterator[Row]:
    for sizes in ((2, 3, 3, 2), (1, 2, 2, 3, 2)):
        axes = len(sizes) - 2
        for corners in (False, True):
            yield Row(
                f"affine_grid over {axes} axes, corners {'aligned' if corners else 'outside'}",
                lambda f, theta, sizes=sizes, corners=corners: f.nn.functional.affine_grid(theta, sizes, corners),
                (normal(sizes[0], axes, axes + 1),),
            )


ROWS = [*_samplings(), *_affine()]
