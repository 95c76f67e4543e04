"""What a forked child makes anew: nobody is left in it to release what another thread of its parent held.

Only the thread that forks goes on in the child. So locks are made anew there; what must not be caught half done is
waited for before the fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakSet


class Owner(Protocol):
    """An object that has locks."""

    def renew_locks(self) -> None:
        """Make them anew, nobody else being there."""


_OWNERS: WeakSet[Any] = WeakSet()


def register(owner: Owner) -> None:
    """Have the locks of `owner` made anew in a forked child, for as long as there is the owner."""
    _OWNERS.add(owner)
    owner.renew_locks()


def in_child(function: Callable[[], None]) -> Callable[[], None]:
    """Have `function` called in every forked child; usable as a decorator."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
    return function


def around(before: Callable[[], object], in_parent: Callable[[], object], in_child: Callable[[], object]) -> None:
    """Have `before` called before every fork, and `in_parent` and `in_child` once the child is there."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


@in_child
def _renew() -> None:
    for owner in list(_OWNERS):
        owner.renew_locks()
