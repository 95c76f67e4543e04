"""Alert: something about a training run that goes wrong or will, with the reason and what mends it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: the kinds of alerts, and what each says
KINDS = {
    "vanishing": "gradients shrink from layer to layer on their way back",
    "exploding": "gradients grow from layer to layer on their way back, or from step to step",
    "nonfinite": "a gradient, an activation or the loss is NaN or infinite",
    "dead_relu": "units of a ReLU are zero for every example",
    "saturated": "activations lie where the function is flat",
    "loss_spike": "the loss is far above what it has been",
    "update_ratio": "updates are too large or too small beside the weights",
    "unreached": "the loss does not depend on a parameter",
    "detached": "the loss depends on a parameter, but the way there was cut by detach() or no_grad()",
    "zero_gradient": "a gradient is exactly zero",
    "frozen": "a parameter does not require gradients",
    "not_in_optimizer": "a parameter has gradients and no optimizer",
}


@dataclass(frozen=True)
class Alert:
    """What is wrong: its `kind` (one of `KINDS`), `where` (a parameter, a layer, or "loss"), the `value` that was seen
    and the `threshold` it is beyond (None where it is no number), the `reason` and a `remedy` in words, and the number
    of the step (0 where it is of no step).
    """

    kind: str
    where: str
    value: float | None
    threshold: float | None
    reason: str
    remedy: str
    step: int = 0

    def __str__(self) -> str:
        at = f"step {self.step}: " if self.step else ""
        beyond = ""
        if self.value is not None and self.threshold is not None:
            beyond = f" ({self.value:.3g}, limit {self.threshold:.3g})"
        return f"{at}{self.kind} at {self.where}{beyond}: {self.reason}. To mend it: {self.remedy}."

    def to_dict(self) -> dict[str, Any]:
        """The fields, for a file."""
        return asdict(self)


__all__ = ["KINDS", "Alert"]
