"""Pruning: parameters of which a mask keeps some elements and makes the others zeros, under PyTorch's names and keys.

A pruned `weight` is `weight_mask`, a buffer, times `weight_orig`, the parameter, which goes on being trained where the
mask is 1. It is computed where it is read; PyTorch computes it in a hook before forward, which gives the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from numbers import Integral, Real
from typing import Any

from ...errors import ShapeError
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import ones_like, zeros
from ...tensor.grad_modes import no_grad
from ...tensor.hooks import RemovableHandle
from ...tensor.random import rand, rand_like
from .computed import compute, computed_no_more
from .convert_parameters import parameters_to_vector


class BasePruningMethod(ABC):
    """A way of pruning. Subclasses say in `compute_mask` what to keep, and in `PRUNING_TYPE` what a further pruning of
    the same tensor may choose among: "unstructured", the elements still kept; "structured", the slices along `dim`
    that are not all zeros; "global", everything.
    """

    PRUNING_TYPE: str
    _tensor_name: str | None = None

    # The method stands among the forward pre-hooks of the module that it has pruned, where programs written for PyTorch
    # look for it. Nothing is left to do there.
    with_kwargs, always_call = False, False
    function = staticmethod(lambda module, inputs: None)

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask for a tensor of importance scores, in its shape, given the mask that it has."""

    def apply_mask(self, module: Any) -> Tensor:
        """The pruned tensor, as it is now."""
        original: Tensor = getattr(module, f"{self._tensor_name}_orig")
        return getattr(module, f"{self._tensor_name}_mask").to(original.dtype) * original

    @classmethod
    def apply(cls, module: Any, name: str, *args: Any, importance_scores: Tensor | None = None, **kwargs: Any) -> Any:
        """Prune `module`'s parameter `name`, on top of the prunings that it has; gives the method that does it.

        `args` and `kwargs` make the method; importance scores are the parameter itself unless given. Nothing has
        changed where it raises: ValueError where there is no such parameter, ShapeError for scores of another shape.
        """
        method = cls(*args, **kwargs)
        method._tensor_name = name
        before = _methods_of(module, name)
        pruned = getattr(module, name) if before else module._parameters.get(name)
        if pruned is None:
            raise ValueError(f"{type(module).__name__} has no parameter {name!r} (at {user_source()})")
        scores = _checked_scores(importance_scores, pruned)
        if before:
            ((place, old),) = before
            method = PruningContainer(*(old if isinstance(old, PruningContainer) else [old]), method)
        default = getattr(module, f"{name}_mask").detach().clone() if before else ones_like(pruned.detach())
        with no_grad():
            mask = method.compute_mask(scores, default_mask=default).detach()
        if before:
            del module._forward_pre_hooks[place]
        else:
            del module._parameters[name]
            module.register_parameter(f"{name}_orig", pruned)
        module.register_buffer(f"{name}_mask", mask)
        compute(module, name, method.apply_mask)
        hooks = module._forward_pre_hooks
        hooks[RemovableHandle(hooks).id] = method
        return method

    def prune(self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None) -> Tensor:
        """`t` pruned, whatever module it belongs to; importance scores are `t` itself unless given."""
        scores = _checked_scores(importance_scores, t)
        with no_grad():
            given = ones_like(t.detach()) if default_mask is None else default_mask
            mask = self.compute_mask(scores, default_mask=given)
        return t * mask

    def remove(self, module: Any) -> None:
        """Make the pruned tensor the parameter again, of the value that it has: it stays pruned."""
        name = self._tensor_name
        if name is None or f"{name}_orig" not in module._parameters:
            raise ValueError(f"{type(module).__name__} has to be pruned before that is removed (at {user_source()})")
        original = module._parameters[f"{name}_orig"]
        with no_grad():
            original.data = self.apply_mask(module)
        del module._parameters[f"{name}_orig"], module._buffers[f"{name}_mask"]
        computed_no_more(module, name)
        module.register_parameter(name, original)


def _methods_of(module: Any, name: str) -> list[tuple[int, BasePruningMethod]]:
    """The pruning of a tensor, one at most, and its number among the hooks of the module."""
    hooks = module._forward_pre_hooks.items()
    return [(place, h) for place, h in hooks if isinstance(h, BasePruningMethod) and h._tensor_name == name]


def _checked_scores(scores: Tensor | None, like: Tensor) -> Tensor:
    if scores is not None and scores.shape != like.shape:
        raise ShapeError(
            f"importance_scores must have the shape of what is pruned, {list(like.shape)}, got {list(scores.shape)} "
            f"(at {user_source()})"
        )
    return like.detach() if scores is None else scores


class PruningContainer(BasePruningMethod):
    """Several prunings of one tensor in order, of which the last computes the mask from what the others have left."""

    def __init__(self, *args: BasePruningMethod):
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        if args and isinstance(args[0], BasePruningMethod):
            self._tensor_name = args[0]._tensor_name
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod) -> None:
        """Add a pruning of the same tensor."""
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"{type(method).__name__} is no BasePruningMethod (at {user_source()})")
        if method._tensor_name != self._tensor_name:
            raise ValueError(
                f"this container prunes {self._tensor_name!r}, and the method {method._tensor_name!r} "
                f"(at {user_source()})"
            )
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[BasePruningMethod]:
        return iter(self._pruning_methods)

    def __getitem__(self, idx: Any) -> Any:
        return self._pruning_methods[idx]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask of the last method for what `default_mask` keeps, and zeros elsewhere."""
        method = self._pruning_methods[-1]
        kept = _still_kept(method, t, default_mask)
        mask = default_mask.to(t.dtype).clone()
        mask[kept] = method.compute_mask(t[kept], default_mask=default_mask[kept]).to(t.dtype)
        return mask


def _still_kept(method: BasePruningMethod, t: Tensor, mask: Tensor) -> Any:
    """What a method may choose among, as an index."""
    if method.PRUNING_TYPE == "unstructured":
        return mask == 1
    if method.PRUNING_TYPE == "global":
        return (slice(None),) * t.ndim
    if method.PRUNING_TYPE != "structured":
        raise ValueError(f"PRUNING_TYPE {method.PRUNING_TYPE!r} is none of unstructured, structured and global")
    if not hasattr(method, "dim"):
        raise AttributeError('a pruning method of PRUNING_TYPE "structured" needs an attribute `dim`')
    dim = _axis(t, method.dim)
    others = [axis for axis in range(t.ndim) if axis != dim]
    return (*(slice(None) for _ in range(dim)), mask.sum(dim=others) != 0)


def _axis(t: Tensor, dim: int) -> int:
    if not -t.ndim <= dim < t.ndim:
        raise IndexError(f"dim {dim} is outside the axes of {list(t.shape)} (at {user_source()})")
    return dim % t.ndim


def _check_amount(amount: Any) -> None:
    if not isinstance(amount, Real):
        raise TypeError(f"amount must be an int or a float, got {amount!r} (at {user_source()})")
    if float(amount) < 0 or (not isinstance(amount, Integral) and float(amount) > 1):
        raise ValueError(
            f"amount must be a float between 0 and 1 or an int of at least 0, got {amount} (at {user_source()})"
        )


def _number(amount: float, size: int) -> int:
    """How many of `size` an amount is: that many, or that share of them."""
    number = int(amount) if isinstance(amount, Integral) else round(amount * size)
    if number > size:
        raise ValueError(f"amount={amount} is more than the {size} there are to prune (at {user_source()})")
    return number


class Identity(BasePruningMethod):
    """Nothing is pruned: the mask is all ones."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask that there is."""
        return default_mask

    @classmethod
    def apply(cls, module: Any, name: str) -> Any:  # type: ignore[override]
        """Give the parameter a mask of ones."""
        return super().apply(module, name)


class _Unstructured(BasePruningMethod):
    """The elements of the lowest scores are pruned: `amount` of them, or that share if it is a float."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float):
        _check_amount(amount)
        self.amount = amount

    def _scores(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask that there is, with zeros for the elements of the lowest scores."""
        number = _number(self.amount, t.numel())
        lowest = self._scores(t).reshape(-1).topk(number, largest=False).indices
        return default_mask.reshape(-1).index_fill(0, lowest, 0).reshape(default_mask.shape)


class RandomUnstructured(_Unstructured):
    """Elements are pruned at random: `amount` of them, or that share if it is a float."""

    def _scores(self, t: Tensor) -> Tensor:
        return rand_like(t)

    @classmethod
    def apply(cls, module: Any, name: str, amount: float) -> Any:  # type: ignore[override]
        """Prune a parameter of a module."""
        return super().apply(module, name, amount=amount)


class L1Unstructured(_Unstructured):
    """The elements nearest to zero are pruned: `amount` of them, or that share if it is a float."""

    def _scores(self, t: Tensor) -> Tensor:
        return t.abs()

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: Any, name: str, amount: float, importance_scores: Tensor | None = None
    ) -> Any:
        """Prune a parameter of a module."""
        return super().apply(module, name, amount=amount, importance_scores=importance_scores)


class _Structured(BasePruningMethod):
    """The slices along `dim` of the lowest scores are pruned: `amount` of them, or that share if it is a float."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, dim: int = -1):
        _check_amount(amount)
        self.amount, self.dim = amount, dim

    def _scores(self, t: Tensor, dim: int) -> Tensor:
        raise NotImplementedError

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask that there is, with zeros for the slices of the lowest scores."""
        if t.ndim < 2:
            raise ValueError(
                f"structured pruning takes a tensor of at least two axes, got shape {list(t.shape)} "
                f"(at {user_source()})"
            )
        dim = _axis(t, self.dim)
        size = t.shape[dim]
        kept = self._scores(t, dim).topk(size - _number(self.amount, size)).indices
        whole = zeros(size, dtype=default_mask.dtype).index_fill(0, kept, 1)
        return default_mask * whole.reshape([size if axis == dim else 1 for axis in range(t.ndim)])


class RandomStructured(_Structured):
    """Slices along `dim` are pruned at random: `amount` of them, or that share if it is a float."""

    def _scores(self, t: Tensor, dim: int) -> Tensor:
        return rand(t.shape[dim])

    @classmethod
    def apply(cls, module: Any, name: str, amount: float, dim: int = -1) -> Any:  # type: ignore[override]
        """Prune a parameter of a module."""
        return super().apply(module, name, amount=amount, dim=dim)


class LnStructured(_Structured):
    """The slices along `dim` of the least norms are pruned: `amount` of them, or that share if it is a float. `n` is
    the norm's order, as `Tensor.norm` takes it.
    """

    def __init__(self, amount: float, n: float | str, dim: int = -1):
        super().__init__(amount, dim)
        self.n = n

    def _scores(self, t: Tensor, dim: int) -> Tensor:
        return t.norm(p=self.n, dim=[axis for axis in range(t.ndim) if axis != dim])

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: Any, name: str, amount: float, n: float | str, dim: int, importance_scores: Tensor | None = None
    ) -> Any:
        """Prune a parameter of a module."""
        return super().apply(module, name, amount=amount, n=n, dim=dim, importance_scores=importance_scores)


class CustomFromMask(BasePruningMethod):
    """What a mask that is given has zeros for is pruned."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor):
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask that there is times the one that was given."""
        if self.mask.shape != default_mask.shape:
            raise ShapeError(
                f"the mask must have the shape of what is pruned, {list(default_mask.shape)}, got "
                f"{list(self.mask.shape)} (at {user_source()})"
            )
        return default_mask * self.mask.to(default_mask.dtype)

    @classmethod
    def apply(cls, module: Any, name: str, mask: Tensor) -> Any:  # type: ignore[override]
        """Prune a parameter of a module."""
        return super().apply(module, name, mask=mask)


# ---- as functions, which give the module


def identity(module: Any, name: str) -> Any:
    """Give the parameter `name` of a module a mask of ones: nothing is pruned. Gives the module."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Any, name: str, amount: float) -> Any:
    """Prune elements of the parameter `name` at random: `amount` of those still there, or that share if it is a float.
    Gives the module.
    """
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Any, name: str, amount: float, importance_scores: Tensor | None = None) -> Any:
    """Prune those elements of the parameter `name` that are nearest to zero, or whose importance scores are: `amount`
    of those still there, or that share if it is a float. Gives the module.

    >>> layer = pb.nn.Linear(3, 2)
    >>> layer = pb.nn.utils.prune.l1_unstructured(layer, "weight", amount=4)
    >>> int((layer.weight == 0).sum()), list(layer.state_dict())
    (4, ['bias', 'weight_orig', 'weight_mask'])
    """
    L1Unstructured.apply(module, name, amount=amount, importance_scores=importance_scores)
    return module


def random_structured(module: Any, name: str, amount: float, dim: int) -> Any:
    """Prune slices along `dim` of the parameter `name` at random: `amount` of those that are not all zeros yet, or that
    share if it is a float. Gives the module.
    """
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: Any, name: str, amount: float, n: float | str, dim: int, importance_scores: Tensor | None = None
) -> Any:
    """Prune the slices along `dim` of the parameter `name` whose norms of order `n` (or those of their importance
    scores) are least: `amount` of those that are not all zeros yet, or that share if it is a float. Gives the module.
    """
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Any, str]],
    pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Any, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prune several parameters as if they were one: pairs of a module and a name, by a method of unstructured pruning,
    which `kwargs` make. Importance scores, by such pairs, are the parameters themselves where they are not given.
    """
    if not isinstance(parameters, Iterable):
        raise TypeError(f"global_unstructured takes pairs of a module and a name, got {parameters!r}")
    if not isinstance(importance_scores, dict | None):
        raise TypeError(f"importance_scores must be a dict, got {type(importance_scores).__name__}")
    listed, given = list(parameters), importance_scores or {}
    method = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            f"global_unstructured takes a method of unstructured pruning, and {pruning_method.__name__} is "
            f"{method.PRUNING_TYPE} (at {user_source()})"
        )
    tensors = [getattr(module, name).detach() for module, name in listed]
    scores = [_checked_scores(given.get(pair), tensor) for pair, tensor in zip(listed, tensors, strict=True)]
    masks = [getattr(module, f"{name}_mask", ones_like(t)) for (module, name), t in zip(listed, tensors, strict=True)]
    with no_grad():
        container = PruningContainer(method)
        mask = container.compute_mask(parameters_to_vector(scores), parameters_to_vector(masks))
    parts = mask.split([tensor.numel() for tensor in tensors])
    for (module, name), tensor, part in zip(listed, tensors, parts, strict=True):
        custom_from_mask(module, name, part.reshape(tensor.shape))


def custom_from_mask(module: Any, name: str, mask: Tensor) -> Any:
    """Prune what `mask` has zeros for in the parameter `name`. Gives the module."""
    CustomFromMask.apply(module, name, mask)
    return module


def remove(module: Any, name: str) -> Any:
    """Make the pruned tensor `name` a parameter again, of the value that it has: it stays pruned. Gives the module."""
    for place, method in _methods_of(module, name):
        method.remove(module)
        del module._forward_pre_hooks[place]
        return module
    raise ValueError(
        f"{name!r} of {type(module).__name__} has to be pruned before that is removed (at {user_source()})"
    )


def is_pruned(module: Any) -> bool:
    """Whether a parameter of the module, or of one of its parts, is pruned."""
    hooks = (hook for part in module.modules() for hook in part._forward_pre_hooks.values())
    return any(isinstance(hook, BasePruningMethod) for hook in hooks)


__all__ = [
    "BasePruningMethod",
    "CustomFromMask",
    "Identity",
    "L1Unstructured",
    "LnStructured",
    "PruningContainer",
    "RandomStructured",
    "RandomUnstructured",
    "custom_from_mask",
    "global_unstructured",
    "identity",
    "is_pruned",
    "l1_unstructured",
    "ln_structured",
    "random_structured",
    "random_unstructured",
    "remove",
]
