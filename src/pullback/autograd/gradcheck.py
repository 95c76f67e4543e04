"""Gradients against finite differences: is a rule right?

A function's reverse mode is compared with central differences along one random direction, which costs two evaluations
however many inputs there are (the check of JAX's `jax.test_util`), and then of each element alone, unless that is
left out. Gradients of gradients are checked by giving the gradient to the same check as a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import GradientError
from ..graph.types import DType, to_carrier
from ..ops.primitive import user_source
from . import gradcheck_modes as modes

#: step, relative and absolute tolerance by dtype, where a check on coarser numbers than float64 is asked for
_COARSE = {"float32": (1e-2, 2e-2, 1e-2), "float16": (1e-1, 1e-1, 1e-1), "bfloat16": (2e-1, 2e-1, 2e-1)}
#: the fixed seed of directions and cotangents: a check gives the same answer every time
_SEED = 0

Function = Callable[..., Any]


def gradcheck(
    func: Function,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = True,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """Whether the gradients of `func(*inputs)` agree with central finite differences of step `eps`.

    `inputs` is a tensor or a sequence of arguments; those that are tensors that require grad are checked. They should
    be float64; with a coarser dtype, step and tolerances are never taken finer than that dtype allows. `func` must be
    smooth at `inputs` and give the same value each time: a tensor or a tuple of tensors. A disagreement raises
    GradientError naming the input and the element, or gives False without `raise_exception`; so does a second run of
    backward that differs by more than `nondet_tol`, and with `check_grad_dtypes` a gradient of another dtype.

    Every element is differenced alone. In `fast_mode` there is one difference along a random direction, and those of
    the elements only where it fails: a gradient that is wrong in one element of many may pass then.

    `check_forward_ad` compares `func.jvp` along that direction with the differences too, `check_batched_grad` and
    `check_batched_forward_grad` `func.vmap` of both modes with one cotangent, or tangent, at a time,
    `check_undefined_grad` the gradients of each output alone with those where the others' cotangents are zeros.
    `masked` is of sparse tensors, and refused.

    >>> x = pb.tensor([0.5, 2.0], dtype=pb.float64, requires_grad=True)
    >>> pb.autograd.gradcheck(lambda x: x * x.exp(), x)
    True
    """
    _refuse_masked("gradcheck", masked)
    if not eps > 0 or not atol >= 0 or not rtol >= 0:
        raise ValueError(f"gradcheck: eps must be positive, atol and rtol not negative (at {user_source()})")
    if not check_backward_ad and not check_forward_ad:
        raise ValueError(
            f"gradcheck: without check_backward_ad and check_forward_ad there is nothing to check (at {user_source()})"
        )
    if check_batched_forward_grad and not check_forward_ad:
        raise ValueError(f"gradcheck: check_batched_forward_grad needs check_forward_ad (at {user_source()})")
    check = _Check(func, inputs, eps, atol, rtol)
    problem = check.problem(nondet_tol, check_grad_dtypes, fast_mode) if check_backward_ad else None
    asked = {
        modes.undefined: check_backward_ad and check_undefined_grad,
        modes.forward: check_forward_ad,
        modes.batched: check_backward_ad and check_batched_grad,
        modes.batched_forward: check_batched_forward_grad,
    }
    for other in (other for other, wanted in asked.items() if wanted):
        problem = problem or other(check.point())
    if problem is not None and raise_exception:
        raise GradientError(problem)
    return problem is None


def gradgradcheck(
    func: Function,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = True,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """Whether the second derivatives of `func(*inputs)` agree with finite differences of the first.

    `grad_outputs` are the cotangents of the outputs (fixed random ones by default); the second derivatives by them are
    checked too; `gen_non_contig_grad_outputs` makes the random ones views of every second element. With
    `check_fwd_over_rev` forward mode of the gradients is compared too. The rest is as in `gradcheck`.
    """
    from .backward import grad

    _refuse_masked("gradgradcheck", masked)
    if not check_rev_over_rev and not check_fwd_over_rev:
        raise ValueError(
            "gradgradcheck: without check_rev_over_rev and check_fwd_over_rev there is nothing to check "
            f"(at {user_source()})"
        )
    given = _as_tuple(inputs)
    if grad_outputs is None:
        random = np.random.default_rng(_SEED)
        outputs = [o for o in _as_tuple(func(*given)) if o.dtype.is_floating_point]
        made = [_random_like(o, random, gen_non_contig_grad_outputs) for o in outputs]
        cotangents = tuple(cotangent.requires_grad_() for cotangent in made)
    else:
        cotangents = _as_tuple(grad_outputs)
    wanted = [i for i, t in enumerate(given) if _is_checked(t)]

    def first(*arguments: Any) -> tuple[Any, ...]:
        operands = arguments[: len(given)]
        outputs = [o for o in _as_tuple(func(*operands)) if o.dtype.is_floating_point]
        found = grad(
            outputs, [operands[i] for i in wanted], arguments[len(given) :], create_graph=True, allow_unused=True
        )
        return tuple(operands[i] * 0.0 if g is None else g for i, g in zip(wanted, found, strict=True))

    options: dict[str, Any] = {"eps": eps, "atol": atol, "rtol": rtol, "raise_exception": raise_exception}
    options |= {"nondet_tol": nondet_tol, "check_grad_dtypes": check_grad_dtypes, "fast_mode": fast_mode}
    options |= {"check_undefined_grad": check_undefined_grad, "check_batched_grad": check_batched_grad}
    options |= {"check_backward_ad": check_rev_over_rev, "check_forward_ad": check_fwd_over_rev}
    try:
        return gradcheck(first, (*given, *cotangents), **options)
    except (GradientError, ValueError) as error:
        said = str(error)
        if not said.startswith("gradcheck:"):
            raise
        raise type(error)(f"gradgradcheck{said.removeprefix('gradcheck')}") from None


def _refuse_masked(name: str, masked: bool) -> None:
    if masked:
        raise NotImplementedError(f"{name}: masked is not there (at {user_source()}); there are no sparse tensors")


class _Check:
    """One comparison: the function, the inputs that are checked, step and tolerances."""

    def __init__(self, func: Function, inputs: Any, eps: float, atol: float, rtol: float):
        self.func = func
        self.inputs = _as_tuple(inputs)
        self.checked = [i for i, t in enumerate(self.inputs) if _is_checked(t)]
        if not self.checked:
            raise GradientError(f"gradcheck: no input requires grad (at {user_source()}); nothing can be checked")
        self.values = [
            to_carrier(self.inputs[i]._array(), self.inputs[i].dtype).astype(np.float64) for i in self.checked
        ]
        steps = [(eps, rtol, atol), *(_COARSE.get(self.inputs[i].dtype.name, (0.0, 0.0, 0.0)) for i in self.checked)]
        self.eps, self.rtol, self.atol = (max(column) for column in zip(*steps, strict=True))
        self.random = np.random.default_rng(_SEED)

    def problem(self, nondet_tol: float, check_grad_dtypes: bool, fast_mode: bool) -> str | None:
        """What disagrees, in words; None where nothing does."""
        from .backward import grad

        outputs = self._outputs(self.inputs)
        differentiable = [o for o in outputs if o.requires_grad]
        if not differentiable:
            return f"gradcheck: no output depends differentiably on the inputs (at {user_source()})"
        self.cotangents = [self.random.uniform(0.5, 1.5, o.shape) for o in outputs]
        wanted = [self.inputs[i] for i in self.checked]
        given = [_tensor(c, o.dtype) for o, c in zip(outputs, self.cotangents, strict=True) if o.requires_grad]
        found, again = (grad(differentiable, wanted, given, retain, allow_unused=True) for retain in (True, False))
        for i, g in zip(self.checked, found, strict=True):
            if check_grad_dtypes and g is not None and g.dtype is not self.inputs[i].dtype:
                return f"gradcheck: the gradient of input {i} is {g.dtype.name} (at {user_source()})"
        reverse, repeated = (
            [np.zeros(v.shape) if g is None else _float64(g) for g, v in zip(run, self.values, strict=True)]
            for run in (found, again)
        )
        for i, first, second in zip(self.checked, reverse, repeated, strict=True):
            if not np.allclose(first, second, rtol=0, atol=nondet_tol, equal_nan=True):
                return (
                    f"gradcheck: backward run twice gives two gradients of input {i}, up to "
                    f"{np.max(np.abs(first - second)):.3g} apart (nondet_tol {nondet_tol:g}, at {user_source()})"
                )
        # each input has its own part of the direction's length, so that a large one does not hide a small one
        direction = [self.random.standard_normal(v.shape) for v in self.values]
        direction = [d / max(float(np.linalg.norm(d)), 1e-12) for d in direction]
        expected = self._difference(direction)
        actual = float(sum(np.sum(r * d) for r, d in zip(reverse, direction, strict=True)))
        agrees = self._close(actual, expected)
        if agrees and fast_mode:
            return None
        wrong = self._wrong_element(reverse)
        if agrees or wrong is not None:
            return wrong
        return (
            f"gradcheck: along a random direction reverse mode gives {actual:.8g}, finite differences give "
            f"{expected:.8g}, though every element alone agrees within tolerance (at {user_source()})"
        )

    def point(self) -> modes.Point:
        """What the checks of other modes need to know."""

        def of_checked(*given: Any) -> tuple[Any, ...]:
            inputs = list(self.inputs)
            for i, value in zip(self.checked, given, strict=True):
                inputs[i] = value
            return tuple(self._outputs(inputs))

        primals = tuple(self.inputs[i].detach() for i in self.checked)
        return modes.Point(of_checked, primals, tuple(self.checked), self.eps, self.rtol, self.atol, self.random)

    def _outputs(self, inputs: Sequence[Any]) -> list[Any]:
        return [o for o in _as_tuple(self.func(*inputs)) if o.dtype.is_floating_point]

    def _objective(self, values: Sequence[np.ndarray]) -> float:
        """The outputs at `values`, times their cotangents, summed in float64."""
        inputs = list(self.inputs)
        for i, value in zip(self.checked, values, strict=True):
            inputs[i] = _tensor(value, self.inputs[i].dtype).requires_grad_()
        outputs = (to_carrier(o._array(), o.dtype).astype(np.float64) for o in self._outputs(inputs))
        return math.fsum(float(np.sum(o * c)) for o, c in zip(outputs, self.cotangents, strict=True))

    def _difference(self, direction: Sequence[np.ndarray]) -> float:
        ahead = self._objective([v + self.eps * d for v, d in zip(self.values, direction, strict=True)])
        behind = self._objective([v - self.eps * d for v, d in zip(self.values, direction, strict=True)])
        return (ahead - behind) / (2 * self.eps)

    def _close(self, actual: float, expected: float) -> bool:
        return bool(np.isclose(actual, expected, rtol=self.rtol, atol=self.atol, equal_nan=True))

    def _wrong_element(self, reverse: Sequence[np.ndarray]) -> str | None:
        """The first element whose own difference disagrees with its gradient, as a message."""
        for place, (i, gradient) in enumerate(zip(self.checked, reverse, strict=True)):
            for element in np.ndindex(gradient.shape):
                direction = [np.zeros(v.shape) for v in self.values]
                direction[place][element] = 1.0
                alone = self._difference(direction)
                if not self._close(float(gradient[element]), alone):
                    return (
                        f"gradcheck: input {i}, element {list(element)}: reverse mode gives {gradient[element]:.8g}, "
                        f"finite differences give {alone:.8g} (step {self.eps:g}, at {user_source()})"
                    )
        return None


def _is_checked(value: Any) -> bool:
    return getattr(value, "requires_grad", False) is True


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _float64(tensor: Any) -> np.ndarray:
    return to_carrier(tensor._array(), tensor.dtype).astype(np.float64)


def _tensor(values: np.ndarray, dtype: DType) -> Any:
    from ..tensor.creation import tensor

    return tensor(np.asarray(values), dtype=dtype)


def _random_like(tensor: Any, random: np.random.Generator, apart: bool = False) -> Any:
    """Numbers from 0.5 to 1.5, with `apart` every second element of a tensor."""
    values = random.uniform(0.5, 1.5, tensor.shape)
    return _tensor(np.stack([values, values], -1), tensor.dtype)[..., 0] if apart else _tensor(values, tensor.dtype)


__all__ = ["gradcheck", "gradgradcheck"]
