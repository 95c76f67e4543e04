"""The header of a safetensors file, read without trust: every number in it is checked before it is used.

A file is the header's length (8 bytes, little end first), the header (JSON: type, shape and place of each tensor, and
text under "__metadata__"), and the tensors' bytes one after another without holes:
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from ..graph.types import DType
from .stored import DTYPES, NAMES, Fault, Stored

#: the longest header, the limit of the safetensors library too
LONGEST = 100_000_000
_PREFIX = 8
_METADATA = "__metadata__"
_MOST_AXES = 64


@dataclass(frozen=True)
class Entry:
    """A tensor of a file: its first byte and the one after its last, counted from the end of the header."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """`text` is the header as it stands in the file; the entries are in the order of their places."""

    text: bytes
    metadata: dict[str, str]
    entries: list[Entry]


# ---- reading


def header_length(prefix: bytes, size: int) -> int:
    """The length of the header of a file of `size` bytes that begins with `prefix`."""
    if len(prefix) < _PREFIX:
        raise Fault(f"it ends after {len(prefix)} bytes, before its header")
    length = int.from_bytes(prefix, "little")
    if length > LONGEST:
        raise Fault(f"it says that its header has {length:,} bytes; at most {LONGEST:,} are read")
    if length > size - _PREFIX:
        raise Fault(f"it says that its header has {length:,} bytes, but has only {size - _PREFIX:,} after that")
    return length


def parse_header(text: bytes, data_bytes: int) -> Header:
    """The header of a file that has `data_bytes` after it; Fault where anything in it does not fit."""
    found = _parse_json(text, "its header")
    if not isinstance(found, dict):
        raise Fault("its header is no JSON object")
    metadata = found.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Fault(f"its {_METADATA} is no JSON object of strings")
    entries = sorted((_entry(name, fields) for name, fields in found.items()), key=lambda e: (e.start, e.stop))
    _check_places(entries, data_bytes)
    return Header(text, metadata, entries)


def parse_description(text: str) -> Any:
    """What the JSON of a description says."""
    return _parse_json(text.encode("utf-8", "surrogatepass"), "its description")


def _parse_json(text: bytes, what: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
    except RecursionError:
        raise Fault(f"{what} is nested too deep") from None
    except ValueError as error:
        raise Fault(f"{what} is not JSON ({error})") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Fault(f"it has the key {double!r} twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise Fault(f"it has {name} where JSON has numbers")


def astray(name: str) -> str:
    """How a tensor's name, taken for a path by a program that unpacks tensors into files, leaves its folder; empty
    where it does not.
    """
    first, *rest = name.replace("\\", "/").split("/")
    if ".." in (first, *rest):
        return "a path that climbs"
    return "a path from the root" if rest and (not first or re.fullmatch("[A-Za-z]:", first)) else ""


def _entry(name: str, fields: Any) -> Entry:
    if how := astray(name):
        raise Fault(f"it has a tensor called {_short(name)}, {how}")
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise Fault(f"the tensor {name!r} is not given by its dtype, shape and data_offsets alone")
    dtype, shape, places = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise Fault(f"the tensor {name!r} has the type {dtype!r}; known are {', '.join(DTYPES)}")
    if not _are_counts(shape) or len(shape) > _MOST_AXES:
        raise Fault(f"the tensor {name!r} has the shape {_short(shape)}")
    if not _are_counts(places) or len(places) != 2 or places[0] > places[1]:
        raise Fault(f"the tensor {name!r} has the data_offsets {_short(places)}")
    itemsize = DTYPES[dtype].itemsize
    if math.prod(max(size, 1) for size in shape) * itemsize >= 2**63:
        raise Fault(f"the tensor {name!r} has the shape {_short(shape)}, which no memory holds")
    needed = math.prod(shape) * itemsize
    if places[1] - places[0] != needed:
        raise Fault(f"the tensor {name!r} has {places[1] - places[0]:,} bytes, but {dtype}{shape} has {needed:,}")
    return Entry(name, DTYPES[dtype], tuple(shape), places[0], places[1])


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _check_places(entries: list[Entry], data_bytes: int) -> None:
    """Raise Fault unless the entries fill the data from its first byte to its last, one after another."""
    end, before = 0, None
    for entry in entries:
        if entry.start < end and before is not None:
            raise Fault(f"the tensors {before.name!r} and {entry.name!r} overlap")
        if entry.start > end:
            raise Fault(f"the bytes {end:,} to {entry.start:,} of its data belong to no tensor")
        end, before = entry.stop, entry
    if end != data_bytes:
        what = "are missing" if end > data_bytes else "follow its last tensor"
        raise Fault(
            f"its tensors have {end:,} bytes, but the file has {data_bytes:,}: {abs(end - data_bytes):,} {what}"
        )


# ---- writing


def make_header(arrays: dict[str, Stored], metadata: dict[str, str]) -> bytes:
    """The header's length and the header, for arrays that follow it in the order of the dictionary."""
    fields: dict[str, Any] = {_METADATA: metadata}
    start = 0
    for name, stored in arrays.items():
        stop = start + stored.flat.nbytes
        fields[name] = {"dtype": NAMES[stored.dtype], "shape": list(stored.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    # so that the data begin at a multiple of the largest element
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST:
        raise ValueError(f"the header would have {len(text):,} bytes; at most {LONGEST:,} can be read again")
    return len(text).to_bytes(_PREFIX, "little") + text


__all__ = ["LONGEST", "Entry", "Header", "astray", "header_length", "make_header", "parse_description", "parse_header"]
