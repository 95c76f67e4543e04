"""Record: what is known of one step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..diagnosis import Alert
from .histograms import Histogram
from .statistics import Statistics


@dataclass
class ParameterRecord:
    """A parameter in one step: its gradient as backward() made it (None where there was none), before clipping; the L2
    norms of the parameter before its update and of the update; and their ratio. `axes` is how many axes it has.
    """

    gradient: Statistics | None = None
    weight_norm: float | None = None
    update_norm: float | None = None
    axes: int = 0

    @property
    def update_ratio(self) -> float | None:
        """The norm of the update by the norm of the weights; None where there was no update, or no weight but zeros."""
        if self.update_norm is None or not self.weight_norm:
            return None
        return self.update_norm / self.weight_norm


@dataclass
class LayerRecord:
    """A layer in one step: what kind of module or function it is; its activations, of all calls in the step together;
    for activation functions the share of their results that are saturated (0 of a ReLU, within 0.01 of the ends of a
    sigmoid, beyond ±0.99 of a tanh; of a softmax the rows with an element above 0.99), and of a ReLU the share of
    `units` that were 0 at each of their `places`; and the norm of the gradients of all its own parameters.
    """

    kind: str
    activation: Statistics | None = None
    #: of the gradient that came back to its results, where the monitor records it
    activation_gradient: Statistics | None = None
    saturated: float | None = None
    dead: float | None = None
    units: int = 0
    places: int = 0
    gradient_norm: float | None = None
    #: of the gradients of its weights, those with two axes or more: the root of their mean square
    gradient_rms: float | None = None


@dataclass
class Record:
    """What is known of one step; steps count from 1. Layers stand in the order in which they were called first.

    A step that was `skipped` because something in it was not finite changed nothing and is not counted: the next record
    has its number again. `compiled` is whether the step was a compiled one.
    """

    step: int
    loss: float | None = None
    learning_rates: list[float] = field(default_factory=list)
    parameters: dict[str, ParameterRecord] = field(default_factory=dict)
    layers: dict[str, LayerRecord] = field(default_factory=dict)
    #: by the name of the layer ("activation"), or of the parameter ("gradient", "weight")
    histograms: dict[str, dict[str, Histogram]] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    skipped: bool = False
    compiled: bool = False

    @property
    def gradient_norm(self) -> float | None:
        """The norm of all gradients together, before clipping; None where there are none."""
        found = [p.gradient.norm for p in self.parameters.values() if p.gradient is not None]
        return math.hypot(*found) if found else None

    @property
    def depth(self) -> dict[str, float]:
        """The root mean square of the gradients of each layer's weights, from the first layer to the last."""
        return {name: layer.gradient_rms for name, layer in self.layers.items() if layer.gradient_rms is not None}

    def scalars(self) -> dict[str, float]:
        """All numbers by names such as "gradient/layers.0.weight/norm"."""
        found = {"loss": self.loss, "gradient_norm": self.gradient_norm}
        for place, rate in enumerate(self.learning_rates):
            found[f"learning_rate/{place}"] = rate
        for name, parameter in self.parameters.items():
            found |= _named("gradient", name, parameter.gradient)
            found[f"weight/{name}/norm"] = parameter.weight_norm
            found[f"update/{name}/norm"] = parameter.update_norm
            found[f"update/{name}/ratio"] = parameter.update_ratio
        for name, layer in self.layers.items():
            found |= _named("activation", name, layer.activation)
            found |= _named("activation_gradient", name, layer.activation_gradient)
            found[f"activation/{name}/saturated"] = layer.saturated
            found[f"activation/{name}/dead"] = layer.dead
            found[f"depth/{name}/gradient_norm"] = layer.gradient_norm
            found[f"depth/{name}/gradient_rms"] = layer.gradient_rms
        return {name: value for name, value in found.items() if value is not None}

    def state_dict(self) -> dict[str, Any]:
        """All of it but the histograms, for a snapshot."""
        return asdict(replace(self, histograms={}))

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Record:
        """The record whose `state_dict` it was."""
        record = cls(**state)
        record.parameters = {
            name: _with_statistics(ParameterRecord, given) for name, given in record.parameters.items()
        }
        record.layers = {name: _with_statistics(LayerRecord, given) for name, given in record.layers.items()}
        record.alerts = [Alert(**given) for given in state["alerts"]]
        return record

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON has it; numbers that are not finite as text, which JSON has no numbers for."""
        found: dict[str, Any] = {"step": self.step, **({"skipped": True} if self.skipped else {})}
        found |= {name: v if math.isfinite(v) else str(v) for name, v in self.scalars().items()}
        found["alerts"] = [alert.to_dict() for alert in self.alerts]
        return found


def _with_statistics(kind: Any, given: Any) -> Any:
    """A record of this kind from its fields."""
    return kind(**{name: Statistics(**value) if isinstance(value, Mapping) else value for name, value in given.items()})


def _named(what: str, name: str, statistics: Statistics | None) -> dict[str, float | None]:
    if statistics is None:
        return {}
    return {f"{what}/{name}/{key}": value for key, value in statistics.to_dict().items() if key != "count"}


__all__ = ["LayerRecord", "ParameterRecord", "Record"]
