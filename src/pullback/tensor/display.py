"""A tensor as text, by the rules of PyTorch's, and `set_printoptions`, which changes some of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.types import bool_, int64, to_carrier
from ..ops.primitive import user_source
from .promotion import get_default_dtype

if TYPE_CHECKING:
    from .handle import Handle


@dataclass(frozen=True)
class Options:
    """Digits behind the point; the elements from which on only `edgeitems` at both ends of each axis are written; the
    characters of a line; and whether numbers are written with exponents (None: where they differ much in size)."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES = {
    "default": Options(),
    "short": Options(precision=2, edgeitems=2),
    "full": Options(threshold=math.inf),
}
_chosen = [Options()]
_HEAD = "tensor("


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """How tensors are written from now on: a `profile` ("default", "short" or "full"), and what differs from it.

    >>> pb.set_printoptions(precision=2)
    >>> pb.tensor([1.2345])
    tensor([1.23])
    >>> pb.set_printoptions(profile="default")
    """
    if profile is not None and profile not in _PROFILES:
        raise ValueError(
            f"set_printoptions: the profiles are {', '.join(_PROFILES)}, got {profile!r} (at {user_source()})"
        )
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None and not (isinstance(value, (int, float)) and value >= 0):
            raise ValueError(f"set_printoptions: {name} must not be negative, got {value!r} (at {user_source()})")
    begun = _chosen[0] if profile is None else _PROFILES[profile]
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _chosen[0] = replace(begun, sci_mode=sci_mode, **changed)


def describe(tensor: Handle) -> str:
    """`tensor([1., 2.], requires_grad=True)`; inside a trace, where there is no value, dtype and shape."""
    from .state import STATE

    if STATE.trace is not None:
        return f"<traced tensor {tensor.dtype.name}{list(tensor.shape)}>"
    options = _chosen[0]
    values = to_carrier(tensor._array(), tensor.dtype)
    notes = []
    if values.size == 0:
        body = "[]"
        if values.ndim != 1:
            notes.append(f"size={tuple(tensor.shape)}")
        usual = tensor.dtype is get_default_dtype()
    else:
        body = _Writer(values, options).written(values, len(_HEAD))
        usual = tensor.dtype in (get_default_dtype(), int64, bool_)
    if not usual:
        notes.append(f"dtype={tensor.dtype!r}")
    if tensor.requires_grad:
        notes.append("requires_grad=True" if tensor.is_leaf else f"grad_fn=<{tensor._node.op.name}>")
    return _joined(_HEAD + body, notes, options.linewidth) + ")"


def _joined(text: str, notes: list[str], linewidth: int) -> str:
    """What stands behind the elements, on a line of its own where it would be too long."""
    length = len(text) - text.rfind("\n") + 1
    for note in notes:
        if length + len(note) + 2 > linewidth:
            text += ",\n" + " " * len(_HEAD) + note
            length = len(_HEAD) + len(note)
        else:
            text += ", " + note
            length += len(note) + 2
    return text


class _Writer:
    """Writes the elements of one array, all in one form and width."""

    def __init__(self, values: np.ndarray, options: Options):
        self.options = options
        self.shortened = values.size > options.threshold
        seen = _ends(values, options.edgeitems) if self.shortened else values
        self.form = _form(seen, options) if values.dtype.kind == "f" else str
        # infinities, NaN and zeros among floats take the width that the others have
        flat = seen.reshape(-1)
        wide = flat[np.isfinite(flat) & (flat != 0)] if values.dtype.kind == "f" else flat
        self.width = max((len(self.form(value)) for value in wide.tolist()), default=1)

    def written(self, values: np.ndarray, indent: int) -> str:
        """The array in brackets, its further lines indented."""
        if values.ndim == 0:
            return self._element(values.item())
        edge = self.options.edgeitems
        cut = self.shortened and len(values) > 2 * edge
        shown = [*values[:edge], *values[len(values) - edge :]] if cut else list(values)
        if values.ndim == 1:
            parts = [self._element(value.item()) for value in shown]
            gap, count = " ...", max(1, (self.options.linewidth - indent) // (self.width + 2))
        else:
            parts = [self.written(part, indent + 1) for part in shown]
            gap, count = "...", 1
        if cut:
            parts.insert(edge, gap if edge else "...")
        lines = [", ".join(parts[start : start + count]) for start in range(0, len(parts), count)]
        break_ = "," + "\n" * max(1, values.ndim - 1) + " " * (indent + 1)
        return "[" + break_.join(lines) + "]"

    def _element(self, value: Any) -> str:
        return self.form(value).rjust(self.width)


def _ends(values: np.ndarray, edge: int) -> np.ndarray:
    """The elements that are shown of an array too large to be shown whole."""
    for axis, size in enumerate(values.shape):
        if size > 2 * edge:
            values = np.take(values, [*range(edge), *range(size - edge, size)], axis)
    return values


def _form(values: np.ndarray, options: Options) -> Any:
    """How floats are written: whole numbers with a point, or digits behind it, or with exponents."""
    flat = values.reshape(-1).astype(np.float64)
    known = np.abs(flat[np.isfinite(flat) & (flat != 0)])
    whole = bool(np.all(known == np.ceil(known)))
    exponents = options.sci_mode
    if not known.size:
        exponents = False
    elif exponents is None:
        low, high = float(known.min()), float(known.max())
        exponents = high / low > 1000.0 or high > 1e8 or low < 1e-4
    if exponents:
        return lambda value: f"{value:.{options.precision}e}"
    if whole:
        return lambda value: f"{value:.0f}" + ("." if math.isfinite(value) else "")
    return lambda value: f"{value:.{options.precision}f}"


__all__ = ["describe", "set_printoptions"]
