"""A function's result at a point with its history from there on: what every derivative here is taken from.

The arguments are fresh nodes that depend differentiably on the ones given, so that what is found can be differentiated
again, by these functions or by `backward`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any
from weakref import WeakSet

from ..autograd.backward import grad as gradients_of
from ..errors import GradientError, ShapeError
from ..graph.node import Node
from ..ops.host import detach, identity
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import zeros_like
from ..tensor.grad_modes import enable_grad, is_grad_enabled
from ..tensor.state import STATE
from ..trees import flatten, unflatten

Argnums = int | tuple[int, ...]

#: the leaves that transforms made to differentiate by, once they have: outside of them these do not exist
_ENDED: WeakSet[Node] = WeakSet()


def fresh(leaf: Any, name: str) -> Tensor:
    """A tensor of the same value to differentiate by, whose own history goes on behind it."""
    if not isinstance(leaf, Tensor):
        raise TypeError(f"{name} differentiates by tensors, got {type(leaf).__name__} (at {user_source()})")
    if not leaf.is_floating_point():
        raise GradientError(
            f"{name} differentiates by floating point tensors, got {leaf.dtype.name} (at {user_source()}); use .float()"
        )
    node = leaf.node
    return Tensor(identity(node) if node.requires_grad else detach(node, True))


def without(own: Sequence[Tensor], results: Sequence[Any]) -> list[Any]:
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
    return {node for node in _history(root) if not _before(node)}


def _history(root: Node) -> set[Node]:
    """The nodes that `root` depends on differentiably, itself included."""
    found: set[Node] = set()
    stack = [root] if root.requires_grad else []
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(_before(node))
    return found


def _before(node: Node) -> list[Node]:
    return [] if node.op.name == "detach" else [i for i in node.inputs if i.requires_grad]


def pulled(outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
    """The gradients, themselves differentiable; zeros for inputs that are not used."""
    used = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    for output, _ in used:
        STATE.tell_pulled(output.node)
    if not used:
        return [zeros_like(i) for i in inputs]
    with enable_grad():
        found = gradients_of([o for o, _ in used], inputs, [c for _, c in used], create_graph=True, allow_unused=True)
    return [zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]


class Traced:
    """The leaves of `func(*primals)` and of its fresh arguments, with the nesting of both.

    `outputs` are nested as `shape` says, `inputs` as `input_shape`, a tuple of the primals; `extra` is what `func`
    gives beside its value, with `has_aux`.
    """

    def __init__(self, func: Callable[..., Any], primals: tuple[Any, ...], has_aux: bool, name: str):
        self.name = name
        leaves, self.input_shape = flatten(primals)
        if not leaves:
            raise TypeError(f"{name} differentiates by tensors, got none (at {user_source()})")
        with enable_grad():
            self.inputs = [fresh(leaf, name) for leaf in leaves]
            result = func(*unflatten(self.input_shape, self.inputs))
        value, extra = split_aux(result, name) if has_aux else (result, None)
        self.extra: Any = extra
        self.outputs, self.shape = flatten(value)
        if not self.outputs:
            raise TypeError(f"{name}: the function must give tensors, got {value!r} (at {user_source()})")
        for leaf in self.outputs:
            if not isinstance(leaf, Tensor):
                raise TypeError(
                    f"{name}: the function must give tensors, got {type(leaf).__name__} (at {user_source()})"
                )
        self._pushing: tuple[list[Tensor], list[Tensor]] | None = None

    def value(self) -> Any:
        """What the function gave, without the history that begins in the fresh arguments."""
        return unflatten(self.shape, without(self.inputs, self.outputs))

    def beside(self) -> Any:
        """What it gave beside, likewise."""
        leaves, shape = flatten(self.extra)
        return unflatten(shape, without(self.inputs, leaves))

    def check_floating(self) -> None:
        """Raise unless all outputs can be differentiated."""
        for output in self.outputs:
            if not output.is_floating_point():
                raise GradientError(
                    f"{self.name}: every output of the function must be of floats, got {output.dtype.name} (at "
                    f"{user_source()}); give it beside the value, with has_aux=True"
                )

    def check_dependent(self) -> None:
        """Raise unless every output depends on an argument."""
        inputs = {tensor.node for tensor in self.inputs}
        for place, output in enumerate(self.outputs):
            if inputs.isdisjoint(_history(output.node)):
                raise GradientError(
                    f"{self.name}: with strict=True every output must depend on the primals, and output {place} of "
                    f"shape {list(output.shape)} does not (at {user_source()})"
                )

    def pull(self, cotangents: Sequence[Tensor], places: Sequence[int] | None = None) -> list[Tensor]:
        """The inputs' cotangents for those of the outputs, of those at `places` only if given."""
        chosen = self.outputs if places is None else [self.outputs[place] for place in places]
        return pulled(chosen, self.inputs, cotangents)

    def push(self, tangents: Sequence[Tensor], places: Sequence[int] | None = None) -> list[Tensor]:
        """The outputs' derivatives along tangents of the inputs, of those at `places` only if given.

        The cotangents of the inputs are linear in those of the outputs, so differentiating them by these gives the
        product with the Jacobian itself. What of the first reverse pass is not needed for that is never computed.
        """
        rows, unknowns = self._transposed()
        chosen = rows if places is None else [rows[place] for place in places]
        pushed = iter(pulled(chosen, unknowns, tangents))
        return [next(pushed) if o.is_floating_point() else zeros_like(o) for o in self.outputs]

    def _transposed(self) -> tuple[list[Tensor], list[Tensor]]:
        """The inputs' cotangents as functions of cotangents of the outputs that stay unknown, and these."""
        if self._pushing is None:
            floating = [o for o in self.outputs if o.is_floating_point()]
            with enable_grad():
                unknowns = [zeros_like(o, requires_grad=True) for o in floating]
            self._pushing = pulled(floating, self.inputs, unknowns), unknowns
        return self._pushing

    def finished(self, results: Sequence[Tensor]) -> list[Tensor]:
        """Derivatives as they are given to the caller: without the history that begins in what was made here.

        A step that is being recorded looks at whether these are finite, and the numbers that they are derivatives of,
        which are losses. What has more elements may be infinite on purpose in some.
        """
        unknowns = [] if self._pushing is None else self._pushing[1]
        found = without([*self.inputs, *unknowns], results)
        STATE.watch_pulled([o.node for o in self.outputs if o.numel() == 1], [derivative.node for derivative in found])
        return found


def split_aux(result: Any, name: str) -> tuple[Any, Any]:
    """A function's value and what stands beside."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            f"{name}: with has_aux=True the function must give a pair (value, aux), got {type(result).__name__} (at "
            f"{user_source()})"
        )
    return result


def check_like(given: list[Any], given_shape: Hashable, like: list[Tensor], shape: Hashable, what: str) -> None:
    """Raise unless `given` are tensors as `like` are, nested alike."""
    described = [f"{t.dtype.name}{list(t.shape)}" if isinstance(t, Tensor) else type(t).__name__ for t in given]
    expected = [f"{t.dtype.name}{list(t.shape)}" for t in like]
    if described != expected or given_shape != shape:
        nested = "" if given_shape == shape else ", but nested otherwise" if described == expected else ""
        raise ShapeError(f"{what} must be {expected}, nested alike, got {described}{nested} (at {user_source()})")


class Chosen:
    """The arguments that `argnums` names among `args`, and the function as one of these alone."""

    def __init__(
        self, func: Callable[..., Any], argnums: Argnums, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
    ):
        self.func, self.args, self.kwargs = func, args, kwargs
        self.alone = not isinstance(argnums, tuple)
        self.numbers = _numbers(argnums, len(args), name)
        self.primals = tuple(args[number] for number in self.numbers)

    def __call__(self, *primals: Any) -> Any:
        placed = list(self.args)
        for number, value in zip(self.numbers, primals, strict=True):
            placed[number] = value
        return self.func(*placed, **self.kwargs)

    def by_argument(self, found: Any) -> Any:
        """A tuple of what was found for each argument; what was found for it, where `argnums` is one number."""
        return found[0] if self.alone else tuple(found)


def _numbers(argnums: Any, count: int, name: str) -> tuple[int, ...]:
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise TypeError(f"{name}: argnums must be an int or a tuple of ints, got {argnums!r} (at {user_source()})")
    for number in numbers:
        if not -count <= number < count:
            raise IndexError(f"{name}: argnums {number} is outside the {count} arguments (at {user_source()})")
    if not numbers or len({n % count for n in numbers}) != len(numbers):
        raise ValueError(f"{name}: argnums must name arguments, each once, got {argnums!r} (at {user_source()})")
    return numbers


__all__ = ["Argnums", "Chosen", "Traced", "check_like", "split_aux"]
