"""L-BFGS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import TraceError
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import tensor
from ..tensor.grad_modes import enable_grad, no_grad
from ..tensor.state import STATE
from .groups import Group, number
from .line_search import strong_wolfe
from .optimizer import Optimizer
from .saving import array_of

#: a vector of all parameters' elements
Vector = np.ndarray


class LBFGS(Optimizer):
    """Liu & Nocedal, "On the Limited Memory BFGS Method for Large Scale Optimization" (1989), as PyTorch computes it.

    `step(closure)` makes up to `max_iter` iterations, with at most `max_eval` calls of the closure, which clears the
    gradients, computes the loss, goes backward and returns the loss. `history_size` pairs of vectors as long as all
    parameters together are kept. `line_search_fn` is None (a step of lr each time) or "strong_wolfe".

    How it goes on depends on values at each turn, so it cannot stand inside a compiled step; let the closure call one.
    Its own arithmetic, a few products of vectors an iteration, is NumPy's.

    >>> w = pb.tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = pb.optim.LBFGS([w], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = ((w - 3) ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item()
    29.0
    >>> w
    tensor([3.0000, 3.0000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ):
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """The one group that there is; a second raises ValueError."""
        super().add_param_group(param_group)
        if len(self.param_groups) > 1:
            self._withdraw_group()
            raise ValueError(
                f"LBFGS doesn't support per-parameter options (parameter groups): one is there (at {user_source()})"
            )

    def _check_hyperparameters(self, group: Group) -> None:
        super()._check_hyperparameters(group)
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise ValueError(
                f"line_search_fn: only 'strong_wolfe' is supported, or None; got {group['line_search_fn']!r} "
                f"(at {user_source()})"
            )

    @property
    def _parameters(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    # ---- parameters as one vector

    def _values(self) -> list[np.ndarray]:
        return [np.array(array_of(parameter)) for parameter in self._parameters]

    def _write(self, values: list[np.ndarray]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(tensor(value).to(parameter.dtype))

    def _add(self, length: Any, direction: Vector) -> None:
        """Go `length` along `direction`, which holds the elements of all parameters in order."""
        start, moved = 0, []
        for value in self._values():
            part = direction[start : start + value.size].reshape(value.shape)
            moved.append((value + length * part).astype(value.dtype, copy=False))
            start += value.size
        self._write(moved)

    def _gradient(self) -> Vector:
        return np.concatenate(
            [
                np.zeros(p.numel(), array_of(p).dtype) if p.grad is None else array_of(p.grad).reshape(-1)
                for p in self._parameters
            ]
        )

    # ---- stepping

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Go on by up to `max_iter` iterations; the result is the loss before them."""
        if STATE.trace is not None:
            raise TraceError(
                f"LBFGS cannot step inside a compiled function (at {user_source()}): whether it goes on depends on the "
                "values of losses. Compile the closure, and call step(closure) outside."
            )
        group = self.param_groups[0]
        state = self.state[self._parameters[0]]
        with no_grad():
            return _Iterations(self, closure, group, state).run()

    # ---- saving

    def _saved(self, value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            return tensor(np.asarray(value))
        return [self._saved(item) for item in value] if isinstance(value, list) else value

    def _load(self, group: Group, held: list[dict[str, Any]]) -> None:
        kind = array_of(group["params"][0]).dtype

        def taken(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return [taken(item) for item in value]
            if not hasattr(value, "shape"):
                return value
            array = np.array(array_of(value)).astype(kind)
            return array if array.ndim else array[()]

        for parameter, values in zip(group["params"], held, strict=True):
            self.state[parameter] = {name: taken(value) for name, value in values.items()}


def _dot(x: Vector, y: Vector) -> Any:
    # pairwise and on one thread: the same bits on any number of them
    return (x * y).sum()


class _Iterations:
    """One step(): what it knows from iteration to iteration. `state` outlives it, under PyTorch's names."""

    def __init__(self, optimizer: LBFGS, closure: Callable[[], Any], group: Group, state: dict[str, Any]):
        self.optimizer, self.closure, self.group, self.state = optimizer, closure, group, state
        self.rate = number(group["lr"])
        self.evaluations = 0
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)

    def _evaluate(self) -> Any:
        self.evaluations += 1
        self.state["func_evals"] += 1
        with enable_grad():
            return self.closure()

    def run(self) -> Any:
        """All iterations; gives what the closure returned first."""
        state, group = self.state, self.group
        first = self._evaluate()
        loss, gradient = float(first), self.optimizer._gradient()
        if not gradient.size or np.abs(gradient).max() <= group["tolerance_grad"]:
            return first
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(gradient)
            before = loss
            state.update(d=direction, prev_flat_grad=gradient.copy(), prev_loss=loss)
            slope = _dot(gradient, direction)
            state["t"] = length = self._first_length(gradient)
            if slope > -group["tolerance_change"]:
                break
            last = iteration == group["max_iter"]
            loss, gradient, length = self._move(length, direction, loss, gradient, slope, last)
            state["t"] = length
            if last or self._is_done(loss, before, gradient, length * direction):
                break
        return first

    def _first_length(self, gradient: Vector) -> Any:
        if self.state["n_iter"] == 1:
            return min(1.0, 1.0 / np.abs(gradient).sum()) * self.rate
        return self.rate

    def _move(
        self, length: Any, direction: Vector, loss: float, gradient: Vector, slope: Any, last: bool
    ) -> tuple[float, Vector, Any]:
        """Go along the direction; the loss and gradient there, and how far it was."""
        optimizer = self.optimizer
        if self.group["line_search_fn"] is not None:
            start = optimizer._values()

            def at(length: Any) -> tuple[float, Vector]:
                optimizer._add(length, direction)
                found = float(self._evaluate()), optimizer._gradient()
                optimizer._write(start)
                return found

            left = self.group["max_eval"] - self.evaluations
            loss, gradient, length = strong_wolfe(at, length, direction, loss, gradient, slope, left)
            optimizer._add(length, direction)
            return loss, gradient, length
        optimizer._add(length, direction)
        if not last:  # after the last one nobody needs the loss
            loss, gradient = float(self._evaluate()), optimizer._gradient()
        return loss, gradient, length

    def _is_done(self, loss: float, before: float, gradient: Vector, moved: Vector) -> bool:
        group = self.group
        return bool(
            self.evaluations >= group["max_eval"]
            or np.abs(gradient).max() <= group["tolerance_grad"]
            or np.abs(moved).max() <= group["tolerance_change"]
            or abs(loss - before) < group["tolerance_change"]
        )

    def _direction(self, gradient: Vector) -> Vector:
        """Minus the approximate inverse Hessian times the gradient: the recursion over the pairs kept."""
        state = self.state
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
            return -gradient
        self._remember(gradient - state["prev_flat_grad"], state["d"] * state["t"])
        changes, steps, scales = state["old_dirs"], state["old_stps"], state["ro"]
        al = state.setdefault("al", [None] * self.group["history_size"])
        found = -gradient
        for place in reversed(range(len(changes))):
            al[place] = _dot(steps[place], found) * scales[place]
            found = found - al[place] * changes[place]
        found = found * state["H_diag"]
        for place in range(len(changes)):
            found = found + (al[place] - _dot(changes[place], found) * scales[place]) * steps[place]
        return found

    def _remember(self, change: Vector, step: Vector) -> None:
        """Keep how the gradient changed over a step, where the curvature along it is positive."""
        state = self.state
        curvature = _dot(change, step)
        if not curvature > 1e-10:
            return
        if len(state["old_dirs"]) == self.group["history_size"]:
            for name in ("old_dirs", "old_stps", "ro"):
                state[name].pop(0)
        state["old_dirs"].append(change)
        state["old_stps"].append(step)
        state["ro"].append(1.0 / curvature)
        state["H_diag"] = curvature / _dot(change, change)


__all__ = ["LBFGS"]
