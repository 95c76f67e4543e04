"""Draws from distributions of given parameters: functions, and methods that fill a tensor.

What has a closed form is built of uniform and normal numbers. Poisson and binomial counts are rejection methods
(Hörmann, "The transformed rejection method for generating Poisson random variables", 1993), whose number of rounds
depends on what was drawn: a host call, a pure function of its parameters and of 128 random bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DomainError, DTypeError, ShapeError
from ..graph.node import Node
from ..graph.types import FLOAT, INTEGER, DType, bool_, float32, float64
from ..ops import elementwise as e
from ..ops.host import detach, host_call
from ..ops.movement import expand
from ..ops.primitive import MODE, constant, user_source
from .creation import _check_device
from .handle import Handle
from .order import checked
from .promotion import Operand, require_float
from .random import _float_dtype, _normal_nodes, random_words, uniform_nodes, whole_nodes
from .shapes import as_shape

if TYPE_CHECKING:
    from . import Tensor
    from .random import Generator

#: the largest whole number up to which every whole number is one of the dtype
_WHOLE = {"float16": 2**11, "bfloat16": 2**8, "float32": 2**24, "float64": 2**53}


def _flat(value: Node, *parameters: Handle) -> Tensor:
    """The draw as a tensor; one of parameters that require grad passes a gradient of zeros on, as in PyTorch."""
    if MODE.grad:
        for parameter in parameters:
            if parameter.requires_grad and value.dtype.is_floating_point:
                like = e.convert(parameter.node, value.dtype)
                shape = e.broadcast_shapes("draw", like.shape, value.shape)
                value = e.where(constant(False, bool_), expand(like, shape), value)
    return Handle._wrap(value)


def _inner(dtype: DType) -> DType:
    """The dtype in which a draw of `dtype` is computed."""
    return float64 if dtype is float64 else float32


def normal(
    mean: Operand,
    std: Operand = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """Normal numbers of the means and standard deviations given: of tensors, broadcast, or of numbers in shape `size`.

    A negative standard deviation raises DomainError, where it stands in a tensor as soon as the draw is computed.
    """
    _check_device(device)
    given = [value for value in (mean, std) if isinstance(value, Handle)]
    if not isinstance(std, Handle) and not std >= 0:
        raise DomainError(f"normal: std must not be negative, got {std} (at {user_source()})")
    if given and (size is not None or dtype is not None or requires_grad):
        raise TypeError(f"normal: size, dtype and requires_grad go with numbers, not tensors (at {user_source()})")
    if not given:
        if size is None:
            raise TypeError(f"normal of numbers takes a size (at {user_source()})")
        chosen = _float_dtype(dtype, "normal")
        unit = Handle._wrap(_normal_nodes(as_shape((size,)), chosen, generator))
        return (unit * std + mean).requires_grad_(requires_grad)
    for value in given:
        require_float("normal", value)
    shape = e.broadcast_shapes("normal", *(value.shape for value in given))
    unit = Handle._wrap(_normal_nodes(shape, given[0].dtype, generator))
    scale: Any = std
    if isinstance(std, Handle):
        known = detach(std.node)
        holds = e.le(constant(0, std.dtype), known)
        scale = Handle._wrap(checked(known, holds, "normal: std must not be negative"))
    centre = mean.detach() if isinstance(mean, Handle) else mean
    return _flat((unit * scale + centre).to(given[0].dtype).node, *given)


def _probabilities(name: str, p: Handle) -> Node:
    """Probabilities, checked when they are computed."""
    require_float(name, p)
    known = detach(p.node)
    inside = e.bit_and(e.le(constant(0, p.dtype), known), e.le(known, constant(1, p.dtype)))
    return checked(known, inside, f"{name}: a probability must lie between 0 and 1")


def _hits(name: str, shape: tuple[int, ...], p: Any, generator: Generator | None) -> Node:
    """True with probability `p`, a number or a tensor."""
    if isinstance(p, Handle):
        if e.broadcast_shapes(name, p.shape, shape) != shape:
            raise ShapeError(f"{name}: p {list(p.shape)} does not fit into {list(shape)} (at {user_source()})")
        inner = _inner(p.dtype)
        chance = expand(e.convert(_probabilities(name, p), inner), shape)
    else:
        if not 0 <= p <= 1:
            raise DomainError(f"{name}: p must lie between 0 and 1, got {p} (at {user_source()})")
        inner, chance = float64, constant(p, float64)
    return e.lt(uniform_nodes(shape, inner, generator), chance)


def bernoulli(input: Tensor, p: float | Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probabilities in `input`, else 0; with `p` of that probability, in the shape and dtype of `input`."""
    if p is None:
        require_float("bernoulli", input)
    hits = _hits("bernoulli", input.shape, input if p is None else p, generator)
    return _flat(e.convert(hits, input.dtype), input)


def _seeded(function: Callable[..., np.ndarray], parameters: list[Node], dtype: DType, source: Any) -> Node:
    """Counts by `function(numpy's generator, *parameters)`, in the shape of the parameters."""
    shape = parameters[0].shape
    words = random_words((), source, 4)

    def draw(*arrays: np.ndarray) -> np.ndarray:
        key = np.array([int(a) | int(b) << 32 for a, b in (arrays[:2], arrays[2:4])], dtype=np.uint64)
        return function(np.random.Generator(np.random.Philox(key=key)), *arrays[4:])

    return host_call((*words, *parameters), draw, shape, dtype)


def _poisson_counts(random: np.random.Generator, rate: np.ndarray) -> np.ndarray:
    # beyond, NumPy's counts overflow, and the normal distribution is the same to every digit of a float64
    large = rate > 1e15
    drawn = random.poisson(np.where(large, 0.0, rate)).astype(np.float64)
    return np.where(large, rate + np.sqrt(rate) * random.standard_normal(rate.shape), drawn)


def _binomial_counts(random: np.random.Generator, count: np.ndarray, p: np.ndarray) -> np.ndarray:
    return random.binomial(count.astype(np.int64), p).astype(np.float64)


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson counts of the rates in `input`, in its dtype. A host call; a negative rate raises DomainError."""
    require_float("poisson", input)
    known = detach(input.node)
    rate = checked(known, e.le(constant(0, input.dtype), known), "poisson: a rate must not be negative")
    counts = _seeded(_poisson_counts, [e.convert(rate, float64)], float64, generator)
    return _flat(e.convert(counts, input.dtype), input)


def _gamma_numbers(random: np.random.Generator, shape: np.ndarray) -> np.ndarray:
    return random.standard_gamma(shape)


def standard_gamma(input: Tensor) -> Tensor:
    """Gamma numbers of the shapes in `input` and of rate 1, in its dtype. A host call, without a gradient."""
    require_float("standard_gamma", input)
    known = detach(input.node)
    shape = checked(known, e.lt(constant(0, input.dtype), known), "standard_gamma: a shape must be above 0")
    return Handle._wrap(e.convert(_seeded(_gamma_numbers, [e.convert(shape, float64)], float64, None), input.dtype))


def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of `count` trials of probability `prob` succeed, both broadcast, in floats. A host call."""
    for name, value in (("count", count), ("prob", prob)):
        require_float(f"binomial: {name}", value)
    if count.dtype is not prob.dtype:
        raise DTypeError(
            f"binomial: count and prob must have one dtype, got {count.dtype.name} and {prob.dtype.name} "
            f"(at {user_source()})"
        )
    shape = e.broadcast_shapes("binomial", count.shape, prob.shape)
    trials = detach(count.node)
    trials = checked(trials, e.le(constant(0, count.dtype), trials), "binomial: count must not be negative")
    parameters = [expand(e.convert(v, float64), shape) for v in (trials, _probabilities("binomial", prob))]
    counts = _seeded(_binomial_counts, parameters, float64, generator)
    return _flat(e.convert(counts, count.dtype), count, prob)


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """`num_samples` places in each row of `input`, drawn with probabilities in proportion to its elements; int64.

    Shapes: input [n] or [m, n], result [num_samples] or [m, num_samples]. With `replacement` by inverting the
    distribution; without, the places of the smallest of exponential numbers whose rates are the elements (Efraimidis
    & Spirakis, "Weighted random sampling with a reservoir", 2006). Weights that are negative, not finite or all zero
    raise DomainError when the draw is computed, as do too few that are not zero.
    """
    require_float("multinomial", input)
    if input.ndim not in (1, 2) or not input.shape[-1]:
        raise ShapeError(f"multinomial takes [n] or [m, n], n > 0, got {list(input.shape)} (at {user_source()})")
    categories = input.shape[-1]
    if num_samples <= 0 or (not replacement and num_samples > categories):
        limit = "" if replacement else f" and at most the {categories} categories"
        raise ValueError(f"multinomial: num_samples must be positive{limit}, got {num_samples} (at {user_source()})")
    weights = input.detach().to(float64)
    usable = (weights >= 0) & weights.isfinite()
    weights = Handle._wrap(checked(weights.node, usable.node, "multinomial: weights must be finite and not negative"))
    enough = (weights > 0).sum(-1, keepdim=True) >= (1 if replacement else num_samples)
    message = "multinomial: fewer weights above 0 than samples" if not replacement else "multinomial: all weights are 0"
    weights = Handle._wrap(checked(weights.node, expand(enough.node, weights.shape), message))
    if not replacement:
        times = Handle._wrap(_exponential_nodes(input.shape, float64, generator)) / weights
        return times.topk(num_samples, largest=False).indices
    sums = weights.cumsum(-1)
    unit = Handle._wrap(uniform_nodes((*input.shape[:-1], num_samples), float64, generator))
    total = sums[..., -1:]
    places = _places(sums, unit * total)
    last = (sums < total).sum(-1, keepdim=True)
    return places.minimum(last)


def _places(sums: Tensor, values: Tensor) -> Tensor:
    from .sorting import searchsorted

    return searchsorted(sums, values, right=True)


def _exponential_nodes(shape: tuple[int, ...], dtype: DType, generator: Generator | None) -> Node:
    """-log(1 - u): u is below 1, so that it is finite; never 0, which has probability 0."""
    unit = uniform_nodes(shape, dtype, generator)
    drawn = e.neg(e.log(e.sub(constant(1.0, dtype), unit)))
    return e.maximum(drawn, constant(2.0**-60 if dtype is float64 else 2.0**-30, dtype))


class DrawMethods(Handle):
    """Methods that draw: in the shape and dtype of the tensor, or into it."""

    __slots__ = ()

    bernoulli = bernoulli
    multinomial = multinomial

    def _filled(self, drawn: Node) -> Tensor:
        return self._assign(e.convert(drawn, self.dtype))

    def uniform_(self, *bounds: float, generator: Generator | None = None, **named: float) -> Tensor:
        """Uniform numbers on [from, to): uniform_(from=0, to=1)."""
        require_float("uniform_", self)
        low, to = _from_and_to("uniform_", bounds, named, (0.0, 1.0))
        if not low <= to:
            raise ValueError(f"uniform_: the bounds must be in order, got {low}, {to} (at {user_source()})")
        unit = uniform_nodes(self.shape, self.dtype, generator)
        scaled = e.mul(unit, constant(to - low, self.dtype))
        return self._filled(e.add(scaled, constant(low, self.dtype)))

    def normal_(self, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
        """Normal numbers of the given mean and standard deviation."""
        require_float("normal_", self)
        _require_deviation("normal_", std)
        unit = Handle._wrap(_normal_nodes(self.shape, self.dtype, generator))
        return self._filled((unit * std + mean).node)

    def log_normal_(self, mean: float = 1.0, std: float = 2.0, generator: Generator | None = None) -> Tensor:
        """exp of normal numbers of the given mean and standard deviation."""
        require_float("log_normal_", self)
        _require_positive("log_normal_", "std", std)
        unit = Handle._wrap(_normal_nodes(self.shape, _inner(self.dtype), generator))
        return self._filled((unit * std + mean).exp().node)

    def exponential_(self, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """Exponential numbers of rate `lambd`, whose mean is 1/lambd; above 0."""
        require_float("exponential_", self)
        _require_positive("exponential_", "lambd", lambd)
        inner = _inner(self.dtype)
        drawn = _exponential_nodes(self.shape, inner, generator)
        return self._filled(e.mul(drawn, constant(1.0 / lambd, inner)))

    def cauchy_(self, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """Cauchy numbers: median + sigma * tan(pi * (u - 1/2))."""
        require_float("cauchy_", self)
        _require_positive("cauchy_", "sigma", sigma)
        unit = Handle._wrap(uniform_nodes(self.shape, float64, generator))
        return self._filled((((unit - 0.5) * math.pi).tan() * sigma + median).node)

    def geometric_(self, p: float, *, generator: Generator | None = None) -> Tensor:
        """How many trials of probability `p` are made up to the first success: 1, 2, …"""
        if self.dtype is bool_:
            raise DTypeError(f"geometric_ takes numbers, got bool (at {user_source()})")
        if not 0 < p < 1:
            raise DomainError(f"geometric_: p must lie between 0 and 1, got {p} (at {user_source()})")
        times = _exponential_nodes(self.shape, float64, generator)
        counts = e.ceil(e.mul(times, constant(-1.0 / math.log1p(-p), float64)))
        return self._filled(counts)

    def bernoulli_(self, p: float | Tensor = 0.5, *, generator: Generator | None = None) -> Tensor:
        """1 with probability p, a number or a tensor of them, else 0."""
        hits = _hits("bernoulli_", self.shape, p, generator)
        return self._filled(hits)

    def random_(self, *bounds: int, generator: Generator | None = None, **named: int) -> Tensor:
        """Whole numbers: random_(to) from 0 to below `to`, random_(from, to) from `from`, all equally likely.

        Without bounds all that an integer dtype has from 0 up, and in floats up to where each whole number is one.
        """
        if len(bounds) == 1 and not named:
            bounds = (0, *bounds)
        low, high = _from_and_to("random_", bounds, named, (0, _whole_numbers(self.dtype)))
        if not isinstance(low, int) or not isinstance(high, int):
            raise TypeError(f"random_ takes whole numbers, got {low} and {high} (at {user_source()})")
        if not low < high:
            raise ValueError(f"random_: the bounds must be in order, got {low}, {high} (at {user_source()})")
        return self._filled(whole_nodes(self.shape, low, high, generator))


def _from_and_to(name: str, bounds: tuple[Any, ...], named: dict[str, Any], usual: tuple[Any, Any]) -> tuple[Any, Any]:
    """Two bounds, given by place or under the names of PyTorch, one of which no parameter in Python can have."""
    if len(bounds) > 2:
        raise TypeError(f"{name} takes at most two numbers, got {bounds} (at {user_source()})")
    given = dict(zip(("from", "to"), bounds, strict=False))
    for bound, value in named.items():
        if bound not in ("from", "to"):
            raise TypeError(f"{name}() got an unexpected keyword argument {bound!r} (at {user_source()})")
        if bound in given:
            raise TypeError(f"{name}() got {bound!r} twice (at {user_source()})")
        given[bound] = value
    return given.get("from", usual[0]), given.get("to", usual[1])


def _whole_numbers(dtype: DType) -> int:
    """One more than the largest that random_ draws."""
    if dtype.category == FLOAT:
        return _WHOLE[dtype.name] + 1
    return int(np.iinfo(dtype.storage).max) + 1 if dtype.category == INTEGER else 2


def _require_positive(name: str, what: str, value: float) -> None:
    if not value > 0:
        raise DomainError(f"{name}: {what} must be above 0, got {value} (at {user_source()})")


def _require_deviation(name: str, std: float) -> None:
    if not std >= 0:
        raise DomainError(f"{name}: std must not be negative, got {std} (at {user_source()})")


__all__ = ["DrawMethods", "bernoulli", "binomial", "multinomial", "normal", "poisson"]
