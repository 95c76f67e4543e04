"""Dropout of elements and of channels."""

from __future__ import annotations

from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arguments import real
from .. import functional as F
from .module import Module


class _DropoutNd(Module):
    """What every kind of dropout has: the probability `p`."""

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= real(p, type(self).__name__, "p") <= 1:
            raise ValueError(f"{type(self).__name__}: p must lie between 0 and 1, got {p} (at {user_source()})")
        self.p, self.inplace = p, inplace

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_DropoutNd):
    """In training, each element 0 with probability `p`, else divided by 1 - p."""

    def forward(self, input: Tensor) -> Tensor:
        """The input with elements dropped."""
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(_DropoutNd):
    """In training, whole channels of (…, C, L) 0 with probability `p`."""

    def forward(self, input: Tensor) -> Tensor:
        """See functional.dropout1d."""
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(_DropoutNd):
    """In training, whole channels of (N, C, H, W) 0 with probability `p`."""

    def forward(self, input: Tensor) -> Tensor:
        """See functional.dropout2d."""
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(_DropoutNd):
    """In training, whole channels of (N, C, D, H, W) 0 with probability `p`."""

    def forward(self, input: Tensor) -> Tensor:
        """See functional.dropout3d."""
        return F.dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(_DropoutNd):
    """In training, dropout that keeps mean and variance."""

    def forward(self, input: Tensor) -> Tensor:
        """See functional.alpha_dropout."""
        return F.alpha_dropout(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(_DropoutNd):
    """In training, AlphaDropout of whole channels."""

    def forward(self, input: Tensor) -> Tensor:
        """See functional.feature_alpha_dropout."""
        return F.feature_alpha_dropout(input, self.p, self.training, self.inplace)


__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]
