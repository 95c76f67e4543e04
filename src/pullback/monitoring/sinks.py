"""Sinks: where records go."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from .histograms import Histogram
from .record import Record


class Sink(Protocol):
    """Takes the records of a monitor, one after the other."""

    def write(self, record: Record) -> None:
        """Take a record."""

    def close(self) -> None:
        """Take no more."""


class Called:
    """Gives each record to a function."""

    def __init__(self, function: Callable[[Record], object]):
        self.function = function

    def write(self, record: Record) -> None:
        """See `Sink`."""
        self.function(record)

    def close(self) -> None:
        """See `Sink`."""


class JSONLines:
    """Appends each record to a file, as an object on a line of its own: {"step": 1, "loss": …, "gradient/…/norm": …}.

    Lines are whole after each record, so that the file can be followed and outlives the process. Folders that are not
    there are made.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        """See `Sink`."""
        self._file.write(json.dumps(record.to_dict(), allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """See `Sink`."""
        self._file.close()


class Terminal:
    """Prints for each record the loss, the norm and alerts, and every `table` records (0: never) a line a layer.

    Needs rich, which is installed with the package.
    """

    def __init__(self, table: int = 10):
        from rich.console import Console

        self.table, self._count, self._console = table, 0, Console()

    def write(self, record: Record) -> None:
        """See `Sink`."""
        self._count += 1
        loss = "no loss" if record.loss is None else f"loss {record.loss:.4g}"
        norm = "" if record.gradient_norm is None else f", gradient norm {record.gradient_norm:.3g}"
        skipped = ", skipped" if record.skipped else ""
        self._console.print(f"step {record.step}: {loss}{norm}{skipped}", highlight=False)
        for alert in record.alerts:
            self._console.print(str(alert), style="yellow", markup=False, highlight=False)
        if self.table and (self._count - 1) % self.table == 0:
            self._console.print(table_of(record))

    def close(self) -> None:
        """See `Sink`."""


def table_of(record: Record) -> Any:
    """The layers of a record as a table of rich."""
    from rich.table import Table

    table = Table(title=f"step {record.step}", title_justify="left")
    for column in ("layer", "kind", "activation", "largest", "saturated", "dead", "gradient"):
        table.add_column(column, justify="left" if column in ("layer", "kind") else "right")
    for name, layer in record.layers.items():
        a = layer.activation
        spread = f"{a.mean:.2g} ± {a.std:.2g}" if a is not None else ""
        largest = f"{a.largest:.2g}" if a is not None else ""
        table.add_row(
            name, layer.kind, spread, largest, _percent(layer.saturated), _percent(layer.dead),
            "" if layer.gradient_norm is None else f"{layer.gradient_norm:.2g}",
        )  # fmt: skip
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


class TensorBoard:
    """Writes scalars and histograms to a directory that TensorBoard reads. Needs the package `tensorboard`."""

    def __init__(self, directory: str | os.PathLike[str]):
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise ImportError(
                "the TensorBoard sink needs the package tensorboard: pip install 'pullback[tensorboard]'"
            ) from None
        self._events, self._summaries = event_pb2, summary_pb2
        self._writer = EventFileWriter(os.fspath(directory))

    def write(self, record: Record) -> None:
        """See `Sink`."""
        value = self._summaries.Summary.Value
        found = [value(tag=name, simple_value=number) for name, number in record.scalars().items()]
        for name, of_name in record.histograms.items():
            for what, histogram in of_name.items():
                found.append(value(tag=f"{what}s/{name}", histo=self._histogram(histogram)))
        if record.alerts:
            found.append(self._text("alerts", "\n\n".join(map(str, record.alerts))))
        event = self._events.Event(
            wall_time=time.time(), step=record.step, summary=self._summaries.Summary(value=found)
        )
        self._writer.add_event(event)
        self._writer.flush()

    def _histogram(self, histogram: Histogram) -> Any:
        """As the protocol has it: the upper ends of bins; sums from the middles of bins."""
        middles = [(a + b) / 2 for a, b in pairwise(histogram.edges)]
        pairs = list(zip(middles, histogram.counts, strict=True))
        return self._summaries.HistogramProto(
            min=histogram.minimum, max=histogram.maximum, num=sum(histogram.counts),
            sum=math.fsum(m * c for m, c in pairs), sum_squares=math.fsum(m * m * c for m, c in pairs),
            bucket_limit=histogram.edges[1:], bucket=histogram.counts,
        )  # fmt: skip

    def _text(self, tag: str, text: str) -> Any:
        from tensorboard.compat.proto import tensor_pb2, types_pb2

        plugin = self._summaries.SummaryMetadata.PluginData(plugin_name="text")
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[text.encode()])
        metadata = self._summaries.SummaryMetadata(plugin_data=plugin)
        return self._summaries.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)

    def close(self) -> None:
        """See `Sink`."""
        self._writer.close()


def opened(sink: Any) -> Sink:
    """The sink that is meant: "terminal", a path that ends with .jsonl, a function, or a sink itself."""
    if sink == "terminal":
        return Terminal()
    if isinstance(sink, (str, os.PathLike)):
        if not os.fspath(sink).endswith(".jsonl"):
            raise ValueError(
                f'a sink is "terminal", a path that ends with .jsonl, a function, or an object with write(record); got '
                f"{os.fspath(sink)!r}. For TensorBoard give pb.monitoring.TensorBoard(directory)."
            )
        return JSONLines(sink)
    if hasattr(sink, "write"):
        return sink if hasattr(sink, "close") else Called(sink.write)
    if callable(sink):
        return Called(sink)
    raise TypeError(f"a sink is a path, a function, or has write(record); got {type(sink).__name__}")


__all__ = ["Called", "JSONLines", "Sink", "TensorBoard", "Terminal", "opened", "table_of"]
