"""What a program computes, and how long that is expected to take."""

from __future__ import annotations

from collections.abc import Iterable

from ..compiler.costs import operations
from ..compiler.describe import describe
from ..compiler.groups import Group
from ..graph.node import Node
from ..runtime.program import Program
from ..runtime.rates import expected_seconds


def operations_of(nodes: Iterable[Node]) -> int:
    """Floating-point operations of these nodes, each computed once; of a loop those of all its turns."""
    return sum(_operations(node) for node in nodes)


def _operations(node: Node) -> int:
    if node.op.name == "scan":
        return int(node["length"]) * sum(operations(inner) for inner in set(node["body"].values))
    return operations(node)


def seconds_of(program: Program) -> float:
    """The time that the program's kernels need, each for itself: the longer of computing at the machine's peak rate and
    of moving what it reads and writes; equal ones are looked at once.
    """
    threads = program.threads()
    times: dict[Group, int] = {}
    for launch, group in program.kernels():
        times[group] = max(times.get(group, 1), launch.times)
    total = 0.0
    for group, count in times.items():
        kernel = describe(group, program.in_memory.__contains__)
        read = kernel.nbytes - kernel.written
        total += count * expected_seconds(kernel.operations, read, kernel.written, kernel.dtype, threads)
    return total
