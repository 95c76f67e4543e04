"""Gradient checkpointing of a whole network, block by block, under Hugging Face's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, cast

from ...ops.primitive import user_source

if TYPE_CHECKING:
    from .module import Module


class CheckpointingMethods:
    """The methods of a module that switch checkpointing on and off."""

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> Self:
        """Make each block a checkpointed call (see `pullback.utils.checkpoint.checkpoint`): the backward pass is left
        the blocks' results, and computes again what it needs of their insides. Gradients stay the same bits.

        Blocks are what the module's ModuleLists and Sequentials hold that has parts of its own; a container in a
        container is looked into as long as there are blocks in it. The keyword arguments are those of `checkpoint`.

        Raises ValueError where the module has no blocks: wrap calls in `checkpoint` there.

        >>> blocks = [pb.nn.Sequential(pb.nn.Linear(4, 4), pb.nn.Tanh()) for _ in range(3)]
        >>> model = pb.nn.Sequential(*blocks).gradient_checkpointing_enable()
        >>> model.is_gradient_checkpointing, model.gradient_checkpointing_disable().is_gradient_checkpointing
        (True, False)
        """
        _check_keywords(gradient_checkpointing_kwargs or {})
        found = list(_blocks(cast("Module", self)))
        if not found:
            raise ValueError(
                f"{type(self).__name__} has no blocks to checkpoint (at {user_source()}): no ModuleList or Sequential "
                "in it holds modules with parts of their own. Wrap the calls to checkpoint in "
                "pb.utils.checkpoint.checkpoint(function, ...)."
            )
        for block in found:
            block._checkpointing["enabled"] = True
        return self

    def gradient_checkpointing_disable(self) -> Self:
        """Make all blocks plain calls again."""
        for module in cast("Module", self).modules():
            if module._checkpointing:
                del module._checkpointing["enabled"]
        return self

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether the module, or a part of it, is a checkpointed call."""
        return any(module._checkpointing for module in cast("Module", self).modules())


def _blocks(module: Module) -> Iterator[Module]:
    """The blocks of a module, each once."""
    from .container import ModuleList, Sequential

    for part in module.children():
        has_parts = next(part.children(), None) is not None
        if isinstance(part, ModuleList) or not isinstance(module, (ModuleList, Sequential)):
            yield from _blocks(part)
        elif has_parts:
            inner = list(_blocks(part)) if isinstance(part, Sequential) else []
            yield from inner or [part]


def _check_keywords(given: Mapping[str, Any]) -> None:
    defaults = {"use_reentrant": None, "preserve_rng_state": True, "determinism_check": "default", "debug": False}
    defaults["early_stop"] = True
    if unknown := sorted(set(given) - set(defaults)):
        raise TypeError(
            f"gradient_checkpointing_enable: {', '.join(unknown)} cannot be given here (at {user_source()}); "
            f"there are {', '.join(defaults)}"
        )
    check_arguments("gradient_checkpointing_enable", **{**defaults, **given})


def check_arguments(
    name: str, use_reentrant: Any, preserve_rng_state: Any, determinism_check: Any, debug: Any, early_stop: Any
) -> None:
    """Raise for arguments of `checkpoint` that ask for what there is not."""
    if use_reentrant not in (None, True, False) or preserve_rng_state not in (True, False):
        raise TypeError(
            f"{name}: use_reentrant and preserve_rng_state must be True or False, got {use_reentrant!r} and "
            f"{preserve_rng_state!r} (at {user_source()})"
        )
    if determinism_check not in ("default", "none"):
        raise ValueError(
            f"{name}: determinism_check must be 'default' or 'none', got {determinism_check!r} (at {user_source()})"
        )
    if debug:
        raise NotImplementedError(
            f"{name}: debug=True is not there (at {user_source()}): the function is run once, so there are no two runs "
            "to compare"
        )
    if not early_stop:
        raise NotImplementedError(
            f"{name}: early_stop=False is not there (at {user_source()}): what nothing reads is never computed again"
        )
