"""Averages of a model's parameters over training, and the schedule that goes with them.

Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (2018), under PyTorch's names.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..graph.types import int64
from ..nn.modules.module import Module
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.creation import zeros
from ..tensor.grad_modes import no_grad
from .lr_scheduler import LRScheduler
from .lr_scheduler.schedule import for_each_group
from .optimizer import Optimizer

Average = Callable[[Tensor, Tensor, Any], Tensor]
AverageAll = Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]


def get_swa_avg_fn() -> Average:
    """The equal average: a + (m - a) / (n + 1)."""

    def average(averaged_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return averaged_param + (current_param - averaged_param) / (num_averaged + 1)

    return average


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """The exponential average: decay a + (1 - decay) m."""
    _check_decay(decay)

    def average(ema_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return decay * ema_param + (1 - decay) * current_param

    return average


def get_swa_multi_avg_fn() -> AverageAll:
    """get_swa_avg_fn for lists of tensors, written into the first list."""
    return _for_all(get_swa_avg_fn())


def get_ema_multi_avg_fn(decay: float = 0.999) -> AverageAll:
    """get_ema_avg_fn for lists of tensors, written into the first list."""
    return _for_all(get_ema_avg_fn(decay))


def _check_decay(decay: float) -> None:
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay must lie between 0 and 1, got {decay} (at {user_source()})")


def _for_all(average: Average) -> AverageAll:
    def update(averaged_param_list: Sequence[Tensor], current_param_list: Sequence[Tensor], num_averaged: Any) -> None:
        with no_grad():
            for averaged, current in zip(averaged_param_list, current_param_list, strict=True):
                averaged.copy_(average(averaged, current, num_averaged))

    return update


class AveragedModel(Module):
    """A copy of `model` whose parameters are the average of those that `update_parameters` was given.

    By `avg_fn(average, current, count)`, or by `multi_avg_fn` for lists of them, in place; the equal one by default.
    With `use_buffers` buffers are averaged too, otherwise they are copied. An update inside of a compiled step is part
    of the step.

    >>> model = pb.nn.Linear(2, 1)
    >>> averaged = pb.optim.swa_utils.AveragedModel(model, avg_fn=pb.optim.swa_utils.get_ema_avg_fn(0.9))
    >>> averaged.update_parameters(model)
    >>> averaged.n_averaged
    tensor(1)
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: str | None = None,
        avg_fn: Average | None = None,
        multi_avg_fn: AverageAll | None = None,
        use_buffers: bool = False,
    ):
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError(f"only one of avg_fn and multi_avg_fn can be given (at {user_source()})")
        self.module: Any = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", zeros((), dtype=int64))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model computes."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Any) -> None:
        """Take the parameters of `model` into the average; the first become the average itself."""
        mine, theirs = (self._averaged(m) for m in (self.module, model))
        count = self.n_averaged.clone()
        with no_grad():
            if self.multi_avg_fn is not None:
                self._update_all(mine, theirs, count)
            else:
                average = self.avg_fn or get_swa_avg_fn()
                for averaged, current in zip(mine, theirs, strict=True):
                    found = average(averaged.detach(), current.detach(), count).to(averaged.dtype)
                    averaged.copy_(where(count == 0, current.detach().to(averaged.dtype), found))
            if not self.use_buffers:
                for averaged, current in zip(self.module.buffers(), model.buffers(), strict=True):
                    averaged.copy_(current)
            self.n_averaged.add_(1)

    def _averaged(self, model: Any) -> list[Tensor]:
        return [*model.parameters(), *(model.buffers() if self.use_buffers else ())]

    def _update_all(self, mine: list[Tensor], theirs: list[Tensor], count: Tensor) -> None:
        assert self.multi_avg_fn is not None
        before = [current.detach().clone() for current in theirs]
        self.multi_avg_fn([m.detach() for m in mine], before, count)
        for averaged, current in zip(mine, theirs, strict=True):
            averaged.copy_(where(count == 0, current.detach(), averaged.detach()))


def update_bn(loader: Iterable[Any], model: Any, device: str | None = None) -> None:
    """Have the batch normalizations of `model` take their statistics from the inputs in `loader`, all weighted equally.

    Of a batch that is a tuple or list the first is the input.
    """
    layers = [m for m in model.modules() if getattr(m, "running_mean", None) is not None and hasattr(m, "momentum")]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    was_training = model.training
    model.train()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    try:
        with no_grad():
            for batch in loader:
                given = batch[0] if isinstance(batch, (list, tuple)) else batch
                model(given if device is None else given.to(device))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.train(was_training)


class SWALR(LRScheduler):
    """From the rate there is to `swa_lr` in `anneal_epochs` steps, along half a cosine ("cos") or a line ("linear")."""

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float,
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ):
        for group, value in zip(optimizer.param_groups, for_each_group("swa_lr", optimizer, swa_lr), strict=True):
            group["swa_lr"] = value
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f'anneal_strategy must by one of "cos" or "linear", instead got {anneal_strategy} (at {user_source()})'
            )
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs} (at {user_source()})")
        self._anneal_strategy, self.anneal_epochs = anneal_strategy, anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _share(self, step: int) -> float:
        """How much of the rate is `swa_lr` at a step."""
        t = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return t if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self) -> list[Any]:
        """The next rate of each group, from those that there are."""
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, share = self._share(step - 1), self._share(step)
        rates = []
        for group, current in zip(self.optimizer.param_groups, self._current(), strict=True):
            target = group["swa_lr"]
            start = target if before == 1 else (current - before * target) / (1 - before)
            rates.append(target * share + start * (1 - share))
        return rates


__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]
