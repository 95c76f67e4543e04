"""Monitoring: what gradients, activations and updates are like in training, and alerts where they go wrong."""

from .histograms import Histogram
from .monitor import Monitor
from .record import LayerRecord, ParameterRecord, Record
from .rules import Limits
from .sinks import JSONLines, TensorBoard, Terminal
from .statistics import Statistics

__all__ = [
    "Histogram", "JSONLines", "LayerRecord", "Limits", "Monitor", "ParameterRecord", "Record", "Statistics",
    "TensorBoard", "Terminal",
]  # fmt: skip
