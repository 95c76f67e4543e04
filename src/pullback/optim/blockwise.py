"""Optimizers whose state takes 8 bits an element: Dettmers et al., "8-bit Optimizers via Block-wise Quantization"
(2022).

A tensor of the state is kept as codes of one byte (`ops.dynamic_code`), and one float32 for each block of 256 elements,
the greatest magnitude in it, by which the codes of the block are scaled. An update decodes a block, computes in float32
what the optimizer without "8bit" in its name computes, and encodes the block again, all in the same pass: no more than
a block of a moment ever exists in full. Beside a parameter's 4 bytes Adam then holds 2.03 and not 8.

Parameters of fewer than 4,096 elements (or `min_8bit_size`) keep their state in full, as in bitsandbytes: they take
little, and are those whose state matters most (norms, biases).

Where gradients are squared, those beyond ±2^63 (9.2e18) count as that: float32 has no square of them, and the codes of
a block that has an infinite scale are none. (With `AdamW` such an element gets no further update, as with PyTorch's.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import signature
from numbers import Integral
from typing import Any

from ..graph.types import float32, uint8
from ..ops.dynamic_code import SIGNED_ZERO
from ..ops.primitive import user_source
from ..quant.blockwise import blocks_of, decoded, encoded
from ..tensor import Tensor
from .adam import Adam, bounded
from .adamw import AdamW
from .groups import Group, check_options
from .lion import Lion
from .optimizer import Optimizer, Slot
from .sgd import SGD

#: parameters of fewer elements keep their state in full
SMALLEST = 4096
#: what the name of a state's scales ends in
SCALES = "_scales"
#: state that is never negative
_SQUARES = "exp_avg_sq"
_UNSIGNED = (_SQUARES, "max_exp_avg_sq")


class _Blockwise(Optimizer):
    """An optimizer that keeps its state as codes. It stands before the class whose update it makes, and takes its
    arguments; `min_8bit_size`, a hyperparameter of groups, is the number of elements from which the state of a
    parameter is coded.
    """

    def __init__(self, params: Iterable[Any], *args: Any, min_8bit_size: int = SMALLEST, **options: Any):
        make = super().__init__
        check_options(type(self), make, (params, *args), options, "min_8bit_size")
        self._further = {"min_8bit_size": min_8bit_size}
        make(params, *args, **options)

    def __init_subclass__(cls) -> None:
        """Show the arguments of the class whose update it makes."""
        if _Blockwise in cls.__bases__:
            own = signature(_Blockwise.__init__).parameters["min_8bit_size"]
            shown = signature(cls.__bases__[-1])
            cls.__signature__ = shown.replace(parameters=[*shown.parameters.values(), own])  # type: ignore[attr-defined]

    def _check_hyperparameters(self, group: Group) -> None:
        super()._check_hyperparameters(group)
        group["min_8bit_size"] = _least(group)

    def _prepare(self, parameters: list[Tensor], group: Group) -> None:
        for parameter in parameters:
            held = self.state.get(parameter, {})
            coded = _is_coded(parameter, group)
            if any(name in held and (name + SCALES in held) != coded for name in super()._slots(parameter, group)):
                raise ValueError(
                    f"{type(self).__name__}: min_8bit_size was changed to {group['min_8bit_size']} (at "
                    f"{user_source()}), and the state of a parameter of {parameter.numel():,} elements is kept "
                    f"{'in full' if coded else 'in 8 bits'}; change it before the first step"
                )
        super()._prepare(parameters, group)

    def _remedy(self, parameter: Tensor, held: Mapping[str, Any], group: Group) -> str:
        slots, size = super()._slots(parameter, group).keys(), parameter.numel()
        if not slots <= held.keys() or _is_coded(parameter, group) == all(name + SCALES in held for name in slots):
            return ""
        own = f"min_8bit_size={group['min_8bit_size']} and {size:,} elements"
        if _is_coded(parameter, group):
            return (
                f"; it was kept in full, as {type(self).__bases__[-1].__name__} keeps it, with {own} it is in 8 bits: "
                f"min_8bit_size={size + 1} or more takes it and keeps it in full, and 8 bits begin with a new state"
            )
        return f"; it was kept in 8 bits, with {own} it is in full: give min_8bit_size={size} or less"

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        slots = super()._slots(parameter, group)
        if not _is_coded(parameter, group):
            return slots
        found: dict[str, Slot] = {}
        for name, slot in slots.items():
            found[name] = Slot(slot.shape, 0 if name in _UNSIGNED else SIGNED_ZERO, uint8)
            found[name + SCALES] = Slot((blocks_of(parameter.numel()),), dtype=float32)
        return found

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        names = [name for name in state if name + SCALES in state]
        values = {name: _decoded(state, name) for name in names}
        super()._update(parameter, self._bounded(gradient, parameter, state), {**state, **values}, group, rate)
        for name, value in values.items():
            codes, scales = encoded(value.node, name not in _UNSIGNED)
            state[name].copy_(Tensor._wrap(codes))
            state[name + SCALES].copy_(Tensor._wrap(scales))

    @staticmethod
    def _bounded(gradient: Tensor, parameter: Tensor, state: dict[str, Tensor]) -> Tensor:
        """The gradient, within what can be squared where it is."""
        return bounded(gradient, parameter) if _SQUARES in state else gradient


def _least(group: Group) -> int:
    """The number of elements from which on a state is coded: checked, since a group may be changed at any time."""
    least = group["min_8bit_size"]
    if isinstance(least, bool) or not isinstance(least, Integral) or least < 0:
        raise ValueError(f"min_8bit_size must be a whole number from 0 on, got {least!r} (at {user_source()})")
    return int(least)


def _is_coded(parameter: Tensor, group: Group) -> bool:
    return parameter.numel() >= max(_least(group), 1)


def _decoded(state: dict[str, Tensor], name: str) -> Tensor:
    return Tensor._wrap(decoded(state[name].node, state[name + SCALES].node, name not in _UNSIGNED))


class Adam8bit(_Blockwise, Adam):
    """`Adam` with both moments in 8 bits: see `Adam` for the arguments and `AdamW8bit` for the rest."""


class AdamW8bit(_Blockwise, AdamW):
    """`AdamW` with both moments in 8 bits: Dettmers et al., "8-bit Optimizers via Block-wise Quantization" (2022).

    The state holds 2.03 bytes a parameter and not 8: codes of one byte under "exp_avg" and "exp_avg_sq", and a float32
    for each block of 256 elements under "exp_avg_scales" and "exp_avg_sq_scales". The update decodes, computes in
    float32 what `AdamW` computes, and encodes, in one pass. Parameters of fewer elements than `min_8bit_size` (4,096)
    keep their state in full. Gradients beyond ±2^63, whose squares overflow, count as that.

    >>> w = pb.ones(64, 64, requires_grad=True)
    >>> optimizer = pb.optim.AdamW8bit([w], lr=1e-2)
    >>> w.square().sum().backward()
    >>> optimizer.step()
    >>> optimizer.state[w]["exp_avg"].dtype, optimizer.state[w]["exp_avg_scales"].shape
    (pullback.uint8, pullback.Size([16]))
    """


class Lion8bit(_Blockwise, Lion):
    """`Lion` with its moment in 8 bits."""


class SGD8bit(_Blockwise, SGD):
    """`SGD` with its momentum in 8 bits."""


__all__ = ["Adam8bit", "AdamW8bit", "Lion8bit", "SGD8bit"]
