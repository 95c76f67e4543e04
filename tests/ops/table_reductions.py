"""Rows of reductions, cumulative operations and order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from operation_rows import AWKWARD, Row, normal


def _selections() -> Iterator[Row]:
    mask = np.array([[True, False, True], [False, False, True]])
    nothing = (np.zeros((0, 3)), np.zeros((0, 3), bool))
    none_held = (normal(2, 3), np.zeros((2, 3), bool))
    yield Row("masked_select", lambda f, x, m: x.masked_select(m), (normal(2, 3), mask), (nothing, none_held))
    yield Row(
        "masked_select of a transpose, by a mask that broadcasts",
        lambda f, x, m: f.masked_select(x.transpose(0, 1), m),
        (normal(3, 2), mask[1]),
    )
    for name in ("nonzero", "argwhere"):
        operands = ((np.array(AWKWARD).reshape(2, 7),), (np.array(2.0),), (np.zeros((0, 2)),))
        yield Row(name, lambda f, x, name=name: getattr(f, name)(x), (normal(2, 3) > 0,), operands, smooth=False)
    yield Row(
        "nonzero_static",
        lambda f, x: (f.nonzero_static(x, size=2), f.nonzero_static(x, size=9, fill_value=5)),
        (normal(2, 3) > 0,),
        smooth=False,
    )


ROWS = [*_selections()]
