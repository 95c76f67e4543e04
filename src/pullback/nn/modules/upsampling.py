"""Layers that change the size of images."""

from __future__ import annotations

from ...tensor import Tensor
from ..functional.interpolation import Factors, OutputSizes, interpolate
from .module import Module


class Upsample(Module):
    """`nn.functional.interpolate` as a layer."""

    def __init__(
        self, size: OutputSizes = None, scale_factor: Factors = None, mode: str = "nearest",
        align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    ):  # fmt: skip
        super().__init__()
        self.name = type(self).__name__
        self.size = size
        several = isinstance(scale_factor, tuple)
        self.scale_factor = (
            tuple(float(factor) for factor in scale_factor)  # type: ignore[union-attr]
            if several
            else float(scale_factor)  # type: ignore[arg-type]
            if scale_factor
            else None
        )
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        """The input at the other size."""
        return interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        """The size or the factor, and the mode."""
        of = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor!r}"
        return f"{of}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Images made larger by the nearest elements."""

    def __init__(self, size: OutputSizes = None, scale_factor: Factors = None):
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Images made larger by the weighed four elements around, corners aligned."""

    def __init__(self, size: OutputSizes = None, scale_factor: Factors = None):
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)
