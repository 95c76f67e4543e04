"""Values in registers as LLVM assembly: their types, literals and lanes, and one instruction on them at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph.types import FLOAT, DType, bool_
from .target import PLAIN, Abilities
from .text import Writer

REGISTER_TYPES = {"bool": "i1", **{f"{s}int{bits}": f"i{bits}" for s in ("", "u") for bits in (8, 16, 32, 64)}}
REGISTER_TYPES |= {"float16": "float", "bfloat16": "float", "float32": "float", "float64": "double"}
#: How intrinsic names spell an element type: llvm.sqrt.v8f32.
SUFFIXES = {"float": "f32", "double": "f64", "half": "f16"}


@dataclass(frozen=True)
class Value:
    """Elements in a register: an SSA name or a literal, and the type of each element.

    `narrow` is a 16-bit float type that holds the same elements exactly, and the register of its storage type that does
    so, where there is one: what was read or rounded need not be rounded again to be written.
    """

    ref: str
    dtype: DType
    narrow: tuple[DType, str] | None = None


class Registers:
    """Appends instructions on values of `lanes` elements to `writer`."""

    def __init__(self, writer: Writer, lanes: int, abilities: Abilities = PLAIN):
        assert lanes >= 1 and lanes & (lanes - 1) == 0, f"lanes must be a power of two, not {lanes}"
        self.writer, self.lanes, self.abilities = writer, lanes, abilities

    # types and literals

    def dtype(self, x: Value) -> DType:
        return x.dtype

    def llvm_type(self, dtype: DType) -> str:
        """The type of a register that holds `dtype`, such as `<8 x float>`; the 16-bit floats are held as float32."""
        return self._vector(REGISTER_TYPES[dtype.name])

    def _vector(self, element: str) -> str:
        return element if self.lanes == 1 else f"<{self.lanes} x {element}>"

    def _splat(self, element: str, literal: str) -> str:
        return literal if self.lanes == 1 else f"splat ({element} {literal})"

    def constant(self, value: float | int | bool, dtype: DType) -> Value:
        element = REGISTER_TYPES[dtype.name]
        return Value(self._splat(element, literal(value, dtype.compute)), dtype.compute)

    def broadcast(self, scalar: Value) -> Value:
        """A value of one lane, made by `LLVMArithmetic(writer, 1)`, in every lane."""
        if self.lanes == 1:
            return scalar
        element, vector = REGISTER_TYPES[scalar.dtype.name], self.llvm_type(scalar.dtype)
        if not scalar.ref.startswith("%"):
            return Value(self._splat(element, scalar.ref), scalar.dtype)
        first = self.writer.op(f"insertelement {vector} poison, {element} {scalar.ref}, i64 0")
        everywhere = f"shufflevector {vector} {first}, {vector} poison, <{self.lanes} x i32> zeroinitializer"
        return Value(self.writer.op(everywhere), scalar.dtype)

    def iota(self, dtype: DType) -> Value:
        """0, 1, ..., lanes - 1."""
        if self.lanes == 1:
            return self.constant(0, dtype)
        element = REGISTER_TYPES[dtype.name]
        numbers = ", ".join(f"{element} {literal(i, dtype.compute)}" for i in range(self.lanes))
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
        element, vector, ref = REGISTER_TYPES[dtype.name], self.llvm_type(dtype), "poison"
        for index, scalar in enumerate(elements):
            ref = self.writer.op(f"insertelement {vector} {ref}, {element} {scalar.ref}, i64 {index}")
        return Value(ref, dtype)

    def _part(self, x: Value, start: int, of: int) -> Value:
        """Lanes start, ..., start + lanes - 1 of a vector of `of` lanes."""
        vector = f"<{of} x {REGISTER_TYPES[x.dtype.name]}>"
        if self.lanes == 1:
            return Value(self.writer.op(f"extractelement {vector} {x.ref}, i64 {start}"), x.dtype)
        chosen = ", ".join(f"i32 {start + i}" for i in range(self.lanes))
        text = f"shufflevector {vector} {x.ref}, {vector} poison, <{self.lanes} x i32> <{chosen}>"
        return Value(self.writer.op(text), x.dtype)

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
        element = REGISTER_TYPES[dtype.name]
        return ("" if self.lanes == 1 else f"v{self.lanes}") + SUFFIXES.get(element, element)


def literal(value: float | int | bool, dtype: DType) -> str:
    """One element in LLVM's spelling; floats as the bits of a double, which is exact, rounded to `dtype` first."""
    with np.errstate(all="ignore"):
        element = np.asarray(value).astype(dtype.carrier)
    if dtype is bool_:
        return "true" if element else "false"
    if dtype.category == FLOAT:
        return f"0x{int(element.astype(np.float64).view(np.uint64)):016X}"
    return str(int(element))
