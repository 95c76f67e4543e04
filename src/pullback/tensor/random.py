"""Random numbers as a pure function of a counter.

A draw is Philox4x32-10 applied to (index of the element, number of the draw) under a key (the seed): nothing is hidden,
so the same draw computed again, in another order or on another thread, gives the same bits. A generator's state is a
tensor [seed, draws so far], which a compiled step takes in and leaves advanced like any other state.
"""

from __future__ import annotations

import hashlib
import math
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DomainError, DTypeError, ShapeError
from ..graph import types
from ..graph.node import Node, Shape
from ..graph.types import DType, float32, float64, int64, uint32
from ..ops import elementwise as e
from ..ops.movement import reshape, slice_
from ..ops.primitive import buffer_node, constant, iota, user_source
from ..runtime.buffers import Buffer
from .arguments import whole_number
from .creation import _check_device, _finish
from .handle import Handle
from .memory_format import check_memory_format, contiguous_format, preserve_format
from .promotion import get_default_dtype
from .shapes import as_shape, sizes
from .state import STATE, outside_trace

if TYPE_CHECKING:
    from . import Tensor


class Generator:
    """A sequence of draws from one seed."""

    def __init__(self, seed: int | None = None):
        self.state = _state_tensor(0, 0)
        self.manual_seed(int.from_bytes(os.urandom(7), "little") if seed is None else seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed`, any int of 64 bits."""
        if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool):
            raise TypeError(f"manual_seed: the seed must be an int, got {seed!r}")
        if not -(2**63) <= seed < 2**64:
            raise DomainError(f"manual_seed: the seed must have at most 64 bits, got {seed!r}")
        signed = (int(seed) + 2**63) % 2**64 - 2**63
        self.state._rebind(_state_tensor(signed, 0)._node)
        return self

    def initial_seed(self) -> int:
        """The seed that it was started from."""
        return int(self.state._array()[0])

    def get_state(self) -> Tensor:
        """[seed, draws so far], int64; can be saved, and given to set_state."""
        return self.state.clone()

    def set_state(self, state: Tensor) -> None:
        """Go on from a state that get_state gave."""
        if state.shape != (2,) or state.dtype is not int64:
            raise DTypeError(f"a generator's state is int64[2], got {state.dtype.name}{list(state.shape)}")
        self.state._rebind(state.detach().clone().node)

    def _split(self) -> int:
        """A seed for a generator of its own, a pure function of the state; counts as a draw."""
        seed, count = (int(value) for value in self.state._array())
        self.state._rebind(_state_tensor(seed, count + 1)._node)
        return int.from_bytes(hashlib.sha256(f"split {seed} {count}".encode()).digest()[:7], "little")

    def _draw(self) -> tuple[tuple[Node, Node], tuple[Node, Node]]:
        """The key and the number of the next draw, as pairs of uint32 words; counts the draw.

        The body of a loop counts a draw for each time that it is run, and each run has a number of its own.
        """
        if STATE.example is not None:
            STATE.example.check_draw()
        node = self.state.node
        seed, count = (reshape(slice_(node, ((i, i + 1),)), ()) for i in range(2))
        times = 1
        if STATE.loop is not None:
            times, count = STATE.loop.times, e.add(count, STATE.loop.number())
        if STATE.trace is None:
            values = self.state._array()
            # a new state each time, so that graphs that hold the old one keep it
            self.state._rebind(_state_tensor(int(values[0]), int(values[1]) + times)._node)
        else:
            step = e.mul(iota((2,), 0, int64), constant(times, int64))
            self.state._rebind(e.add(node, step))
        return _words(seed), _words(count)


def _state_tensor(seed: int, count: int) -> Tensor:
    return Handle._wrap(buffer_node(Buffer.of(np.array([seed, count], np.int64), copy=True), (2,), int64))


def _words(x: Node) -> tuple[Node, Node]:
    return e.convert(x, uint32), e.convert(e.shift_right(x, 32), uint32)


@cache
def default_generator() -> Generator:
    """The generator that is used where none is given."""
    with outside_trace():
        return Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator with an int, or with what `int` makes one of."""
    return default_generator().manual_seed(int(seed))


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator().initial_seed()


def seed() -> int:
    """Seed the default generator from the system's randomness, and give the seed."""
    chosen = int.from_bytes(os.urandom(7), "little")
    manual_seed(chosen)
    return chosen


def get_rng_state() -> Tensor:
    """The state of the default generator (see Generator.get_state)."""
    return default_generator().get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Have the default generator go on from a state."""
    default_generator().set_state(new_state)


def random_words(shape: Shape, generator: Generator | None, count: int = 1) -> list[Node]:
    """`count` (at most 4) independent uint32 words for each element of `shape`, of one draw."""
    if any(size < 0 for size in shape):
        raise ShapeError(f"a shape cannot have negative sizes, got {list(shape)} (at {user_source()})")
    key, number = (generator or default_generator())._draw()
    size = math.prod(shape)
    index = iota((size,), 0, int64)
    counter = (*_words(index), *number)
    return [reshape(e.philox(counter, key, word), shape) for word in range(count)]


def uniform_nodes(shape: Shape, dtype: DType, generator: Generator | None) -> Node:
    """Uniform on [0, 1): 24 random bits for float32 and below, 53 for float64."""
    if dtype is float64:
        low, high = random_words(shape, generator, 2)
        whole = e.add(
            e.mul(e.convert(e.shift_right(high, 5), float64), constant(2.0**26, float64)),
            e.convert(e.shift_right(low, 6), float64),
        )
        return e.mul(whole, constant(2.0**-53, float64))
    (word,) = random_words(shape, generator)
    bits = {types.float16: 11, types.bfloat16: 8}.get(dtype, 24)
    scaled = e.mul(e.convert(e.shift_right(word, 32 - bits), float32), constant(2.0**-bits, float32))
    return e.convert(scaled, dtype)


def _normal_nodes(shape: Shape, dtype: DType, generator: Generator | None) -> Node:
    """Standard normal by Box and Muller's transform (1958), one number from two words."""
    inner = float64 if dtype is float64 else float32
    first, second = random_words(shape, generator, 2)
    unit = constant(2.0**-32, inner)
    # (0, 1]: the logarithm of 0 is never taken
    radius = e.mul(e.add(e.convert(first, inner), constant(1.0, inner)), unit)
    angle = e.mul(e.convert(second, inner), constant(2.0**-32 * 2 * math.pi, inner))
    length = e.sqrt(e.mul(constant(-2.0, inner), e.log(e.minimum(radius, constant(1.0, inner)))))
    return e.convert(e.mul(length, e.cos(angle)), dtype)


def _float_dtype(dtype: DType | None, name: str) -> DType:
    dtype = dtype or get_default_dtype()
    if not dtype.is_floating_point:
        raise DTypeError(f"{name} takes a floating point dtype, got {dtype.name} (at {user_source()})")
    return dtype


def rand(
    *given: Any,
    size: Any = None,
    dtype: DType | None = None,
    requires_grad: bool = False,
    generator: Generator | None = None,
    device: str | None = None,
) -> Tensor:
    """Uniform on [0, 1)."""
    _check_device(device)
    return _finish(uniform_nodes(sizes(given, size, "rand"), _float_dtype(dtype, "rand"), generator), requires_grad)


def randn(
    *given: Any,
    size: Any = None,
    dtype: DType | None = None,
    requires_grad: bool = False,
    generator: Generator | None = None,
    device: str | None = None,
) -> Tensor:
    """Normal with mean 0 and variance 1."""
    _check_device(device)
    return _finish(_normal_nodes(sizes(given, size, "randn"), _float_dtype(dtype, "randn"), generator), requires_grad)


def randint(
    low: int,
    high: int | tuple[int, ...] | None = None,
    size: tuple[int, ...] | None = None,
    *,
    dtype: DType | None = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """Whole numbers from `low` (0 if left out) to below `high`, all equally likely."""
    _check_device(device)
    if size is None:
        low, high, size = 0, low, high  # type: ignore[assignment]
    if size is None:
        raise TypeError(f"randint takes (high, size) or (low, high, size) (at {user_source()})")
    low, high = whole_number(low, "randint", "low"), whole_number(high, "randint", "high")
    if not low < high <= low + 2**63:
        raise ValueError(f"randint: high must be above low by at most 2**63, got {low} and {high} (at {user_source()})")
    node = whole_nodes(as_shape((size,)), low, high, generator)
    return _finish(e.convert(node, dtype or int64), requires_grad)


def whole_nodes(shape: Shape, low: int, high: int, generator: Generator | None) -> Node:
    """Whole numbers from `low` to below `high`, int64.

    Up to a width of 2**32 they are 53 random bits times the width, cut: no value is favoured by more than 2**-20.
    Beyond it they are what 63 bits leave when divided by the width, as in PyTorch.
    """
    low_word, high_word = random_words(shape, generator, 2)
    width = high - low
    if width > 2**32:
        upper = e.mul(e.convert(e.shift_right(high_word, 1), int64), constant(2**32, int64))
        whole = e.add(upper, e.convert(low_word, int64))
        drawn = whole if width == 2**63 else e.remainder(whole, constant(width, int64))
    else:
        bits = e.add(
            e.mul(e.convert(e.shift_right(high_word, 5), float64), constant(2.0**26, float64)),
            e.convert(e.shift_right(low_word, 6), float64),
        )
        drawn = e.convert(e.floor(e.mul(bits, constant(width * 2.0**-53, float64))), int64)
    return e.add(drawn, constant(low, int64))


def rand_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
    memory_format: object = None,
) -> Tensor:
    """Uniform on [0, 1) in the shape and dtype of `input`."""
    check_memory_format("rand_like", memory_format, contiguous_format, preserve_format)
    dtype = dtype or input.dtype
    return rand(input.shape, dtype=dtype, requires_grad=requires_grad, generator=generator, device=device)


def randn_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
    memory_format: object = None,
) -> Tensor:
    """Standard normal in the shape and dtype of `input`."""
    check_memory_format("randn_like", memory_format, contiguous_format, preserve_format)
    dtype = dtype or input.dtype
    return randn(input.shape, dtype=dtype, requires_grad=requires_grad, generator=generator, device=device)


def randint_like(
    input: Tensor,
    low: int,
    high: int | None = None,
    *,
    generator: Generator | None = None,
    dtype: DType | None = None,
    device: str | None = None,
    memory_format: object = None,
) -> Tensor:
    """Whole numbers from `low` to below `high`, or from 0 to below `low`, in the shape and dtype of `input`."""
    check_memory_format("randint_like", memory_format, contiguous_format, preserve_format)
    first, last = (0, low) if high is None else (low, high)
    return randint(first, last, input.shape, dtype=dtype or input.dtype, generator=generator, device=device)


def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """The whole numbers below n in random order, int64 or `dtype`: what sorts n random numbers."""
    _check_device(device)
    n = whole_number(n, "randperm", "n")
    if n < 0:
        raise ValueError(f"randperm: n must not be negative, got {n} (at {user_source()})")
    words = Handle._wrap(random_words((n,), generator)[0])
    return _finish(e.convert(words.argsort(stable=True).node, dtype or int64), requires_grad)


__all__ = [
    "Generator",
    "default_generator",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "random_words",
    "randperm",
    "seed",
    "set_rng_state",
    "uniform_nodes",
    "whole_nodes",
]
