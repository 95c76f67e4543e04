"""A compiled step beside what it should compute: kernel by kernel, as a whole, and its gradients beside slopes.

The step is recorded anew and its program run on the values of now, one kernel after the other, into memory of its own:
nothing of the user's changes. What a kernel has made is compared with what the reference makes of the same operands in
float64, so that the first kernel that is wrong is named, and not one that only handed its values on. What the program
gives in the end is compared with the recording as it was before any pass. Last, each backward pass of the recording is
compared with finite differences of what it differentiates (`diagnosis.slopes`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..diagnosis import (
    TRIES,
    Audit,
    Disagreement,
    Reference,
    Slope,
    Slopes,
    Wrong,
    called,
    disagreement,
    is_given,
    phase_of,
    shake,
    shaken_by,
)
from ..errors import CheckError
from ..graph.node import Node
from ..graph.types import to_carrier
from ..ops.primitive import path_of
from ..runtime.buffers import Buffer
from ..runtime.native import Native
from ..runtime.probe import Part, parts_of, probe
from .replay import Replay

#: seeds the directions, and the small changes of operands
_SEED = 20


@dataclass
class Check:
    """What `step.check()` has looked at, all of it found right.

    `kernels` are the kernels compared, `values` what they made and `elements` how many numbers that were; `gradients`
    are the gradients that the program gave, by name, each with its largest distance from the reference in float64, as a
    part of its largest element; `zeros` are those that are 0 on paper, as of a bias before a BatchNorm, with the
    largest element that rounding makes of them; `slopes` are the directional derivatives beside finite differences.
    `unchecked` are the lines of backward passes inside of a loop's body, or in `vmap` with hooks on gradients, whose
    kernels alone are compared.
    Where a loss or a gradient is not finite (`is_finite`), the step changes nothing, and only its kernels are compared.
    """

    kernels: int = 0
    values: int = 0
    elements: int = 0
    gradients: dict[str, float] = field(default_factory=dict)
    zeros: dict[str, float] = field(default_factory=dict)
    slopes: list[Slope] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    is_finite: bool = True

    def __str__(self) -> str:
        lines = [f"{self.kernels} kernels, {self.values} values, {self.elements:,} elements agree with the reference"]
        if not self.is_finite:
            lines.append("a loss or a gradient is not finite: the step would change nothing, and no more was compared")
        if self.gradients:
            name, error = max(self.gradients.items(), key=lambda pair: pair[1])
            count = len(self.gradients)
            lines.append(f"{count} gradient{'s'[: count > 1]} within {error:.1e} of float64 ({name} is furthest)")
        if self.zeros:
            name, size = max(self.zeros.items(), key=lambda pair: pair[1])
            they = "1 gradient is" if len(self.zeros) == 1 else f"{len(self.zeros)} gradients are"
            lines.append(f"{they} 0 but for rounding (up to {size:.1e}, of {name})")
        told = [slope for slope in self.slopes if slope.is_conclusive]
        for slope in told:
            lines.append(f"slope {slope.by_gradient:+.6e}, by finite differences {slope.by_differences:+.6e}")
        if len(told) < len(self.slopes):
            lines.append(f"{len(self.slopes) - len(told)} directions cross a kink, where differences tell nothing")
        for line in dict.fromkeys(self.unchecked):
            lines.append(
                f"NOT compared with a slope: gradients inside of a loop's body, or in vmap with hooks, at {line}"
            )
        return "\n".join(lines)


def checked_directions(directions: int) -> int:
    """The number of directions; ValueError where it is none."""
    if isinstance(directions, bool) or not isinstance(directions, int) or directions < 0:
        raise ValueError(f"check: directions must be a whole number from 0 on, got {directions!r}")
    return directions


def check(recording: Replay, arguments: list[object], directions: int) -> Check:
    """Compare a recording that has not been run with the reference; raises CheckError where they differ."""
    recorded = recording.recorded
    assert recorded is not None, "the recording was not made to be checked"
    inputs, outputs = recording.trial(arguments)
    given = dict(zip(recording.program.inputs, inputs, strict=True))

    def value_of(node: Node) -> np.ndarray:
        return _value(node, node.buffer if node.buffer is not None else given[node])

    found = Check(unchecked=list(recorded.unaudited))
    if isinstance(recording.program, Native):
        _Kernels(recording.program, value_of, found).run(inputs, outputs)
    else:
        recording.program.run(inputs, outputs)
    found.is_finite = recording.is_finite(outputs)
    if not found.is_finite:  # the step changes nothing then, and says why when it is called
        return found
    _results(recording, recorded.outputs, outputs, value_of, found)
    for audit in recorded.audits:
        _slopes(audit, value_of, recording.name_of, directions, found)
    return found


def _value(node: Node, buffer: Buffer) -> np.ndarray:
    return to_carrier(buffer.array, node.dtype).reshape(node.shape)


# ---- kernel by kernel


class _Kernels:
    """A program run kernel by kernel, each value compared when it is made."""

    def __init__(self, program: Native, value_of: Callable[[Node], np.ndarray], found: Check):
        self.program, self.value_of, self.found = program, value_of, found
        program.prepare()
        self.parts = parts_of(program)
        made = {node for part in self.parts for node in part.nodes}
        made |= {node for segment in program.layout.segments for node in segment.writes}
        #: what each part is compared with
        self.references = {part: Reference(part.nodes, True, _outside(part, made)) for part in self.parts}
        #: what has been made and is still to be read, and by how many parts
        self.values: dict[Node, np.ndarray] = {}
        self.readers = Counter(n for reference in self.references.values() for n in reference.given.values())

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        """Run it; raises CheckError at the first kernel that is wrong."""
        for part, values in probe(self.program, inputs, outputs, self.parts):
            self.values.update((node, value) for node, value in values.items() if self.readers[node])
            if part in self.references:
                reference = self.references.pop(part)
                self._compare(part, values, reference)
                self.readers.subtract(reference.given.values())
                for node in reference.given.values():
                    if not self.readers[node]:
                        self.values.pop(node, None)

    def _at(self, node: Node) -> np.ndarray:
        return self.values[node] if node in self.values else self.value_of(node)

    def _compare(self, part: Part, values: Mapping[Node, np.ndarray], wide: Reference) -> None:
        own = Reference(part.nodes, False, set(wide.given.values()).__contains__)
        exact, rounded = wide.values(self._at), own.values(self._at)
        self.found.kernels += 1
        for place, node in enumerate(part.nodes):
            off = disagreement(node, values[node], exact[place], rounded[place], _shaken((wide, own), self._at, place))
            self.found.values += 1
            self.found.elements += values[node].size
            if off is not None:
                raise _fault("kernel", node, off, part.launch.code.name, list(part.group.members))


def _outside(part: Part, made: set[Node]) -> Callable[[Node], bool]:
    """Whether the kernel of a part is given a node, rather than to compute it."""
    own = set(part.group.members)
    return lambda node: is_given(node) or (node in made and node not in own)


def _shaken(
    references: Sequence[Reference], value_of: Callable[[Node], np.ndarray], place: int
) -> Callable[[], Iterable[np.ndarray]]:
    """One of the values of each reference, again and again, for operands that differ in their last places: roundings on
    the way then fall the other way, too.
    """

    amount = shaken_by(references[-1].graph.nodes)

    def values() -> Iterable[np.ndarray]:
        for seed in range(TRIES):
            for reference in references:
                generator = np.random.default_rng((_SEED, seed))
                found = reference.values(lambda n, g=generator: shake(value_of(n), amount, g))  # type: ignore[misc]
                yield found[place].astype(np.float64) if found[place].dtype.kind == "f" else found[place]

    return values


# ---- as a whole


def _results(
    recording: Replay, nodes: Sequence[Node], outputs: Sequence[Buffer], value_of: Callable[[Node], np.ndarray],
    found: Check,
) -> None:  # fmt: skip
    """Compare what the program gave with the recording: the gradients, and then the rest made of the gradients that it
    gave. An update may be no continuous function of them, as Adam's first, which goes by their signs.
    """
    gradients = recording.gradient_names()
    values = {node: _value(node, outputs[place]) for place, node in enumerate(nodes)}
    made = {nodes[place] for place in gradients if not is_given(nodes[place])}
    rest = [place for place in range(len(nodes)) if place not in gradients]
    _compare_results(nodes, values, list(gradients), value_of, is_given, gradients, found)

    def value_beside(node: Node) -> np.ndarray:
        return values[node] if node in made else value_of(node)

    _compare_results(nodes, values, rest, value_beside, lambda n: n in made or is_given(n), gradients, found)


def _compare_results(
    nodes: Sequence[Node], values: Mapping[Node, np.ndarray], places: Sequence[int],
    value_of: Callable[[Node], np.ndarray], given: Callable[[Node], bool], gradients: Mapping[int, str], found: Check,
) -> None:  # fmt: skip
    """Compare the values of the results at some places with what they are from what is given."""
    chosen = [nodes[place] for place in places]
    wide, own = Reference(chosen, True, given), Reference(chosen, False, given)
    for number, (place, exact, rounded) in enumerate(
        zip(places, wide.values(value_of), own.values(value_of), strict=True)
    ):
        actual, name = values[nodes[place]], gradients.get(place, "")
        off = disagreement(nodes[place], actual, exact, rounded, _shaken((wide, own), value_of, number))
        if off is not None:
            raise _fault("result", nodes[place], off, name)
        if name and actual.size:
            _note_gradient(name, actual, exact, found)


def _note_gradient(name: str, actual: np.ndarray, exact: np.ndarray, found: Check) -> None:
    sound = np.isfinite(exact)
    largest = float(np.abs(exact).max(where=sound, initial=0.0))
    with np.errstate(invalid="ignore"):
        distance = float(np.abs(actual - exact).max(where=sound, initial=0.0))
    if distance > largest:  # which no error would be that has been let pass
        found.zeros[name] = distance
    else:
        found.gradients[name] = distance / largest if largest else 0.0


# ---- slopes


def _slopes(
    audit: Audit, value_of: Callable[[Node], np.ndarray], name_of: Callable[[Node], str], directions: int, found: Check
) -> None:
    for direction in range(directions):
        slopes = Slopes(audit, value_of, _SEED + direction)
        slope = slopes.along_all()
        if slope is None:
            return
        found.slopes.append(slope)
        if slope.is_conclusive and not slope.agrees:
            raise _wrong(slope, slopes.first_wrong(), name_of)


def _wrong(slope: Slope, first: Wrong | None, name_of: Callable[[Node], str]) -> CheckError:
    told = (
        f"a gradient is not the slope of what it is the gradient of: along a random direction it says "
        f"{slope.by_gradient:.6e}, finite differences in float64 say {slope.by_differences:.6e}"
    )
    if first is None:
        return CheckError(f"{told}. No single operation stands out.", what="gradient", phase="backward")
    node, at = first.node, first.slope
    source, module = node.source, path_of(node.source)
    place = f" at {source}" if source is not None else ""
    inside = f" in {module}" if module else ""
    message = (
        f"{told}.\nIt goes wrong in the gradient of {called(node)}{place}{inside}: the cotangent of its result is "
        f"right, that of {_operand(first, name_of)} gives {at.by_gradient:.6e} where differences give "
        f"{at.by_differences:.6e}.\n"
        "To mend it: look at the gradient rule there; if it is not meant to be a slope, as that of a straight-through "
        "estimator, check with directions=0 (in pullback.compile: check_directions=0)."
    )
    return CheckError(
        message, what="gradient", op=called(node), primitive=node.op.name, filename=source.file if source else "",
        lineno=source.line if source else 0, module=module, phase="backward", actual=at.by_gradient,
        expected=at.by_differences, operand=first.place,
    )  # fmt: skip


def _operand(wrong: Wrong, name_of: Callable[[Node], str]) -> str:
    """Which operand has the wrong cotangent, what it is called, and its type."""
    node, count = wrong.operand, len(wrong.operands)
    which = f" {wrong.place + 1} of {count}" if count > 1 else ""
    return f"its operand{which} ({name_of(node) or called(node)}: {node.dtype.name}{list(node.shape)})"


def _fault(what: str, node: Node, off: Disagreement, name: str, members: Sequence[Node] = ()) -> CheckError:
    source, module = node.source, path_of(node.source)
    place = f" at {source}" if source is not None else ""
    inside = f" in {module}" if module else ""
    phase, op = phase_of(source), called(node)
    together = ", ".join(dict.fromkeys(member.op.name for member in members))
    who = f"the kernel {name} ({together})" if members else "the program, each kernel of which is right,"
    value = f" ({name})" if what == "result" and name else ""
    primitive = f" ({node.op.name})" if node.op.name != op else ""
    message = (
        f"{who} gives another value than the reference for {op}{primitive}{value}{place}{inside}, in the {phase} "
        f"pass: {node.dtype.name}{list(node.shape)} at {list(off.place)} is {off.actual!r} and should be "
        f"{off.expected!r} to within {off.allowed:.1e}; {off.off} of {off.elements} elements are off.\n"
        "This is a fault of Pullback's own. Please report it with the lines of the step; PULLBACK_BACKEND=reference "
        "runs the step without native code."
    )
    return CheckError(
        message, what=what, op=op, primitive=node.op.name, filename=source.file if source else "",
        lineno=source.line if source else 0, module=module, phase=phase, kernel=name if what == "kernel" else "",
        index=off.place, actual=off.actual, expected=off.expected,
    )  # fmt: skip


__all__ = ["Check", "check", "checked_directions"]
