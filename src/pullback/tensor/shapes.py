"""Views of tensors: the same elements under another shape, order or part, and what cuts tensors into such views."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError, TraceError
from ..graph.types import INTEGER, DType
from ..ops.primitive import user_source
from .arguments import whole_number
from .handle import Handle
from .memory_format import channels_last, channels_last_3d, check_memory_format, contiguous_format
from .reductions import normalize_axes, normalize_axis
from .views import Bytes, Cut, Diagonal, Expand, Permute, Reshape, Strided, Windows, is_row_major

if TYPE_CHECKING:
    from . import Tensor


def as_shape(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    listed = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) and isinstance(sizes[0], Sequence) else sizes
    return tuple(operator.index(s) for s in listed)


def one_or_listed(given: tuple[Any, ...], named: Any, name: str, argument: str) -> tuple[int, ...]:
    """Sizes or axes that may be given one by one, as one sequence, or by the argument's name."""
    if given and named is not None:
        raise TypeError(f"{name}: {argument} given twice (at {user_source()})")
    if not given and named is None:
        raise TypeError(f"{name}: {argument} is missing (at {user_source()})")
    return as_shape(given if named is None else (named,))


def sizes(given: tuple[Any, ...], size: Any, name: str) -> tuple[int, ...]:
    """The sizes of a tensor to be made, given one by one, as one sequence, or as `size`; () makes a scalar."""
    return one_or_listed(given, size, name, "size")


def completed(sizes: tuple[int, ...], count: int, name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The sizes with one -1 replaced so that there are `count` elements."""
    asked = list(sizes)
    if sizes.count(-1) == 1:
        known = math.prod(s for s in sizes if s != -1)
        if known and count % known == 0:
            sizes = tuple(count // known if s == -1 else s for s in sizes)
    if any(s < 0 for s in sizes) or math.prod(sizes) != count:
        raise ShapeError(f"{name}: {list(shape)} has {count} elements, which {asked} cannot hold (at {user_source()})")
    return sizes


class ShapeMethods(Handle):
    """The same elements under another shape. Results are views: what is written to them is written to the tensor."""

    __slots__ = ()

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        if dim is None:
            return self.shape
        self._require_axes("size")
        return self.shape[normalize_axis(dim, self.ndim, "size")]

    def _require_axes(self, name: str) -> None:
        if not self.shape:
            raise IndexError(f"{name}: a tensor of shape [] has no axes (at {user_source()})")

    def dim(self) -> int:
        """How many axes there are."""
        return self.ndim

    ndimension = dim

    def stride(self, dim: int | None = None) -> Any:
        """How many elements lie between neighbours along each axis, or along one. Results of operations are taken to
        lie in row-major order; how values really lie is the compiler's concern."""
        strides = self._layout()[1]
        return strides if dim is None else strides[normalize_axis(dim, self.ndim, "stride")]

    def storage_offset(self) -> int:
        """The number of the first element in the tensor that this is a view of."""
        offset = self._layout()[2]
        if math.isnan(offset):
            raise TraceError(
                f"storage_offset() of what a tensor's value picks, inside a compiled step (at {user_source()}): it is "
                "recorded once and has no values yet. Index with a Python integer, or ask outside of the step."
            )
        return offset

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Whether the elements of this view lie in its base in row-major order without gaps, or with the channels last
        (axis 1 of [N, C, H, W] or [N, C, D, H, W]) where `memory_format` asks for that.
        """
        sizes, strides, _ = self._layout()
        if memory_format in (channels_last, channels_last_3d):
            last = (0, *range(2, self.ndim), 1)
            if self.ndim != (4 if memory_format is channels_last else 5):
                return False
            return is_row_major(tuple(sizes[a] for a in last), tuple(strides[a] for a in last))
        check_memory_format("is_contiguous", memory_format, contiguous_format)
        return is_row_major(sizes, strides)

    def contiguous(self, memory_format: Any = None) -> Tensor:
        """Itself, or a copy where it is a view that takes elements of its base in another order."""
        check_memory_format("contiguous", memory_format, contiguous_format)
        return self if self.is_contiguous() else self.clone()  # type: ignore[attr-defined, return-value]

    # ---- other shapes

    def _reshaped(self, sizes: tuple[int, ...]) -> Tensor:
        """A view where strides can say it, else a copy, as in PyTorch."""
        movement = Reshape(sizes)
        if self._link is not None and movement.layout(self._layout()) is None:
            return self._wrap(movement.read(self.node))
        return self._view(movement)

    def reshape(self, *given: Any, shape: Any = None) -> Tensor:
        """The elements in row-major order under `shape`; one size may be -1."""
        sizes = one_or_listed(given, shape, "reshape", "shape")
        return self._reshaped(completed(sizes, self.numel(), "reshape", self.shape))

    def view(self, *given: Any, size: Any = None, dtype: DType | None = None) -> Tensor:
        """The elements under another shape, or, given a dtype, their bytes read as of that dtype; always as a view.

        Reading and writing bytes are host calls without a gradient.
        """
        dtype = given[0] if len(given) == 1 and isinstance(given[0], DType) else dtype
        if dtype is not None:
            return self._bytes_as(dtype)
        sizes = one_or_listed(given, size, "view", "shape")
        return self._view(Reshape(completed(sizes, self.numel(), "view", self.shape)))

    def _bytes_as(self, dtype: DType) -> Tensor:
        """The bytes as elements of another dtype; the last axis takes the change of size."""
        if dtype is self.dtype:
            return self._view(Reshape(self.shape))
        before, after = self.dtype.itemsize, dtype.itemsize
        shape: tuple[int, ...] = self.shape
        if before != after:
            self._require_axes("view(dtype)")
            if shape[-1] * before % after:
                raise ShapeError(
                    f"view: the last axis of {list(shape)} holds {shape[-1] * before} bytes, no multiple of the "
                    f"{after} of {dtype.name} (at {user_source()})"
                )
            shape = (*shape[:-1], shape[-1] * before // after)
        return self._view(Bytes(self.dtype, self.shape, dtype, shape))

    def view_as(self, other: Tensor) -> Tensor:
        """Under the shape of `other`."""
        return self.view(other.shape)

    def reshape_as(self, other: Tensor) -> Tensor:
        """Under the shape of `other`."""
        return self.reshape(other.shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The axes from `start_dim` to `end_dim` made one."""
        start, end = (normalize_axis(d, self.ndim, "flatten") for d in (start_dim, end_dim))
        if not self.shape:
            return self.reshape(1)
        if start > end:
            raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim} (at {user_source()})")
        return self._reshaped((*self.shape[:start], math.prod(self.shape[start : end + 1]), *self.shape[end + 1 :]))

    def ravel(self) -> Tensor:
        """All elements along one axis."""
        return self.reshape(self.numel())

    def unflatten(self, dim: int, sizes: Any) -> Tensor:
        """One axis cut into several; one of `sizes` may be -1."""
        self._require_axes("unflatten")
        axis = normalize_axis(dim, self.ndim, "unflatten")
        if not len(sizes):
            raise ShapeError(f"unflatten: sizes must not be empty (at {user_source()})")
        whole = completed(as_shape((sizes,)), self.shape[axis], "unflatten", self.shape[axis : axis + 1])
        return self._view(Reshape((*self.shape[:axis], *whole, *self.shape[axis + 1 :])))

    def squeeze(self, dim: int | Sequence[int] | None = None) -> Tensor:
        """Without the axes of size 1, or without those of `dim` that have size 1."""
        axes: Any = range(self.ndim)
        if dim is not None:
            axes = () if isinstance(dim, Sequence) and not dim else normalize_axes(dim, self.ndim, "squeeze")  # type: ignore[arg-type]
        return self._view(Reshape(tuple(s for i, s in enumerate(self.shape) if i not in axes or s != 1)))

    def unsqueeze(self, dim: int) -> Tensor:
        """With a new axis of size 1 at `dim`."""
        axis = normalize_axis(dim, self.ndim + 1, "unsqueeze")
        return self._view(Reshape((*self.shape[:axis], 1, *self.shape[axis:])))

    def expand(self, *given: Any, size: Any = None, implicit: bool = False) -> Tensor:
        """Axes of size 1 repeated; -1 keeps a size."""
        wanted = one_or_listed(given, size, "expand", "size")
        lead = len(wanted) - self.ndim
        if lead < 0 or any(s < (0 if i < lead else -1) for i, s in enumerate(wanted)):
            raise ShapeError(f"expand: {list(self.shape)} cannot become {list(wanted)} (at {user_source()})")
        return self._view(Expand(tuple(self.shape[i - lead] if s == -1 else s for i, s in enumerate(wanted))))

    def expand_as(self, other: Tensor) -> Tensor:
        """Repeated to the shape of `other`."""
        return self.expand(other.shape)

    def broadcast_to(self, size: Any) -> Tensor:
        """Axes of size 1, and new ones in front, repeated to `size`."""
        return self.expand(size)

    # ---- other orders of the axes

    def permute(self, *given: Any, dims: Any = None) -> Tensor:
        """The axes in another order."""
        listed = one_or_listed(given, dims, "permute", "dims")
        axes = tuple(normalize_axis(d, self.ndim, "permute") for d in listed)
        if sorted(axes) != list(range(self.ndim)):
            raise ShapeError(f"permute: {listed} is no order of the {self.ndim} axes (at {user_source()})")
        return self._view(Permute(axes))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two axes exchanged."""
        axes = list(range(self.ndim))
        i, j = (normalize_axis(d, self.ndim, "transpose") for d in (dim0, dim1))
        if axes:
            axes[i], axes[j] = axes[j], axes[i]
        return self._view(Permute(tuple(axes)))

    def swapdims(self, dim0: int, dim1: int) -> Tensor:
        """As `transpose`."""
        return self.transpose(dim0, dim1)

    def swapaxes(self, axis0: int, axis1: int) -> Tensor:
        """As `transpose`."""
        return self.transpose(axis0, axis1)

    def movedim(self, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
        """Axes moved to other places; the rest keep their order."""
        sources, places = (
            [normalize_axis(d, self.ndim, "movedim") for d in ((g,) if isinstance(g, int) else g)]
            for g in (source, destination)
        )
        if len(sources) != len(places) or len({*sources}) < len(sources) or len({*places}) < len(places):
            raise ShapeError(
                f"movedim: source {source} and destination {destination} must name equally many axes, none twice "
                f"(at {user_source()})"
            )
        if not self.shape:
            return self._view(Permute(()))
        rest = iter([a for a in range(self.ndim) if a not in sources])
        moved = dict(zip(places, sources, strict=True))
        return self.permute([moved[a] if a in moved else next(rest) for a in range(self.ndim)])

    moveaxis = movedim

    def t(self) -> Tensor:
        """The transpose of a matrix; a vector as it is."""
        if self.ndim > 2:
            raise ShapeError(
                f"t() takes at most 2 axes, got {list(self.shape)} (at {user_source()}); use .mT or permute"
            )
        return self.T

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return self._view(Permute(tuple(reversed(range(self.ndim)))))

    @property
    def H(self) -> Tensor:
        """The transpose of a matrix."""
        if self.ndim not in (0, 2):
            raise ShapeError(f".H takes a matrix, got {list(self.shape)} (at {user_source()}); use .mH")
        return self.T

    @property
    def mT(self) -> Tensor:
        """Each matrix of the batch transposed."""
        if self.ndim < 2:
            raise ShapeError(f".mT takes matrices, got {list(self.shape)} (at {user_source()})")
        return self.transpose(-2, -1)

    @property
    def mH(self) -> Tensor:
        """Each matrix of the batch transposed."""
        return self.mT if self.ndim else self.T

    def adjoint(self) -> Tensor:
        """Each matrix of the batch transposed."""
        return self.mT

    # ---- parts

    def narrow(self, dim: int, start: int | Tensor, length: int) -> Tensor:
        """`length` elements from `start` along `dim`."""
        self._require_axes("narrow")
        if isinstance(start, Handle) and (start.ndim or start.dtype.category != INTEGER):
            raise TypeError(
                f"narrow: start must be a whole number, or a tensor of one and without axes, got {start.dtype.name}"
                f"{list(start.shape)} (at {user_source()})"
            )
        axis = normalize_axis(dim, self.ndim, "narrow")
        size, first, length = self.shape[axis], operator.index(start), whole_number(length, "narrow", "length")
        first = first + size if first < 0 else first
        if not 0 <= first <= first + length <= size:
            raise IndexError(
                f"narrow: {first} to {first + length} is outside axis {dim} of size {size} (at {user_source()})"
            )
        return self._part(axis, first, first + length)

    def _part(self, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
        """A view of every `step`-th element from start to stop (excluded) along an axis, all in bounds."""
        bounds = tuple((start, stop) if a == axis else (0, s) for a, s in enumerate(self.shape))
        return self._view(Cut(bounds, tuple(step if a == axis else 1 for a in range(self.ndim))))

    def select(self, dim: int, index: int | Tensor) -> Tensor:
        """The slice at `index` along `dim`, without that axis."""
        self._require_axes("select")
        return self[(*(slice(None),) * normalize_axis(dim, self.ndim, "select"), index)]  # type: ignore[index]

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Pieces along `dim`: of one size (the last may be smaller), or of the sizes given."""
        self._require_axes("split")
        axis = normalize_axis(dim, self.ndim, "split")
        size = self.shape[axis]
        if isinstance(split_size, int):
            each = split_size
            if each < 0 or (each == 0 and size):
                raise ShapeError(f"split: the size of a piece must be positive, got {each} (at {user_source()})")
            sections = [min(each, size - start) for start in range(0, size, each or 1)] or [0]
        else:
            sections = [operator.index(s) for s in split_size]
            if sum(sections) != size or any(s < 0 for s in sections):
                raise ShapeError(
                    f"split: {sections} adds up to {sum(sections)}, axis {dim} has {size} (at {user_source()})"
                )
        stops = np.cumsum(sections).tolist()
        return tuple(self._part(axis, stop - length, stop) for stop, length in zip(stops, sections, strict=True))

    def split_with_sizes(self, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Pieces of the given sizes along `dim`."""
        return self.split(split_sizes, dim)

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """At most `chunks` pieces of equal size along `dim`, the last maybe smaller."""
        self._require_axes("chunk")
        if chunks <= 0:
            raise ShapeError(f"chunk: the number of pieces must be positive, got {chunks} (at {user_source()})")
        size = self.shape[normalize_axis(dim, self.ndim, "chunk")]
        return self.split(-(-size // chunks), dim) if size else self.split([0] * chunks, dim)

    #: PyTorch's names of the views whose pieces may be written to; here pieces always may
    unsafe_split, unsafe_split_with_sizes, unsafe_chunk = split, split_with_sizes, chunk

    #: PyTorch's names of the pieces that may be written to; here all may
    unsafe_split, unsafe_split_with_sizes, unsafe_chunk = split, split_with_sizes, chunk

    def tensor_split(
        self,
        indices_or_sections: Any = None,
        dim: int = 0,
        *,
        sections: int | None = None,
        indices: Sequence[int] | None = None,
        tensor_indices_or_sections: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Pieces along `dim`: a number of them, sizes as equal as can be, or cut at the indices given."""
        named = {"sections": sections, "indices": indices, "tensor_indices_or_sections": tensor_indices_or_sections}
        indices_or_sections = _one_of("tensor_split", indices_or_sections, named)
        self._require_axes("tensor_split")
        axis = normalize_axis(dim, self.ndim, "tensor_split")
        size = self.shape[axis]
        where = indices_or_sections.tolist() if isinstance(indices_or_sections, Handle) else indices_or_sections
        if isinstance(where, int):
            if where <= 0:
                raise ShapeError(f"tensor_split: the number of pieces must be positive, got {where} ({user_source()})")
            cuts = np.cumsum([size // where + (i < size % where) for i in range(where)]).tolist()[:-1]
        else:
            cuts = [operator.index(i) for i in where]
        ends = [slice(None, c).indices(size)[1] for c in cuts]
        starts = [0, *ends]
        return tuple(self._part(axis, a, max(a, b)) for a, b in zip(starts, [*ends, size], strict=True))

    def _split_along(
        self, name: str, least: int, axis: int, where: Any, sections: int | None, indices: Sequence[int] | None
    ) -> tuple[Tensor, ...]:
        where = _one_of(name, where, {"sections": sections, "indices": indices})
        if self.ndim < least:
            raise ShapeError(f"{name} takes at least {least} axes, got {list(self.shape)} (at {user_source()})")
        if isinstance(where, int) and (where <= 0 or self.shape[axis] % where):
            raise ShapeError(
                f"{name}: {where} pieces of equal size cannot be cut from axis {axis} of size {self.shape[axis]} "
                f"(at {user_source()})"
            )
        return self.tensor_split(where, axis)

    def hsplit(
        self,
        indices_or_sections: Any = None,
        *,
        sections: int | None = None,
        indices: Sequence[int] | None = None,
    ) -> tuple[Tensor, ...]:
        """Pieces along axis 1, of a vector along axis 0."""
        return self._split_along("hsplit", 1, 1 if self.ndim > 1 else 0, indices_or_sections, sections, indices)

    def vsplit(
        self,
        indices_or_sections: Any = None,
        *,
        sections: int | None = None,
        indices: Sequence[int] | None = None,
    ) -> tuple[Tensor, ...]:
        """Pieces along axis 0."""
        return self._split_along("vsplit", 2, 0, indices_or_sections, sections, indices)

    def dsplit(
        self,
        indices_or_sections: Any = None,
        *,
        sections: int | None = None,
        indices: Sequence[int] | None = None,
    ) -> tuple[Tensor, ...]:
        """Pieces along axis 2."""
        return self._split_along("dsplit", 3, 2, indices_or_sections, sections, indices)

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """The slices along `dim`, without it."""
        self._require_axes("unbind")
        axis = normalize_axis(dim, self.ndim, "unbind")
        return tuple(self.select(axis, i) for i in range(self.shape[axis]))

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """The diagonals of the matrices along two axes, as a last axis; `offset` of them above (below if negative)."""
        first, second = (normalize_axis(d, self.ndim, "diagonal") for d in (dim1, dim2))
        if first == second:
            raise ShapeError(f"diagonal: dim1 and dim2 are one axis, {first} (at {user_source()})")
        return self._view(Diagonal.of(self.shape, whole_number(offset, "diagonal", "offset"), first, second))

    def unfold(self, dimension: int, size: int, step: int) -> Tensor:
        """Windows of `size` elements along an axis, one every `step`; a last axis runs within the window."""
        axis = normalize_axis(dimension, self.ndim, "unfold")
        size, step = whole_number(size, "unfold", "size"), whole_number(step, "unfold", "step")
        full = self.shape[axis] if self.shape else 1
        if not 0 <= size <= full or step <= 0:
            raise ShapeError(
                f"unfold: windows of {size} every {step} on an axis of size {full} (at {user_source()}); the size "
                "must be within the axis and the step positive"
            )
        if not self.shape:
            return self.reshape(1)._part(0, 0, size)
        return self._view(Windows(axis, size, step))

    def as_strided(self, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
        """The elements of the tensor that this is a view of (or of this one) at the given strides and offset."""
        root: Handle = self
        while root._link is not None and root._link.base is not None and not root._link.is_leaf:
            root = root._link.base
        offset = self.storage_offset() if storage_offset is None else storage_offset
        shape, strides = as_shape((size,)), as_shape((stride,))
        last = offset + sum(max(0, n - 1) * s for n, s in zip(shape, strides, strict=True))
        if any(v < 0 for v in (*shape, *strides, offset)) or (0 not in shape and last >= root.numel()):
            raise ShapeError(
                f"as_strided: shape {list(shape)} at strides {list(strides)} from {offset} reaches outside the "
                f"{root.numel()} elements (at {user_source()})"
            )
        return root._view(Strided(shape, strides, offset))


def _one_of(name: str, given: Any, named: dict[str, Any]) -> Any:
    """Where to cut, which may be given by place or under one of several names."""
    found = [value for value in (given, *named.values()) if value is not None]
    if len(found) != 1:
        raise TypeError(
            f"{name} takes either a number of pieces or the indices to cut at (also as {', '.join(named)}), got "
            f"{len(found)} of them (at {user_source()})"
        )
    return found[0]


__all__ = ["ShapeMethods", "as_shape", "completed", "one_or_listed"]
