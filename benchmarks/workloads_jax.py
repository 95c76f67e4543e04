"""The workloads of `workloads` as JAX's users write them: pure functions under `jax.jit` with donated state, optax.

The names of the parameters are those of the PyTorch modules, so that weights can be copied; matrices lie as JAX likes
them, [in, out] and height × width × in × out, and images have their channels last. The data is the same for one seed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from .workloads import GPT

Arrays = dict[str, Any]
#: loss(parameters, buffers, *data) gives the loss and the new buffers
Loss = Callable[..., tuple[Any, Arrays]]
_EMBEDDINGS = ("token.weight", "position.weight")


class Workload:
    """A network with its data: `step()` trains once and gives the loss before it, an array on the device.

    `shapes` are the parameters' and `buffers` those of what a step changes beside them, in PyTorch's layout.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], loss: Loss, data: list[Any], optimizer: Any, seed: int):
        random = np.random.default_rng(seed)
        self.parameters = {name: _convert(name, _initial(name, shape, random)) for name, shape in shapes.items()}
        self.buffers: Arrays = {}
        for name in [name for name in shapes if _is_batch_norm(name, shapes)]:
            stem, width = name.removesuffix(".weight"), shapes[name]
            self.buffers |= {f"{stem}.running_mean": jnp.zeros(width), f"{stem}.running_var": jnp.ones(width)}
        self.data = [jnp.asarray(array) for array in data]
        self.state = optimizer.init(self.parameters)

        @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
        def step(parameters: Arrays, buffers: Arrays, state: Any, *data: Any) -> tuple[Any, ...]:
            (value, buffers), gradients = jax.value_and_grad(loss, has_aux=True)(parameters, buffers, *data)
            updates, state = optimizer.update(gradients, state, parameters)
            return optax.apply_updates(parameters, updates), buffers, state, value

        self._step = step

    def step(self) -> Any:
        """One training step; returns the loss before it."""
        self.parameters, self.buffers, self.state, value = self._step(
            self.parameters, self.buffers, self.state, *self.data
        )
        return value

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Take the weights and buffers of the PyTorch module of the same workload. Raises KeyError where one lacks."""
        self.parameters = {name: _convert(name, state[name]) for name in self.parameters}
        self.buffers = {name: jnp.array(state[name]) for name in self.buffers}


def _is_batch_norm(name: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return name.endswith(".weight") and len(shapes[name]) == 1 and "norm" not in name


def _initial(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Weights uniform in ±1/√(inputs), embeddings normal, scales one, biases zero: near enough to PyTorch's to time."""
    if len(shape) == 1:
        return (np.ones if name.endswith("weight") else np.zeros)(shape, np.float32)
    if name in _EMBEDDINGS:
        return random.standard_normal(shape).astype(np.float32)
    bound = 1 / np.sqrt(np.prod(shape[1:]))
    return random.uniform(-bound, bound, shape).astype(np.float32)


def _convert(name: str, array: np.ndarray) -> Any:
    """From PyTorch's layout to JAX's, always a copy: the step donates it."""
    order = {4: (2, 3, 1, 0), 2: (0, 1) if name in _EMBEDDINGS else (1, 0)}.get(array.ndim, (0,))
    return jnp.array(array.transpose(order))


def _linear(parameters: Arrays, name: str, x: Any, dtype: Any = jnp.float32) -> Any:
    product = x.astype(dtype) @ parameters[f"{name}.weight"].astype(dtype)
    return product + parameters[f"{name}.bias"].astype(dtype)


def _cross_entropy(logits: Any, classes: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), classes).mean()


def _linear_shapes(sizes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (inputs, outputs) in sizes.items():
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    return shapes


def build(name: str, seed: int = 0, bf16: bool = False, **changes: Any) -> Workload:
    """The workload `name` with data made from `seed`; `changes` are of a GPT's sizes
    or resnet20's.

    `bf16` makes a GPT's products in bfloat16, from float32 weights. Raises ValueError where `name` is no workload.
    """
    random = np.random.default_rng(seed)
    if name in GPT:
        return Workload(*_gpt(random, {**GPT[name], **changes}, bf16), seed)
    builders = {"mlp": _mlp, "sigmoid20": _sigmoid20, "ppo": _ppo, "resnet20": _resnet20, "lstm": _lstm}
    if name not in builders:
        raise ValueError(f"there is no workload {name!r} for JAX; there are {', '.join([*builders, *GPT])}")
    return Workload(*builders[name](random, **changes), seed)


def width_network(width: int, batch: int, seed: int = 0) -> Workload:
    """The network of `workloads.width_network`."""
    x = _real(np.random.default_rng(seed), batch, 10)

    def loss(parameters: Arrays, buffers: Arrays, x: Any) -> tuple[Any, Arrays]:
        hidden = x
        for name in "012":
            hidden = _linear(parameters, name, hidden)
        return ((hidden - x) ** 2).mean(), buffers

    shapes = _linear_shapes({"0": (10, width), "1": (width, width), "2": (width, 10)})
    return Workload(shapes, loss, [x], optax.adam(1e-3), seed)


def _real(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def _mlp(random: np.random.Generator) -> tuple[Any, Loss, list[Any], Any]:
    def loss(parameters: Arrays, buffers: Arrays, x: Any, y: Any) -> tuple[Any, Arrays]:
        hidden = jax.nn.relu(_linear(parameters, "0", x))
        return _cross_entropy(_linear(parameters, "2", hidden), y), buffers

    data = [_real(random, 32, 128), random.integers(0, 10, 32)]
    return _linear_shapes({"0": (128, 64), "2": (64, 10)}), loss, data, optax.adam(1e-3)


def _sigmoid20(random: np.random.Generator) -> tuple[Any, Loss, list[Any], Any]:
    names = [f"{layer}.0" for layer in range(20)]

    def loss(parameters: Arrays, buffers: Arrays, x: Any, y: Any) -> tuple[Any, Arrays]:
        for name in names:
            x = jax.nn.sigmoid(_linear(parameters, name, x))
        return ((x - y) ** 2).mean(), buffers

    data = [_real(random, 1, 64), _real(random, 1, 64)]
    return _linear_shapes(dict.fromkeys(names, (64, 64))), loss, data, optax.adam(1e-3)


def _ppo(random: np.random.Generator) -> tuple[Any, Loss, list[Any], Any]:
    sizes = {f"{net}.{i}": size for net in (0, 1) for i, size in ((0, (8, 64)), (2, (64, 64)), (4, (64, 4 - 3 * net)))}

    def network(parameters: Arrays, name: str, x: Any) -> Any:
        for layer in (0, 2):
            x = jnp.tanh(_linear(parameters, f"{name}.{layer}", x))
        return _linear(parameters, f"{name}.4", x)

    def loss(parameters: Arrays, buffers: Arrays, observed: Any, taken: Any, old: Any, advantage: Any, returned: Any):  # type: ignore[no-untyped-def]
        logp = jax.nn.log_softmax(network(parameters, "0", observed), -1)
        ratio = jnp.exp(jnp.take_along_axis(logp, taken, 1)[:, 0] - old)
        policy = -jnp.minimum(ratio * advantage, ratio.clip(0.8, 1.2) * advantage).mean()
        value = ((network(parameters, "1", observed)[:, 0] - returned) ** 2).mean()
        return policy + 0.5 * value + 0.01 * (jnp.exp(logp) * logp).sum(-1).mean(), buffers

    data = [_real(random, 64, 8), random.integers(0, 4, (64, 1)), _real(random, 64) - 1]
    data += [_real(random, 64), _real(random, 64)]
    return _linear_shapes(sizes), loss, data, optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-4))


def _gpt(random: np.random.Generator, sizes: Mapping[str, int], bf16: bool) -> tuple[Any, Loss, list[Any], Any]:
    vocabulary, context, width, heads = (sizes[key] for key in ("vocabulary", "context", "width", "heads"))
    shapes: dict[str, tuple[int, ...]] = {"token.weight": (vocabulary, width), "position.weight": (context, width)}
    for layer in range(sizes["layers"]):
        linears = {
            "qkv": (width, 3 * width),
            "out": (width, width),
            "up": (width, 4 * width),
            "down": (4 * width, width),
        }
        shapes |= _linear_shapes({f"blocks.{layer}.{name}": size for name, size in linears.items()})
        shapes |= {f"blocks.{layer}.norm{i}.{part}": (width,) for i in (1, 2) for part in ("weight", "bias")}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    dtype = jnp.bfloat16 if bf16 else jnp.float32
    earlier = np.tril(np.ones((context, context), bool))

    def block(parameters: Arrays, stem: str, x: Any) -> Any:
        split = jnp.split(_linear(parameters, f"{stem}.qkv", _layer_norm(parameters, f"{stem}.norm1", x), dtype), 3, -1)
        q, k, v = (part.reshape(*x.shape[:2], heads, width // heads).swapaxes(1, 2) for part in split)
        scores = (q @ k.swapaxes(-1, -2)).astype(jnp.float32) * (width // heads) ** -0.5
        attended = jax.nn.softmax(jnp.where(earlier, scores, -jnp.inf), -1).astype(dtype) @ v
        x = x + _linear(parameters, f"{stem}.out", attended.swapaxes(1, 2).reshape(x.shape), dtype)
        hidden = _linear(parameters, f"{stem}.up", _layer_norm(parameters, f"{stem}.norm2", x), dtype)
        return x + _linear(parameters, f"{stem}.down", jax.nn.gelu(hidden, approximate=False), dtype)

    def loss(parameters: Arrays, buffers: Arrays, x: Any, y: Any) -> tuple[Any, Arrays]:
        hidden = parameters["token.weight"][x] + parameters["position.weight"]
        for layer in range(sizes["layers"]):
            hidden = block(parameters, f"blocks.{layer}", hidden)
        last = _layer_norm(parameters, "norm", hidden)
        return _cross_entropy(last.astype(dtype) @ parameters["token.weight"].T.astype(dtype), y), buffers

    data = [random.integers(0, vocabulary, (sizes["batch"], context)) for _ in range(2)]
    return shapes, loss, data, optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4, weight_decay=0.01))


def _layer_norm(parameters: Arrays, name: str, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]


def _resnet20(
    random: np.random.Generator, blocks: int = 3, batch: int = 64, size: int = 32
) -> tuple[Any, Loss, list[Any], Any]:
    sizes = [(16, 16, 1)] * blocks  # inputs, outputs and stride
    for inputs, outputs in ((16, 32), (32, 64)):
        sizes += [(inputs, outputs, 2)] + [(outputs, outputs, 1)] * (blocks - 1)
    head = str(len(sizes) + 5)  # behind the pooling and the flattening
    shapes: dict[str, tuple[int, ...]] = {"0.weight": (16, 3, 3, 3), "1.weight": (16,), "1.bias": (16,)}
    for place, (inputs, outputs, stride) in enumerate(sizes, 3):
        convolutions = {"conv1": (outputs, inputs, 3, 3), "conv2": (outputs, outputs, 3, 3)}
        if stride != 1:
            convolutions["skip.0"] = (outputs, inputs, 1, 1)
        for name, shape in convolutions.items():
            norm = {"conv1": "bn1", "conv2": "bn2", "skip.0": "skip.1"}[name]
            shapes |= {f"{place}.{name}.weight": shape}
            shapes |= {f"{place}.{norm}.weight": (outputs,), f"{place}.{norm}.bias": (outputs,)}
    shapes |= _linear_shapes({head: (64, 10)})

    def loss(parameters: Arrays, buffers: Arrays, x: Any, y: Any) -> tuple[Any, Arrays]:
        after = dict(buffers)

        def layer(x: Any, convolution: str, norm: str, stride: int = 1) -> Any:
            return _batch_norm(parameters, after, norm, _convolution(parameters, convolution, x, stride))

        x = jax.nn.relu(layer(x, "0", "1"))
        for place, (_, _, stride) in enumerate(sizes, 3):
            hidden = jax.nn.relu(layer(x, f"{place}.conv1", f"{place}.bn1", stride))
            skipped = x if stride == 1 else layer(x, f"{place}.skip.0", f"{place}.skip.1", stride)
            x = jax.nn.relu(layer(hidden, f"{place}.conv2", f"{place}.bn2") + skipped)
        return _cross_entropy(_linear(parameters, head, x.mean((1, 2))), y), after

    data = [_real(random, batch, 3, size, size).transpose(0, 2, 3, 1), random.integers(0, 10, batch)]
    return shapes, loss, data, optax.sgd(0.1, momentum=0.9)


def _convolution(parameters: Arrays, name: str, x: Any, stride: int) -> Any:
    weight = parameters[f"{name}.weight"]
    padding = ((weight.shape[0] // 2,) * 2, (weight.shape[1] // 2,) * 2)
    return lax.conv_general_dilated(
        x, weight, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )  # fmt: skip


def _batch_norm(parameters: Arrays, buffers: Arrays, name: str, x: Any) -> Any:
    """Batch normalization; moves the running statistics in `buffers`."""
    mean, variance, count = x.mean((0, 1, 2)), x.var((0, 1, 2)), x.size // x.shape[-1]
    for part, found in (("mean", mean), ("var", variance * count / (count - 1))):
        key = f"{name}.running_{part}"
        buffers[key] = 0.9 * buffers[key] + 0.1 * lax.stop_gradient(found)
    scaled = (x - mean) * lax.rsqrt(variance + 1e-5)
    return scaled * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]


def _lstm(random: np.random.Generator) -> tuple[Any, Loss, list[Any], Any]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, inputs in enumerate((32, 128)):
        shapes |= {f"rnn.weight_ih_l{layer}": (512, inputs), f"rnn.weight_hh_l{layer}": (512, 128)}
        shapes |= {f"rnn.bias_ih_l{layer}": (512,), f"rnn.bias_hh_l{layer}": (512,)}
    shapes |= _linear_shapes({"head": (128, 1)})

    def loss(parameters: Arrays, buffers: Arrays, x: Any, y: Any) -> tuple[Any, Arrays]:
        x = x.swapaxes(0, 1)  # the steps first, as lax.scan takes them
        for layer in (0, 1):
            x = _lstm_layer(parameters, layer, x)
        return ((_linear(parameters, "head", x[-1]) - y) ** 2).mean(), buffers

    return shapes, loss, [_real(random, 32, 50, 32), _real(random, 32, 1)], optax.adam(1e-3)


def _lstm_layer(parameters: Arrays, layer: int, x: Any) -> Any:
    """One layer over x [steps, batch, inputs]; the products with the inputs are made for all steps at once."""
    recurrent = parameters[f"rnn.weight_hh_l{layer}"]
    bias = parameters[f"rnn.bias_ih_l{layer}"] + parameters[f"rnn.bias_hh_l{layer}"]
    start = jnp.zeros((x.shape[1], recurrent.shape[0]), x.dtype)

    def cell(carry: tuple[Any, Any], projected: Any) -> tuple[tuple[Any, Any], Any]:
        hidden, memory = carry
        into, forget, candidate, out = jnp.split(projected + hidden @ recurrent, 4, -1)
        memory = jax.nn.sigmoid(forget) * memory + jax.nn.sigmoid(into) * jnp.tanh(candidate)
        hidden = jax.nn.sigmoid(out) * jnp.tanh(memory)
        return (hidden, memory), hidden

    return lax.scan(cell, (start, start), x @ parameters[f"rnn.weight_ih_l{layer}"] + bias)[1]
