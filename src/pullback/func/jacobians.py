"""jacrev, jacfwd, hessian and hvp: whole Jacobians, a batch of rows or columns at once, and products with Hessians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import eye
from ..tensor.examples import draws
from ..trees import unflatten
from .history import Argnums, Chosen, Traced
from .transforms import grad, vjp
from .vmap import check_chunk_size, check_randomness, vmap


def jacrev(
    func: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False, chunk_size: int | None = None
) -> Callable[..., Any]:
    """A function that gives the Jacobian of `func` by the arguments that `argnums` names, in reverse mode.

    For each tensor of the result, which may be nested, and each of the arguments a tensor of shape
    [*result.shape, *argument.shape]: nested as the result is, and inside of that as the argument (where `argnums` is a
    tuple, a tuple of such). With `has_aux`, `func` gives a pair, and a pair of the Jacobian and its second part comes.

    The rows are computed all at once, by `vmap` over the reverse pass; `chunk_size` limits how many at a time, and with
    that the memory. Costs a reverse pass for each element of the result: `jacfwd` is for more results than arguments.

    >>> pb.func.jacrev(lambda x: x * x)(pb.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    check_chunk_size(chunk_size, "jacrev")

    def run(*args: Any, **kwargs: Any) -> Any:
        chosen = Chosen(func, argnums, args, kwargs, "jacrev")
        traced = Traced(chosen, chosen.primals, has_aux, "jacrev")
        traced.check_floating()
        rows = [_rows(traced, place, chunk_size) for place in range(len(traced.outputs))]
        found = _nested(traced, chosen, rows)
        return (found, traced.beside()) if has_aux else found

    return run


def _rows(traced: Traced, place: int, chunk_size: int | None) -> list[Tensor]:
    """The Jacobians of one output by each input."""
    output = traced.outputs[place]
    found = vmap(lambda cotangent: tuple(traced.pull([cotangent], [place])), chunk_size=chunk_size)(_basis(output))
    shaped = [rows.reshape((*output.shape, *i.shape)) for rows, i in zip(found, traced.inputs, strict=True)]
    return traced.finished(shaped)


def jacfwd(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable[..., Any]:
    """A function that gives the Jacobian of `func` by the arguments that `argnums` names, in forward mode.

    What it gives is nested as by `jacrev`. The columns are computed all at once, by `vmap` over `jvp`: it costs a
    forward pass for each element of the arguments. Random draws in `func` are an error, or with `randomness` "same" one
    draw serves all columns, with "different" each has its own, as in `vmap`.

    >>> pb.func.jacfwd(lambda x: x[:1] * x[1:])(pb.tensor([1.0, 2.0]))
    tensor([[2., 1.]])
    """
    check_randomness(randomness, "jacfwd")

    def run(*args: Any, **kwargs: Any) -> Any:
        chosen = Chosen(func, argnums, args, kwargs, "jacfwd")
        with draws(randomness):
            traced = Traced(chosen, chosen.primals, has_aux, "jacfwd")

        def again() -> Traced:
            return Traced(chosen, chosen.primals, has_aux, "jacfwd") if randomness == "different" else traced

        columns = [_columns(again, place, traced, randomness) for place in range(len(traced.inputs))]
        found = _nested(traced, chosen, [list(row) for row in zip(*columns, strict=True)])
        return (found, traced.beside()) if has_aux else found

    return run


def _columns(again: Callable[[], Traced], place: int, traced: Traced, randomness: str) -> list[Tensor]:
    """The Jacobians of each output by one input. `again` is what to push through, recorded anew for other draws."""
    given = traced.inputs[place]

    def push(tangent: Tensor) -> tuple[Tensor, ...]:
        here = again()
        pushed = here.push([tangent], [place])
        return tuple(pushed if here is traced else here.finished(pushed))

    found = vmap(push, out_dims=-1, randomness=randomness)(_basis(given))
    shaped = [columns.reshape((*o.shape, *given.shape)) for columns, o in zip(found, traced.outputs, strict=True)]
    return traced.finished(shaped)


def _basis(like: Tensor) -> Tensor:
    """The unit vectors of the space of tensors such as `like`: [like.numel(), *like.shape]."""
    return eye(like.numel(), dtype=like.dtype).reshape((like.numel(), *like.shape))


def _nested(traced: Traced, chosen: Chosen, rows: list[list[Tensor]]) -> Any:
    """Jacobians by output and input, nested as the result is and inside of that as the arguments."""
    each = [chosen.by_argument(unflatten(traced.input_shape, row)) for row in rows]
    return unflatten(traced.shape, each)


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function that gives the matrix of second derivatives of `func`: jacfwd of jacrev, nested as these nest.

    >>> pb.func.hessian(lambda x: x[0] * x[0] * x[1])(pb.tensor([1.0, 2.0]))
    tensor([[4., 2.],
            [2., 0.]])
    """
    return jacfwd(jacrev(func, argnums), argnums)


def hvp(func: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The product of the Hessian of `func`, which gives a tensor of shape [], at `primals` with `tangents`.

    Both are tuples of all arguments (of which each may be nested), or one argument by itself; the product is nested as
    `tangents` are. The Hessian itself is never made: the cost is a few times that of the gradient.

    >>> pb.func.hvp(lambda x: x[0] * x[0] * x[1], pb.tensor([1.0, 2.0]), pb.tensor([1.0, 10.0]))
    tensor([24.,  2.])
    """
    alone = not isinstance(primals, tuple)
    if alone == isinstance(tangents, tuple):
        raise TypeError(
            f"hvp: primals and tangents must both be tuples of arguments, or one argument each, got "
            f"{type(primals).__name__} and {type(tangents).__name__} (at {user_source()})"
        )
    given = (primals,) if alone else primals
    # the Hessian is symmetric, so its product from the left, a reverse pass through a reverse pass, is the same
    gradient = grad(func, tuple(range(len(given))))
    _, pull = vjp(gradient, *given)
    product = pull((tangents,) if alone else tangents)
    return product[0] if alone else product


__all__ = ["hessian", "hvp", "jacfwd", "jacrev"]
