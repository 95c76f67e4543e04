"""The operations: one record a primitive, a family a file. Everything else is composed of these."""

from . import (
    attention,
    bessel,
    contraction,
    convolution,
    elementwise,
    exponential,
    host,
    indexing,
    movement,
    pairs,
    primitive,
    recurrence,
    reduction,
    scan,
    special,
)

__all__ = [
    "attention",
    "bessel",
    "contraction",
    "convolution",
    "elementwise",
    "exponential",
    "host",
    "indexing",
    "movement",
    "pairs",
    "primitive",
    "recurrence",
    "reduction",
    "scan",
    "special",
]
