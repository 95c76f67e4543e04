"""Words: what launches are given, as it stands in memory: addresses, numbers, and the moving places of loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..codegen.launch import Argument, Loop, Place, Workspace, owner_of
from ..compiler.index import View
from ..graph.node import Node
from .bundles import Thing
from .driver import LAUNCH_BYTES


class Words:
    """The words that launches are given, as they are entered: addresses, numbers, and the moving places of loops."""

    def __init__(self, memory_of: Mapping[Thing, tuple[str, int]]):
        self._memory_of = memory_of
        self._words: list[int] = []
        #: for each input and output the words that its address goes to, and how far behind it they point
        self.patches: dict[tuple[str, int], list[tuple[int, int]]] = {}
        #: the words that the arena's address goes to, and how far behind it they point
        self.within_arena: list[tuple[int, int]] = []
        #: words that are the addresses of other words
        self._pointers: list[tuple[int, int]] = []
        self._moving: list[tuple[int, Place]] = []
        self._homes: dict[Node | Workspace | Place, int] = {}
        self._loops: dict[Loop, list[tuple[int, int, Place]]] = {}
        self._blocks: dict[Loop, int] = {}

    def enter_all(self, arguments: Sequence[Argument]) -> int:
        """Where the arguments, one after the other, begin."""
        start = len(self._words)
        for argument in arguments:
            self._enter(argument)
        return start

    def _enter(self, argument: Argument) -> None:
        slot, offset = len(self._words), 0
        self._words.append(argument if isinstance(argument, int) else 0)
        if isinstance(argument, int):
            return
        if isinstance(argument, Place) and argument.loop is not None:
            self._moving.append((slot, argument))
            return
        if isinstance(argument, View):
            offset = argument.offset * argument.base.dtype.itemsize
        while isinstance(argument, Place):
            offset, argument = offset + argument.offset, argument.home
        owner = owner_of(argument)
        assert owner is not None
        where, place = self._memory_of[owner]
        if where == "arena":
            self.within_arena.append((slot, place + offset))
        else:
            self.patches.setdefault((where, place), []).append((slot, offset))

    def enter_homes(self) -> None:
        """Words for the homes of all moving places."""
        for slot, place in self._moving:  # grows while it is gone through: a home may move itself
            home = place.home
            if home not in self._homes:
                self._homes[home] = len(self._words)
                self._enter(home)
            self._loops.setdefault(place.loop, []).append((slot, self._homes[home], place))  # type: ignore[arg-type]

    def of_loop(self, loop: Loop) -> int:
        """Where the words of a loop stand, see `driver.move_on`."""
        if loop not in self._blocks:
            self._blocks[loop] = len(self._words)
            moving = self._loops.get(loop, [])
            self._words += [0, loop.length, 0, len(moving)]
            for slot, home, place in moving:
                self._pointers += [(len(self._words), slot), (len(self._words) + 1, home)]
                self._words += [0, 0, place.offset, place.stride, place.mask]
        return self._blocks[loop]

    def go_back(self, loop: Loop, entries: int) -> None:
        """Note how many entries of the table the end of the loop lies behind its beginning."""
        self._words[self.of_loop(loop) + 2] = entries * LAUNCH_BYTES

    def array(self) -> np.ndarray:
        """All words, in memory where they stay."""
        words = np.array(self._words or [0], np.int64)
        for place, pointed in self._pointers:
            words[place] = words.ctypes.data + pointed * 8
        return words
