"""accumulate: the gradient of a batch, with memory for one of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ShapeError
from ..graph.node import Node
from ..ops.elementwise import add
from ..ops.primitive import looking, user_source
from ..tensor import Tensor
from ..tensor.grad_modes import no_grad
from ..tensor.state import STATE, restored
from .classes import SAME, TOTAL
from .division import Division
from .parts import Batch
from .shares import refusal, refused_change, share

AUTO = "auto"


def accumulate(
    loss_fn: Callable[[Any], Tensor],
    batch: Any,
    parts: int | str = AUTO,
    *,
    dim: int = 0,
    weight: Callable[[Any], Any] | None = None,
) -> Tensor:
    """Add the gradient of `loss_fn(batch)` to `.grad`, as backward() would, with memory for one part of it at a time.

    The batch (a tensor, or nested tuples, lists and dicts of tensors; what else stands in it is given to every part)
    is cut along `dim` into `parts` parts whose sizes differ by one at most; each goes forward and backward before the
    next one begins. Returns the loss of the whole batch, without history.

    The loss and the gradient are those of the undivided batch to rounding, however the loss is averaged: over examples,
    over targets that are not ignored, weighted by class, in several terms, with terms that do not depend on the batch.
    That is read from what loss_fn computes, for which it is called twice more than there are parts, and what it does to
    tensors then is undone. GradientError is raised where the loss does not divide so: where it is no linear function
    of sums over examples, as with batch normalization in training mode, or a loss that compares examples. With `weight`
    the loss is taken to be the mean of the parts' losses weighted by `weight(part)`, and nothing is checked. Random
    draws, as of dropout, are others than those of the undivided batch.

    `parts` "auto" is 1 but in a compiled step with a budget (`pullback.compile(step, memory=…)`), where it is what
    meets the budget in the least time (`step.parts`). Raises ShapeError for a batch of fewer examples than parts.

    >>> layer = pb.nn.Linear(3, 4)
    >>> x, target = pb.ones(5, 3), pb.tensor([0, -100, -100, 3, -100])
    >>> loss_fn = lambda batch: pb.nn.functional.cross_entropy(layer(batch[0]), batch[1])
    >>> loss = pb.accumulate(loss_fn, (x, target), parts=2)
    >>> layer.weight.grad.shape, bool(pb.isclose(loss, loss_fn((x, target))))
    (pullback.Size([4, 3]), True)
    """
    given = Batch(batch, dim)
    count = _chosen(given.count) if parts == AUTO else parts
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f'accumulate: parts must be a whole number from 1, or "auto", got {parts!r}')
    if count > max(given.count, 1):
        raise ShapeError(
            f"accumulate: {given.count} examples cannot be divided into {count} parts (at {user_source()})"
        )
    if count == 1:
        loss = loss_fn(batch)
        loss.backward()
        return loss.detach()
    return _Weighted(loss_fn, given, count, weight).run() if weight else _Shared(loss_fn, given, count).run()


def _chosen(examples: int) -> int:
    """The number of parts that the step being recorded is to have."""
    return 1 if STATE.trace is None else min(STATE.trace.automatic_parts(examples), max(examples, 1))


class _Shared:
    """Parts that contribute shares of one loss."""

    def __init__(self, loss_fn: Callable[[Any], Tensor], batch: Batch, count: int):
        self.loss_fn, self.batch = loss_fn, batch
        self.bounds = batch.bounds(count)

    def run(self) -> Tensor:
        """The loss, the gradient having been added."""
        root, division = self._divided()
        result: Node | None = None
        for start, stop in self.bounds:
            loss = self.loss_fn(self.batch.of(self.batch.between(start, stop)))
            contribution = Tensor(share(division, root, loss.node, start == 0))
            if contribution.requires_grad or start == 0:
                contribution.backward()
            with no_grad():
                result = contribution.node if result is None else add(result, contribution.node)
        assert result is not None
        return Tensor(result).detach()

    def _divided(self) -> tuple[Node, Division]:
        """The loss of the whole batch, which is not computed, and how it divides."""
        batch = self.batch
        probed = self._probed()
        with looking():
            whole, probe = batch.whole(), batch.between(0, probed)
            with restored() as changed:
                root = self._recorded(whole)
            with restored() as also_changed:
                other = self._recorded(probe)
        division = Division(batch.count, probed)
        for ours, theirs, rows in zip(whole, probe, batch.rows(), strict=True):
            division.enter(ours.node, theirs.node, rows)
        found = division.run(root, other)
        if found not in (SAME, TOTAL):
            raise refusal(root, found)
        for tensor, node in changed.items():
            if tensor not in also_changed:
                continue
            if division.run(node, also_changed[tensor]) != SAME or node in division.changed:
                raise refused_change(node)
        return root, division

    def _recorded(self, tensors: list[Tensor]) -> Node:
        loss = self.loss_fn(self.batch.of(tensors))
        if not isinstance(loss, Tensor):
            raise TypeError(f"accumulate: loss_fn must give a tensor, got {type(loss).__name__} (at {user_source()})")
        return loss.node

    def _probed(self) -> int:
        """A number of examples that is not all, and above 1: axes of size 1 are moved about in ways of their own."""
        largest = max(stop - start for start, stop in self.bounds)
        return largest if largest > 1 else 2 if self.batch.count > 2 else 2 * self.batch.count


class _Weighted:
    """Parts whose losses are averaged with weights that the user gives."""

    def __init__(self, loss_fn: Callable[[Any], Tensor], batch: Batch, count: int, weight: Callable[[Any], Any]):
        self.loss_fn, self.weight = loss_fn, weight
        self.parts = [batch.of(batch.between(start, stop)) for start, stop in batch.bounds(count)]

    def run(self) -> Tensor:
        """The loss, the gradient having been added."""
        with no_grad():
            weights = [self.weight(part) for part in self.parts]
            whole = sum(weights[1:], start=weights[0])
        result: Tensor | None = None
        for part, own in zip(self.parts, weights, strict=True):
            contribution = self.loss_fn(part) * (own / whole)
            contribution.backward()
            with no_grad():
                result = contribution.detach() if result is None else result + contribution.detach()
        assert result is not None
        return result


__all__ = ["accumulate"]
