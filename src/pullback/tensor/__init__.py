"""Tensors: what users hold. Each method builds graph nodes; nothing runs until a value is needed."""

from __future__ import annotations

from typing import Any

from ..graph.types import DType
from .absent import ABSENT, COMPLEX
from .arithmetic import ArithmeticMethods
from .arranging import ArrangeMethods
from .conversions import ConversionMethods
from .creation import CreationMethods
from .cumulative import CumulativeMethods
from .draws import DrawMethods
from .elementwise_calls import CallMethods
from .handle import Handle
from .hooks import HookMethods
from .indexing import IndexMethods
from .inplace import InplaceMethods
from .inplace_mathematics import InplaceMathematics
from .linear_algebra import LinearAlgebraMethods
from .mathematics import MathematicsMethods
from .metadata import MetadataMethods
from .order import OrderMethods
from .pairs import PairMethods
from .products import ProductMethods
from .reductions import ReductionMethods
from .scattering import ScatterMethods
from .sorting import SortingMethods
from .spellings import spell_methods
from .statistics import StatisticsMethods
from .values import ValueMethods


class Tensor(
    ArithmeticMethods,
    MathematicsMethods,
    PairMethods,
    ConversionMethods,
    CreationMethods,
    ReductionMethods,
    CumulativeMethods,
    OrderMethods,
    SortingMethods,
    StatisticsMethods,
    ArrangeMethods,
    IndexMethods,
    LinearAlgebraMethods,
    ScatterMethods,
    ProductMethods,
    DrawMethods,
    InplaceMethods,
    InplaceMathematics,
    HookMethods,
    MetadataMethods,
    ValueMethods,
    CallMethods,
):
    """A multidimensional array, computed when it is needed, through which gradients can be taken.

    Made by `pullback.tensor` and the other factories. `shape`, `dtype`, `requires_grad` and `grad` describe it;
    `item()`, `tolist()` and `numpy()` give its value. Methods and their names follow PyTorch's.

    The class itself makes tensors of the default dtype: of sizes, which hold zeros since no memory is ever read before
    it was written, of the elements of one list or array, which are copied, or a detached one of another tensor.

    >>> pb.Tensor([1, 2]), pb.Tensor(2, 3).shape
    (tensor([1., 2.]), pullback.Size([2, 3]))
    """

    __slots__ = ("__dict__",)
    __hash__ = object.__hash__

    def softmax(self, dim: int, dtype: DType | None = None) -> Tensor:
        """exp(x) / sum(exp(x)) along `dim`, computed in `dtype` if given."""
        from ..nn.functional import softmax

        return softmax(self, dim, dtype=dtype)

    def log_softmax(self, dim: int, dtype: DType | None = None) -> Tensor:
        """log(softmax(x)) along `dim`, computed in `dtype` if given."""
        from ..nn.functional import log_softmax

        return log_softmax(self, dim, dtype=dtype)

    def hardshrink(self, lambd: float = 0.5) -> Tensor:
        """The element where its magnitude is above `lambd`, else 0."""
        from ..nn.functional import hardshrink

        return hardshrink(self, lambd)

    def prelu(self, weight: Tensor) -> Tensor:
        """x above 0, else weight * x: one weight, or one for each channel (axis 1)."""
        from ..nn.functional import prelu

        return prelu(self, weight)

    def __getattr__(self, name: str) -> Any:
        if name in ABSENT:
            raise AttributeError(f"Tensor.{name} is not there: {ABSENT[name]}", name=name, obj=self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __rmatmul__(self, other: object) -> Tensor:
        from .creation import tensor

        return (other if isinstance(other, Handle) else tensor(other)) @ self


Handle._result = Tensor
spell_methods(Tensor)

__all__ = ["COMPLEX", "Tensor"]
