"""Examples as batches, as PyTorch's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ShapeError
from ...graph.types import float64
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import as_tensor, tensor
from ...tensor.joining import stack
from .files import TableDataset, is_table


def default_collate(batch: Sequence[Any]) -> Any:
    """Examples as one batch: tensors (of other libraries too), arrays and numbers stacked; mappings, named tuples and
    sequences part by part, strings as a list; Arrow tables, as those of a stream have one row each, column by column.
    Python's floats become float64, and tuples lists, as in PyTorch. Raises TypeError where a value is missing (None) or
    of another kind, ShapeError where parts are not alike.

    >>> pb.utils.data.default_collate([(0, pb.zeros(2)), (1, pb.ones(2))])[0]
    tensor([0, 1])
    """
    return _collated(batch, "")


def _collated(batch: Sequence[Any], place: str) -> Any:
    """The same of what stands in each example at a place, such as "['x'][0]"."""
    first = batch[0]
    missing = next((number for number, item in enumerate(batch) if item is None), None)
    if missing is not None:
        raise TypeError(
            f"default_collate: a value is missing: example {missing} of the batch has None{place and f' in {place}'} "
            f"(at {user_source()}); fill it, leave the example out, or pass collate_fn"
        )
    if is_table(first):
        return TableDataset.of(batch)._batch(np.arange(sum(table.num_rows for table in batch)))
    if isinstance(first, Tensor):
        return stack(list(batch))
    if isinstance(first, np.ndarray):
        return as_tensor(_stacked(batch))
    if hasattr(first, "__dlpack__"):  # a tensor of another library
        return stack([tensor(item) for item in batch])
    if isinstance(first, np.generic) and first.dtype.kind not in "US":
        return as_tensor(np.asarray(batch))
    if isinstance(first, float):
        return tensor(list(batch), dtype=float64)
    if isinstance(first, int):
        return tensor(list(batch))
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, Mapping):
        return _like(first, {key: _collated([item[key] for item in batch], f"{place}[{key!r}]") for key in first})
    if isinstance(first, Sequence):
        if any(len(item) != len(first) for item in batch):
            raise ShapeError(
                f"default_collate: each example of a batch should have equally many parts, got "
                f"{sorted({len(item) for item in batch})} (at {user_source()}); pass collate_fn"
            )
        parts = [_collated(part, f"{place}[{number}]") for number, part in enumerate(zip(*batch, strict=True))]
        return type(first)(*parts) if hasattr(first, "_fields") else parts
    raise TypeError(
        f"default_collate does not take {type(first).__name__} (at {user_source()}): it takes tensors, arrays, "
        "numbers, strings, and mappings and sequences of them; pass collate_fn"
    )


def default_convert(data: Any) -> Any:
    """One example with its arrays as tensors: what a loader gives where it makes no batches."""
    if is_table(data):
        return TableDataset(data)._batch(np.arange(data.num_rows))
    if isinstance(data, (np.ndarray, np.generic)):
        return as_tensor(np.asarray(data)) if data.dtype.kind not in "USO" else data
    if hasattr(data, "__dlpack__") and not isinstance(data, Tensor):
        return tensor(data)
    if isinstance(data, Mapping):
        return _like(data, {key: default_convert(item) for key, item in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(item) for item in data))
    if isinstance(data, (list, tuple)):
        return [default_convert(item) for item in data]
    return data


def _stacked(batch: Sequence[np.ndarray]) -> np.ndarray:
    shapes = sorted({array.shape for array in batch})
    if len(shapes) > 1:
        raise ShapeError(
            f"default_collate: arrays of a batch must have one shape, got {[list(shape) for shape in shapes]} "
            f"(at {user_source()}); pass collate_fn"
        )
    return np.stack(batch)


def _like(first: Mapping[Any, Any], made: dict[Any, Any]) -> Any:
    """A mapping of the class of the first example where that can be made of a dict."""
    if type(first) is dict:
        return made
    try:
        return type(first)(made)  # type: ignore[call-arg]
    except TypeError:
        return made


__all__ = ["default_collate", "default_convert"]
