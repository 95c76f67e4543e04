"""What a step would take with its batch in parts, without its user having written that.

The function is called as it is. What it has done when it comes to backward() is taken for the loss function that
`accumulate` is given: the call of backward() is answered by calling the function anew for each part of the batch, up to
its backward(), and after that the first call goes on. So the recording is that of a user who has written it so. Where
it cannot be told whether it would be, `Untold` is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..accumulation.accumulate import accumulate
from ..errors import GradientError, ShapeError
from ..graph.calm import disturb
from ..graph.node import Graph, next_serial
from ..tensor import Tensor
from ..tensor.handle import Handle
from ..tensor.state import STATE
from ..trees import unflatten
from .trace import Trace


class Untold(BaseException):
    """What a changed step would take cannot be told, and why not. No error of the user's, which he could catch."""

    def __init__(self, why: str):
        super().__init__(why)
        self.why = why


class _Reached(BaseException):
    """A call for a part has come to its backward()."""

    def __init__(self, loss: Tensor):
        super().__init__()
        self.loss = loss


class Divided:
    """A step's function, of which the loss is had from parts of the batch.

    The batch are the arguments that have no gradients, or where there are no tensors among the arguments what the
    function reads of other tensors, save for those of modules and optimizers.
    """

    def __init__(self, function: Callable[..., Any], shape: Any, leaves: Sequence[Any], trace: Trace):
        self.function, self.shape, self.leaves, self.trace = function, shape, leaves, trace
        self._calls, self._is_done = 0, False
        self._places: list[int] = []
        self._tensors: list[Handle] = []
        self._first = self._last = next_serial()

    def run(self) -> Any:
        """What the function gives."""
        args, kwargs = unflatten(self.shape, list(self.leaves))
        STATE.journal = {}
        try:
            result = self.function(*args, **kwargs)
        finally:
            STATE.journal = None
        if not self._is_done:
            raise Untold("the step has no backward()")
        return result

    def takes(self, outputs: Sequence[Handle] | None) -> bool:
        """Whether a backward pass from `outputs` is done here. None are those that could not be had from parts."""
        if self._calls < 0:  # a part's own, which `accumulate` makes
            return False
        if outputs is None or len(outputs) != 1 or self._is_done or STATE.loop is not None or STATE.example is not None:
            raise Untold("its backward() is not the only one, or not that of one loss for all leaves")
        if self._calls:
            raise _Reached(outputs[0])  # type: ignore[arg-type]
        self._undo()
        self._last = next_serial()
        self._choose()
        self._calls = -1
        try:
            loss = accumulate(self._loss_of, tuple(Tensor(tensor._node) for tensor in self._tensors))
        except (GradientError, ShapeError) as error:
            raise Untold(str(error)) from None
        self._calls, self._is_done = 0, True
        outputs[0]._node = loss._node
        return True

    def _undo(self) -> None:
        """Forget what the first call has done to tensors, save for gradients, what was to be finite of its values, and
        what went in blocks: calls for parts do it again.
        """
        gradients = {id(grad.tensor._grad) for grad in self.trace.grads.values()}
        for tensor, node, link in (STATE.journal or {}).values():
            if id(tensor) not in gradients:
                tensor._node, tensor._link = node, link
        self._written = set(STATE.journal or ())
        STATE.journal = None
        disturb()
        self.trace.watched.clear()
        self.trace.pulled.clear()
        self.trace.rows.clear()

    def _choose(self) -> None:
        """Find what the batch is."""
        given = [place for place, leaf in enumerate(self.leaves) if isinstance(leaf, Handle)]
        self._places = [p for p in given if self.leaves[p].ndim and not self.leaves[p].requires_grad]
        self._tensors = [self.leaves[place] for place in self._places]
        if not given:
            own = {*self.trace.names(), *self.trace.optimizer_state, *self._written}
            self._tensors = [
                c.tensor
                for key, c in self.trace.captured.items()
                if c.owner is None and not c.node.requires_grad and c.node.shape and key not in own
            ]
        if not self._tensors:
            raise Untold("no tensor that it reads is taken for a batch")

    def _loss_of(self, batch: Sequence[Tensor]) -> Tensor:
        """What the function calls backward() of when it is called for a part."""
        leaves = list(self.leaves)
        for place, part in zip(self._places, batch, strict=False):
            leaves[place] = part
        args, kwargs = unflatten(self.shape, leaves)
        self._calls = 1
        try:
            with self._gradients_kept(), self._captured_as(() if self._places else batch):
                self.function(*args, **kwargs)
        except _Reached as reached:
            return reached.loss
        except Exception as error:  # whatever the user's code raises for a batch of another size
            raise Untold(f"for a part of the batch it raises {type(error).__name__}: {error}") from None
        finally:
            self._calls = -1
        raise Untold("for a part of the batch it comes to no backward()")

    @contextmanager
    def _gradients_kept(self) -> Iterator[None]:
        """Gradients that are cleared inside are as before afterwards."""
        grads = self.trace.grads
        before = {key: grad.tensor._grad for key, grad in grads.items()}
        nodes = [(gradient, gradient._node) for gradient in before.values() if gradient is not None]
        try:
            yield
        finally:
            for key, grad in grads.items():
                grad.tensor._grad = before.get(key, grad.found)
            for gradient, node in nodes:
                gradient._node = node

    @contextmanager
    def _captured_as(self, batch: Sequence[Tensor]) -> Iterator[None]:
        """The tensors that the function finds outside are a part of the batch meanwhile."""
        before = [tensor._node for tensor in self._tensors]
        for tensor, part in zip(self._tensors, batch, strict=False):
            tensor._node = part._node
        disturb()
        try:
            yield
        finally:
            for tensor, node in zip(self._tensors, before, strict=True):
                tensor._node = node
            disturb()

    def check(self, graph: Graph) -> None:
        """Raise Untold where something of the undivided batch is computed in what was recorded: what the step returns
        beside the loss, say, or what a monitor looks at. A user would leave that out, or do it for each part.
        """
        of_batch = {tensor._node for tensor in self._tensors}
        for node in graph.nodes:
            if self._first <= node.serial < self._last and not of_batch.isdisjoint(node.inputs):
                raise Untold("beside the loss it computes something else of the whole batch, which it gives or keeps")


__all__ = ["Divided", "Untold"]
