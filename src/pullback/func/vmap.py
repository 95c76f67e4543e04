"""vmap: a function of one example made into a function of a batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from ..errors import ShapeError
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.examples import RANDOMNESS, for_each
from ..tensor.joining import cat
from ..trees import flatten, leaf_count, unflatten


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """A function that does what `func` does for each example of a batch, all at once, as torch.func.vmap.

    `in_dims` says which axis of each argument is the batch: an int for all, or nested as the arguments are, None for
    what is the same for all examples. `out_dims` says where the results have it, None for a result that is the same
    for all. Keyword arguments are the same for all. `func` is recorded once, for one example; its arguments and results
    are tensors, or nested tuples, lists and dicts of them.

    Random draws in `func` are an error, or with `randomness` "same" one draw serves all examples, with "different" each
    has its own. `chunk_size` limits how many examples are computed at once. A vmap may stand within another, within
    derivatives and around them: around `func.grad` it gives the gradient of each example.

    Raises ShapeError where the arguments' batches differ in size, and TraceError where `func` asks for a value (as in
    `item()`, an `if`, or a result whose size depends on data).

    >>> pb.vmap(lambda x, y: x @ y)(pb.ones(5, 3), pb.ones(5, 3))
    tensor([3., 3., 3., 3., 3.])
    >>> per_example = pb.vmap(pb.func.grad(lambda w, x: (w * x).sum() ** 2), in_dims=(None, 0))
    >>> per_example(pb.tensor([1.0, 2.0]), pb.tensor([[1.0, 0.0], [0.0, 1.0]]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    check_randomness(randomness, "vmap")
    check_chunk_size(chunk_size, "vmap")

    def run(*args: Any, **kwargs: Any) -> Any:
        call = _Call(func, in_dims, out_dims, randomness, args, kwargs)
        size = call.size
        if chunk_size is None or chunk_size >= size:
            return call.run(0, size)
        starts = range(0, size, chunk_size)
        return call.joined([call.run(start, min(start + chunk_size, size)) for start in starts])

    return run


def check_randomness(randomness: str, name: str) -> None:
    """Raise unless `randomness` is one that there is."""
    if randomness not in RANDOMNESS:
        raise ValueError(f"{name}: randomness must be one of {RANDOMNESS}, got {randomness!r} (at {user_source()})")


def check_chunk_size(chunk_size: int | None, name: str) -> None:
    """Raise unless `chunk_size` is a number of examples, or None for all."""
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size <= 0):
        raise ValueError(f"{name}: chunk_size must be None or above 0, got {chunk_size!r} (at {user_source()})")


class _Call:
    """One call of a function under vmap: its arguments, each with its batch's axis or None."""

    def __init__(
        self, func: Callable[..., Any], in_dims: Any, out_dims: Any, randomness: str, args: Any, kwargs: dict[str, Any]
    ):
        if not args:
            raise ValueError(f"vmap: the function was called without arguments to batch (at {user_source()})")
        self.func, self.kwargs, self.out_dims, self.randomness = func, kwargs, out_dims, randomness
        self.leaves, self.shape = flatten(args)
        if not isinstance(in_dims, (int, tuple, list)):
            raise TypeError(f"vmap: in_dims must be an int or a tuple, got {in_dims!r} (at {user_source()})")
        dims = spread(in_dims if isinstance(in_dims, int) else tuple(in_dims), self.shape, "in_dims")
        self.dims = [_axis(d, leaf, "in_dims") for d, leaf in zip(dims, self.leaves, strict=True)]
        sizes = [leaf.shape[d] for d, leaf in zip(self.dims, self.leaves, strict=True) if d is not None]
        if not sizes:
            raise ValueError(f"vmap: in_dims has no axis to batch, got {in_dims!r} (at {user_source()})")
        if len(set(sizes)) > 1:
            raise ShapeError(f"vmap: the batches must have one size, got {sizes} (at {user_source()})")
        self.size = sizes[0]

    def run(self, start: int, stop: int) -> Any:
        """The results for the examples from `start` to `stop`."""
        batched = [place for place, dim in enumerate(self.dims) if dim is not None]
        stacks = [self._stack(place, start, stop) for place in batched]
        before = [stack._node for stack in stacks]
        nested: Hashable = None

        def one(examples: list[Tensor]) -> list[Tensor]:
            nonlocal nested
            placed = list(self.leaves)
            for place, example in zip(batched, examples, strict=True):
                placed[place] = example
            outputs, nested = flatten(self.func(*unflatten(self.shape, placed), **self.kwargs))
            for output in outputs:
                if not isinstance(output, Tensor):
                    raise TypeError(
                        f"vmap: the function must give tensors, got {type(output).__name__} (at {user_source()})"
                    )
            return outputs

        found = for_each(one, stacks, stop - start, self.randomness)
        self._write_back(batched, stacks, before, start)
        self.out = spread(self.out_dims, nested, "out_dims")
        pairs = zip(found, self.out, strict=True)
        return unflatten(nested, [_placed(tensor, every, dim, stop - start) for (tensor, every), dim in pairs])

    def _stack(self, place: int, start: int, stop: int) -> Tensor:
        tensor, dim = self.leaves[place], self.dims[place]
        if (start, stop) != (0, self.size):
            tensor = tensor.narrow(dim, start, stop - start)
        return Tensor(tensor.movedim(dim, 0).node)

    def _write_back(self, batched: list[int], stacks: list[Tensor], before: list[Any], start: int) -> None:
        """Give arguments that the function has changed in place what they have become."""
        for place, stack, node in zip(batched, stacks, before, strict=True):
            if stack._node is not node:
                leaf, dim = self.leaves[place], self.dims[place] or 0
                whole, new = leaf.movedim(dim, 0), stack.to(leaf.dtype)
                parts = [whole[:start], new, whole[start + len(new) :]]
                leaf._assign(cat([p for p in parts if p.shape[0]] or [new], 0).movedim(0, dim).node)

    def joined(self, chunks: list[Any]) -> Any:
        """The results of all chunks, one after the other."""
        parts = [flatten(chunk) for chunk in chunks]
        nested = parts[0][1]
        columns = zip(*(leaves for leaves, _ in parts), strict=True)
        return unflatten(
            nested, [c[0] if d is None else cat(list(c), d) for c, d in zip(columns, self.out, strict=True)]
        )


def spread(dims: Any, shape: Any, name: str) -> list[Any]:
    """`dims`, nested as far as it is, one for each leaf of the nesting `shape`."""
    if dims is None or isinstance(dims, int):
        return [dims] * leaf_count(shape)
    if shape is None:
        raise ValueError(f"vmap: {name} {dims!r} stands for one tensor; give an int or None (at {user_source()})")
    inner = shape[2] if shape[0] is dict else shape[1]
    if isinstance(dims, dict) != (shape[0] is dict) or not isinstance(dims, (tuple, list, dict)):
        raise ValueError(f"vmap: {name} {dims!r} is not nested as the tensors are (at {user_source()})")
    keys = shape[1] if isinstance(dims, dict) else range(len(inner))
    if len(dims) != len(inner) or (isinstance(dims, dict) and set(dims) != set(keys)):
        raise ValueError(
            f"vmap: {name} {dims!r} names {len(dims)} parts where there are {len(inner)} (at {user_source()})"
        )
    return [dim for key, part in zip(keys, inner, strict=True) for dim in spread(dims[key], part, name)]


def _axis(dim: Any, leaf: Any, name: str) -> int | None:
    """A batch's axis counted from the front."""
    if dim is None:
        return None
    if not isinstance(leaf, Tensor):
        raise TypeError(
            f"vmap: {name} gives {dim} for an argument of type {type(leaf).__name__}, which has no axes: pass None for "
            f"it (at {user_source()})"
        )
    if isinstance(dim, bool) or not -leaf.ndim <= dim < leaf.ndim:
        raise IndexError(f"vmap: {name} gives axis {dim} for a tensor of shape {list(leaf.shape)} (at {user_source()})")
    return dim % leaf.ndim


def _placed(tensor: Tensor, batched: bool, dim: int | None, size: int) -> Tensor:
    """A result with its batch at `dim`."""
    if dim is None:
        if batched:
            raise ValueError(f"vmap: out_dims is None for a result that differs between examples (at {user_source()})")
        return tensor
    every = tensor if batched else tensor.expand(size, *tensor.shape)
    if not -every.ndim <= dim < every.ndim:
        raise IndexError(
            f"vmap: out_dims gives axis {dim} for a result of shape {list(every.shape)} (at {user_source()})"
        )
    return every.movedim(0, dim) if dim % every.ndim else every


__all__ = ["check_chunk_size", "check_randomness", "vmap"]
