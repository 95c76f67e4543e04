"""Making tensors: from data, of one number, of a range, of random numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph import types
from ..graph.node import Node
from ..graph.types import FLOAT, INTEGER, DType, encode_bfloat16, float64, int64
from ..ops import elementwise as e
from ..ops.movement import expand
from ..ops.primitive import BUFFER, buffer_node, check_dtype, complex_refused, constant, iota, user_source
from ..runtime.buffers import Buffer
from ..runtime.dlpack import imported
from .arguments import whole_number
from .handle import Handle
from .memory_format import check_memory_format, contiguous_format, preserve_format
from .promotion import Number, as_node, dtype_of_number, get_default_dtype
from .shapes import as_shape, sizes
from .size import Size
from .spellings import dtype_of
from .state import STATE

if TYPE_CHECKING:
    from . import Tensor


def _finish(node: Node, requires_grad: bool) -> Tensor:
    result = Handle._wrap(node)
    return result.requires_grad_() if requires_grad else result


def _check_device(device: str | None) -> None:
    if device not in (None, "cpu"):
        raise ValueError(f'device {device!r} is not there (at {user_source()}); Pullback runs on "cpu"')


def tensor(data: Any, dtype: DType | None = None, requires_grad: bool = False, device: str | None = None) -> Tensor:
    """A tensor of a number, nested lists, a NumPy array or another tensor, this library's or another's, copied.

    Without `dtype`: Python floats become the default dtype (float32), ints int64, bools bool; arrays keep theirs.

    >>> pb.tensor([[1, 2], [3, 4]]).shape
    pullback.Size([2, 2])
    """
    _check_device(device)
    if isinstance(data, Handle):
        source = data.detach().clone()
        return (source if dtype is None else source.to(dtype)).requires_grad_(requires_grad)
    if hasattr(data, "__dlpack__") and not isinstance(data, (np.ndarray, np.generic)):
        data = data.detach() if hasattr(data, "detach") else data
        if str(getattr(data, "dtype", "")).endswith("bfloat16"):  # which NumPy has not
            return tensor(from_dlpack(data), dtype, requires_grad)
        try:
            data = np.asarray(data)
        except TypeError as error:
            raise DTypeError(f"tensors of {data.dtype} are not taken (at {user_source()}): {error}") from error
    array = _as_array(data)
    found = types.from_numpy(array.dtype)
    if array.dtype == np.float64 and not _has_numpy(data):
        found = get_default_dtype()
    wanted = dtype or found
    if dtype is not None:
        check_dtype(dtype)
    if wanted is None:
        names = ", ".join(d.name for d in types.ALL)
        raise DTypeError(f"arrays of {array.dtype} are not taken (at {user_source()}); the dtypes are {names}")
    if requires_grad and wanted.category != FLOAT:
        raise DTypeError(f"only floating point tensors can require gradients, got {wanted.name} (at {user_source()})")
    if not isinstance(data, np.ndarray):
        _refuse_overflow("tensor", array, wanted)
    node = buffer_node(Buffer.of(_stored(array, wanted), copy=True), array.shape, wanted, False)
    if STATE.trace is not None and isinstance(data, np.ndarray):
        assert node.buffer is not None
        STATE.trace.follow_array(data, node.buffer, lambda held: _stored(held, wanted))
    return _finish(node, requires_grad)


def _refuse_overflow(name: str, array: np.ndarray, dtype: DType) -> None:
    """Raise RuntimeError, as PyTorch does, where a Python number has no place in a whole-number dtype. Of the unsigned
    ones -1 is the largest number, -2 the one before, and so on.
    """
    if dtype.category != INTEGER or array.dtype == dtype.storage:
        return
    limits = np.iinfo(dtype.storage)
    least = -limits.max if dtype.is_unsigned else limits.min
    fits = (array >= least) & (array <= limits.max)
    if not fits.all():
        value = array[~fits].flat[0]
        raise RuntimeError(
            f"{name}: {value} cannot be converted to {dtype.name} without overflow (at {user_source()}); it holds "
            f"{limits.min} to {limits.max}"
        )


def _has_numpy(data: Any) -> bool:
    """Whether float64 is what NumPy's own values have, and not what Python's floats became."""
    if isinstance(data, (list, tuple)):
        return any(map(_has_numpy, data))
    return isinstance(data, (np.ndarray, np.generic)) and data.dtype == np.float64


def _stored(array: np.ndarray, dtype: DType) -> np.ndarray:
    """The values of an array as they are stored in `dtype`: the array itself where they are."""
    if array.dtype == dtype.storage and dtype is not types.bfloat16:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        return encode_bfloat16(array.astype(np.float32)) if dtype is types.bfloat16 else array.astype(dtype.storage)


def _as_array(data: Any) -> np.ndarray:
    if isinstance(data, (list, tuple)) and any(isinstance(item, Handle) for item in data):
        data = [item.tolist() if isinstance(item, Handle) else item for item in data]
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ShapeError(f"tensor(): the nested lists are not of equal lengths (at {user_source()}): {error}") from None
    if array.dtype.kind == "c":
        raise complex_refused(array.dtype if array.ndim else array.item())
    if array.dtype == object or array.dtype.kind in "USOV":
        raise DTypeError(f"tensor() takes numbers, got {type(data).__name__} {str(data)[:60]!r} (at {user_source()})")
    if array.size == 0 and not isinstance(data, np.ndarray):
        return array.astype(np.float64)
    return array


def as_tensor(data: Any, dtype: DType | None = None, device: str | None = None) -> Tensor:
    """A tensor of `data`: itself if it is one of that dtype, sharing an array's memory where it can."""
    _check_device(device)
    if isinstance(data, Handle):
        return data.to(dtype) if dtype is not None else data  # type: ignore[attr-defined, return-value]
    if isinstance(data, np.ndarray) and types.from_numpy(data.dtype) is not None:
        shared = from_numpy(data)
        return shared if dtype is None else shared.to(dtype)
    return tensor(data, dtype)


def asarray(
    obj: Any,
    *,
    dtype: DType | None = None,
    device: str | None = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of `obj`, as `as_tensor`; with `copy` True always of its own memory, with False never.

    A tensor is cut off from its history where `requires_grad` is not asked for of a copy.
    """
    _check_device(device)
    if copy:
        return tensor(obj, dtype, requires_grad)
    made = as_tensor(obj, dtype)
    if copy is False and not (made is obj or (isinstance(obj, np.ndarray) and dtype in (None, made.dtype))):
        raise ValueError(f"asarray: copy=False, but {type(obj).__name__} cannot be shared (at {user_source()})")
    return made.requires_grad_() if requires_grad else made


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor that reads the array's own memory where it is contiguous and aligned (else a copy).

    The array must not be written to while the tensor, or anything lazily computed from it, is in use; Pullback never
    writes to it.
    """
    dtype = types.from_numpy(array.dtype)
    if array.dtype.kind == "c":
        raise complex_refused(array.dtype)
    if dtype is None:
        raise DTypeError(f"arrays of {array.dtype} are not taken (at {user_source()}); convert with .astype(...)")
    return Handle._wrap(buffer_node(_shared(array), array.shape, dtype))


def frombuffer(buffer: Any, *, dtype: DType, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A tensor that reads `count` elements of bytes in memory, from byte `offset` on; see `from_numpy`."""
    check_dtype(dtype)
    try:
        array = np.frombuffer(buffer, dtype.storage, count, offset)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"frombuffer: {error} (at {user_source()})") from None
    made = Handle._wrap(buffer_node(_shared(array), array.shape, dtype))
    return made.requires_grad_() if requires_grad else made


def from_argument(array: np.ndarray, dtype: DType) -> Tensor:
    """As `from_numpy`, for an array that is known to be of `dtype` and without looking for the user's line."""
    attributes = {"shape": array.shape, "dtype": dtype}
    return Handle._result(Node(BUFFER, (), attributes, array.shape, dtype, False, None, _shared(array)))


def from_stored(array: np.ndarray, dtype: DType) -> Tensor:
    """A tensor of values as `dtype` stores them (bfloat16 as uint16), copied."""
    return Handle._wrap(buffer_node(Buffer.of(array, copy=True), array.shape, dtype))


def _shared(array: np.ndarray) -> Buffer:
    flags = array.flags
    return Buffer.of(array, copy=not (flags.c_contiguous and flags.aligned))


def from_dlpack(ext_tensor: Any, *, device: str | None = None, copy: bool | None = None) -> Tensor:
    """A tensor on the memory of any object that has `__dlpack__`: a PyTorch or JAX tensor, a NumPy array.

    As `from_numpy`, it takes a copy where the memory is not contiguous; `copy` True always does, and False refuses.
    """
    _check_device(device)
    array, is_bfloat16 = imported(ext_tensor, copy)
    dtype = types.bfloat16 if is_bfloat16 else types.from_numpy(array.dtype)
    if array.dtype.kind == "c":
        raise complex_refused(array.dtype)
    if dtype is None:
        raise DTypeError(f"from_dlpack: tensors of {array.dtype} are not taken (at {user_source()})")
    sharable = array.flags.c_contiguous and array.flags.aligned
    if copy is False and not sharable:
        raise ValueError(f"from_dlpack: copy=False, but the memory is not contiguous (at {user_source()})")
    return Handle._wrap(buffer_node(Buffer.of(array, copy=not sharable), array.shape, dtype))


def _full(shape: tuple[int, ...], value: Number, dtype: DType, requires_grad: bool, device: str | None) -> Tensor:
    _check_device(device)
    dtype = dtype_of(dtype)
    if any(size < 0 for size in shape):
        raise ShapeError(f"a shape cannot have negative sizes, got {list(shape)} (at {user_source()})")
    if isinstance(dtype, DType) and dtype.category == INTEGER:
        _refuse_overflow("full", np.asarray(value), dtype)
    return _finish(expand(constant(value, dtype), shape), requires_grad)


def zeros(
    *given: Any,
    size: Any = None,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """A tensor of zeros."""
    return _full(sizes(given, size, "zeros"), 0, dtype or get_default_dtype(), requires_grad, device)


def ones(
    *given: Any,
    size: Any = None,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """A tensor of ones."""
    return _full(sizes(given, size, "ones"), 1, dtype or get_default_dtype(), requires_grad, device)


def empty(
    *given: Any,
    size: Any = None,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
    memory_format: object = None,
) -> Tensor:
    """A tensor to be filled; it holds zeros, since no memory is ever read before it was written."""
    check_memory_format("empty", memory_format, contiguous_format)
    return zeros(*given, size=size, dtype=dtype, requires_grad=requires_grad, device=device)


def full(
    size: Sequence[int],
    fill_value: Number,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """A tensor of one number."""
    return _full(as_shape((size,)), fill_value, dtype or dtype_of_number(fill_value), requires_grad, device)


def arange(
    start: Number,
    end: Number | None = None,
    step: Number = 1,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """start, start + step, … up to but without `end`; int64 if all three are ints.

    >>> pb.arange(2, 8, 2)
    tensor([2, 4, 6])
    """
    _check_device(device)
    first, last = (0, start) if end is None else (start, end)
    first, last, step = _plain(first), _plain(last), _plain(step)
    if not all(math.isfinite(v) for v in (first, last, step)):
        raise ValueError(f"arange: from {first} to {last} by {step} is no finite range (at {user_source()})")
    if dtype is not None and dtype.category != FLOAT:  # as PyTorch: the numbers are whole before they are counted
        if dtype is int64:
            first, last, step = int(first), int(last), int(step)
        else:
            count = max(0, math.ceil((last - first) / step)) if step else 0
            first, step = int(first), int(step)
            last = first + count * step
    if step == 0 or (last - first) / step < 0:
        raise ValueError(f"arange: from {first} to {last} there is no way by steps of {step} (at {user_source()})")
    count = math.ceil((last - first) / step)
    whole = all(isinstance(v, int) for v in (first, last, step))
    dtype = dtype or (int64 if whole else get_default_dtype())
    inner = int64 if whole else float64
    place = e.convert(iota((count,), 0, int64), inner)
    if step != 1:
        place = e.mul(place, constant(step, inner))
    if first != 0:
        place = e.add(place, constant(first, inner))
    return _finish(e.convert(place, dtype), requires_grad)


def _plain(value: Any) -> Any:
    """A number, also of a tensor that holds one, which is computed at once."""
    plain = value.item() if isinstance(value, (Handle, np.generic)) else value
    if isinstance(plain, complex):
        raise complex_refused(plain)
    return plain


def linspace(
    start: float | Tensor,
    end: float | Tensor,
    steps: int,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """`steps` numbers at equal distances from `start` to `end`, both included."""
    _check_device(device)
    steps = whole_number(steps, "linspace", "steps")
    if steps < 0:
        raise ValueError(f"linspace: steps must not be negative, got {steps} (at {user_source()})")
    dtype = dtype or get_default_dtype()
    first, last = _plain(start), _plain(end)
    if dtype.category != FLOAT:
        first, last = int(first), int(last)
    each = (last - first) / (steps - 1) if steps > 1 else 0.0
    start_node, end_node, distance = (constant(float(number), float64) for number in (first, last, each))
    return _finish(e.convert(spaced(start_node, end_node, distance, steps), dtype), requires_grad)


def spaced(first: Node, last: Node, each: Node, steps: int) -> Node:
    """`steps` numbers at the distance `each` from `first` to `last`, all float64."""
    place = iota((steps,), 0, int64)
    from_start = e.add(e.mul(e.convert(place, float64), each), first)
    back = e.convert(e.sub(constant(steps - 1, int64), place), float64)
    from_end = e.sub(last, e.mul(back, each))
    # counted from the nearer end, so that both ends are exact
    return e.where(e.lt(place, constant((steps + 1) // 2, int64)), from_start, from_end)


def logspace(
    start: float | Tensor,
    end: float | Tensor,
    steps: int,
    base: float = 10.0,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """`base` to the power of `steps` numbers at equal distances from `start` to `end`.

    >>> pb.logspace(0, 2, 3)
    tensor([  1.,  10., 100.])
    """
    _check_device(device)
    steps = whole_number(steps, "logspace", "steps")
    if steps < 0:
        raise ValueError(f"logspace: steps must not be negative, got {steps} (at {user_source()})")
    dtype = dtype or get_default_dtype()
    first, last = _plain(start), _plain(end)
    if dtype.category != FLOAT:
        first, last = int(first), int(last)
    with np.errstate(all="ignore"):
        powers = np.power(float(base), np.linspace(first, last, steps))
    return tensor(powers, dtype=dtype, requires_grad=requires_grad)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DType = int64, device: str | None = None) -> Tensor:
    """The rows and columns of the places on and below diagonal `offset` of a [row, col] matrix: [2, places]."""
    _check_device(device)
    return _indices("tril_indices", np.tril_indices, row, col, offset, dtype)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DType = int64, device: str | None = None) -> Tensor:
    """The rows and columns of the places on and above diagonal `offset` of a [row, col] matrix: [2, places]."""
    _check_device(device)
    return _indices("triu_indices", np.triu_indices, row, col, offset, dtype)


def _indices(name: str, find: Any, row: int, col: int, offset: int, dtype: DType) -> Tensor:
    row, col, offset = (
        whole_number(row, name, "row"),
        whole_number(col, name, "col"),
        whole_number(offset, name, "offset"),
    )
    if row < 0 or col < 0:
        raise ValueError(f"{name}: a matrix cannot have {row} rows and {col} columns (at {user_source()})")
    if dtype not in (types.int32, int64):
        raise DTypeError(f"{name} gives int32 or int64, not {dtype.name} (at {user_source()})")
    return tensor(np.stack(find(row, offset, col)), dtype=dtype)


def scalar_tensor(
    s: Number, *, dtype: DType | None = None, requires_grad: bool = False, device: str | None = None
) -> Tensor:
    """One number as a tensor of shape (), by default in the default dtype."""
    return full((), s, dtype or get_default_dtype(), requires_grad, device)


def fill(input: Tensor, value: Number | Tensor) -> Tensor:
    """`value` (a number, or a tensor of shape () to which gradients go) in the shape and dtype of `input`."""
    if isinstance(value, Handle) and value.shape:
        raise ShapeError(f"fill takes a tensor of shape (), got {list(value.shape)} (at {user_source()})")
    node = expand(as_node(value, input.dtype), input.shape)
    if input.requires_grad:  # the result depends on it, with a gradient of zero
        node = e.where(constant(False, types.bool_), input.node, node)
    return Handle._wrap(node)


def eye(
    n: int, m: int | None = None, dtype: DType | None = None, requires_grad: bool = False, device: str | None = None
) -> Tensor:
    """Ones on the diagonal of an n by m (default n) matrix of zeros."""
    _check_device(device)
    shape = (whole_number(n, "eye", "n"), whole_number(n if m is None else m, "eye", "m"))
    if min(shape) < 0:
        raise ShapeError(f"eye: n and m must not be negative, got {shape[0]} and {shape[1]} (at {user_source()})")
    diagonal = e.eq(iota(shape, 0, int64), iota(shape, 1, int64))
    return _finish(e.convert(diagonal, dtype or get_default_dtype()), requires_grad)


def zeros_like(
    input: Tensor,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
    memory_format: object = None,
) -> Tensor:
    """Zeros of the shape and dtype of `input`."""
    check_memory_format("zeros_like", memory_format, contiguous_format, preserve_format)
    return zeros(input.shape, dtype=dtype or input.dtype, requires_grad=requires_grad, device=device)


def ones_like(
    input: Tensor,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
    memory_format: object = None,
) -> Tensor:
    """Ones of the shape and dtype of `input`."""
    check_memory_format("ones_like", memory_format, contiguous_format, preserve_format)
    return ones(input.shape, dtype=dtype or input.dtype, requires_grad=requires_grad, device=device)


def empty_like(
    input: Tensor,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
    memory_format: object = None,
) -> Tensor:
    """A tensor to be filled, of the shape and dtype of `input`; it holds zeros."""
    check_memory_format("empty_like", memory_format, contiguous_format, preserve_format)
    return zeros_like(input, dtype=dtype, requires_grad=requires_grad, device=device)


def full_like(
    input: Tensor,
    fill_value: Number,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
    device: str | None = None,
    memory_format: object = None,
) -> Tensor:
    """One number in the shape and dtype of `input`."""
    check_memory_format("full_like", memory_format, contiguous_format, preserve_format)
    return full(input.shape, fill_value, dtype or input.dtype, requires_grad, device)


def _need_size(name: str, given: tuple[Any, ...], size: Any) -> None:
    if not given and size is None:
        raise TypeError(f"{name}() missing 1 required positional argument: 'size' (at {user_source()})")


class CreationMethods(Handle):
    """New tensors of this one's dtype, unless another is given."""

    __slots__ = ()

    def new(self, *data: Any, device: str | None = None) -> Tensor:
        """PyTorch's former spelling: zeros of sizes, or the elements of a list, as of the class `Tensor`."""
        if len(data) == 1 and isinstance(data[0], (list, tuple, np.ndarray)) and not isinstance(data[0], Size):
            return tensor(data[0], self.dtype, device=device)
        made: Tensor = Handle._result(*data, device=device)
        return made.to(self.dtype)

    def new_tensor(
        self, data: Any, *, dtype: DType | None = None, requires_grad: bool = False, device: str | None = None
    ) -> Tensor:
        """A tensor of `data`, copied."""
        return tensor(data, dtype or self.dtype, requires_grad, device)

    def new_zeros(
        self,
        *given: Any,
        size: Any = None,
        dtype: DType | None = None,
        requires_grad: bool = False,
        device: str | None = None,
    ) -> Tensor:
        """A tensor of zeros."""
        _need_size("new_zeros", given, size)
        return zeros(*given, size=size, dtype=dtype or self.dtype, requires_grad=requires_grad, device=device)

    def new_ones(
        self,
        *given: Any,
        size: Any = None,
        dtype: DType | None = None,
        requires_grad: bool = False,
        device: str | None = None,
    ) -> Tensor:
        """A tensor of ones."""
        _need_size("new_ones", given, size)
        return ones(*given, size=size, dtype=dtype or self.dtype, requires_grad=requires_grad, device=device)

    def new_empty(
        self,
        *given: Any,
        size: Any = None,
        dtype: DType | None = None,
        requires_grad: bool = False,
        device: str | None = None,
    ) -> Tensor:
        """A tensor to be filled; it holds zeros."""
        _need_size("new_empty", given, size)
        return zeros(*given, size=size, dtype=dtype or self.dtype, requires_grad=requires_grad, device=device)

    def new_full(
        self,
        size: Sequence[int],
        fill_value: Number,
        *,
        dtype: DType | None = None,
        requires_grad: bool = False,
        device: str | None = None,
    ) -> Tensor:
        """A tensor of one number."""
        return full(size, fill_value, dtype or self.dtype, requires_grad, device)


__all__ = [
    "CreationMethods",
    "arange",
    "as_tensor",
    "asarray",
    "empty",
    "empty_like",
    "eye",
    "fill",
    "from_dlpack",
    "from_numpy",
    "from_stored",
    "frombuffer",
    "full",
    "full_like",
    "linspace",
    "logspace",
    "ones",
    "ones_like",
    "scalar_tensor",
    "spaced",
    "tensor",
    "tril_indices",
    "triu_indices",
    "zeros",
    "zeros_like",
]
