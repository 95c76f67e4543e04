"""What scripts ask of `torch.backends`: the libraries of other devices, none of which is there."""

from . import cuda, cudnn, mps

__all__ = ["cuda", "cudnn", "mps"]
