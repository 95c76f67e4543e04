"""Modules as functions of their parameters: one call with other parameters, and many modules made one by vmap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..nn import Module
from ..nn.utils.stateless import call_with
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.joining import stack


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: dict[str, Tensor] | Sequence[dict[str, Tensor]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """The result of `module(*args, **kwargs)` with the tensors given by name in place of its own, as torch.func's.

    What is given is a dictionary, or several, from dotted names to tensors; `args` is a tuple of arguments or a single
    one. Gradients go to the tensors given. The module's own tensors are back after the call, also after an exception;
    what forward changes in place it changes in the tensors given, and a buffer that it binds to another tensor is
    replaced in the dictionary. With `tie_weights` a tensor given for one name of a tensor that the module has under
    several is taken for all of them. Names that are not given stay the module's own, unless `strict`.

    Raises RuntimeError, if `strict`, where a name is missing or unknown; ValueError where a name comes twice, or tied
    names with different tensors; AttributeError where the module has no such part.

    >>> layer = pb.nn.Linear(2, 1)
    >>> given = {"weight": pb.tensor([[2.0, 3.0]]), "bias": pb.zeros(1)}
    >>> pb.func.functional_call(layer, given, pb.ones(1, 2))
    tensor([[5.]])
    >>> loss = lambda tensors, x: pb.func.functional_call(layer, tensors, (x,)).sum()
    >>> pb.func.grad(loss)(given, pb.tensor([[1.0, 4.0]]))["weight"]
    tensor([[1., 4.]])
    """
    return call_with(module, parameter_and_buffer_dicts, args, kwargs, tie_weights=tie_weights, strict=strict)


def stack_module_state(models: Sequence[Module] | Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters and the buffers of modules of one class, each stacked along a new first axis.

    With them `vmap` over `functional_call` runs all the modules at once. Stacked parameters are new leaves, which
    require grad where the modules' do. Raises RuntimeError where the modules differ in class, in training mode, or in
    what requires grad, or where there are none.

    >>> models = [pb.nn.Linear(3, 2) for _ in range(4)]
    >>> parameters, buffers = pb.func.stack_module_state(models)
    >>> run = lambda p, b, x: pb.func.functional_call(models[0], (p, b), (x,))
    >>> pb.vmap(run, in_dims=(0, 0, None))(parameters, buffers, pb.ones(5, 3)).shape
    pullback.Size([4, 5, 2])
    """
    listed = list(models)
    if not listed:
        raise RuntimeError(f"stack_module_state takes at least one module, got none (at {user_source()})")
    if len({model.training for model in listed}) > 1:
        raise RuntimeError(f"stack_module_state: some modules are in training, some are not (at {user_source()})")
    if len({type(model) for model in listed}) > 1:
        kinds = sorted({type(model).__name__ for model in listed})
        raise RuntimeError(f"stack_module_state takes modules of one class, got {kinds} (at {user_source()})")
    parameters = [dict(model.named_parameters()) for model in listed]
    buffers = [dict(model.named_buffers()) for model in listed]
    return (
        {name: _stacked(name, [held[name] for held in parameters]) for name in parameters[0]},
        {name: _stacked(name, [held[name] for held in buffers]) for name in buffers[0]},
    )


def _stacked(name: str, tensors: list[Any]) -> Tensor:
    if len({tensor.requires_grad for tensor in tensors}) > 1:
        raise RuntimeError(
            f"stack_module_state: {name!r} requires grad in some modules and in some not (at {user_source()})"
        )
    result = stack(tensors).detach()
    # a tensor of its own, which optimizers may write to
    return result.clone().requires_grad_() if tensors[0].requires_grad else result.clone()


__all__ = ["functional_call", "stack_module_state"]
