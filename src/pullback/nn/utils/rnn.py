"""Sequences of different lengths in one batch: padded to the longest, or packed one step after the other.

Inside a compiled step the lengths must be known while it is recorded: Python numbers, or tensors made of such in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from ...errors import DTypeError, ShapeError, TraceError
from ...graph import types
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arguments import flag
from ...tensor.arithmetic import where
from ...tensor.creation import arange, full, tensor, zeros_like
from ...tensor.joining import cat, stack
from ...tensor.state import STATE


class _Fields(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Fields):
    """Sequences of different lengths, the longest first, one step of all of them after the other.

    `data` [sum of lengths, …] holds step 0 of all sequences, then step 1 of those that have one, …; `batch_sizes`
    int64[longest] says how many have each step. `sorted_indices` int64[batch], or None, are the places that the
    sequences had before they were sorted, `unsorted_indices` the inverse permutation. Made by `pack_sequence` and
    `pack_padded_sequence`; the recurrent layers take and give them.
    """

    def __new__(
        cls,
        data: Any,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> Self:
        if batch_sizes is None:
            if not isinstance(data, (list, tuple)) or len(data) != 2:
                raise TypeError(
                    f"PackedSequence takes data and batch_sizes, or a pair of them, got {type(data).__name__} "
                    f"(at {user_source()})"
                )
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """With data as `Tensor.to` gives it; itself if that changes nothing."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else self._replace(data=data)

    def cpu(self) -> Self:
        """The sequences themselves: the only device is "cpu"."""
        return self

    def cuda(self, *args: Any, **kwargs: Any) -> Self:
        """There are no GPUs."""
        raise ValueError(f'cuda() is not there (at {user_source()}); Pullback runs on "cpu"')

    @property
    def is_cuda(self) -> bool:
        """Whether the data lies on a GPU: never."""
        return False

    def pin_memory(self) -> Self:
        """There is no pinned memory, as there are no GPUs that would read it."""
        raise NotImplementedError(f"pin_memory() is not there (at {user_source()}): there are no GPUs")

    def is_pinned(self) -> bool:
        """Whether the data lies in pinned memory: never."""
        return False

    def double(self) -> Self:
        """With data as float64."""
        return self.to(types.float64)

    def float(self) -> Self:
        """With data as float32."""
        return self.to(types.float32)

    def half(self) -> Self:
        """With data as float16."""
        return self.to(types.float16)

    def long(self) -> Self:
        """With data as int64."""
        return self.to(types.int64)

    def int(self) -> Self:
        """With data as int32."""
        return self.to(types.int32)

    def short(self) -> Self:
        """With data as int16."""
        return self.to(types.int16)

    def char(self) -> Self:
        """With data as int8."""
        return self.to(types.int8)

    def byte(self) -> Self:
        """With data as uint8."""
        return self.to(types.uint8)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The inverse of a permutation int64[n]; None of None."""
    if permutation is None:
        return None
    return zeros_like(permutation).scatter(0, permutation, arange(permutation.numel(), dtype=permutation.dtype))


def numbers(what: str, given: Any) -> list[int]:
    """The values of whole numbers in one axis, which must be known now."""
    if not isinstance(given, Tensor):
        array = np.asarray([item.item() if isinstance(item, Tensor) else item for item in given])
    elif STATE.trace is None:
        array = given.detach().numpy()
    elif given._link is None and given._node.buffer is not None and not STATE.trace.is_foreign(given._node):
        array = given._node.buffer.array.reshape(given.shape)  # a constant of the step
    else:
        raise TraceError(
            f"{what} must be known when a compiled step is recorded (at {user_source()}), as shapes depend on them: "
            "give Python numbers"
        )
    if array.ndim != 1:
        raise ShapeError(f"{what} must have one axis, got shape {list(array.shape)} (at {user_source()})")
    if array.size and array.dtype.kind not in "iuf":
        raise DTypeError(f"{what} must be whole numbers, got {array.dtype} (at {user_source()})")
    return [int(value) for value in array]


def steps_of(sequence: PackedSequence) -> np.ndarray:
    """Whether each sequence, in its sorted place, has each step: bool[longest, batch]."""
    if not isinstance(sequence, PackedSequence):
        raise TypeError(f"a PackedSequence is needed, got {type(sequence).__name__} (at {user_source()})")
    sizes = np.asarray(numbers("batch_sizes", sequence.batch_sizes), np.int64)
    if sizes.size == 0 or sizes[-1] <= 0 or (np.diff(sizes) > 0).any():
        raise ValueError(f"batch_sizes must fall and be positive, got {sizes.tolist()} (at {user_source()})")
    if sizes.sum() != sequence.data.shape[0]:
        raise ShapeError(
            f"batch_sizes {sizes.tolist()} are {sizes.sum()} steps, but data is {list(sequence.data.shape)} "
            f"(at {user_source()})"
        )
    return np.arange(sizes[0]) < sizes[:, None]


def spread(data: Tensor, steps: np.ndarray, padding_value: float = 0.0) -> Tensor:
    """[sum of lengths, …] to [longest, batch, …], with `padding_value` where a sequence has no step."""
    if steps.all():
        return data.reshape(*steps.shape, *data.shape[1:])
    places = np.where(steps, np.cumsum(steps.reshape(-1)).reshape(steps.shape) - 1, 0)
    rows = data.index_select(0, tensor(places.reshape(-1))).reshape(*steps.shape, *data.shape[1:])
    there = tensor(steps.reshape(*steps.shape, *[1] * (data.ndim - 1)))
    return where(there, rows, full((), padding_value, dtype=data.dtype))


def gathered(padded: Tensor, steps: np.ndarray) -> Tensor:
    """[longest, batch, …] to [sum of lengths, …]: the opposite of `spread`."""
    rows = padded.reshape(steps.size, *padded.shape[2:])
    return rows if steps.all() else rows.index_select(0, tensor(np.flatnonzero(steps)))


def pack_padded_sequence(
    input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """The first `lengths[b]` steps of each sequence of [steps, batch, …], or [batch, steps, …] if `batch_first`.

    They must fall in length if `enforce_sorted`; otherwise they are sorted.

    >>> rnn = pb.nn.utils.rnn
    >>> packed = rnn.pack_padded_sequence(pb.tensor([[1, 2, 0], [3, 4, 5]]), [2, 3], True, enforce_sorted=False)
    >>> packed.data.tolist(), packed.batch_sizes.tolist(), packed.sorted_indices.tolist()
    ([3, 1, 4, 2, 5], [2, 2, 1], [1, 0])
    """
    batch_first = flag(batch_first, "pack_padded_sequence", "batch_first")
    sizes = np.asarray(numbers("lengths", lengths), np.int64)
    _check_lengths(input, sizes, batch_first)
    if enforce_sorted and (np.diff(sizes) > 0).any():
        raise ValueError(
            f"pack_padded_sequence: lengths must fall, got {sizes.tolist()} (at {user_source()}); pass "
            "enforce_sorted=False to have the sequences sorted"
        )
    order = np.arange(sizes.size) if enforce_sorted else np.argsort(-sizes, kind="stable")
    steps = np.arange(sizes.max())[:, None] < sizes[order]
    step, place = np.nonzero(steps)
    rows = order[place] * input.shape[1] + step if batch_first else step * input.shape[1] + order[place]
    data = input.flatten(0, 1).index_select(0, tensor(rows.astype(np.int64)))
    return PackedSequence(data, tensor(steps.sum(1)), None if enforce_sorted else tensor(order))


def _check_lengths(input: Tensor, sizes: np.ndarray, batch_first: bool) -> None:
    if input.ndim < 2 or input.numel() == 0:
        raise ShapeError(
            f"pack_padded_sequence: the input must be [{'batch, steps' if batch_first else 'steps, batch'}, …] and not "
            f"empty, got {list(input.shape)} (at {user_source()})"
        )
    batch, most = input.shape[:2] if batch_first else input.shape[1::-1]
    if sizes.size != batch:
        raise ShapeError(f"pack_padded_sequence: {sizes.size} lengths for a batch of {batch} (at {user_source()})")
    if sizes.min() <= 0 or sizes.max() > most:
        raise ValueError(
            f"pack_padded_sequence: lengths must be from 1 to the {most} steps of the input, got {sizes.tolist()} "
            f"(at {user_source()})"
        )


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The sequences in the order in which they were packed, padded to the longest or to `total_length`, and their
    lengths int64[batch].

    [steps, batch, …], or [batch, steps, …] if `batch_first`.
    """
    batch_first = flag(batch_first, "pad_packed_sequence", "batch_first")
    steps = steps_of(sequence)
    longest = len(steps)
    if total_length is not None and total_length < longest:
        raise ValueError(
            f"pad_packed_sequence: total_length {total_length} is less than the longest sequence, {longest} "
            f"(at {user_source()})"
        )
    more = (total_length or longest) - longest
    padded = spread(sequence.data, steps, padding_value)
    if more:
        padding = full((more, *padded.shape[1:]), padding_value, dtype=padded.dtype)
        padded = cat([padded, padding])
    lengths = tensor(steps.sum(0))
    if sequence.unsorted_indices is not None:
        padded = padded.index_select(1, sequence.unsorted_indices)
        lengths = lengths.index_select(0, sequence.unsorted_indices)
    return padded.transpose(0, 1) if batch_first else padded, lengths


def pad_sequence(
    sequences: Tensor | Iterable[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Sequences [steps, …] of equal further sizes, padded to the longest: [longest, batch, …].

    [batch, longest, …] if `batch_first`. The padding follows each sequence, or stands before it with `padding_side`
    "left".

    >>> pb.nn.utils.rnn.pad_sequence([pb.tensor([1, 2, 3]), pb.tensor([4])], batch_first=True).tolist()
    [[1, 2, 3], [4, 0, 0]]
    """
    batch_first = flag(batch_first, "pad_sequence", "batch_first")
    if not isinstance(sequences, Iterable):
        raise TypeError(f"pad_sequence takes an iterable of tensors, got {type(sequences).__name__}")
    held = list(sequences)
    if not held or not all(isinstance(one, Tensor) and one.ndim and one.shape[1:] == held[0].shape[1:] for one in held):
        found = [list(one.shape) if isinstance(one, Tensor) else type(one).__name__ for one in held]
        raise ShapeError(
            f"pad_sequence takes at least one tensor, all [steps, …] and alike but for the steps, got {found} "
            f"(at {user_source()})"
        )
    if padding_side not in ("left", "right"):
        raise ValueError(f"padding_side must be 'left' or 'right', got {padding_side!r} (at {user_source()})")
    longest, dtype = max(len(one) for one in held), held[0].dtype
    padded = []
    for one in held:
        padding = full((longest - len(one), *one.shape[1:]), padding_value, dtype=dtype)
        both = [one.to(dtype), padding]
        padded.append(cat(both if padding_side == "right" else both[::-1]) if len(padding) else both[0])
    return stack(padded, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False
) -> list[Tensor]:
    """The first `lengths[b]` steps of each sequence of [steps, batch, …], or [batch, steps, …] if `batch_first`."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    sizes = numbers("lengths", lengths)
    if len(sizes) != len(rows):
        raise ShapeError(f"unpad_sequence: {len(sizes)} lengths for a batch of {len(rows)} (at {user_source()})")
    return [row[: max(size, 0)] for row, size in zip(rows.unbind(0), sizes, strict=True)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences [steps, …], one step of all of them after the other; they must fall in length if `enforce_sorted`.

    >>> pb.nn.utils.rnn.pack_sequence([pb.tensor([1, 2, 3]), pb.tensor([4])]).data.tolist()
    [1, 4, 2, 3]
    """
    held = list(sequences)
    padded = pad_sequence(held)
    return pack_padded_sequence(padded, [len(one) for one in held], enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences [steps, …], in the order in which they were packed."""
    steps = steps_of(packed_sequences)
    rows = spread(packed_sequences.data, steps).transpose(0, 1)
    if packed_sequences.unsorted_indices is None:
        return unpad_sequence(rows, steps.sum(0).tolist(), batch_first=True)
    order = numbers("unsorted_indices", packed_sequences.unsorted_indices)
    return unpad_sequence(rows.index_select(0, tensor(order)), steps.sum(0)[order].tolist(), batch_first=True)


__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]
