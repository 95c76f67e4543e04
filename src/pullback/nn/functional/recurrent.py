"""One step of each recurrent network, and all steps of one direction of a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def lstm_step(given: Tensor, state: Sequence[Tensor], recurrent: Recurrent) -> list[Tensor]:
    """Hochreiter & Schmidhuber (1997) with forget gates (Gers et al., 2000): the next (h, c)."""
    hidden, cell = state
    gates = given + linear(hidden, recurrent.weight, recurrent.bias).to(given.dtype)
    enter, forget, change, leave = gates.chunk(4, -1)
    cell = forget.sigmoid() * cell + enter.sigmoid() * change.tanh()
    hidden = leave.sigmoid() * cell.tanh()
    if recurrent.projection is not None:
        hidden = linear(hidden, recurrent.projection).to(given.dtype)
    return [hidden, cell]


def gru_step(given: Tensor, state: Sequence[Tensor], recurrent: Recurrent) -> list[Tensor]:
    """Cho et al. (2014), with the reset gate after the product, as PyTorch and cuDNN have it: the next (h,)."""
    (hidden,) = state
    product = linear(hidden, recurrent.weight, recurrent.bias).to(given.dtype)
    size = hidden.shape[-1]
    reset, update = (given[..., : 2 * size] + product[..., : 2 * size]).sigmoid().chunk(2, -1)
    new = (given[..., 2 * size :] + reset * product[..., 2 * size :]).tanh()
    return [(1 - update) * new + update * hidden]


def tanh_step(given: Tensor, state: Sequence[Tensor], recurrent: Recurrent) -> list[Tensor]:
    """Elman (1990): the next (h,)."""
    return [(given + linear(state[0], recurrent.weight, recurrent.bias).to(given.dtype)).tanh()]


def relu_step(given: Tensor, state: Sequence[Tensor], recurrent: Recurrent) -> list[Tensor]:
    """Elman's network with max(x, 0): the next (h,)."""
    return [(given + linear(state[0], recurrent.weight, recurrent.bias).to(given.dtype)).relu()]


CELLS: dict[str, Cell] = {"lstm": lstm_step, "gru": gru_step, "tanh": tanh_step, "relu": relu_step}


def recurrence(
    cell: Cell,
    given: Tensor,
    state: Sequence[Tensor],
    recurrent: Recurrent,
    reverse: bool,
    there: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """All steps of one direction of a layer: outputs [steps, batch, hidden] and the last state.

    `given` [steps, batch, gates] is what the inputs give, for all steps at once: their product with the weights does
    not wait for the state. Where `there`, bool[steps, batch, 1], is false a state stays as it is.
    """

    def step(carries: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        next_ = cell(slices[0], carries, recurrent)
        if there is not None:
            next_ = [where(slices[1], new, old) for new, old in zip(next_, carries, strict=True)]
        return next_, next_[:1]

    # under autocast `given` is of 16 bits: a GRU mixes its state into the next one and keeps the dtype that it has
    start = list(state) if cell is gru_step else [part.to(given.dtype) for part in state]
    last, (outputs,) = repeat(step, start, [given] if there is None else [given, there], given.shape[0], reverse)
    return outputs, last
