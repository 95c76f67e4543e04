"""Small helpers that modules of PyTorch's users import: sizes for every axis, names of states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...ops.primitive import user_source


def _ntuple(count: int, name: str) -> Callable[[Any], tuple[Any, ...]]:
    """A function that gives `count` times what it is given, or what it holds if it can be gone through."""

    def parse(x: Any) -> tuple[Any, ...]:
        return tuple(x) if isinstance(x, Iterable) else (x,) * count

    parse.__name__ = name
    return parse


_single, _pair = _ntuple(1, "_single"), _ntuple(2, "_pair")
_triple, _quadruple = _ntuple(3, "_triple"), _ntuple(4, "_quadruple")


def _reverse_repeat_tuple(t: Sequence[Any], n: int) -> tuple[Any, ...]:
    """What it holds in reverse, each `n` times: the padding of a convolution as `functional.pad` takes it."""
    return tuple(x for x in reversed(t) for _ in range(n))


def _list_with_default(out_size: Any, defaults: Sequence[int]) -> Any:
    """The sizes with the last of the defaults where they are None; one number as it is."""
    if isinstance(out_size, int):
        return out_size
    if len(defaults) <= len(out_size):
        raise ValueError(f"Input dimension should be at least {len(out_size) + 1} (at {user_source()})")
    pairs = zip(out_size, defaults[-len(out_size) :], strict=True)
    return [default if size is None else size for size, default in pairs]


def consume_prefix_in_state_dict_if_present(state_dict: dict[str, Any], prefix: str) -> None:
    """Take `prefix`, such as "module.", from the keys of a state dictionary that begin with it, in place.

    >>> state = {"module.weight": 1, "bias": 2}
    >>> pb.nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "module.")
    >>> state
    {'bias': 2, 'weight': 1}
    """
    _without(state_dict, prefix)
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None:
        if prefix.replace(".", "") in metadata:  # that of the module whose name the prefix is
            metadata[""] = metadata.pop(prefix.replace(".", ""))
        _without(metadata, prefix)


def _without(held: dict[str, Any], prefix: str) -> None:
    for key in [key for key in held if key and key.startswith(prefix)]:
        held[key.removeprefix(prefix)] = held.pop(key)


__all__ = ["consume_prefix_in_state_dict_if_present"]
