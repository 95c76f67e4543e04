"""grad, vjp and jvp: functions in, functions or derivatives out. Arguments may be nested tuples, lists and dicts of
tensors.

Inside, the arguments are fresh nodes that depend differentiably on the ones given, so that the results can be
differentiated again, by these functions or by `backward`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakSet

from ..autograd.backward import grad as gradients_of
from ..errors import GradientError, ShapeError
from ..graph.node import Node
from ..ops.host import detach, identity
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import ones_like, zeros_like
from ..tensor.grad_modes import enable_grad, is_grad_enabled
from ..trees import flatten, unflatten


def _fresh(leaf: Any, name: str) -> Tensor:
    """A tensor of the same value to differentiate by, whose own history goes on behind it."""
    if not isinstance(leaf, Tensor):
        raise TypeError(f"{name} differentiates by tensors, got {type(leaf).__name__} (at {user_source()})")
    if not leaf.is_floating_point():
        raise GradientError(
            f"{name} differentiates by floating point tensors, got {leaf.dtype.name} (at {user_source()}); use .float()"
        )
    node = leaf.node
    return Tensor(identity(node) if node.requires_grad else detach(node, True))


#: the leaves that transforms made to differentiate by, once they have: outside of them these do not exist
_ENDED: WeakSet[Node] = WeakSet()


def _without(own: list[Tensor], results: list[Any]) -> list[Any]:
    """Results of a transform with the fresh tensors `own`, cut off from history that begins in such tensors only."""
    _ENDED.update(tensor.node for tensor in own)
    return [
        r.detach()
        if isinstance(r, Tensor) and (not is_grad_enabled() or all(n in _ENDED for n in _leaves(r.node)))
        else r
        for r in results
    ]


def _leaves(root: Node) -> set[Node]:
    """The nodes in which the differentiable history of `root` begins."""
    found: set[Node] = set()
    leaves: set[Node] = set()
    stack = [root] if root.requires_grad else []
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            before = [] if node.op.name == "detach" else [i for i in node.inputs if i.requires_grad]
            stack.extend(before)
            if not before:
                leaves.add(node)
    return leaves


def _pull(outputs: list[Tensor], inputs: list[Tensor], cotangents: list[Tensor]) -> list[Tensor]:
    """The gradients, themselves differentiable; zeros for inputs that are not used."""
    used = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    if not used:
        return [zeros_like(i) for i in inputs]
    with enable_grad():
        found = gradients_of([o for o, _ in used], inputs, [c for _, c in used], create_graph=True, allow_unused=True)
    return [zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]


def value_and_grad(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that gives the value of `func` and its gradient by the arguments that `argnums` names.

    `func` gives a tensor of one element; with `has_aux` a pair of it and anything else, which stands with the value.

    >>> value, gradient = pb.func.value_and_grad(lambda x: (x * x).sum())(pb.tensor([1.0, 2.0]))
    >>> value, gradient
    (tensor(5.), tensor([2., 4.]))
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def run(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        chosen = _chosen(args, numbers)
        leaves, shape = flatten(chosen)
        with enable_grad():
            fresh = [_fresh(leaf, "grad") for leaf in leaves]
            placed = list(args)
            for number, value in zip(numbers, unflatten(shape, fresh), strict=True):
                placed[number] = value
            result = func(*placed, **kwargs)
        value = result[0] if has_aux else result
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ShapeError(
                f"grad takes a function that gives a tensor of one element, got {got} (at {user_source()}); "
                f"reduce it with "
                ".sum(), or use vjp"
            )
        gradients = unflatten(shape, _without(fresh, _pull([value], fresh, [ones_like(value)])))
        parts, result_shape = flatten(result)
        by_argument = gradients[0] if isinstance(argnums, int) else tuple(gradients)
        return unflatten(result_shape, _without(fresh, parts)), by_argument

    return run


def _chosen(args: tuple[Any, ...], numbers: tuple[int, ...]) -> list[Any]:
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise IndexError(f"argnums {number} is outside the {len(args)} arguments (at {user_source()})")
    return [args[number] for number in numbers]


def grad(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the gradient of `func`, a tensor of one element, by the arguments that `argnums` names.

    With `has_aux` a pair of the gradient and what `func` gives beside its value.

    >>> pb.func.grad(pb.func.grad(lambda x: x * x * x))(pb.tensor(2.0))
    tensor(12.)
    """
    both = value_and_grad(func, argnums, has_aux)

    def run(*args: Any, **kwargs: Any) -> Any:
        result, gradient = both(*args, **kwargs)
        return (gradient, result[1]) if has_aux else gradient

    return run


def grad_and_value(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """value_and_grad with the gradient first, as torch.func has it."""
    both = value_and_grad(func, argnums, has_aux)

    def run(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        value, gradient = both(*args, **kwargs)
        return gradient, value

    return run


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The value of `func` at `primals`, and a function from cotangents of it to a tuple of the primals' cotangents.

    With `has_aux`, `func` gives a pair, whose second part comes third and is not differentiated.
    """
    outputs, shape, inputs, input_shape, extra = _traced(func, primals, has_aux, "vjp")

    def pull(cotangents: Any) -> tuple[Any, ...]:
        listed, given_shape = flatten(cotangents)
        _check_like(listed, given_shape, outputs, shape, "vjp: cotangents")
        return tuple(unflatten(input_shape, _without(inputs, _pull(outputs, inputs, listed))))

    value = unflatten(shape, _without(inputs, outputs))
    return (value, pull, extra) if has_aux else (value, pull)


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The value of `func` at `primals`, and its derivative along `tangents` (both tuples of arguments).

    The derivative is taken in reverse twice: the cotangents of the inputs are linear in those of the outputs, so
    differentiating them by these gives the product with the Jacobian itself. What of the first reverse pass is not
    needed for that is never computed.
    """
    outputs, shape, inputs, input_shape, extra = _traced(func, tuple(primals), has_aux, "jvp")
    listed, given_shape = flatten(tuple(tangents))
    _check_like(listed, given_shape, inputs, input_shape, "jvp: tangents")
    floating = [o for o in outputs if o.is_floating_point()]
    with enable_grad():
        dummies = [zeros_like(o, requires_grad=True) for o in floating]
    pushed = iter(_without([*inputs, *dummies], _pull(_pull(floating, inputs, dummies), dummies, listed)))
    derivative = unflatten(shape, [next(pushed) if o.is_floating_point() else zeros_like(o) for o in outputs])
    value = unflatten(shape, _without(inputs, outputs))
    return (value, derivative, extra) if has_aux else (value, derivative)


def _traced(
    func: Callable[..., Any], primals: tuple[Any, ...], has_aux: bool, name: str
) -> tuple[list[Tensor], Hashable, list[Tensor], Hashable, Any]:
    """The leaves of func's result and of its arguments, with the shapes of their nesting, and what stands beside."""
    leaves, input_shape = flatten(primals)
    with enable_grad():
        inputs = [_fresh(leaf, name) for leaf in leaves]
        result = func(*unflatten(input_shape, inputs))
    value, extra = result if has_aux else (result, None)
    outputs, shape = flatten(value)
    for leaf in outputs:
        if not isinstance(leaf, Tensor):
            raise TypeError(f"{name}: the function must give tensors, got {type(leaf).__name__} (at {user_source()})")
    return outputs, shape, inputs, input_shape, extra


def _check_like(given: list[Any], given_shape: Hashable, like: list[Tensor], shape: Hashable, what: str) -> None:
    described = [f"{t.dtype.name}{list(t.shape)}" if isinstance(t, Tensor) else type(t).__name__ for t in given]
    expected = [f"{t.dtype.name}{list(t.shape)}" for t in like]
    if described != expected or given_shape != shape:
        raise ShapeError(f"{what} must be {expected}, nested alike, got {described} (at {user_source()})")


__all__ = ["grad", "grad_and_value", "jvp", "value_and_grad", "vjp"]
