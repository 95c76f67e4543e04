"""Layers whose weight is kept as codes of 4 or 8 bits and does not change: what lies under trained adapters.

A matrix product decodes the weight as it packs it, forward and for the gradient by the input, so that it never lies in
memory as floats. Only codes and scales are buffers; the weight is no parameter, and gets no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from ...errors import ShapeError
from ...graph.node import Node, ancestors
from ...graph.types import DType, float32
from ...ops.bounds import bounds_of
from ...ops.primitive import user_source
from ...quant import (
    NestedState,
    QuantState,
    dequantize_4bit,
    int8_vectorwise_dequant,
    int8_vectorwise_quant,
    quantize_4bit,
)
from ...quant.four_bit import table_of
from ...tensor import Tensor
from ...tensor.creation import tensor
from ...tensor.grad_modes import no_grad
from ...tensor.limits import finfo
from ...tensor.state import STATE
from .. import functional as F
from .linear import Linear
from .module import Module
from .state import as_tensor

Self = TypeVar("Self", bound="QuantizedLinear")
#: codes stand for no greater magnitudes: a scale is decoded to within 0.8%, and one that is infinite makes zeros NaN
_LARGEST = finfo(float32).max / 1.008
#: what is said of a weight that has no codes, and what can be done
NO_CODES = f"is not finite in float32 everywhere, or has magnitudes beyond {_LARGEST:.3g}: codes cannot stand for them"
_MEND = "take a weight from before it became so, or mend it with nan_to_num() and clamp()"
#: the name under which the shape of the decoded weight is saved, of which codes of 4 bits do not tell
_SHAPE = "weight_shape"


class QuantizedLinear(Module):
    """What the layers share: x Wᵀ + b with the decoded weight, computed in `compute_dtype` if that is given.

    The weight of a new layer is drawn as that of a Linear, and the bias is a parameter as there.
    """

    weight: Tensor
    bias: Tensor | None

    def _configure(self, compute_dtype: DType | None) -> None:
        """Begin a layer: all but its sizes, codes and bias."""
        Module.__init__(self)
        if compute_dtype is not None and not (isinstance(compute_dtype, DType) and compute_dtype.is_floating_point):
            raise ValueError(
                f"{type(self).__name__}: compute_dtype must be a floating point dtype, got {compute_dtype!r} "
                f"(at {user_source()})"
            )
        self.compute_dtype = compute_dtype
        #: the dtype of the weight that the codes stand for
        self.weight_dtype = float32

    def _adopt(self, layer: Linear) -> None:
        """Take sizes and bias of a Linear, and the codes of its weight.

        They are computed at once, so that one layer after the other can be quantized in the memory of one. Only those
        of a weight that is yet to be drawn wait until they are needed, as the weight would.
        """
        weight = layer.weight.detach()
        is_there = STATE.trace is None and not _is_drawn(weight.node)
        if is_there and not has_codes(weight):
            raise ValueError(
                f"{type(self).__name__}: the weight {list(weight.shape)} {NO_CODES} (at {user_source()}); {_MEND}"
            )
        self.in_features, self.out_features, self.weight_dtype = layer.in_features, layer.out_features, weight.dtype
        for name, codes in self._codes(weight).items():
            self.register_buffer(name, codes)
        if is_there:
            self._settle()
        self.register_parameter("bias", layer.bias)

    @classmethod
    def from_linear(cls: type[Self], layer: Linear, **options: Any) -> Self:
        """The layer that computes what the Linear does, to the error of its codes; `options` are those of the class
        but sizes and bias. The bias is the same parameter.

        Raises TypeError for another module, ValueError where a weight that is not yet to be drawn is not finite.
        """
        if not isinstance(layer, Linear):
            raise TypeError(
                f"{cls.__name__}.from_linear takes a Linear, got {type(layer).__name__} (at {user_source()})"
            )
        made = cls.__new__(cls)
        made._configure(**options)
        made._adopt(layer)
        made.train(layer.training)
        return made

    def dequantize(self, dtype: DType | None = None) -> Tensor:
        """The weight that the codes stand for, [out_features, in_features], in float32 unless `dtype` is given."""
        if STATE.trace is None:
            self._settle()
        return self._decoded().to(dtype or float32)

    def _decoded(self) -> Tensor:
        raise NotImplementedError

    def _take_dtype(self, dtype: DType) -> None:
        self.weight_dtype = dtype

    def _settle(self) -> None:
        """Have the codes computed, before a program that decodes them: one that also makes them has all in floats."""
        for held in self._buffers.values():
            if held is not None:
                held._buffer()

    def quantize_(self: Self, weight: Tensor) -> Self:
        """Take the codes of another weight, [out_features, in_features], and return the layer.

        Raises ShapeError where it has another shape, ValueError where it is not finite.
        """
        if tuple(weight.shape) != (self.out_features, self.in_features):
            raise ShapeError(
                f"{type(self).__name__}.quantize_: the weight is [{self.out_features}, {self.in_features}], got "
                f"{list(weight.shape)} (at {user_source()})"
            )
        if not has_codes(weight.detach()):
            raise ValueError(
                f"{type(self).__name__}.quantize_: the weight {list(weight.shape)} {NO_CODES} (at {user_source()}); "
                f"{_MEND}"
            )
        with no_grad():
            for name, codes in self._codes(weight.detach()).items():
                getattr(self, name).copy_(codes)
        if STATE.trace is None:
            self._settle()
        return self

    def has_codes_of(self, weight: Tensor) -> bool:
        """Whether the codes are those that `quantize_` would take of a weight."""
        if tuple(weight.shape) != (self.out_features, self.in_features) or not has_codes(weight.detach()):
            return False
        with no_grad():
            codes = self._codes(weight.detach())
            return all(bool((getattr(self, name) == made).all()) for name, made in codes.items())

    def _codes(self, weight: Tensor) -> dict[str, Tensor]:
        """The buffers that hold a weight."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features], in the input's dtype."""
        dtype = self.compute_dtype
        if dtype is None:
            dtype = input.dtype if input.is_floating_point() else None
            bias = self.bias if self.bias is None or dtype is None else self.bias.to(dtype)
            return F.linear(input, self.dequantize(dtype), bias)
        bias = None if self.bias is None else self.bias.to(dtype)
        return F.linear(input.to(dtype), self.dequantize(dtype), bias).to(input.dtype)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        """Codes as they are, or those of a weight in floats, as a Linear saves it."""
        given = _floats(state_dict, prefix + "weight")
        if given is not None and tuple(given.shape) == (self.out_features, self.in_features):
            if not has_codes(given.detach()):
                rest[-1].append(f"  no codes: {prefix}weight {NO_CODES}\n    {_MEND}")
            state_dict |= {prefix + name: codes for name, codes in self._codes(given.detach()).items()}
        elif given is None:
            rest[-1].extend(self._bad_scales(state_dict, prefix))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def _bad_scales(self, state_dict: dict[str, Any], prefix: str) -> Iterator[str]:
        """A line for each tensor beside codes that is not finite, and would spoil its blocks or rows."""
        for name in self._buffers:
            scales = _floats(state_dict, prefix + name)
            if name in self._keep_dtype and scales is not None and not is_finite(scales.float()):
                yield f"  not finite: {prefix}{name}, which scales codes; load a state from before it became so"

    def extra_repr(self) -> str:
        """The sizes."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return sizes if self.compute_dtype is None else f"{sizes}, compute_dtype={self.compute_dtype}"


def _floats(state_dict: dict[str, Any], key: str) -> Tensor | None:
    """A tensor of floats of a state dictionary, or None where it has no such."""
    value = as_tensor(state_dict[key]) if key in state_dict else None
    return value if value is not None and value.is_floating_point() else None


def is_finite(values: Tensor) -> bool:
    """Whether all elements are finite. In a trace, which has no numbers yet, they are taken to be."""
    return STATE.trace is not None or bool(values.isfinite().all())


def has_codes(weight: Tensor) -> bool:
    """Whether codes can stand for a weight. In a trace, which has no numbers yet, they are taken to."""
    return STATE.trace is not None or bool((weight.float().abs() <= _LARGEST).all())


def _is_drawn(node: Node) -> bool:
    """Whether the value is yet to be computed, from random numbers and no tensor, and is known to have codes then."""
    needed = ancestors([node])
    is_there = any(n.buffer is not None and n.dtype.is_floating_point for n in needed)
    if is_there or not any(n.op.name == "philox" and n.buffer is None for n in needed):
        return False
    found = bounds_of(node)
    return found is not None and max(-found.low, found.high) <= _LARGEST


class Linear4bit(QuantizedLinear):
    """Linear whose weight is kept as codes of 4 bits, after Dettmers et al., "QLoRA" (2023).

    `quant_type` is "nf4" or "fp4". Blocks of 64 elements share a scale; with `compress_statistics` these are codes of 8
    bits themselves (double quantization), so that an element takes 4.13 bits, else 4.5. The product is computed in
    `compute_dtype`, or in the dtype of the input. Names are bitsandbytes'; its quant_type is "fp4" unless given.

    >>> layer = pb.nn.Linear4bit.from_linear(pb.nn.Linear(128, 256))
    >>> layer
    Linear4bit(in_features=128, out_features=256, bias=True, quant_type=nf4)
    >>> layer(pb.ones(2, 128)).shape, layer.weight.dtype, layer.weight.shape
    (pullback.Size([2, 256]), pullback.uint8, pullback.Size([16384, 1]))
    """

    _keep_dtype = ("absmax", "nested_absmax", "nested_offset", "quant_map")
    absmax: Tensor
    nested_absmax: Tensor
    nested_offset: Tensor
    quant_map: Tensor

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, compute_dtype: DType | None = None,
        compress_statistics: bool = True, quant_type: str = "nf4",
    ):  # fmt: skip
        self._configure(compute_dtype, compress_statistics, quant_type)
        self._adopt(Linear(in_features, out_features, bias))

    def _configure(
        self, compute_dtype: DType | None = None, compress_statistics: bool = True, quant_type: str = "nf4"
    ) -> None:
        super()._configure(compute_dtype)
        # what the codes mean, for whoever reads a saved layer
        self.register_buffer("quant_map", tensor(table_of(quant_type, "Linear4bit"), dtype=float32))
        self.quant_type, self.compress_statistics = quant_type, bool(compress_statistics)

    @property
    def quant_state(self) -> QuantState:
        """What belongs to the codes, as `quant.dequantize_4bit` takes it."""
        is_nested = "nested_absmax" in self._buffers
        nested = NestedState(self.nested_absmax, self.nested_offset) if is_nested else None
        shape = (self.out_features, self.in_features)
        return QuantState(self.absmax, shape, float32, quant_type=self.quant_type, state2=nested)

    def _codes(self, weight: Tensor) -> dict[str, Tensor]:
        codes, state = quantize_4bit(weight, compress_statistics=self.compress_statistics, quant_type=self.quant_type)
        found = {"weight": codes, "absmax": state.absmax}
        if state.state2 is not None:
            found |= {"nested_absmax": state.state2.absmax, "nested_offset": state.state2.offset}
        return found

    def _decoded(self) -> Tensor:
        return dequantize_4bit(self.weight, self.quant_state)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        shape = state_dict.pop(prefix + _SHAPE, None)
        if _floats(state_dict, prefix + "weight") is not None:
            state_dict.setdefault(prefix + "quant_map", self.quant_map)
        else:
            self._check_codes(state_dict.get(prefix + "quant_map"), shape, prefix, error_msgs)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _check_codes(self, quant_map: Any, shape: Any, prefix: str, error_msgs: list[str]) -> None:
        """Say where codes are those of another table, or of a matrix of another shape and as many elements."""
        if quant_map is not None and as_tensor(quant_map).tolist() != self.quant_map.tolist():
            error_msgs.append(f"  other codes: {prefix}weight has not those of quant_type={self.quant_type!r}")
        own = [self.out_features, self.in_features]
        if shape is not None and (found := as_tensor(shape).tolist()) != own:
            error_msgs.append(f"  wrong shape: {prefix}weight: codes of {found} in the dictionary, {own} in the module")

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + _SHAPE] = tensor([self.out_features, self.in_features])

    def extra_repr(self) -> str:
        """The sizes and the kind of codes."""
        single = "" if self.compress_statistics else ", compress_statistics=False"
        return f"{super().extra_repr()}, quant_type={self.quant_type}{single}"


class Linear8bit(QuantizedLinear):
    """Linear whose weight is kept as codes of 8 bits, with a scale for each output: `quant.int8_vectorwise_quant`.

    Only the weight is: the input stays as it is, and the product is computed in `compute_dtype`, or in the dtype of the
    input. (bitsandbytes' Linear8bitLt also quantizes the input, row by row, but for its outliers.)
    """

    _keep_dtype = ("row_stats",)
    row_stats: Tensor

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, compute_dtype: DType | None = None
    ):  # fmt: skip
        self._configure(compute_dtype)
        self._adopt(Linear(in_features, out_features, bias))

    def _configure(self, compute_dtype: DType | None = None) -> None:
        super()._configure(compute_dtype)

    def _codes(self, weight: Tensor) -> dict[str, Tensor]:
        codes, stats = int8_vectorwise_quant(weight)
        return {"weight": codes, "row_stats": stats}

    def _decoded(self) -> Tensor:
        return int8_vectorwise_dequant(self.weight, self.row_stats)


__all__ = ["NO_CODES", "Linear4bit", "Linear8bit", "QuantizedLinear", "has_codes", "is_finite"]
