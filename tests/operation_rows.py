"""What a row of the tables of operations is (tests/ops/table*.py), and the operands that they share."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from oracle import Expression, Value

INF, NAN = math.inf, math.nan
#: what breaks functions of floats: both zeros, ties, both signs, infinities, NaN, tiny and large
AWKWARD = [0.0, -0.0, 1.0, -1.0, 1.0, 0.5, -2.5, 3.5, 1e-30, -1e-3, 40.0, INF, -INF, NAN]
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    """Fixed random numbers, none of them near a kink."""
    values = RANDOM.normal(size=shape)
    return np.asarray(np.where(np.abs(values) < 0.1, values + 0.5, values))


def positive(*shape: int) -> np.ndarray:
    """Fixed random numbers in (0.3, 2)."""
    return RANDOM.uniform(0.3, 2.0, size=shape)


def separated(*shape: int) -> np.ndarray:
    """Fixed random numbers of which no two are near each other, so that the greatest stays the greatest."""
    return (RANDOM.permutation(math.prod(shape)).reshape(shape) - math.prod(shape) / 2 + 0.25) / 3


@dataclass(frozen=True)
class Row:
    """One expression, its operands, and what is asked of it.

    `smooth` rows are also checked to second order.
    `differences` asks for finite differences, `sixteen` for a run in float16 and bfloat16.
    `awkward` holds further operands on which values and first gradients must agree with PyTorch.
    """

    name: str
    expression: Expression
    operands: tuple[Any, ...]
    awkward: tuple[tuple[Any, ...], ...] = ()
    theirs: Expression | None = None
    smooth: bool = True
    dtypes: tuple[str, ...] = ("float64", "float32")
    differences: bool = False
    sixteen: bool = False

    def __str__(self) -> str:
        return self.name

    def values(self, operands: tuple[Any, ...], dtype: str) -> list[Value]:
        """The operands, arrays of floats in `dtype`; others, and what is a Value already, as they are."""
        return [o if isinstance(o, Value) else as_value(o, dtype) for o in operands]


def as_value(numbers: Any, dtype: str) -> Value:
    """Numbers as an operand: floats in `dtype`, others in their own."""
    array = np.asarray(numbers)
    return Value(array, dtype if array.dtype.kind == "f" else array.dtype.name)


def tables() -> list[ModuleType]:
    """The tables of operations, one a family."""
    found = []
    for path in sorted((Path(__file__).parent / "ops").glob("table*.py")):
        name = f"operations_{path.stem}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module  # dataclasses look their module up
            spec.loader.exec_module(module)
        found.append(sys.modules[name])
    return found
