"""Products with Jacobians and Hessians under the names of torch.autograd.functional, made of `pullback.func`.

`inputs` is a tensor or a tuple of them, which `func` takes one by one; results are nested alike. Without
`create_graph` they have no history. With `strict` an output that does not depend on an input raises GradientError;
without, its derivative is zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import GradientError
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import ones_like

Function = Callable[..., Any]


class _Call:
    """`func` as a function of the inputs, which stand alone or in a tuple."""

    def __init__(self, name: str, func: Function, inputs: Any, create_graph: bool, strict: bool):
        self.name, self.func, self.create_graph, self.strict = name, func, create_graph, strict
        self.alone = not isinstance(inputs, (tuple, list))
        self.inputs: tuple[Any, ...] = (inputs,) if self.alone else tuple(inputs)
        for given in self.inputs:
            if not isinstance(given, Tensor):
                raise TypeError(
                    f"{name}: inputs must be a tensor or a tuple of tensors, got {type(given).__name__} "
                    f"(at {user_source()})"
                )

    def traced(self) -> Any:
        """The function's result at the inputs, with its history."""
        from ..func.history import Traced

        traced = Traced(self.func, self.inputs, False, self.name)
        if self.strict:
            traced.check_dependent()
        return traced

    def gradient(self, *inputs: Any) -> tuple[Any, ...]:
        """The gradients of `func`, of one element, by all inputs."""
        from ..func import grad

        def one(*given: Any) -> Any:
            value = self.func(*given)
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise GradientError(f"{self.name}: the function must give one element (at {user_source()})")
            return value.reshape(())

        found: tuple[Any, ...] = grad(one, tuple(range(len(inputs))))(*inputs)
        return found

    def vector(self, v: Any, like: Any, what: str) -> tuple[Any, ...]:
        """`v`, as many tensors as `like`; ones where it is None and there is one element."""
        if v is None:
            if len(like) != 1 or like[0].numel() != 1:
                raise GradientError(
                    f"{self.name}: v may be left out only where {what} is one element (at {user_source()})"
                )
            return (ones_like(like[0]),)
        return (v,) if isinstance(v, Tensor) else tuple(v)

    def nested(self, found: Any) -> Any:
        """Derivatives by the inputs, nested as they are."""
        found = [self.finished(t) for t in found]
        return found[0] if self.alone else tuple(found)

    def finished(self, value: Any) -> Any:
        """A result, without its history unless that is wanted."""
        if isinstance(value, (tuple, list)):
            return tuple(self.finished(v) for v in value)
        return value if self.create_graph else value.detach()


def vjp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value of `func`, and vᵀJ, nested as the inputs are; `v` is nested as the value is.

    >>> pb.autograd.functional.vjp(lambda x: x * x, pb.tensor([1.0, 2.0]), pb.tensor([1.0, 10.0]))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    call = _Call("vjp", func, inputs, create_graph, strict)
    traced = call.traced()
    cotangents = call.vector(v, traced.outputs, "the output")
    _check(call.name, cotangents, traced.outputs)
    return call.finished(traced.value()), call.nested(traced.finished(traced.pull(cotangents)))


def jvp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value of `func`, and J v, nested as the value is; `v` is nested as the inputs are.

    >>> pb.autograd.functional.jvp(lambda x: x * x, pb.tensor([1.0, 2.0]), pb.tensor([1.0, 10.0]))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    call = _Call("jvp", func, inputs, create_graph, strict)
    traced = call.traced()
    tangents = call.vector(v, call.inputs, "the input")
    _check(call.name, tangents, call.inputs)
    value = traced.value()
    pushed = [call.finished(t) for t in traced.finished(traced.push(tangents))]
    return call.finished(value), tuple(pushed) if isinstance(value, (tuple, list)) else pushed[0]


def vhp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value of `func`, one element, and vᵀH, both `v` and it nested as the inputs are."""
    return _hessian_product("vhp", func, inputs, v, create_graph, strict, vjp)


def hvp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value of `func`, one element, and H v, both `v` and it nested as the inputs are.

    >>> pb.autograd.functional.hvp(lambda x: (x**3).sum(), pb.tensor([1.0, 2.0]), pb.tensor([1.0, 10.0]))
    (tensor(9.), tensor([  6., 120.]))
    """
    return _hessian_product("hvp", func, inputs, v, create_graph, strict, jvp)


def _hessian_product(
    name: str, func: Function, inputs: Any, v: Any, create_graph: bool, strict: bool, product: Function
) -> tuple[Any, Any]:
    call = _Call(name, func, inputs, create_graph, strict)
    vector = call.vector(v, call.inputs, "the input")
    value = call.traced().value()
    _, found = product(call.gradient, call.inputs, vector, create_graph, strict)
    return call.finished(value), call.nested(found)


def jacobian(
    func: Function,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian: for each output, for each input, a tensor of the output's shape followed by the input's.

    By "reverse-mode", a product for each element of the outputs, or "forward-mode", one for each of the inputs, all at
    once: `vectorize`, which PyTorch asks for with "forward-mode", makes no difference here.

    >>> pb.autograd.functional.jacobian(lambda x: x * x, pb.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    from ..func import jacfwd, jacrev

    call = _Call("jacobian", func, inputs, create_graph, strict)
    transforms: dict[str, Function] = {"reverse-mode": jacrev, "forward-mode": jacfwd}
    if strategy not in transforms:
        raise ValueError(f'strategy must be "reverse-mode" or "forward-mode", got {strategy!r} (at {user_source()})')
    if strict and strategy == "forward-mode":
        raise ValueError(f'strict is there for strategy="reverse-mode" only (at {user_source()})')
    if strict:
        call.traced()
    places = 0 if call.alone else tuple(range(len(call.inputs)))
    return call.finished(transforms[strategy](func, places)(*call.inputs))


def hessian(
    func: Function,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of a function of one element: for each pair of inputs a tensor of both shapes, one after the other.

    >>> pb.autograd.functional.hessian(lambda x: (x**3).sum(), pb.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    call = _Call("hessian", func, inputs, create_graph, strict)
    if strict:
        call.traced()

    def first(*given: Any) -> Any:
        found = call.gradient(*given)
        return found[0] if call.alone else found

    return jacobian(first, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)


def _check(name: str, vectors: tuple[Any, ...], like: Any) -> None:
    described, expected = ([f"{t.dtype.name}{list(t.shape)}" for t in group] for group in (vectors, like))
    if described != expected:
        raise GradientError(f"{name}: v must be {expected}, got {described} (at {user_source()})")


__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]
