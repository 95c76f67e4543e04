"""Datasets in files: windows of a long row of tokens, and tables of Arrow and Parquet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import from_numpy
from .dataset import Dataset


class TokenFile(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Windows of a file of tokens, which is mapped into memory and never read as a whole.

    Example i is a window of `length` tokens that begins at token `i * stride` (one after another unless `stride` is
    given), and the same a token later: int64 arrays [length]. The file holds numbers of `dtype` and nothing else, or is
    a NumPy file (.npy) of one axis, whose own dtype is taken.

    >>> np.arange(10, dtype=np.uint16).tofile("tokens.bin")
    >>> tokens = pb.utils.data.TokenFile("tokens.bin", np.uint16, length=4)
    >>> len(tokens), tokens[1]
    (2, (array([4, 5, 6, 7]), array([5, 6, 7, 8])))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dtype: Any = np.uint16,
        length: int = 1024,
        stride: int | None = None,
    ):
        self.path, self.dtype, self.length = Path(path), np.dtype(dtype), length
        self.stride = length if stride is None else stride
        for name, value in (("length", length), ("stride", self.stride)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"TokenFile: {name} must be a positive int, got {value!r} (at {user_source()})")
        self._tokens = self._mapped()
        if len(self._tokens) <= length:
            raise ValueError(
                f"TokenFile: {self.path} has {len(self._tokens)} tokens, but a window of {length} and the token after "
                f"it need {length + 1} (at {user_source()})"
            )

    def _mapped(self) -> np.ndarray:
        if self.path.suffix == ".npy":
            tokens = np.load(self.path, mmap_mode="r", allow_pickle=False)
        else:
            size = self.path.stat().st_size
            if size == 0 or size % self.dtype.itemsize:
                raise ValueError(
                    f"TokenFile: {self.path} has {size} bytes, no whole number of {self.dtype} (at {user_source()})"
                )
            tokens = np.memmap(self.path, self.dtype, "r")
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise ValueError(
                f"TokenFile: {self.path} holds {tokens.dtype}{list(tokens.shape)}, not a row of whole numbers "
                f"(at {user_source()})"
            )
        return tokens

    def __getstate__(self) -> dict[str, Any]:
        """A worker process maps the file itself."""
        return {**vars(self), "_tokens": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._tokens = self._mapped()

    def __len__(self) -> int:
        return (len(self._tokens) - self.length - 1) // self.stride + 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {self.path}, which has {len(self)}")
        start = index % len(self) * self.stride
        window = self._tokens[start : start + self.length + 1].astype(np.int64)
        return window[:-1], window[1:]

    def _batch(self, numbers: np.ndarray) -> list[Tensor]:
        starts = _within(numbers, len(self), f"window {{}} of {self.path}, which has {{}}") * self.stride
        windows = self._tokens[starts[:, None] + np.arange(self.length + 1)].astype(np.int64)
        return [from_numpy(np.ascontiguousarray(part)) for part in (windows[:, :-1], windows[:, 1:])]


class TableDataset(Dataset[dict[str, Any]]):
    """The rows of an Arrow table (pyarrow.Table or RecordBatch), as dicts by column: numbers, lists of them (of a fixed
    size or not, nested too) and tensors of a fixed shape as NumPy has them, text as str, binary as bytes. A batch has a
    tensor a column, and a list for text and bytes; the lists of a batch must have one length, unless the loader has a
    `collate_fn`.

    A loader makes one by itself of a table. Columns with missing values raise ValueError when they are read.
    """

    def __init__(self, table: Any):
        if type(table).__name__ == "RecordBatch":
            import pyarrow

            table = pyarrow.Table.from_batches([table])
        self.table = _plain(table)

    @classmethod
    def of(cls, tables: Sequence[Any]) -> TableDataset:
        """The rows of several tables of the same columns, one after the other."""
        import pyarrow

        return cls(pyarrow.concat_tables([cls(table).table for table in tables]))

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> TableDataset:
        """The rows of a Parquet file, of the given columns. It needs pyarrow (`pip install 'pullback[arrow]'`)."""
        try:
            from pyarrow import parquet
        except ImportError:
            raise ImportError("Parquet files are read by pyarrow: pip install 'pullback[arrow]'") from None
        try:
            return cls(parquet.read_table(path, columns=None if columns is None else list(columns), memory_map=True))
        except ValueError:
            known = parquet.ParquetDataset(path).schema.names
            missing = [name for name in columns or () if name not in known and name.partition(".")[0] not in known]
            if not missing:
                raise
            raise ValueError(
                f"from_parquet: {os.fspath(path)} has no column {missing[0]!r}, only {', '.join(map(repr, known))} "
                f"(at {user_source()})"
            ) from None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of a table of {len(self)}")
        row = self.table.slice(index % len(self), 1)
        return {name: values[0] for name, values in self._columns(row)}

    def _batch(self, numbers: np.ndarray) -> dict[str, Any]:
        rows = self._taken(_within(numbers, len(self), "row {} of a table of {}"))
        return {
            name: from_numpy(values) if isinstance(values, np.ndarray) else values
            for name, values in self._columns(rows)
        }

    def _taken(self, numbers: np.ndarray) -> Any:
        try:
            return self.table.take(numbers)
        except NotImplementedError:
            for name, column in zip(self.table.column_names, self.table.columns, strict=True):
                try:
                    column.take(numbers)
                except NotImplementedError:
                    raise ValueError(_UNFIT.format(name, column.type)) from None
            raise

    def _columns(self, rows: Any) -> list[tuple[str, Any]]:
        return [(name, _values(name, column)) for name, column in zip(rows.column_names, rows.columns, strict=True)]


#: Arrow takes no rows from these, and from those that they are made into
_PLAIN = {"string_view": "large_string", "binary_view": "large_binary"}


def _plain(table: Any) -> Any:
    """The table with views of text and runs of equal values as columns that rows can be taken from."""
    for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        kind = str(column.type)
        if kind in _PLAIN:
            table = table.set_column(place, name, column.cast(_PLAIN[kind]))
        elif kind.startswith("run_end_encoded"):
            from pyarrow import compute

            table = table.set_column(place, name, compute.run_end_decode(column))
    return table


def _within(numbers: np.ndarray, count: int, what: str) -> np.ndarray:
    """The numbers counted from the beginning; IndexError where one is no number of `count` things."""
    outside = numbers[(numbers < -count) | (numbers >= count)]
    if outside.size:
        raise IndexError(what.format(outside[0], count))
    return numbers % max(count, 1)


def _values(name: str, column: Any) -> np.ndarray | list[Any]:
    """A column as an array, its rows along the first axis, or a list of text."""
    if column.null_count:
        raise ValueError(_MISSING.format(name))
    kind = str(column.type)
    if kind.startswith("dictionary"):
        column = column.cast(column.type.value_type)
        kind = str(column.type)
    if kind in _AS_THEY_ARE:
        return list(column.to_pylist())
    return np.ascontiguousarray(_numbers(name, column.combine_chunks()))


#: how Arrow calls what has no array of numbers
_AS_THEY_ARE = ("string", "large_string", "binary", "large_binary")
_UNFIT = "the column {!r} is of {}: numbers, lists of numbers, text and binary are taken"
_MISSING = "the column {!r} has missing values: fill or drop them first"


def _numbers(name: str, array: Any) -> np.ndarray:
    """The numbers of an array, and of lists of them, which have an axis of their own."""
    kind = str(array.type)
    if array.null_count:
        raise ValueError(_MISSING.format(name))
    if kind.startswith("extension<arrow.fixed_shape_tensor"):
        return np.asarray(array.to_numpy_ndarray())
    if kind.startswith(("fixed_size_list", "list", "large_list")):
        inner = _numbers(name, array.flatten())
        lengths = np.unique(array.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise ValueError(
                f"the column {name!r} has lists of {lengths[0]} to {lengths[-1]} numbers in one batch: pad them in a "
                "collate_fn"
            )
        return inner.reshape(len(array), int(lengths[0]) if len(lengths) else 0, *inner.shape[1:])
    try:
        values: np.ndarray = array.to_numpy(zero_copy_only=False)
    except NotImplementedError:
        raise ValueError(_UNFIT.format(name, kind)) from None
    if values.dtype.kind not in "biuf":
        raise ValueError(_UNFIT.format(name, kind))
    return values


def is_table(dataset: Any) -> bool:
    """Whether that is an Arrow table, without importing its library."""
    kind = type(dataset)
    return kind.__name__ in ("Table", "RecordBatch") and kind.__module__.partition(".")[0] == "pyarrow"


__all__ = ["TableDataset", "TokenFile", "is_table"]
