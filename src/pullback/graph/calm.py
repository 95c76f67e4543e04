"""Whether anybody can have come to hold a value, or a tensor to have another one, since that was last looked into.

A compiled step writes new state over the old where nobody else holds the old. To ask that of every tensor, by counting
references, takes longer than a small step does. So whatever can make somebody hold a value or give a tensor another one
disturbs: it takes away the token that stands here. While the token stands that a recording has looked under, what it
saw is still so.

Between threads the order matters: hold, then disturb; take the token, then look.
"""

from __future__ import annotations

#: the token that stands, or None where something has happened since
CALM: list[object] = [None]
#: what stands here is replaced when a program has written over values in place, whose nodes stay what they are
OVERWRITTEN: list[object] = [None]


def disturb() -> None:
    """Note that somebody may hold a value now that had one holder, or that a tensor or `.grad` is bound anew."""
    CALM[0] = None


def token() -> object:
    """What stands until the next disturbance. What is looked at from now on is so for as long as it stands."""
    standing = CALM[0]
    if standing is None:
        standing = CALM[0] = object()
    return standing


def overwritten() -> None:
    """Note that values have been written over in place."""
    OVERWRITTEN[0] = object()
