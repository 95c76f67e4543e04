"""Layers that are linear in each input."""

from __future__ import annotations

import math
from typing import Any

from ...graph.types import DType
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arguments import whole_number
from ...tensor.creation import empty
from ...tensor.grad_modes import no_grad
from .. import functional as F
from .. import init
from ..parameter import Parameter, UninitializedParameter
from .lazy import LazyModuleMixin
from .module import Module


class Identity(Module):
    """What it is given. Takes any arguments, so that it can stand in for another module."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """The input itself."""
        return input


class Linear(Module):
    """x Wᵀ + b, with weight [out_features, in_features] and bias [out_features].

    Both start uniform on ±1/sqrt(in_features), as PyTorch's.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: DType | None = None,
    ):
        super().__init__()
        whole_number(in_features, "Linear", "in_features"), whole_number(out_features, "Linear", "out_features")
        if min(in_features, out_features) < 0:
            raise ValueError(
                f"Linear: in_features and out_features must not be negative, got {in_features} and {out_features} "
                f"(at {user_source()})"
            )
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(empty(out_features, in_features, device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class NonDynamicallyQuantizableLinear(Linear):
    """Linear under another name, by which PyTorch's quantizer knows what to leave alone; attention's last layer."""


def is_plain(layer: object) -> bool:
    """Whether a module computes what Linear does, where it is called, from a weight of its own that has its shape.

    So a layer in its place that is another one does as well. It does not for a class with another `forward`, for
    attention's last layer, whose weight attention reads, or for a weight that is pruned or parametrized.
    """
    return (
        isinstance(layer, Linear)
        and type(layer).forward is Linear.forward
        and not isinstance(layer, NonDynamicallyQuantizableLinear | LazyLinear)
        and layer._parameters.get("weight") is not None
    )


class Bilinear(Module):
    """x1ᵀ W_o x2 + b_o for each output o, with weight [out_features, in1_features, in2_features].

    Weight and bias [out_features] start uniform on ±1/sqrt(in1_features), as PyTorch's.
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: DType | None = None,
    ):
        super().__init__()
        if in1_features <= 0:
            raise ValueError(f"Bilinear: in1_features must be positive, got {in1_features} (at {user_source()})")
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = Parameter(empty(out_features, in1_features, in2_features, device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """[..., in1_features] and [..., in2_features] to [..., out_features]."""
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes."""
        sizes = f"in1_features={self.in1_features}, in2_features={self.in2_features}"
        return f"{sizes}, out_features={self.out_features}, bias={self.bias is not None}"


class LazyLinear(LazyModuleMixin, Linear):
    """Linear whose `in_features` are the size of the last axis of its first input.

    >>> layer = pb.nn.LazyLinear(2)
    >>> layer(pb.ones(4, 3)).shape, layer
    (pullback.Size([4, 2]), Linear(in_features=3, out_features=2, bias=True))
    """

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: str | None = None, dtype: DType | None = None):
        super().__init__(0, 0, False)
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.out_features = out_features
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw the parameters anew, if they are there."""
        if not self.has_uninitialized_params() and self.in_features:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Take `in_features` from the input, and draw the parameters if no state dictionary has given them."""
        self.in_features = input.shape[-1]
        if self.has_uninitialized_params():
            with no_grad():
                self.weight.materialize((self.out_features, self.in_features))
                if self.bias is not None:
                    self.bias.materialize((self.out_features,))
                self.reset_parameters()


__all__ = ["Bilinear", "Identity", "LazyLinear", "Linear", "NonDynamicallyQuantizableLinear", "is_plain"]
