"""Derivatives of the operators in PyTorch's database, in one random direction: against finite differences, to second
order, and forward against reverse.

Directions cost two evaluations whatever the number of elements, so that every operator can afford them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import pullback as pb
from operator_database import DIFFERENTIATED, database, ours, samples_of, tensors_in, translated, undetermined

#: half the distance of the two evaluations; the error of a central difference in float64 is about its square
STEP = 1e-6
#: what finite differences and derivatives may differ by, relative to the size of the terms that are added
TOLERANCE = 2e-5
#: how an operand that has to have a property is made from any other, by the wrapper that the database names
PROPERTIES: dict[str, Callable[[Any, bool], Any]] = {
    "gradcheck_wrapper_hermitian_input": lambda x, upper: x + x.transpose(-2, -1),
    "gradcheck_wrapper_triangular_input": lambda x, upper: _triangle(x, upper),
    "gradcheck_wrapper_triangular_input_real_positive_diagonal": lambda x, upper: _triangle(x, upper),
}
#: the place of the operand that is made so where it is not the first, by operator
TRIANGULAR_SECOND = {"cholesky_solve"}
#: losses that compare a target with 1, so that a target moved a little is another; and the CTC loss, whose gradient
#: supposes that the probabilities of a step stay 1 together, as PyTorch's does; and unpooling, whose samples name a
#: place twice: the last value stays, and as in PyTorch each is given the place's gradient
NOT_ALONG_ANY_DIRECTION = {
    "nn.functional.cosine_embedding_loss",
    "nn.functional.ctc_loss",
    "nn.functional.hinge_embedding_loss",
    "nn.functional.max_unpool1d",
    "nn.functional.max_unpool2d",
    "nn.functional.max_unpool3d",
}


def _triangle(x: Any, upper: bool) -> Any:
    return x.triu() if upper else x.tril()


Scalar = Callable[[Sequence[Any]], Any]


def replaced(value: Any, tensors: Iterator[Any]) -> Any:
    """Nested arguments with the tensors that require a gradient taken, in order, from `tensors`."""
    if isinstance(value, pb.Tensor):
        return next(tensors) if value.requires_grad else value
    if isinstance(value, dict):
        return {k: replaced(v, tensors) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)([replaced(v, tensors) for v in value])
    return value


def differentiable_samples(name: str, most: int) -> Iterator[tuple[Scalar, list[np.ndarray]]]:
    """Samples of `name` as scalar functions of float64 tensors, each with the point at which to differentiate."""
    for record in database()[name]:
        if not record.supports_autograd or DIFFERENTIATED not in record.supported_dtypes("cpu"):
            continue
        if "subgradients" in record.variant_test_name:
            continue  # points without a derivative
        given = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for sample in samples_of(record, DIFFERENTIATED):
                if undetermined(record, sample):
                    continue
                arguments = translated((sample.input, tuple(sample.args), dict(sample.kwargs)))
                leaves = [t for t in tensors_in(list(arguments)) if t.requires_grad]
                if not leaves or not all(t.numel() for t in leaves):
                    continue
                point = [np.array(t.detach().numpy()) for t in leaves]
                scalar = _scalar(record, sample, arguments)
                with pb.no_grad():
                    value = scalar([pb.tensor(x) for x in point])
                # results rounded to fewer digits are no matter for differences
                if value is None or value.dtype is not pb.float64 or not np.isfinite(value.item()):
                    continue
                yield scalar, point
                given += 1
                if given == most:
                    break


def _scalar(record: Any, sample: Any, arguments: tuple[Any, ...]) -> Scalar:
    """The sample's floating point outputs added up with fixed weights; None where it has none."""
    function = ours(record.name, record.variant_test_name)
    made = PROPERTIES.get(getattr(record.gradcheck_wrapper, "__name__", ""))

    def scalar(tensors: Sequence[Any]) -> Any:
        given = list(tensors)
        upper = bool(sample.kwargs.get("upper"))
        if made is not None:
            given[0] = made(given[0], upper)
        if record.name in TRIANGULAR_SECOND:
            given[1] = _triangle(given[1], upper)
        first, args, kwargs = replaced(arguments, iter(given))
        outputs = tensors_in(sample.output_process_fn_grad(function(first, *args, **kwargs)))
        total = None
        for place, output in enumerate(o for o in outputs if o.is_floating_point()):
            weights = np.random.default_rng(place).uniform(0.5, 1.5, tuple(output.shape))
            part = (output * pb.tensor(weights, dtype=output.dtype)).sum()
            total = part if total is None else total + part
        return total

    return scalar


def directions(point: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """A fixed random direction at `point`."""
    random = np.random.default_rng(seed)
    return [random.uniform(-1.0, 1.0, x.shape) for x in point]


def _along(
    function: Callable[[list[np.ndarray]], float], point: Sequence[np.ndarray], v: Sequence[np.ndarray]
) -> float:
    """The central difference of `function` along `v`."""
    above = function([x + STEP * d for x, d in zip(point, v, strict=True)])
    below = function([x - STEP * d for x, d in zip(point, v, strict=True)])
    return (above - below) / (2 * STEP)


def _gradients(scalar: Scalar, point: Sequence[np.ndarray], create_graph: bool = False) -> tuple[list[Any], list[Any]]:
    leaves = [pb.tensor(x, requires_grad=True) for x in point]
    value = scalar(leaves)
    if not value.requires_grad:
        return leaves, [pb.zeros_like(x) for x in leaves]
    found = pb.autograd.grad(value, leaves, create_graph=create_graph, allow_unused=True)
    return leaves, [pb.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


def _dot(gradients: Sequence[Any], v: Sequence[np.ndarray]) -> tuple[float, float]:
    """The derivative along `v`, and the size of the terms that make it."""
    terms = [g.detach().numpy() * d for g, d in zip(gradients, v, strict=True)]
    return float(sum(t.sum() for t in terms)), float(sum(np.abs(t).sum() for t in terms))


def check_first(scalar: Scalar, point: list[np.ndarray]) -> None:
    """Reverse mode, forward mode and finite differences agree along one direction."""
    v = directions(point, 1)
    derivative, size = _dot(_gradients(scalar, point)[1], v)
    measured = _along(lambda at: scalar([pb.tensor(x) for x in at]).item(), point, v)
    assert abs(derivative - measured) <= TOLERANCE * max(1.0, size), f"reverse {derivative}, differences {measured}"
    primals = tuple(pb.tensor(x) for x in point)
    _, pushed = pb.func.jvp(lambda *tensors: scalar(tensors), primals, tuple(pb.tensor(d) for d in v))
    assert abs(derivative - pushed.item()) <= 1e-9 * max(1.0, size), f"reverse {derivative}, forward {pushed.item()}"


def check_second(scalar: Scalar, point: list[np.ndarray]) -> None:
    """The derivative along one direction of the derivative along another is that of finite differences."""
    v, u = directions(point, 1), directions(point, 2)

    def slope(at: Sequence[np.ndarray], create_graph: bool = False) -> tuple[list[Any], Any]:
        leaves, gradients = _gradients(scalar, at, create_graph)
        return leaves, sum((g * pb.tensor(d)).sum() for g, d in zip(gradients, v, strict=True))

    leaves, along = slope(point, True)
    if not along.requires_grad:
        second, size = 0.0, 0.0
    else:
        found = pb.autograd.grad(along, leaves, allow_unused=True)
        second, size = _dot([pb.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)], u)
    measured = _along(lambda at: slope(at)[1].item(), point, u)
    assert abs(second - measured) <= 10 * TOLERANCE * max(1.0, size), f"second {second}, differences {measured}"


def has_second(name: str) -> bool:
    """Whether PyTorch has second derivatives of `name`."""
    return any(record.supports_gradgrad for record in database()[name])
