"""One step of each recurrent network, and all steps of one direction of a layer, by PyTorch's names of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...tensor import Tensor
from ...tensor.arithmetic import where
from ...tensor.loops import repeat
from .linear import linear

#: from what the input gives of the gates, the state and the parameters of the recurrent product to the next state
Cell = Callable[[Tensor, Sequence[Tensor], "Recurrent"], list[Tensor]]


class Recurrent:
    """What a step multiplies the state by: weight [gates, hidden], bias [gates] or None, projection or None."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, projection: Tensor | None = None):
        self.weight, self.bias, self.projection = weight, bias, projection


def lstm_cell(given: Tensor, state: Sequence[Tensor], recurrent: Recurrent) -> list[Tensor]:
    """Hochreiter & Schmidhuber (1997) with forget gates (Gers et al., 2000): the next (h, c)."""
    hidden, cell = state
    gates = given + linear(hidden, recurrent.weight, recurrent.bias).to(given.dtype)
    enter, forget, change, leave = gates.chunk(4, -1)
    cell = forget.sigmoid() * cell + enter.sigmoid() * change.tanh()
    hidden = leave.sigmoid() * cell.tanh()
    if recurrent.projection is not None:
        hidden = linear(hidden, recurrent.projection).to(given.dtype)
    return [hidden, cell]


def gru_cell(given: Tensor, state: Sequence[Tensor], recurrent: Recurrent) -> list[Tensor]:
    """Cho et al. (2014), with the reset gate after the product, as PyTorch and cuDNN have it: the next (h,)."""
    (hidden,) = state
    product = linear(hidden, recurrent.weight, recurrent.bias).to(given.dtype)
    size = hidden.shape[-1]
    reset, update = (given[..., : 2 * size] + product[..., : 2 * size]).sigmoid().chunk(2, -1)
    new = (given[..., 2 * size :] + reset * product[..., 2 * size :]).tanh()
    return [(1 - update) * new + update * hidden]


def rnn_tanh_cell(given: Tensor, state: Sequence[Tensor], recurrent: Recurrent) -> list[Tensor]:
    """Elman (1990): the next (h,)."""
    return [(given + linear(state[0], recurrent.weight, recurrent.bias).to(given.dtype)).tanh()]


def rnn_relu_cell(given: Tensor, state: Sequence[Tensor], recurrent: Recurrent) -> list[Tensor]:
    """Elman's network with max(x, 0): the next (h,)."""
    return [(given + linear(state[0], recurrent.weight, recurrent.bias).to(given.dtype)).relu()]


@dataclass
class Steps:
    """All steps of one direction of a layer.

    `given` [steps, batch, gates] is what the inputs give, for all steps at once: their product with the weights does
    not wait for the state. Where `there`, bool[steps, batch, 1], is false a state stays as it is.
    """

    given: Tensor
    state: Sequence[Tensor]
    recurrent: Recurrent
    reverse: bool
    there: Tensor | None = None


def lstm(steps: Steps) -> tuple[Tensor, list[Tensor]]:
    """Outputs [steps, batch, hidden] and the last (h, c)."""
    return _outputs(lstm_cell, steps)


def gru(steps: Steps) -> tuple[Tensor, list[Tensor]]:
    """Outputs [steps, batch, hidden] and the last (h,)."""
    return _outputs(gru_cell, steps)


def rnn_tanh(steps: Steps) -> tuple[Tensor, list[Tensor]]:
    """Outputs [steps, batch, hidden] and the last (h,)."""
    return _outputs(rnn_tanh_cell, steps)


def rnn_relu(steps: Steps) -> tuple[Tensor, list[Tensor]]:
    """Outputs [steps, batch, hidden] and the last (h,)."""
    return _outputs(rnn_relu_cell, steps)


CELLS: dict[str, Cell] = {"lstm": lstm_cell, "gru": gru_cell, "tanh": rnn_tanh_cell, "relu": rnn_relu_cell}
LAYERS = {"lstm": lstm, "gru": gru, "tanh": rnn_tanh, "relu": rnn_relu}


def _outputs(cell: Cell, steps: Steps) -> tuple[Tensor, list[Tensor]]:
    given, there = steps.given, steps.there

    def step(carries: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        next_ = cell(slices[0], carries, steps.recurrent)
        if there is not None:
            next_ = [where(slices[1], new, old) for new, old in zip(next_, carries, strict=True)]
        return next_, next_[:1]

    # under autocast `given` is of 16 bits: a GRU mixes its state into the next one and keeps the dtype that it has
    start = list(steps.state) if cell is gru_cell else [part.to(given.dtype) for part in steps.state]
    slices = [given] if there is None else [given, there]
    last, (outputs,) = repeat(step, start, slices, given.shape[0], steps.reverse)
    return outputs, last
