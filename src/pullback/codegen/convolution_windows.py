"""Convolutions whose windows are large and whose results are small: the gradient by the window.

There the window is an image of cotangents, the rows of the result are the channels of the input, and the channels that
are summed over are the images. A task adds up some of the images, a block of rows of each at a time, so that what it
reads stays in the cache; where several tasks have parts of one sum, the parts are added in a fixed order afterwards.
What follows the convolution in its group is computed then.

Pairs of bfloat16, where the processor multiplies these, are of two images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..compiler.groups import Group
from ..compiler.index import Affine, Index, View, strided_view, variable
from ..graph.node import Node
from .convolution_epilogue import Along, Epilogue, Made
from .convolution_tile import (
    UPPER_HALF,
    Axis,
    Following,
    PaddedCopy,
    Run,
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
from .matmul_tile import scalar_type
from .target import Target, abilities_of
from .text import Writer, code

#: steps of a tile's sum that are taken at least before it is added to what memory holds
_LEAST_STEPS = 128
#: tasks that a convolution is cut into at most, and the bytes of partial results that they may need
_MOST_PARTS, _MOST_PARTIAL = 16, 2_000_000
#: multiplications that are worth a task of their own
_TASK = 200_000
#: elements that one task adds up
_SUMMED = 2048


def windows_launches(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches that compute a group: the sums of tasks, and their total where there are several tasks or where
    something follows it; and what puts the partial results of reductions together.
    """
    node = next(iter(group.members))
    operands = lambda other: other not in group.members and in_memory(other)  # noqa: E731
    size = math.prod(node.shape)
    if group.stored == [node]:
        kernel = _Windows(node, operands, target, totals=False)
        return [kernel.launch(), *([kernel.total(None)] if kernel.summed else [])]
    kernel = _Windows(node, operands, target, totals=True)
    epilogue = Epilogue(group, in_memory, target, size, size, lane_variable(size))
    tasks = -(-size // _SUMMED)
    finish = epilogue.finish(tasks, tasks)
    return [kernel.launch(), kernel.total(epilogue), *finish]


class _Windows:
    """A convolution of rows [n] and features [c], in the words of the forward convolution [channels] and [images].

    The sums of tasks are added up by a launch of its own where there are several, or with `totals` always.
    """

    def __init__(self, node: Node, in_memory: Callable[[Node], bool], target: Target, totals: bool):
        self.node, self.in_memory, self.target = node, in_memory, target
        x, window = node.inputs
        self.rank = len(node["stride"])
        self.rows, self.features, self.groups = x.shape[0], x.shape[-1], x.shape[-2]
        self.outputs = node.shape[-1]
        #: whether the lanes run over groups of one output and one row each
        self.by_lane = self.rows == self.outputs == 1 and self.groups > 1
        self.columns = self.groups if self.by_lane else self.outputs
        self.units = self.groups if self.by_lane else self.rows
        self.parallel = 1 if self.by_lane else self.groups
        self.dtype = node.dtype
        self.lanes = target.lanes(self.dtype.itemsize)
        #: whether an element of a sum is a pair, in bfloat16, of two features
        self.pairs = self.features > 1 and by_pairs(node, in_memory, target)
        self.places, self.taps = node.shape[1 : self.rank + 1], window.shape[: self.rank]
        self.block = self._block()
        steps = self.block * math.prod(self.taps[1:])
        # neighbouring places along the last axis go on where the rows end, if the stride is 1
        self.joins = self.places[-1] if self._stride(self.rank - 1) == 1 or self.rows == 1 else 1
        self.tiling = choose_tiling(
            self.joins, self.rows, self.columns, steps, self.lanes, target.registers, self.by_lane
        )
        self.width = min(self.tiling.vectors * self.lanes, self.columns)
        #: features that a task adds up, and how many tasks that makes
        self.each = self._features_of_a_task()
        self.shares = -(-self.features // self.each)
        #: whether the sums of tasks lie in the workspace
        self.summed = totals or self.shares > 1
        nbytes = self.shares * math.prod(node.shape) * self.dtype.itemsize if self.summed else 1
        self.workspace = Workspace(nbytes)
        self.view = self._window_view()

    def _stride(self, axis: int) -> int:
        return self.node["stride"][axis]

    def _extent(self, axis: int, taps: int, places: int) -> int:
        """Places of the padded input that `taps` taps of `places` windows reach along `axis`."""
        return (places - 1) * self._stride(axis) + (taps - 1) * self.node["window_dilation"][axis] + 1

    def _block(self) -> int:
        """Taps of the first axis that are summed at a time: what they read should fit into the L1 cache."""
        inner = math.prod(self.taps[1:])
        row = math.prod(self._extent(a, self.taps[a], self.places[a]) for a in range(1, self.rank)) * self.units
        each = (row * self.node["window_dilation"][0] + inner * self.columns) * self.dtype.itemsize
        fixed = row * self._extent(0, 1, self.places[0]) * self.dtype.itemsize
        room = max(0, self.target.l1 - fixed) // max(each, 1)
        most = min(self.taps[0], max(room, -(-_LEAST_STEPS // inner), 1))
        return -(-self.taps[0] // -(-self.taps[0] // most))

    def _features_of_a_task(self) -> int:
        elements = math.prod(self.node.shape)
        work = elements * self.features * math.prod(self.taps)
        wanted = min(_MOST_PARTS, self.features, -(-work // _TASK))
        shares = max(1, min(wanted, _MOST_PARTIAL // (elements * self.dtype.itemsize)))
        each = -(-self.features // shares)
        return each + each % 2 if self.pairs else each

    def _window_view(self) -> View | None:
        """How to read the window where it lies, if neighbouring columns are contiguous."""
        if self.pairs:
            return None
        view = strided_view(self.node.inputs[1], self.in_memory)
        lane = self.rank if self.by_lane else self.rank + 2
        return view if view is not None and (view.strides[lane] == 1 or self.columns == 1) else None

    # ---- the sums

    def launch(self) -> Launch:
        """One launch of (share of the features) x (group) x (place along the first axis) tasks."""
        writer = Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])
        type_ = scalar_type(self.dtype)
        lanes = min(self.lanes, 1 << max(0, max(self.units, self.columns) - 1).bit_length())
        emitter = Emitter(writer, lanes, Slots(3), self.in_memory, abilities_of(self.target))
        rest, first_place = writer.divide("%task", self.places[0])
        share, group = writer.divide(rest, self.parallel)
        low = writer.multiply(share, self.each)
        high = writer.minimum(writer.add(low, self.each), self.features)
        result = writer.argument(0 if self.summed else 1)
        if self.summed:
            result = writer.element(result, type_, writer.multiply(share, math.prod(self.node.shape)))
        sizes = self.node.shape[1 : self.rank + 1]
        inner = self.groups * self.outputs
        strides = [inner * math.prod(sizes[axis + 1 :]) for axis in range(self.rank)]
        result = writer.element(result, type_, writer.multiply(group, self.outputs))
        result = writer.element(result, type_, writer.multiply(first_place, strides[0]))
        with (
            writer.loop(low, high, 2 if self.pairs else 1, as_written=True) as feature,
            writer.loop(0, self.taps[0], self.block, as_written=True) as tap,
        ):
            begun = writer.op(f"or i1 {writer.op(f'icmp sgt i64 {tap}, 0')}, "
                              f"{writer.op(f'icmp sgt i64 {feature}, {low}')}")  # fmt: skip
            count = writer.minimum(writer.subtract(self.taps[0], tap), self.block)
            names, mask = {"f": feature, "g": group}, None
            if self.pairs:
                names["next"] = writer.minimum(writer.add(feature, 1), writer.subtract(high, 1))
                there = writer.op(f"icmp slt i64 {feature}, {names['next']}")
                mask = writer.op(f"select i1 {there}, i32 {UPPER_HALF}, i32 0")
            source, moves = self._source(writer, emitter, first_place, tap, count, names, mask)
            right, steps = self._window(writer, emitter, tap, count, names, mask)
            runs = self._runs(count, moves, steps)
            self._tiles(writer, source, right, result, moves, strides, runs, begun)
        nodes = list(emitter.slots.nodes)
        arguments: list[Argument] = [
            self.workspace if self.summed else 0, 0 if self.summed else self.node, self.view or 0, *nodes,
        ]  # fmt: skip
        reads = {*nodes, *([self.view.base] if self.view else [])}
        tasks = self.shares * self.parallel * self.places[0]
        writes = set() if self.summed else {self.node}
        return Launch(code("convolution_windows", writer), tasks, arguments, self._scratch(), reads, writes, set())

    def _scratch_input(self) -> int:
        axes = [self._extent(0, self.block, 1)]
        axes += [self._extent(axis, self.taps[axis], self.places[axis]) for axis in range(1, self.rank)]
        if self.rank == 1:
            axes = [self._extent(0, self.block, 1)]
        return -(-math.prod(axes) * self.units * self.dtype.itemsize // 64) * 64

    def _scratch(self) -> int:
        window = 0 if self.view is not None else self.block * math.prod(self.taps[1:]) * self.columns
        return self._scratch_input() + window * self.dtype.itemsize

    def _source(
        self, writer: Writer, emitter: Emitter, first_place: str, tap: str, count: str, names: dict[str, str],
        mask: str | None,
    ) -> tuple[str, list[int]]:  # fmt: skip
        """A padded copy of what the block of taps reads, and the strides of its axes."""
        node, x = self.node, self.node.inputs[0]
        dilation = node["window_dilation"]
        start = writer.add(writer.multiply(first_place, self._stride(0)), writer.multiply(tap, dilation[0]))
        extent = writer.add(writer.multiply(writer.subtract(count, 1), dilation[0]), 1)
        axes = [Axis(extent, x.shape[1], writer.subtract(node["padding"][0][0], start), 1, node["input_dilation"][0])]
        for axis in range(1, self.rank):
            places = self._extent(axis, self.taps[axis], self.places[axis])
            axes.append(Axis(places, x.shape[1 + axis], node["padding"][axis][0], 1, node["input_dilation"][axis]))

        def index(places: list[Affine], unit: Affine, name: str = "f") -> Index:
            feature = variable(name, self.features)
            if self.by_lane:
                return Index(x.shape, (Affine(), *places, unit, feature))
            return Index(x.shape, (unit, *places, variable("g", self.groups), feature))

        following = None if mask is None else lambda places, unit: Following(index(places, unit, "next"), mask)
        PaddedCopy(emitter, x, axes, self.units, index, names, self.dtype, following).emit("%scratch")
        return "%scratch", [scratch_elements(axes[number + 1 :], self.units) for number in range(self.rank)]

    def _window(
        self, writer: Writer, emitter: Emitter, tap: str, count: str, names: dict[str, str], mask: str | None
    ) -> tuple[str, list[int]]:
        """Where the block of taps begins, and the strides of its axes; copied to scratch memory if need be."""
        window, type_ = self.node.inputs[1], scalar_type(self.dtype)
        if self.view is not None:
            *strides, g, c, _ = self.view.strides
            pointer = writer.element(writer.argument(2), type_, writer.multiply(tap, strides[0]))
            pointer = writer.element(pointer, type_, writer.multiply(names["f"], c))
            return writer.element(pointer, type_, 0 if self.by_lane else writer.multiply(names["g"], g)), list(strides)
        pointer = writer.element("%scratch", "i8", self._scratch_input())
        strides = [math.prod(self.taps[axis + 1 :]) * self.columns for axis in range(self.rank)]
        taps = [variable(f"t{axis}", size) for axis, size in enumerate(self.taps)]

        def index(name: str) -> Index:
            feature, lane = variable(name, self.features), lane_variable(self.columns)
            inner = (lane, feature, Affine()) if self.by_lane else (variable("g", self.groups), feature, lane)
            return Index(window.shape, (*taps, *inner))

        following = None if mask is None else Following(index("next"), mask)

        def nest(axis: int, to: str, found: dict[str, str]) -> None:
            if axis == self.rank:
                copy_lanes(emitter, window, index("f"), self.columns, to, found, self.dtype, following=following)
                return
            with writer.loop(0, self.taps[axis] if axis else count, as_written=True) as place:
                at = place if axis else writer.add(place, tap)
                nest(axis + 1, writer.element(to, type_, writer.multiply(place, strides[axis])),
                     {**found, f"t{axis}": at})  # fmt: skip

        nest(0, pointer, names)
        return pointer, strides

    def _runs(self, count: str, moves: list[int], steps: list[int]) -> list[Run]:
        dilation = self.node["window_dilation"]
        runs = [
            Run(count if axis == 0 else self.taps[axis], moves[axis] * dilation[axis], steps[axis])
            for axis in range(self.rank)
        ]
        return [run for run in runs if run.count != 1] or [Run(1, 0, 0)]

    def _tiles(
        self, writer: Writer, source: str, right: str, result: str, moves: list[int], strides: list[int],
        runs: list[Run], begun: str,
    ) -> None:  # fmt: skip
        """All columns, rows and places of the task but those along the first axis."""
        type_ = scalar_type(self.dtype)
        row_stride = math.prod(self.node.shape[1:])
        inner_axis = self.rank - 1

        def tile(left: str, b: str, to: str, widths: list[int], rows: int, places: int) -> None:
            move, go = (moves[inner_axis] * self._stride(inner_axis), strides[inner_axis])
            offsets = [
                (p * move + (0 if self.by_lane else r), p * go + r * row_stride)
                for p in range(places)
                for r in range(rows)
            ]
            from_ = [a for a, _ in offsets]
            sums = accumulate(writer, self.dtype, from_, widths, runs, left, b, self.by_lane, self.pairs)
            store_sums(writer, self.dtype, sums, to, [c for _, c in offsets], begun)

        def rows(left: str, b: str, to: str, widths: list[int], places: int) -> None:
            for first, count, length in pieces(self.rows, self.tiling.wide):
                with writer.loop(first, first + count * length, length, as_written=True) as row:
                    there = writer.element(to, type_, writer.multiply(row, row_stride))
                    tile(writer.element(left, type_, row), b, there, widths, length, places)

        def along(axis: int, left: str, b: str, to: str, widths: list[int]) -> None:
            if axis >= self.rank:  # the only axis is the first one
                rows(left, b, to, widths, 1)
                return
            size = self.tiling.high if axis == inner_axis else 1
            for first, count, length in pieces(self.places[axis], size):
                with writer.loop(first, first + count * length, length, as_written=True) as place:
                    from_ = writer.element(left, type_, writer.multiply(place, moves[axis] * self._stride(axis)))
                    there = writer.element(to, type_, writer.multiply(place, strides[axis]))
                    if axis == inner_axis:
                        rows(from_, b, there, widths, length)
                    else:
                        along(axis + 1, from_, b, there, widths)

        for begin, count, width in pieces(self.columns, self.width):
            with writer.loop(0, count, as_written=True) as panel:
                column = writer.add(writer.multiply(panel, width), begin)
                left = writer.element(source, type_, column) if self.by_lane else source
                b, to = (writer.element(pointer, type_, column) for pointer in (right, result))
                along(1, left, b, to, widths_of(width, self.lanes, self.pairs))

    # ---- the total

    def total(self, epilogue: Epilogue | None) -> Launch:
        """Add up the shares, each element in the order of the shares; and what follows."""
        writer = Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])
        type_, size, elements = scalar_type(self.dtype), self.dtype.itemsize, math.prod(self.node.shape)
        kept = epilogue is not None and epilogue.keeps_tile
        parts = writer.argument(0)
        first = writer.multiply("%task", _SUMMED)
        last = writer.minimum(writer.add(first, _SUMMED), elements)
        result = writer.element("%scratch", type_, writer.subtract(0, first)) if kept else writer.argument(1)
        whole = writer.add(first, writer.op(f"and i64 {writer.subtract(last, first)}, {-self.lanes}"))
        for start, stop, lanes in ((first, whole, self.lanes), (whole, last, 1)):
            vector = f"<{lanes} x {type_}>"
            with writer.loop(start, stop, lanes, as_written=True) as position:
                total = ""
                for share in range(self.shares):
                    place = writer.element(parts, type_, writer.add(position, share * elements))
                    value = writer.op(f"load {vector}, ptr {place}, align {size}")
                    total = writer.op(f"fadd {vector} {total}, {value}") if total else value
                place = writer.element(result, type_, position)
                writer.line(f"store {vector} {total}, ptr {place}, align {size}")
        arguments: list[Argument] = [self.workspace, 0 if kept else self.node]
        tasks = -(-elements // _SUMMED)
        if epilogue is None:
            return Launch(code("convolution_total", writer), tasks, arguments, 0, set(), {self.node}, set())
        made = Made(
            {}, [Along("once", 1)], first, last, math.gcd(elements, _SUMMED), result if kept else None, 0, 0, "%task"
        )  # fmt: skip
        seen = epilogue.emit(writer, len(arguments), made)
        # the epilogue reads whole vectors
        scratch = (_SUMMED + 2 * self.lanes) * size if kept else 0
        return Launch(
            code("convolution_total", writer), tasks, arguments + seen.arguments, scratch, seen.reads, seen.writes,
            seen.exact,
        )  # fmt: skip
