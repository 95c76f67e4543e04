"""Elementwise operations: a body against the abstract arithmetic and one gradient rule an input.

Operands broadcast as in NumPy; the rules answer in the result's shape and the driver of differentiation sums back.
Dtypes of the operands are equal here: promotion has happened where the user's call was taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph.node import Node, Shape
from ..graph.types import BOOL, FLOAT, INTEGER, DType, bool_, round_to, uint32
from .arithmetic import Arithmetic, NumPyArithmetic, Value
from .primitive import ELEMENTWISE, Primitive, Pullback, apply, check_dtype, constant, register, user_source

_REFERENCE = NumPyArithmetic()
_ANY, _NUMBERS, _BITS = (BOOL, INTEGER, FLOAT), (INTEGER, FLOAT), (BOOL, INTEGER)


def broadcast_shapes(name: str, *shapes: Shape) -> Shape:
    """The shape that all of `shapes` broadcast to; ShapeError naming the axis where they do not."""
    if all(s == shapes[0] for s in shapes):
        return shapes[0]
    rank = max(map(len, shapes))
    result = []
    for axis in range(-rank, 0):
        sizes = {s[axis] for s in shapes if len(s) >= -axis} - {1}
        if len(sizes) > 1:
            listed = " and ".join(str(list(s)) for s in shapes)
            raise ShapeError(
                f"{name}: shapes {listed} do not broadcast: sizes {sorted(sizes)} at axis {axis} differ and none is 1 "
                f"(at {user_source()}). Reshape or expand one of them so that the sizes match from the last axis on."
            )
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def evaluate_body(node: Node, *arrays: np.ndarray) -> np.ndarray:
    """The reference meaning of an elementwise node: its body read by NumPy, rounded to the node's dtype."""
    attributes = {k: v for k, v in node.attributes.items() if k != "shape"}
    return round_to(np.asarray(node.op.body(_REFERENCE, *arrays, **attributes)), node.dtype)


def elementwise(
    name: str,
    body: Callable[..., Value],
    *pullbacks: Pullback | None,
    takes: tuple[int, ...] = _NUMBERS,
    result: DType | None = None,
    cost: int = 1,
    linear: bool = False,
) -> Primitive:
    """Declare an elementwise primitive of dtypes in the categories `takes`, giving the operands' dtype or `result`."""

    def infer(*inputs: Node, **_: Any) -> tuple[Shape, DType]:
        dtype = inputs[-1].dtype
        if dtype.category not in takes or any(i.dtype is not dtype for i in inputs):
            wanted = " or ".join(("bool", "integer", "floating point")[c] for c in takes)
            raise DTypeError(
                f"{name} takes {wanted} operands of one dtype, got {', '.join(i.dtype.name for i in inputs)} "
                f"(at {user_source()}). Convert with .to(dtype)."
            )
        return broadcast_shapes(name, *(i.shape for i in inputs)), result or dtype

    return register(Primitive(name, ELEMENTWISE, infer, evaluate_body, pullbacks, body, cost, linear))


def scalar(value: float, like: Node) -> Node:
    """The number `value` in the dtype of `like`."""
    return constant(value, like.dtype)


# ---- arithmetic

ADD = elementwise("add", lambda a, x, y: a.add(x, y), lambda n, g: g, lambda n, g: g, takes=_ANY, linear=True)
SUB = elementwise("sub", lambda a, x, y: a.sub(x, y), lambda n, g: g, lambda n, g: neg(g), linear=True)
MUL = elementwise(
    "mul", lambda a, x, y: a.mul(x, y), lambda n, g: mul(g, n.inputs[1]), lambda n, g: mul(g, n.inputs[0])
)
DIV = elementwise(
    "div",
    lambda a, x, y: a.div(x, y),
    lambda n, g: div(g, n.inputs[1]),
    lambda n, g: neg(div(mul(g, n), n.inputs[1])),
    takes=(FLOAT,),
    cost=4,
)
FLOOR_DIVIDE = elementwise("floor_divide", lambda a, x, y: a.floor_divide(x, y), cost=8)
REMAINDER = elementwise(
    "remainder",
    lambda a, x, y: a.remainder(x, y),
    lambda n, g: g,
    lambda n, g: neg(mul(g, floor_divide(*n.inputs))),
    cost=8,
)
NEG = elementwise("neg", lambda a, x: a.neg(x), lambda n, g: neg(g), linear=True)
ABS = elementwise("abs", lambda a, x: a.abs(x), lambda n, g: mul(g, sign(n.inputs[0])))


def _pick(chosen: int, loses: Callable[[Node, Node], Node]) -> Pullback:
    """The gradient of minimum and maximum: to the operand that did not lose, half to each where they are equal.

    Where an operand is NaN neither loses and both get all of it, as PyTorch has it.
    """

    def rule(n: Node, g: Node) -> Node:
        mine, other = n.inputs[chosen], n.inputs[1 - chosen]
        half = where(eq(mine, other), mul(g, scalar(0.5, g)), g)
        return where(loses(mine, other), scalar(0.0, g), half)

    return rule


def _greater(x: Node, y: Node) -> Node:
    return lt(y, x)


def _less(x: Node, y: Node) -> Node:
    return lt(x, y)


MINIMUM = elementwise("minimum", lambda a, x, y: a.minimum(x, y), _pick(0, _greater), _pick(1, _greater))
MAXIMUM = elementwise("maximum", lambda a, x, y: a.maximum(x, y), _pick(0, _less), _pick(1, _less))

# ---- functions of floats


def float_function(name: str, body: Callable[..., Value], pullback: Pullback | None, cost: int) -> Primitive:
    """Declare an elementwise primitive of one float."""
    return elementwise(name, body, pullback, takes=(FLOAT,), cost=cost)


SQRT = float_function("sqrt", lambda a, x: a.sqrt(x), lambda n, g: div(mul(g, scalar(0.5, g)), n), 4)
EXP = float_function("exp", lambda a, x: a.exp(x), lambda n, g: mul(g, n), 12)
LOG = float_function("log", lambda a, x: a.log(x), lambda n, g: div(g, n.inputs[0]), 16)
SIN = float_function("sin", lambda a, x: a.sin(x), lambda n, g: mul(g, cos(n.inputs[0])), 20)
COS = float_function("cos", lambda a, x: a.cos(x), lambda n, g: neg(mul(g, sin(n.inputs[0]))), 20)
TANH = float_function("tanh", lambda a, x: a.tanh(x), lambda n, g: mul(g, sub(scalar(1.0, n), mul(n, n))), 16)
ERF = float_function(
    "erf",
    lambda a, x: a.erf(x),
    lambda n, g: mul(g, mul(scalar(2 / math.sqrt(math.pi), g), exp(neg(mul(n.inputs[0], n.inputs[0]))))),
    24,
)


def _sigmoid_body(a: Arithmetic, x: Value) -> Value:
    one = a.constant(1.0, a.dtype(x))
    return a.div(one, a.add(one, a.exp(a.neg(x))))


SIGMOID = float_function("sigmoid", _sigmoid_body, lambda n, g: mul(g, mul(n, sub(scalar(1.0, n), n))), 16)
POW = elementwise(
    "pow",
    lambda a, x, y: a.pow(x, y),
    lambda n, g: _power_pullback(n, g),
    lambda n, g: mul(g, _times_log(n, n.inputs[0])),
    takes=(FLOAT,),
    cost=40,
)
FLOOR = float_function("floor", lambda a, x: a.floor(x), None, 1)
CEIL = float_function("ceil", lambda a, x: a.ceil(x), None, 1)
TRUNC = float_function("trunc", lambda a, x: a.trunc(x), None, 1)
RINT = float_function("rint", lambda a, x: a.rint(x), None, 1)


def _sign_body(a: Arithmetic, x: Value) -> Value:
    dtype = a.dtype(x)
    zero, one = a.constant(0, dtype), a.constant(1, dtype)
    return a.sub(a.select(a.lt(zero, x), one, zero), a.select(a.lt(x, zero), one, zero))


SIGN = elementwise("sign", _sign_body, None, cost=2)


def _power_pullback(node: Node, cotangent: Node) -> Node:
    """The base's cotangent; 0 where the exponent is 0, also at base 0, where the formula would give 0 * inf."""
    base, exponent = node.inputs
    slope = mul(exponent, power(base, sub(exponent, scalar(1.0, exponent))))
    zero = scalar(0.0, cotangent)
    return where(eq(exponent, scalar(0.0, exponent)), zero, mul(cotangent, slope))


def _times_log(power_: Node, base: Node) -> Node:
    """power * log(base), and 0 where the base is 0 and the power is not infinite, as PyTorch has it."""
    zero = scalar(0.0, base)
    return where(bit_and(eq(base, zero), le(zero, power_.inputs[1])), zero, mul(power_, log(base)))


#: the same value, in memory of its own: the compiler puts it where something must be laid out anew
COPY = elementwise("copy", lambda a, x: x, lambda n, g: g, takes=_ANY, linear=True)

# ---- comparisons and choice

EQ = elementwise("eq", lambda a, x, y: a.eq(x, y), takes=_ANY, result=bool_)
NE = elementwise("ne", lambda a, x, y: a.ne(x, y), takes=_ANY, result=bool_)
LT = elementwise("lt", lambda a, x, y: a.lt(x, y), takes=_ANY, result=bool_)
LE = elementwise("le", lambda a, x, y: a.le(x, y), takes=_ANY, result=bool_)


def _infer_where(condition: Node, x: Node, y: Node) -> tuple[Shape, DType]:
    if condition.dtype is not bool_ or x.dtype is not y.dtype:
        raise DTypeError(
            f"where takes a bool condition and two branches of one dtype, got {condition.dtype.name}, {x.dtype.name} "
            f"and {y.dtype.name} (at {user_source()})"
        )
    return broadcast_shapes("where", condition.shape, x.shape, y.shape), x.dtype


WHERE = register(
    Primitive(
        "where",
        ELEMENTWISE,
        _infer_where,
        evaluate_body,
        (
            None,
            lambda n, g: where(n.inputs[0], g, scalar(0.0, g)),
            lambda n, g: where(n.inputs[0], scalar(0.0, g), g),
        ),
        lambda a, c, x, y: a.select(c, x, y),
    )
)

# ---- bits

BIT_AND = elementwise("bit_and", lambda a, x, y: a.bit_and(x, y), takes=_BITS)
BIT_OR = elementwise("bit_or", lambda a, x, y: a.bit_or(x, y), takes=_BITS)
BIT_XOR = elementwise("bit_xor", lambda a, x, y: a.bit_xor(x, y), takes=_BITS)
BIT_NOT = elementwise("bit_not", lambda a, x: a.bit_not(x), takes=_BITS)
SHIFT_RIGHT = elementwise("shift_right", lambda a, x, count: a.shift_right(x, count), takes=(INTEGER,))

# ---- types

CONVERT = register(
    Primitive(
        "convert",
        ELEMENTWISE,
        lambda x, *, dtype: (x.shape, dtype),
        lambda node, x: round_to(_REFERENCE.convert(x, node.dtype.compute), node.dtype),
        (lambda n, g: convert(g, n.inputs[0].dtype),),
        lambda a, x, dtype: a.convert(x, dtype.compute),
        linear=True,
    )
)

# ---- the random generator


def _philox_body(
    a: Arithmetic, low: Value, high: Value, offset: Value, stream: Value, key: Value, key_high: Value, word: int
) -> Value:
    """Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), one word of its four.

    The counter is (low, high, offset, stream): the element's index and the place in the generator's sequence.
    """
    counter = [low, high, offset, stream]
    multipliers = a.constant(0xD2511F53, uint32), a.constant(0xCD9E8D57, uint32)
    weyl = a.constant(0x9E3779B9, uint32), a.constant(0xBB67AE85, uint32)
    for _ in range(10):
        high0, low0 = a.multiply_high(multipliers[0], counter[0]), a.mul(multipliers[0], counter[0])
        high1, low1 = a.multiply_high(multipliers[1], counter[2]), a.mul(multipliers[1], counter[2])
        counter = [
            a.bit_xor(a.bit_xor(high1, counter[1]), key),
            low1,
            a.bit_xor(a.bit_xor(high0, counter[3]), key_high),
            low0,
        ]
        key, key_high = a.add(key, weyl[0]), a.add(key_high, weyl[1])
    return counter[word]


PHILOX = elementwise("philox", _philox_body, takes=(INTEGER,), result=uint32, cost=60)


# ---- building nodes; each takes and gives nodes


Builder = Callable[..., Node]


def builder(primitive: Primitive) -> Builder:
    """A function that makes nodes of `primitive`."""

    def build(*inputs: Node, **attributes: Any) -> Node:
        return apply(primitive, *inputs, **attributes)

    build.__name__ = build.__qualname__ = primitive.name
    build.__doc__ = f"The node of `{primitive.name}` on the given nodes."
    return build


add: Builder = builder(ADD)
sub: Builder = builder(SUB)
mul: Builder = builder(MUL)
div: Builder = builder(DIV)
floor_divide: Builder = builder(FLOOR_DIVIDE)
remainder: Builder = builder(REMAINDER)
copy: Builder = builder(COPY)
neg: Builder = builder(NEG)
absolute: Builder = builder(ABS)
sign: Builder = builder(SIGN)
minimum: Builder = builder(MINIMUM)
maximum: Builder = builder(MAXIMUM)
sqrt: Builder = builder(SQRT)
exp: Builder = builder(EXP)
log: Builder = builder(LOG)
sin: Builder = builder(SIN)
cos: Builder = builder(COS)
tanh: Builder = builder(TANH)
erf: Builder = builder(ERF)
sigmoid: Builder = builder(SIGMOID)
power: Builder = builder(POW)
floor: Builder = builder(FLOOR)
ceil: Builder = builder(CEIL)
trunc: Builder = builder(TRUNC)
rint: Builder = builder(RINT)
eq: Builder = builder(EQ)
ne: Builder = builder(NE)
lt: Builder = builder(LT)
le: Builder = builder(LE)
where: Builder = builder(WHERE)
bit_and: Builder = builder(BIT_AND)
bit_or: Builder = builder(BIT_OR)
bit_xor: Builder = builder(BIT_XOR)
bit_not: Builder = builder(BIT_NOT)


def shift_right(x: Node, count: int) -> Node:
    """Each integer shifted right by `count` bits."""
    return apply(SHIFT_RIGHT, x, count=count)


def convert(x: Node, dtype: DType) -> Node:
    """`x` in another dtype; the same node where it has that dtype already."""
    if x.dtype is dtype:
        return x
    check_dtype(dtype)
    return apply(CONVERT, x, dtype=dtype)


def philox(counter: tuple[Node, Node, Node, Node], key: tuple[Node, Node], word: int) -> Node:
    """One uint32 word (0 to 3) of Philox4x32-10 for each counter; all operands uint32."""
    return apply(PHILOX, *counter, *key, word=word)
