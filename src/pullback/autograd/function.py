"""Gradient rules of one's own: `Function` for users, `with_gradient` for the library's composites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import GradientError
from ..graph.node import Node
from ..ops.host import custom
from ..ops.primitive import MODE, autocast_mode, grad_mode, user_source

Rule = Callable[[Any, Any], Sequence[Any]]


def with_gradient(primal: Any, inputs: Sequence[Any], rule: Rule) -> Any:
    """`primal`, a tensor computed from `inputs`, differentiated by `rule` and not through how it was computed.

    `rule(result, cotangent)` gives a cotangent (a tensor, or None) for each of `inputs`, in tensors, so that it can be
    differentiated again. The rule must be linear in the cotangent.
    """
    wrap = primal._wrap

    def on_nodes(node: Node, cotangent: Node) -> list[Node | None]:
        cotangents = rule(wrap(node), wrap(cotangent))
        return [None if c is None else c.node for c in cotangents]

    return wrap(custom(primal.node, tuple(t.node for t in inputs), on_nodes))


class Context:
    """What a Function's forward leaves for its backward."""

    def __init__(self) -> None:
        self.saved_tensors: tuple[Any, ...] = ()
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors for backward, where they are `context.saved_tensors`."""
        self.saved_tensors = tensors


class Function:
    """An operation with a gradient rule of its own, as PyTorch's `autograd.Function`.

    Subclass with two static methods, `forward(context, *args)` giving one tensor and `backward(context, cotangent)`
    giving a cotangent (or None) for each argument, and call `apply(*args)`. Inside an autocast region both run in it,
    wherever `.backward()` is called.

    >>> class Straight(pb.autograd.Function):
    ...     @staticmethod
    ...     def forward(context, x):
    ...         return x.round()
    ...     @staticmethod
    ...     def backward(context, cotangent):
    ...         return cotangent
    >>> x = pb.tensor(1.4, requires_grad=True)
    >>> Straight.apply(x).backward()
    >>> x.grad.item()
    1.0
    """

    @staticmethod
    def forward(context: Context, *args: Any) -> Any:
        """The value."""
        raise NotImplementedError("a Function must define forward(context, *args)")

    @staticmethod
    def backward(context: Context, cotangent: Any) -> Any:
        """The cotangents of the arguments."""
        raise NotImplementedError("a Function must define backward(context, cotangent)")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward on `args`; differentiation will use backward."""
        from ..tensor.handle import Handle

        context = Context()
        tensors = [a for a in args if isinstance(a, Handle)]
        context.needs_input_grad = tuple(isinstance(a, Handle) and a.requires_grad for a in args)
        region = MODE.autocast
        with grad_mode(False):
            result = cls.forward(context, *args)
        if not isinstance(result, Handle):
            raise GradientError(f"{cls.__name__}.forward must return one tensor, got {result!r} (at {user_source()})")

        def rule(_: Any, cotangent: Any) -> list[Any]:
            with autocast_mode(region):
                given = cls.backward(context, cotangent)
            given = given if isinstance(given, tuple) else (given,)
            if len(given) != len(args):
                raise GradientError(
                    f"{cls.__name__}.backward must return {len(args)} cotangents, one an argument, got {len(given)}"
                )
            return [_fitting(cls, g, a) for g, a in zip(given, args, strict=True) if isinstance(a, Handle)]

        return with_gradient(result, tensors, rule)


def _fitting(cls: type, cotangent: Any, argument: Any) -> Any:
    if cotangent is not None and cotangent.shape != argument.shape:
        raise GradientError(
            f"{cls.__name__}.backward returned a cotangent of shape {list(cotangent.shape)} for an argument of shape "
            f"{list(argument.shape)}"
        )
    return cotangent
