"""The weights of a model as codes of few bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ...graph.types import DType
from ...ops.primitive import user_source
from ...tensor.grad_modes import no_grad
from ..modules.linear import Linear, is_plain
from ..modules.module import Module
from ..modules.quantized import Linear4bit, Linear8bit, QuantizedLinear, is_finite
from ..parameter import Parameter
from .init import skip_init

#: what stays as it is unless something else is said: the layer that gives the scores of a language model
_SKIPPED = ("lm_head",)


def quantize_model(
    model: Module, quant_type: str = "nf4", *, skip: Iterable[str] | None = None, compute_dtype: DType | None = None,
    compress_statistics: bool = True,
) -> Module:  # fmt: skip
    """Replace each Linear of the model by one whose weight is kept as codes, in place; the model is the result.

    `quant_type` is "nf4" or "fp4" for Linear4bit, with `compress_statistics` for its scales, or "int8" for Linear8bit.
    Left as they are: layers whose names end with one of `skip` (["lm_head"] unless given), and those whose weight
    another module has too, as an output layer that is tied to an embedding. So are classes made of Linear that compute
    otherwise than it does, weights that are pruned, parametrized or still without a shape, and MultiheadAttention,
    which reads the weights of its parts itself. Other parameters, such as those of normalizations and embeddings, stay
    in floats. What is quantized stays fixed; adapters train beside it, see `pb.lora.apply`. They may be there already,
    and stay in floats.

    The layers are quantized one after the other, so that no more than one is there in both forms; where parameters have
    not been drawn yet nothing is computed before it is needed. Raises ValueError where there is no such quant_type, no
    layer is left to be quantized, or a weight is not finite; the layers before that one are quantized then.

    >>> model = pb.nn.Sequential(pb.nn.Linear(64, 64), pb.nn.ReLU(), pb.nn.Linear(64, 2))
    >>> pb.nn.utils.quantize_model(model, skip=["2"])
    Sequential(
      (0): Linear4bit(in_features=64, out_features=64, bias=True, quant_type=nf4)
      (1): ReLU()
      (2): Linear(in_features=64, out_features=2, bias=True)
    )
    """
    make = _maker(quant_type, compute_dtype, compress_statistics)
    if not isinstance(model, Module):
        raise TypeError(f"quantize_model takes a module, got {type(model).__name__} (at {user_source()})")
    if skip is not None and not isinstance(skip, str):
        wrong = [s for s in skip if not isinstance(s, str)] if isinstance(skip, Iterable) else [skip]
        if wrong:
            raise TypeError(f"quantize_model: skip takes a list of names, got {wrong[0]!r} (at {user_source()})")
    if isinstance(skip, str):
        raise ValueError(
            f"quantize_model: skip takes a list of names, got {skip!r} (at {user_source()}); [{skip!r}] does"
        )
    skipped = _SKIPPED if skip is None else tuple(skip)
    found = list(_linears(model))
    names = [name for *_, name in found]
    unknown = [] if skip is None else [s for s in skipped if not any(_ends(name, s) for name in names)]
    chosen = [entry for entry in found if not any(_ends(entry[2], s) for s in skipped) and not _is_tied(model, entry)]
    if unknown or not chosen:
        left = [f"{name} ({type(layer).__name__})" for name, layer in model.named_modules() if _is_left(layer)]
        others = f"; left as they are, being other than that: {left}" if left else ""
        said = f"skip names {unknown}, which are no Linear" if unknown else "no Linear is left to be quantized"
        raise ValueError(f"quantize_model: {said}; the model's Linear layers are {names}{others} (at {user_source()})")
    named = {(parent, own): name for parent, own, name in chosen}

    def coded(layer: Module, parent: Module, own: str) -> Module:
        assert isinstance(layer, Linear)
        try:
            return make(layer)
        except ValueError as error:
            raise ValueError(f"quantize_model: {named[parent, own]}: {error}") from error

    _replace([*named], coded)
    return model


def dequantize_model(model: Module, dtype: DType | None = None) -> Module:
    """Replace each layer whose weight is kept as codes by the Linear with the weight that these stand for, in place;
    the model is the result.

    Weights are in `dtype`, or, unless it is given, in the one that each had before it was quantized, or was brought to
    since with `to`. They stay fixed until `requires_grad_()`; biases are brought to the dtype too.
    Adapters can then be merged without the error of codes: `pb.lora.merge`. The layers are replaced one after the
    other. Raises ValueError where no layer has codes, `dtype` is none of floats, or a weight is not finite in it; the
    layers before that one are replaced then.

    >>> model = pb.nn.Sequential(pb.nn.Linear4bit(64, 64), pb.nn.ReLU())
    >>> pb.nn.utils.dequantize_model(model)
    Sequential(
      (0): Linear(in_features=64, out_features=64, bias=True)
      (1): ReLU()
    )
    """
    if dtype is not None and not (isinstance(dtype, DType) and dtype.is_floating_point):
        raise ValueError(f"dequantize_model: dtype must be a floating point dtype, got {dtype!r} (at {user_source()})")
    found = [
        (parent, own)
        for parent in model.modules()
        for own, child in parent._modules.items()
        if isinstance(child, QuantizedLinear)
    ]
    if not found:
        raise ValueError(f"dequantize_model: the model has no layers with codes inside (at {user_source()})")

    names = {module: name for name, module in model.named_modules()}

    def decoded(layer: Module, parent: Module, own: str) -> Module:
        assert isinstance(layer, QuantizedLinear)
        linear = _decoded(layer, dtype or layer.weight_dtype)
        if not all(is_finite(tensor.detach()) for tensor in linear.parameters()):
            raise ValueError(
                f"dequantize_model: {names[layer]} is not finite everywhere in {linear.weight.dtype.name}; give a "
                f"wider dtype (at {user_source()})"
            )
        return linear

    _replace(found, decoded)
    return model


def _replace(found: list[tuple[Module, str]], make: Callable[[Module, Module, str], Module]) -> None:
    """Put another layer, with its hooks, into the places of each, and let go of it, before the next one is made."""
    places: dict[Module, list[tuple[Module, str]]] = {}
    for parent, own in found:
        layer = parent._modules[own]
        assert layer is not None
        places.setdefault(layer, []).append((parent, own))
    while places:
        layer = next(iter(places))
        made = make(layer, *places[layer][0])
        made._take_hooks(layer)
        for parent, own in places.pop(layer):
            setattr(parent, own, made)


def _decoded(layer: QuantizedLinear, dtype: DType) -> Linear:
    """The Linear with what the codes of a layer stand for."""
    linear: Linear = skip_init(Linear, layer.in_features, layer.out_features, bias=False, dtype=dtype)
    with no_grad():
        linear.weight = Parameter(layer.dequantize(dtype), requires_grad=False)
    linear.weight._buffer()  # the codes would stay for a value that is yet to be computed
    linear.register_parameter("bias", layer._parameters["bias"])
    linear.train(layer.training)
    return linear.to(dtype)


def _maker(quant_type: str, compute_dtype: DType | None, compress_statistics: bool) -> Callable[[Linear], Module]:
    if quant_type == "int8":
        return lambda layer: Linear8bit.from_linear(layer, compute_dtype=compute_dtype)
    if not isinstance(quant_type, str) or quant_type not in ("nf4", "fp4"):
        raise ValueError(
            f"quantize_model: quant_type must be 'nf4', 'fp4' or 'int8', got {quant_type!r} (at {user_source()})"
        )
    return lambda layer: Linear4bit.from_linear(
        layer, compute_dtype=compute_dtype, compress_statistics=compress_statistics, quant_type=quant_type
    )


def _linears(model: Module) -> Iterator[tuple[Module, str, str]]:
    """Every Linear that is no part of an adapter: which module holds it, under which name, and its name from the
    outermost; of one under an adapter, the adapter's.
    """
    adapters, trained = _adapters(model), parts_of_adapters(model)
    for name, module in model.named_modules():
        for own, child in module._modules.items():
            if is_plain(child) and child not in trained:
                yield module, own, name if module in adapters else f"{name}.{own}" if name else own


def _adapters(model: Module) -> list[Module]:
    return [module for module in model.modules() if hasattr(module, "lora_parts")]


def parts_of_adapters(model: Module) -> set[Module]:
    """The modules that are trained in the stead of the layers under them, or, as a whole, beside those."""
    found = _adapters(model)
    ends = {end for one in found for end in getattr(one, "lora_saved", ())}
    saved = [module for name, module in model.named_modules() if any(_ends(name, end) for end in ends)]
    trained = [getattr(one, name) for one in found for name in one.lora_parts]
    return {part for module in [*trained, *saved] for part in module.modules()}


def _is_left(layer: Module) -> bool:
    return isinstance(layer, Linear) and not is_plain(layer)


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith("." + end)


def _is_tied(model: Module, entry: tuple[Module, str, str]) -> bool:
    layer = entry[0]._modules[entry[1]]
    weight = layer._parameters["weight"]  # type: ignore[union-attr]
    return any(m is not layer and any(p is weight for p in m._parameters.values()) for m in model.modules())


__all__ = ["dequantize_model", "parts_of_adapters", "quantize_model"]
