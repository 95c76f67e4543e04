"""The abstract arithmetic read as LLVM assembly: one expression emitter for scalars and for vectors.

`LLVMArithmetic(writer, lanes)` has the methods of `ops.arithmetic.Arithmetic` and appends instructions to `writer`
as they are called. A value is `lanes` elements of a compute type (bool, integer, float32, float64), held in registers:
a scalar type such as `float` for one lane, `<8 x float>` for eight. The element-wise results do not depend on the
number of lanes, so a loop's vector body and its scalar remainder give the same bits.

Memory holds storage types: `load` and `store` widen and round the 16-bit floats and turn bool into bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..graph.types import (
    BOOL,
    FLOAT,
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint32,
    uint64,
)
from . import mathematics
from .sixteen_bits import bfloat16_bits, float_of_half, half_bits
from .target import Target, is_x86
from .text import Writer

_REGISTER_TYPES = {"bool": "i1", **{f"{s}int{bits}": f"i{bits}" for s in ("", "u") for bits in (8, 16, 32, 64)}}
_REGISTER_TYPES |= {"float16": "float", "bfloat16": "float", "float32": "float", "float64": "double"}
_STORAGE_TYPES = _REGISTER_TYPES | {"bool": "i8", "float16": "half", "bfloat16": "i16"}
#: How intrinsic names spell an element type: llvm.sqrt.v8f32.
_SUFFIXES = {"float": "f32", "double": "f64", "half": "f16"}

#: What `LLVMArithmetic.reduce` offers: all associative but for rounding, and so bound to a fixed order.
REDUCTIONS = ("add", "mul", "minimum", "maximum", "bit_or", "bit_and")


@dataclass(frozen=True)
class Value:
    """Elements in a register: an SSA name or a literal, and the type of each element.

    `narrow` is a 16-bit float type that holds the same elements exactly, and the register of its storage type that does
    so, where there is one: what was read or rounded need not be rounded again to be written.
    """

    ref: str
    dtype: DType
    narrow: tuple[DType, str] | None = None


class Abilities(NamedTuple):
    """What instructions there are for that LLVM does not find by itself, or would call a function for.

    `half_conversions` tells that the processor converts float16, as all but x86 before F16C (2012) do; `permutes` how
    many float32 one instruction takes from any places of a vector, 0 where there is none.
    """

    half_conversions: bool = True
    permutes: int = 0


#: those of most processors
PLAIN = Abilities()


def abilities_of(target: Target) -> Abilities:
    """The abilities of a processor."""
    if not is_x86(target.triple):
        return PLAIN
    modern = target.cpu in ("x86-64-v3", "x86-64-v4")
    has_permutations = modern or "+avx2" in target.features
    return Abilities(modern or "+f16c" in target.features, target.vector_bytes // 4 if has_permutations else 0)


#: the instruction that permutes so many float32, on x86
_PERMUTATIONS = {8: "llvm.x86.avx2.permps", 16: "llvm.x86.avx512.permvar.sf.512"}


class LLVMArithmetic:
    """Emits the operations of the abstract arithmetic on `lanes` elements at a time into `writer`.

    Without `half_conversions` float16 is converted by integer operations: LLVM would call functions of a compiler's
    run-time library, which a process need not have.
    """

    def __init__(self, writer: Writer, lanes: int, abilities: Abilities = PLAIN):
        assert lanes >= 1 and lanes & (lanes - 1) == 0, f"lanes must be a power of two, not {lanes}"
        self.writer, self.lanes, self.abilities = writer, lanes, abilities

    # types and literals

    def dtype(self, x: Value) -> DType:
        return x.dtype

    def llvm_type(self, dtype: DType) -> str:
        """The type of a register that holds `dtype`, such as `<8 x float>`; the 16-bit floats are held as float32."""
        return self._vector(_REGISTER_TYPES[dtype.name])

    def storage_type(self, dtype: DType) -> str:
        """The type of `lanes` elements of `dtype` in memory, such as `<8 x half>`."""
        return self._vector(_STORAGE_TYPES[dtype.name])

    def _vector(self, element: str) -> str:
        return element if self.lanes == 1 else f"<{self.lanes} x {element}>"

    def _splat(self, element: str, literal: str) -> str:
        return literal if self.lanes == 1 else f"splat ({element} {literal})"

    def constant(self, value: float | int | bool, dtype: DType) -> Value:
        element = _REGISTER_TYPES[dtype.name]
        return Value(self._splat(element, _literal(value, dtype.compute)), dtype.compute)

    def broadcast(self, scalar: Value) -> Value:
        """A value of one lane, made by `LLVMArithmetic(writer, 1)`, in every lane."""
        if self.lanes == 1:
            return scalar
        element, vector = _REGISTER_TYPES[scalar.dtype.name], self.llvm_type(scalar.dtype)
        if not scalar.ref.startswith("%"):
            return Value(self._splat(element, scalar.ref), scalar.dtype)
        first = self.writer.op(f"insertelement {vector} poison, {element} {scalar.ref}, i64 0")
        everywhere = f"shufflevector {vector} {first}, {vector} poison, <{self.lanes} x i32> zeroinitializer"
        return Value(self.writer.op(everywhere), scalar.dtype)

    def iota(self, dtype: DType) -> Value:
        """0, 1, ..., lanes - 1."""
        if self.lanes == 1:
            return self.constant(0, dtype)
        element = _REGISTER_TYPES[dtype.name]
        numbers = ", ".join(f"{element} {_literal(i, dtype.compute)}" for i in range(self.lanes))
        return Value(f"<{numbers}>", dtype.compute)

    def lane(self, x: Value, index: int) -> Value:
        """One lane, as a value of `LLVMArithmetic(writer, 1)`."""
        if self.lanes == 1:
            return x
        return Value(self.writer.op(f"extractelement {self.llvm_type(x.dtype)} {x.ref}, i64 {index}"), x.dtype)

    def _assemble(self, elements: list[Value]) -> Value:
        """The vector of these scalars."""
        dtype = elements[0].dtype
        if self.lanes == 1:
            return elements[0]
        element, vector, ref = _REGISTER_TYPES[dtype.name], self.llvm_type(dtype), "poison"
        for index, scalar in enumerate(elements):
            ref = self.writer.op(f"insertelement {vector} {ref}, {element} {scalar.ref}, i64 {index}")
        return Value(ref, dtype)

    # instructions

    def _op(self, instruction: str, x: Value, y: Value, dtype: DType | None = None) -> Value:
        """`instruction` on two operands of one type; the result is of that type unless `dtype` is given."""
        assert x.dtype is y.dtype, f"operands of {instruction} differ in type: {x.dtype.name} and {y.dtype.name}"
        ref = self.writer.op(f"{instruction} {self.llvm_type(x.dtype)} {x.ref}, {y.ref}")
        return Value(ref, dtype or x.dtype)

    def _cast(self, instruction: str, x: Value, dtype: DType) -> Value:
        text = f"{instruction} {self.llvm_type(x.dtype)} {x.ref} to {self.llvm_type(dtype)}"
        return Value(self.writer.op(text), dtype)

    def _intrinsic(self, name: str, *operands: Value, dtype: DType | None = None, extra: str = "") -> Value:
        """A call of `llvm.<name>` on operands of one type; `dtype` (if it differs) is the result's type.

        `extra` is an operand in LLVM's own spelling, such as the flag of llvm.abs.
        """
        given, dtype = operands[0].dtype, dtype or operands[0].dtype
        suffix = self._suffix(given) if dtype is given else f"{self._suffix(dtype)}.{self._suffix(given)}"
        result, types = self.llvm_type(dtype), [self.llvm_type(operand.dtype) for operand in operands]
        parameters = types + ([extra.split()[0]] if extra else [])
        arguments = [f"{t} {operand.ref}" for t, operand in zip(types, operands, strict=True)]
        arguments += [extra] if extra else []
        self.writer.declare(f"declare {result} @llvm.{name}.{suffix}({', '.join(parameters)})")
        return Value(self.writer.op(f"call {result} @llvm.{name}.{suffix}({', '.join(arguments)})"), dtype)

    def _suffix(self, dtype: DType) -> str:
        element = _REGISTER_TYPES[dtype.name]
        return ("" if self.lanes == 1 else f"v{self.lanes}") + _SUFFIXES.get(element, element)

    def convert(self, x: Value, dtype: DType) -> Value:
        """The value in another type.

        A float becomes int32 or int64 saturated at the type's ends, with NaN as 0. It becomes a smaller type or
        uint32 as its int64 does, whose upper bits are cut off: -1.0 is 255 as uint8. It becomes uint64 as its int64
        does where it is below 2^63, else saturated.
        """
        source, target = x.dtype, dtype.compute
        if source is target:
            return x
        if target is bool_:
            return self.ne(x, self.constant(0, source))
        if source.category == FLOAT:
            if target.category == FLOAT:
                return self._cast("fpext" if target is float64 else "fptrunc", x, target)
            if target is int32 or (source is float32 and target.itemsize == 1):
                return self._short_integer(x, target)
            whole = self.convert(self._intrinsic("fptosi.sat", x, dtype=int64), target)
            if target is not uint64:
                return whole
            beyond = self.le(self.constant(2.0**63, source), x)
            return self.select(beyond, self._intrinsic("fptoui.sat", x, dtype=uint64), whole)
        if target.category == FLOAT:
            return self._cast("uitofp" if source.is_unsigned else "sitofp", x, target)
        if source.itemsize == target.itemsize and source is not bool_:
            return Value(x.ref, target)
        if source.itemsize > target.itemsize:
            return self._cast("trunc", x, target)
        return self._cast("zext" if source.is_unsigned else "sext", x, target)

    def _short_integer(self, x: Value, target: DType) -> Value:
        """float to int32, or float32 to one byte: LLVM's saturating conversion takes one lane at a time on x86.

        A float32 of 2^31 and beyond is a multiple of 256, which leaves 0 in a byte.
        """
        bound = self.constant(2.0**31, x.dtype)
        inside = self.lt(self.abs(x), bound)
        whole = self._cast("fptosi", self.select(inside, x, self.constant(0, x.dtype)), int32)
        if target is not int32:
            return self.convert(whole, target)
        whole = self.select(self.le(bound, x), self.constant(2**31 - 1, int32), whole)
        return self.select(self.le(x, self.neg(bound)), self.constant(-(2**31), int32), whole)

    def bitcast(self, x: Value, dtype: DType) -> Value:
        target = dtype.compute
        assert x.dtype.itemsize == target.itemsize, f"{x.dtype.name} and {target.name} differ in size"
        if bool_ in (x.dtype, target):
            return self.convert(x, target)
        if self.llvm_type(x.dtype) == self.llvm_type(target):
            return Value(x.ref, target)
        return self._cast("bitcast", x, target)

    # floats and integers

    def add(self, x: Value, y: Value) -> Value:
        return self._op(_by_category(x.dtype, "or", "add", "fadd"), x, y)

    def sub(self, x: Value, y: Value) -> Value:
        return self._op(_by_category(x.dtype, None, "sub", "fsub"), x, y)

    def mul(self, x: Value, y: Value) -> Value:
        return self._op(_by_category(x.dtype, "and", "mul", "fmul"), x, y)

    def div(self, x: Value, y: Value) -> Value:
        return self._op(_by_category(x.dtype, None, None, "fdiv"), x, y)

    def neg(self, x: Value) -> Value:
        if x.dtype.category == FLOAT:
            return Value(self.writer.op(f"fneg {self.llvm_type(x.dtype)} {x.ref}"), x.dtype)
        return self.sub(self.constant(0, x.dtype), x)

    def abs(self, x: Value) -> Value:
        if x.dtype.category == FLOAT:
            return self._intrinsic("fabs", x)
        return x if x.dtype.is_unsigned else self._intrinsic("abs", x, extra="i1 false")

    def minimum(self, x: Value, y: Value) -> Value:
        if x.dtype.category == FLOAT:
            return self._nan_or(x, self.select(self.lt(x, y), x, y))
        return self._intrinsic("umin" if x.dtype.is_unsigned else "smin", x, y)

    def maximum(self, x: Value, y: Value) -> Value:
        if x.dtype.category == FLOAT:
            return self._nan_or(x, self.select(self.lt(y, x), x, y))
        return self._intrinsic("umax" if x.dtype.is_unsigned else "smax", x, y)

    def _nan_or(self, x: Value, otherwise: Value) -> Value:
        """`x` where it is NaN.

        A compare and select is x86's own min and max, which give the second operand where either is NaN: only a NaN
        in the first is left to be kept. llvm.minimum also orders the zeros, for about twice the instructions.
        """
        return self.select(self.ne(x, x), x, otherwise)

    def floor_divide(self, x: Value, y: Value) -> Value:
        if x.dtype.category == FLOAT:
            return self._float_floor_divide(x, y)
        quotient, _ = self._floor_divmod(x, y)
        return quotient

    def remainder(self, x: Value, y: Value) -> Value:
        if x.dtype.category == FLOAT:
            return self._float_remainder(x, y)
        _, remainder = self._floor_divmod(x, y)
        return remainder

    def _floor_divmod(self, x: Value, y: Value) -> tuple[Value, Value]:
        """Integer quotient and remainder; the divisors that would trap (0, and -1 under the least value) become 1."""
        divide = _by_category(x.dtype, None, "udiv" if x.dtype.is_unsigned else "sdiv", None)
        zero, one = self.constant(0, x.dtype), self.constant(1, x.dtype)
        by_zero = self.eq(y, zero)
        if divide == "udiv":
            divisor = self.select(by_zero, one, y)
            quotient = self._op(divide, x, divisor)
            rest = self.sub(x, self.mul(quotient, divisor))
            return self.select(by_zero, zero, quotient), self.select(by_zero, zero, rest)
        by_minus_one = self.eq(y, self.constant(-1, x.dtype))
        divisor = self.select(self.bit_or(by_zero, by_minus_one), one, y)
        quotient = self._op(divide, x, divisor)
        rest = self.sub(x, self.mul(quotient, divisor))
        signs_differ = self.lt(self.bit_xor(rest, divisor), zero)
        too_high = self.bit_and(self.ne(rest, zero), signs_differ)
        quotient = self.select(too_high, self.sub(quotient, one), quotient)
        quotient = self.select(by_minus_one, self.neg(x), self.select(by_zero, zero, quotient))
        return quotient, self.select(by_zero, zero, self.select(too_high, self.add(rest, divisor), rest))

    def _float_remainder(self, x: Value, y: Value) -> Value:
        """fmod, moved to the divisor's sign; NaN for a zero divisor, an infinite x or NaN."""
        zero, rest = self.constant(0, x.dtype), self._op("frem", x, y)
        signs_differ = self.bit_xor(self.lt(y, zero), self.lt(rest, zero))
        moved = self.select(signs_differ, self.add(rest, y), rest)
        moved = self.select(self.eq(rest, zero), self.copysign(zero, y), moved)
        return self.select(self.eq(y, zero), rest, moved)

    def _float_floor_divide(self, x: Value, y: Value) -> Value:
        """The floor of the exact quotient, which the floor of the rounded one is not: 1.0 // 0.1 is 9.

        The remainder is subtracted first, so that the division is exact but for rounding, which the last step undoes
        (CPython's and NumPy's way). A zero divisor gives x / y.
        """
        zero, one = self.constant(0, x.dtype), self.constant(1, x.dtype)
        rest, ratio = self._op("frem", x, y), self.div(x, y)
        quotient = self.div(self.sub(x, rest), y)
        signs_differ = self.bit_xor(self.lt(y, zero), self.lt(rest, zero))
        too_high = self.bit_and(self.ne(rest, zero), signs_differ)
        quotient = self.select(too_high, self.sub(quotient, one), quotient)
        whole = self.floor(quotient)
        rounded_down = self.lt(self.constant(0.5, x.dtype), self.sub(quotient, whole))
        whole = self.select(rounded_down, self.add(whole, one), whole)
        whole = self.select(self.eq(quotient, zero), self.copysign(zero, ratio), whole)
        return self.select(self.eq(y, zero), ratio, whole)

    # floats only

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        return self._intrinsic("fma", x, y, z)

    def sqrt(self, x: Value) -> Value:
        return self._intrinsic("sqrt", x)

    def floor(self, x: Value) -> Value:
        return self._intrinsic("floor", x)

    def ceil(self, x: Value) -> Value:
        return self._intrinsic("ceil", x)

    def trunc(self, x: Value) -> Value:
        return self._intrinsic("trunc", x)

    def rint(self, x: Value) -> Value:
        return self._intrinsic("rint", x)

    def copysign(self, magnitude: Value, sign: Value) -> Value:
        return self._intrinsic("copysign", magnitude, sign)

    def exp(self, x: Value) -> Value:
        return mathematics.exp(self, x) if x.dtype is float32 else self._intrinsic("exp", x)

    def log(self, x: Value) -> Value:
        return mathematics.log(self, x) if x.dtype is float32 else self._intrinsic("log", x)

    def sin(self, x: Value) -> Value:
        return mathematics.sin(self, x) if x.dtype is float32 else self._intrinsic("sin", x)

    def cos(self, x: Value) -> Value:
        return mathematics.cos(self, x) if x.dtype is float32 else self._intrinsic("cos", x)

    def tanh(self, x: Value) -> Value:
        return mathematics.tanh(self, x)

    def pow(self, x: Value, y: Value) -> Value:
        return mathematics.pow(self, x, y) if x.dtype is float32 else self._intrinsic("pow", x, y)

    def erf(self, x: Value) -> Value:
        """LLVM has no intrinsic for it: in float64 the C library's function is called lane by lane."""
        if x.dtype is float32:
            return mathematics.erf(self, x)
        self.writer.declare("declare double @erf(double) nounwind willreturn memory(none)")
        lanes = [self.lane(x, index) for index in range(self.lanes)]
        return self._assemble([Value(self.writer.op(f"call double @erf(double {v.ref})"), float64) for v in lanes])

    # comparisons

    def eq(self, x: Value, y: Value) -> Value:
        return self._op(_by_category(x.dtype, "icmp eq", "icmp eq", "fcmp oeq"), x, y, bool_)

    def ne(self, x: Value, y: Value) -> Value:
        return self._op(_by_category(x.dtype, "icmp ne", "icmp ne", "fcmp une"), x, y, bool_)

    def lt(self, x: Value, y: Value) -> Value:
        integer = "icmp ult" if x.dtype.is_unsigned else "icmp slt"
        return self._op(_by_category(x.dtype, integer, integer, "fcmp olt"), x, y, bool_)

    def le(self, x: Value, y: Value) -> Value:
        integer = "icmp ule" if x.dtype.is_unsigned else "icmp sle"
        return self._op(_by_category(x.dtype, integer, integer, "fcmp ole"), x, y, bool_)

    # bits

    def bit_and(self, x: Value, y: Value) -> Value:
        return self._op(_by_category(x.dtype, "and", "and", None), x, y)

    def bit_or(self, x: Value, y: Value) -> Value:
        return self._op(_by_category(x.dtype, "or", "or", None), x, y)

    def bit_xor(self, x: Value, y: Value) -> Value:
        return self._op(_by_category(x.dtype, "xor", "xor", None), x, y)

    def bit_not(self, x: Value) -> Value:
        return self.bit_xor(x, self.constant(True if x.dtype is bool_ else -1, x.dtype))

    def shift_left(self, x: Value, count: int) -> Value:
        width = 8 * x.dtype.itemsize
        # a shift by the whole width is undefined to LLVM: here, as in NumPy, nothing is left
        return self._shift("shl", x, count) if count < width else self.constant(0, x.dtype)

    def shift_right(self, x: Value, count: int) -> Value:
        width = 8 * x.dtype.itemsize
        if x.dtype.is_unsigned:
            return self._shift("lshr", x, count) if count < width else self.constant(0, x.dtype)
        return self._shift("ashr", x, min(count, width - 1))

    def _shift(self, instruction: str, x: Value, count: int) -> Value:
        return self._op(_by_category(x.dtype, None, instruction, None), x, self.constant(count, x.dtype))

    def multiply_high(self, x: Value, y: Value) -> Value:
        assert x.dtype is uint32 and y.dtype is uint32, "multiply_high takes uint32"
        product = self._op("mul", self.convert(x, int64), self.convert(y, int64))
        high = self.writer.op(f"lshr {self.llvm_type(int64)} {product.ref}, {self.constant(32, int64).ref}")
        return self._cast("trunc", Value(high, int64), uint32)

    def select(self, condition: Value, x: Value, y: Value) -> Value:
        assert condition.dtype is bool_ and x.dtype is y.dtype, "select takes a bool and two operands of one type"
        vector = self.llvm_type(x.dtype)
        text = f"select {self.llvm_type(bool_)} {condition.ref}, {vector} {x.ref}, {vector} {y.ref}"
        return Value(self.writer.op(text), x.dtype)

    # across lanes and branches

    def lookup(self, x: Value, table: tuple[float, ...]) -> Value:
        """By permutations of the table, or a tree of choices by the bits of x; either is faster than loads by lanes."""
        width = self.abilities.permutes if self.lanes >= self.abilities.permutes else 0
        if width:
            entries = [self._permuted(x, table[at : at + width], width) for at in range(0, len(table), width)]
        else:
            entries = [self.constant(value, float32) for value in table]
        bit = len(table) // len(entries)
        while len(entries) > 1:
            is_odd = self.ne(self.bit_and(x, self.constant(bit, int32)), self.constant(0, int32))
            pairs = zip(entries[::2], entries[1::2], strict=True)
            entries, bit = [self.select(is_odd, odd, even) for even, odd in pairs], 2 * bit
        return entries[0]

    def _permuted(self, x: Value, table: tuple[float, ...], width: int) -> Value:
        """The entries that the lowest bits of x name, by the instruction for `width` lanes."""
        name, floats, places = _PERMUTATIONS[width], f"<{width} x float>", f"<{width} x i32>"
        self.writer.declare(f"declare {floats} @{name}({floats}, {places})")
        numbers = ", ".join(f"float {_literal(table[i % len(table)], float32)}" for i in range(width))
        part = LLVMArithmetic(self.writer, width, self.abilities)
        found = []
        for start in range(0, self.lanes, width):
            place = x if self.lanes == width else part._part(x, start, self.lanes)
            found.append(self.writer.op(f"call {floats} @{name}({floats} <{numbers}>, {places} {place.ref})"))
        while len(found) > 1:
            pairs = zip(found[::2], found[1::2], strict=True)
            found, width = [self._side_by_side(low, high, width) for low, high in pairs], 2 * width
        return Value(found[0], float32)

    def _side_by_side(self, low: str, high: str, width: int) -> str:
        """Two vectors of `width` floats as one."""
        order = ", ".join(f"i32 {i}" for i in range(2 * width))
        type_ = f"<{width} x float>"
        return self.writer.op(f"shufflevector {type_} {low}, {type_} {high}, <{2 * width} x i32> <{order}>")

    def any(self, condition: Value) -> str:
        """The i1 that tells whether the bool holds in some lane."""
        if self.lanes == 1:
            return condition.ref
        bits = self.writer.op(f"bitcast {self.llvm_type(bool_)} {condition.ref} to i{self.lanes}")
        return self.writer.op(f"icmp ne i{self.lanes} {bits}, 0")

    def where_any(
        self, condition: Value, compute: Callable[[], tuple[Value, ...]], otherwise: tuple[Value, ...]
    ) -> tuple[Value, ...]:
        """Lane by lane `compute()` where `condition` holds, else `otherwise`.

        `compute`'s code is jumped over where no lane asks for it: for what is dear and seldom needed.
        """
        results = [self.writer.variable(self.llvm_type(value.dtype), value.ref) for value in otherwise]
        with self.writer.when(self.any(condition)):
            for result, computed, value in zip(results, compute(), otherwise, strict=True):
                result.set(self.select(condition, computed, value).ref)
        return tuple(Value(r.get(), value.dtype) for r, value in zip(results, otherwise, strict=True))

    def reduce(self, x: Value, kind: str) -> Value:
        """All lanes combined to one, a value of `LLVMArithmetic(writer, 1)`; `kind` is one of `REDUCTIONS`.

        The order is fixed: lane i is joined with lane i + lanes / 2, and so on by halves.
        """
        assert kind in REDUCTIONS, f"no reduction {kind!r}; there are {', '.join(REDUCTIONS)}"
        if self.lanes == 1:
            return x
        half = LLVMArithmetic(self.writer, self.lanes // 2, self.abilities)
        low, high = half._part(x, 0, self.lanes), half._part(x, self.lanes // 2, self.lanes)
        return half.reduce(getattr(half, kind)(low, high), kind)

    def _part(self, x: Value, start: int, of: int) -> Value:
        """Lanes start, ..., start + lanes - 1 of a vector of `of` lanes."""
        vector = f"<{of} x {_REGISTER_TYPES[x.dtype.name]}>"
        if self.lanes == 1:
            return Value(self.writer.op(f"extractelement {vector} {x.ref}, i64 {start}"), x.dtype)
        chosen = ", ".join(f"i32 {start + i}" for i in range(self.lanes))
        text = f"shufflevector {vector} {x.ref}, {vector} poison, <{self.lanes} x i32> <{chosen}>"
        return Value(self.writer.op(text), x.dtype)

    # memory

    def load(self, pointer: str, dtype: DType, align: int | None = None) -> Value:
        """`lanes` neighbouring elements stored as `dtype`, in its compute type; `align` in bytes."""
        stored = self.writer.op(f"load {self.storage_type(dtype)}, ptr {pointer}, align {align or dtype.itemsize}")
        return self._decode(stored, dtype)

    def store(self, value: Value, pointer: str, dtype: DType, align: int | None = None) -> None:
        """Store `lanes` neighbouring elements as `dtype`, rounding the 16-bit floats; `align` in bytes."""
        stored = self._encode(value, dtype)
        place = f"ptr {pointer}, align {align or dtype.itemsize}"
        self.writer.line(f"store {self.storage_type(dtype)} {stored}, {place}")

    def masked_load(self, pointer: str, dtype: DType, mask: Value, fill: Value) -> Value:
        """As `load`, with `fill` (of the compute type) where `mask` does not hold: nothing is read there."""
        if self.lanes == 1:
            result = self.writer.variable(self.llvm_type(dtype), fill.ref)
            with self.writer.when(mask.ref):
                result.set(self.load(pointer, dtype).ref)
            return Value(result.get(), dtype.compute)
        vector, masks = self.storage_type(dtype), self.llvm_type(bool_)
        name = f"llvm.masked.load.{self._storage_suffix(dtype)}.p0"
        self.writer.declare(f"declare {vector} @{name}(ptr, {masks}, {vector})")
        operands = f"ptr align {dtype.itemsize} {pointer}, {masks} {mask.ref}, {vector} zeroinitializer"
        loaded = self._decode(self.writer.op(f"call {vector} @{name}({operands})"), dtype)
        return self.select(mask, loaded, fill)

    def masked_store(self, value: Value, pointer: str, dtype: DType, mask: Value) -> None:
        """As `store`, where `mask` holds: nothing is written elsewhere."""
        if self.lanes == 1:
            with self.writer.when(mask.ref):
                self.store(value, pointer, dtype)
            return
        stored = self._encode(value, dtype)
        vector, masks = self.storage_type(dtype), self.llvm_type(bool_)
        name = f"llvm.masked.store.{self._storage_suffix(dtype)}.p0"
        self.writer.declare(f"declare void @{name}({vector}, ptr, {masks})")
        held = mask.ref
        if self.storage_type(dtype).endswith((" i8>", " i16>", " i32>")):
            # LLVM 22 for AVX-512 makes a truncating store of one lane, which it knows, one of the lane's whole register
            true = self.broadcast(Value(self.writer.unknown_truth(), bool_)).ref
            held = self.writer.op(f"and {masks} {held}, {true}")
        operands = f"{vector} {stored}, ptr align {dtype.itemsize} {pointer}, {masks} {held}"
        self.writer.line(f"call void @{name}({operands})")

    def gather(self, base: str, index: Value, dtype: DType) -> Value:
        """Element index[i] of the array at `base` in lane i, in the compute type; `index` is int64.

        One scalar load a lane: from the first cache that gave 2.2 G elements/s on a Zen 3 core, AVX2's gather
        instruction 1.7, and the 8- and 16-bit types have none.
        """
        assert index.dtype is int64, f"gather takes int64 indexes, not {index.dtype.name}"
        element, refs = _STORAGE_TYPES[dtype.name], []
        for number in range(self.lanes):
            place = f"getelementptr {element}, ptr {base}, i64 {self.lane(index, number).ref}"
            refs.append(self.writer.op(f"load {element}, ptr {self.writer.op(place)}, align {dtype.itemsize}"))
        if self.lanes == 1:
            return self._decode(refs[0], dtype)
        vector, stored = self.storage_type(dtype), "poison"
        for number, ref in enumerate(refs):
            stored = self.writer.op(f"insertelement {vector} {stored}, {element} {ref}, i64 {number}")
        return self._decode(stored, dtype)

    def round_to(self, value: Value, dtype: DType) -> Value:
        """The value rounded to what `dtype` can hold, in the type that it is computed in: a store and a load without
        memory.
        """
        if dtype not in (float16, bfloat16) or (value.narrow is not None and value.narrow[0] is dtype):
            return value
        return self._decode(self._encode(self.convert(value, dtype.compute), dtype), dtype)

    def _storage_suffix(self, dtype: DType) -> str:
        element = _STORAGE_TYPES[dtype.name]
        return f"v{self.lanes}{_SUFFIXES.get(element, element)}"

    def _decode(self, stored: str, dtype: DType) -> Value:
        """The compute value of a register of storage type."""
        if dtype is bool_:
            return self.ne(Value(stored, uint8), self.constant(0, uint8))
        if dtype in (float16, bfloat16):
            return Value(self._widened(stored, dtype), float32, (dtype, stored))
        return Value(stored, dtype)

    def _widened(self, stored: str, dtype: DType) -> str:
        """The float32 register of 16-bit floats in a register of storage type."""
        if dtype is bfloat16:
            return self.bitcast(self.shift_left(self._widen(stored), 16), float32).ref
        if self.abilities.half_conversions:
            return self.writer.op(f"fpext {self.storage_type(dtype)} {stored} to {self.llvm_type(float32)}")
        bits = self.writer.op(f"bitcast {self.storage_type(dtype)} {stored} to {self._vector('i16')}")
        return float_of_half(self, self._widen(bits)).ref

    def _widen(self, sixteen_bits: str) -> Value:
        return Value(self.writer.op(f"zext {self._vector('i16')} {sixteen_bits} to {self.llvm_type(uint32)}"), uint32)

    def _encode(self, value: Value, dtype: DType) -> str:
        """The register of storage type for a compute value."""
        assert value.dtype is dtype.compute, f"{dtype.name} is stored from {dtype.compute.name}, not {value.dtype.name}"
        if dtype is bool_:
            return self.convert(value, uint8).ref
        if value.narrow is not None and value.narrow[0] is dtype:
            return value.narrow[1]
        if dtype is float16 and self.abilities.half_conversions:
            return self.writer.op(f"fptrunc {self.llvm_type(float32)} {value.ref} to {self.storage_type(dtype)}")
        if dtype in (float16, bfloat16):
            bits = bfloat16_bits(self, value) if dtype is bfloat16 else half_bits(self, value)
            narrow = self.writer.op(f"trunc {self.llvm_type(uint32)} {bits.ref} to {self._vector('i16')}")
            if dtype is bfloat16:
                return narrow
            return self.writer.op(f"bitcast {self._vector('i16')} {narrow} to {self.storage_type(dtype)}")
        return value.ref


def _by_category(dtype: DType, for_bool: str | None, for_integer: str | None, for_float: str | None) -> str:
    """The instruction for this kind of type; None means that the operation is not defined for it."""
    chosen = for_bool if dtype.category == BOOL else for_float if dtype.category == FLOAT else for_integer
    if chosen is None:
        raise TypeError(f"the operation is not defined for {dtype.name}")
    return chosen


def _literal(value: float | int | bool, dtype: DType) -> str:
    """One element in LLVM's spelling; floats as the bits of a double, which is exact, rounded to `dtype` first."""
    with np.errstate(all="ignore"):
        element = np.asarray(value).astype(dtype.carrier)
    if dtype is bool_:
        return "true" if element else "false"
    if dtype.category == FLOAT:
        return f"0x{int(element.astype(np.float64).view(np.uint64)):016X}"
    return str(int(element))
