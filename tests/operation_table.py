"""The documented tables of operations, made from what they do: docs/operations.md holds what these functions print."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

import pullback as pb
from operator_database import UNDETERMINED, database, ours, samples_of, tensors_in, translated
from pullback.graph.node import Node, reachable
from pullback.ops import primitive
from pullback.tensor.handle import Handle
from pullback.tensor.random import default_generator

#: every operator that is tried with the samples of PyTorch's database
IN_SCOPE = Path(__file__).with_name("ops").joinpath("operators.txt").read_text(encoding="utf-8").split()
_DTYPES = ("bool", "uint8", "int64", "float16", "bfloat16", "float32", "float64")
#: samples of each dtype that are looked at
_SAMPLES = 2
#: samples of one dtype that are looked at where those are of nothing
_MORE_SAMPLES = 40
#: what the compiler makes of a kind of primitive, as the table calls it; other kinds are no kernels
_KERNELS = {
    primitive.ELEMENTWISE: "loop",
    primitive.REDUCTION: "reduction",
    primitive.INDEXING: "gather, scatter",
    primitive.CONTRACTION: "product",
    primitive.ATTENTION: "attention",
    primitive.SCAN: "scan",
    primitive.HOST: "**host call**",
}


class _Found(NamedTuple):
    """What samples in one dtype give: nodes that are not yet computed, or values, computed in the call."""

    nodes: list[Node]
    at_once: bool

    @property
    def kernels(self) -> list[str]:
        made = {_KERNELS[node.op.kind] for node in reachable(self.nodes, False) if node.op.kind in _KERNELS}
        return ["**at once**"] * self.at_once + sorted(made)


def _found(name: str, dtype: str, samples: int) -> _Found | None:
    """What the first few samples give; None where no tensor is in them, or the dtype is refused."""
    nodes: list[Node] = []
    at_once = is_taken = False
    for record in database()[name]:
        if getattr(torch, dtype) not in record.supported_dtypes("cpu"):
            continue
        for sample in itertools.islice(samples_of(record, getattr(torch, dtype)), samples):
            given = translated((sample.input, tuple(sample.args), dict(sample.kwargs)))
            with _reading() as read:
                try:
                    results = tensors_in(ours(name, record.variant_test_name)(given[0], *given[1], **given[2]))
                except (TypeError, ValueError, RuntimeError):  # a dtype that is refused: the table does not list it
                    return None
            before = reachable([tensor.node for tensor in tensors_in(given)], False)
            at_once |= bool(read) or any(t.node.op is primitive.BUFFER and t.node not in before for t in results)
            is_taken |= bool(results or before)
            nodes += [tensor.node for tensor in results]
    return _Found(nodes, at_once) if is_taken else None


@contextmanager
def _reading() -> Iterator[list[pb.Tensor]]:
    """The tensors whose values are read meanwhile, which computes them; the count of random draws is none."""
    read: list[pb.Tensor] = []
    buffer = Handle._buffer

    def noted(tensor: Any) -> Any:
        if tensor is not default_generator().state:
            read.append(tensor)
        return buffer(tensor)

    with patch.object(Handle, "_buffer", noted):
        yield read


def _kernels(name: str, found: dict[str, _Found]) -> list[str]:
    """What is made of the samples; of more of them where the first few, which may be empty, make nothing."""
    kernels = {kernel: None for each in found.values() for kernel in each.kernels}
    if not kernels and found:
        more = _found(name, "float32" if "float32" in found else next(iter(found)), _MORE_SAMPLES)
        return more.kernels if more else []
    return sorted(kernels)


def _row(name: str) -> str:
    found = {dtype: each for dtype in _DTYPES if (each := _found(name, dtype, _SAMPLES))}
    differentiable = "float64" in found and any(node.requires_grad for node in found["float64"].nodes)
    listed = "all" if set(found) == set(_DTYPES) else ", ".join(found) or "–"
    second = differentiable and any(record.supports_gradgrad for record in database()[name])
    tested = "values" + (", gradients" if differentiable else "") + (", second derivatives" if second else "")
    tested = "shapes, dtypes" if name in UNDETERMINED else tested
    gradient = "yes" if differentiable else "–"
    kernels = ", ".join(_kernels(name, found)) or "none"
    return f"| `{name}` | {_forms(name)} | {listed} | {gradient} | {kernels} | {tested} |"


def _forms(name: str) -> str:
    """How users reach it: as a function, as a method of tensors, in place."""
    last = name.rpartition(".")[2]
    forms = ["function"] if "." in name or callable(getattr(pb, name, None)) else []
    forms += ["method"] if "." not in name and hasattr(pb.Tensor, name) else []
    forms += ["in place"] if "." not in name and hasattr(pb.Tensor, f"{last}_") else []
    return ", ".join(forms)


def operations() -> str:
    """The table of operations in Markdown: one row for each name that PyTorch's database has too."""
    header = ["| name | as | dtypes | gradient | kernels | compared with PyTorch |", "|---|---|---|---|---|---|"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return "\n".join([*header, *map(_row, IN_SCOPE), ""])
