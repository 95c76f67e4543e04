"""The documented tables of operations, made from what they do: docs/operations.md holds what these functions print."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import torch

import pullback as pb
from operator_database import UNDETERMINED, database, ours, samples_of, tensors_in, translated
from pullback.graph.node import Node, reachable
from pullback.ops import primitive

#: every operator that is tried with the samples of PyTorch's database
IN_SCOPE = Path(__file__).with_name("ops").joinpath("operators.txt").read_text(encoding="utf-8").split()
_DTYPES = ("bool", "uint8", "int64", "float16", "bfloat16", "float32", "float64")
#: samples of each dtype that are looked at
_SAMPLES = 2
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


def _results(name: str, dtype: str) -> list[Node]:
    """What the first few samples in `dtype` give, not yet computed."""
    nodes: list[Node] = []
    for record in database()[name]:
        if getattr(torch, dtype) not in record.supported_dtypes("cpu"):
            continue
        for sample in itertools.islice(samples_of(record, getattr(torch, dtype)), _SAMPLES):
            first, args, kwargs = translated((sample.input, tuple(sample.args), dict(sample.kwargs)))
            try:
                nodes += [
                    tensor.node for tensor in tensors_in(ours(name, record.variant_test_name)(first, *args, **kwargs))
                ]
            except (TypeError, ValueError, RuntimeError):  # a dtype that is refused: the table does not list it
                return []
    return nodes


def _row(name: str) -> str:
    found = {dtype: nodes for dtype in _DTYPES if (nodes := _results(name, dtype))}
    kinds = {_KERNELS[n.op.kind] for nodes in found.values() for n in reachable(nodes, False) if n.op.kind in _KERNELS}
    differentiable = any(node.requires_grad for node in found.get("float64", ()))
    listed = "all" if set(found) == set(_DTYPES) else ", ".join(found) or "–"
    second = differentiable and any(record.supports_gradgrad for record in database()[name])
    tested = "values" + (", gradients" if differentiable else "") + (", second derivatives" if second else "")
    tested = "shapes, dtypes" if name in UNDETERMINED else tested
    gradient = "yes" if differentiable else "–"
    return f"| `{name}` | {_forms(name)} | {listed} | {gradient} | {', '.join(sorted(kinds)) or 'none'} | {tested} |"


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
