"""A record, made of the numbers that a step has computed."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..nn import Module
from .activations import RELU, SOFTMAX
from .collecting import ACTIVATION, COTANGENT, GRADIENT, LOSS, UPDATE, Facts, Found
from .histograms import Histogram
from .record import LayerRecord, ParameterRecord, Record
from .statistics import Statistics, merged


def made_record(step: int, found: Iterable[Found], rates: list[float], model: Module) -> Record:
    """The record of a step."""
    record = Record(step, learning_rates=rates)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    record.parameters = {name: ParameterRecord(axes=len(shape)) for name, shape in shapes.items()}
    layers: dict[str, tuple[Facts, dict[str, float]]] = {}
    passed: dict[str, tuple[Facts, dict[str, float]]] = {}
    losses = []
    for one in found:
        what, name = one.key
        if what == LOSS:
            losses.append(one.sums["sum"])
        elif what == GRADIENT and (one.is_used or record.parameters[name].gradient is None):
            record.parameters[name].gradient = Statistics.of(one.facts.count, one.sums)
            _add_histogram(record, name, "gradient", one)
        elif what == UPDATE:
            record.parameters[name].update_norm = math.sqrt(one.sums["change"])
            record.parameters[name].weight_norm = math.sqrt(one.sums["weight"])
            _add_histogram(record, name, "weight", one)
        elif what == COTANGENT:
            passed[name] = _together(passed.get(name), one)
        elif what == ACTIVATION:
            layers[name] = _together(layers.get(name), one)
            _add_histogram(record, name, "activation", one)
    record.loss = sum(losses) if losses else None
    for name in sorted(layers, key=lambda layer: layers[layer][0].order):
        record.layers[name] = _layer(*layers[name])
    for name, (facts, sums) in passed.items():
        record.layers[name].activation_gradient = Statistics.of(facts.count, sums)
    _add_gradients(record, model, {name for name, shape in shapes.items() if len(shape) > 1})
    return record


def _add_histogram(record: Record, name: str, what: str, found: Found) -> None:
    if "greatest" in found.sums:  # of several calls of a layer the last
        record.histograms.setdefault(name, {})[what] = Histogram.of(found.facts.count, found.sums)


def _together(before: tuple[Facts, dict[str, float]] | None, one: Found) -> tuple[Facts, dict[str, float]]:
    """A layer's numbers with those of one more call."""
    if before is None:
        return one.facts, one.sums
    facts, sums = before
    both = Facts(
        facts.count + one.facts.count, facts.kind, facts.function, facts.units + one.facts.units,
        min(facts.places, one.facts.places), facts.rows + one.facts.rows, min(facts.order, one.facts.order),
    )  # fmt: skip
    return both, merged(sums, one.sums)


def _layer(facts: Facts, sums: dict[str, float]) -> LayerRecord:
    statistics = Statistics.of(facts.count, sums)
    layer = LayerRecord(facts.kind, statistics, units=facts.units, places=facts.places)
    if facts.function == RELU:
        layer.saturated = statistics.zeros
        layer.dead = sums["dead"] / facts.units if "dead" in sums else None
    elif "saturated" in sums:
        layer.saturated = sums["saturated"] / (facts.rows if facts.function == SOFTMAX else facts.count)
    return layer


def _add_gradients(record: Record, model: Module, weights: set[str]) -> None:
    """To each layer the norm of the gradients of its own parameters."""
    kinds = {name or type(module).__name__: type(module).__name__ for name, module in model.named_modules()}
    of_layer: dict[str, list[str]] = {}
    for name, parameter in record.parameters.items():
        if parameter.gradient is not None:
            of_layer.setdefault(name.rpartition(".")[0] or type(model).__name__, []).append(name)
    for layer_name, names in of_layer.items():
        layer = record.layers.setdefault(layer_name, LayerRecord(kinds[layer_name]))
        gradients = {name: g for name in names if (g := record.parameters[name].gradient) is not None}
        layer.gradient_norm = math.hypot(*(g.norm for g in gradients.values()))
        large = [g for name, g in gradients.items() if name in weights]
        if large:
            layer.gradient_rms = math.hypot(*(g.norm for g in large)) / math.sqrt(sum(g.count for g in large))


__all__ = ["made_record"]
