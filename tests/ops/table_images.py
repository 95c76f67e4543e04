"""Rows of what changes the size of images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from operation_rows import AWKWARD, Row, normal

ANY = np.array(AWKWARD).reshape(1, 2, 7)
MODES = (
    ("nearest", (5,), {}),
    ("nearest-exact", (3, 4), {}),
    ("linear", (5,), {"align_corners": False}),
    ("bilinear", (4, 3), {"align_corners": True}),
    ("bicubic", (3, 4), {"align_corners": False}),
    ("trilinear", (2, 3, 2), {"align_corners": False}),
    ("area", (5, 4), {}),
)


def _interpolations() -> Iterator[Row]:
    for mode, sizes, more in MODES:
        yield Row(
            f"interpolate by a factor, {mode}",
            lambda f, x, mode=mode, more=more: f.nn.functional.interpolate(x, scale_factor=1.7, mode=mode, **more),
            (normal(1, 2, *sizes),),
            differences=mode == "bicubic",
            sixteen=mode == "bilinear",
        )
    for mode, sizes in (("bilinear", (5, 9)), ("bicubic", (4, 11))):
        yield Row(
            f"interpolate with antialiasing, {mode}",
            lambda f, x, mode=mode: f.nn.functional.interpolate(x, (7, 3), mode=mode, antialias=True),
            (normal(1, 2, *sizes),),
        )
    yield Row(
        "interpolate to fewer places, of a transpose, with infinities and NaN",
        lambda f, x: f.nn.functional.interpolate(x.transpose(0, 1), size=3, mode="nearest"),
        (normal(2, 1, 7),),
        ((ANY,),),
    )


ROWS = list(_interpolations())
