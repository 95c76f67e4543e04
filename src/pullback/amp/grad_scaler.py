"""The scaler of losses in float16, which PyTorch has switched off where there is no GPU."""

from __future__ import annotations

import warnings
from typing import Any

from ..ops.primitive import user_source


class GradScaler:
    """Passes losses, gradients and steps through: as in PyTorch without a GPU, one for "cuda" warns that it is switched
    off. One for "cpu" is not there: bfloat16, the usual dtype of `autocast` on CPUs, needs none.

    >>> scaler = pb.amp.GradScaler(enabled=False)
    >>> scaler.scale(pb.tensor(2.0)), scaler.get_scale()
    (tensor(2.), 1.0)
    """

    def __init__(
        self, device: str = "cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True,
    ):  # fmt: skip
        if enabled and device != "cuda":
            raise NotImplementedError(
                f"GradScaler for {device!r} is not there (at {user_source()}): use bfloat16, whose range is that of "
                "float32, or enabled=False"
            )
        if enabled:
            warnings.warn(f"GradScaler: there is no GPU, so that it is switched off (at {user_source()})", stacklevel=2)

    def is_enabled(self) -> bool:
        """False."""
        return False

    def scale(self, outputs: Any) -> Any:
        """`outputs` themselves."""
        return outputs

    def unscale_(self, optimizer: Any) -> None:
        """Nothing: gradients are as they are."""

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """The optimizer's step."""
        return optimizer.step(*args, **kwargs)

    def update(self, new_scale: float | None = None) -> None:
        """Nothing: there is no scale."""

    def get_scale(self) -> float:
        """1."""
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: as in PyTorch, one that is switched off takes any state."""


__all__ = ["GradScaler"]
