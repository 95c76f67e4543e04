"""Convolutions whose windows are small: tasks compute blocks of output places.

The window is packed once into panels of neighbouring outputs. An input that is moved apart (the gradient by the input
of a convolution with strides) is taken apart into phases: output places whose windows meet the same taps, each a
convolution of its own without the zeros between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ..compiler.groups import Group
from ..compiler.index import Affine, Index, View, strided_view, variable
from ..graph.node import Node
from ..graph.types import bfloat16
from .convolution_epilogue import Along, Epilogue, Made, Seen
from .convolution_tile import (
    UPPER_HALF,
    Axis,
    Following,
    PaddedCopy,
    Run,
    Tiling,
    accumulate,
    by_pairs,
    choose_tiling,
    copy_lanes,
    pieces,
    scratch_elements,
    store_sums,
    widths_of,
)
from .emitter import Emitter, Slots, lane_variable
from .launch import Argument, Launch, Workspace
from .matmul_tasks import aligned
from .matmul_tile import prefetch, scalar_type
from .target import Target, abilities_of
from .text import Writer, code


@dataclass(frozen=True)
class Part:
    """One axis of a phase: `count` output places, place p lying at first + step * p of the result.

    Its tap j, which is number first_tap + tap_step * j of the window's, reads element p * stride + j * dilation - low
    of the `size` elements of the input.
    """

    count: int
    first: int
    step: int
    stride: int
    taps: int
    first_tap: int
    tap_step: int
    dilation: int
    low: int
    size: int

    @property
    def is_inside(self) -> bool:
        """Whether all taps of all places read elements of the input."""
        return self.low <= 0 and (self.count - 1) * self.stride + (self.taps - 1) * self.dilation - self.low < self.size

    def block(self, first: int, count: int) -> Part:
        """The places from `first` on."""
        return replace(self, count=count, first=self.first + self.step * first, low=self.low - first * self.stride)


def phases_of(node: Node, axis: int) -> list[Part]:
    """The output places along one axis, by which taps they meet."""
    stride, (low, _) = node["stride"][axis], node["padding"][axis]
    apart, dilation = node["input_dilation"][axis], node["window_dilation"][axis]
    places, taps, size = node.shape[1 + axis], node.inputs[1].shape[axis], node.inputs[0].shape[1 + axis]
    period = apart // math.gcd(stride, apart)
    tap_step = apart // math.gcd(dilation, apart)
    found = []
    for first in range(min(period, places)):
        met = [tap for tap in range(min(tap_step, taps)) if (first * stride + tap * dilation - low) % apart == 0]
        first_tap = met[0] if met else 0
        count = -(-(taps - first_tap) // tap_step) if met else 0
        begin = (first * stride + first_tap * dilation - low) // apart
        found.append(
            Part(
                -(-(places - first) // period), first, period, period * stride // apart, count, first_tap, tap_step,
                tap_step * dilation // apart, -begin, size,
            )
        )  # fmt: skip
    return found


def places_launches(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches that compute a group: for each phase the packing of its taps and the sums, with what follows them,
    and what puts its partial results together.
    """
    node = next(iter(group.members))
    operands = lambda other: other not in group.members and in_memory(other)  # noqa: E731
    phases = product(*(phases_of(node, axis) for axis in range(len(node["stride"]))))
    kernels = [_Places(node, parts, operands, target) for parts in phases]
    epilogue, finish = None, []
    if group.stored != [node]:
        first = kernels[0]
        epilogue = Epilogue(group, in_memory, target, first.parallel * first.columns, first.columns, first.domain())
        blocks = [block for kernel in kernels for block in kernel.blocks()]
        finish = epilogue.finish(sum(block.parts for block in blocks), sum(block.tasks for block in blocks))
    launches: list[Launch] = []
    parts = tasks = 0
    for kernel in kernels:
        if kernel.steps:
            launches.append(kernel.pack_launch())
        for block in kernel.blocks():
            launches.append(kernel.launch(block, epilogue, parts, tasks))
            parts, tasks = parts + block.parts, tasks + block.tasks
    return launches + finish


@dataclass(frozen=True)
class _Block:
    """Tasks of one launch: `count` blocks of `size` places of the first axis, described by `first`; `parts` are those
    of all images, and `tasks` those of all groups and shares of the outputs too.
    """

    size: int
    count: int
    first: Part
    parts: int
    tasks: int
    splits: int


class _Places:
    """One phase of a convolution."""

    def __init__(
        self, node: Node, parts: tuple[Part, ...], in_memory: Callable[[Node], bool], target: Target
    ):  # fmt: skip
        self.node, self.parts, self.in_memory, self.target = node, parts, in_memory, target
        self.rank = len(parts)
        *_, self.groups, self.channels, self.outputs = node.inputs[1].shape
        #: whether the lanes run over groups of one channel each
        self.by_lane = self.channels == self.outputs == 1 and self.groups > 1
        self.columns = self.groups if self.by_lane else self.outputs
        self.units = self.groups if self.by_lane else self.channels
        self.parallel = 1 if self.by_lane else self.groups
        self.dtype = node.dtype
        self.lanes = target.lanes(self.dtype.itemsize)
        #: whether two neighbouring channels, in bfloat16, are one element of a sum; and how many elements a tap has
        self.pairs = self.channels % 2 == 0 and by_pairs(node, in_memory, target)
        self.depth = self.channels // 2 if self.pairs else self.channels
        self.steps = math.prod(part.taps for part in parts) * self.depth
        high = parts[-2].count if self.rank > 1 else 1
        self.tiling: Tiling = choose_tiling(
            high, parts[-1].count, self.columns, self.steps, self.lanes, target.registers, self.by_lane
        )
        self.width = min(self.tiling.vectors * self.lanes, self.columns)
        self.workspace = Workspace(max(1, self.parallel * self.steps * self.columns * self.dtype.itemsize))
        self.direct = self._direct()

    # ---- the window, packed

    def pack_launch(self) -> Launch:
        """Copy the taps into [group][panel of outputs][taps…][channel][output], or [pair of channels] for a channel."""
        writer = Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])
        window = self.node.inputs[1]
        emitter = self._emitter(writer, Slots(1), self.columns)
        rest = "%task"
        names: dict[str, str] = {}
        flat = "%task"
        for axis in reversed(range(self.rank)):
            part = self.parts[axis]
            rest, tap = writer.divide(rest, part.taps)
            names[f"t{axis}"] = writer.add(writer.multiply(tap, part.tap_step), part.first_tap)
        tap_count = math.prod(part.taps for part in self.parts)
        group, flat = writer.divide("%task", tap_count)
        names["g"] = group
        type_ = scalar_type(self.dtype)
        start = writer.element(writer.argument(0), type_, writer.multiply(group, self.steps * self.columns))
        taps = [variable(f"t{axis}", window.shape[axis]) for axis in range(self.rank)]
        with writer.loop(0, self.depth, as_written=True) as depth:
            step = writer.add(writer.multiply(flat, self.depth), depth)
            names["c"] = writer.multiply(depth, self.channels // self.depth)
            names["next"] = writer.add(names["c"], 1)
            for first, count, width in pieces(self.columns, self.width):
                with writer.loop(0, count, as_written=True) as panel:
                    begin = writer.add(writer.multiply(panel, self.width), first)
                    place = writer.add(writer.multiply(begin, self.steps), writer.multiply(step, width))
                    to = writer.element(start, type_, place)
                    following = None
                    if self.pairs:
                        following = Following(self._tap_index(taps, "next"), str(UPPER_HALF))
                    copy_lanes(
                        emitter, window, self._tap_index(taps, "c"), width, to, names, self.dtype, begin, following
                    )  # fmt: skip
        nodes = list(emitter.slots.nodes)
        return Launch(
            code("pack_window", writer),
            tap_count * self.parallel,
            [self.workspace, *nodes],
            0,
            set(nodes),
            set(),
            set(),
        )

    def _tap_index(self, taps: Sequence[Affine], channel: str) -> Index:
        """The outputs of the channel of that name, along the lanes."""
        lane = lane_variable(self.columns)
        inner = (lane, Affine(), Affine()) if self.by_lane else (
            variable("g", self.groups), variable(channel, self.channels), lane
        )  # fmt: skip
        return Index(self.node.inputs[1].shape, (*taps, *inner))

    def _emitter(self, writer: Writer, slots: Slots, extent: int) -> Emitter:
        lanes = min(self.lanes, 1 << max(0, extent - 1).bit_length())
        return Emitter(writer, lanes, slots, self.in_memory, abilities_of(self.target))

    # ---- the sums

    def _direct(self) -> View | None:
        """How to read the input where it lies, if no padding is needed and the channels are contiguous."""
        if self.pairs or not all(part.is_inside for part in self.parts):
            return None
        view = strided_view(self.node.inputs[0], self.in_memory)
        unit = self.rank + (1 if self.by_lane else 2)
        return view if view is not None and (view.strides[unit] == 1 or self.units == 1) else None

    def blocks(self) -> list[_Block]:
        """Blocks of the first axis of one size, and the smaller block that is left."""
        first, total = self.parts[0], self.parts[0].count
        size = self._block()
        found = [self._blocks(size, total // size, first)]
        if total % size:
            found.append(self._blocks(total % size, 1, first.block(total - total % size, total % size)))
        return found

    def _blocks(self, size: int, count: int, first: Part) -> _Block:
        parts = self.node.shape[0] * count
        # several tasks share the panels of outputs where there are few blocks
        splits = max(1, min(self._panels, -(-16 // max(parts * self.parallel, 1))))
        splits = -(-self._panels // -(-self._panels // splits))  # none is left without a panel
        return _Block(size, count, first, parts, parts * self.parallel * splits, splits)

    @property
    def _panels(self) -> int:
        return -(-self.columns // self.width)

    def _block(self) -> int:
        """Places of the first axis that a task computes: what they read should fit into the L1 cache."""
        limit = self.target.l1 * 3 // 4
        total = self.parts[0].count
        inner = self._inner_elements(self._axes(1)[1:]) * self.dtype.itemsize
        step = self.tiling.wide if self.rank == 1 else self.tiling.high if self.rank == 2 else 1
        part = self.parts[0]
        room = (limit // max(inner, 1) - (part.taps - 1) * part.dilation - 1) // part.stride + 1
        most = max(step, room // step * step)
        count = -(-total // most)
        even = -(-total // count)
        return min(total, -(-even // step) * step)

    def _axes(self, block: int, low: str | None = None) -> list[Axis]:
        """The padded copy for `block` places of the first axis; only every stride-th element where there is one tap."""
        axes = []
        for number, part in enumerate(self.parts):
            count = part.count if number else block
            alone = part.taps <= 1
            extent = count if alone else (count - 1) * part.stride + (part.taps - 1) * part.dilation + 1
            start = part.low if low is None or number else low
            axes.append(Axis(extent, part.size, start, part.stride if alone else 1))
        return axes

    def launch(self, block: _Block, epilogue: Epilogue | None, parts: int, tasks: int) -> Launch:
        """The sums of one kind of blocks, and what follows them, `parts` and `tasks` having been made before."""
        writer = Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])
        sizes = (block.first, *self.parts[1:])
        emitter = self._emitter(writer, Slots(3), self.units)
        rest, split = writer.divide("%task", block.splits)
        rest, number = writer.divide(rest, block.count)
        image, group = writer.divide(rest, self.parallel)
        start = writer.multiply(number, block.size)
        type_ = scalar_type(self.dtype)
        strides, source, scratch = self._source(writer, emitter, sizes, block.size, start, image, group)
        weights = writer.element(writer.argument(0), type_, writer.multiply(group, self.steps * self.columns))
        share = -(-self._panels // block.splits)
        low = writer.multiply(split, share)
        high = writer.minimum(writer.add(low, share), self._panels)
        n0, n1 = writer.multiply(low, self.width), writer.minimum(writer.multiply(high, self.width), self.columns)
        kept = epilogue is not None and epilogue.keeps_tile
        row = min(share * self.width, self.columns)
        moves = self._tile_moves(sizes, row) if kept else self._result_moves(sizes)
        if kept:
            scratch = aligned(scratch)
            result = writer.element(writer.element("%scratch", "i8", scratch), type_, writer.subtract(0, n0))
            # the epilogue reads whole vectors
            scratch += (block.size * moves[0] + 2 * self.lanes) * self.dtype.itemsize
        else:
            result = writer.element(writer.argument(1), type_, self._element(writer, sizes, image, group, start))
        streams = [] if epilogue is None else self._streams(writer, epilogue, 3 + len(emitter.slots.nodes))
        at = self._element(writer, sizes, image, group, start)
        for begin, count, width in pieces(self.columns, self.width):
            base = begin // self.width
            stop = writer.minimum(high, base + count)
            smax = writer.op(f"icmp sgt i64 {low}, {base}")
            from_ = writer.op(f"select i1 {smax}, i64 {low}, i64 {base}")
            with writer.loop(from_, stop, as_written=True) as panel:
                column = writer.multiply(panel, self.width)
                right = writer.element(weights, type_, writer.multiply(column, self.steps))
                left = writer.element(source, type_, column) if self.by_lane else source
                widths = widths_of(width, self.lanes, self.pairs)
                tiles = _Tiles(self, sizes, block.size, strides, moves, widths, streams, self._result_moves(sizes))
                tiles.emit(writer, left, right, writer.element(result, type_, column), writer.add(at, column))
        own = list(emitter.slots.nodes)
        reads = {*own, *([self.direct.base] if self.direct else [])}
        seen: Seen | None = None
        if epilogue is not None:
            part = writer.add(writer.add(writer.multiply(image, block.count), number), parts)
            made = Made(
                {"n": image, "g": group}, self._along(sizes, block.size, start, moves), n0, n1,
                self.columns if block.splits == 1 else math.gcd(self.columns, self.width),
                result if kept else None, writer.multiply(group, self.columns), part, writer.add("%task", tasks),
            )  # fmt: skip
            seen = epilogue.emit(writer, 3 + len(own), made)
        following = [] if seen is None else seen.arguments
        arguments: list[Argument] = [self.workspace, 0 if kept else self.node, self.direct or 0, *own, *following]
        writes = {self.node} if seen is None else seen.writes
        exact = set() if seen is None else seen.exact - reads
        reads = reads if seen is None else reads | seen.reads
        return Launch(code("convolution", writer), block.tasks, arguments, scratch, reads, writes, exact)

    def domain(self) -> Affine:
        """The number of an element of the result, in the variables n, p0, p1, …, g and the lane's."""
        total = variable("n", self.node.shape[0])
        for axis, size in enumerate(self.node.shape[1 : self.rank + 1]):
            total = total * size + variable(f"p{axis}", size)
        return (total * self.parallel + variable("g", self.parallel)) * self.columns + lane_variable(self.columns)

    def _along(self, parts: Sequence[Part], size: int, start: str, moves: Sequence[int]) -> list[Along]:
        return [
            Along(
                f"p{axis}", part.count if axis else size, 0 if axis else start, part.step, part.first, moves[axis]
            )
            for axis, part in enumerate(parts)
        ]  # fmt: skip

    def _tile_moves(self, parts: Sequence[Part], row: int) -> list[int]:
        """How far neighbouring places of a task lie apart in its scratch memory, along each axis."""
        return [row * math.prod(part.count for part in parts[axis + 1 :]) for axis in range(self.rank)]

    def _result_moves(self, parts: Sequence[Part]) -> list[int]:
        """How far neighbouring places of a task lie apart in the result, along each axis."""
        return [part.step * stride for part, stride in zip(parts, self._out_strides(), strict=True)]

    def _element(self, writer: Writer, parts: Sequence[Part], image: str, group: str, start: str) -> str:
        """The number, in the result, of column 0 of the first place of a task."""
        strides = self._out_strides()
        origin = sum(part.first * stride for part, stride in zip(parts, strides, strict=True))
        element = writer.add(writer.multiply(image, math.prod(self.node.shape[1:])), origin)
        element = writer.add(element, writer.multiply(group, self.columns))
        return writer.add(element, writer.multiply(start, strides[0] * parts[0].step))

    def _streams(self, writer: Writer, epilogue: Epilogue, slot: int) -> list[tuple[str, int]]:
        """The addresses, and bytes an element, of what the epilogue reads and writes beside the result."""
        return [(writer.argument(slot + number), node.dtype.itemsize) for number, node in epilogue.streams()]

    def _out_strides(self) -> list[int]:
        sizes = self.node.shape[1 : self.rank + 1]
        inner = self.groups * self.outputs
        return [inner * math.prod(sizes[axis + 1 :]) for axis in range(self.rank)]

    def _source(
        self, writer: Writer, emitter: Emitter, parts: Sequence[Part], block: int, start: str, image: str, group: str
    ) -> tuple[list[int], str, int]:
        """Where the block's windows begin: strides from place to place of the input, pointer, bytes of scratch."""
        type_, x = scalar_type(self.dtype), self.node.inputs[0]
        if self.steps == 0:
            return [0] * self.rank, "%scratch", 0
        if self.direct is not None:
            n, *axes, g, _ = self.direct.strides
            pointer = writer.element(writer.argument(2), type_, writer.multiply(image, n))
            pointer = writer.element(pointer, type_, writer.multiply(group, g))
            pointer = writer.element(pointer, type_, writer.multiply(start, axes[0] * parts[0].stride))
            offset = sum(-part.low * stride for part, stride in zip(parts, axes, strict=True))
            return list(axes), writer.element(pointer, type_, offset), 0
        low = writer.subtract(parts[0].low, writer.multiply(start, parts[0].stride))
        axes_ = self._axes(block, low)

        def index(places: list[Affine], unit: Affine) -> Index:
            inner = (unit, Affine()) if self.by_lane else (variable("g", self.groups), unit)
            return Index(x.shape, (variable("n", x.shape[0]), *places, *inner))

        stored = bfloat16 if self.pairs else self.dtype
        PaddedCopy(emitter, x, axes_, self.units, index, {"n": image, "g": group}, stored).emit("%scratch")
        strides = [self._inner_elements(axes_[number + 1 :]) for number in range(self.rank)]
        return strides, "%scratch", self._inner_elements(axes_) * self.dtype.itemsize

    def _inner_elements(self, axes: Sequence[Axis]) -> int:
        """Elements of the padded copy, or pairs of them, for each place of the axes before `axes`."""
        return scratch_elements(axes, self.units) // (2 if self.pairs else 1)

    def step_of(self, axis: int, part: Part) -> int:
        """How many places of the source lie between neighbouring output places."""
        return 1 if self.direct is None and part.taps <= 1 else part.stride


@dataclass(frozen=True)
class _Tiles:
    """The tiles of one block and one panel of outputs."""

    kernel: _Places
    parts: tuple[Part, ...]
    block: int
    strides: list[int]
    moves: list[int]
    widths: list[int]
    streams: list[tuple[str, int]]
    steps: list[int]

    def emit(self, writer: Writer, left: str, right: str, result: str, at: str) -> None:
        """Loops over all places of the block, tile by tile; `at` is the number of the first element in the result."""
        self._axis(writer, 0, left, right, result, at, [(0, 0, 0)])

    def _axis(
        self, writer: Writer, axis: int, left: str, right: str, result: str, at: str, rows: list[tuple[int, int, int]]
    ) -> None:  # fmt: skip
        """The places along `axis`; `rows` are the offsets of a tile's rows so far, in the left operand, in what is
        written and in the result.
        """
        kernel, part = self.kernel, self.parts[axis]
        rank, type_ = kernel.rank, scalar_type(kernel.dtype)
        if axis == rank:
            return
        size = {rank - 1: kernel.tiling.wide, rank - 2: kernel.tiling.high}.get(axis, 1)
        total = part.count if axis else self.block
        move = kernel.step_of(axis, part) * self.strides[axis]
        go = self.moves[axis]
        for first, count, length in pieces(total, size):
            step = self.steps[axis]
            inner = [(a + i * move, c + i * go, r + i * step) for a, c, r in rows for i in range(length)]
            with writer.loop(first, first + count * size, size, as_written=True) as place:
                from_ = writer.element(left, type_, writer.multiply(place, move))
                to = writer.element(result, type_, writer.multiply(place, go))
                number = writer.add(at, writer.multiply(place, step))
                if axis + 1 < rank:
                    self._axis(writer, axis + 1, from_, right, to, number, inner)
                else:
                    self._fetch(writer, number, [r for *_, r in inner])
                    sums = accumulate(
                        writer, kernel.dtype, [a for a, *_ in inner], self.widths, self._runs(), from_, right,
                        kernel.by_lane, kernel.pairs,
                    )  # fmt: skip
                    store_sums(writer, kernel.dtype, sums, to, [c for _, c, _ in inner])

    def _fetch(self, writer: Writer, at: str, rows: list[int]) -> None:
        """Have what the epilogue needs for a tile come into the L2 cache while the tile is computed."""
        for pointer, size in self.streams:
            first = writer.element(pointer, "i8", writer.multiply(at, size))
            for row in rows:
                for line in range(0, sum(self.widths) * size, 64):
                    prefetch(writer, writer.element(first, "i8", row * size + line), level=2)

    def _runs(self) -> list[Run]:
        """The loops of a window's sum; those that go through both operands in step are one."""
        kernel, width = self.kernel, sum(self.widths)
        if kernel.steps == 0:
            return [Run(0, 0, 0)]
        inner = kernel.depth
        runs = [Run(inner, 1, width)]
        for part, stride in reversed(list(zip(self.parts, self.strides, strict=True))):
            runs.insert(0, Run(part.taps, part.dilation * stride, inner * width))
            inner *= part.taps
        joined: list[Run] = []
        for run in runs:
            before = joined[-1] if joined else None
            if run.count == 1:
                continue
            if before is not None and before.left == run.count * run.left and before.right == run.count * run.right:
                joined[-1] = Run(before.count * run.count, run.left, run.right)  # type: ignore[operator]
            else:
                joined.append(run)
        return joined
