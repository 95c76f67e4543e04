"""Recurrent layers and cells: RNN, LSTM, GRU."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import DTypeError, ShapeError
from ...graph.types import DType
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.autocast_mode import is_autocast_enabled
from ...tensor.creation import empty, tensor, zeros
from ...tensor.joining import cat, stack
from .. import functional as F
from .. import init
from ..functional.recurrent import CELLS, LAYERS, Recurrent, Steps
from ..parameter import Parameter
from ..utils.rnn import PackedSequence, gathered, spread, steps_of
from .module import Module

#: the kind of cell of each of PyTorch's modes
_KINDS = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "tanh", "RNN_RELU": "relu"}
#: how many gates a step computes
_GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}


def _checked(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r} (at {user_source()})")
    return nonlinearity


def _check_kinds(name: str, kind: type, **values: object) -> None:
    for called, value in values.items():
        if not isinstance(value, kind):
            raise TypeError(
                f"{name}: {called} must be of type {kind.__name__}, got {type(value).__name__} (at {user_source()})"
            )


def _draw(module: Module, hidden_size: int) -> None:
    bound = 1 / math.sqrt(hidden_size) if hidden_size > 0 else 0.0
    for parameter in module.parameters():
        init.uniform_(parameter, -bound, bound)


class RNNBase(Module):
    """The layers that RNN, LSTM and GRU share: `mode` is "LSTM", "GRU", "RNN_TANH" or "RNN_RELU"."""

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
        device: str | None = None, dtype: DType | None = None,
    ):  # fmt: skip
        super().__init__()
        if mode not in _KINDS:
            raise ValueError(f"mode must be one of {', '.join(_KINDS)}, got {mode!r} (at {user_source()})")
        self.mode, self.kind = mode, _KINDS[mode]
        self.input_size, self.hidden_size, self.num_layers, self.bias = input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self.proj_size = proj_size
        self._check_options()
        self.dropout = float(dropout)
        for layer, suffix in self._places():
            size = input_size if layer == 0 else self._output_size * len(self._suffixes)
            self._register(suffix, size, device, dtype)
        self.reset_parameters()

    def _check_options(self) -> None:
        name = type(self).__name__
        _check_kinds(name, bool, bias=self.bias, batch_first=self.batch_first, bidirectional=self.bidirectional)
        _check_kinds(name, int, input_size=self.input_size, hidden_size=self.hidden_size)
        if min(self.hidden_size, self.num_layers, self.input_size) <= 0:
            raise ValueError(
                f"{name}: input_size, hidden_size and num_layers must be positive, got {self.input_size}, "
                f"{self.hidden_size} and {self.num_layers} (at {user_source()})"
            )
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout <= 1:
            raise ValueError(
                f"{name}: dropout must be a number between 0 and 1, got {self.dropout} (at {user_source()})"
            )
        if not 0 <= self.proj_size < self.hidden_size:
            raise ValueError(
                f"{name}: proj_size must be from 0 to below hidden_size {self.hidden_size}, got {self.proj_size} "
                f"(at {user_source()})"
            )
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(f"{name}: dropout stands between layers, and there is one layer alone", stacklevel=4)

    @property
    def _output_size(self) -> int:
        return self.proj_size or self.hidden_size

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def _places(self) -> Iterator[tuple[int, str]]:
        """Layer and name of each direction of each layer."""
        return ((layer, f"_l{layer}{suffix}") for layer in range(self.num_layers) for suffix in self._suffixes)

    @property
    def _held(self) -> tuple[str, ...]:
        """What each direction of each layer has, by name."""
        biases = ("bias_ih", "bias_hh") if self.bias else ()
        return ("weight_ih", "weight_hh", *biases, *(("weight_hr",) if self.proj_size else ()))

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each direction of each layer."""
        return [[getattr(self, name + suffix) for name in self._held] for _, suffix in self._places()]

    def _register(self, suffix: str, input_size: int, device: str | None, dtype: DType | None) -> None:
        gates = _GATES[self.kind] * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (gates, input_size),
            "weight_hh": (gates, self._output_size),
            "bias_ih": (gates,),
            "bias_hh": (gates,),
            "weight_hr": (self.proj_size, self.hidden_size),
        }
        for name in self._held:
            self.register_parameter(name + suffix, Parameter(empty(*shapes[name], device=device, dtype=dtype)))

    def reset_parameters(self) -> None:
        """Draw the parameters anew, uniform on ±1/sqrt(hidden_size)."""
        _draw(self, self.hidden_size)

    def flatten_parameters(self) -> None:
        """As PyTorch's, which lays the weights side by side for cuDNN; here they lie well as they are."""

    def _run(self, input: Any, state: Sequence[Tensor] | None) -> tuple[Any, list[Tensor]]:
        """The last layer's outputs, and the last state of all layers."""
        if isinstance(input, PackedSequence):
            return self._run_packed(input, state)
        self._check(input)
        batched = input.ndim == 3
        x = input if batched else input.unsqueeze(1)
        if batched and self.batch_first:
            x = x.transpose(0, 1)
        x, last = self._run_steps(x, self._initial(x, state, batched))
        if not batched:
            return x.squeeze(1), [part.squeeze(1) for part in last]
        return x.transpose(0, 1) if self.batch_first else x, last

    def _run_packed(self, input: PackedSequence, state: Sequence[Tensor] | None) -> tuple[PackedSequence, list[Tensor]]:
        """Padded in between: a state stays as it is at steps that its sequence does not have."""
        steps = steps_of(input)
        self._check(input.data, packed=True)
        x = spread(input.data, steps)
        initial = self._initial(x, state, True)
        if input.sorted_indices is not None and state is not None:
            initial = [part.index_select(1, input.sorted_indices) for part in initial]
        there = None if steps.all() else tensor(steps[:, :, None])
        output, last = self._run_steps(x, initial, there)
        if input.unsorted_indices is not None:
            last = [part.index_select(1, input.unsorted_indices) for part in last]
        return PackedSequence(gathered(output, steps), *input[1:]), last

    def _run_steps(self, x: Tensor, initial: list[Tensor], there: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """All layers over x [steps, batch, input], of which only the steps `there` [steps, batch, 1] count."""
        ends: list[list[Tensor]] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self._suffixes:
                start = [part[len(ends)] for part in initial]
                output, end = self._direction(x, start, f"_l{layer}{suffix}", suffix == "_reverse", there)
                outputs.append(output)
                ends.append(end)
            x = outputs[0] if len(outputs) == 1 else cat(outputs, -1)
            if layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x, [stack(part) for part in zip(*ends, strict=True)]

    def _direction(
        self, x: Tensor, start: list[Tensor], suffix: str, reverse: bool, there: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        def named(name: str) -> Any:
            # not out of the parameters: it may be computed, as by weight_norm
            return getattr(self, name + suffix) if name in self._held else None

        given = F.linear(x, named("weight_ih"), named("bias_ih"))
        bias = named("bias_hh")
        if bias is not None and self.kind != "gru":
            # added for all steps at once; a GRU's reset gate multiplies its share of it
            given, bias = given + bias.to(given.dtype), None
        recurrent = Recurrent(named("weight_hh"), bias, named("weight_hr"))
        return LAYERS[self.kind](Steps(given, start, recurrent, reverse, there))

    def _check(self, input: Tensor, packed: bool = False) -> None:
        name = type(self).__name__
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}: the input must be a tensor, got {type(input).__name__} (at {user_source()})")
        if input.ndim not in ((2,) if packed else (2, 3)) or input.shape[-1] != self.input_size:
            axes = "[batch, steps, input]" if self.batch_first else "[steps, batch, input]"
            wanted = "packed data must be [steps, input]" if packed else f"the input must be {axes} or [steps, input]"
            raise ShapeError(
                f"{name}: {wanted} with input size {self.input_size}, got {list(input.shape)} (at {user_source()})"
            )
        weight = self.weight_ih_l0
        if input.dtype is not weight.dtype and not is_autocast_enabled("cpu"):
            raise DTypeError(
                f"{name}: the input is {input.dtype.name} and the weights are {weight.dtype.name} "
                f"(at {user_source()}); convert one of them: input.to(pullback.{weight.dtype.name})"
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

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """[steps, batch, input] to outputs [steps, batch, directions * hidden] and the last h.

        h is [layers * directions, batch, hidden]. With `batch_first` input and outputs are [batch, steps, …]; without
        a batch axis all lack it. `hx` is the initial h, zeros if None. A PackedSequence gives one of outputs; the
        states are in the order in which the sequences were packed.
        """
        output, (h,) = self._run(input, None if hx is None else [hx])
        return output, h

    def extra_repr(self) -> str:
        """The sizes, and what differs from the defaults."""
        parts = [f"{self.input_size}, {self.hidden_size}"]
        defaults = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        parts += [f"{name}={value}" for name, default in (*defaults.items(), ("bidirectional", False))
                  if (value := getattr(self, name)) != default]  # fmt: skip
        return ", ".join(parts)


class RNN(RNNBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh) over the steps of a sequence (Elman, 1990), or relu in tanh's place.

    Parameters are named and start as PyTorch's: `weight_ih_l0` [hidden, input], `weight_hh_l0`, `bias_ih_l0`,
    `bias_hh_l0`, …, with `_reverse` for the other direction, uniform on ±1/sqrt(hidden_size).

    >>> output, h = pb.nn.RNN(3, 5)(pb.ones(7, 2, 3))
    >>> output.shape, h.shape
    (pullback.Size([7, 2, 5]), pullback.Size([1, 2, 5]))
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
        device: str | None = None,
        dtype: DType | None = None,
    ):
        mode = f"RNN_{_checked(nonlinearity).upper()}"
        super().__init__(
            mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997) over the steps of a sequence; the gates are i, f, g, o.

    `proj_size` > 0 multiplies h by `weight_hr_l0` [proj_size, hidden] at each step. Parameters as in RNN, those of the
    four gates one above the other.

    >>> output, (h, c) = pb.nn.LSTM(3, 5, num_layers=2, batch_first=True)(pb.ones(2, 7, 3))
    >>> output.shape, h.shape, c.shape
    (pullback.Size([2, 7, 5]), pullback.Size([2, 2, 5]), pullback.Size([2, 2, 5]))
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
        device: str | None = None,
        dtype: DType | None = None,
    ):
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            device, dtype,
        )  # fmt: skip

    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Any, tuple[Tensor, Tensor]]:
        """As RNN's, with (h, c) in place of h."""
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise TypeError(f"LSTM: the initial state must be a pair (h, c) (at {user_source()})")
        output, (h, c) = self._run(input, hx)
        return output, (h, c)


class GRU(RNNBase):
    """Gated recurrent units (Cho et al., 2014) over the steps of a sequence; the gates are r, z, n.

    Parameters as in RNN, those of the three gates one above the other.

    >>> output, h = pb.nn.GRU(3, 5, bidirectional=True)(pb.ones(7, 2, 3))
    >>> output.shape, h.shape
    (pullback.Size([7, 2, 10]), pullback.Size([2, 2, 5]))
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
        device: str | None = None,
        dtype: DType | None = None,
    ):
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )


class RNNCellBase(Module):
    """The cells, which take one step: weight_ih [gates, input], weight_hh [gates, hidden], bias_ih and bias_hh.

    There are `num_chunks` * hidden_size gates.
    """

    kind: str

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: str | None = None,
        dtype: DType | None = None,
    ):  # fmt: skip
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        gates = num_chunks * hidden_size
        self.weight_ih = Parameter(empty(gates, input_size, device=device, dtype=dtype))
        self.weight_hh = Parameter(empty(gates, hidden_size, device=device, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            made = Parameter(empty(gates, device=device, dtype=dtype)) if bias else None
            self.register_parameter(name, made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew, uniform on ±1/sqrt(hidden_size)."""
        _draw(self, self.hidden_size)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """The next h; the first is zeros if None."""
        return self._step(input, None if hx is None else [hx])[0]

    def _step(self, input: Tensor, state: Sequence[Tensor] | None) -> list[Tensor]:
        name = type(self).__name__
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}: the input must be a tensor, got {type(input).__name__} (at {user_source()})")
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
        """The sizes, and what differs from the defaults."""
        parts = [f"{self.input_size}, {self.hidden_size}"] + ([] if self.bias else ["bias=False"])
        nonlinearity = getattr(self, "nonlinearity", "tanh")
        return ", ".join([*parts, *([] if nonlinearity == "tanh" else [f"nonlinearity={nonlinearity}"])])


class RNNCell(RNNCellBase):
    """One step of RNN: [batch, input] and h [batch, hidden] to the next h; also without a batch axis.

    >>> pb.nn.RNNCell(3, 5)(pb.ones(2, 3)).shape
    pullback.Size([2, 5])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: str | None = None,
        dtype: DType | None = None,
    ):
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = self.kind = _checked(nonlinearity)


class _GatedCell(RNNCellBase):
    """A cell whose kind says how many gates it has."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: str | None = None,
        dtype: DType | None = None,
    ):  # fmt: skip
        super().__init__(input_size, hidden_size, bias, _GATES[self.kind], device, dtype)


class LSTMCell(_GatedCell):
    """One step of LSTM: [batch, input] and (h, c) to the next (h, c).

    >>> h, c = pb.nn.LSTMCell(3, 5)(pb.ones(2, 3))
    >>> h.shape, c.shape
    (pullback.Size([2, 5]), pullback.Size([2, 5]))
    """

    kind = "lstm"

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The next (h, c); the first are zeros if None."""
        h, c = self._step(input, hx)
        return h, c


class GRUCell(_GatedCell):
    """One step of GRU: [batch, input] and h [batch, hidden] to the next h.

    >>> pb.nn.GRUCell(3, 5)(pb.ones(2, 3)).shape
    pullback.Size([2, 5])
    """

    kind = "gru"


__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]
