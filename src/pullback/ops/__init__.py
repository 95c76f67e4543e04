"""The operations: one record a primitive, a family a file. Everything else is composed of these."""

from . import (
    attention,
    contraction,
    convolution,
    elementwise,
    host,
    indexing,
    movement,
    primitive,
    recurrence,
    reduction,
    scan,
)

__all__ = [
    "attention",
    "contraction",
    "convolution",
    "elementwise",
    "host",
    "indexing",
    "movement",
    "primitive",
    "recurrence",
    "reduction",
    "scan",
]
