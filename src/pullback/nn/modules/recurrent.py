"""Recurrent layers and cells: RNN, LSTM, GRU."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import ShapeError
from ...graph.types import DType
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import empty, zeros
from ...tensor.joining import cat, stack
from .. import functional as F
from .. import init
from ..functional.recurrent import CELLS, Recurrent, directed
from ..parameter import Parameter
from .module import Module

#: how many gates a step computes, and of how many tensors its state consists
_GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}


def _kind_of(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r} (at {user_source()})")
    return nonlinearity


def _draw(module: Module, hidden_size: int) -> None:
    bound = 1 / math.sqrt(hidden_size) if hidden_size > 0 else 0.0
    for parameter in module.parameters():
        init.uniform_(parameter, -bound, bound)


class _Layers(Module):
    """The layers that RNN, LSTM and GRU share."""

    def __init__(
        self,
        kind: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        dtype: DType | None,
    ):
        super().__init__()
        name = type(self).__name__
        if hidden_size <= 0 or num_layers <= 0 or input_size < 0:
            raise ValueError(
                f"{name}: hidden_size and num_layers must be positive and input_size not negative, got {hidden_size}, "
                f"{num_layers} and {input_size} (at {user_source()})"
            )
        if not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout must lie between 0 and 1, got {dropout} (at {user_source()})")
        if not 0 <= proj_size < hidden_size:
            raise ValueError(
                f"{name}: proj_size must be from 0 to below hidden_size {hidden_size}, got {proj_size} "
                f"(at {user_source()})"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn(f"{name}: dropout stands between layers, and there is one layer alone", stacklevel=3)
        self.kind = kind
        self.input_size, self.hidden_size, self.num_layers, self.bias = input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, float(dropout), bidirectional
        self.proj_size = proj_size
        for layer, suffix in self._places():
            size = input_size if layer == 0 else self._output_size * len(self._suffixes)
            self._register(suffix, size, dtype)
        self.reset_parameters()

    @property
    def _output_size(self) -> int:
        return self.proj_size or self.hidden_size

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def _places(self) -> Iterator[tuple[int, str]]:
        """Layer and name of each direction of each layer."""
        return ((layer, f"_l{layer}{suffix}") for layer in range(self.num_layers) for suffix in self._suffixes)

    def _register(self, suffix: str, input_size: int, dtype: DType | None) -> None:
        gates = _GATES[self.kind] * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (gates, input_size),
            "weight_hh": (gates, self._output_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        for name, shape in shapes.items():
            self.register_parameter(name + suffix, Parameter(empty(*shape, dtype=dtype)))

    def reset_parameters(self) -> None:
        """Draw the parameters anew, uniform on ±1/sqrt(hidden_size)."""
        _draw(self, self.hidden_size)

    def flatten_parameters(self) -> None:
        """As PyTorch's, which lays the weights side by side for cuDNN; here they lie well as they are."""

    def _run(self, input: Tensor, state: Sequence[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """The last layer's outputs, and the last state of all layers."""
        self._check(input)
        batched = input.ndim == 3
        x = input if batched else input.unsqueeze(1)
        if batched and self.batch_first:
            x = x.transpose(0, 1)
        initial = self._initial(x, state, batched)
        ends: list[list[Tensor]] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self._suffixes:
                start = [part[len(ends)] for part in initial]
                output, end = self._direction(x, start, f"_l{layer}{suffix}", reverse=suffix == "_reverse")
                outputs.append(output)
                ends.append(end)
            x = outputs[0] if len(outputs) == 1 else cat(outputs, -1)
            if layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        last = [stack(part) for part in zip(*ends, strict=True)]
        if not batched:
            return x.squeeze(1), [part.squeeze(1) for part in last]
        return x.transpose(0, 1) if self.batch_first else x, last

    def _direction(self, x: Tensor, start: list[Tensor], suffix: str, reverse: bool) -> tuple[Tensor, list[Tensor]]:
        def named(name: str) -> Any:
            return self._parameters.get(name + suffix)

        given = F.linear(x, named("weight_ih"), named("bias_ih"))
        bias = named("bias_hh")
        if bias is not None and self.kind != "gru":
            # added for all steps at once; a GRU's reset gate multiplies its share of it
            given, bias = given + bias.to(given.dtype), None
        recurrent = Recurrent(named("weight_hh"), bias, named("weight_hr"))
        return directed(CELLS[self.kind], given, start, recurrent, reverse)

    def _check(self, input: Tensor) -> None:
        name = type(self).__name__
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}: the input must be a tensor, got {type(input).__name__} (at {user_source()})")
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            axes = "[batch, steps, input]" if self.batch_first else "[steps, batch, input]"
            raise ShapeError(
                f"{name}: the input must be {axes} or [steps, input] with input size {self.input_size}, got "
                f"{list(input.shape)} (at {user_source()})"
            )
        if 0 in input.shape[:-1] and input.shape[1 if self.batch_first and input.ndim == 3 else 0] == 0:
            raise ShapeError(f"{name}: the input has no steps: {list(input.shape)} (at {user_source()})")

    def _initial(self, x: Tensor, state: Sequence[Tensor] | None, batched: bool) -> list[Tensor]:
        """The initial state, each part [layers * directions, batch, size]."""
        count = self.num_layers * len(self._suffixes)
        sizes = [self._output_size, self.hidden_size] if self.kind == "lstm" else [self.hidden_size]
        shapes = [(count, x.shape[1], size) if batched else (count, size) for size in sizes]
        if state is None:
            state = [zeros(shape, dtype=x.dtype) for shape in shapes]
        found = [tuple(part.shape) for part in state]
        if found != shapes:
            raise ShapeError(
                f"{type(self).__name__}: the initial state must be of shape {' and '.join(map(str, map(list, shapes)))}"
                f", got {' and '.join(map(str, map(list, found)))} (at {user_source()})"
            )
        return [part if batched else part.unsqueeze(1) for part in state]

    def extra_repr(self) -> str:
        """The sizes, and what differs from the defaults."""
        parts = [f"{self.input_size}, {self.hidden_size}"]
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        parts += [f"{name}={value}" for name in ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
                  if (value := getattr(self, name)) != defaults[name]]  # fmt: skip
        return ", ".join(parts + ([f"proj_size={self.proj_size}"] if self.proj_size else []))


class RNN(_Layers):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh) over the steps of a sequence (Elman, 1990), or relu in tanh's place.

    Parameters are named and start as PyTorch's: `weight_ih_l0` [hidden, input], `weight_hh_l0`, `bias_ih_l0`,
    `bias_hh_l0`, …, with `_reverse` for the other direction, uniform on ±1/sqrt(hidden_size).

    >>> output, h = pb.nn.RNN(3, 5)(pb.ones(7, 2, 3))
    >>> output.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DType | None = None,
    ):
        kind = _kind_of(nonlinearity)
        super().__init__(kind, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[steps, batch, input] to outputs [steps, batch, directions * hidden] and the last h.

        h is [layers * directions, batch, hidden]. With `batch_first` input and outputs are [batch, steps, …]; without
        a batch axis all lack it. `hx` is the initial h, zeros if None.
        """
        output, (h,) = self._run(input, None if hx is None else [hx])
        return output, h


class LSTM(_Layers):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997) over the steps of a sequence; the gates are i, f, g, o.

    `proj_size` > 0 multiplies h by `weight_hr_l0` [proj_size, hidden] at each step. Parameters as in RNN, those of the
    four gates one above the other.

    >>> output, (h, c) = pb.nn.LSTM(3, 5, num_layers=2, batch_first=True)(pb.ones(2, 7, 3))
    >>> output.shape, h.shape, c.shape
    ((2, 7, 5), (2, 2, 5), (2, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: DType | None = None,
    ):
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype
        )

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As RNN's, with (h, c) in place of h."""
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise TypeError(f"LSTM: the initial state must be a pair (h, c) (at {user_source()})")
        output, (h, c) = self._run(input, hx)
        return output, (h, c)


class GRU(_Layers):
    """Gated recurrent units (Cho et al., 2014) over the steps of a sequence; the gates are r, z, n.

    Parameters as in RNN, those of the three gates one above the other.

    >>> output, h = pb.nn.GRU(3, 5, bidirectional=True)(pb.ones(7, 2, 3))
    >>> output.shape, h.shape
    ((7, 2, 10), (2, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DType | None = None,
    ):
        super().__init__(
            "gru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype
        )

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As RNN's."""
        output, (h,) = self._run(input, None if hx is None else [hx])
        return output, h


class _Cell(Module):
    """The cells, which take one step: weight_ih [gates, input], weight_hh [gates, hidden], bias_ih and bias_hh."""

    def __init__(self, kind: str, input_size: int, hidden_size: int, bias: bool, dtype: DType | None):
        super().__init__()
        self.kind, self.input_size, self.hidden_size, self.bias = kind, input_size, hidden_size, bias
        gates = _GATES[kind] * hidden_size
        self.weight_ih = Parameter(empty(gates, input_size, dtype=dtype))
        self.weight_hh = Parameter(empty(gates, hidden_size, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(gates, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew, uniform on ±1/sqrt(hidden_size)."""
        _draw(self, self.hidden_size)

    def _step(self, input: Tensor, state: Sequence[Tensor] | None) -> list[Tensor]:
        name = type(self).__name__
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(
                f"{name}: the input must be [batch, {self.input_size}] or [{self.input_size}], got "
                f"{list(input.shape)} (at {user_source()})"
            )
        shape = (*input.shape[:-1], self.hidden_size)
        parts = 2 if self.kind == "lstm" else 1
        given = F.linear(input, self.weight_ih, self.bias_ih)
        if state is None:
            state = [zeros(shape, dtype=input.dtype) for _ in range(parts)]
        if [tuple(part.shape) for part in state] != [shape] * parts:
            raise ShapeError(
                f"{name}: the state must be of shape {list(shape)}, got "
                f"{' and '.join(str(list(part.shape)) for part in state)} (at {user_source()})"
            )
        return CELLS[self.kind](given, state, Recurrent(self.weight_hh, self.bias_hh))

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """One step of RNN: [batch, input] and h [batch, hidden] to the next h; also without a batch axis.

    >>> pb.nn.RNNCell(3, 5)(pb.ones(2, 3)).shape
    (2, 5)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: DType | None = None,
    ):
        super().__init__(_kind_of(nonlinearity), input_size, hidden_size, bias, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next h; the first is zeros if None."""
        return self._step(input, None if hx is None else [hx])[0]


class LSTMCell(_Cell):
    """One step of LSTM: [batch, input] and (h, c) to the next (h, c).

    >>> h, c = pb.nn.LSTMCell(3, 5)(pb.ones(2, 3))
    >>> h.shape, c.shape
    ((2, 5), (2, 5))
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, dtype: DType | None = None):
        super().__init__("lstm", input_size, hidden_size, bias, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The next (h, c); the first are zeros if None."""
        h, c = self._step(input, hx)
        return h, c


class GRUCell(_Cell):
    """One step of GRU: [batch, input] and h [batch, hidden] to the next h.

    >>> pb.nn.GRUCell(3, 5)(pb.ones(2, 3)).shape
    (2, 5)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, dtype: DType | None = None):
        super().__init__("gru", input_size, hidden_size, bias, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next h; the first is zeros if None."""
        return self._step(input, None if hx is None else [hx])[0]


__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]
