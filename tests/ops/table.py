"""The table that drives the tests of operations: an expression a row, with the inputs that are awkward for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from operation_rows import AWKWARD, INF, NAN, Row, normal, positive, separated
from oracle import Expression
from pullback import quant
from pullback.graph.types import int64, uint32
from pullback.ops.attention import attention
from pullback.ops.elementwise import convert, copy, philox, shift_right
from pullback.ops.host import custom, host_call, result, several
from pullback.ops.indexing import scatter_add
from pullback.ops.moment_code import FIRST_MAP, SECOND_MAP, apart, decode_first, decode_second, encode_moments
from pullback.ops.table_code import decode_table, encode_table

_ONE = (np.array(AWKWARD), np.array(0.5), np.zeros((0, 3)), np.array([[0.3], [-0.7]]))


def _method(name: str, *arguments: Any, **options: Any) -> Expression:
    return lambda f, x: getattr(x, name)(*arguments, **options)


def _functions() -> Iterator[Row]:
    everywhere = ("exp", "sin", "cos", "tanh", "erf", "sigmoid", "abs", "square", "neg")
    above_zero = ("log", "sqrt", "rsqrt", "reciprocal")
    steps = ("floor", "ceil", "trunc", "round", "sign", "relu", "isnan", "isinf", "isfinite")
    for name in (*everywhere, *above_zero, *steps):
        operand = positive(3, 4) if name in above_zero else normal(3, 4)
        yield Row(name, _method(name), (operand,), tuple((a,) for a in _ONE), smooth=name not in steps)
    yield Row("pos", lambda f, x: +x, (normal(3),))
    for low, high in ((-0.5, 0.5), (None, 0.5), (-0.5, None), (0.5, -0.5)):
        yield Row(
            f"clamp {low} {high}",
            _method("clamp", low, high),
            (normal(3, 4),),
            ((np.array([*AWKWARD[:-1], 0.5, -0.5]),),),
        )
    for exponent in (2, 3, 1, 0, 0.5, -1, -2, 1.5, 2.0, -0.5):
        # IEEE 754 has -0.0 and -inf to a power that is not whole positive; PyTorch, which takes roots, has not always
        fractional = exponent in (1.5, -0.5)
        plain = np.array([v for v in AWKWARD if v != -INF and not (v == 0 and math.copysign(1, v) < 0)])
        awkward = ((plain,),) if fractional else tuple((a,) for a in _ONE)
        yield Row(f"pow {exponent}", _method("pow", exponent), (positive(3, 4),), awkward)
    yield Row("number to the power", lambda f, x: 2.0**x, (normal(3),), ((np.array(AWKWARD),),))
    yield Row("zero to the power", lambda f, x: 0.0**x, (positive(3),), ((np.array([0.0, 1.0, 2.5]),),), smooth=False)


_PAIRS = (
    (np.array(AWKWARD)[:, None], np.array(AWKWARD)),
    (np.zeros((0, 3)), np.zeros(3)),
    (np.array(1.5), normal(2, 1)),
    (normal(2, 1, 3), normal(4, 1)),
)


def _pairs() -> Iterator[Row]:
    smooth = {
        "add": lambda f, x, y: x + y,
        "sub": lambda f, x, y: x - y,
        "mul": lambda f, x, y: x * y,
        "div": lambda f, x, y: x / y,
        "pow": lambda f, x, y: x**y,
        "add with alpha": lambda f, x, y: x.add(y, alpha=2),
        "sub with alpha": lambda f, x, y: x.sub(y, alpha=2),
        "minimum": lambda f, x, y: x.minimum(y),
        "maximum": lambda f, x, y: x.maximum(y),
        "reversed operators": lambda f, x, y: (1 + x) * (2 - y) / (3 * x) - (4 / y),
    }
    steps = {
        "remainder": lambda f, x, y: x % y,
        # PyTorch's floor division has no gradient at all, ours is zero
        "floor_divide": lambda f, x, y: x.detach() // y.detach(),
        "div floor": lambda f, x, y: x.div(y, rounding_mode="floor").detach(),
        "div trunc": lambda f, x, y: x.div(y, rounding_mode="trunc"),
        "comparisons": lambda f, x, y: (x == y, x != y, x < y, x <= y, x > y, x >= y),
        "named comparisons": lambda f, x, y: (x.eq(y), x.ne(y), x.lt(y), x.le(y), x.gt(y), x.ge(y)),
        "logical": lambda f, x, y: (x.logical_and(y), x.logical_or(y), x.logical_not()),
    }
    for name, expression in (smooth | steps).items():
        operands = (positive(3, 1, 4), positive(2, 1))
        yield Row(name, expression, operands, _PAIRS, smooth=name in smooth)
    yield Row("where", lambda f, x, y: f.where(x > y, x * y, x + y), (normal(3, 1), normal(4)), _PAIRS, smooth=True)
    yield Row("where with numbers", lambda f, x, y: f.where(x > y, x, 1.0), (normal(3, 1), normal(4)), smooth=True)
    yield Row("x.where", lambda f, x, y: x.where(x < 0.3, y), (normal(3, 1), normal(4)), smooth=True)
    yield Row("masked_fill", lambda f, x: x.masked_fill(x > 0, -2.0), (normal(3, 4),), ((np.array(AWKWARD),),))
    integers = (np.array([[7, -7, 0, 5]]), np.array([[2], [-2], [3], [0]]))
    for name, expression in {
        "integer arithmetic": lambda f, x, y: (x + y, x - y, x * y, x / y, -x, abs(x), x.sign()),
        "integer bits": lambda f, x, y: (x & y, x | y, x ^ y, ~x),
        "integer comparisons": lambda f, x, y: (x == y, x < y, x <= y, x.minimum(y), x.maximum(y)),
    }.items():
        yield Row(name, expression, integers, dtypes=("float64",))
    divisors = (np.array([[7, -7, 0, 5]]), np.array([[2], [-2], [3], [-1]]))
    yield Row(
        "integer division",
        lambda f, x, y: (x // y, x % y, x.div(y, rounding_mode="trunc")),
        divisors,
        dtypes=("float64",),
    )
    yield Row("integer power", lambda f, x: (x**2, x**3, x**5, x**0), (np.array([0, 1, -2, 3]),), dtypes=("float64",))
    booleans = (np.array([True, False])[:, None], np.array([True, False]))
    yield Row(
        "bool", lambda f, x, y: (x & y, x | y, x ^ y, ~x, x + y, x * y, x == y, x < y), booleans, dtypes=("float64",)
    )


def _attended(f: Any, q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False) -> Any:
    """In tiles, however small: what nn.functional does of its own accord depends on the sizes."""
    shape = (*q.shape[:-1], k.shape[-2])
    added = None if mask is None else mask.expand(*shape).node
    return f.Tensor(attention(q.node, k.node, v.node, q.shape[-1] ** -0.5, causal, added))


def _attended_plainly(f: Any, q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False) -> Any:
    """The same by matrix products and softmax: PyTorch's own kernels have no second derivatives."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    scores = scores if mask is None else scores + mask
    if causal:
        visible = f.tensor(np.tril(np.ones(scores.shape[-2:], bool)))
        scores = scores.masked_fill(visible.logical_not(), -INF)
    return f.softmax(scores, -1) @ v


def _slopes_of(expression: Expression, f: Any, *operands: Any) -> tuple[Any, ...]:
    """The gradients of an expression, to be differentiated further."""
    result = expression(f, *operands)
    weights = f.tensor(np.cos(np.arange(result.numel())).reshape(tuple(result.shape))).to(result.dtype)
    return tuple(f.autograd.grad((result * weights).sum(), operands, create_graph=True))


def _reductions() -> Iterator[Row]:
    axes = (None, 0, -1, (0, 2), (1,), (0, 1, 2))
    awkward = ((np.array(AWKWARD).reshape(2, 1, 7),), (np.zeros((2, 3, 4)),))
    constant = ((np.full((2, 3, 4), 0.5),), (np.array([[[1.0, NAN], [2.0, 3.0]]]),))
    empty = ((np.zeros((0, 3, 2)),), (np.zeros((2, 3, 0)),))
    for axis in axes:
        for keep in (False, True):
            options: dict[str, Any] = {"dim": axis, "keepdim": keep}
            label = f"dim={axis} keepdim={keep}"
            for name in ("sum", "mean"):
                yield Row(f"{name} {label}", _method(name, **options), (normal(2, 3, 4),), awkward + empty)
            for name in ("amax", "amin"):
                given = {k: () if v is None else v for k, v in options.items()}
                yield Row(
                    f"{name} {label}",
                    _method(name, **options),
                    (separated(2, 3, 4),),
                    awkward,
                    theirs=_method(name, **given),
                )
            for name in ("var", "std"):
                yield Row(f"{name} {label}", _method(name, **options), (normal(2, 3, 4),), constant)
            summed = {k: (0, 1, 2) if v is None else v for k, v in options.items()}
            yield Row(
                f"logsumexp {label}",
                _method("logsumexp", **options),
                (normal(2, 3, 4),),
                ((np.array([[[0.0, INF, 2.0]], [[-INF, -INF, 1.0]]]),),),
                theirs=_method("logsumexp", **summed),
            )
            for order in (1, 2, 3, INF, -INF, 0):
                yield Row(
                    f"norm {order} {label}",
                    _method("norm", order, **options),
                    (separated(2, 3, 4),),
                    ((np.zeros((2, 3, 4)),),) if order in (1, 2) else (),
                    smooth=order != 0,
                )
    for axis in (None, 0, 1, -1):
        for name in ("argmax", "argmin"):
            ties = np.array([[1.0, 3.0, 3.0], [NAN, 2.0, NAN], [-INF, 0.0, INF]])
            yield Row(f"{name} {axis}", _method(name, axis), (normal(3, 4),), ((ties,),), smooth=False)
            yield Row(f"{name} {axis} keepdim", _method(name, axis, True), (normal(3, 4),), smooth=False)
        for name in ("any", "all"):
            operands = (np.array([[0.0, 1.0], [0.0, 0.0], [NAN, 2.0]]),)
            arguments = () if axis is None else (axis,)
            yield Row(f"{name} {axis}", _method(name, *arguments), operands, ((np.zeros((0, 3)),),), smooth=False)
    for axis in (0, 1, -1):
        for name in ("max", "min"):
            yield Row(f"{name} along {axis}", lambda f, x, n=name, a=axis: tuple(getattr(x, n)(a)), (separated(3, 4),))
    for name in ("max", "min"):
        yield Row(name, _method(name), (separated(3, 4),), ((np.ones((2, 2)),), (np.array(2.0),)))
    yield Row("sum of shape []", _method("sum"), (np.array(2.0),))
    yield Row(
        "integer reductions",
        lambda f, x: (x.sum(), x.sum(0), x.amax(1), x.amin(1), x.any(), x.all()),
        (np.arange(-3, 3).reshape(2, 3),),
        dtypes=("float64",),
    )
    yield Row(
        "bool reductions", lambda f, x: (x.sum(), x.any(0), x.all(1)), (np.eye(3, dtype=bool),), dtypes=("float64",)
    )


def _movements() -> Iterator[Row]:
    rows: dict[str, Expression] = {
        "reshape": lambda f, x: x.reshape(4, -1) * 2,
        "view": lambda f, x: x.view(-1),
        "permute": lambda f, x: x.permute(2, 0, 1) * f.ones(2, 3, dtype=x.dtype),
        "transpose": lambda f, x: x.transpose(0, -1),
        "movedim": lambda f, x: (x.movedim(0, 2), x.movedim(-1, 0)),
        "mT": lambda f, x: x.mT,
        "flatten": lambda f, x: (x.flatten(), x.flatten(1), x.flatten(0, 1)),
        "unflatten": lambda f, x: x.unflatten(-1, (2, -1)),
        "squeeze": lambda f, x: (x[:, :1].squeeze(), x[:, :1].squeeze(1), x.squeeze(0)),
        "unsqueeze": lambda f, x: (x.unsqueeze(0), x.unsqueeze(-1), x.unsqueeze(2)),
        "expand": lambda f, x: x[:, :1].expand(2, 2, -1, 4) * x[:, :1],
        "expand_as": lambda f, x: x[0, 0].expand_as(x),
        "repeat": lambda f, x: x.repeat(2, 1, 3, 2),
        "flip": lambda f, x: (x.flip(0), x.flip((1, 2))),
        "narrow": lambda f, x: (x.narrow(2, 1, 2), x.narrow(0, -1, 1)),
        "split": lambda f, x: (*x.split(3, 2), *x.split([1, 2], 1)),
        "chunk": lambda f, x: x.chunk(3, 2),
        "unbind": lambda f, x: x.unbind(1),
        "tril": lambda f, x: (x.tril(), x.tril(1), x.tril(-1)),
        "triu": lambda f, x: (x.triu(), x.triu(1), x.triu(-1)),
        "cat": lambda f, x: (f.cat([x, x[:, :1], 2 * x], 1), f.cat([x]), f.cat([x, x], -1)),
        "stack": lambda f, x: (f.stack([x, -x]), f.stack([x, x * x], -1)),
        "slices": lambda f, x: (x[0], x[:, 1:], x[..., ::2], x[None, :, -1], x[1, 2, 3], x[:, 5:]),
        "integer index": lambda f, x: (x[:, [0, -1, 0]], x[f.tensor([1, 0, 1])], x[..., f.tensor([[0, 3], [1, 1]])]),
        "index_select": lambda f, x: x.index_select(1, f.tensor([2, 0, 2])),
        "gather": lambda f, x: x.gather(2, f.tensor([[[0, 0]] * 3, [[3, 1]] * 3])),
        "clone, detach, contiguous": lambda f, x: (x.clone(), x * x.detach(), x.contiguous()),
    }
    for name, expression in rows.items():
        yield Row(
            name, expression, (normal(2, 3, 4),), ((np.array(AWKWARD[:12] + AWKWARD[-1:] * 12).reshape(2, 3, 4),),)
        )
    yield Row("t and T", lambda f, x: (x.t(), x.T), (normal(2, 3),))
    yield Row("empty movements", lambda f, x: (x.reshape(3, 0), x.T, x.flip(0), f.cat([x, x], 1)), (np.zeros((0, 3)),))
    index = np.array([[0, 1, 1], [2, 2, 2]])
    yield Row("scatter_add", lambda f, x, y: x.scatter_add(0, f.tensor(index), y), (normal(3, 3), normal(2, 3)))


def _products() -> Iterator[Row]:
    shapes = (
        ((2, 3), (3, 4)),
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((5, 2, 3), (5, 3, 4)),
        ((5, 1, 2, 3), (4, 3, 2)),
        ((2, 3), (5, 3, 4)),
        ((3,), (5, 3, 4)),
        ((5, 2, 3), (3,)),
        ((0, 3), (3, 4)),
        ((2, 0), (0, 4)),
        ((17, 9), (9, 33)),
        ((1, 1), (1, 1)),
    )
    for a, b in shapes:
        yield Row(f"matmul {list(a)} @ {list(b)}", lambda f, x, y: x @ y, (normal(*a), normal(*b)))
    yield Row("mm", lambda f, x, y: x.mm(y), (normal(2, 3), normal(3, 2)))
    yield Row("bmm", lambda f, x, y: x.bmm(y), (normal(2, 2, 3), normal(2, 3, 2)))
    yield Row("dot", lambda f, x, y: x.dot(y), (normal(3), normal(3)))
    yield Row("matmul of integers", lambda f, x, y: x @ y, (np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2)))


def _decayed(f: Any, x: Any, start: Any) -> tuple[Any, Any]:
    """c' = tanh(c / 2 + x) from `start` along the rows of x, and all c squared; a loop in PyTorch, a scan here."""

    def step(carry: Any, row: Any) -> tuple[Any, Any]:
        carry = (carry * 0.5 + row).tanh()
        return carry, carry * carry

    if hasattr(f, "func") and hasattr(f.func, "scan"):
        return f.func.scan(step, start, x)
    squares = []
    for row in x:
        start, square = step(start, row)
        squares.append(square)
    return start, f.stack(squares)


def _loops() -> Iterator[Row]:
    yield Row("scan", _decayed, (normal(4, 3), normal(3)), ((np.array([AWKWARD, AWKWARD]).T, np.array([NAN, 0.5])),))


def _convolutions() -> Iterator[Row]:
    yield Row(
        "conv2d",
        lambda f, x, w: f.nn.functional.conv2d(x, w, stride=(2, 1), padding=1, dilation=(1, 2), groups=2),
        (normal(2, 4, 6, 5), normal(6, 2, 3, 2)),
    )
    yield Row(
        "conv_transpose1d",
        lambda f, x, w: f.nn.functional.conv_transpose1d(x, w, stride=3, padding=1, output_padding=1),
        (normal(2, 3, 4), normal(3, 2, 4)),
    )


def _conversions() -> Iterator[Row]:
    methods = ("float", "double", "half", "bfloat16", "int", "long", "bool")
    finite = np.array([0.0, -0.0, 1.0, -1.5, 3.7, 1e-3, 100.3, 3.14159])
    for name in methods:
        yield Row(f"to {name}", _method(name), (finite,), smooth=False)
        yield Row(f"integers to {name}", _method(name), (np.array([0, 1, -3, 1000]),), dtypes=("float64",))
        yield Row(f"bool to {name}", _method(name), (np.array([True, False]),), dtypes=("float64",))
    for name in ("float16", "bfloat16", "float32"):
        yield Row(
            f"there and back by {name}",
            lambda f, x, n=name: x.to(getattr(f, n)).to(x.dtype),
            (np.array([0.0, 1 / 3, -1e5, 1e-8, 70000.0, 1e38, INF, -INF, NAN]),),
            smooth=False,
            theirs=None,
        )
    yield Row("type_as", lambda f, x, y: y.type_as(x), (normal(2), np.array([1, 2])))
    yield Row("long to uint8 and int8", lambda f, x: (x.to(f.uint8), x.to(f.int8)), (np.array([-1, 0, 127, 300]),))


def _only_ours() -> Iterator[Row]:
    """Primitives that stand behind functions of Pullback's own, against the same thing said otherwise in PyTorch."""

    def on_host(f: Any, x: Any) -> Any:
        return x._wrap(host_call((x.node,), lambda a: a * 2, x.shape, x.dtype))

    def distances(f: Any, x: Any) -> Any:
        from pullback.ops.reduction import spread

        return x._wrap(spread(x.node, (0,)))

    yield Row(
        "spread", distances, (normal(5, 3),), ((normal(1, 2),), (np.array([[1.0, NAN], [2.0, 3.0]]),)),
        theirs=lambda f, x: (x - x.mean(0)).square().sum(0),
    )  # fmt: skip

    def doubled_by_rule(f: Any, x: Any) -> Any:
        from pullback.ops.elementwise import add

        return x._wrap(custom((x.detach() * 2).node, (x.node,), lambda node, cotangent: [add(cotangent, cotangent)]))

    def square_and_half(f: Any, x: Any) -> Any:
        from pullback.ops.elementwise import add, mul

        def rule(node: Any, cotangents: Any) -> Any:
            return [add(mul(cotangents[0], add(x.node, x.node)), mul(cotangents[1], (x * 0 + 0.5).node))]

        joint = several(((x * x).detach().node, (x / 2).detach().node), (x.node,), rule)
        return x._wrap(result(joint, 0)) * x._wrap(result(joint, 1))

    def summed_rows(f: Any, x: Any) -> Any:
        return x._wrap(scatter_add(f.tensor([0, 2, 0]).node, x.node, 4))

    def shifted(f: Any, x: Any) -> Any:
        return x._wrap(shift_right(x.node, 2))

    def words(f: Any, x: Any) -> Any:
        counter, key = [convert(x[i].node, uint32) for i in range(4)], [convert(x[i].node, uint32) for i in (4, 5)]
        drawn = [philox(tuple(counter), tuple(key), word) for word in range(4)]
        return f.stack([x._wrap(convert(word, int64)) for word in drawn])

    def coded(signed: bool) -> tuple[Any, tuple[Any, ...], tuple[Any, ...], Any]:
        """One block through codes and back: the number of the map that is nearest, times the greatest magnitude."""
        numbers = quant.dynamic_map(signed).numpy().astype(np.float64)

        def nearest(f: Any, x: Any) -> Any:
            scale = x.detach().abs().max()
            distances = (x.detach()[:, None] / scale - f.tensor(numbers)).abs()
            return (f.tensor(numbers)[distances.argmin(1)] * scale).float()

        def through(f: Any, x: Any) -> Any:
            return quant.dequantize_blockwise(*quant.quantize_blockwise(x, signed), signed)

        x = normal(200) ** 3
        return through, (x if signed else abs(x),), (), nearest

    def through_table(f: Any, x: Any, table: tuple[float, ...]) -> Any:
        return x._wrap(decode_table(encode_table(x.detach().node, table=table), table=table))

    def nearest_in(f: Any, x: Any, table: tuple[float, ...]) -> Any:
        numbers = f.tensor(table, dtype=f.float64)
        return numbers[(x.detach().double()[:, None] - numbers).abs().argmin(1)].float()

    def both_coded(f: Any, x: Any, y: Any) -> Any:
        """Two shares through one byte and back."""
        code = apart(encode_moments(x.detach().node, y.detach().node), 0)
        return f.stack([x._wrap(decode_first(code)), x._wrap(decode_second(code))]).double()

    def both_nearest(f: Any, x: Any, y: Any) -> Any:
        maps = f.tensor(np.array(FIRST_MAP)), f.tensor(np.array(SECOND_MAP))
        found = [m[(v[:, None] - m).abs().argmin(1)] for m, v in zip(maps, (x.detach(), y.detach()), strict=True)]
        return f.stack(found).float().double()

    def written(f: Any, x: Any, y: Any) -> Any:
        x = x.clone()
        x[f.tensor([2, 0])] = y
        x[1:, ::2] = y[:, 1:] * 2
        x[0, 1] = 5.0
        return x

    # known answers of Random123 (kat_vectors, philox4x32 of 10 rounds): counter and key of zeros, ones and digits of pi
    counters = np.array(
        [
            [0] * 6,
            [0xFFFFFFFF] * 6,
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0],
        ]
    )
    answers = np.array(
        [
            [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ]
    )
    yield Row("philox", words, (counters.T,), theirs=lambda f, x: f.tensor(answers.T), dtypes=("float64",))
    operand = (np.array([0.3, -1.0, 0.0, 0.9, -0.52, 0.04]),)
    for name, table in {"nf4": quant.NF4, "fp4": quant.FP4}.items():
        way = partial(through_table, table=table)
        yield Row(f"codes of 4 bits, {name}", way, operand, theirs=partial(nearest_in, table=table), smooth=False)
    for signed in (True, False):
        yield Row(f"codes of 8 bits, {'signed' if signed else 'unsigned'}", *coded(signed), dtypes=("float64",))
    shares = np.linspace(-1, 1, 200), abs(np.linspace(-1, 0.9, 200)) ** 2
    yield Row("codes of 4 bits, both moments", both_coded, shares, (), both_nearest, dtypes=("float64",))
    yield Row("shift_right", shifted, (np.array([0, 7, -7, 2**40]),), theirs=lambda f, x: x >> 2, dtypes=("float64",))
    yield Row("written by index", written, (normal(3, 3), normal(2, 3)))
    yield Row("copy", lambda f, x: x._wrap(copy(x.node)), (normal(2, 3),), theirs=lambda f, x: x.clone())
    yield Row("apart", lambda f, x: x._wrap(apart(x.node, 1)), (normal(2, 3),), theirs=lambda f, x: x.clone())
    yield Row("host_call", on_host, (normal(2, 3),), theirs=lambda f, x: (x * 2).detach(), smooth=False)
    yield Row("results of one rule", square_and_half, (normal(2, 3),), theirs=lambda f, x: x * x * (x / 2))
    yield Row("custom rule", doubled_by_rule, (normal(2, 3),), theirs=lambda f, x: x * 2)
    operands = (normal(2, 5, 3), normal(2, 6, 3), normal(2, 6, 4), normal(5, 6))
    for name, how in {"attention": {}, "attention, causal": {"causal": True}}.items():
        yield Row(name, partial(_attended, **how), operands[:3], theirs=partial(_attended_plainly, **how))
        first = partial(_slopes_of, partial(_attended, **how))
        theirs = partial(_slopes_of, partial(_attended_plainly, **how))
        yield Row(f"gradients of {name}", first, operands[:3], theirs=theirs)
    yield Row("attention, mask added", _attended, operands, theirs=_attended_plainly)
    yield Row(
        "scatter_add of rows",
        summed_rows,
        (normal(3, 2),),
        theirs=lambda f, x: f.zeros(4, 2, dtype=x.dtype).index_add(0, f.tensor([0, 2, 0]), x),
    )


ROWS = [
    *_functions(),
    *_pairs(),
    *_reductions(),
    *_movements(),
    *_products(),
    *_loops(),
    *_convolutions(),
    *_conversions(),
    *_only_ours(),
]

#: rows whose derivatives are also compared with finite differences: one for each rule, in a few shapes
CHECKED_BY_DIFFERENCES = {
    "exp",
    "sin",
    "cos",
    "tanh",
    "erf",
    "sigmoid",
    "abs",
    "square",
    "neg",
    "log",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "pow 3",
    "pow 1.5",
    "pow -2",
    "number to the power",
    "add",
    "sub",
    "mul",
    "div",
    "pow",
    "minimum",
    "maximum",
    "where",
    "masked_fill",
    "clamp -0.5 0.5",
    "sum dim=(0, 2) keepdim=False",
    "mean dim=None keepdim=False",
    "amax dim=-1 keepdim=False",
    "amin dim=(0, 2) keepdim=True",
    "var dim=(1,) keepdim=True",
    "std dim=0 keepdim=False",
    "logsumexp dim=-1 keepdim=False",
    "norm 2 dim=0 keepdim=False",
    "norm 3 dim=None keepdim=False",
    "max along 0",
    "reshape",
    "permute",
    "expand",
    "repeat",
    "flip",
    "split",
    "cat",
    "stack",
    "slices",
    "integer index",
    "gather",
    "written by index",
    "tril",
    "scatter_add",
    "scatter_add of rows",
    "scan",
    "custom rule",
    "results of one rule",
    "attention",
    "attention, causal",
    "attention, mask added",
    "gradients of attention",
    "conv2d",
    "conv_transpose1d",
    "matmul [2, 3] @ [3, 4]",
    "matmul [5, 1, 2, 3] @ [4, 3, 2]",
    "matmul [3] @ [3]",
}
#: rows that are also run in float16 and bfloat16: one of each kind
IN_SIXTEEN_BITS = {
    "exp",
    "log",
    "sqrt",
    "tanh",
    "sigmoid",
    "relu",
    "pow 2",
    "add",
    "mul",
    "div",
    "maximum",
    "where",
    "comparisons",
    "sum dim=(0, 2) keepdim=False",
    "mean dim=None keepdim=False",
    "amax dim=-1 keepdim=False",
    "reshape",
    "expand",
    "cat",
    "slices",
    "integer index",
    "matmul [2, 3] @ [3, 4]",
    "matmul [5, 2, 3] @ [5, 3, 4]",
    "attention",
    "argmax 1",
}
assert {row.name for row in ROWS} >= CHECKED_BY_DIFFERENCES | IN_SIXTEEN_BITS
