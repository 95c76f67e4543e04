"""Gradient rules of one's own: `Function` for users, `with_gradient` for the library's composites."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from ..errors import GradientError
from ..graph.node import Node
from ..graph.types import DType
from ..ops.host import DETACH, RESULT, custom, detach, result, several
from ..ops.movement import expand
from ..ops.primitive import MODE, Lowering, autocast_mode, constant, grad_mode, own_lines, unnamed, user_source
from ..tensor.handle import Handle
from ..tensor.state import STATE

Rule = Callable[[Any, Any], Sequence[Any]]


@unnamed
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


@unnamed
def with_gradients(
    primals: Sequence[Any], inputs: Sequence[Any], rule: Callable[[Sequence[Any]], Sequence[Any]]
) -> list[Any]:
    """`with_gradient` for several tensors: `rule` is given a cotangent for each, zeros where none has arrived."""

    def on_nodes(joint: Node, cotangents: dict[int, Node]) -> list[Node | None]:
        every = [Handle._wrap(cotangents.get(place) or _zeros(joint.inputs[place])) for place in range(len(primals))]
        return [None if c is None else c.node for c in rule(every)]

    joint = several(tuple(detach(p.node) for p in primals), tuple(t.node for t in inputs), on_nodes)
    return [Handle._wrap(result(joint, place)) for place in range(len(primals))]


def _zeros(like: Node) -> Node:
    return expand(constant(0, like.dtype), like.shape)


class VmapInfo(NamedTuple):
    """What a Function's `vmap` is told of the batch."""

    batch_size: int
    randomness: str


class FunctionCtx:
    """What a Function's forward leaves for its backward: attributes of any name, and what is here."""

    #: for each argument whether it is a tensor that requires grad
    needs_input_grad: tuple[bool, ...] = ()

    def __init__(self) -> None:
        self._saved: tuple[_Saved, ...] = ()
        self._saved_forward: tuple[_Saved, ...] = ()
        self._dirty: tuple[Any, ...] = ()
        self._flat: tuple[Any, ...] = ()
        self._materialize = True
        #: while a rule runs, what is being differentiated
        self._joint: Node | None = None
        #: the results that were handed out; they are not kept alive by what they keep for backward
        self._results: list[ref[Node]] = []
        self._in_jvp = False

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep arguments, results or other tensors (or None) for backward, where they are `context.saved_tensors`.

        They are kept as they are now: what is written into them in place later does not reach backward.
        """
        self._saved = tuple(_Saved(t, "save_for_backward") for t in tensors)

    def save_for_forward(self, *tensors: Any) -> None:
        """Keep tensors for `jvp`, where they are `context.saved_tensors`."""
        self._saved_forward = tuple(_Saved(t, "save_for_forward") for t in tensors)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was kept by save_for_backward; in `jvp` what was kept by save_for_forward."""
        saved = self._saved_forward if self._in_jvp else self._saved
        return tuple(s.tensor(self._joint, self._results) for s in saved)

    def mark_dirty(self, *tensors: Any) -> None:
        """Say which arguments forward has changed in place. It must return them."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Say through which results no gradient goes. Backward gets zeros for them."""
        self._flat = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Have backward given zeros (True, which is so from the start) or None for results without a cotangent."""
        self._materialize = bool(value)


class _Saved:
    """A tensor that was kept: its node, or its place among the results."""

    def __init__(self, tensor: Any, name: str):
        if tensor is not None and not isinstance(tensor, Handle):
            raise TypeError(
                f"{name} takes tensors and None, got {type(tensor).__name__} (at {user_source()}); keep other things "
                "as attributes of the context"
            )
        self.node = None if tensor is None else tensor.node
        self._tensor = tensor
        self.place: int | None = None

    def settle(self, places: dict[int, int]) -> None:
        """Note which result it is, and let go of the tensor itself: a result would keep itself alive."""
        self.place = places.get(id(self._tensor))
        if self.place is not None:
            self.node = None
        self._tensor = None

    def tensor(self, joint: Node | None, results: list[ref[Node]]) -> Any:
        """The tensor; where it is a result, that of what `joint` stands for."""
        if self._tensor is not None:
            return self._tensor
        if self.place is not None and joint is not None:
            handed_out = results[self.place]() if results else None
            if handed_out is not None and _is_of(handed_out, joint):
                return Handle._wrap(handed_out)
            return Handle._wrap(result(joint, self.place))
        return None if self.node is None else Handle._wrap(self.node)


def _is_of(node: Node, joint: Node) -> bool:
    """Whether `node` is a result of `joint`: it need not be computed again."""
    if node.op is DETACH and node.inputs:
        node = node.inputs[0]
    if not node.inputs:
        return node.buffer is not None and not node.requires_grad
    return node.op is RESULT and node.inputs[1] is joint


class Function:
    """An operation with a gradient rule of its own, as PyTorch's `autograd.Function`.

    Subclass with static methods, and call `apply(*args)`:

    - `forward(context, *args)`, or `forward(*args)` with `setup_context(context, inputs, output)` beside it, gives one
      tensor, or a tuple of tensors and anything else;
    - `backward(context, *cotangents)`, also called `vjp`, is given one cotangent for each result and gives a cotangent
      (or None, for no dependence) for each argument. It must be linear in the cotangents. Written in tensors it can be
      differentiated again, and runs inside of compiled steps; NumPy comes in by `pullback.utils.host_call`;
    - `jvp(context, *tangents)` may stand in place of backward: it is transposed then. Beside a backward it is not
      called, since forward mode is made of reverse mode here;
    - `vmap(info, in_dims, *args)` gives (results, out_dims) for a batch of examples. Without it `pullback.vmap` records
      forward and backward for one example and batches what they do, whatever `generate_vmap_rule` says.

    Inside an autocast region forward and backward run in it, wherever `.backward()` is called.

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

    generate_vmap_rule = False

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The value."""
        raise NotImplementedError("a Function must define forward(context, *args)")

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep for backward what it needs, where forward does not take the context."""
        raise NotImplementedError("setup_context(context, inputs, output) is not defined")

    @staticmethod
    def backward(context: Any, *cotangents: Any) -> Any:
        """The cotangents of the arguments."""
        raise NotImplementedError("a Function must define backward(context, *cotangents)")

    @staticmethod
    def vjp(context: Any, *cotangents: Any) -> Any:
        """Another name of backward."""
        raise NotImplementedError("a Function must define backward(context, *cotangents)")

    @staticmethod
    def jvp(context: Any, *tangents: Any) -> Any:
        """The tangents of the results."""
        raise NotImplementedError("jvp(context, *tangents) is not defined")

    @staticmethod
    def vmap(info: VmapInfo, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        """The results for a batch of examples, and where they have the batch's axis."""
        raise NotImplementedError("vmap(info, in_dims, *args) is not defined")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run forward on the arguments; differentiation will use backward.

        Arguments given by keyword count at their places in forward: backward gives a cotangent for each.
        """
        if _defines(cls, "setup_context"):
            bound = inspect.signature(cls.forward).bind(*args, **kwargs)
            bound.apply_defaults()
            args = bound.args
        elif kwargs:
            bound = inspect.signature(cls.forward).bind(None, *args, **kwargs)
            bound.apply_defaults()
            args = bound.args[1:]
        else:
            return _Call(cls, args).run(args)
        if bound.kwargs:
            raise TypeError(
                f"{cls.__name__}.apply: backward gives cotangents by place, which {sorted(bound.kwargs)} have none of "
                f"(at {user_source()}); let forward take them by place too"
            )
        return _Call(cls, args).run(args)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"a Function is not called but applied, by {type(self).__name__}.apply(...) (at {user_source()})"
        )


def _defines(cls: type, name: str) -> bool:
    return getattr(cls, name) is not getattr(Function, name)


class _Call:
    """One call of a Function. Of the arguments it keeps shapes and dtypes, and what is no tensor."""

    def __init__(self, cls: type[Function], args: tuple[Any, ...]):
        if _defines(cls, "backward") and _defines(cls, "vjp"):
            raise GradientError(f"{cls.__name__} defines backward and vjp, which are two names of the same thing")
        self.cls, self.name = cls, cls.__name__
        self.others = tuple(None if isinstance(a, Handle) else a for a in args)
        self.kinds = [(a.shape, a.dtype) if isinstance(a, Handle) else None for a in args]
        self.context = FunctionCtx()
        self.context.needs_input_grad = tuple(isinstance(a, Handle) and a.requires_grad for a in args)
        self.region: Lowering = MODE.autocast
        #: places of the results that are tensors, and how many results there are
        self.places: list[int] = []
        self.count = 0

    def run(self, args: tuple[Any, ...]) -> Any:
        """The results."""
        tensors = [a for a in args if isinstance(a, Handle)]
        nodes = tuple(t.node for t in tensors)
        before = [(t._node, t.is_leaf) for t in tensors]
        with grad_mode(False):
            if _defines(self.cls, "setup_context"):
                given = self.cls.forward(*args)
                self.cls.setup_context(self.context, args, given)
            else:
                given = self.cls.forward(self.context, *args)
        self._check_writes(tensors, before, given)
        outputs = given if isinstance(given, tuple) else (given,)
        self._check_outputs(outputs)
        self.count = len(outputs)
        self.places = [place for place, o in enumerate(outputs) if isinstance(o, Handle)]
        saved = {id(outputs[place]): number for number, place in enumerate(self.places)}
        for entry in (*self.context._saved, *self.context._saved_forward):
            entry.settle(saved)
        wrapped = list(outputs)
        for place, tensor in zip(self.places, self._results(outputs, nodes), strict=True):
            wrapped[place] = self._handed_out(outputs[place], tensor)
        self.context._dirty = self.context._flat = ()
        return tuple(wrapped) if isinstance(given, tuple) else wrapped[0]

    def _results(self, outputs: tuple[Any, ...], nodes: tuple[Node, ...]) -> list[Node]:
        """The nodes of the results that are tensors."""
        primals = tuple(detach(outputs[place].node) for place in self.places)
        batching = self._examples if STATE.example is not None and _defines(self.cls, "vmap") else None
        tracked = MODE.grad and any(n.requires_grad for n in nodes)
        if not primals or (batching is None and not tracked):
            return list(primals)
        joint = several(primals, nodes, self._rule, batching)
        flat = set(map(id, self.context._flat))
        results = [
            detach(result(joint, number)) if id(outputs[place]) in flat else result(joint, number)
            for number, place in enumerate(self.places)
        ]
        self.context._results = [ref(node) for node in results]
        return results

    def _handed_out(self, output: Any, node: Node) -> Any:
        """A result as a tensor: an argument that was changed in place is that argument itself."""
        if any(output is dirty for dirty in self.context._dirty):
            return output._assign(node)
        return Handle._wrap(node)

    # ---- what forward may do

    def _check_writes(self, tensors: list[Any], before: list[tuple[Node, bool]], given: Any) -> None:
        dirty = self.context._dirty
        outputs = given if isinstance(given, tuple) else (given,)
        for tensor in dirty:
            if not any(tensor is t for t in tensors):
                raise GradientError(f"{self.name}: mark_dirty takes arguments of forward (at {user_source()})")
            if not any(tensor is o for o in outputs):
                raise GradientError(f"{self.name}: what mark_dirty names must be returned (at {user_source()})")
        for tensor, (node, is_leaf) in zip(tensors, before, strict=True):
            marked = any(tensor is t for t in dirty)
            if not node.requires_grad or (tensor._node is node and not marked):
                continue
            if not marked:
                tensor._node = node
                raise GradientError(
                    f"{self.name}.forward changed an argument that requires grad in place without naming it by "
                    f"context.mark_dirty (at {user_source()}): its gradient would be wrong. Name it, or change a clone."
                )
            if is_leaf or tensor._link is not None:
                tensor._node = node
                what = "a leaf" if is_leaf else "a view"
                raise GradientError(
                    f"{self.name}.forward changed {what} that requires grad in place (at {user_source()}); give it a "
                    ".clone()"
                )

    def _check_outputs(self, outputs: tuple[Any, ...]) -> None:
        for place, output in enumerate(outputs):
            if isinstance(output, (list, tuple, dict)) and any(
                isinstance(o, Handle) for o in (output.values() if isinstance(output, dict) else output)
            ):
                raise GradientError(
                    f"{self.name}.forward must return a tensor or a tuple of tensors, got a {type(output).__name__} of "
                    f"them as result {place}, through which no gradient would go (at {user_source()})"
                )

    # ---- what backward gives

    def _rule(self, joint: Node, cotangents: dict[int, Node]) -> list[Node | None]:
        materialize = self.context._materialize
        given: list[Any] = [None] * self.count
        for number, place in enumerate(self.places):
            cotangent = cotangents.get(number)
            if cotangent is None and materialize:
                cotangent = _zeros(joint.inputs[number])
            given[place] = None if cotangent is None else Handle._wrap(cotangent)
        self.context._joint = joint
        try:
            with autocast_mode(self.region):
                found = self._backward(given)
        finally:
            self.context._joint = None
        return [c.node if c is not None else None for c in self._fitting(found)]

    def _backward(self, cotangents: list[Any]) -> Any:
        for name in ("backward", "vjp"):
            if _defines(self.cls, name):
                with own_lines():
                    return getattr(self.cls, name)(self.context, *cotangents)
        if _defines(self.cls, "jvp"):
            return self._transposed(cotangents)
        raise NotImplementedError(
            f"{self.name} defines no backward(context, *cotangents) and cannot be differentiated (at {user_source()})"
        )

    def _transposed(self, cotangents: list[Any]) -> tuple[Any, ...]:
        """The cotangents of the arguments by `jvp`, which is linear in the tangents: by its derivative."""
        from .backward import grad

        with grad_mode(True):
            tangents = [
                Handle._wrap(detach(_zeros_of(*kind), True)) if kind and kind[1].is_floating_point else None
                for kind in self.kinds
            ]
            self.context._in_jvp = True
            try:
                pushed = self.cls.jvp(self.context, *tangents)
            finally:
                self.context._in_jvp = False
            pushed = pushed if isinstance(pushed, tuple) else (pushed,)
        pairs = [
            (p, c)
            for p, c in zip(pushed, cotangents, strict=True)
            if p is not None and c is not None and p.requires_grad
        ]
        wanted = [t for t in tangents if t is not None]
        if not pairs:
            return (None,) * len(tangents)
        outputs, given = zip(*pairs, strict=True)
        found = iter(grad(outputs, wanted, given, retain_graph=True, create_graph=MODE.grad, allow_unused=True))
        return tuple(None if t is None else next(found) for t in tangents)

    def _fitting(self, given: Any) -> list[Any]:
        """The cotangents of the arguments that are tensors, each looked at."""
        given = given if isinstance(given, tuple) else tuple(given) if isinstance(given, list) else (given,)
        extra = given[len(self.kinds) :]
        if len(given) < len(self.kinds) or any(c is not None for c in extra):
            raise GradientError(
                f"{self.name}.backward must return {len(self.kinds)} cotangents, one an argument, got {len(given)} "
                f"(at {user_source()})"
            )
        for place, (cotangent, kind) in enumerate(zip(given, self.kinds, strict=False)):
            if cotangent is not None:
                self._check_cotangent(place, cotangent, kind)
        return [c for c, kind in zip(given, self.kinds, strict=False) if kind is not None]

    def _check_cotangent(self, place: int, cotangent: Any, kind: tuple[tuple[int, ...], DType] | None) -> None:
        if kind is None:
            raise GradientError(
                f"{self.name}.backward returned a cotangent for argument {place}, which is no tensor: return None for "
                f"it (at {user_source()})"
            )
        if not isinstance(cotangent, Handle):
            raise GradientError(
                f"{self.name}.backward must return tensors and None, got {type(cotangent).__name__} for argument "
                f"{place} (at {user_source()}); NumPy's arrays come into a graph by pullback.utils.host_call"
            )
        if not _sums_to(cotangent.shape, kind[0]):
            raise GradientError(
                f"{self.name}.backward returned a cotangent of shape {list(cotangent.shape)} for argument {place} of "
                f"shape {list(kind[0])} (at {user_source()})"
            )

    # ---- a batch of examples

    def _examples(self, length: int, inputs: Sequence[tuple[Node, Node | None]]) -> list[Node]:
        """The results for all examples, by the Function's own `vmap`. `inputs` are nodes, and None beside those that
        are the same for all."""
        pairs = iter(inputs)
        args = list(self.others)
        dims: list[int | None] = [None] * len(args)
        for place, kind in enumerate(self.kinds):
            if kind is not None:
                node, varying = next(pairs)
                args[place], dims[place] = Handle._wrap(node), None if varying is None else 0
        randomness = "error" if STATE.example is None else STATE.example.randomness
        given = self.cls.vmap(VmapInfo(length, randomness), tuple(dims), *args)
        if not isinstance(given, tuple) or len(given) != 2:
            raise GradientError(f"{self.name}.vmap must return (results, out_dims), got {given!r} (at {user_source()})")
        outputs = given[0] if isinstance(given[0], tuple) else (given[0],)
        places = given[1] if isinstance(given[1], (tuple, list)) else (given[1],) * len(outputs)
        if len(outputs) != self.count or len(places) != self.count:
            raise GradientError(f"{self.name}.vmap must return {self.count} results and out_dims (at {user_source()})")
        return [self._batch_first(outputs[p], places[p], length) for p in self.places]

    def _batch_first(self, output: Any, dim: int | None, length: int) -> Node:
        every = output.expand(length, *output.shape) if dim is None else output.movedim(dim, 0)
        if every.shape[0] != length:
            raise GradientError(
                f"{self.name}.vmap returned shape {list(output.shape)}, whose axis {dim} is not the batch of {length} "
                f"(at {user_source()})"
            )
        return every.node


def _zeros_of(shape: tuple[int, ...], dtype: DType) -> Node:
    return expand(constant(0.0, dtype), shape)


def _sums_to(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a value of `shape` can be summed to `wanted`, which was broadcast to it."""
    try:
        return np.broadcast_shapes(shape, wanted) == shape
    except ValueError:
        return False


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A Function's backward that cannot be differentiated itself: doing so raises GradientError.

    >>> class Squared(pb.autograd.Function):
    ...     @staticmethod
    ...     def forward(context, x):
    ...         context.save_for_backward(x)
    ...         return x * x
    ...     @staticmethod
    ...     @pb.autograd.function.once_differentiable
    ...     def backward(context, cotangent):
    ...         return 2 * context.saved_tensors[0] * cotangent
    """

    @functools.wraps(backward)
    def wrapper(context: FunctionCtx, *cotangents: Any) -> Any:
        with grad_mode(False):
            given = backward(context, *cotangents)
        joint = context._joint
        if not MODE.grad or joint is None:
            return given
        inputs = [c.node for c in cotangents if isinstance(c, Handle)] + list(joint.inputs[joint["count"] :])
        used = tuple(n for n in inputs if n.requires_grad)

        def refuse(*_: Any) -> list[Node | None]:
            raise GradientError(
                f"{backward.__qualname__} is marked once_differentiable: there is no derivative of what it gives (at "
                f"{user_source()})"
            )

        every = given if isinstance(given, tuple) else (given,)
        marked = [Handle._wrap(custom(c.node, used, refuse)) if isinstance(c, Handle) else c for c in every]
        return tuple(marked) if isinstance(given, tuple) else marked[0]

    return wrapper


__all__ = ["Function", "FunctionCtx", "VmapInfo", "once_differentiable", "with_gradient", "with_gradients"]
