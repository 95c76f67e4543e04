"""The LLVM reading of the arithmetic against NumPy's, and the elementary functions against float64."""

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from pullback.codegen import mathematics
from pullback.codegen.arithmetic import REDUCTIONS, LLVMArithmetic
from pullback.codegen.registers import Value
from pullback.codegen.target import Abilities, abilities_of
from pullback.codegen.text import Writer, code
from pullback.graph.types import (
    ALL,
    BOOL,
    FLOAT,
    DType,
    bfloat16,
    bool_,
    decode_bfloat16,
    encode_bfloat16,
    float16,
    float32,
    float64,
    int8,
    int32,
    int64,
    round_to,
    to_carrier,
    to_storage,
    uint8,
    uint32,
)
from pullback.ops.arithmetic import NumPyArithmetic
from pullback.runtime.jit import host_target, load

COMPUTE = [dtype for dtype in ALL if dtype.compute is dtype]
LANES = [1, 4, 8, 16]
REFERENCE = NumPyArithmetic()
ABILITIES = abilities_of(host_target())
HALF = ABILITIES.half_conversions


class Kernel(NamedTuple):
    """`emit(writer, arithmetic, pointers)` writes the code that reads and writes the arrays at `pointers`."""

    emit: Callable[[Writer, LLVMArithmetic, list[str]], None]
    lanes: int
    arrays: Sequence[np.ndarray]
    abilities: Abilities = ABILITIES


def run(*kernels: Kernel) -> None:
    """Compile the kernels, all at once, and run each on its arrays."""
    codes = []
    for kernel in kernels:
        writer = Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])
        pointers = []
        for slot in range(len(kernel.arrays)):
            place = writer.op(f"getelementptr ptr, ptr %args, i64 {slot}")
            pointers.append(writer.op(f"load ptr, ptr {place}"))
        kernel.emit(writer, LLVMArithmetic(writer, kernel.lanes, kernel.abilities), pointers)
        codes.append(code("arithmetic_test", writer))
    addresses = load(codes)
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    for kernel, built in zip(kernels, codes, strict=True):
        arguments = (ctypes.c_void_p * len(kernel.arrays))(*(array.ctypes.data for array in kernel.arrays))
        prototype(addresses[built.name])(ctypes.addressof(arguments), None, 0)


def elementwise(
    bodies: Sequence[Callable[..., Value]], results: Sequence[DType], inputs: Sequence[np.ndarray], lanes: int
) -> tuple[Kernel, list[np.ndarray]]:
    """A kernel that applies each body to all elements of the inputs (stored as compute types), and its results."""
    count = inputs[0].size
    assert count % lanes == 0
    outputs = [np.zeros(count, dtype.storage) for dtype in results]
    given = [REFERENCE.dtype(array) for array in inputs]

    def emit(writer: Writer, a: LLVMArithmetic, pointers: list[str]) -> None:
        for body, dtype, output in zip(bodies, results, pointers[len(inputs) :], strict=True):
            with writer.loop(0, count, lanes, as_written=True) as i:
                values = [a.load(at(writer, p, d, i), d) for p, d in zip(pointers, given, strict=False)]
                a.store(body(a, *values), at(writer, output, dtype, i), dtype)

    return Kernel(emit, lanes, [*inputs, *outputs]), outputs


def at(writer: Writer, pointer: str, dtype: DType, index: str | int) -> str:
    return writer.op(f"getelementptr i{8 * dtype.itemsize}, ptr {pointer}, i64 {index}")


def apply(
    body: Callable[..., Value], result: DType, *inputs: np.ndarray, lanes: int = 8, abilities: Abilities = ABILITIES
) -> np.ndarray:
    kernel, (output,) = elementwise([body], [result], inputs, lanes)
    run(kernel._replace(abilities=abilities))
    return output


def awkward(dtype: DType) -> np.ndarray:
    """The values where mistakes hide."""
    if dtype is bool_:
        return np.array([False, True])
    if dtype.category == FLOAT:
        limits = np.finfo(dtype.carrier)
        sizes = [0, limits.smallest_subnormal, limits.tiny, 0.1, 0.5, 1, 1.5, 2.5, 3, 7, 100.7, 1e9, limits.max, np.inf]
        return np.array([*sizes, *(-size for size in sizes), np.nan], dtype.carrier)
    information = np.iinfo(dtype.carrier)
    small = [0, 1, 2, 3, 7, 10, 63, 100]
    negative = [-n for n in small[1:]] if information.min else []
    return np.array([*small, *negative, information.max, information.max - 1, information.min], dtype.carrier)


def pairs(dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of awkward values, and random ones, to a multiple of 16."""
    values, random = awkward(dtype), np.random.default_rng(0)
    x, y = (grid.ravel() for grid in np.meshgrid(values, values))
    extra = 128 - x.size % 16
    if dtype.category == FLOAT:
        more = random.normal(0, 10, (2, extra)).astype(dtype.carrier)
    else:
        more = random.integers(0, 256, (2, extra)).astype(dtype.carrier)
    return np.concatenate([x, more[0]]), np.concatenate([y, more[1]])


def agree(got: np.ndarray, expected: np.ndarray, zeros: bool = True) -> np.ndarray:
    """Where both are the same value: NaN is NaN, and zeros have one sign unless `zeros` is False."""
    same = got == expected
    if got.dtype.kind == "f":
        if zeros:
            same &= np.signbit(got) == np.signbit(expected)
        same |= np.isnan(got) & np.isnan(expected)
    return same


def methods(dtype: DType) -> dict[str, Callable[..., Any]]:
    """Bodies of two values, by name, that must agree with NumPy to the last bit."""
    binary = ["eq", "ne", "lt", "le", "minimum", "maximum", "add", "mul"]
    unary: list[str] = []
    bodies: dict[str, Callable[..., Any]] = {}
    if dtype.category == FLOAT:
        binary += ["sub", "div", "copysign", "floor_divide", "remainder"]
        unary += ["neg", "abs", "sqrt", "floor", "ceil", "trunc", "rint"]
    else:
        binary += ["bit_and", "bit_or", "bit_xor"]
        unary += ["bit_not"]
    if dtype.category not in (FLOAT, BOOL):
        binary += ["sub", "floor_divide", "remainder"]
        unary += ["neg", "abs"]
        for count in (0, 1, 5, 8 * dtype.itemsize - 1):
            bodies[f"shift_left by {count}"] = lambda a, x, y, count=count: a.shift_left(x, count)
            bodies[f"shift_right by {count}"] = lambda a, x, y, count=count: a.shift_right(x, count)
    if dtype is uint32:
        binary += ["multiply_high"]
    for name in binary:
        bodies[name] = lambda a, x, y, name=name: getattr(a, name)(x, y)
    for name in unary:
        bodies[name] = lambda a, x, y, name=name: getattr(a, name)(x)
    bodies["select"] = lambda a, x, y: a.select(a.lt(x, y), x, y)
    for target in COMPUTE:
        if dtype.category != FLOAT or target.category == FLOAT or target is bool_:
            bodies[f"convert to {target.name}"] = lambda a, x, y, target=target: a.convert(x, target)
        if dtype.itemsize == target.itemsize and bool_ not in (dtype, target):
            bodies[f"bitcast to {target.name}"] = lambda a, x, y, target=target: a.bitcast(x, target)
    for value in (0, 1, 2.5, -1, 1e30, math.inf, math.nan) if dtype.category == FLOAT else (0, 1, 100):
        bodies[f"constant {value}"] = lambda a, x, y, value=value: a.select(a.eq(x, x), a.constant(value, dtype), x)
    return bodies


@pytest.mark.parametrize("dtype", COMPUTE, ids=lambda dtype: dtype.name)
def test_methods_agree_with_numpy(dtype: DType) -> None:
    x, y = pairs(dtype)
    bodies = methods(dtype)
    expected = [np.asarray(body(REFERENCE, x, y)) for body in bodies.values()]
    types = [REFERENCE.dtype(array) for array in expected]
    built = {lanes: elementwise(list(bodies.values()), types, [x, y], lanes) for lanes in LANES}
    run(*(kernel for kernel, _ in built.values()))
    for lanes, (_, outputs) in built.items():
        for name, got, wanted in zip(bodies, outputs, expected, strict=True):
            good = agree(got, wanted, zeros=name not in ("minimum", "maximum"))
            first = int(np.argmin(good))
            where = f"{name}, {lanes} lanes, of {x[first]!r} and {y[first]!r}"
            assert good.all(), f"{where}: {got[first]!r}, not {wanted[first]!r}"


@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda dtype: dtype.name)
def test_floats_become_integers(dtype: DType) -> None:
    x = np.array([0.0, -0.0, 0.9, -0.9, -1.0, 1.5, -1.5, 255.0, 256.0, 1e6, -1e6, 2.0**30, -(2.0**31), 77.7, 3.0, 4.0])
    x = x.astype(dtype.carrier)
    targets = [uint8, int8, int32, uint32, int64]
    bodies = [lambda a, x, target=target: a.convert(x, target) for target in targets]
    for lanes in LANES:
        kernel, outputs = elementwise(bodies, targets, [x], lanes)
        run(kernel)
        for target, output in zip(targets, outputs, strict=True):
            np.testing.assert_array_equal(output, REFERENCE.convert(x, target))


def test_floats_beyond_the_integers_saturate() -> None:
    x = np.array([1e30, -1e30, np.inf, -np.inf, np.nan, 2.0**63, 2.0**31, 0.0], np.float32)
    for target in (uint8, int8):
        assert not apply(lambda a, x, target=target: a.convert(x, target), target, x).any()
    for target in (int32, int64):
        high, low = np.iinfo(target.carrier).max, np.iinfo(target.carrier).min
        got = apply(lambda a, x, target=target: a.convert(x, target), target, x)
        assert got.tolist() == [high, low, high, low, 0, high, high if target is int32 else 2**31, 0]


def test_constants_wrap_and_round_as_in_numpy() -> None:
    x = np.zeros(8, np.float32)
    assert apply(lambda a, x: a.constant(300, uint8), uint8, x)[0] == 44
    assert apply(lambda a, x: a.constant(2**32 - 1, uint32), uint32, x)[0] == 2**32 - 1
    assert apply(lambda a, x: a.constant(-(2**63), int64), int64, x)[0] == -(2**63)
    assert apply(lambda a, x: a.constant(0.1, float32), float32, x)[0] == np.float32(0.1)
    assert apply(lambda a, x: a.constant(1e300, float32), float32, x)[0] == np.inf
    assert apply(lambda a, x: a.constant(0.1, float64), float64, x)[0] == 0.1


def test_shifts_beyond_the_width_leave_zeros_or_the_sign() -> None:
    x = np.array([-5, 5, 0, -1, 2**31 - 1, 1, 2, 3], np.int32)
    assert not apply(lambda a, x: a.shift_left(x, 32), int32, x).any()
    np.testing.assert_array_equal(apply(lambda a, x: a.shift_right(x, 40), int32, x), x >> 31)


@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda dtype: dtype.name)
def test_fma_rounds_once(dtype: DType) -> None:
    eps = np.finfo(dtype.carrier).eps
    x = np.full(16, 1 + eps, dtype.carrier)
    z = np.full(16, -(1 + 2 * eps), dtype.carrier)
    for lanes in LANES:
        assert (apply(lambda a, x, z: a.fma(x, x, z), dtype, x, z, lanes=lanes) == eps * eps).all()


def test_what_is_not_defined_is_refused() -> None:
    a = LLVMArithmetic(Writer("f", []), 8)
    with pytest.raises(TypeError, match="not defined for bool"):
        a.sub(a.constant(True, bool_), a.constant(True, bool_))
    with pytest.raises(TypeError, match="not defined for float32"):
        a.bit_and(a.constant(1, float32), a.constant(1, float32))


# memory


@pytest.mark.parametrize("lanes", LANES)
def test_load_and_store_every_type(lanes: int) -> None:
    kernels, checks = [], []
    for dtype in ALL:
        values = np.resize(awkward(dtype.compute), 32)
        stored, copy = to_storage(values, dtype), np.zeros(32, dtype.storage)
        masked, filled = np.zeros(32, dtype.storage), np.zeros(32, dtype.storage)
        mask = np.arange(32) % 3 == 1

        def emit(writer: Writer, a: LLVMArithmetic, pointers: list[str], dtype: DType = dtype) -> None:
            with writer.loop(0, 32, lanes, as_written=True) as i:
                places = [at(writer, pointer, dtype, i) for pointer in pointers[:4]]
                chosen = a.load(at(writer, pointers[4], bool_, i), bool_)
                value = a.load(places[0], dtype)
                a.store(value, places[1], dtype)
                a.masked_store(value, places[2], dtype, chosen)
                a.store(a.masked_load(places[0], dtype, chosen, a.constant(1, dtype)), places[3], dtype)

        kernels.append(Kernel(emit, lanes, [stored, copy, masked, filled, mask]))
        checks.append((dtype, stored, copy, masked, filled, mask))
    run(*kernels)
    for dtype, stored, copy, masked, filled, mask in checks:
        one = to_storage(np.ones((), dtype.carrier), dtype)
        for got, expected in (
            (copy, stored),
            (masked, np.where(mask, stored, np.zeros((), dtype.storage))),
            (filled, np.where(mask, stored, one)),
        ):
            assert agree(to_carrier(got, dtype), to_carrier(expected, dtype)).all(), dtype.name


def test_masked_access_stays_off_foreign_memory() -> None:
    """The masked-out lanes lie beyond the end of the last readable page."""
    import mmap

    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    whole = np.frombuffer(memory, np.uint8)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    assert protect(ctypes.c_void_p(whole.ctypes.data + page), ctypes.c_size_t(page), 0) == 0
    try:
        for dtype in (uint8, bfloat16, float32, float64):
            tail = whole[page - 3 * dtype.itemsize : page].view(dtype.storage)
            tail[:] = [1, 2, 3]

            def emit(writer: Writer, a: LLVMArithmetic, pointers: list[str], dtype: DType = dtype) -> None:
                inside = a.lt(a.iota(int64), a.constant(3, int64))
                value = a.masked_load(pointers[0], dtype, inside, a.constant(0, dtype))
                a.masked_store(a.add(value, value), pointers[0], dtype, inside)

            before = to_carrier(tail.copy(), dtype)
            run(Kernel(emit, 8, [tail]))
            np.testing.assert_array_equal(to_carrier(tail.copy(), dtype), before + before)
    finally:
        protect(ctypes.c_void_p(whole.ctypes.data + page), ctypes.c_size_t(page), 3)


@pytest.mark.parametrize("half_conversions", [False, True] if HALF else [False])
@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("lanes", [1, 8])
def test_sixteen_bit_floats_round_everywhere(dtype: DType, lanes: int, half_conversions: bool) -> None:
    """Each of the 65536 patterns, the midpoint to the next and that midpoint's neighbours."""
    patterns = np.arange(2**16, dtype=np.uint16)
    exact = decode_bfloat16(patterns) if dtype is bfloat16 else patterns.view(np.float16).astype(np.float32)
    following = np.roll(exact, -1)
    with np.errstate(all="ignore"):
        middle = ((exact.astype(np.float64) + following) / 2).astype(np.float32)
    x = np.concatenate([exact, middle, np.nextafter(middle, np.float32(9e9)), np.nextafter(middle, np.float32(-9e9))])
    expected = round_to(x, dtype)
    rounded = apply(lambda a, x: a.round_to(x, dtype), float32, x, lanes=lanes, abilities=Abilities(half_conversions))
    assert agree(rounded, expected).all()
    stored = apply(lambda a, x: x, dtype, x, lanes=lanes, abilities=Abilities(half_conversions))
    numbers = ~np.isnan(x)
    np.testing.assert_array_equal(stored.view(np.uint16)[numbers], to_storage(x, dtype).view(np.uint16)[numbers])
    if dtype is bfloat16:
        np.testing.assert_array_equal(stored, encode_bfloat16(x))


@pytest.mark.parametrize("half_conversions", [False, True])
@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=lambda dtype: dtype.name)
def test_what_was_read_or_rounded_is_written_without_rounding_again(dtype: DType, half_conversions: bool) -> None:
    writer = Writer("kernel", ["ptr %from", "ptr %to"])
    a = LLVMArithmetic(writer, 8, Abilities(half_conversions))
    rounded = a.round_to(a.load("%from", float32), dtype)
    for value in (rounded, a.load("%from", dtype)):
        before = len(writer.lines)
        a.store(a.round_to(value, dtype), "%to", dtype)
        assert len(writer.lines) == before + 1
    other = float16 if dtype is bfloat16 else bfloat16
    before = len(writer.lines)
    a.store(rounded, "%to", other)
    assert len(writer.lines) > before + 1


# across lanes


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", COMPUTE, ids=lambda dtype: dtype.name)
def test_reductions_go_by_halves(dtype: DType, lanes: int) -> None:
    kinds = [k for k in REDUCTIONS if dtype.category != FLOAT or not k.startswith("bit")]
    plain = np.random.default_rng(1).normal(0, 50, 16).astype(dtype.carrier)
    special = np.resize(awkward(dtype)[::-1], 16)
    kernels, checks = [], []
    for x in (plain, special):
        output = np.zeros(len(kinds), dtype.storage)

        def emit(writer: Writer, a: LLVMArithmetic, pointers: list[str]) -> None:
            value = a.load(pointers[0], dtype)
            for slot, kind in enumerate(kinds):
                result = a.reduce(value, kind)
                LLVMArithmetic(writer, 1).store(result, at(writer, pointers[1], dtype, slot), dtype)

        kernels.append(Kernel(emit, lanes, [x, output]))
        checks.append((x, output))
    run(*kernels)
    for x, output in checks:
        for kind, got in zip(kinds, output, strict=True):
            expected = x[:lanes]
            while expected.size > 1:
                half = expected.size // 2
                expected = getattr(REFERENCE, kind)(expected[:half], expected[half:])
            assert agree(got, expected[0], zeros=False), (kind, got, expected)


@pytest.mark.parametrize("lanes", LANES)
def test_gather_broadcast_and_iota(lanes: int) -> None:
    kernels, checks = [], []
    index = np.random.default_rng(2).integers(0, 40, 16)
    for dtype in ALL:
        values = to_storage(np.random.default_rng(3).normal(0, 60, 40).astype(dtype.carrier), dtype)
        arrays = [values, index, *(np.zeros(16, dtype.storage) for _ in range(4))]

        def emit(writer: Writer, a: LLVMArithmetic, pointers: list[str], dtype: DType = dtype) -> None:
            scalar = LLVMArithmetic(writer, 1, a.abilities)
            a.store(a.gather(pointers[0], a.load(pointers[1], int64), dtype), pointers[2], dtype)
            a.store(a.broadcast(scalar.load(pointers[0], dtype)), pointers[3], dtype)
            a.store(a.broadcast(scalar.constant(1, dtype)), pointers[4], dtype)
            a.store(a.iota(dtype), pointers[5], dtype)

        kernels.append(Kernel(emit, lanes, arrays))
        checks.append((dtype, arrays))
    run(*kernels)
    for dtype, (values, _, gathered, first, one, counted) in checks:
        np.testing.assert_array_equal(gathered[:lanes], values[index[:lanes]])
        np.testing.assert_array_equal(first[:lanes], np.repeat(values[:1], lanes))
        np.testing.assert_array_equal(one[:lanes], to_storage(np.ones(lanes, dtype.carrier), dtype))
        np.testing.assert_array_equal(counted[:lanes], to_storage(np.arange(lanes).astype(dtype.carrier), dtype))


# elementary functions


class FusedNumPy(NumPyArithmetic):
    """NumPy's reading with the fused multiply-add that the reductions of `mathematics` are built on."""

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        wide = np.float64 if np.asarray(x).dtype == np.float32 else np.longdouble
        with np.errstate(all="ignore"):
            return (np.asarray(x, wide) * np.asarray(y, wide) + np.asarray(z, wide)).astype(np.asarray(x).dtype)

    def where_any(self, condition: Any, compute: Callable[[], tuple], otherwise: tuple) -> tuple:
        return tuple(np.where(condition, new, old) for new, old in zip(compute(), otherwise, strict=True))


def _libm(function: Callable[..., float]) -> Callable[..., np.ndarray]:
    """The C library's float64 function, with NaN where Python raises."""

    def one(*arguments: float) -> float:
        try:
            return function(*arguments)
        except ValueError:
            return math.nan

    return lambda *x: np.array([one(*arguments) for arguments in zip(*(v.tolist() for v in x), strict=True)])


#: The function in float64, and the error allowed in float32, in units in the last place.
FUNCTIONS: dict[str, tuple[Callable[..., np.ndarray], float]] = {
    "exp": (np.exp, 1.1),
    "log": (np.log, 1.0),
    "tanh": (np.tanh, 1.5),
    "erf": (_libm(math.erf), 1.1),
    "sin": (_libm(math.sin), 1.0),
    "cos": (_libm(math.cos), 1.0),
}
INTERVALS = {"exp": (-105.0, 90.0), "log": (0.0, 4.0), "tanh": (-10.0, 10.0), "erf": (-4.5, 4.5)}
INTERVALS |= {"sin": (-300.0, 300.0), "cos": (-300.0, 300.0)}


def dense(name: str, count: int = 200_000) -> np.ndarray:
    """Points over the function's interesting interval, near zero and one, and of every exponent and sign."""
    every_exponent = np.arange(0, 2**32, 2**16 + 1).astype(np.uint32).view(np.float32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 88.72283, 88.7229, -103.97, -104.1, 0.625])
    low, high = INTERVALS[name]
    spread = [np.linspace(low, high, count), np.linspace(-2, 2, 50_001), 1 + np.linspace(-1e-3, 1e-3, 20_001)]
    x = np.concatenate([*spread, special]).astype(np.float32)
    x = np.concatenate([x, every_exponent])
    return np.resize(x, x.size + -x.size % 16)


def error_in_ulp(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|got - exact| (float64) in units of the last place of float32; 0 where both are NaN or the same infinity."""
    with np.errstate(all="ignore"):
        nearest = exact.astype(np.float32)
        unit = np.spacing(np.abs(np.where(np.isfinite(nearest), nearest, np.float32(1)))).astype(np.float64)
        error = np.abs(got.astype(np.float64) - exact) / unit
    settled = ~np.isfinite(nearest) & agree(got, nearest)
    return np.where(settled, 0.0, np.where(np.isnan(error), np.inf, error))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_to_the_last_places(name: str) -> None:
    function, allowed = FUNCTIONS[name]
    x = dense(name)

    def body(a: Any, x: Any) -> Any:
        return getattr(a, name)(x)

    built = [elementwise([body], [float32], [x], lanes) for lanes in LANES]
    run(*(kernel for kernel, _ in built))
    scalar = built[0][1][0]
    with np.errstate(all="ignore"):
        exact = function(x.astype(np.float64))
    error = error_in_ulp(scalar, exact)
    worst = int(np.argmax(error))
    assert error[worst] <= allowed, f"{name}({x[worst]!r}) = {scalar[worst]!r}: {error[worst]:.2f} ulp"
    zeros = x == 0
    assert agree(scalar[zeros], exact[zeros].astype(np.float32)).all(), "the sign of zero"
    for lanes, (_, (vector,)) in zip(LANES, built, strict=True):
        assert agree(vector, scalar).all(), f"{lanes} lanes give other bits than one"
    with np.errstate(all="ignore"):
        algorithm = getattr(mathematics, name)(FusedNumPy(), x)
    assert (error_in_ulp(algorithm, exact) <= allowed).all(), "the same code read by NumPy"


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sine_of_large_arguments(name: str) -> None:
    random = np.random.default_rng(4)
    x = np.exp(random.uniform(math.log(1e4), 88.7, 40_000)) * random.choice([-1, 1], 40_000)
    near = np.rint(random.uniform(1, 1e8, 40_000)) * (math.pi / 2)  # near the zeros
    hardest = np.resize([16367173.0 * 2.0**72, 3.4028235e38, 1e5, 99999.99], 16)
    x = np.concatenate([x, near, hardest]).astype(np.float32)
    got = apply(lambda a, x: getattr(a, name)(x), float32, x)
    assert error_in_ulp(got, FUNCTIONS[name][0](x.astype(np.float64))).max() <= 1.0


def test_pow_to_the_last_places() -> None:
    random = np.random.default_rng(5)
    count = 200_000
    x = np.exp(random.uniform(-103, 88.7, count)).astype(np.float32)
    with np.errstate(all="ignore"):
        y = (random.uniform(-105, 90, count) / np.log(x.astype(np.float64))).astype(np.float32)
    x[: count // 2] *= random.choice([-1, 1], count // 2)
    y[: count // 4] = np.rint(y[: count // 4])
    special = [0, 1, 2, 3, 0.5, 1.5, 7, np.inf, 1e-45, 3e38, 1e10, 16777215, 16777217]
    special = np.array([*special, *(-v for v in special), np.nan], np.float32)
    corners = np.resize(np.stack([grid.ravel() for grid in np.meshgrid(special, special)]), (2, 736))
    x, y = np.concatenate([x, corners[0]]), np.concatenate([y, corners[1]])
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
    for lanes in (1, 8):
        got = apply(lambda a, x, y: a.pow(x, y), float32, x, y, lanes=lanes)
        error = error_in_ulp(got, exact)
        worst = int(np.argmax(error))
        assert error[worst] <= 0.6, f"pow({x[worst]!r}, {y[worst]!r}) = {got[worst]!r}: {error[worst]:.2f} ulp"
        with np.errstate(all="ignore"):
            zeros = exact.astype(np.float32) == 0
            assert (np.signbit(got[zeros]) == np.signbit(exact[zeros])).all()


def test_functions_of_float64() -> None:
    random = np.random.default_rng(6)
    x = np.concatenate([awkward(float64), random.normal(0, 5, 128 - awkward(float64).size)])
    names = [*FUNCTIONS, "pow"]
    bodies = [lambda a, x, name=name: getattr(a, name)(x) for name in FUNCTIONS]
    bodies.append(lambda a, x: a.pow(x, a.constant(1.7, float64)))
    for lanes in LANES:
        kernel, outputs = elementwise(bodies, [float64] * len(bodies), [x], lanes)
        run(kernel)
        for name, got in zip(names, outputs, strict=True):
            expected = REFERENCE.pow(x, np.float64(1.7)) if name == "pow" else getattr(REFERENCE, name)(x)
            np.testing.assert_allclose(got, expected, rtol=1e-15, atol=0, err_msg=f"{name}, {lanes} lanes")


@pytest.mark.parametrize("permutes", [0, ABILITIES.permutes] if ABILITIES.permutes else [0])
@pytest.mark.parametrize("lanes", [1, 4, 8, 16, 32])
@pytest.mark.parametrize("size", [2, 4, 8, 16])
def test_lookups_take_the_lowest_bits(size: int, lanes: int, permutes: int) -> None:
    table = tuple(float(i * i + 1) for i in range(size))
    x = np.arange(-40, 88, dtype=np.int32)
    found = apply(lambda a, x: a.lookup(x, table), float32, x, lanes=lanes, abilities=Abilities(permutes=permutes))
    np.testing.assert_array_equal(found, NumPyArithmetic().lookup(x, table))
