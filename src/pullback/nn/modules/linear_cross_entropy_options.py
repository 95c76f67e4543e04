"""PyTorch's file of what `LinearCrossEntropyLoss` may be told."""

from ..functional.linear_cross_entropy import LinearCrossEntropyOptions

__all__ = ["LinearCrossEntropyOptions"]
