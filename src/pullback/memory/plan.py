"""The plan of a step: what it holds in memory, when, and what it costs, without running it."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..compiler.describe import label
from ..graph.node import Node
from ..runtime.bundles import bytes_of
from ..runtime.fit import BFLOAT16
from ..runtime.program import Program
from .cost import operations_of, seconds_of
from .lives import INPUTS, ROLES, TEMPORARIES, Held, Named, Roles, held_by
from .sizes import format_bytes

#: how many of the largest buffers are listed
LARGEST = 10
#: how many of the rounded activations are named
_NAMED = 3


def _rounded(nodes: Collection[Node]) -> str:
    """Which activations wait for the backward pass in bfloat16, those first that save most."""
    saved = sum(bytes_of(node) // 2 for node in nodes)
    first = sorted(nodes, key=lambda node: (-bytes_of(node), node.serial))[:_NAMED]
    named = ", ".join(f"{label(node)} {list(node.shape)} of {node.source}" for node in first)
    rest = f" and {len(nodes) - len(first)} more" if len(nodes) > len(first) else ""
    return f"{len(nodes)} activations wait for the backward pass in {format_bytes(saved)} less: {named}{rest}"


class Plan:
    """What one run of a step holds in memory, exactly, and what it computes.

    `peak_bytes` are the bytes of tensors that are held at once: the step's inputs, the outputs that have memory of
    their own, and the arena in which everything else has its fixed place. A run allocates that and nothing else for
    tensors.
    """

    def __init__(
        self, program: Program, roles: Roles, name: str = "step", changes: Mapping[str, str] = MappingProxyType({}),
        budget: int | str | None = None, unbudgeted_bytes: int = 0,
    ):  # fmt: skip
        self._program, self._roles, self.name = program, roles, name
        self.peak_bytes: int = program.memory.peak
        #: the budget that the step was to keep to: bytes, "least", or None for none
        self.budget: int | str | None = budget
        #: the peak with everything kept: without a budget, checkpointed calls and a policy, and with nothing given up
        #: unasked
        self.unbudgeted_bytes: int = unbudgeted_bytes or program.unbudgeted_bytes or program.memory.peak
        #: what of `allow=` was done to keep to the budget, and what that is here
        self.changes: dict[str, str] = dict(changes)
        if program.rounded():
            self.changes[BFLOAT16] = _rounded(program.rounded())
        #: everything that is held, with its life over the schedule
        self.buffers: list[Held] = held_by(program, roles)
        layout = getattr(program, "layout", None)
        #: the number of steps of the schedule: launches that run together, and what Python does between them
        self.steps: int = 1 if layout is None else layout.steps

    def __repr__(self) -> str:
        return f"<plan of {self.name}: {self.peak_bytes:,} bytes>"

    def __str__(self) -> str:
        from .table import text

        return text(self)

    def nodes(self) -> Sequence[Node]:
        """What a run computes."""
        return self._program.nodes()

    def inputs(self) -> Iterator[tuple[int, Node, Named]]:
        """Each input of the program, by its place, and what it is for."""
        for place, node in enumerate(self._program.inputs):
            yield place, node, self._roles.inputs.get(place, Named(INPUTS))

    def gradients(self) -> list[Node]:
        """What the step leaves in `.grad`."""
        return [self._program.outputs[place] for place in self._roles.gradients]

    @property
    def over_budget_bytes(self) -> int:
        """By how many bytes the peak misses the budget: 0 where it is kept, or where no number of bytes was asked for.
        A step is not run while this is not 0.
        """
        return max(self.peak_bytes - self.budget, 0) if isinstance(self.budget, int) else 0

    @functools.cached_property
    def timeline(self) -> dict[str, np.ndarray]:
        """The bytes held for each role at each step of the schedule (int64 [steps])."""
        return {role: self._over_time([held for held in self.buffers if held.role == role]) for role in ROLES}

    def _over_time(self, buffers: list[Held]) -> np.ndarray:
        changes = np.zeros(self.steps + 1, np.int64)
        np.add.at(changes, [held.first for held in buffers], [held.nbytes for held in buffers])
        np.subtract.at(changes, [held.last + 1 for held in buffers], [held.nbytes for held in buffers])
        return changes[:-1].cumsum()

    @functools.cached_property
    def peak_step(self) -> int:
        """The step of the schedule at which most is held."""
        return int(np.argmax(sum(self.timeline.values())))

    @property
    def gap_bytes(self) -> int:
        """Bytes of the arena that nothing lies in at the peak: what rounding up to cache lines takes, and gaps between
        values of different lives.
        """
        return self.peak_bytes - sum(int(held[self.peak_step]) for held in self.timeline.values())

    @functools.cached_property
    def breakdown(self) -> dict[str, int]:
        """The bytes held at the peak, by what they are held for; the sum is `peak_bytes`.

        `parameters` and `optimizer` are the state that the step reads and writes in place, `inputs` all else that it is
        given. `gradients` are those that it leaves in `.grad`. `activations` are made by the forward pass and wait for
        the backward pass to read them. `temporaries` are the rest: values on their way from kernel to kernel, such as
        gradients of activations, those computed again, workspaces, results, and `gap_bytes`.
        """
        held = {role: int(self.timeline[role][self.peak_step]) for role in ROLES}
        held[TEMPORARIES] += self.gap_bytes
        return held

    @property
    def largest(self) -> list[Held]:
        """The ten largest buffers, the largest first."""
        return sorted(self.buffers, key=lambda held: (-held.nbytes, held.first))[:LARGEST]

    def at(self, step: int) -> list[Held]:
        """What is held at a step of the schedule, the largest first."""
        return sorted(
            (b for b in self.buffers if b.first <= step <= b.last), key=lambda held: (-held.nbytes, held.first)
        )

    @functools.cached_property
    def flops(self) -> int:
        """Floating-point operations of a run; those that are done again count again."""
        return operations_of(self._program.nodes())

    @functools.cached_property
    def recomputed_flops(self) -> int:
        """The part of `flops` that is done again because memory has no room for the values."""
        return operations_of(list(self._program.copies()))

    @functools.cached_property
    def expected_seconds(self) -> float:
        """The time that a run is expected to take: for each kernel the longer of computing at this machine's peak rate
        and of moving its bytes. It is what the machine's limits allow; steps were measured to take 1.4 to 2.3 times as
        long (`docs/memory.md`). 0 on the reference.
        """
        return seconds_of(self._program)

    def to_dict(self) -> dict[str, Any]:
        """The plan as numbers, texts, lists and dictionaries, fit for JSON."""
        return {
            "name": self.name,
            "peak_bytes": self.peak_bytes,
            "unbudgeted_bytes": self.unbudgeted_bytes,
            "budget": self.budget,
            "over_budget_bytes": self.over_budget_bytes,
            "changes": self.changes,
            "breakdown": self.breakdown,
            "gap_bytes": self.gap_bytes,
            "flops": self.flops,
            "recomputed_flops": self.recomputed_flops,
            "expected_seconds": self.expected_seconds,
            "steps": self.steps,
            "peak_step": self.peak_step,
            "timeline": {role: held.tolist() for role, held in self.timeline.items()},
            "buffers": [
                {**held._asdict(), "source": None if held.source is None else str(held.source)} for held in self.buffers
            ],
        }

    def save(self, path: str | Path) -> None:
        """Write the plan: to a name that ends in ".json" as `to_dict` gives it, in ".html" as a page to look at.

        The page needs Plotly (the extra "plots"), and shows without a network the memory over the schedule by role,
        what lives at the peak, and the life of each large buffer.
        """
        path = Path(path)
        if path.suffix == ".json":
            path.write_text(json.dumps(self.to_dict()), encoding="utf-8")
        elif path.suffix in (".html", ".htm"):
            from .page import page

            path.write_text(page(self), encoding="utf-8")
        else:
            raise ValueError(f"a plan is saved to a name that ends in .html or .json, got {path.name!r}")
