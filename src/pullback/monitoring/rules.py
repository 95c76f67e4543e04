"""Rules: what in a record is an alert, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from ..diagnosis import Alert, spreads_above
from .activations import SIGMOID, TANH
from .record import LayerRecord, ParameterRecord, Record

#: what makes the median of distances from the median a standard deviation, of a normal distribution
_NORMAL = 1.4826
#: the least number of layers, of losses and of places of a unit, from which something can be told
_LAYERS, _LOSSES, _PLACES = 4, 10, 16
#: what gradients that are zero count as where a rate is told: below all float32 numbers
_NOTHING = 1e-46
#: a gradient by the weights, in norms, that is nothing but rounding
_LEARNED = 1e-5
_UPDATES = "update_ratio"


@dataclass(frozen=True)
class Limits:
    """What alerts are raised at.

    `vanishing` and `exploding`: the gradient of the first layers' weights as a part of that of the last ones', in root
    mean squares. `norm_growth`: the norm of all gradients beside the median of the records of the `window` before.
    `dead`: the share of a ReLU's units, `saturated`: of a sigmoid's or tanh's results, of layers but the last.
    `spike`: how many deviations, told from the median distance from the median, the loss may be above the median; of
    the first ten losses, how many of their spreads above the largest.
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

    def __post_init__(self) -> None:
        if type(self.window) is not int or self.window < 1:
            raise ValueError(f"Limits: window must be a whole number of at least 1, got {self.window!r}")


@dataclass
class Watch:
    """Looks at records one after the other. What goes on is told once, when it begins."""

    limits: Limits = field(default_factory=Limits)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    active: set[tuple[str, str]] = field(default_factory=set)
    #: weights that began at 0 and are small yet; and those of which an update has once been large enough
    grown: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    #: for how many records the updates of a weight have been in range again
    quiet: dict[str, int] = field(default_factory=dict)

    def alerts(self, record: Record) -> list[Alert]:
        """What goes wrong in a record."""
        found = [alert for rule in RULES for alert in rule(self, record)]
        new = [alert for alert in found if (alert.kind, alert.where) not in self.active]
        self.active = {(alert.kind, alert.where) for alert in found} | self._resting(found)
        self._remember(self.losses, record.loss)
        self._remember(self.norms, record.gradient_norm)
        return new

    def _resting(self, found: list[Alert]) -> set[tuple[str, str]]:
        """The weights of which an update was out of range in the last `window` records, though not in this one: with
        small batches a ratio goes up and down, and about the limit it would be told again and again.
        """
        self.quiet = {name: records + 1 for name, records in self.quiet.items() if records < self.limits.window}
        self.quiet.update((alert.where, 0) for alert in found if alert.kind == _UPDATES)
        return {(_UPDATES, name) for name in self.quiet}

    def goes_on(self, kind: str, names: list[str]) -> str:
        """The name that an alert of this kind has been told of already; the first where there is none."""
        return next((name for name in names if (kind, name) in self.active), names[0])

    def alerts_of_skipped(self, record: Record, is_scaled: bool = False) -> list[Alert]:
        """What was wrong in a step that was skipped, of which nothing else is remembered. In gradients of a scaled loss
        an overflow is no fault: the scale is lowered until there is none.
        """
        told = replace(record, parameters={}) if is_scaled else record
        found = [alert for alert in _not_finite(self, told) if (alert.kind, alert.where) not in self.active]
        self.active |= {(alert.kind, alert.where) for alert in found}
        return found

    def _remember(self, kept: list[float], value: float | None) -> None:
        if value is not None and math.isfinite(value):
            kept.append(value)
            del kept[: -self.limits.window]

    def state_dict(self) -> dict[str, Any]:
        """What the rules have seen so far."""
        return {
            "losses": list(self.losses), "norms": list(self.norms), "active": sorted(map(list, self.active)),
            "grown": sorted(self.grown), "moved": sorted(self.moved),
            "quiet": dict(self.quiet),
        }  # fmt: skip

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.losses, self.norms = [float(v) for v in state_dict["losses"]], [float(v) for v in state_dict["norms"]]
        self.active = {(str(kind), str(where)) for kind, where in state_dict["active"]}
        self.grown, self.moved = set(map(str, state_dict["grown"])), set(map(str, state_dict["moved"]))
        self.quiet = {str(name): int(records) for name, records in state_dict["quiet"].items()}


def _not_finite(watch: Watch, record: Record) -> Iterator[Alert]:
    statistics = {name: layer.activation for name, layer in record.layers.items()}
    statistics |= {name: p.gradient for name, p in record.parameters.items()}
    unfit = {name: one for name, one in statistics.items() if one is not None and not one.is_finite}
    large = [name for name, one in unfit.items() if math.isfinite(one.largest)]
    found = [] if record.loss is None or math.isfinite(record.loss) else ["loss"]
    found += [name for name in unfit if name not in large]
    if found:
        yield Alert(
            "nonfinite", found[0], None, None, f"NaN or an infinity{_others(found)}", _names_the_operation(record),
            record.step,
        )  # fmt: skip
    elif large:
        yield Alert(
            "nonfinite", large[0], None, None,
            f"its largest element is {unfit[large[0]].largest:.1e}, so that the sum of squares overflows"
            f"{_others(large)}",
            "scale the inputs to deviation 1, normalize (LayerNorm, BatchNorm), initialize smaller", record.step,
        )  # fmt: skip


def _names_the_operation(record: Record) -> str:
    """What names the operation that made what is not finite."""
    if not record.compiled:
        return "look inside of pb.autograd.detect_anomaly(), or compile the step: NonFiniteError names the operation"
    kept = "; the step was skipped, and state is as it was before" if record.skipped else ""
    return f'compile the step with on_nonfinite="raise", whose NonFiniteError names the operation{kept}'


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
    if found and not any(map(_begins, record.parameters.values())):
        yield Alert(
            "zero_gradient", found[0], 0.0, None, f"its gradient is exactly 0 everywhere{_others(found)}",
            "look for dead ReLUs, saturation or underflow behind it, operations whose slope is 0 (round, argmax, "
            "comparisons), and weights or masks that are 0", record.step,
        )  # fmt: skip


def _begins(parameter: ParameterRecord) -> bool:
    """Whether this is a weight of zeros that this step moves: what stands behind it has a gradient from then on."""
    gradient = parameter.gradient
    return parameter.axes > 1 and parameter.weight_norm == 0 and gradient is not None and gradient.largest > 0


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
    if loss is None or not math.isfinite(loss):
        return
    mend = (
        "look at this batch; clip gradients, lower the learning rate or warm it up, raise Adam's beta2 or eps; "
        "pb.Guard goes back to a good state"
    )
    if len(before) < _LOSSES:
        spreads = spreads_above(loss, before)
        if spreads > watch.limits.spike:
            told = f"the loss is {loss:.4g}; those of the {len(before)} records before were {max(before):.4g} at most"
            yield Alert("loss_spike", "loss", spreads, watch.limits.spike, told, mend, record.step)
        return
    usual = median(before)
    deviation = max(_NORMAL * median(abs(value - usual) for value in before), 0.01 * abs(usual), 1e-12)
    if loss > usual + watch.limits.spike * deviation:
        yield Alert(
            "loss_spike", "loss", (loss - usual) / deviation, watch.limits.spike,
            f"the loss is {loss:.4g}; the median of the {len(before)} records before is {usual:.4g}, with a deviation "
            f"of {deviation:.2g}", mend, record.step,
        )  # fmt: skip


def _updates(watch: Watch, record: Record) -> Iterator[Alert]:
    if not any(record.learning_rates):
        return
    least, most = watch.limits.update_ratio
    known = {name: ratio for name, ratio in _ratios(watch, record).items() if ratio is not None}
    large = sorted((n for n, ratio in known.items() if ratio > most), key=lambda n: -known[n])
    small = [n for n, ratio in known.items() if ratio < least and n not in watch.moved]
    small = sorted((n for n in small if _has_gradient(record.parameters[n])), key=lambda n: known[n])
    watch.moved |= {name for name, ratio in known.items() if ratio >= least}
    if large:
        name = watch.goes_on(_UPDATES, large)
        yield Alert(
            _UPDATES, name, known[name], most,
            f"the step changed the weights by {known[name]:.2g} of their norm{_others(large)}",
            "lower the learning rate (about 0.001 a step is usual), or warm it up", record.step,
        )  # fmt: skip
    if small:
        name = watch.goes_on(_UPDATES, small)
        yield Alert(
            _UPDATES, name, known[name], least,
            f"the step changed the weights by {_told(known[name])}{_others(small)}",
            "raise the learning rate (about 0.001 a step is usual), or see whether gradients vanish", record.step,
        )  # fmt: skip


def _ratios(watch: Watch, record: Record) -> dict[str, float | None]:
    """The ratios of updates to weights that tell something. Biases and gains may begin at 0, and are few; a weight that
    began at 0 is made of nothing but updates at first, and counts once one is small beside it.
    """
    weights = {name: p for name, p in record.parameters.items() if p.axes > 1}
    watch.grown |= {name for name, p in weights.items() if p.weight_norm == 0}
    ratios = {n: p.update_ratio for n, p in weights.items() if p.update_ratio is None or math.isfinite(p.update_ratio)}
    most = watch.limits.update_ratio[1]
    watch.grown -= {name for name, ratio in ratios.items() if ratio is not None and ratio <= most}
    return {name: ratio for name, ratio in ratios.items() if name not in watch.grown}


def _told(ratio: float) -> str:
    return f"{ratio:.2g} of their norm" if ratio else "nothing: all of it was lost in rounding"


def _has_gradient(parameter: ParameterRecord) -> bool:
    """Whether there is something to learn: what is learned already has small updates at any rate."""
    gradient, norm = parameter.gradient, parameter.weight_norm or 0.0
    return gradient is not None and gradient.norm > _LEARNED * norm


def _others(names: list[str]) -> str:
    return f"; so it is in {len(names) - 1} more" if len(names) > 1 else ""


Rule = Callable[[Watch, Record], Iterator[Alert]]
RULES: tuple[Rule, ...] = (
    _not_finite, _along_depth, _growing, _zero, _dead, _saturated, _spike, _updates,
)  # fmt: skip

__all__ = ["RULES", "Limits", "Watch", "slope"]
