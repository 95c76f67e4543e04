"""A program run kernel by kernel, with a look at what each has made before the next can write over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..codegen.launch import Launch, Turn
from ..compiler.groups import Group, elements
from ..graph.node import Node
from ..graph.types import to_carrier
from .buffers import Buffer
from .native import Native
from .schedule import Bundle, Schedule
from .stage import Stage


class Part(NamedTuple):
    """Values of one group that are there when a launch, the last that writes them, has run."""

    group: Group
    launch: Launch
    nodes: tuple[Node, ...]


class Made(NamedTuple):
    """What has been made, a copy of each value: a part of a group, or what Python was called for (None)."""

    part: Part | None
    values: dict[Node, np.ndarray]


def parts_of(program: Native) -> list[Part]:
    """All that kernels make and that has a place of its own, in the order of its launches. What a loop begins with has
    none: it lies in the loop's.
    """
    writer: dict[Node, int] = {}
    launches = [launch for stage in program.stages for launch in stage.segment.launches]
    for number, launch in enumerate(launches):
        writer.update((node, number) for node in launch.writes if isinstance(node, Node))
    found: dict[tuple[int, Group], list[Node]] = {}
    for group in program.layout.fusion.groups:
        for node in group.stored:
            if node in program.layout.memory_of and node in writer:
                found.setdefault((writer[node], group), []).append(node)
    ordered = sorted(found.items(), key=lambda item: item[0][0])
    return [Part(group, launches[number], tuple(nodes)) for (number, group), nodes in ordered]


def probe(
    program: Native, inputs: Sequence[Buffer], outputs: Sequence[Buffer], parts: Sequence[Part]
) -> Iterator[Made]:
    """Run a program, and give what its kernels have made, its `parts`. It is at the end of its run when all was taken.

    The launches, their arguments and places are those of a run as a whole; loops are run from their first turn to
    their last.
    """
    of: dict[Launch, list[Part]] = {}
    for part in parts:
        of.setdefault(part.launch, []).append(part)
    with program.running(inputs, outputs):
        for stage in program.stages:
            for unit in _units(stage):
                if stage.schedule is not None:
                    scratch = stage.segment.scratch_bytes()
                    Schedule(stage.table, stage.schedule.threads, scratch, unit).run()
                for bundle in unit:
                    for launch in stage.segment.members(bundle):
                        for part in of.get(launch, ()):
                            yield Made(part, _values(program, part.nodes))
            if stage.after is not None:
                stage.after()
                yield Made(None, _values(program, stage.segment.writes))


def _units(stage: Stage) -> Iterator[list[Bundle]]:
    """The bundles of a stage one by one, those of a loop together."""
    depth = 0
    unit: list[Bundle] = []
    for bundle in stage.bundles:
        unit.append(bundle)
        for launch in stage.segment.members(bundle):
            depth += (1 if launch.begins else -1) if isinstance(launch, Turn) else 0
        if not depth:
            yield unit
            unit = []


def _values(program: Native, nodes: Iterable[Node]) -> dict[Node, np.ndarray]:
    found = {}
    for node in nodes:
        stored = program.array_of(node, elements(node), node.dtype.storage)
        found[node] = np.array(to_carrier(stored, node.dtype)).reshape(node.shape)
    return found


__all__ = ["Made", "Part", "parts_of", "probe"]
