"""By which way `scaled_dot_product_attention` goes: PyTorch's `sdpa_kernel`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

from ..tensor.state import STATE


class SDPBackend(IntEnum):
    """PyTorch's ways of attention. Two of them are there: MATH, matrix products and softmax, whose memory grows with
    queries times keys; and FLASH_ATTENTION, a kernel in tiles whose memory grows with queries plus keys.
    """

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


_THERE = (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION)


class _Chosen(threading.local):
    """The ways that are allowed, the first before the second if `is_ranked`, and in which recording that was said."""

    ways: tuple[SDPBackend, ...] = _THERE
    is_ranked = False
    trace: Any = None


_CHOSEN = _Chosen()


@contextmanager
def sdpa_kernel(backends: Sequence[SDPBackend] | SDPBackend, set_priority: bool = False) -> Iterator[None]:
    """Inside, `scaled_dot_product_attention` goes one of these ways; RuntimeError where it is called and none is there.

    With MATH alone it is computed by matrix products and softmax, with FLASH_ATTENTION alone by the kernel in tiles.
    With both, as without this, by the one that is faster for the sizes at hand; with `set_priority` by the first. The
    other ways of PyTorch's are of GPUs: they are not there, and left out of a list that has one of the two. A compiled
    step called in another such block than it was recorded in is recorded anew.

    >>> from pullback.nn.attention import SDPBackend, sdpa_kernel
    >>> x = pb.ones(1, 4, 2)
    >>> with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
    ...     print(pb.nn.functional.scaled_dot_product_attention(x, x, x).shape)
    pullback.Size([1, 4, 2])
    """
    listed = [backends] if isinstance(backends, SDPBackend) else backends
    if not isinstance(listed, list) or not all(isinstance(backend, SDPBackend) for backend in listed):
        raise AssertionError(
            f"Backend must be an instance of SDPBackend or a list of SDPBackend instances, got {backends!r}"
        )
    before = dict(vars(_CHOSEN))
    _CHOSEN.ways, _CHOSEN.is_ranked = tuple(way for way in listed if way in _THERE), bool(set_priority)
    _CHOSEN.trace = STATE.trace
    try:
        yield
    finally:
        vars(_CHOSEN).clear()
        vars(_CHOSEN).update(before)


def _ways_now() -> tuple[SDPBackend, ...]:
    return _CHOSEN.ways[:1] if _CHOSEN.is_ranked else _CHOSEN.ways


def allowed_ways() -> tuple[SDPBackend, ...]:
    """The ways that may be gone now, or the one that must be; none where nothing that was asked for is there."""
    trace = STATE.trace
    if trace is None or _CHOSEN.trace is trace:  # what a block inside of the recorded step says is part of the step
        return _ways_now()
    known = [value for read, value in trace.guards if read is _ways_now]
    return known[0] if known else trace.guard(_ways_now)  # type: ignore[return-value]


__all__ = ["SDPBackend", "sdpa_kernel"]
