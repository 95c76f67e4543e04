"""What distributions of all numbers have in common that are moved by `loc` and stretched by `scale`."""

from __future__ import annotations

from typing import Any, ClassVar

from . import constraints
from .distribution import Distribution
from .utils import broadcast_all


class Located(Distribution):
    """A distribution of loc + scale * x, where x has that of 0 and 1."""

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, (), validate_args)


__all__ = ["Located"]
