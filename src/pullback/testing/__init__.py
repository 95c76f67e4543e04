"""What tests need of tensors: `assert_close` to compare them, `make_tensor` to make them. PyTorch's."""

from .comparison import assert_close
from .creation import make_tensor

__all__ = ["assert_close", "make_tensor"]
