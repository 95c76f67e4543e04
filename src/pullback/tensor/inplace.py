"""In-place methods: each computes the new value as its namesake does and gives it to the handle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ops.movement import expand
from ..ops.primitive import constant
from .handle import Handle
from .promotion import Number, Operand, as_node

if TYPE_CHECKING:
    from . import Tensor


class InplaceMethods(Handle):
    """Methods whose names end in an underscore, and the augmented operators. They keep shape and dtype."""

    __slots__ = ()

    def _take(self, result: Tensor) -> Tensor:
        """The result of the namesake, in this tensor's dtype where that loses no category (as PyTorch allows)."""
        if result.dtype.category <= self.dtype.category:
            result = result.to(self.dtype)
        return self._assign(result.node)

    def add_(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """self += alpha * other."""
        return self._take(self.add(other, alpha=alpha))  # type: ignore[attr-defined]

    def sub_(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """self -= alpha * other."""
        return self._take(self.sub(other, alpha=alpha))  # type: ignore[attr-defined]

    def mul_(self, other: Operand) -> Tensor:
        """self *= other."""
        return self._take(self.mul(other))  # type: ignore[attr-defined]

    def div_(self, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
        """self /= other."""
        return self._take(self.div(other, rounding_mode=rounding_mode))  # type: ignore[attr-defined]

    def pow_(self, exponent: Operand) -> Tensor:
        """self **= exponent."""
        return self._take(self**exponent)  # type: ignore[operator]

    def neg_(self) -> Tensor:
        """self = -self."""
        return self._take(-self)  # type: ignore[operator]

    def sqrt_(self) -> Tensor:
        """self = sqrt(self)."""
        return self._take(self.sqrt())  # type: ignore[attr-defined]

    def exp_(self) -> Tensor:
        """self = exp(self)."""
        return self._take(self.exp())  # type: ignore[attr-defined]

    def relu_(self) -> Tensor:
        """self = relu(self)."""
        return self._take(self.relu())  # type: ignore[attr-defined]

    def clamp_(self, min: Operand | None = None, max: Operand | None = None) -> Tensor:
        """Each element brought into [min, max]."""
        return self._take(self.clamp(min, max))  # type: ignore[attr-defined]

    def masked_fill_(self, mask: Tensor, value: Operand) -> Tensor:
        """`value` written where `mask` holds."""
        return self._take(self.masked_fill(mask, value))  # type: ignore[attr-defined]

    def lerp_(self, end: Tensor, weight: Operand) -> Tensor:
        """self += weight * (end - self)."""
        return self._take(self + (end - self) * weight)

    def addcmul_(self, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
        """self += value * tensor1 * tensor2."""
        return self._take(self + tensor1 * tensor2 * value)

    def addcdiv_(self, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
        """self += value * tensor1 / tensor2."""
        return self._take(self + tensor1 / tensor2 * value)

    def copy_(self, src: Operand, non_blocking: bool = False) -> Tensor:
        """The values of `src`, converted and broadcast to this tensor. Nothing blocks, `non_blocking` or not."""
        from .creation import tensor

        if not isinstance(src, (Handle, bool, int, float)):
            src = tensor(src)
        return self._assign(expand(as_node(src, self.dtype), self.shape))

    def fill_(self, value: Number) -> Tensor:
        """Every element `value`."""
        return self._assign(expand(constant(value, self.dtype), self.shape))

    def zero_(self) -> Tensor:
        """Every element 0."""
        return self.fill_(0)

    def __iadd__(self, other: Operand) -> Tensor:
        return self.add_(other)

    def __isub__(self, other: Operand) -> Tensor:
        return self.sub_(other)

    def __imul__(self, other: Operand) -> Tensor:
        return self.mul_(other)

    def __itruediv__(self, other: Operand) -> Tensor:
        return self.div_(other)

    def __imatmul__(self, other: Tensor) -> Tensor:
        return self._take(self @ other)

    def __ipow__(self, other: Operand) -> Tensor:
        return self.pow_(other)
