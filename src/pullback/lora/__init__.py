"""Low-rank adapters: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021)."""

from .adapters import LoRALinear, apply, merge, unload
from .files import load, save

__all__ = ["LoRALinear", "apply", "load", "merge", "save", "unload"]
