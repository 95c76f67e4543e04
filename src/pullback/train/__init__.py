"""Training: a loop over compiled steps, and the models that the command line trains."""

from .loop import Loop, NonFiniteLossError, Progress, warmup_cosine
from .weights import load_weights, save_weights

__all__ = ["Loop", "NonFiniteLossError", "Progress", "load_weights", "save_weights", "warmup_cosine"]
