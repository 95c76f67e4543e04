"""The abstract arithmetic read as LLVM assembly: one expression emitter for scalars and for vectors.

`LLVMArithmetic(writer, lanes)` has the methods of `ops.arithmetic.Arithmetic` and appends instructions to `writer`
as they are called. A value is `lanes` elements of a compute type (bool, integer, float32, float64), held in registers:
a scalar type such as `float` for one lane, `<8 x float>` for eight. The element-wise results do not depend on the
number of lanes, so a loop's vector body and its scalar remainder give the same bits.

Memory holds storage types: `load` and `store` widen and round the 16-bit floats and turn bool into bytes. What is
computed between them stands in `elementwise`.
"""

from __future__ import annotations

from ..graph.types import DType, bfloat16, bool_, float16, float32, int64, uint8, uint32
from .elementwise import ElementwiseArithmetic
from .registers import REGISTER_TYPES, SUFFIXES, Value
from .sixteen_bits import bfloat16_bits, float_of_half, half_bits

_STORAGE_TYPES = REGISTER_TYPES | {"bool": "i8", "float16": "half", "bfloat16": "i16"}

#: What `LLVMArithmetic.reduce` offers: all associative but for rounding, and so bound to a fixed order.
REDUCTIONS = ("add", "mul", "minimum", "maximum", "bit_or", "bit_and")


class LLVMArithmetic(ElementwiseArithmetic):
    """Emits what computes, reads, writes and reduces `lanes` elements at a time into `writer`.

    Without `half_conversions` float16 is converted by integer operations: LLVM would call functions of a compiler's
    run-time library, which a process need not have.
    """

    # across lanes

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

    # memory

    def storage_type(self, dtype: DType) -> str:
        """The type of `lanes` elements of `dtype` in memory, such as `<8 x half>`."""
        return self._vector(_STORAGE_TYPES[dtype.name])

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
        return f"v{self.lanes}{SUFFIXES.get(element, element)}"

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
