"""Numbers of few bits: codes of one byte with a scale for each block."""

from .blockwise import BLOCK, dequantize_blockwise, dynamic_map, quantize_blockwise

__all__ = ["BLOCK", "dequantize_blockwise", "dynamic_map", "quantize_blockwise"]
