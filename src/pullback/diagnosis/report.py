"""NonFiniteError from what was found: the statistics of operands, the line, the module, and the message."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import NonFiniteError
from ..graph.node import Node, Source
from ..ops.primitive import ALIAS, path_of
from .causes import Cause

if TYPE_CHECKING:
    from .origin import Fault, Finding

_UNKNOWN = Cause(
    "the native code gave a value that is not finite where the reference gives one",
    "the two round differently: look for numbers near the end of the range, for differences of numbers that are nearly "
    "equal, and for operands at the edge of where the operation is defined, which clamp() keeps inside",
)
_DATA = Cause("is NaN in the data already", "look at where the data comes from, or replace it by nan_to_num() first")
_WEIGHT = Cause(
    "is NaN already, before the step",
    "look for what has written it (an initialization, a file, an update that nobody looked at), and load a good state",
)
_INFINITE = Cause(
    "holds an infinity already",
    "look at where it comes from, or replace it by nan_to_num() first; let what is masked out have no part in the loss",
)
_UNNAMED = "a tensor from outside"
_ON_PURPOSE = Cause("an infinity that was put in on purpose reached it", "let what is masked out have no part in it")
_UNTOLD = Cause("made of finite operands", "look at the operands")


class OperandStatistics(NamedTuple):
    """What an operand of the operation that is named by NonFiniteError held: `name` is what it is called, or the
    operation that made it; `minimum`, `maximum` and `mean` are of its finite elements (NaN where there are none);
    `nans` and `infinities` count the others.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    minimum: float
    maximum: float
    mean: float
    nans: int
    infinities: int

    def __str__(self) -> str:
        others = [f"{count} {what}" for count, what in ((self.nans, "NaN"), (self.infinities, "infinite")) if count]
        told = f"{self.name}: {self.dtype}{list(self.shape)}, "
        if not math.isnan(self.mean):
            told += f"{self.minimum:.4g} to {self.maximum:.4g}, mean {self.mean:.4g}, "
        return told + (" and ".join(others) or "all finite")


def statistics(name: str, node: Node, value: Any) -> OperandStatistics:
    """What an operand holds. Loops, which have several results, count as having no elements."""
    array = value if isinstance(value, np.ndarray) else np.zeros(0, np.float32)
    floating = array.dtype.kind == "f"
    finite = array[np.isfinite(array)] if floating else array
    low, high, mean = (math.nan,) * 3
    if finite.size:
        low, high, mean = float(finite.min()), float(finite.max()), float(finite.mean(dtype=np.float64))
    nans, infinities = (int(np.isnan(array).sum()), int(np.isinf(array).sum())) if floating else (0, 0)
    return OperandStatistics(name or _maker(node), node.shape, node.dtype.name, low, high, mean, nans, infinities)


def _maker(node: Node) -> str:
    """What made the value of a node."""
    while node.op.kind == ALIAS and not is_given(node):
        node = node.inputs[0]
    return called(node)


def is_given(node: Node) -> bool:
    """Whether the value was there before: it may have a NaN in it from the beginning."""
    return node.buffer is not None or node.op.name in ("buffer", "input", "parameter")


def called(node: Node) -> str:
    """What the user called that made the node."""
    source = node.source
    return _without_backward(source.operation) if source is not None and source.operation else node.op.name


def _without_backward(operation: str) -> str:
    return operation.removesuffix("backward").strip()


def phase_of(source: Source | None) -> str:
    """Which part of a training step an operation belongs to."""
    if source is None:
        return "forward"
    if source.operation.startswith("optimizer."):
        return "update"
    return "backward" if source.is_backward else "forward"


def report(
    what: str,
    message: str,
    fault: Fault,
    name_of: Callable[[Node], str],
    step: int,
    phase: str = "",
    infinite: Sequence[Node] = (),
) -> NonFiniteError:
    """The error for a fault: the operation that made it or, where it is data, that was the first to read it. `phase` is
    told where it is not that of the line; `infinite` is the data with infinities that the operation made it of.
    """
    node, finding, reader, times = fault
    is_data = not finding.made and (finding.nan or (is_given(node) and not finding.fault))
    told = node if finding.made or reader is None else reader
    source = told.source
    found = finding.cause or _without_cause(node, finding, is_data)
    how = f"{name_of(node) or _UNNAMED} {found.how}" if is_data else found.how
    names = list(dict.fromkeys(name_of(data) or _UNNAMED for data in infinite))
    given = (
        f"; {' and '.join(names)} {_INFINITE.how if len(names) == 1 else 'hold infinities already'}" if names else ""
    )
    op, module, phase = called(told) or told.op.name, path_of(source), phase or phase_of(source)
    value = "NaN" if finding.nan else "an infinity"
    lines = [f"{_subject(what, message)} is not finite{f' at call {step} of the step' if step else ''}: {how}{given}."]
    place = f" at {source}" if source is not None else ""
    inside = f" in {module}" if module else ""
    primitive = f" ({told.op.name})" if told.op.name != op else ""
    verb = "first read by" if told is not node else f"{value} first made by"
    lines.append(
        f"{verb} {op}{primitive}{place}{inside}{_in_steps(times)}, in the {phase}{'' if phase == 'update' else ' pass'}"
    )
    if any(size > 1 for size in node.shape):
        lines.append(f"    the first {'in the data' if is_data else 'of the result'} at {list(finding.index)}")
    lines += [f"    operand {operand}" for operand in finding.operands]
    lines.append(f"{'State is as it was before the step. ' if step else ''}To mend it: {found.mend}.")
    return NonFiniteError(
        "\n".join(lines), op=op, primitive=told.op.name, filename=source.file if source else "",
        lineno=source.line if source else 0, module=module, phase=phase, step=step,
        operands=tuple(finding.operands), how=how, times=times,
        index=finding.index,
    )  # fmt: skip


def _held(names: list[str]) -> str:
    return f"{' and '.join(names)} {_INFINITE.how if len(names) == 1 else 'hold infinities already'}"


def _without_cause(node: Node, finding: Finding, is_data: bool) -> Cause:
    """What is said of what no operation here has made, or of what cannot be told."""
    if is_data and not finding.nan:
        return _INFINITE
    if is_data:
        return _WEIGHT if node.requires_grad else _DATA
    if finding.made:
        return _UNTOLD
    return _UNKNOWN if finding.fault else _ON_PURPOSE


def _in_steps(times: tuple[int, ...]) -> str:
    """Which steps of loops, the outermost first."""
    if not times:
        return ""
    return f" at step {', '.join(map(str, times))} of the loop{'s around it' if len(times) > 1 else ''}"


def _subject(what: str, message: str) -> str:
    if what == "check":
        return f"check_numerics: {message}" if message else "a checked value"
    if what == "update":
        return f"the new value of {message}" if message else "a new value"
    if what == "gradient":
        return f"a gradient, {message}," if message else "a gradient"
    return "the loss" if what == "loss" else "a value"


__all__ = ["OperandStatistics", "called", "is_given", "phase_of", "report", "statistics"]
