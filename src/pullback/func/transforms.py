"""grad, vjp, jvp and linearize: functions in, functions or derivatives out. Arguments may be nested tuples, lists and
dicts of tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ShapeError
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import ones_like
from ..trees import flatten, unflatten
from .history import Argnums, Chosen, Traced, check_like


def value_and_grad(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the value of `func` and its gradient by the arguments that `argnums` names.

    `func` gives a tensor of shape []; with `has_aux` a pair of it and anything else, which stands with the value. The
    gradient is nested as the argument is; where `argnums` is a tuple it is a tuple of such.

    Raises ShapeError for a value of another shape, GradientError for arguments that are not of floats, and IndexError,
    TypeError and ValueError for wrong `argnums`.

    >>> value, gradient = pb.func.value_and_grad(lambda x: (x * x).sum())(pb.tensor([1.0, 2.0]))
    >>> value, gradient
    (tensor(5.), tensor([2., 4.]))
    """

    def run(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        chosen = Chosen(func, argnums, args, kwargs, "grad")
        traced = Traced(lambda *primals: _scalar(chosen(*primals), has_aux), chosen.primals, has_aux, "grad")
        (value,) = traced.outputs
        gradients = unflatten(traced.input_shape, traced.finished(traced.pull([ones_like(value)])))
        result = (traced.value(), traced.beside()) if has_aux else traced.value()
        return result, chosen.by_argument(gradients)

    return run


def _scalar(result: Any, has_aux: bool) -> Any:
    """The result of a function that grad can differentiate."""
    value = result[0] if has_aux and isinstance(result, tuple) and result else result
    if not isinstance(value, Tensor):
        raise TypeError(
            f"grad takes a function that gives a tensor of shape [], got {type(value).__name__} (at {user_source()})"
        )
    if value.ndim:
        raise ShapeError(
            f"grad takes a function that gives a tensor of shape [], got shape {list(value.shape)} (at "
            f"{user_source()}); reduce it with .sum(), or use vjp or jacrev"
        )
    return result


def grad(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the gradient of `func`, a tensor of shape [], by the arguments that `argnums` names.

    With `has_aux` a pair of the gradient and what `func` gives beside its value. See `value_and_grad`.

    >>> pb.func.grad(pb.func.grad(lambda x: x * x * x))(pb.tensor(2.0))
    tensor(12.)
    """
    both = value_and_grad(func, argnums, has_aux)

    def run(*args: Any, **kwargs: Any) -> Any:
        result, gradient = both(*args, **kwargs)
        return (gradient, result[1]) if has_aux else gradient

    return run


def grad_and_value(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """value_and_grad with the gradient first, as torch.func has it."""
    both = value_and_grad(func, argnums, has_aux)

    def run(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        value, gradient = both(*args, **kwargs)
        return gradient, value

    return run


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The value of `func` at `primals`, and a function from cotangents of it to a tuple of the primals' cotangents.

    With `has_aux`, `func` gives a pair, whose second part comes third and is not differentiated.

    >>> value, pull = pb.func.vjp(lambda x: x * x, pb.tensor([1.0, 2.0]))
    >>> pull(pb.tensor([1.0, 10.0]))
    (tensor([ 2., 40.]),)
    """
    traced = Traced(func, primals, has_aux, "vjp")
    traced.check_floating()

    def pull(cotangents: Any) -> tuple[Any, ...]:
        listed, given_shape = flatten(cotangents)
        check_like(listed, given_shape, traced.outputs, traced.shape, "vjp: cotangents")
        return tuple(unflatten(traced.input_shape, traced.finished(traced.pull(listed))))

    value = traced.value()
    return (value, pull, traced.beside()) if has_aux else (value, pull)


def jvp(
    func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False
) -> tuple[Any, ...]:
    """The value of `func` at `primals`, and its derivative along `tangents` (both tuples of arguments).

    With `has_aux`, `func` gives a pair, whose second part comes third. With `strict` an output that does not depend on
    the primals raises GradientError; otherwise its derivative is zeros. The derivative is taken in reverse twice.

    >>> pb.func.jvp(lambda x: x * x, (pb.tensor([1.0, 2.0]),), (pb.tensor([1.0, 10.0]),))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    for given, what in ((primals, "primals"), (tangents, "tangents")):
        if not isinstance(given, (tuple, list)):
            raise TypeError(
                f"jvp: {what} must be a tuple of arguments, got {type(given).__name__} (at {user_source()}); write "
                f"({what[:-1]},)"
            )
    traced = Traced(func, tuple(primals), has_aux, "jvp")
    if strict:
        traced.check_dependent()
    derivative = _pushed(traced, tuple(tangents))
    return (traced.value(), derivative, traced.beside()) if has_aux else (traced.value(), derivative)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """The value of `func` at `primals`, and the function from tangents of them to the derivative along these.

    Equal to `jvp` at one point and many tangents, of which `func` is called, and differentiated, once.

    >>> value, push = pb.func.linearize(lambda x: x * x, pb.tensor([1.0, 2.0]))
    >>> push(pb.tensor([1.0, 10.0]))
    tensor([ 2., 40.])
    """
    traced = Traced(func, primals, False, "linearize")
    return traced.value(), lambda *tangents: _pushed(traced, tangents)


def _pushed(traced: Traced, tangents: tuple[Any, ...]) -> Any:
    listed, given_shape = flatten(tangents)
    check_like(listed, given_shape, traced.inputs, traced.input_shape, f"{traced.name}: tangents")
    return unflatten(traced.shape, traced.finished(traced.push(listed)))


__all__ = ["grad", "grad_and_value", "jvp", "linearize", "value_and_grad", "vjp"]
