"""The plan of a step: what it holds in memory, when, and what it costs, without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..graph.node import Source
from ..runtime.bundles import bytes_of
from ..runtime.layout import Layout
from ..runtime.program import Program

#: what memory is held for, in the order of the table
ROLES = ("parameters", "gradients", "optimizer", "activations", "temporaries", "inputs")
PARAMETERS, GRADIENTS, OPTIMIZER, ACTIVATIONS, TEMPORARIES, INPUTS = ROLES


@dataclass(frozen=True)
class Roles:
    """What the inputs of a program are, by place (see ROLES; the others are plain inputs), and which outputs are
    gradients.
    """

    inputs: Mapping[int, str] = field(default_factory=dict)
    gradients: frozenset[int] = frozenset()


class Held(NamedTuple):
    """Something in memory: what it is and for what, where the user's code made it, its bytes, and the first and the
    last step of the schedule at which it is there, both included. `offset` is its place in the arena, None where it
    lies in memory of its own.
    """

    what: str
    role: str
    source: Source | None
    nbytes: int
    first: int
    last: int
    offset: int | None = None


class Plan:
    """What one run of a step holds in memory, exactly, and what it computes."""

    def __init__(self, program: Program, roles: Roles, name: str = "step"):
        self._program, self._roles, self.name = program, roles, name
        memory = program.memory
        #: bytes of tensors that are held when most are: the peak of the step
        self.peak_bytes: int = memory.peak
        #: every buffer, with its life over the schedule
        self.buffers: list[Held] = self._held()
        #: the number of steps of the schedule
        self.steps: int = self._layout.steps if self._layout is not None else 1

    @property
    def _layout(self) -> Layout | None:
        return getattr(self._program, "layout", None)

    def _held(self) -> list[Held]:
        layout, program = self._layout, self._program
        last = layout.steps - 1 if layout is not None else 0
        found = [
            Held("", self._roles.inputs.get(place, INPUTS), node.source, bytes_of(node), 0, last)
            for place, node in enumerate(program.inputs)
        ]
        return found
