"""One oracle for everything that PyTorch has too: the same expression in both, values and every gradient compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import pullback as pb

#: `expression(library, *tensors)`, in which the library is `pullback` or `torch`; gives a tensor or a tuple of them
Expression = Callable[..., Any]

#: relative and absolute tolerance of one operation, by dtype
TOLERANCE = {
    "float16": (4e-3, 1e-3),
    "bfloat16": (3e-2, 1e-2),
    "float32": (3e-5, 2e-6),
    "float64": (1e-10, 1e-12),
}


@dataclass(frozen=True)
class Value:
    """An operand: its numbers, and its dtype by PyTorch's name."""

    numbers: Any
    dtype: str = "float64"

    def ours(self, requires_grad: bool = False) -> pb.Tensor:
        """As Pullback's tensor."""
        made = pb.tensor(np.asarray(self.numbers), dtype=our_dtype(self.dtype))
        return made.requires_grad_() if requires_grad and made.is_floating_point() else made

    def theirs(self, requires_grad: bool = False) -> torch.Tensor:
        """As PyTorch's tensor."""
        made = torch.tensor(np.asarray(self.numbers)).to(getattr(torch, self.dtype))
        return made.requires_grad_() if requires_grad and made.is_floating_point() else made


def our_dtype(name: str) -> Any:
    """Pullback's dtype of PyTorch's `name`."""
    return getattr(pb, name)


def numbers(tensor: Any) -> np.ndarray:
    """The values of either library's tensor, the 16-bit floats widened to float32."""
    if isinstance(tensor, torch.Tensor):
        tensor = tensor.detach()
        return (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).numpy(force=True)
    return np.array(tensor.detach()._numbers())


def agree(ours: Any, theirs: Any, what: str, slack: float = 1.0) -> None:
    """Assert that two tensors have one shape, one dtype and, NaN equal to NaN, the same values within tolerance."""
    our_name, their_name = ours.dtype.name, str(theirs.dtype).removeprefix("torch.")
    assert our_name == their_name, f"{what}: dtype {our_name}, PyTorch has {their_name}"
    assert tuple(ours.shape) == tuple(theirs.shape), f"{what}: shape {ours.shape}, PyTorch has {tuple(theirs.shape)}"
    relative, absolute = TOLERANCE.get(our_name, (0.0, 0.0))
    np.testing.assert_allclose(
        numbers(ours), numbers(theirs), rtol=relative * slack, atol=absolute * slack, equal_nan=True, err_msg=what
    )


def compare(
    expression: Expression,
    *inputs: Value,
    theirs: Expression | None = None,
    gradients: bool = True,
    second: bool = False,
    slack: float = 1.0,
) -> None:
    """Assert that `expression` has the same values and gradients (with `second`, second derivatives) in both libraries.

    `theirs` is the expression in PyTorch where it is spelt differently. The cotangents are fixed random numbers; an
    unused input's gradient counts as zero.
    """
    our_inputs, their_inputs = ([getattr(v, side)(True) for v in inputs] for side in ("ours", "theirs"))
    our_outputs = _tuple(expression(pb, *our_inputs))
    their_outputs = _tuple((theirs or expression)(torch, *their_inputs))
    assert len(our_outputs) == len(their_outputs)
    for position, pair in enumerate(zip(our_outputs, their_outputs, strict=True)):
        agree(*pair, f"output {position}", slack)
    if not gradients or not any(t.requires_grad for t in their_outputs):
        return
    our_first = _gradients(pb, our_outputs, our_inputs, second, seed=1)
    their_first = _gradients(torch, their_outputs, their_inputs, second, seed=1)
    for position, pair in enumerate(zip(our_first, their_first, strict=True)):
        agree(*pair, f"gradient of input {position}", slack)
    if second and any(t.requires_grad for t in their_first):
        our_second = _gradients(pb, our_first, our_inputs, False, seed=2)
        their_second = _gradients(torch, their_first, their_inputs, False, seed=2)
        for position, pair in enumerate(zip(our_second, their_second, strict=True)):
            agree(*pair, f"second derivative by input {position}", 10 * slack)


def _tuple(outputs: Any) -> tuple[Any, ...]:
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)


def cotangent(like: Any, seed: int) -> Value:
    """Fixed random numbers in the shape and dtype of either library's tensor."""
    name = str(like.dtype).removeprefix("torch.").removeprefix("pullback.")
    return Value(np.random.default_rng(seed).uniform(0.5, 1.5, tuple(like.shape)), name)


def _gradients(library: Any, outputs: Sequence[Any], inputs: Sequence[Any], create_graph: bool, seed: int) -> list[Any]:
    """The gradients by the inputs that require one, zeros where there is none, of the outputs that have a history."""
    side = "theirs" if library is torch else "ours"
    differentiable = [(position, t) for position, t in enumerate(outputs) if t.requires_grad]
    wanted = [t for t in inputs if t.requires_grad]
    if not differentiable:
        return [t.detach() * 0 for t in wanted]
    found = library.autograd.grad(
        [t for _, t in differentiable],
        wanted,
        [getattr(cotangent(t, seed + position), side)() for position, t in differentiable],
        create_graph=create_graph,
        allow_unused=True,
    )
    return [library.zeros_like(t) if g is None else g for g, t in zip(found, wanted, strict=True)]
