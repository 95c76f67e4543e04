"""What scripts ask of `torch.backends`: libraries and devices, none of which is used or there."""

from . import cuda, cudnn, mkl, mkldnn, mps, openmp

__all__ = ["cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp"]
