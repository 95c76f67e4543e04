"""Which launches of a program read gradients only for the sum of their squares: what a norm costs beyond the passes
that make what it is of.

`PYTHONPATH=. python tests/norm_reading.py` prints it for all workloads, clipped, with what a program has of launches in
all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pullback as pb
from benchmarks import workloads
from pullback.codegen.launch import Launch
from pullback.compiler.groups import elements
from pullback.compiler.rematerialize import is_backward
from pullback.graph.node import Node
from pullback.ops.primitive import ELEMENTWISE, MOVEMENT, REDUCTION
from pullback.runtime.program import Program


class Reading(NamedTuple):
    """A launch that has numbers of the norm alone for a result, and the values that it reads for them."""

    launch: Launch
    values: list[Node]

    @property
    def nbytes(self) -> int:
        """How many bytes are read."""
        return sum(elements(node) * node.dtype.itemsize for node in self.values)


def clipped_program(name: str, bf16: bool = False, **changes: object) -> Program:
    """The program of a workload's step that clips its gradients, planned and not run."""
    with pb.debug.override(backend="native"):
        workload = replace(workloads.build(pb, name, bf16=bf16, **changes), clip=1.0)
        return pb.plan(workload.step)._program


def read_for_a_norm(program: Program) -> list[Reading]:
    """All such launches of a program, in order."""
    sums = _sums_of_squares(program)
    found = []
    for launch, _ in program.kernels():
        written = [node for node in launch.writes if isinstance(node, Node)]
        if written and all(elements(node) == 1 or node in sums for node in written):
            read = [node for node in launch.reads if isinstance(node, Node) and node not in {*written, *sums}]
            values = [node for node in read if elements(node) > 1]
            if any(is_backward(node) for node in values):
                found.append(Reading(launch, values))
    return found


def _sums_of_squares(program: Program) -> set[Node]:
    """The sums over squares that end in one number, in one step or several, and the numbers made of them."""
    users: dict[Node, list[Node]] = {}
    for node in program.nodes():
        for operand in node.inputs:
            users.setdefault(operand, []).append(node)
    found: set[Node] = set()
    for node in program.nodes():
        if node.op.kind == REDUCTION and node.op.name == "sum" and (_is_square(node) or _reduced(node) in found):
            if _ends_in_a_number(node, users):
                found.add(node)
        elif not node.shape and node.op.kind == ELEMENTWISE and any(_beneath(i) in found for i in node.inputs):
            found.add(node)
    return found


def _beneath(node: Node) -> Node:
    while node.op.kind == MOVEMENT and len(node.inputs) == 1:
        (node,) = node.inputs
    return node


def _reduced(node: Node) -> Node:
    return _beneath(node.inputs[0])


def _is_square(node: Node) -> bool:
    square = _reduced(node)
    return square.op.name == "mul" and _beneath(square.inputs[0]) is _beneath(square.inputs[1])


def _ends_in_a_number(node: Node, users: dict[Node, list[Node]]) -> bool:
    """Whether nothing is done with a reduction but to reduce it further, to one number."""
    while node.shape:
        following = users.get(node, [])
        if len(following) != 1 or following[0].op.kind not in (MOVEMENT, REDUCTION):
            return False
        (node,) = following
    return True


def _print_all() -> None:
    for name in workloads.NAMES:
        for bf16 in (False, True):
            program = clipped_program(name, bf16)
            readings = read_for_a_norm(program)
            count, memory = sum(launch.times for launch, _ in program.kernels()), program.memory
            print(
                f"{name + workloads.BF16 * bf16:15} read again for the norm: {sum(r.nbytes for r in readings):6} bytes "
                f"in {len(readings):2} launches, of {len(program.kernels())} ({count} with repetitions); "
                f"peak {memory.peak} bytes, arena {memory.arena}"
            )
            for reading in readings:
                made = [f"{_beneath(v).op.name}{list(v.shape)}" for v in reading.values]
                print(f"    {len(made)}: {', '.join(sorted(set(made)))}")


if __name__ == "__main__":
    _print_all()
