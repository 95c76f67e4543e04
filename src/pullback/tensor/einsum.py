"""Sums of products by index labels: einsum and tensordot, two operands at a time, each pair one matrix product.

Axes are named by numbers. An operand's repeated label is its diagonal; a label that no other operand and not the result
has is summed at once; what two operands share is the inner axis of a product, or a batch axis where it is still needed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DTypeError, ShapeError
from ..graph.types import int64
from ..ops.contraction import matmul as matmul_nodes
from ..ops.movement import permute, reshape
from ..ops.primitive import user_source
from .autocast_mode import lowered
from .handle import Handle
from .reductions import normalize_axis

if TYPE_CHECKING:
    from . import Tensor

#: labels from here on stand for the axes of an ellipsis, counted from the last
_ELLIPSIS = 1000


class Term(NamedTuple):
    """An operand and the label of each of its axes, none twice."""

    tensor: Any
    labels: tuple[int, ...]


def einsum(*args: Any) -> Tensor:
    """The sum of products that an equation such as "bij,bjk->bik" describes.

    Letters name axes; one that is repeated in an operand takes its diagonal, one that the result lacks is summed.
    Without "->" the result has the letters that occur once, in order, after the axes of an ellipsis. Operands may also
    alternate with lists of numbers that name their axes, a last list naming the result's. Axes of size 1 broadcast.
    Of more than two operands the pair whose product grows least comes first.

    >>> pb.einsum("ij,j->i", pb.ones(2, 3), pb.arange(3.0))
    tensor([3., 3.])
    """
    terms, result = _by_string(args) if args and isinstance(args[0], str) else _by_lists(args)
    tensors = [t.tensor for t in terms]
    if not all(t.is_floating_point() for t in tensors):  # of floats each product says what it takes
        _check_one_dtype("einsum", tensors)
    return contract("einsum", [_diagonal(term) for term in terms], result)


def _check_one_dtype(name: str, tensors: Sequence[Any]) -> None:
    if len({t.dtype for t in tensors}) > 1:
        raise DTypeError(
            f"{name}: operands have dtypes {', '.join(t.dtype.name for t in tensors)} (at {user_source()}); convert "
            "with .to(dtype)"
        )


def _number(letter: str) -> int:
    if not letter.isascii() or not letter.isalpha():
        raise ValueError(f"einsum: {letter!r} is no letter (at {user_source()}); axes are named a to z and A to Z")
    return ord(letter)


def _named(label: int) -> str:
    """A label in the words of the user's call: a letter, a number of a list of labels, or an axis of the ellipsis."""
    if label >= _ELLIPSIS:
        return "an axis of the ellipsis"
    return f"label {chr(label)!r}" if label >= ord("A") else f"label {label}"


def _parts(text: str) -> list[Any]:
    """The labels of one operand, an Ellipsis where there is one."""
    before, dots, after = text.replace(" ", "").partition("...")
    if "..." in after:
        raise ValueError(f"einsum: two ellipses in {text!r} (at {user_source()})")
    return [*map(_number, before), *([Ellipsis] if dots else []), *map(_number, after)]


def _by_string(args: tuple[Any, ...]) -> tuple[list[Term], tuple[int, ...]]:
    equation, *operands = args
    if len(operands) == 1 and not isinstance(operands[0], Handle):
        operands = list(operands[0])
    left, arrow, right = equation.partition("->")
    return _labelled(operands, [_parts(p) for p in left.split(",")], _parts(right) if arrow else None)


def _by_lists(args: tuple[Any, ...]) -> tuple[list[Term], tuple[int, ...]]:
    def labels(listed: Any) -> list[Any]:
        for label in listed:
            if label is not Ellipsis and not 0 <= label < 52:
                raise ValueError(f"einsum: {label} is no label from 0 to 51 (at {user_source()})")
        # in the order of the letters: A to Z come first, as PyTorch has it
        return [label if label is Ellipsis else int(label) for label in listed]

    operands, lists = list(args[: len(args) // 2 * 2 : 2]), list(args[1::2])
    result = labels(args[-1]) if len(args) % 2 else None
    return _labelled(operands, [labels(listed) for listed in lists], result)


def _labelled(
    operands: Sequence[Any], parts: Sequence[list[Any]], result: list[Any] | None
) -> tuple[list[Term], tuple[int, ...]]:
    """The terms, and the labels of the result, ellipses spelt out."""
    if not operands or len(operands) != len(parts) or not all(isinstance(o, Handle) for o in operands):
        raise ShapeError(
            f"einsum: {len(operands)} operands for {len(parts)} lists of labels, at least one (at {user_source()})"
        )
    terms, widest = [], 0
    for operand, listed in zip(operands, parts, strict=True):
        extra = operand.ndim - sum(1 for p in listed if p is not Ellipsis)
        if extra < 0 or (extra > 0 and Ellipsis not in listed):
            raise ShapeError(
                f"einsum: {len(listed)} labels for an operand of shape {list(operand.shape)} (at {user_source()})"
            )
        widest = max(widest, extra) if Ellipsis in listed else widest
        terms.append(Term(operand, _spelt(listed, extra)))
    if result is None:
        counts = [label for term in terms for label in term.labels if label < _ELLIPSIS]
        return terms, (*_spelt([Ellipsis], widest), *sorted(label for label in set(counts) if counts.count(label) == 1))
    wanted = _spelt(result, widest)
    known = {label for term in terms for label in term.labels}
    if wrong := [label for label in wanted if label not in known or wanted.count(label) > 1]:
        raise ShapeError(
            f"einsum: each label of the result must be one of the operands' and stand once, which is not so of "
            f"{_named(wrong[0])} (at {user_source()})"
        )
    return terms, wanted


def _spelt(listed: list[Any], extra: int) -> tuple[int, ...]:
    """The labels with an ellipsis as those of `extra` axes."""
    dots = [_ELLIPSIS + extra - 1 - i for i in range(extra)]
    return tuple(label for part in listed for label in (dots if part is Ellipsis else [part]))


def _diagonal(term: Term) -> Term:
    """The term with each repeated label once."""
    tensor, labels = term
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            if tensor.shape[first] != tensor.shape[second]:
                raise ShapeError(
                    f"einsum: {_named(label)} names axes of sizes {tensor.shape[first]} and {tensor.shape[second]} "
                    f"(at {user_source()})"
                )
            tensor = tensor.diagonal(0, first, second)
            labels = (*(x for i, x in enumerate(labels) if i not in (first, second)), label)
    return Term(tensor, labels)


def contract(name: str, terms: list[Term], result: tuple[int, ...]) -> Tensor:
    """The sum over all labels that `result` lacks of the product of the terms."""
    sizes: dict[int, int] = {}
    for tensor, labels in terms:
        for label, size in zip(labels, tensor.shape, strict=True):
            if sizes.setdefault(label, size) == 1:
                sizes[label] = size
            elif size not in (1, sizes[label]):
                raise ShapeError(
                    f"{name}: {_named(label)} names axes of sizes {sizes[label]} and {size} (at {user_source()})"
                )
    terms = [_without_ones(term, sizes) for term in terms]
    while len(terms) > 1:
        first, second = _cheapest(terms, result, sizes)
        rest = [term for i, term in enumerate(terms) if i not in (first, second)]
        needed = set(result).union(*(term.labels for term in rest))
        terms = [*rest, _product(name, _summed(terms[first], needed | {*terms[second].labels}),
                                 _summed(terms[second], needed | {*terms[first].labels}), needed)]  # fmt: skip
    tensor, labels = _summed(terms[0], set(result))
    missing = [label for label in result if label not in labels]
    assert not missing, "every label of the result is one of a term's"
    order = tuple(labels.index(label) for label in result)
    return tensor.permute(order) if order else tensor


def _without_ones(term: Term, sizes: dict[int, int]) -> Term:
    """The term without axes of size 1 that broadcast against greater ones."""
    tensor, labels = term
    kept = [i for i, label in enumerate(labels) if tensor.shape[i] == sizes[label]]
    return Term(tensor.reshape([tensor.shape[i] for i in kept]), tuple(labels[i] for i in kept))


def _summed(term: Term, needed: set[int]) -> Term:
    """The term summed over the labels that nobody needs; integers as int64, as PyTorch sums them."""
    over = [i for i, label in enumerate(term.labels) if label not in needed]
    if not over:
        return term
    summed = term.tensor.sum(over, dtype=term.tensor.dtype if term.tensor.is_floating_point() else int64)
    return Term(summed, tuple(label for label in term.labels if label in needed))


def _cheapest(terms: list[Term], result: tuple[int, ...], sizes: dict[int, int]) -> tuple[int, int]:
    """The pair of terms whose product is the smallest compared with the two."""
    if len(terms) == 2:
        return 0, 1

    def growth(pair: tuple[int, int]) -> int:
        first, second = (set(terms[i].labels) for i in pair)
        others = set(result).union(*(t.labels for i, t in enumerate(terms) if i not in pair))
        sizes_of = [math.prod(sizes[x] for x in s) for s in ((first | second) & others, first, second)]
        return sizes_of[0] - sizes_of[1] - sizes_of[2]

    return min(itertools.combinations(range(len(terms)), 2), key=growth)


def _product(name: str, a: Term, b: Term, needed: set[int]) -> Term:
    """The product of two terms, summed over what both have and nobody needs."""
    integers = not (a.tensor.is_floating_point() or b.tensor.is_floating_point())
    if integers and a.tensor.dtype is not b.tensor.dtype:  # one of them was summed
        a, b = (Term(term.tensor.to(int64), term.labels) for term in (a, b))
    shared = [label for label in a.labels if label in b.labels]
    batch = [label for label in shared if label in needed]
    inner = [label for label in shared if label not in needed]
    left = [label for label in a.labels if label not in shared]
    right = [label for label in b.labels if label not in shared]
    if inner:  # a product of matrices; without a sum there is nothing that a region does in another dtype
        operands = lowered(a.tensor, b.tensor)
        _check_one_dtype(name, operands)
        a, b = (Term(t, of.labels) for t, of in zip(operands, (a, b), strict=True))
    x, y = _arranged(a, (batch, left, inner)), _arranged(b, (batch, inner, right))
    labels = (*batch, *left, *right)
    size = {label: s for term in (a, b) for label, s in zip(term.labels, term.tensor.shape, strict=True)}
    shape = tuple(size[label] for label in labels)
    product = a.tensor._wrap(matmul_nodes(x, y)) if inner else a.tensor._wrap(x) * a.tensor._wrap(y)
    return Term(product.reshape(shape), labels)


def _arranged(term: Term, groups: tuple[list[int], ...]) -> Any:
    """The term's node with its axes in groups, each made one axis, the first (of the batch) left as it is."""
    order = tuple(term.labels.index(label) for group in groups for label in group)
    moved = permute(term.tensor.node, order)
    batch, count = len(groups[0]), len(groups[1])
    shape = moved.shape
    rows, columns = math.prod(shape[batch : batch + count]), math.prod(shape[batch + count :])
    return reshape(moved, (math.prod(shape[:batch]), rows, columns))


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """The product summed over axes of both: the last `dims` of `a` and first of `b`, or those that two lists name."""
    if isinstance(dims, Handle):
        dims = dims.tolist()
    if isinstance(dims, int):
        if not 0 <= dims <= min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot: dims {dims} for {list(a.shape)} and {list(b.shape)} (at {user_source()})")
        dims = (range(a.ndim - dims, a.ndim), range(dims))
    first, second = ([d] if isinstance(d, int) else list(d) for d in dims)
    first = [normalize_axis(d, a.ndim, "tensordot") for d in first]
    second = [normalize_axis(d, b.ndim, "tensordot") for d in second]
    if len(first) != len(second) or len({*first}) < len(first) or len({*second}) < len(second):
        raise ShapeError(f"tensordot: dims {dims} must name equally many axes, none twice (at {user_source()})")
    # what sums over all axes is no product of matrices to autocast, as it is none in PyTorch
    x, y = (a, b) if len(first) == a.ndim == b.ndim else lowered(a, b)
    _check_one_dtype("tensordot", (x, y))
    mine = list(range(a.ndim))
    theirs = [a.ndim + i for i in range(b.ndim)]
    for i, j in zip(first, second, strict=True):
        theirs[j] = mine[i]
    kept = (*(x for i, x in enumerate(mine) if i not in first), *(x for j, x in enumerate(theirs) if j not in second))
    # an axis of one against a longer one is summed alone, integers in int64
    return contract("tensordot", [Term(x, tuple(mine)), Term(y, tuple(theirs))], kept).to(x.dtype)


__all__ = ["einsum", "tensordot"]
