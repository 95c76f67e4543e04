"""Meanwhile: what other cores compute while this process goes on."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from ..runtime.threads import get_num_threads


def meanwhile(function: Callable[[], Any]) -> Callable[[], Any]:
    """Begin to compute what `function` gives, which JSON can hold, in a fork of this process; the function that is
    returned waits for it. It is computed here, when it is asked for, where there is no fork or no other core, where
    other threads may hold what the fork would wait for, and where the fork gives no answer: then its error is raised.
    """
    if not hasattr(os, "fork") or get_num_threads() < 2 or threading.active_count() > 1:
        return function
    sys.stdout.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _answer(function, writing)
    os.close(writing)

    def answer() -> Any:
        with open(reading, encoding="utf-8") as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        return json.loads(text) if text else function()

    return answer


def _answer(function: Callable[[], Any], writing: int) -> None:
    """In the child: write what the function gives, and end without a word of anybody's."""
    try:
        text = json.dumps(function())
        with open(writing, "w", encoding="utf-8") as pipe:
            pipe.write(text)
    finally:
        os._exit(0)


__all__ = ["meanwhile"]
