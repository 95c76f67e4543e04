"""accumulate: the gradient of a batch, with memory for one of its parts."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.backward import backward_where
from ..errors import ShapeError
from ..graph.node import Node
from ..graph.types import float32, float64, promote
from ..ops.elementwise import add
from ..ops.primitive import looking, user_source
from ..tensor import Tensor
from ..tensor.creation import from_numpy, tensor
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
    the loss is taken to be the mean of the parts' losses weighted by `weight(part)`, a number or a tensor of one, and
    nothing is checked; a part of weight 0 counts nothing, also where its own loss is NaN. Random draws, as of dropout,
    are others than those of the undivided batch.

    `parts` "auto" is 1 but in a compiled step with a budget (`pullback.compile(step, memory=…)`), where it is what
    meets the budget in the least time (`step.parts`). Raises ShapeError for a batch of fewer examples than parts.

    >>> layer = pb.nn.Linear(3, 4)
    >>> x, target = pb.ones(5, 3), pb.tensor([0, -100, -100, 3, -100])
    >>> loss_fn = lambda batch: pb.nn.functional.cross_entropy(layer(batch[0]), batch[1])
    >>> loss = pb.accumulate(loss_fn, (x, target), parts=2)
    >>> layer.weight.grad.shape, bool(pb.isclose(loss, loss_fn((x, target))))
    (pullback.Size([4, 3]), True)
    """
    if not callable(loss_fn):
        raise TypeError(f"accumulate: loss_fn must be a function of a batch, got {loss_fn!r} (at {user_source()})")
    if weight is not None and not callable(weight):
        raise TypeError(
            f"accumulate: weight must be a function of a part that gives its weight, got {weight!r} (at "
            f"{user_source()}), as weight=lambda part: len(part[0])"
        )
    given = Batch(batch, dim)
    count = _chosen(given.count) if parts == AUTO else parts
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f'accumulate: parts must be a whole number from 1, or "auto", got {parts!r}')
    if count > max(given.count, 1):
        raise ShapeError(
            f"accumulate: {given.count} examples cannot be divided into {count} parts (at {user_source()})"
        )
    if count == 1:
        loss = _loss(loss_fn, batch)
        loss.backward()
        return loss.detach()
    if weight is not None:
        return _Weighted(loss_fn, given, count, weight).run()
    return _Shared(loss_fn, given, count).run()


def _chosen(examples: int) -> int:
    """The number of parts that the step being recorded is to have."""
    return 1 if STATE.trace is None else min(STATE.trace.automatic_parts(examples), max(examples, 1))


def _loss(loss_fn: Callable[[Any], Tensor], batch: Any) -> Tensor:
    """What loss_fn gives, which must be the loss alone."""
    loss = loss_fn(batch)
    if not isinstance(loss, Tensor):
        held = f" of {len(loss)}" if isinstance(loss, (tuple, list, dict)) else ""
        raise TypeError(
            f"accumulate: loss_fn must give the loss alone, a tensor, got a {type(loss).__name__}{held} (at "
            f"{user_source()}). What else it gives would be of one part only: let loss_fn give the loss alone, as "
            "lambda batch: f(batch)[0], and compute the rest outside of it."
        )
    return loss


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
            loss = _loss(self.loss_fn, self.batch.of(self.batch.between(start, stop)))
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
        for changing, node in changed.items():
            if changing not in also_changed:
                continue
            if division.run(node, also_changed[changing]) != SAME or node in division.changed:
                raise refused_change(node)
        return root, division

    def _recorded(self, tensors: list[Tensor]) -> Node:
        return _loss(self.loss_fn, self.batch.of(tensors)).node

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
            shares = self._shares()
        result: Tensor | None = None
        for part, (portion, counts) in zip(self.parts, shares, strict=True):
            loss = _loss(self.loss_fn, part)
            if isinstance(portion, Tensor):
                contribution = (loss * portion.to(promote(loss.dtype, float32))).where(counts, 0.0)
                backward_where(counts, contribution)
            elif counts:
                contribution = loss * portion
                contribution.backward()
            else:
                continue
            with no_grad():
                result = contribution.detach() if result is None else result + contribution.detach()
        assert result is not None
        return result

    def _shares(self) -> list[tuple[Any, Any]]:
        """The share of each part in the mean, and whether it counts. Where none does, all are NaN, as the mean over
        nothing is for the undivided batch.
        """
        weights = [self._weight_of(part) for part in self.parts]
        if any(isinstance(own, Tensor) for own in weights):
            weights = [(own if isinstance(own, Tensor) else tensor(own)).to(float64) for own in weights]
            whole = functools.reduce(operator.add, weights)
            return [(own / whole, (own != 0) | (whole == 0)) for own in weights]
        whole = sum(weights)
        return [(own / whole if whole else math.nan, own != 0 or whole == 0) for own in weights]

    def _weight_of(self, part: Any) -> Tensor | int | float:
        """The weight of a part: a number, or a tensor of shape []."""
        given = self.weight(part)
        if isinstance(given, np.ndarray):
            given = from_numpy(given)
        if isinstance(given, (int, float, np.integer, np.floating)):
            return given.item() if isinstance(given, np.generic) else given
        if isinstance(given, Tensor) and given.numel() == 1 and not given.is_complex():
            return given.reshape(())
        told = f"{given.dtype.name}{list(given.shape)}" if isinstance(given, Tensor) else f"{given!r:.200}"
        raise TypeError(
            f"accumulate: weight must give a number for a part, or a tensor of one, got {told} (at {user_source()})"
        )


__all__ = ["accumulate"]
