"""The operations of `ops.arithmetic.Arithmetic` as LLVM assembly, element by element in registers."""

from __future__ import annotations

from collections.abc import Callable

from ..graph.types import BOOL, FLOAT, DType, bool_, float32, float64, int32, int64, uint32, uint64
from . import mathematics
from .registers import Registers, Value, literal

#: the instruction that permutes so many float32, on x86
_PERMUTATIONS = {8: "llvm.x86.avx2.permps", 16: "llvm.x86.avx512.permvar.sf.512"}


class ElementwiseArithmetic(Registers):
    """Emits the operations of the abstract arithmetic on `lanes` elements at a time into `writer`."""

    # conversions

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
        numbers = ", ".join(f"float {literal(table[i % len(table)], float32)}" for i in range(width))
        part = Registers(self.writer, width, self.abilities)
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


def _by_category(dtype: DType, for_bool: str | None, for_integer: str | None, for_float: str | None) -> str:
    """The instruction for this kind of type; None means that the operation is not defined for it."""
    chosen = for_bool if dtype.category == BOOL else for_float if dtype.category == FLOAT else for_integer
    if chosen is None:
        raise TypeError(f"the operation is not defined for {dtype.name}")
    return chosen
