"""Numbers of few bits: codes of one byte or half of one, with a scale for each block."""

from .blockwise import BLOCK, dequantize_blockwise, dynamic_map, quantize_blockwise
from .four_bit import FP4, NF4, NestedState, QuantState, dequantize_4bit, quantize_4bit
from .row_wise import int8_vectorwise_dequant, int8_vectorwise_quant

__all__ = [
    "BLOCK", "FP4", "NF4", "NestedState", "QuantState", "dequantize_4bit", "dequantize_blockwise", "dynamic_map",
    "int8_vectorwise_dequant", "int8_vectorwise_quant", "quantize_4bit", "quantize_blockwise",
]  # fmt: skip
