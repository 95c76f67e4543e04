"""Linear layers with a low-rank addition that is trained in their stead.

y = x Wᵀ + b + scaling · (x Aᵀ) Bᵀ with A [r, in_features] and B [out_features, r]. A begins as a Linear's weight does,
B at zero, so that the model is what it was before. The names are PEFT's: `base_layer`, `lora_A.default.weight`,
`lora_B.default.weight`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import wraps
from numbers import Integral, Real
from typing import ParamSpec, TypeVar

from ..graph.types import DType, float32
from ..nn import Dropout, Identity, Linear, Module, ModuleDict, Parameter, init
from ..nn.modules.linear import is_plain
from ..nn.modules.quantized import NO_CODES, QuantizedLinear, has_codes, is_finite
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.grad_modes import no_grad
from ..tensor.limits import finfo, promote_types

#: the name that PEFT gives an adapter that was given none
_NAME = "default"
#: the targets that stand for every Linear
ALL_LINEAR = "all-linear"
#: options of PEFT's LoraConfig, and what they are called here
_PEFTS = {"target_modules": "targets", "exclude_modules": "exclude", "lora_alpha": "alpha", "lora_dropout": "dropout",
          "use_rslora": "rslora"}  # fmt: skip
#: options of it that stand for something that is not there
_NOT_THERE = {"use_dora", "bias", "fan_in_fan_out", "init_lora_weights", "rank_pattern",
              "alpha_pattern", "layers_to_transform", "layers_pattern", "lora_bias", "task_type"}  # fmt: skip
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Config:
    """What adapters are made by; `targets`, and those to `exclude`, are ends of layers' names, or a regular expression
    for whole names; `modules_to_save` are ends of the names of modules that are trained as a whole.
    """

    r: int
    alpha: float
    targets: tuple[str, ...] | str
    dropout: float = 0.0
    rslora: bool = False
    exclude: tuple[str, ...] | str = ()
    modules_to_save: tuple[str, ...] = ()

    @property
    def scaling(self) -> float:
        """What the addition is multiplied by."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    def covers(self, name: str, layer: Module | None) -> bool:
        """Whether the layer of this name gets an adapter."""
        if is_named(name, self.exclude) or is_within(name, self.modules_to_save):
            return False
        return _is_linear(layer) if self.targets == ALL_LINEAR else is_named(name, self.targets)


def is_within(name: str, named: tuple[str, ...]) -> bool:
    """Whether a name, or that of a module around it, ends with one of some names."""
    parts = name.split(".")
    return any(is_named(".".join(parts[:end]), named) for end in range(1, len(parts) + 1))


def is_named(name: str, named: tuple[str, ...] | str) -> bool:
    """Whether a name ends with one of some names, or matches a regular expression: PEFT's rule."""
    if isinstance(named, str):
        return re.fullmatch(named, name) is not None
    return any(name == one or name.endswith("." + one) for one in named)


class LoRALinear(Module):
    """A Linear, `base_layer`, whose weight stays as it is, in floats or codes, and a low-rank addition that is trained.

    The addition is kept, and computed, in float32, or in the dtype of the weight where that is wider: steps that are
    small beside it would not move 16 bits, whatever the rest of the model is in. What comes out has the layer's dtype.
    """

    #: the modules that are trained: they stay in floats where the rest is quantized
    lora_parts = ("lora_A", "lora_B")

    @property
    def lora_saved(self) -> tuple[str, ...]:
        """Ends of the names of modules that are trained beside the adapters, and stay in floats too."""
        return self.config.modules_to_save

    def __init__(self, base_layer: Linear | QuantizedLinear, config: Config):
        super().__init__()
        self.base_layer, self.config = base_layer, config
        sizes, dtype = (base_layer.in_features, base_layer.out_features), _dtype_of(base_layer)
        self.lora_dropout = ModuleDict({_NAME: Dropout(config.dropout) if config.dropout else Identity()})
        self.lora_A = ModuleDict({_NAME: Linear(sizes[0], config.r, bias=False, dtype=dtype)})
        self.lora_B = ModuleDict({_NAME: Linear(config.r, sizes[1], bias=False, dtype=dtype)})
        init.zeros_(self.lora_B[_NAME].weight)

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        down, up, base = self.lora_A[_NAME], self.lora_B[_NAME], self.base_layer
        is_other = isinstance(base, QuantizedLinear) or base.weight.dtype is not down.weight.dtype
        own = input.to(down.weight.dtype) if is_other else input
        # scaled where it has r features: the gradient by it is then no further one of all out_features
        low = down(self.lora_dropout[_NAME](own)) * self.config.scaling
        found = base(input)
        return found + (up(low).to(found.dtype) if is_other else up(low))

    def addition(self) -> Tensor:
        """What the adapter adds to the weight, [out_features, in_features]."""
        return self.lora_B[_NAME].weight @ self.lora_A[_NAME].weight * self.config.scaling

    def extra_repr(self) -> str:
        """The rank and the scaling."""
        return f"r={self.config.r}, scaling={self.config.scaling}"


def _without_pefts_names(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Raise TypeError where an option is one of PEFT's, which says what it is called here, or that it is not there."""

    @wraps(function)
    def checked(*args: _P.args, **options: _P.kwargs) -> _T:
        wrong = [f"{name} is {_PEFTS[name]} here" for name in options if name in _PEFTS]
        wrong += [f"there is no {name} here" for name in options if name in _NOT_THERE]
        if wrong:
            raise TypeError(f"lora.{function.__name__}: options of PEFT: {', '.join(wrong)} (at {user_source()})")
        return function(*args, **options)

    return checked


@_without_pefts_names
def apply(
    model: Module, r: int, alpha: float, targets: Iterable[str] | str, *, dropout: float = 0.0, rslora: bool = False,
    exclude: Iterable[str] | str = (), modules_to_save: Iterable[str] = (),
) -> Module:  # fmt: skip
    """Freeze all parameters of the model, and give each Linear that `targets` name an adapter of rank `r` to train.

    A Linear4bit or Linear8bit is one too: its adapter is trained beside codes (Dettmers et al., "QLoRA", 2023).

    `targets` are ends of names, such as ["query", "value"], "all-linear" for every Linear, or another string for a
    regular expression that whole names match; layers that `exclude` names in the same ways get none. "all-linear" means
    the output layer too, which PEFT leaves out of models of transformers: exclude=["lm_head"] does. A layer that stands
    in several places has one adapter in all of them, whichever of its names is given, and none where one is excluded.
    The addition is scaled by alpha / r, with `rslora` by alpha / sqrt(r) (Kalajdzievski, 2023); `dropout` is that of
    its input. Layers are replaced in place, and the model is the result.

    `modules_to_save` are ends of the names of modules, such as ["classifier"], that are trained as a whole, in place,
    and get no adapters; `save` writes them beside these. One that shares weights with others gets its own, as in PEFT,
    of which a warning tells. Other parameters can be unfrozen by `requires_grad_()`, and are not written.

    Raises ValueError where r or dropout is out of its range, no layer is named, one is of another kind, a module to
    save is not there or is kept as codes, or the model has adapters already.

    >>> model = pb.nn.Sequential(pb.nn.Linear(8, 8), pb.nn.ReLU(), pb.nn.Linear(8, 2))
    >>> model = pb.lora.apply(model, r=2, alpha=4, targets=["0"])
    >>> [name for name, p in model.named_parameters() if p.requires_grad]
    ['0.lora_A.default.weight', '0.lora_B.default.weight']
    """
    check_module(model, "apply")
    config = _config(r, alpha, targets, dropout, rslora, exclude, modules_to_save)
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        raise ValueError(f"lora.apply: the model has adapters already (at {user_source()}); merge or unload them first")
    layers = [(parent._modules[own], (parent, own, name)) for parent, own, name in _children(model)]
    left = {layer for layer, (_, _, name) in layers if is_named(name, config.exclude)}
    found = [entry for layer, entry in layers if layer not in left and config.covers(entry[2], layer)]
    if not found:
        less = f" and not by exclude={exclude!r}" if config.exclude else ""
        less += f", nor within modules_to_save={list(config.modules_to_save)}" if config.modules_to_save else ""
        raise ValueError(
            f"lora.apply: no layer is named by targets={targets!r}{less} (at {user_source()}); its Linear layers are "
            f"{[name for parent, own, name in _children(model) if _is_linear(parent._modules[own])]}"
        )
    for parent, own, name in found:
        if not _is_linear(layer := parent._modules[own]):
            raise ValueError(
                f"lora.apply: {name} is a {type(layer).__name__}, and adapters are for Linear (at {user_source()})"
            )
        _check_scaling(config, layer, name)  # type: ignore[arg-type]
    saved = _to_save(model, config)
    model.requires_grad_(False)
    for name, module in saved.items():
        _untie(model, module, name)
        module.requires_grad_()
    named = dict.fromkeys(parent._modules[own] for parent, own, _ in found)  # in the order in which they draw numbers
    made = {layer: LoRALinear(layer, config) for layer in named}  # type: ignore[arg-type]
    for parent, own, layer in [(parent, own, parent._modules[own]) for parent, own, _ in _children(model)]:
        if layer in made:
            setattr(parent, own, made[layer])
    return model


def _untie(model: Module, module: Module, name: str) -> None:
    """Give a module that is trained as a whole parameters of its own in place of those that others read too, as PEFT
    does: an output layer that was tied to an embedding is trained, and the embedding stays as it is.
    """
    own = list(module.modules())
    outside = {id(p) for other in model.modules() if other not in own for p in other._parameters.values()}
    copies: dict[int, Parameter] = {}
    for part in own:
        for key, parameter in part._parameters.items():
            if parameter is not None and id(parameter) in outside:
                copy = copies.setdefault(id(parameter), Parameter(parameter.detach().clone()))
                part.register_parameter(key, copy)
    if copies:
        warnings.warn(
            f"lora.apply: modules_to_save: other modules read weights of {name} too; it gets weights of its own, which "
            "are trained, and the others stay as they are",
            stacklevel=4,
        )


def _to_save(model: Module, config: Config) -> dict[str, Module]:
    """The modules that are trained as a whole, by name; ValueError where one cannot be."""
    found = saved_modules(model, config.modules_to_save)
    for end in config.modules_to_save:
        if not any(is_named(name, (end,)) for _, _, name in _children(model)):
            raise ValueError(f"lora.apply: modules_to_save: no module is named {end!r} (at {user_source()})")
    for name, module in found.items():
        if any(isinstance(part, QuantizedLinear) for part in module.modules()):
            raise ValueError(
                f"lora.apply: modules_to_save: {name} has weights that are kept as codes, and these are not trained "
                f"(at {user_source()}); leave it out of quantize_model(model, skip=[…])"
            )
    return found


def saved_modules(model: Module, named: tuple[str, ...]) -> dict[str, Module]:
    """The modules that are trained as a whole, the outermost of those that are in one another, by names."""
    found: dict[str, Module] = {}
    for _, _, name in _children(model):
        if is_named(name, named) and not any(name.startswith(f"{other}.") for other in found):
            found[name] = model.get_submodule(name)
    return found


def _is_linear(layer: Module | None) -> bool:
    return is_plain(layer) or isinstance(layer, QuantizedLinear)


def _dtype_of(layer: Linear | QuantizedLinear) -> DType:
    """The dtype of a layer's adapter."""
    return float32 if isinstance(layer, QuantizedLinear) else promote_types(layer.weight.dtype, float32)


def _config(
    r: int, alpha: float, targets: Iterable[str] | str, dropout: float, rslora: bool, exclude: Iterable[str] | str,
    modules_to_save: Iterable[str],
) -> Config:  # fmt: skip
    if isinstance(r, bool) or not isinstance(r, Integral) or not 1 <= r < 2**31:
        raise ValueError(f"lora.apply: r must be a whole number of at least 1, got {r!r} (at {user_source()})")
    if not _is_number(dropout) or not 0 <= dropout < 1:
        raise ValueError(f"lora.apply: dropout must be from 0 to below 1, got {dropout!r} (at {user_source()})")
    if not _is_number(alpha) or not _is_finite(alpha):
        raise ValueError(f"lora.apply: alpha must be finite, and a number, got {alpha!r} (at {user_source()})")
    named, excluded = _names("targets", targets), _names("exclude", exclude)
    saved = _names("modules_to_save", modules_to_save)
    if isinstance(saved, str):
        raise ValueError(
            f"lora.apply: modules_to_save takes a list of names, got {saved!r} (at {user_source()}); [{saved!r}] does"
        )
    return Config(int(r), float(alpha), named, float(dropout), bool(rslora), excluded, saved)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        return False


def _names(option: str, given: Iterable[str] | str) -> tuple[str, ...] | str:
    if isinstance(given, str):
        try:
            re.compile(given)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(
                f"lora.apply: {option}={shortened(given)} is no regular expression ({error}); ends of names are given "
                f"in a list (at {user_source()})"
            ) from error
        return given
    named = tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(name, str) for name in named):
        raise ValueError(
            f"lora.apply: {option} must be a string or a list of strings, got {given!r} (at {user_source()})"
        )
    return named


def shortened(text: str) -> str:
    """A text as a message shows it."""
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _check_scaling(config: Config, layer: Linear | QuantizedLinear, name: str) -> None:
    """Raise ValueError where a layer's dtype has no such number as the scaling: zero times infinity is NaN."""
    dtype = _dtype_of(layer)
    if abs(config.scaling) > finfo(dtype).max:
        raise ValueError(
            f"lora.apply: alpha={config.alpha!r} scales by {config.scaling:.6g}, which {name} has not in {dtype.name} "
            f"(at {user_source()})"
        )


def _children(model: Module, prefix: str = "") -> Iterator[tuple[Module, str, str]]:
    """Every module but the outermost: which one holds it, under which name, and its name from the outermost."""
    for own, child in list(model._modules.items()):
        if child is not None:
            yield model, own, prefix + own
            yield from _children(child, f"{prefix}{own}.")


def names_of_layers(model: Module) -> dict[str, Module]:
    """Every layer, once by the name of its first place, as PEFT sees it: one with an adapter as a whole."""
    found: dict[Module, str] = {}

    def visit(module: Module, prefix: str) -> None:
        for own, child in module._modules.items():
            if child is not None and child not in found:
                found[child] = prefix + own
                if not isinstance(child, LoRALinear):
                    visit(child, f"{prefix}{own}.")

    visit(model, "")
    return {name: layer for layer, name in found.items()}


def adapters(model: Module) -> dict[str, LoRALinear]:
    """The layers with adapters, each once, by the name of its first place."""
    found: dict[LoRALinear, str] = {}
    for parent, own, name in _children(model):
        if isinstance(layer := parent._modules[own], LoRALinear):
            found.setdefault(layer, name)
    return {name: layer for layer, name in found.items()}


def merge(model: Module) -> Module:
    """Add each adapter to the weight of its layer, and put the layers back in their places; the model is the result.

    What the model computes stays the same to rounding, without dropout. Its parameters stay frozen. A weight that
    another module reads too, as an embedding that an output layer is tied to, stays as it is there: the layer gets one
    of its own, of which a warning tells. A weight that is kept as codes is decoded, and gets those of the sum: what the
    layer computes then changes by their error, of which a warning tells; it does not where the model went through
    `pb.nn.utils.dequantize_model` first. `unload` takes adapters off without that.

    Raises ValueError, with nothing merged, where the model has no adapters, or a sum is not finite in the dtype of the
    weight, or, of one that is kept as codes, beyond what these stand for.
    """
    _require(model, "merge")
    found = adapters(model)
    with no_grad():
        for name, layer in found.items():
            if fault := _fault_of_sum(layer):
                raise ValueError(
                    f"lora.merge: {name}: the weight with its adapter {fault} (at {user_source()}); unload(model) "
                    "takes the adapters off as they are"
                )
    coded = [name for name, layer in found.items() if isinstance(layer.base_layer, QuantizedLinear)]
    if coded:
        warnings.warn(
            f"lora.merge: the weights of {len(coded)} layers ({coded[0]} …) are kept as codes; the sums with the "
            "adapters are quantized again, which changes what the model computes by the error of codes; after "
            "nn.utils.dequantize_model(model) they are kept in floats",
            stacklevel=2,
        )
    tied = [name for name, layer in found.items() if _is_elsewhere(model, layer) or _is_shared(model, layer.base_layer)]
    if tied:
        warnings.warn(
            f"lora.merge: other modules read the weights of {len(tied)} layers ({tied[0]} …) too; these layers get "
            "weights of their own, with the adapters added",
            stacklevel=2,
        )
    with no_grad():
        for layer in found.values():
            if _is_elsewhere(model, layer):
                layer.base_layer = deepcopy(layer.base_layer)
            elif _is_shared(model, layer.base_layer):
                _part(layer.base_layer)
            _add(layer)
    return unload(model)


def _add(layer: LoRALinear) -> None:
    """Make the addition a part of the weight."""
    base = layer.base_layer
    if isinstance(base, QuantizedLinear):
        base.quantize_(_sum(layer))
    else:
        base.weight.copy_(_sum(layer))


def _sum(layer: LoRALinear) -> Tensor:
    """What the weight of a layer is to be; of one with codes, in floats."""
    base = layer.base_layer
    if isinstance(base, QuantizedLinear):
        return base.dequantize() + layer.addition().float()
    return (base.weight + layer.addition()).to(base.weight.dtype)


def _fault_of_sum(layer: LoRALinear) -> str:
    """Why a layer cannot take its adapter in, or nothing."""
    if isinstance(layer.base_layer, QuantizedLinear):
        return "" if has_codes(_sum(layer)) else NO_CODES
    if is_finite(_sum(layer)):
        return ""
    return f"is not finite in {layer.base_layer.weight.dtype.name} everywhere"


def _held(layer: Module) -> list[Tensor]:
    """The tensors that a layer's weight is made of."""
    own = {**layer._parameters, **layer._buffers}
    return [tensor for name, tensor in own.items() if tensor is not None and name != "bias"]


def _is_shared(model: Module, layer: Module) -> bool:
    """Whether another module of the model holds a part of a layer's weight."""
    own = {id(tensor) for tensor in _held(layer)}
    return any(id(tensor) in own for other in model.modules() if other is not layer for tensor in _held(other))


def _is_elsewhere(model: Module, layer: LoRALinear) -> bool:
    """Whether the layer under an adapter also stands somewhere without it."""
    others = (module for module in model.modules() if module is not layer)
    return any(child is layer.base_layer for module in others for child in module._modules.values())


def _part(layer: Module) -> None:
    """Give a layer a weight of its own."""
    for name, parameter in list(layer._parameters.items()):
        if parameter is not None and name != "bias":
            layer.register_parameter(name, Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad))
    for name, buffer in list(layer._buffers.items()):
        if buffer is not None:
            layer.register_buffer(name, buffer.clone())


def unload(model: Module) -> Module:
    """Take all adapters away, so that the model is what it was; the model is the result. Its parameters stay frozen,
    but for modules that were trained as a whole, which keep what they have learned.
    """
    _require(model, "unload")
    for parent, own, layer in [(parent, own, parent._modules[own]) for parent, own, _ in _children(model)]:
        if isinstance(layer, LoRALinear):
            setattr(parent, own, layer.base_layer)
    return model


def check_module(model: object, name: str) -> None:
    if not isinstance(model, Module):
        raise TypeError(f"lora.{name} takes a module, got {type(model).__name__} (at {user_source()})")


def _require(model: Module, name: str) -> None:
    check_module(model, name)
    if not adapters(model):
        raise ValueError(f"lora.{name}: the model has no adapters inside (at {user_source()})")


__all__ = ["LoRALinear", "apply", "merge", "unload"]
