"""Adapters in the two files of PEFT: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import SnapshotError
from ..nn import Module
from ..nn.modules.quantized import QuantizedLinear, is_finite
from ..nn.utils.quantization import parts_of_adapters
from ..ops.primitive import user_source
from ..snapshots import load as load_tensors
from ..snapshots import save as save_tensors
from ..tensor import Tensor
from ..tensor.grad_modes import no_grad
from .adapters import (
    ALL_LINEAR,
    Config,
    LoRALinear,
    adapters,
    apply,
    check_module,
    is_named,
    is_within,
    names_of_layers,
    saved_modules,
    unload,
)

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
#: what PEFT wrote in place of the latter before
_PICKLED = "adapter_model.bin"
#: what PEFT puts before the name of a layer in its own model
_PREFIX = "base_model.model."
#: of a configuration: what is written, and is only right here with this value or none
_ONLY = {"bias": "none", "fan_in_fan_out": False, "use_dora": False, "rank_pattern": {},
         "alpha_pattern": {}, "layers_to_transform": None, "layers_pattern": None}  # fmt: skip
#: what does not change what trained adapters compute: names, notes, and options of what is refused unless it is off
_NOTES = ("peft_type", "task_type", "base_model_name_or_path", "inference_mode", "auto_mapping", "revision",
          "peft_version", "megatron_core", "qalora_group_size")  # fmt: skip
_READ = ("r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "use_rslora",
         "modules_to_save")  # fmt: skip
#: what of it may be left out
_DEFAULTS = {"lora_dropout": 0.0, "use_rslora": False, "lora_alpha": 8, "exclude_modules": None,
             "modules_to_save": None}  # fmt: skip
#: ways to begin adapters that leave the weights beside them as they are; others, as PiSSA and OLoRA, change these
_BEGINNINGS = (True, False, None, "gaussian", "orthogonal")
_LONGEST = 1 << 20
#: how PEFT is kept from writing weights of the model
_LEFT_OUT = "leave it out with PEFT's save_pretrained(…, save_embedding_layers=False)"


def save(model: Module, directory: str | os.PathLike[str]) -> None:
    """Write the model's adapters to a directory, which is made where it is not there, as PEFT's `save_pretrained` does.

    For "all-linear" the file names the layers: what that means is another thing with PEFT. Modules to save stand beside
    the adapters. Other parameters that are trained are not written, of which a warning tells.

    Raises ValueError where the model has none or one is not finite everywhere, SnapshotError where a file cannot be
    written.
    """
    check_module(model, "save")
    found = adapters(model)
    if not found:
        raise ValueError(f"lora.save: the model has no adapters inside (at {user_source()})")
    config = next(iter(found.values())).config
    tensors = {**_tensors(model), **_saved(model, config.modules_to_save)}
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise ValueError(f"lora.save: {name} is not finite everywhere, and is not saved (at {user_source()})")
    kept = [*found.values(), *saved_modules(model, config.modules_to_save).values()]
    own = {parameter for module in kept for parameter in module.parameters()}
    if others := [n for n, p in model.named_parameters() if p.requires_grad and p not in own]:
        warnings.warn(
            f"lora.save writes adapters and modules_to_save, and not the {len(others)} parameters that are trained "
            f"beside them ({others[0]} …); save these from state_dict()",
            stacklevel=2,
        )
    written = {
        **_ONLY, "peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True,
        "init_lora_weights": True, "r": config.r, "lora_alpha": config.alpha, "lora_dropout": config.dropout,
        "target_modules": _listed(targets := _targets(model, config)),
        "exclude_modules": (_listed(config.exclude) or None) if targets is config.targets else None,
        "use_rslora": config.rslora, "modules_to_save": list(config.modules_to_save) or None,
    }  # fmt: skip
    path = Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        save_tensors(tensors, path / TENSORS)
        (path / CONFIG).write_text(json.dumps(dict(sorted(written.items())), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SnapshotError(path, f"it cannot be written ({error}) (at {user_source()})") from error


def _listed(names: tuple[str, ...] | str) -> list[str] | str:
    return names if isinstance(names, str) else list(names)


def _targets(model: Module, config: Config) -> tuple[str, ...] | str:
    """What names the layers with adapters, of all that PEFT sees: as they were named, where that does, or the shortest
    ends of names that no other layer has; where there are no such, a regular expression.
    """
    layers = names_of_layers(model)
    found = {name for name, layer in layers.items() if isinstance(layer, LoRALinear)}
    if config.targets != ALL_LINEAR and found == {name for name, layer in layers.items() if config.covers(name, layer)}:
        return config.targets
    others = layers.keys() - found
    ends: dict[str, None] = {}
    for name in layers:
        if name not in found or is_named(name, tuple(ends)):
            continue
        parts = name.split(".")
        possible = (".".join(parts[start:]) for start in reversed(range(len(parts))))
        end = next((end for end in possible if not any(is_named(other, (end,)) for other in others)), None)
        if end is None:  # the name itself is how that of a deeper layer ends
            return "|".join(re.escape(name) for name in layers if name in found)
        ends[end] = None
    return tuple(ends)


def load(model: Module, directory: str | os.PathLike[str]) -> Module:
    """Give the model the adapters of a directory that `save` or PEFT wrote; the model is the result.

    A model without adapters gets them as by `apply`; one that has them keeps the layers and takes the values, and so do
    modules to save, which have to be the model's own then. Weights
    that PEFT writes beside them (those of "lm_head" where it has an adapter) have to be the model's own, to the
    narrower of the two dtypes, or to have the codes that it has. Raises SnapshotError, with the model unchanged, where
    a file is not there, is damaged, has an option that is not there (DoRA, ranks by layer, beginnings that change the
    weights …), or does not fit the model, its weights, or the scaling of its adapters.
    """
    check_module(model, "load")
    path = Path(directory)
    config = _read(path / CONFIG)
    saved = tuple(config["modules_to_save"] or ())
    tensors = _read_tensors(path / TENSORS, saved)
    had = bool(adapters(model))
    trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    held = [(module, dict(module._parameters)) for module in model.modules()]
    try:
        if not had:
            apply(
                model, config["r"], config["lora_alpha"], config["target_modules"],
                dropout=config["lora_dropout"], rslora=config["use_rslora"], exclude=config["exclude_modules"] or (),
                modules_to_save=saved,
            )  # fmt: skip
        _check_scaling(model, config)
        _check_saved(model, saved)
    except (ValueError, OverflowError) as error:
        raise SnapshotError(path / CONFIG, f"{error}") from error
    own = {**_tensors(model), **_saved(model, saved)}
    beside = _beside(model)
    fault = _misfit(own, {name: tensor for name, tensor in tensors.items() if name not in beside})
    fault = fault or _fault_beside(beside, tensors)
    if fault:
        if not had:
            unload(model)
            for module, parameters in held:  # what was tied is tied again
                for name, parameter in parameters.items():
                    if module._parameters[name] is not parameter:
                        module.register_parameter(name, parameter)
            for parameter, needed in trained.items():
                parameter.requires_grad_(needed)
        raise SnapshotError(path / TENSORS, f"{fault} (at {user_source()})")
    with no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    return model


def _check_scaling(model: Module, config: dict[str, Any]) -> None:
    """Raise ValueError where the file's adapters are scaled otherwise than the model's, which programs may have
    read.
    """
    for name, layer in adapters(model).items():
        own = layer.config
        asked = replace(own, r=config["r"], alpha=float(config["lora_alpha"]), rslora=config["use_rslora"])
        if own.scaling != asked.scaling:
            raise ValueError(
                f"lora_alpha={config['lora_alpha']!r}, use_rslora={asked.rslora}: its additions are scaled by "
                f"{asked.scaling:.6g}, that of {name} in the model by {own.scaling:.6g}; unload the model's adapters "
                f"first (at {user_source()})"
            )


def _check_saved(model: Module, named: tuple[str, ...]) -> None:
    """Raise ValueError where the file trains other modules beside its adapters than the model does."""
    config = next(iter(adapters(model).values())).config
    given, own = (list(saved_modules(model, names)) for names in (named, config.modules_to_save))
    if given != own:
        raise ValueError(
            f"modules_to_save={list(named)}: beside the model's adapters {own or 'no modules'} are trained; unload "
            f"these first (at {user_source()})"
        )


def _saved(model: Module, named: tuple[str, ...]) -> dict[str, Tensor]:
    """What the modules that are trained as a whole hold, under PEFT's names."""
    return {
        f"{_PREFIX}{name}.{own}": tensor
        for name, module in saved_modules(model, named).items()
        for own, tensor in module.state_dict(keep_vars=True).items()
    }


def _tensors(model: Module) -> dict[str, Tensor]:
    """The parameters of all adapters under PEFT's names."""
    return {
        f"{_PREFIX}{name}.{part}.weight": parameter
        for name, layer in adapters(model).items()
        for part in ("lora_A", "lora_B")
        for parameter in getattr(layer, part).parameters()
    }


def _read_tensors(path: Path, saved: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors of a file, checked: floats that are finite, or, of modules that are `saved`, what else they hold."""
    if not path.exists() and (path.parent / _PICKLED).exists():
        raise SnapshotError(
            path, f"there is no such file, only {_PICKLED}, a pickle, which could run anything (at {user_source()}); "
            "write it anew with PEFT's save_pretrained(…, safe_serialization=True)",
        )  # fmt: skip
    try:
        found = load_tensors(path)
    except OSError as error:
        raise SnapshotError(path, f"it cannot be read ({error}) (at {user_source()})") from error
    if not isinstance(found, dict):
        raise SnapshotError(path, f"it holds a {type(found).__name__}, and no tensors by name (at {user_source()})")
    for name, tensor in found.items():
        is_saved = isinstance(tensor, Tensor) and is_within(name.removeprefix(_PREFIX), saved)
        if not isinstance(tensor, Tensor) or not (tensor.dtype.is_floating_point or is_saved):
            kind = tensor.dtype.name if isinstance(tensor, Tensor) else type(tensor).__name__
            remedy = f"; {_LEFT_OUT}" if ".base_layer." in name else ""
            raise SnapshotError(path, f"{name} is {kind}, and no tensor of floats{remedy} (at {user_source()})")
        if not is_finite(tensor):
            raise SnapshotError(path, f"{name} is not finite everywhere (at {user_source()})")
    return found


def _misfit(own: dict[str, Tensor], given: dict[str, Tensor]) -> str:
    if own.keys() != given.keys():
        missing, others = sorted(own.keys() - given.keys())[:3], sorted(given.keys() - own.keys())[:3]
        return f"its tensors are not those of the model's adapters: {missing} missing, {others} too many"
    for name, tensor in own.items():
        if given[name].shape != tensor.shape:
            return f"{name} is {list(given[name].shape)}, in the model {list(tensor.shape)}"
        if given[name].dtype.is_floating_point != tensor.dtype.is_floating_point:
            return f"{name} is {given[name].dtype.name}, in the model {tensor.dtype.name}"
        if not is_finite(given[name].to(tensor.dtype)):
            return f"{name} is not finite everywhere in {tensor.dtype.name}, the dtype in the model"
    return ""


def _beside(model: Module) -> dict[str, tuple[Module, str]]:
    """What of the model's own weights and biases PEFT may write beside adapters: by its name, whose and what it is."""
    parts = parts_of_adapters(model)
    return {
        f"{_PREFIX}{name}.{own}": (module, own)
        for name, module in model.named_modules(remove_duplicate=False)
        for own in ("weight", "bias")
        if module not in parts
        if module._parameters.get(own) is not None or module._buffers.get(own) is not None
    }


def _fault_beside(beside: dict[str, tuple[Module, str]], given: dict[str, Tensor]) -> str:
    """Which weight of the file is another than the model's, or nothing."""
    for name in sorted(given.keys() & beside.keys()):
        if not _is_own(*beside[name], given[name]):
            return (
                f"{name} is written beside the adapters, and is another than the model's: load it into the model "
                f"first, or {_LEFT_OUT}"
            )
    return ""


def _is_own(module: Module, name: str, given: Tensor) -> bool:
    """Whether a weight in floats is what a module has: in the narrower dtype, or as codes."""
    if isinstance(module, QuantizedLinear) and name == "weight":
        return module.has_codes_of(given)
    own = getattr(module, name).detach()
    if own.shape != given.shape:
        return False
    narrow = min(own.dtype, given.dtype, key=lambda dtype: dtype.itemsize)
    return bool((own.to(narrow) == given.to(narrow)).all())


def _read(path: Path) -> dict[str, Any]:
    """PEFT's configuration, checked: whatever it asks for that is not there is refused."""
    try:
        if not path.is_file():
            raise FileNotFoundError("there is no such file")
        with path.open("rb") as file:
            text = file.read(_LONGEST + 1)
        found = json.loads(text) if len(text) <= _LONGEST else None
    except (OSError, ValueError, RecursionError) as error:
        raise SnapshotError(path, f"it cannot be read ({error}) (at {user_source()})") from error
    if not isinstance(found, dict) or found.get("peft_type") != "LORA":
        raise SnapshotError(path, f"it is no configuration of a LoRA adapter (at {user_source()})")
    for name, value in found.items():
        if not _is_neutral(name, value):
            raise SnapshotError(path, f"{name}={value!r} is not supported (at {user_source()})")
    config = {**_DEFAULTS, **found}
    kinds = {"r": int, "lora_alpha": int | float, "lora_dropout": int | float, "use_rslora": bool}
    for name, kind in kinds.items():
        value = config.get(name)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise SnapshotError(path, f"{name} is {value!r} (at {user_source()})")
    for name in ("target_modules", "exclude_modules"):
        if not _are_names(value := config.get(name)) and (value is not None or name == "target_modules"):
            raise SnapshotError(path, f"{name} is {value!r} (at {user_source()})")
    value = config["modules_to_save"]
    if value is not None and (isinstance(value, str) or not _are_names(value)):
        raise SnapshotError(path, f"modules_to_save is {value!r} (at {user_source()})")
    return config


def _are_names(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def _is_neutral(name: str, value: Any) -> bool:
    """Whether an entry of a configuration leaves what is computed as it is, or is one that is read here."""
    if name in _NOTES or name in _READ:
        return True
    if name == "init_lora_weights":
        return any(value is known or value == known for known in _BEGINNINGS)
    return value in (None, False, {}, []) or (name in _ONLY and value == _ONLY[name])


__all__ = ["load", "save"]
