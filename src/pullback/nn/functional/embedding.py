"""Tables of vectors looked up by number, one by one or in bags."""

from __future__ import annotations

from ...autograd.function import with_gradient
from ...errors import DomainError, ShapeError
from ...ops import elementwise as e
from ...ops.indexing import bounded, require, scatter_add, take
from ...ops.movement import expand, reshape
from ...ops.primitive import constant, user_source
from ...tensor import Tensor
from ...tensor.arguments import whole_number
from ...tensor.arithmetic import where
from ...tensor.creation import arange, ones
from ...tensor.grad_modes import no_grad
from ...tensor.sorting import searchsorted
from .linear import indices

_MODES = ("sum", "mean", "max")


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of `weight` that `input` names; no gradient reaches the row `padding_idx`.

    With `max_norm` the rows named are first brought to at most that norm (of order `norm_type`), in `weight` itself.
    With `scale_grad_by_freq` a row's gradient is divided by how often `input` names it. There are no sparse gradients:
    `sparse` is refused where the weight requires one.
    Shapes: input [...] (integers from 0 to V - 1), weight [V, D], result [..., D].
    """
    index = _checked("embedding", input, weight, sparse)
    if max_norm is not None:
        _renormalize(weight, index, max_norm, norm_type)
    rows = _rows(weight, index, scale_grad_by_freq)
    padding = _padding("embedding", padding_idx, weight)
    if padding is None:
        return rows
    return Tensor(e.where((index == padding).unsqueeze(-1).node, rows.detach().node, rows.node))


def _checked(name: str, input: Tensor, weight: Tensor, sparse: bool) -> Tensor:
    """The numbers of rows as int64, found to be of rows that there are when they are computed."""
    if sparse and weight.requires_grad:
        raise NotImplementedError(
            f"{name}: there are no sparse gradients; take sparse=False, or a weight that requires none "
            f"(at {user_source()})"
        )
    if weight.ndim != 2:
        raise ShapeError(f"{name}: weight must be a matrix [V, D], got {list(weight.shape)} (at {user_source()})")
    return Tensor(bounded(indices(name, input), 0, weight.shape[0], f"{name}: index"))


def _padding(name: str, padding_idx: int | None, weight: Tensor) -> int | None:
    size = weight.shape[0]
    if padding_idx is None:
        return None
    padding_idx = whole_number(padding_idx, name, "padding_idx")
    if not -size <= padding_idx < size:
        raise IndexError(f"{name}: padding_idx {padding_idx} is outside the {size} rows (at {user_source()})")
    return padding_idx % size


def _renormalize(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Bring the rows named to at most `max_norm`; of a row named twice both writes are the same."""
    with no_grad():
        flat = index.reshape(-1)
        rows = Tensor(take(weight.detach().node, flat.node))
        norms = rows.norm(norm_type, dim=-1, keepdim=True)
        weight.detach().index_put_((flat,), rows * where(norms > max_norm, max_norm / (norms + 1e-7), 1.0))


def _rows(weight: Tensor, index: Tensor, scale_grad_by_freq: bool) -> Tensor:
    rows = Tensor(take(weight.node, index.node))
    if not scale_grad_by_freq:
        return rows
    flat = reshape(index.node, (index.numel(),))
    counts = scatter_add(flat, expand(constant(1, rows.dtype), flat.shape), weight.shape[0])
    often = Tensor(take(counts, index.node)).unsqueeze(-1)
    return with_gradient(rows, [rows], lambda _, cotangent: [cotangent / often])


def embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None, norm_type: float = 2,
    scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: Tensor | None = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The "sum", "mean" or "max" of the rows of `weight` that each bag names; zeros for an empty bag.

    Bags are the rows of an `input` [B, L], or parts of an `input` [N] that begin at `offsets` [B] (with
    `include_last_offset` [B + 1], the last N). `per_sample_weights`, shaped as `input`, multiply the rows of a
    sum. Rows `padding_idx` are left out. The other options are those of `embedding`. Result [B, D].
    """
    name = "embedding_bag"
    index = _checked(name, input, weight, sparse)
    _check_options(input, offsets, mode, scale_grad_by_freq, per_sample_weights, include_last_offset)
    padding = _padding(name, padding_idx, weight)
    if max_norm is not None:
        _renormalize(weight, index, max_norm, norm_type)
    rows = _rows(weight, index, scale_grad_by_freq)
    counted = ones(index.shape, dtype=rows.dtype) if padding is None else (index != padding).to(rows.dtype)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    if offsets is None:
        return _of_rows(rows, counted, mode)
    bags, count = _bags(offsets, index.shape[0], include_last_offset)
    return _of_parts(rows, counted, bags, count, mode)


def _check_options(
    input: Tensor,
    offsets: Tensor | None,
    mode: str,
    scale_grad_by_freq: bool,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
) -> None:
    name = "embedding_bag"
    if mode not in _MODES:
        raise ValueError(f"{name}: mode must be one of {', '.join(_MODES)}, got {mode!r} (at {user_source()})")
    if input.ndim not in (1, 2) or (input.ndim == 2) != (offsets is None):
        raise ValueError(
            f"{name} takes an input [N] with offsets, or [B, L] without, got {list(input.shape)} (at {user_source()})"
        )
    if offsets is not None and offsets.ndim != 1:
        raise ValueError(f"{name}: offsets must be a vector, got {list(offsets.shape)} (at {user_source()})")
    if include_last_offset and offsets is None:
        raise ValueError(f"{name}: include_last_offset goes with offsets (at {user_source()})")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError(f"{name}: a max has no gradient scaled by frequency (at {user_source()})")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(f"{name}: per_sample_weights go with mode='sum', not {mode!r} (at {user_source()})")
    if per_sample_weights is not None and per_sample_weights.shape != input.shape:
        raise ValueError(
            f"{name}: per_sample_weights {list(per_sample_weights.shape)} must have the input's shape "
            f"{list(input.shape)} (at {user_source()})"
        )


def _of_rows(rows: Tensor, counted: Tensor, mode: str) -> Tensor:
    """Bags of one length: rows [B, L, D], counted [B, L]."""
    mask = counted.unsqueeze(-1)
    if mode == "max":
        if not rows.shape[1]:
            return rows.sum(1)
        greatest = where(mask > 0, rows, -float("inf")).max(dim=1).values
        return where(counted.sum(1, keepdim=True) > 0, greatest, 0.0)
    total = (rows * mask).sum(1)
    return total if mode == "sum" else total / counted.sum(1, keepdim=True).clamp(min=1)


def _bags(offsets: Tensor, length: int, include_last_offset: bool) -> tuple[Tensor, int]:
    """The bag of each element, and how many bags there are. Offsets that are none are refused when computed."""
    starts = Tensor(indices("embedding_bag: offsets", offsets))
    size = offsets.shape[0]
    if size < (1 if include_last_offset else 0):
        raise ValueError(f"embedding_bag: include_last_offset needs one offset at least (at {user_source()})")
    if size:
        before = where(arange(size) == 0, 0, starts.roll(1))
        first = where(arange(size) == 0, starts == 0, starts >= before)
        holds = first & (starts <= length)
        message = "embedding_bag: offsets must begin with 0, ascend, and not exceed the input's length"
        if include_last_offset:
            holds = where(arange(size) == size - 1, first & (starts == length), holds)
            message += ", which the last must be"
        mark = Tensor(require(holds.node, DomainError, message))
        starts = where(mark == 0, starts, 0)
    starts = starts[:-1] if include_last_offset else starts
    return searchsorted(starts, arange(length), right=True) - 1, starts.shape[0]


def _of_parts(rows: Tensor, counted: Tensor, bags: Tensor, count: int, mode: str) -> Tensor:
    """Bags of any length: rows [N, D], counted [N]."""
    if mode == "max":
        places = bags.unsqueeze(-1).expand(rows.shape)
        lowest = where(counted.unsqueeze(-1) > 0, rows, -float("inf"))
        greatest = rows.new_zeros(count, rows.shape[1]).scatter_reduce(0, places, lowest, "amax", include_self=False)
        return where(greatest == -float("inf"), 0.0, greatest)
    total = Tensor(scatter_add(bags.node, (rows * counted.unsqueeze(-1)).node, count))
    if mode == "sum":
        return total
    return total / Tensor(scatter_add(bags.node, counted.node, count)).unsqueeze(-1).clamp(min=1)


__all__ = ["embedding", "embedding_bag"]
