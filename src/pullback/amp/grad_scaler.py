"""Dynamic scaling of losses, so that small gradients are not lost in float16: Micikevicius et al., "Mixed Precision
Training" (2018), in PyTorch's form."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GradientError, StateDictError, TraceError
from ..graph.node import Node
from ..graph.types import float16, float32, int32
from ..ops.elementwise import convert
from ..ops.primitive import user_source
from ..optim.hooks import OptimizerHooks
from ..tensor import Tensor
from ..tensor.arguments import real
from ..tensor.arithmetic import where
from ..tensor.autocast_mode import warn_of_device
from ..tensor.creation import tensor
from ..tensor.grad_modes import no_grad
from ..tensor.state import STATE, UNSCALED, outside_trace
from ..tracing.skipping import changing_only_where, sound_gradients
from ..tracing.trace import Numbers

if TYPE_CHECKING:
    from ..tracing.trace import Trace


#: between these the scale stays, so that the state of a compiled step is known to be finite
_LEAST, _MOST = 1e-15, 1e15
#: from how many skipped steps in a row it is told that no scale mends them
_HOPELESS = 20


@dataclass
class _Progress:
    """What has been done with an optimizer since the last `update`."""

    #: whether all its gradients are finite, once they have been unscaled: bool[]
    sound: Tensor
    #: the recording that this was done in, if it was in one
    trace: Trace | None
    has_gradients: bool
    has_stepped: bool = False


@dataclass(eq=False)
class _Counted:
    """Tells a scaler after each run of a recording whether the gradients were finite: an `Observer`."""

    scaler: GradScaler
    sound: Node

    def numbers(self) -> Numbers:
        """See `Observer`."""
        return Numbers([self.sound], [])

    def take(self, values: list[float], taken: bool) -> None:
        """See `Observer`."""
        if taken:
            self.scaler._count(values[0] > 0)


class GradScaler:
    """Multiplies losses by a scale and gradients by its inverse; a step whose gradients are not finite does nothing.

    After such a step the scale is multiplied by `backoff_factor`, after `growth_interval` steps without one by
    `growth_factor`. In a compiled function all of that happens inside the program: scale, counter, parameters and the
    optimizer's state are chosen there, and nothing waits for the host. `on_nonfinite` is asked about the loss, and
    about gradients that are not finite with a smaller scale either (0/0 in the backward pass, say); to tell these, a
    step that is left out runs three or four times. `unscale_`, `step` and `update` have to be called in the same
    function then, with what comes between, such as clipping; `scale` and backward() may be in another one.

    Gradients whose norm is 1e15 or more count as not finite in a compiled function. The scale stays between
    1e-15 and 1e15.

    >>> model, scaler = pb.nn.Linear(4, 1), pb.amp.GradScaler("cpu", init_scale=1024.0)
    >>> optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    >>> with pb.autocast("cpu", dtype=pb.float16):
    ...     loss = model(pb.ones(8, 4)).square().mean()
    >>> scaler.scale(loss).backward()
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> scaler.get_scale()
    1024.0

    `device` is "cpu"; any other warns once and scales just so. Raises ValueError for factors that do not grow, or do
    not back off.
    """

    def __init__(
        self, device: str = "cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True,
    ):  # fmt: skip
        self._enabled = bool(enabled)
        if not enabled:
            return
        warn_of_device("GradScaler", device)
        if not real(growth_factor, "GradScaler", "growth_factor") > 1.0:
            raise ValueError(f"growth_factor must be above 1, got {growth_factor} (at {user_source()})")
        if not 0 < real(backoff_factor, "GradScaler", "backoff_factor") < 1.0:
            raise ValueError(f"backoff_factor must be between 0 and 1, got {backoff_factor} (at {user_source()})")
        self._growth_factor, self._backoff_factor = float(growth_factor), float(backoff_factor)
        self._growth_interval = _interval(growth_interval)
        with outside_trace():
            self._scale = tensor(_positive("init_scale", init_scale), dtype=float32)
            self._growth_tracker = tensor(0, dtype=int32)
        self._progress: dict[int, _Progress] = {}
        #: not empty once a loss has been scaled
        self._scaled: list[bool] = []
        #: how many steps were skipped in a row, and whether it was told that no scale mends it
        self._skipped, self._has_warned = 0, False

    # ---- a step

    def scale(self, outputs: Any) -> Any:
        """The loss times the scale, in float32 at least; of a list or tuple, or another iterable, each."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            self._scaled[:] = [True]
            scaled = outputs * self._scale
            UNSCALED[scaled.node] = outputs.node, self._scale.node
            if STATE.trace is not None:
                STATE.trace.scales[id(self._scale)] = self._scale
            return scaled
        if isinstance(outputs, Mapping | str) or not isinstance(outputs, Iterable):
            raise TypeError(
                f"scale takes a tensor or an iterable of tensors, got {type(outputs).__name__} (at {user_source()})"
            )
        every = [self.scale(output) for output in outputs]
        return type(outputs)(every) if isinstance(outputs, list | tuple) else iter(every)

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of the optimizer's parameters by the scale, such as to clip them, once before `step`.

        As in PyTorch it raises AssertionError where no loss was scaled yet, and ValueError for gradients in float16:
        what is lost in them no scale brings back. Keep parameters in float32, and compute in a region of autocast.
        """
        if not self._enabled:
            return
        self._check_scaled("unscale_")
        if (done := self._of(optimizer)) is not None:
            what = "step() was called" if done.has_stepped else "unscale_() has already been called"
            raise RuntimeError(f"{what} on this optimizer since the last update() (at {user_source()})")
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        pairs = [(p, gradient) for p in parameters if (gradient := p.grad) is not None]
        if any(gradient.dtype is float16 for _, gradient in pairs):
            raise ValueError(
                f"Attempting to unscale FP16 gradients. (at {user_source()}) Keep parameters in float32, and compute "
                "in a region of autocast"
            )
        with no_grad():
            inverse = 1.0 / self._scale
            for parameter, gradient in pairs:
                parameter.grad = (gradient.to(gradient.dtype.compute) * inverse).to(gradient.dtype)
                if parameter.is_leaf:  # who looks on wants to know the gradient that the optimizer steps with
                    STATE.watch(parameter.grad.node, "gradient", parameter, gradient.node)
            sound = sound_gradients([p for p, _ in pairs], [gradient for _, gradient in pairs], self._scale)
        self._progress[id(optimizer)] = _Progress(sound, STATE.trace, bool(pairs))

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """`optimizer.step(…)` on unscaled gradients, which changes nothing where one of them is not finite.

        Outside a compiled function its result is None then, and the step is not made. As in PyTorch it raises
        AssertionError where no parameter has a gradient.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or args:
            raise GradientError(
                f"GradScaler.step takes no closure (at {user_source()}): gradients computed in it would not be unscaled"
            )
        self._check_scaled("step")
        if (done := self._of(optimizer)) is not None and done.has_stepped:
            raise RuntimeError(f"step() has already been called since the last update() (at {user_source()})")
        if done is None:
            self.unscale_(optimizer)
        progress = self._progress[id(optimizer)]
        if not progress.has_gradients:
            raise AssertionError(
                f"No inf checks were recorded for this optimizer. (at {user_source()}) None of its parameters has a "
                "gradient: was backward() called on the scaled loss, and is the loss made of these parameters?"
            )
        progress.has_stepped = True
        if isinstance(optimizer, OptimizerHooks):
            optimizer._decide(progress.sound)
        if STATE.trace is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            return changing_only_where(progress.sound, parameters, lambda: optimizer.step(**kwargs))
        return optimizer.step(**kwargs) if progress.sound.item() else None

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Choose the scale of the next step, or set it to `new_scale`; once after all optimizers have stepped."""
        if not self._enabled:
            return
        self._check_scaled("update")
        if new_scale is not None:
            with no_grad():
                self._scale.copy_(new_scale if isinstance(new_scale, Tensor) else tensor(float(new_scale)))
            self._progress.clear()
            return
        stepped = [progress for progress in self._progress.values() if self._is_here(progress)]
        if not stepped:
            raise RuntimeError(
                f"update() was called before step() of any optimizer since the last update() (at {user_source()})"
            )
        with no_grad():
            sound = stepped[0].sound
            for progress in stepped[1:]:
                sound = sound & progress.sound
            if STATE.trace is not None:
                STATE.trace.guard(self._options)
                # kinds of state of their own, bounded by themselves
                STATE.trace.optimizer_state[id(self._scale)] = ("loss scale", 0)
                STATE.trace.optimizer_state[id(self._growth_tracker)] = ("steps since the scale changed", 0)
            successes = self._growth_tracker + 1
            is_due = successes == self._growth_interval
            # a factor is a float64, as PyTorch's is: one like 0.3 is another number in float32
            grown, less = ((self._scale.double() * f).float() for f in (self._growth_factor, self._backoff_factor))
            next_scale = where(is_due, where(grown < _MOST, grown, self._scale), self._scale)
            self._scale.copy_(where(sound, next_scale, less.clamp(min=_LEAST)))
            self._growth_tracker.copy_(where(sound & ~is_due, successes, 0))
        if STATE.trace is None:
            self._count(bool(sound.item()))
        elif STATE.loop is None and STATE.example is None:
            STATE.trace.observe(_Counted(self, convert(sound.node, float32)))
        self._progress.clear()

    def _count(self, sound: bool) -> None:
        """Count the steps that were skipped in a row, and warn once where a smaller scale does not mend them."""
        self._skipped = 0 if sound else self._skipped + 1
        if self._skipped >= _HOPELESS and not self._has_warned and self.get_scale() < 1.0:
            self._has_warned = True
            warnings.warn(
                f"GradScaler skipped {self._skipped} steps in a row, down to a scale of {self.get_scale():.3g}: the "
                "gradients hold a NaN or an infinity that no scale mends, or are far too long. To find the line, do a "
                "step inside of pb.autograd.detect_anomaly(), or a compiled one without the scaler",
                stacklevel=3,
            )

    def _check_scaled(self, name: str) -> None:
        """Raise AssertionError where no loss was ever scaled: PyTorch makes its scale then, and asks for it."""
        if not self._scaled:
            raise AssertionError(
                f"Attempted {name} but _scale is None.  This may indicate your script did not use scaler.scale(loss or "
                f"outputs) earlier in the iteration. (at {user_source()})"
            )

    def _options(self) -> tuple[float, float, int]:
        return self._growth_factor, self._backoff_factor, self._growth_interval

    def _of(self, optimizer: Any) -> _Progress | None:
        progress = self._progress.get(id(optimizer))
        return progress if progress is not None and self._is_here(progress) else None

    def _is_here(self, progress: _Progress) -> bool:
        """Whether it is of this recording; of another one it can be used no more."""
        if progress.trace is STATE.trace:
            return True
        was = "outside of compiled functions" if progress.trace is None else "inside a compiled function"
        now = "outside of it" if STATE.trace is None else "inside one" if progress.trace is None else "inside another"
        raise TraceError(
            f"gradients were unscaled {was}, and what follows is {now} (at {user_source()}): call unscale_(), step() "
            "and update() in one function"
        )

    # ---- what it holds

    def is_enabled(self) -> bool:
        """Whether it scales."""
        return self._enabled

    def get_scale(self) -> float:
        """The scale; 1 where it is switched off."""
        return self._scale.item() if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """By what the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set by what the scale grows."""
        self._growth_factor = float(new_factor)

    def get_backoff_factor(self) -> float:
        """By what the scale is multiplied after a step that changed nothing."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set by what the scale is multiplied after a step that changed nothing."""
        self._backoff_factor = float(new_factor)

    def get_growth_interval(self) -> int:
        """After how many steps the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set after how many steps the scale grows."""
        self._growth_interval = _interval(new_interval)

    def state_dict(self) -> dict[str, Any]:
        """PyTorch's: scale, factors, interval, and how many steps were good since the scale changed."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker.item(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state, of this library or PyTorch. Raises StateDictError where something is missing or wrong."""
        if not self._enabled:
            return
        if not state_dict:
            raise StateDictError(
                f"the state of a GradScaler is empty: it was that of one that is not enabled (at {user_source()})"
            )
        names = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
        if missing := [name for name in names if name not in state_dict]:
            raise StateDictError(f"the state of a GradScaler lacks {', '.join(missing)} (at {user_source()})")
        try:
            scale, growth, backoff, interval, tracker = (
                float(real(state_dict[name], "load_state_dict", name)) for name in names
            )
            scale = _in_float32(scale)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise StateDictError(f"not the state of a GradScaler: {dict(state_dict)} ({error})") from None
        good = 0 < scale < math.inf and growth > 1 and 0 < backoff < 1 and interval >= 1 and tracker >= 0
        if not good or interval != int(interval) or tracker != int(tracker):
            raise StateDictError(f"not the state of a GradScaler: {dict(state_dict)} (at {user_source()})")
        self._growth_factor, self._backoff_factor, self._growth_interval = growth, backoff, int(interval)
        with no_grad():
            self._scale.fill_(scale)
            self._growth_tracker.fill_(int(tracker))


def _in_float32(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _positive(name: str, value: float) -> float:
    rounded = _in_float32(float(real(value, "GradScaler", name)))
    if not 0 < rounded < math.inf:
        raise ValueError(f"{name} must be above 0 and finite in float32, got {value} (at {user_source()})")
    return rounded


def _interval(value: int) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"growth_interval must be a whole number of at least 1, got {value} (at {user_source()})")
    return int(value)


__all__ = ["GradScaler"]
