"""The output layer and its cross entropy in blocks of rows, so that the logits of all rows never exist at once.

A language model's logits are its largest value: rows × vocabulary. Here each block of rows goes its whole way (logits,
loss, and the gradients by input, weight and bias) before the next one begins, so memory is needed for the logits of one
block. `docs/decisions/output-in-blocks.md` has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...autograd.backward import grad
from ...autograd.function import with_gradient
from ...errors import DTypeError, ShapeError
from ...graph.node import Node
from ...graph.types import DType, float32, float64
from ...ops.gradient_hooks import HOOKED
from ...ops.host import detach
from ...ops.primitive import MODE, Lowering, autocast_mode, user_source
from ...tensor import Tensor
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import in_float32
from ...tensor.grad_modes import enable_grad
from ...tensor.joining import cat
from ...tensor.state import STATE
from .linear import linear
from .loss import check_reduction, check_smoothing, check_weight, cross_entropy, hard_terms, soft_terms

#: logits of so many bytes, in the dtype that losses are computed in, are not cut: nothing would be gained
_SMALL = 32 << 20
#: rows of a block, and how many blocks there may be before they grow: each block reads the weight, and adds to the
#: weight's gradient, anew
_ROWS, _MOST_BLOCKS = 1024, 32


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: LinearCrossEntropyOptions | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """cross_entropy(linear(input, linear_weight, linear_bias), target, …), with logits of `chunk_size` rows at once.

    Shapes: input [N, D] or [D], linear_weight [C, D], linear_bias [C], target [N] or [] (integers) or [N, C] or [C]
    (probabilities), weight [C]. With further axes d… in linear_weight [C, d…, D] and linear_bias [C, d…] the logits are
    never cut; input is [N, D] then and target [N, d…] or [N, C, d…]. The result and its gradients are those of the
    composition within rounding; second derivatives, and gradients by target or weight, are taken through the
    composition, with all logits in memory. `chunk_size` is chosen from the sizes unless given, there or in PyTorch's
    `options`; logits that are not large are not cut. `ignore_index` is -100 unless given, which it cannot be for
    probabilities. The other arguments are cross_entropy's. Raises ShapeError for an input of more axes: flatten it.

    >>> x, w = pb.zeros(6, 3), pb.zeros(4, 3)
    >>> pb.nn.functional.linear_cross_entropy(x, w, pb.tensor([0, 1, 2, 3, 0, 1]), chunk_size=2)
    tensor(1.3863)
    """
    name = "linear_cross_entropy"
    check_reduction(name, reduction)
    check_smoothing(name, label_smoothing)
    _check(input, linear_weight, linear_bias, target, ignore_index)
    if not target.dtype.is_floating_point:
        check_weight(name, *in_float32(input, weight))
    if options is not None and chunk_size is None:
        chunk_size = _rows_of(options, input, linear_weight)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"{name}: chunk_size must be at least 1, got {chunk_size} (at {user_source()})")
    terms = _Terms(weight, -100 if ignore_index is None else ignore_index, label_smoothing, reduction)
    rows = _rows(input, linear_weight) if chunk_size is None else chunk_size
    if MODE.looks:
        rows = max(input.shape[0], 1) if input.ndim > 1 else 1
    if linear_weight.ndim > 2:
        return terms.of_many(input, linear_weight, linear_bias, target)
    if target.requires_grad or (weight is not None and weight.requires_grad):
        # the blocks have gradients by the layer's operands alone
        return terms.composed(input, linear_weight, linear_bias, target)
    if input.ndim == 1 or rows >= input.shape[0] or target.shape[:1] != input.shape[:1]:
        return terms.composed(input, linear_weight, linear_bias, target)
    return _Blocks(input, linear_weight, linear_bias, target, terms, rows).loss()


#: with the permission to cut: into how many blocks at least, of how many rows at least, and logits of how many bytes
_BLOCKS_ALLOWED, _FEWEST_ROWS, _WORTH_CUTTING = 4, 64, 1 << 20


def in_blocks(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, label_smoothing: float
) -> Tensor | None:
    """cross_entropy(logits, target, …) in blocks of rows, where a step that is being recorded may do that and the
    logits are those of a linear layer and large; else None.
    """
    layer = _layer_of(logits)
    fits = target.shape[:1] == logits.shape[:1] and target.ndim in (1, 2)
    learned = target.requires_grad or (weight is not None and weight.requires_grad)
    if layer is None or not fits or learned or MODE.looks or STATE.trace is None:
        return None
    count, classes = logits.shape
    rows = min(_ROWS, max(_FEWEST_ROWS, -(-count // _BLOCKS_ALLOWED)))
    if rows >= count or count * classes * logits.dtype.compute.itemsize < _WORTH_CUTTING:
        return None
    STATE.trace.rows.append(rows)
    terms = _Terms(weight, ignore_index, label_smoothing, reduction)
    return _Blocks(*layer, target, terms, rows).loss()


def _layer_of(logits: Tensor) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Input [N, D], weight [C, D] and bias [C] of the linear layer that gives logits [N, C]; None where there is none,
    or where somebody wants to see a gradient on the way.
    """
    if logits.ndim != 2:
        return None
    node, bias = _under_reshapes(logits.node), None
    if node.op.name == "add" and node.inputs[1].shape == logits.shape[1:]:
        bias, node = logits._wrap(node.inputs[1]), _under_reshapes(node.inputs[0])
    if node.op.name != "matmul" or node.shape != logits.shape or node in HOOKED:
        return None
    left, right = node.inputs
    if left.dtype is not logits.dtype or len(right.shape) != 2:
        return None
    return logits._wrap(left), logits._wrap(right).T, bias


def _under_reshapes(node: Node) -> Node:
    while node.op.name == "reshape" and node not in HOOKED:
        node = node.inputs[0]
    return node


def _check(
    input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, target: Tensor, ignore_index: int | None
) -> None:
    name = "linear_cross_entropy"
    many = linear_weight.ndim > 2
    if linear_weight.ndim < 2 or input.ndim not in ((2,) if many else (1, 2)):
        raise ShapeError(
            f"{name}: input must be [N, D] or [D] and linear_weight [C, D], or [N, D] and [C, …, D], got "
            f"{list(input.shape)} and {list(linear_weight.shape)} (at {user_source()}); flatten the rows, as in "
            "x.reshape(-1, x.shape[-1])"
        )
    if input.shape[-1] != linear_weight.shape[-1]:
        raise ShapeError(
            f"{name}: input {list(input.shape)} and linear_weight {list(linear_weight.shape)} must have one last axis "
            f"(at {user_source()})"
        )
    if linear_bias is not None and linear_bias.shape != linear_weight.shape[:-1]:
        raise ShapeError(
            f"{name}: linear_bias must be {list(linear_weight.shape[:-1])}, got {list(linear_bias.shape)} "
            f"(at {user_source()})"
        )
    if input.dtype is not linear_weight.dtype and MODE.autocast.dtype is None:
        raise DTypeError(
            f"{name}: input and linear_weight must have one dtype, got {input.dtype.name} and "
            f"{linear_weight.dtype.name} (at {user_source()}). Convert one with .to(dtype)."
        )
    _check_target(target, (*input.shape[:-1], *linear_weight.shape[:-1]), input.ndim - 1)
    if ignore_index is not None and target.dtype.is_floating_point:
        raise ValueError(f"{name}: ignore_index is for targets by number, not probabilities (at {user_source()})")


def _check_target(target: Tensor, logits: tuple[int, ...], axis: int) -> None:
    """ShapeError where the target is none of logits of this shape, whose classes lie along `axis`."""
    by_number = (*logits[:axis], *logits[axis + 1 :])
    if target.shape != (logits if target.dtype.is_floating_point else by_number):
        raise ShapeError(
            f"linear_cross_entropy: target must be the numbers of classes (integers of shape {list(by_number)}) or "
            f"their probabilities (floats of shape {list(logits)}), got {target.dtype.name} of shape "
            f"{list(target.shape)} (at {user_source()})"
        )


@dataclass(frozen=True)
class LinearCrossEntropyOptions:
    """PyTorch's options of linear_cross_entropy: how many rows' logits there are at once.

    `batch_chunk_size` is their number. Without it `chunking_method` "auto" leaves the choice to Pullback, and
    "aspect_ratio:N" takes 1 / N of the rows whose logits are as large as the input. Sums are always taken in float32
    for the 16-bit floats, which all of `acc_policy` "accurate", "balanced", "compact" and "auto" allow; any number of
    backward passes is possible, whatever `allow_retain_graph`.
    """

    allow_retain_graph: bool = False
    batch_chunk_size: int | None = None
    chunking_method: str | None = "auto"
    acc_policy: str = "auto"
    acc_dtype: DType | None = None

    def __post_init__(self) -> None:
        if self.acc_policy not in ("accurate", "balanced", "compact", "auto"):
            raise ValueError(f"LinearCrossEntropyOptions: no such acc_policy: {self.acc_policy!r}")
        if self.acc_dtype not in (None, float32, float64):
            raise ValueError(f"LinearCrossEntropyOptions: acc_dtype must be float32 or float64, got {self.acc_dtype}")
        _aspect(self.chunking_method)


def _aspect(method: str | None) -> int | None:
    """N of "aspect_ratio:N"; None for "auto" and None."""
    if method in (None, "auto"):
        return None
    name, separator, factor = str(method).partition(":")
    if name != "aspect_ratio" or (separator and not (factor.isdigit() and int(factor) > 0)):
        raise ValueError(
            f'LinearCrossEntropyOptions: chunking_method must be None, "auto", "aspect_ratio" or "aspect_ratio:N", got '
            f"{method!r}"
        )
    return int(factor) if separator else 1


def _rows_of(options: LinearCrossEntropyOptions, input: Tensor, linear_weight: Tensor) -> int | None:
    """Rows of a block as the options have it; None where they leave the choice."""
    if options.batch_chunk_size is not None:
        return options.batch_chunk_size
    factor, rows = _aspect(options.chunking_method), input.shape[0]
    if factor is None or input.ndim == 1 or not input.numel():
        return None
    share = -(-rows // -(-linear_weight.shape[0] // input.shape[1]))
    return max(1, (1 << (share - 1).bit_length()) // factor)


def _rows(input: Tensor, linear_weight: Tensor) -> int:
    """Rows of a block."""
    if input.ndim == 1:
        return 1
    count, classes = input.shape[0], linear_weight.shape[0]
    if count * classes * input.dtype.compute.itemsize <= _SMALL:
        return max(count, 1)
    return max(_ROWS, -(-count // _MOST_BLOCKS))


@dataclass(frozen=True)
class _Terms:
    """What cross_entropy is to be."""

    weight: Tensor | None
    ignore_index: int
    label_smoothing: float
    reduction: str

    def composed(self, input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, target: Tensor) -> Tensor:
        """The same from the logits of all rows."""
        logits = linear(input, linear_weight, linear_bias)
        return cross_entropy(
            logits, target, self.weight, None, self.ignore_index, None, self.reduction, self.label_smoothing
        )

    def of_many(self, input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, target: Tensor) -> Tensor:
        """The same for classes with further axes."""
        flat = linear_weight.reshape(-1, linear_weight.shape[-1])
        logits = linear(input, flat, None if linear_bias is None else linear_bias.reshape(-1))
        logits = logits.reshape(input.shape[0], *linear_weight.shape[:-1])
        return cross_entropy(
            logits, target, self.weight, None, self.ignore_index, None, self.reduction, self.label_smoothing
        )

    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each row, in the dtype that losses are computed in."""
        logits, target, weight = in_float32(logits, target, self.weight)
        if target.dtype.is_floating_point:
            return soft_terms(logits, target, weight, self.label_smoothing)
        return hard_terms(logits, target, weight, self.ignore_index, self.label_smoothing)[0]

    def averaged(self, total: Tensor, target: Tensor) -> Tensor:
        """The mean, of the sum of all rows' losses."""
        if target.dtype.is_floating_point:
            return total / target.shape[0]
        valid = target != self.ignore_index
        if self.weight is None:
            return total / valid.to(total.dtype).sum()
        known = where(valid, target, 0)
        return total / where(valid, self.weight.to(total.dtype)[known], 0.0).sum()


class _Blocks:
    """The computation block by block. Its operands are cut off from their histories, to which `loss` joins the result.

    The nodes of a block's gradients are made along with those of its loss. They are computed if a backward pass asks
    for them, and then stand beside the loss in the order of the program.
    """

    def __init__(
        self, input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, target: Tensor, terms: _Terms, rows: int
    ):  # fmt: skip
        self.operands = [input, linear_weight, *([] if linear_bias is None else [linear_bias])]
        self.target, self.terms, self.rows = target, terms, rows
        self.region: Lowering = MODE.autocast
        #: the dtype of the result: under autocast losses are not rounded
        self.dtype = input.dtype if self.region.dtype is None else None

    def loss(self) -> Tensor:
        """The loss with its gradient rule."""
        wanted = MODE.grad and any(operand.requires_grad for operand in self.operands)
        at_once = self.terms.reduction != "none"
        losses, found = self._run(None, gradients=wanted and at_once)
        total = self._joined(losses)

        def rule(_: Tensor, cotangent: Tensor) -> list[Tensor | None]:
            with autocast_mode(self.region):
                if MODE.grad:
                    return self._composed_gradients(cotangent)
                if not at_once:
                    return self._run(cotangent, gradients=True)[1]
            return [None if g is None else self._times(g, cotangent) for g in found]

        if wanted:
            total = with_gradient(total, self.operands, rule)
        if self.terms.reduction == "mean":
            total = self.terms.averaged(total, self.target)
        return total if self.dtype is None else total.to(self.dtype)

    def _times(self, gradient: Tensor, cotangent: Tensor) -> Tensor:
        product = gradient * cotangent.to(gradient.dtype)
        if self.terms.reduction != "mean":
            return product
        # the cotangent of a mean of no rows is infinite, and no row has a part in it
        return where(gradient == 0, 0.0, product)

    def _joined(self, losses: list[Tensor]) -> Tensor:
        """One result of all blocks' losses."""
        if self.terms.reduction == "none":
            return cat(losses)
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return total

    def _run(self, cotangent: Tensor | None, gradients: bool) -> tuple[list[Tensor], list[Tensor | None]]:
        """The blocks' losses, and (with `gradients`) the gradients by the operands of their sum, or of the sum of the
        losses of rows times `cotangent`."""
        losses: list[Tensor] = []
        inputs: list[Tensor] = []
        shared: list[Tensor | None] = [None] * (len(self.operands) - 1)
        wanted = [operand.requires_grad for operand in self.operands]
        with enable_grad():
            for rows, leaves, target in self._cut(gradients):
                each = self.terms.each(linear(*leaves), target)
                loss = each if self.terms.reduction == "none" else each.sum()
                losses.append(loss.detach())
                if not gradients:
                    continue
                objective = loss if cotangent is None else (loss * cotangent[rows].to(loss.dtype)).sum()
                found = iter(grad(objective, [leaf for leaf, use in zip(leaves, wanted, strict=True) if use]))
                first, *others = [next(found) if use else None for use in wanted]
                inputs += [] if first is None else [first]
                shared = [_added(old, new) for old, new in zip(shared, others, strict=True)]
        return losses, [cat(inputs) if inputs else None, *shared]

    def _cut(self, gradients: bool) -> Iterator[tuple[slice, list[Tensor], Tensor]]:
        """The rows, operands and target of each block, the operands as leaves with histories of their own."""
        input, *others = self.operands
        for start in range(0, input.shape[0], self.rows):
            rows = slice(start, start + self.rows)
            block = [input[rows], *others]
            leaves = [
                Tensor(detach(part.node, gradients and operand.requires_grad))
                for part, operand in zip(block, self.operands, strict=True)
            ]
            yield rows, leaves, self.target[rows]

    def _composed_gradients(self, cotangent: Tensor) -> list[Tensor | None]:
        """The gradients as functions that can be differentiated again."""
        input, linear_weight, *bias = self.operands
        each = self.terms.each(linear(input, linear_weight, bias[0] if bias else None), self.target)
        result = each if self.terms.reduction == "none" else each.sum()
        wanted = [operand for operand in self.operands if operand.requires_grad]
        found = iter(grad(result, wanted, cotangent.to(result.dtype), create_graph=True))
        return [next(found) if operand.requires_grad else None for operand in self.operands]


def _added(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    """The sum so far, in float32 for the 16-bit floats."""
    if part is None:
        return None
    wide = part.to(part.dtype.compute)
    return wide if total is None else total + wide
