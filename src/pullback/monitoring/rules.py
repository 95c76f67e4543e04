"""Rules: what in a record is an alert, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ..diagnosis import Alert
from .activations import SIGMOID, TANH
from .record import LayerRecord, Record

#: what makes the median of distances from the median a standard deviation, of a normal distribution
_NORMAL = 1.4826
#: the least number of layers, of losses and of places of a unit, from which something can be told
_LAYERS, _LOSSES, _PLACES = 4, 10, 16
#: what gradients that are zero count as where a rate is told: below all float32 numbers
_NOTHING = 1e-46


@dataclass(frozen=True)
class Limits:
    """What alerts are raised at.

    `vanishing` and `exploding`: the gradient of the first layers' weights as a part of that of the last ones', in root
    mean squares. `norm_growth`: the norm of all gradients beside the median of the records of the `window` before.
    `dead`: the share of a ReLU's units, `saturated`: of a sigmoid's or tanh's results, of layers but the last.
    `spike`: how many deviations, told from the median distance from the median, the loss may be above the median.
    `update_ratio`: the least and the largest ratio of an update of weights to the weights.
    """

    vanishing: float = 1e-3
    exploding: float = 1e3
    norm_growth: float = 100.0
    dead: float = 0.5
    saturated: float = 0.5
    spike: float = 8.0
    update_ratio: tuple[float, float] = (1e-7, 0.2)
    window: int = 50


@dataclass
class Watch:
    """Looks at records one after the other. What goes on is told once, when it begins; a spike each time."""

    limits: Limits = field(default_factory=Limits)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    active: set[tuple[str, str]] = field(default_factory=set)

    def alerts(self, record: Record) -> list[Alert]:
        """What goes wrong in a record."""
        found = [alert for rule in RULES for alert in rule(self, record)]
        new = [alert for alert in found if alert.kind == "loss_spike" or (alert.kind, alert.where) not in self.active]
        self.active = {(alert.kind, alert.where) for alert in found}
        self._remember(self.losses, record.loss)
        self._remember(self.norms, record.gradient_norm)
        return new

    def _remember(self, kept: list[float], value: float | None) -> None:
        if value is not None and math.isfinite(value):
            kept.append(value)
            del kept[: -self.limits.window]

    def state_dict(self) -> dict[str, Any]:
        """What the rules have seen so far."""
        return {"losses": list(self.losses), "norms": list(self.norms), "active": sorted(map(list, self.active))}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.losses, self.norms = list(state_dict["losses"]), list(state_dict["norms"])
        self.active = {(kind, where) for kind, where in state_dict["active"]}


def _not_finite(watch: Watch, record: Record) -> Iterator[Alert]:
    found = [] if record.loss is None or math.isfinite(record.loss) else ["loss"]
    found += [name for name, layer in record.layers.items() if layer.activation and not layer.activation.is_finite]
    found += [name for name, p in record.parameters.items() if p.gradient is not None and not p.gradient.is_finite]
    if found:
        yield Alert(
            "nonfinite", found[0], None, None, f"NaN, an infinity or more than 1e19{_others(found)}",
            "compile the step: NonFiniteError names the operation; else see pb.autograd.detect_anomaly()", record.step,
        )  # fmt: skip


def _along_depth(watch: Watch, record: Record) -> Iterator[Alert]:
    """Gradients that fall, or grow, from the last layer to the first."""
    names, values = list(record.depth), [max(v, _NOTHING) for v in record.depth.values()]
    if len(values) < _LAYERS or not all(map(math.isfinite, values)):
        return
    ends = max(1, len(values) // 4)
    ratio = median(values[:ends]) / median(values[-ends:])
    rate = math.exp(-slope([math.log(v) for v in values]))
    told = (
        f"the gradient of the weights is {values[0]:.1e} at {names[0]} and {values[-1]:.1e} at {names[-1]} (root mean "
        f"squares), times {rate:.2g} a layer on the way back"
    )
    if ratio < watch.limits.vanishing and rate < 1:
        yield Alert(
            "vanishing", names[0], ratio, watch.limits.vanishing, told,
            f"{_flat(record)}normalize (LayerNorm, BatchNorm), add residual connections x + f(x), use ReLU or GELU in "
            "place of sigmoid and tanh, and initialize for them (nn.init.kaiming_normal_, xavier_normal_)", record.step,
        )  # fmt: skip
    elif ratio > watch.limits.exploding and rate > 1:
        yield Alert(
            "exploding", names[0], ratio, watch.limits.exploding, told,
            "clip (nn.utils.clip_grad_norm_ before optimizer.step()), initialize smaller (nn.init.xavier_normal_, "
            "kaiming_normal_), normalize (LayerNorm), lower the learning rate", record.step,
        )  # fmt: skip


def slope(values: list[float]) -> float:
    """The median of the slopes of all pairs, which single values do not change (Theil 1950, Sen 1968)."""
    pairs = [(b - a) / (j - i) for i, a in enumerate(values) for j, b in enumerate(values) if i < j]
    return median(pairs)


def _flat(record: Record) -> str:
    """The activations that are to blame, if some are."""
    flat = [n for n, layer in record.layers.items() if layer.kind in ("Sigmoid", "Tanh", SIGMOID, TANH)]
    slopes = "at most 0.25 a sigmoid" if any("sig" in record.layers[n].kind.lower() for n in flat) else "below 1"
    return f"the slopes of {len(flat)} activations ({slopes}) multiply: " if flat else ""


def _growing(watch: Watch, record: Record) -> Iterator[Alert]:
    norm = record.gradient_norm
    if norm is None or not math.isfinite(norm) or len(watch.norms) < _LOSSES:
        return
    usual = median(watch.norms)
    if usual and norm > watch.limits.norm_growth * usual:
        yield Alert(
            "exploding", "all gradients", norm / usual, watch.limits.norm_growth,
            f"their norm is {norm:.3g}, and was {usual:.3g} in the median of the {len(watch.norms)} records before",
            "clip (nn.utils.clip_grad_norm_ before optimizer.step()), lower the learning rate, look at this batch",
            record.step,
        )  # fmt: skip


def _zero(watch: Watch, record: Record) -> Iterator[Alert]:
    found = [n for n, p in record.parameters.items() if p.gradient is not None and not p.gradient.largest]
    if found:
        yield Alert(
            "zero_gradient", found[0], 0.0, None, f"its gradient is exactly 0 everywhere{_others(found)}",
            "look for dead ReLUs, saturation or underflow behind it, operations whose slope is 0 (round, argmax, "
            "comparisons), and weights or masks that are 0", record.step,
        )  # fmt: skip


def _dead(watch: Watch, record: Record) -> Iterator[Alert]:
    for name, layer in record.layers.items():
        if layer.dead is not None and layer.places >= _PLACES and layer.dead >= watch.limits.dead:
            yield Alert(
                "dead_relu", name, layer.dead, watch.limits.dead,
                f"{layer.dead:.0%} of {layer.units} units are 0 at all {layer.places} places, so no gradient passes",
                "lower the learning rate, start biases at 0 or a little above, initialize with kaiming_normal_, or "
                "take LeakyReLU or GELU", record.step,
            )  # fmt: skip


def _saturated(watch: Watch, record: Record) -> Iterator[Alert]:
    hidden = list(record.layers.items())[:-1]
    found = [(n, layer) for n, layer in hidden if _is_flat(layer) and layer.saturated >= watch.limits.saturated]  # type: ignore[operator]
    if found:
        name, layer = max(found, key=lambda pair: pair[1].saturated or 0.0)
        yield Alert(
            "saturated", name, layer.saturated, watch.limits.saturated,
            f"{layer.saturated:.0%} of its results lie where it is flat{_others([n for n, _ in found])}",
            "scale the inputs to deviation 1, initialize smaller (nn.init.xavier_normal_), put a normalization before "
            "it, or take ReLU or GELU", record.step,
        )  # fmt: skip


def _is_flat(layer: LayerRecord) -> bool:
    return layer.saturated is not None and layer.dead is None and not layer.kind.lower().startswith("softmax")


def _spike(watch: Watch, record: Record) -> Iterator[Alert]:
    loss, before = record.loss, watch.losses
    if loss is None or not math.isfinite(loss) or len(before) < _LOSSES:
        return
    usual = median(before)
    deviation = max(_NORMAL * median(abs(value - usual) for value in before), 0.01 * abs(usual), 1e-12)
    if loss > usual + watch.limits.spike * deviation:
        yield Alert(
            "loss_spike", "loss", (loss - usual) / deviation, watch.limits.spike,
            f"the loss is {loss:.4g}; the median of the {len(before)} records before is {usual:.4g}, with a deviation "
            f"of {deviation:.2g}", "look at this batch; clip gradients, lower the learning rate or warm it up, raise "
            "Adam's beta2 or eps; pb.Guard goes back to a good state", record.step,
        )  # fmt: skip


def _updates(watch: Watch, record: Record) -> Iterator[Alert]:
    if not any(record.learning_rates):
        return
    least, most = watch.limits.update_ratio
    # biases and gains may begin at 0, and are few
    ratios = {n: p.update_ratio for n, p in record.parameters.items() if n.rpartition(".")[2] != "bias"}
    known = {n: ratio for n, ratio in ratios.items() if ratio is not None and math.isfinite(ratio)}
    large = sorted((n for n, ratio in known.items() if ratio > most), key=lambda n: -known[n])
    small = sorted((n for n, ratio in known.items() if 0 < ratio < least), key=lambda n: known[n])
    if large:
        yield Alert(
            "update_ratio", large[0], known[large[0]], most,
            f"the step changed the weights by {known[large[0]]:.2g} of their norm{_others(large)}",
            "lower the learning rate (about 0.001 a step is usual), or warm it up", record.step,
        )  # fmt: skip
    if small:
        yield Alert(
            "update_ratio", small[0], known[small[0]], least,
            f"the step changed the weights by {known[small[0]]:.2g} of their norm{_others(small)}",
            "raise the learning rate (about 0.001 a step is usual), or see whether gradients vanish", record.step,
        )  # fmt: skip


def _others(names: list[str]) -> str:
    return f"; so it is in {len(names) - 1} more" if len(names) > 1 else ""


Rule = Callable[[Watch, Record], Iterator[Alert]]
RULES: tuple[Rule, ...] = (
    _not_finite, _along_depth, _growing, _zero, _dead, _saturated, _spike, _updates,
)  # fmt: skip

__all__ = ["RULES", "Limits", "Watch", "slope"]
