"""What a tensor is: a handle on a graph node. Nothing is computed until a value is needed.

A handle holds the node that stands for its value now. In-place methods give it another node; the node that it had is
never changed, so whatever was built on it keeps its meaning.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from operator import call
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np

from ..errors import DTypeError, GradientError, ShapeError, TraceError, ViewError
from ..graph.calm import disturb
from ..graph.node import Graph, Node, ancestors
from ..graph.types import DType, bool_, to_carrier
from ..ops.elementwise import where
from ..ops.gradient_hooks import attach
from ..ops.host import custom, detach
from ..ops.primitive import INPUT, MODE, buffer_node, constant, grad_mode, user_source
from ..runtime import engine
from ..runtime.buffers import Buffer
from . import pending
from .device import CPU, device
from .size import Size, sized
from .state import RECORDERS, RECORDING, STATE
from .store import Store
from .views import Chain, Detach, Layout, Link, Movement, contiguous_strides, is_detaching

if TYPE_CHECKING:
    from . import Tensor


#: the nodes whose gradients backward() collects, and the tensors that receive them
RECEIVERS: WeakKeyDictionary[Node, ref[Handle]] = WeakKeyDictionary()


class Handle:
    """The state of a tensor and what does not depend on any operation. Users see its subclass `Tensor`."""

    __slots__ = ("__weakref__", "_accumulated", "_alias", "_grad", "_hooks", "_link", "_node", "_readers", "_storage")
    __array_priority__ = 1000
    __hash__ = object.__hash__

    #: the class that results have; set once, by the package
    _result: type[Tensor]

    def __init__(self, node: Any = (), link: Any = None, *sizes: Any, device: Any = None, data: Any = ()):
        if type(node) is not Node:  # what users call the class with: see `constructor.given`
            from .constructor import given, one_of

            said = (node, *([] if link is None else [link]), *sizes)
            node, link = given(self, one_of("Tensor", said, data), device)
        self._node: Node = node
        self._grad: Tensor | None = None
        self._link: Link | None = link
        self._alias: Handle | None = None
        self._storage: object = None
        #: the detached tensors, by id, that are read from this one without keeping it alive
        self._readers: dict[int, ref[Handle]] | None = None
        #: of a leaf: what its gradients pass, and what is called when they have been added to `.grad`
        self._hooks: Store | None = None
        self._accumulated: Store | None = None
        if node.buffer is None and STATE.trace is None:
            pending.wait(self)

    @classmethod
    def _wrap(cls, node: Node, link: Link | None = None) -> Tensor:
        return cls._result(node, link)

    def _view(self, movement: Movement) -> Tensor:
        """A view of this tensor, read by `movement`."""
        return self._read_as(movement.read(self.node), movement)

    def _read_as(self, node: Node, movement: Movement, keeps: bool = False) -> Tensor:
        """The view of this tensor that `node` is, and that is read by `movement` when this one has changed; whether it
        `keeps` this one alive in any case.
        """
        link = Link(self, movement, self._stamp(), keeps)
        view = self._wrap(node, link)
        link.enlist(view)
        return view

    # ---- what it is

    @property
    def node(self) -> Node:
        """The graph node that stands for the value now."""
        if self._alias is not None and self._alias._storage is self._storage:
            return detach(self._alias.node)
        if self._link is not None:
            self._refresh(self._link)
            if self._link is not None and not self._link.is_leaf:
                return self._node
        trace = STATE.trace
        if trace is not None:
            return trace.node_of(self)
        node = self._node
        disturb()
        if node.buffer is None and RECORDING and _is_of_a_recording(node) and _another_recorded():
            return self.node
        if node is not self._node:  # which ended in between
            return self.node
        if node.buffer is not None and not node.buffer.owned:
            # memory of somebody else, who may write to it before this is computed: read now
            copied = Buffer.of(node.buffer.array, copy=True)
            return buffer_node(copied, node.shape, node.dtype, node.requires_grad)
        return node

    def _stamp(self) -> object:
        """What tells the value that the tensor has now: another one once the value has changed."""
        if self._alias is not None and self._alias._storage is self._storage:
            return self._alias._stamp()
        base = None if self._link is None or self._link.is_leaf else self._link.base
        return self._node.stamp if base is None else base._stamp()

    def _refresh(self, link: Link) -> None:
        """Read a view from its base anew if the base has changed since; without a base it is a tensor of its own."""
        base = link.base
        if base is None:
            self._link = None
            return
        trace = STATE.trace
        if trace is not None:
            if link.is_leaf:
                return
            base.node  # noqa: B018 (a tensor from outside is captured, which gives it another number)
        if link.stamp == base._stamp():
            return
        with grad_mode(link.grad):
            node = link.movement.read(base.node)
        if trace is not None:
            trace.before_refreshing(self)
        link.stamp = base._stamp()
        if link.is_leaf:
            self._set_own_leaf(node, True)
            return
        self._node = node
        if trace is None and node.buffer is None:
            pending.wait(self)

    def _layout(self) -> Layout:
        """Sizes, strides and offset that PyTorch's tensor would have, as far as views go: a result is contiguous."""
        base = None if self._link is None else self._link.base
        found = None if base is None else self._link.movement.layout(base._layout())  # type: ignore[union-attr]
        shape = self._node.shape
        return found or (shape, contiguous_strides(shape), 0)

    @property
    def shape(self) -> Size:
        """The sizes of the axes."""
        return sized(self._node.shape)

    @property
    def dtype(self) -> DType:
        """The element type, such as pullback.float32."""
        return self._node.dtype

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self._node.shape)

    @property
    def device(self) -> device:
        """Where the values live: always the CPU."""
        return CPU

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded for differentiation."""
        if self._link is not None and STATE.trace is None:
            self._refresh(self._link)
        return self._alias is None and self._node.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise RuntimeError(f"requires_grad must be a bool, got {value!r} (at {user_source()})")
        self.requires_grad_(value)

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor is no result of a recorded operation."""
        return not self.requires_grad or self._node.op.name in ("buffer", "input", "detach")

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Make this leaf take part in differentiation, or not; returns itself."""
        if requires_grad and not self.dtype.is_floating_point:
            raise DTypeError(
                f"only floating point tensors can require gradients, got {self.dtype.name} (at {user_source()})"
            )
        if not requires_grad and not self.is_leaf:
            raise GradientError(f"requires_grad can only be taken from a leaf (at {user_source()}); use .detach()")
        if requires_grad != self.requires_grad:
            self._set_leaf(self.node, requires_grad)
        return self  # type: ignore[return-value]

    def _set_leaf(self, value: Node, requires_grad: bool) -> None:
        """Take `value` as the value of a leaf with a history of its own."""
        link = self._link
        if link is not None and requires_grad and value is self._node:
            link.is_leaf, link.stamp = True, -1 if link.base is None else link.base._stamp()
        else:
            self._link = None
        self._set_own_leaf(value, requires_grad)

    def _set_own_leaf(self, value: Node, requires_grad: bool) -> None:
        if value.buffer is not None and not value.inputs:
            leaf = buffer_node(value.buffer, value.shape, value.dtype, requires_grad)
        else:
            leaf = detach(value, requires_grad)
        self._rebind(leaf)

    def _rebind(self, node: Node) -> None:
        """Give the handle another node: the one way in which a tensor changes."""
        if STATE.example is not None:
            STATE.example.check_write(self, node)
        if STATE.trace is not None:
            STATE.trace.before_rebinding(self)
        elif node.buffer is None:
            pending.wait(self)
        if STATE.journal is not None:
            STATE.journal.setdefault(id(self), (self, self._node, self._link))
        has_shape = node.shape == self._node.shape
        self._node = node
        disturb()
        if self._readers and has_shape:
            self._pass_on()
        if node.requires_grad and node.op.name in ("buffer", "detach"):
            RECEIVERS[node] = ref(self)
            if self._hooks:
                attach(node, self._hooks)

    def _pass_on(self, leave: bool = False) -> None:
        """Have detached tensors read this one now: it may be gone when their values are wanted. Those that are to
        `leave` it stay with that value."""
        for entry in list((self._readers or {}).values()):
            reader = entry()
            link = None if reader is None else reader._link
            if reader is not None and link is not None and link.is_of(self):
                reader._refresh(link)
                if leave:
                    reader._link = None

    def _leaf_hooks(self) -> Store:
        """What the gradients of this leaf pass, whatever its value is."""
        if self._hooks is None:
            self._hooks = Store()
        return self._hooks

    def _accumulated_hooks(self) -> Store:
        """What is called when a gradient has been added to `.grad`."""
        if self._accumulated is None:
            self._accumulated = Store()
        return self._accumulated

    def _assign(self, value: Node) -> Tensor:
        """The end of every in-place method: this tensor's value is now `value` (same shape and dtype)."""
        if STATE.loop is not None:
            STATE.loop.check_write(self)
        if value.shape != self.shape:
            raise ShapeError(
                f"an in-place operation cannot change the shape {list(self.shape)} to {list(value.shape)} "
                f"(at {user_source()}); write t = t + … instead"
            )
        if value.dtype is not self.dtype:
            raise DTypeError(
                f"an in-place operation cannot turn {self.dtype.name} into {value.dtype.name} (at {user_source()})"
            )
        if MODE.grad and not value.requires_grad and self.requires_grad and not self.is_leaf:
            # everything is replaced: the history stays, and its gradient is zero, as PyTorch has it
            value = where(constant(False, bool_), self.node, value)
        link, base = self._link, None if self._link is None else self._link.base
        if link is not None and base is not None:
            self._write_through(link, base, value)
            return self  # type: ignore[return-value]
        self._link = None
        if self._alias is not None and self._alias._storage is self._storage:
            self._alias._overwrite(value)
            return self  # type: ignore[return-value]
        if self.requires_grad and self.is_leaf:
            if MODE.grad:
                raise GradientError(
                    f"an in-place operation on a leaf that requires grad (at {user_source()}): its history would be "
                    "lost. Do it under no_grad()."
                )
            self._set_leaf(value, True)
        else:
            # a value that is taken as it is has the history of whose it is
            self._rebind(detach(value) if value.requires_grad and not MODE.grad else value)
        return self  # type: ignore[return-value]

    def _write_through(self, link: Link, base: Handle, value: Node) -> None:
        """Write a view's new value into its base."""
        if link.is_leaf:
            if MODE.grad or STATE.trace is not None:
                raise ViewError(
                    f"a write into a view that was made a leaf (at {user_source()}): do it under no_grad(), outside of "
                    "compiled steps, or take a .clone() before requires_grad_()."
                )
            base._overwrite(link.movement.write(base.node, detach(value)))
            self._set_own_leaf(value, True)
            link.stamp = base._stamp()
        elif is_detaching(link.movement):
            base._overwrite(link.movement.write(base.node, value))
        else:
            base._assign(link.movement.write(base.node, value))

    def _overwrite(self, value: Node) -> None:
        """Take another value of the same shape and dtype past differentiation: the history stays as it is."""
        link, base = self._link, None if self._link is None else self._link.base
        if self._alias is not None and self._alias._storage is self._storage:
            self._alias._overwrite(value)
        elif link is not None and base is not None and not link.is_leaf:
            base._overwrite(link.movement.write(detach(base.node), detach(value)))
        elif self.is_leaf:
            self._set_leaf(value, self.requires_grad)
        else:
            self._rebind(custom(detach(value), (self.node,), lambda _, cotangent: [cotangent]))

    @property
    def data(self) -> Tensor:
        """This tensor without its history; writing to it, or assigning it, changes the tensor itself."""
        alias = self._wrap(self._node)
        alias._alias, alias._storage = self, self._storage
        disturb()
        return alias

    @data.setter
    def data(self, value: Handle) -> None:
        node = detach(value.node)
        if STATE.trace is None:
            self._pass_on(leave=True)
        self._set_leaf(node, self.requires_grad)
        self._storage = object()  # what `.data` gave before stays with the old value

    def detach(self) -> Tensor:
        """The same value, cut off from its history."""
        return self._detached(False)

    def _detached(self, keeps: bool) -> Tensor:
        """The detached tensor. One that `keeps` its source alive asks it when it is read, and need not be told of each
        value that the source is given: it does not stand in the way of writing those in place.
        """
        node = detach(self.node)
        base, movement = self._detached_from()
        return base._read_as(node, movement, keeps)

    def _detached_from(self) -> tuple[Handle, Movement]:
        """What holds the value, and the way from there: views on the way may be gone before it is."""
        base: Handle = self
        parts: list[Movement] = [Detach()]
        while True:
            link, alias = base._link, base._alias
            if alias is not None and alias._storage is base._storage:
                base = alias
            elif link is not None and not link.is_leaf and link.base is not None:
                parts.insert(0, link.movement)
                base = link.base
            else:
                return base, parts[0] if len(parts) == 1 else Chain(tuple(parts))

    # ---- gradients

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward() has collected, or None."""
        if STATE.trace is not None:
            STATE.trace.before_asking_for_grad(self)
            return self._collected()
        if engine.is_calling():
            self._check_gradient()
        gradient = self._collected()
        while _another_recorded() or gradient is not self._grad:
            gradient = self._collected()
        return gradient

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and (value.shape != self.shape or value.dtype is not self.dtype):
            raise ShapeError(
                f"a gradient must have the tensor's own shape and dtype, {self.dtype.name}{list(self.shape)}, got "
                f"{value.dtype.name}{list(value.shape)} (at {user_source()})"
            )
        if STATE.trace is not None:
            STATE.trace.before_asking_for_grad(self)
        self._collect(value)
        if value is not None and STATE.trace is not None and STATE.loop is None and STATE.example is None:
            STATE.trace.watch_assigned(self, value._node)

    def _check_gradient(self) -> None:
        """Raise TraceError where the gradient's memory is being written by a run that has called back into Python."""
        gradient = self._grad
        if gradient is None:
            return
        buffers = [node.buffer for node in Graph.of([gradient._node]).nodes if isinstance(node.buffer, Buffer)]
        if any(map(engine.is_being_written, buffers)):
            raise TraceError(
                f".grad is asked for inside of a host call of a compiled step that makes it anew (at {user_source()}): "
                "at this moment it is neither the old gradient nor the new one. Read it before or after the call of "
                "the step, or give the gradient to the host call as an operand."
            )

    def _collected(self) -> Tensor | None:
        """The same for what backward() adds to."""
        if STATE.trace is not None:
            STATE.trace.before_reading_grad(self)
        gradient = self._grad
        if gradient is not None:
            disturb()
        return gradient

    def _collect(self, value: Tensor | None) -> None:
        """Have `value` as the gradient, as backward() gives it."""
        if STATE.example is not None and value is not None:
            STATE.example.check_write(self, value._node)
        if STATE.trace is not None:
            STATE.trace.before_writing_grad(self, value)
        if value is not self._grad:
            self._grad = value
            disturb()

    @property
    def retains_grad(self) -> bool:
        """Whether backward() keeps the gradient although the tensor is no leaf (see retain_grad)."""
        return self.requires_grad and not self.is_leaf and self.node in RECEIVERS

    def retain_grad(self) -> None:
        """Have backward() keep the gradient of this tensor although it is no leaf."""
        if not self.requires_grad:
            raise GradientError(f"retain_grad() on a tensor that does not require grad (at {user_source()})")
        RECEIVERS[self.node] = ref(self)

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Tensor | Sequence[Tensor] | None = None,
    ) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf it depends on (or of `inputs` only).

        A tensor of more than one element needs `gradient`, the cotangent of its shape. The graph can be gone through
        once, unless `retain_graph` (by default the value of `create_graph`) is true. Who holds a `.grad` that is added
        to keeps what it was: the sum is a new tensor, in compiled steps and elsewhere (PyTorch adds in place).
        """
        from ..autograd.backward import backward

        backward(self, gradient, retain_graph, create_graph, inputs)

    # ---- values

    def _buffer(self) -> Buffer:
        """The computed value; computes it, and whatever pending tensors lie on the way."""
        if STATE.trace is not None:
            raise TraceError(
                f"the value of a tensor was asked for inside a compiled step (at {user_source()}): the step is "
                "recorded once and has no values yet. Return the tensor from the step and read it there, or use "
                "pb.where(...) in place of a Python `if`."
            )
        plain = self._node.buffer is not None and self._alias is None and self._link is None
        node = self._node if plain else self.node
        if node.buffer is None:
            try:
                pending.materialize([node])
            except TraceError:  # what another thread is recording has other nodes meanwhile
                _another_recorded()
                before, node = node, self.node
                if node is before:
                    raise
                pending.materialize([node])
        return node.buffer

    def _undetached(self) -> Handle:
        """The tensor that this one was detached from, which has the same value; itself where there is none."""
        link = self._link
        base = None if link is None or link.is_leaf or not isinstance(link.movement, Detach) else link.base
        return self if base is None else base._undetached()

    def _array(self) -> np.ndarray:
        """The value as stored, in this tensor's shape, without a copy."""
        return self._buffer().array.reshape(self.shape)

    def item(self) -> Any:
        """The one element, as a Python number."""
        array = self._buffer().array
        if len(array) != 1:
            raise ShapeError(
                f"item() takes a tensor of one element, got shape {list(self.shape)} (at {user_source()}); "
                "use .tolist()"
            )
        if array.dtype is self._node.dtype.carrier:
            return array.item()
        return to_carrier(array, self.dtype).item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self._numbers().tolist()

    def _numbers(self) -> np.ndarray:
        return to_carrier(self._array(), self.dtype)

    def _fixed_numbers(self) -> np.ndarray | None:
        """Inside a compiled step the value, if the step is recorded with it; None where a run may have another."""
        node, trace = self.node, STATE.trace
        buffer = node.buffer
        if trace is None or buffer is None or not buffer.owned or trace.follows(buffer):
            return None
        return to_carrier(buffer.array.reshape(node.shape), node.dtype)

    def numel(self) -> int:
        """How many elements there are."""
        return math.prod(self.shape)

    def __repr__(self) -> str:
        from .display import describe

        return describe(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        from .copying import reduced

        return reduced(self)

    def __copy__(self) -> Handle:
        from .copying import shallow

        return shallow(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        from .copying import deep

        return deep(self, memo)


def _is_of_a_recording(node: Node) -> bool:
    """Whether a value is one of a step that another thread is recording, which will have another node again."""
    others = any(thread != threading.get_ident() for thread in RECORDING)
    return others and any(each.op is INPUT and each.buffer is None for each in ancestors([node]))


def _another_recorded() -> bool:
    """Wait while another thread records a step, and give whether one did: what was read of a tensor meanwhile may be
    of the recording.
    """
    return any(map(call, RECORDERS))
