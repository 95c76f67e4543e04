"""What else can be asked of a tensor: sizes in bytes, what kind it is, where its history begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import GradientError
from ..graph.node import Node
from ..ops.primitive import user_source
from .handle import Handle
from .memory_format import check_memory_format, preserve_format, strided
from .views import Layout, contiguous_strides

if TYPE_CHECKING:
    from . import Tensor


class GradFn(NamedTuple):
    """The operation that a tensor's history goes on through, as `Tensor.grad_fn` shows it."""

    node: Node

    def name(self) -> str:
        """What the operation is called here."""
        return str(self.node.op.name)

    @property
    def next_functions(self) -> tuple[tuple[GradFn | None, int], ...]:
        """The operations before it that gradients go on to, each with 0; None for an operand without a history."""
        return tuple((GradFn(i) if i.requires_grad else None, 0) for i in self.node.inputs)

    def __repr__(self) -> str:
        return f"<{self.name()}>"


class MetadataMethods(Handle):
    """Under PyTorch's names."""

    __slots__ = ()

    is_sparse = is_quantized = is_meta = is_cuda = is_mps = is_xpu = is_mkldnn = is_nested = False
    is_ipu = is_maia = is_mtia = is_vulkan = is_xla = False
    is_cpu = True
    layout = strided

    @property
    def grad_fn(self) -> GradFn | None:
        """The last operation of the history; None for a leaf."""
        return GradFn(self.node) if self.requires_grad and not self.is_leaf else None

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.numel() * self.dtype.itemsize

    def element_size(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    def nelement(self) -> int:
        """How many elements there are."""
        return self.numel()

    def dim_order(self) -> tuple[int, ...]:
        """The axes from the outermost in memory to the innermost."""
        strides = self._layout()[1]
        return tuple(sorted(range(self.ndim), key=lambda axis: -strides[axis]))

    def get_device(self) -> int:
        """-1, the number of the CPU."""
        return -1

    def cpu(self, memory_format: object = None) -> Tensor:
        """The tensor itself: it is there already."""
        check_memory_format("cpu", memory_format, preserve_format)
        return self  # type: ignore[return-value]

    def data_ptr(self) -> int:
        """The address of the first element, which holds as long as the value does; of a view, in its base."""
        root, (_, _, offset) = _memory(self)
        if root.dtype is not self.dtype:
            root, offset = self, 0
        return int(root._buffer().array.__array_interface__["data"][0]) + offset * self.dtype.itemsize

    def is_complex(self) -> bool:
        """False: there are no complex numbers here."""
        return False

    def is_conj(self) -> bool:
        """False: there are no complex numbers here."""
        return False

    def is_neg(self) -> bool:
        """False: a negated tensor is a tensor of its own here."""
        return False

    def is_inference(self) -> bool:
        """False: what is computed under inference_mode() may be used anywhere."""
        return False

    def is_pinned(self) -> bool:
        """False: there is no other device to copy to."""
        return False

    def is_shared(self) -> bool:
        """False: processes hand each other copies."""
        return False

    def is_distributed(self) -> bool:
        """False: all of it is here."""
        return False

    def is_signed(self) -> bool:
        """Whether the dtype has negative numbers."""
        return not self.dtype.is_unsigned

    def is_nonzero(self) -> bool:
        """Whether the one element is not zero."""
        return bool(self.item())

    def is_same_size(self, other: Tensor) -> bool:
        """Whether both have one shape."""
        return self.shape == other.shape

    def detach_(self) -> Tensor:
        """Cut the tensor itself off from its history."""
        if self._link is not None and self._link.base is not None:
            raise GradientError(f"detach_ of a view (at {user_source()}); use .detach()")
        if self.requires_grad:
            self._set_leaf(self.detach().node, False)
        return self  # type: ignore[return-value]

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """The name of the tensor's class in PyTorch, such as "torch.FloatTensor"; with `dtype`, such a name, or such a
        class, the tensor in it."""
        from .legacy import dtype_named, name_of

        if dtype is not None:
            return self.to(dtype_named(dtype), non_blocking=non_blocking)  # type: ignore[attr-defined]
        return name_of(self.dtype)


def _memory(tensor: Handle) -> tuple[Handle, Layout]:
    """The tensor in whose memory this one's elements are, and how they lie there."""
    alias, link = tensor._alias, tensor._link
    if alias is not None and alias._storage is tensor._storage:
        return _memory(alias)
    base = None if link is None else link.base
    if link is not None and base is not None:
        root, layout = _memory(base)
        found = link.movement.layout(layout)
        if found is not None:
            return root, found
    shape = tensor._node.shape
    return tensor, (shape, contiguous_strides(shape), 0)


def is_tensor(obj: object) -> bool:
    """Whether `obj` is a tensor."""
    return isinstance(obj, Handle)


__all__ = ["GradFn", "MetadataMethods", "is_tensor"]
