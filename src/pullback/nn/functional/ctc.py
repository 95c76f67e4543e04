"""Connectionist temporal classification: the likelihood of a sequence over all its alignments with the input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...errors import DTypeError, ShapeError, TraceError
from ...graph.types import INTEGER, int64
from ...ops.indexing import bounded, take
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import in_float32
from ...tensor.creation import full, tensor
from ...tensor.joining import cat
from ...tensor.loops import repeat
from ...tensor.state import STATE
from .activation import finished, widened
from .linear import class_numbers, indices
from .loss import check_reduction

_NAME = "ctc_loss"
Lengths = Tensor | Sequence[int]


def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """-log of the summed probability of all alignments of `targets` with the steps of `log_probs`.

    Graves et al., "Connectionist Temporal Classification" (ICML 2006): the forward recursion in log space, T steps of
    a loop over [N, 2 S + 1] states; the gradient is the loop's own.
    Shapes: log_probs [T, N, C] or [T, C], from log_softmax; targets [N, S] padded, or [sum of target_lengths] one after
    the other, whose lengths are then read at once (inside a compiled step give them as ints, or pad the targets);
    lengths [N], or numbers for one sequence. "mean" divides each loss by its target's length (at least 1) and takes the
    mean. `zero_infinity` makes losses of impossible alignments, and their gradients, 0.

    As PyTorch's, the gradient by log_probs is exp(log_probs) - (share of the alignments): log_softmax behind it
    makes the true one of that, and it is no other where log_probs is the result of log_softmax.

    >>> log_probs = pb.zeros(4, 1, 3).log_softmax(2)
    >>> pb.nn.functional.ctc_loss(log_probs, pb.tensor([[1, 2]]), pb.tensor([4]), pb.tensor([2]), reduction="sum")
    tensor(1.6864)
    """
    check_reduction(_NAME, reduction)
    (log_probs,) = in_float32(log_probs)
    x, alone = _batched(log_probs)
    steps, count, classes = x.shape
    if not 0 <= blank < classes:
        raise ValueError(f"{_NAME}: blank must be one of the {classes} classes, got {blank} (at {user_source()})")
    lengths, wanted = (_lengths(w, n, count) for w, n in ((input_lengths, "input"), (target_lengths, "target")))
    padded = _padded(targets, target_lengths, wanted, count)
    lengths = Tensor(bounded(lengths.node, 0, steps + 1, f"{_NAME}: input length"))
    wanted = Tensor(bounded(wanted.node, 0, padded.shape[1] + 1, f"{_NAME}: target length"))
    labels = _with_blanks(padded, wanted, blank, classes)
    loss = -_likelihood(x, labels, lengths, wanted, blank)
    loss = loss + _softmax_term(x, lengths)
    if zero_infinity:
        loss = where(loss == math.inf, 0.0, loss)
    if reduction == "mean":
        loss = (loss / wanted.clamp(min=1).to(loss.dtype)).mean()
    elif reduction == "sum":
        loss = loss.sum()
    return finished(loss.squeeze(0) if alone and reduction == "none" else loss, log_probs)


def _batched(log_probs: Tensor) -> tuple[Tensor, bool]:
    x = widened(_NAME, log_probs)
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise ShapeError(
            f"{_NAME}: log_probs must be [T, N, C] or [T, C] and not empty, got {list(x.shape)} (at {user_source()})"
        )
    return (x.unsqueeze(1), True) if x.ndim == 2 else (x, False)


def _lengths(lengths: Lengths, which: str, count: int) -> Tensor:
    """[N] whole numbers."""
    given = lengths if isinstance(lengths, Tensor) else tensor(np.asarray(lengths, np.int64).reshape(-1))
    if given.dtype.category != INTEGER:
        raise DTypeError(f"{_NAME}: {which}_lengths must be integers, got {given.dtype.name} (at {user_source()})")
    if given.numel() != count or given.ndim > 1:
        raise ShapeError(
            f"{_NAME}: {which}_lengths must be [{count}], one for each sequence of the batch, got "
            f"{list(given.shape)} (at {user_source()})"
        )
    return given.reshape(count).long()


def _padded(targets: Tensor, given: Lengths, wanted: Tensor, count: int) -> Tensor:
    """[N, S] labels; what lies beyond a target's length counts for nothing."""
    labels = Tensor(indices(_NAME, targets))
    if labels.ndim == 2 and labels.shape[0] == count:
        return labels
    if labels.ndim != 1:
        raise ShapeError(
            f"{_NAME}: targets must be [{count}, S] or one after the other in one axis, got {list(targets.shape)} "
            f"(at {user_source()})"
        )
    sizes = _known(given, wanted)
    if sizes.sum() > labels.shape[0] or (sizes < 0).any():
        raise ShapeError(
            f"{_NAME}: target_lengths {sizes.tolist()} do not fit {labels.shape[0]} targets (at {user_source()})"
        )
    longest = int(sizes.max(initial=0))
    places = (np.cumsum(sizes) - sizes)[:, np.newaxis] + np.arange(longest)
    if not labels.shape[0]:
        return tensor(np.zeros((count, 0), np.int64))
    return Tensor(take(labels.node, tensor(np.minimum(places, labels.shape[0] - 1)).node))


def _known(given: Lengths, wanted: Tensor) -> np.ndarray:
    """The lengths of targets that stand one after the other, as numbers."""
    if not isinstance(given, Tensor):
        return np.asarray(given, np.int64).reshape(-1)
    sizes = given._fixed_numbers() if STATE.trace is not None else wanted._numbers()
    if sizes is None:
        raise TraceError(
            f"{_NAME}: targets one after the other with target_lengths in a tensor, inside a compiled step (at "
            f"{user_source()}): the lengths say where each target begins and how much room the longest takes, and "
            "the step is recorded once for any. Pass targets padded to [N, S], or target_lengths as a tuple of ints."
        )
    return sizes.astype(np.int64).reshape(-1)


def _with_blanks(padded: Tensor, wanted: Tensor, blank: int, classes: int) -> Tensor:
    """[N, 2 S + 1]: blank, label, blank, label, … blank; blanks beyond the target's length."""
    count, longest = padded.shape
    inside = class_numbers((1, longest), 1) < wanted.unsqueeze(1)
    known = Tensor(bounded(where(inside, padded, blank).node, 0, classes, f"{_NAME}: target"))
    blanks = full((count, longest, 1), blank, dtype=int64)
    pairs = cat([blanks, known.unsqueeze(2)], 2).reshape(count, 2 * longest)
    return cat([pairs, full((count, 1), blank, dtype=int64)], 1)


def _likelihood(x: Tensor, labels: Tensor, lengths: Tensor, wanted: Tensor, blank: int) -> Tensor:
    """The logarithm of the summed probability of the alignments of each sequence, [N]."""
    steps, count, _ = x.shape
    states = labels.shape[1]
    emitted = x.gather(2, labels.unsqueeze(0).expand(steps, count, states))
    number = class_numbers((1, states), 1)
    # a label may follow the one before it directly, without a blank, if it is another
    before = _later(labels, 2, blank)
    leaps = (labels != blank) & (labels != before) & (number >= 2)
    start = where((number == 0), 0.0, -math.inf).to(x.dtype).expand(count, states)

    def step(carries: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        (alpha,), (probability, now) = carries, slices
        one, two = _later(alpha, 1, -math.inf), where(leaps, _later(alpha, 2, -math.inf), -math.inf)
        # before the first step only the first state is there: the first label is one state on
        moved = _log_sum([alpha, one, two]) + probability
        return [where((now < lengths).unsqueeze(1), moved, alpha)], []

    numbers = class_numbers((steps,), 0)
    (last,), _ = repeat(step, [start], [emitted, numbers], steps)
    # the alignment ends with the last label or the blank behind it
    at_blank = where(number == 2 * wanted.unsqueeze(1), last, -math.inf).amax(1)
    at_label = where(number == 2 * wanted.unsqueeze(1) - 1, last, -math.inf).amax(1)
    return _log_sum([at_blank, at_label])


def _later(x: Tensor, by: int, fill: float) -> Tensor:
    """The last axis moved on by `by` places."""
    kept = max(x.shape[1] - by, 0)
    head = full((x.shape[0], x.shape[1] - kept), fill, dtype=x.dtype)
    return cat([head, x[:, :kept]], 1) if kept else head


def _log_sum(terms: list[Tensor]) -> Tensor:
    """log(sum(exp)) of two or three tensors; -inf, with no gradient, where all are -inf."""
    greatest = terms[0].detach()
    for term in terms[1:]:
        greatest = greatest.maximum(term.detach())
    none = greatest == -math.inf
    shift = where(none, 0.0, greatest)
    total = (terms[0] - shift).exp()
    for term in terms[1:]:
        total = total + (term - shift).exp()
    return where(none, -math.inf, where(none, 1.0, total).log() + shift)


def _softmax_term(x: Tensor, lengths: Tensor) -> Tensor:
    """Zeros [N] whose gradient by x is exp(x) at the steps that count: what PyTorch adds for log_softmax."""
    steps = x.shape[0]
    inside = (class_numbers((steps, 1), 0) < lengths).unsqueeze(2)
    powers = where(inside, x, -math.inf).exp()
    return (powers - powers.detach()).sum((0, 2))


__all__ = ["ctc_loss"]
