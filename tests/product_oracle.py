"""Matrix products run kernel by kernel on NumPy arrays, and what their results may be off by."""

from __future__ import annotations

import ctypes

import llvmlite.binding as llvm
import numpy as np

from pullback.codegen.matmul import Element, Product, Stage
from pullback.codegen.target import Target
from pullback.codegen.text import Code
from pullback.graph.types import DType
from pullback.runtime.jit import load

#: processors that this one may not be
FOREIGN = {
    "sse": Target("x86-64", "", 16, 16, 32 << 10, 256 << 10, 8 << 20, "x86_64-unknown-linux-gnu"),
    "avx2": Target("x86-64-v3", "", 32, 16, 32 << 10, 512 << 10, 32 << 20, "x86_64-unknown-linux-gnu"),
    "avx512 bf16": Target(
        "sapphirerapids", "-prefer-256-bit", 64, 32, 48 << 10, 2 << 20, 32 << 20, "x86_64-unknown-linux-gnu", True
    ),
    "aarch64": Target("neoverse-n1", "", 16, 32, 64 << 10, 1 << 20, 32 << 20, "aarch64-unknown-linux-gnu"),
    "avx512": Target("x86-64-v4", "-prefer-256-bit", 64, 32, 48 << 10, 2 << 20, 32 << 20, "x86_64-unknown-linux-gnu"),
}


def elements(array: np.ndarray) -> tuple[int, ...]:
    """The strides of `array` in elements."""
    return tuple(stride // array.itemsize for stride in array.strides)


def product_of(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, dtype: DType, left: Element | None = None, right: Element | None = None
) -> Product:
    """C = A @ B of these arrays; `left` and `right` say how operands that are not of `dtype` are stored and read."""
    m, k = a.shape[-2:]
    return Product(c.shape[:-2], m, b.shape[-1], k, elements(a), elements(b), elements(c)[:-1], dtype, left, right)


def aligned(nbytes: int) -> np.ndarray:
    """Bytes that begin at a multiple of 64."""
    memory = np.full(nbytes + 64, 255, np.uint8)  # NaN in every float type
    return memory[-memory.ctypes.data % 64 :][:nbytes]


def run(stages: list[Stage], workspace: int, a: np.ndarray, b: np.ndarray, c: np.ndarray, *extra: np.ndarray) -> None:
    """Run the stages on one thread; tasks go from last to first, since their order must not matter."""
    addresses = load([stage.code for stage in stages])
    shared = aligned(workspace)
    slots = {"a": [a], "b": [b], "c": [c], "workspace": [shared], "epilogue": list(extra)}
    for stage in stages:
        arrays = [array for name in stage.operands for array in slots[name]]
        arguments = (ctypes.c_int64 * len(arrays))(*(array.ctypes.data for array in arrays))
        guard = 64
        scratch = aligned(stage.scratch_bytes + guard)
        scratch[-guard:] = 171
        kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(addresses[stage.code.name])
        for task in reversed(range(stage.tasks)):
            kernel(ctypes.addressof(arguments), scratch.ctypes.data, task)
        assert (scratch[-guard:] == 171).all(), "a kernel wrote past its scratch memory"


def assert_close(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Each element is within a few roundings times sqrt(k) of the exact one, relative to the sum of magnitudes."""
    wide = np.float64 if c.dtype == np.float32 else np.longdouble
    wide_a, wide_b = a.astype(wide), b.astype(wide)
    magnitude = np.abs(wide_a) @ np.abs(wide_b)
    bound = (4 + np.sqrt(a.shape[-1])) * np.finfo(c.dtype).eps * magnitude
    assert (np.abs(c - wide_a @ wide_b) <= bound).all()


def operand(
    rng: np.random.Generator, batch: tuple[int, ...], rows: int, columns: int, dtype: DType, layout: str
) -> np.ndarray:
    """Random values [*batch, rows, columns] laid out by "rows" or "columns", or "sliced": contiguous in neither."""
    if layout == "rows":
        return rng.standard_normal((*batch, rows, columns)).astype(dtype.storage)
    if layout == "columns":
        return rng.standard_normal((*batch, columns, rows)).astype(dtype.storage).swapaxes(-1, -2)
    return rng.standard_normal((*batch, rows, 3, columns, 2)).astype(dtype.storage)[..., 1, :, 1]


def all_codes(codes: list[Code]) -> dict[str, Code]:
    found: dict[str, Code] = {}
    for code in codes:
        found |= {code.name: code} | all_codes(list(code.needs))
    return found


def assembly_of(code: Code, target: Target) -> str:
    """What LLVM makes of the text of `code`, without what it needs, for `target`."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2
    )
    module = llvm.parse_assembly(code.text, llvm.create_context())
    module.verify()
    return machine.emit_assembly(module)
