"""Layers whose weight is kept as codes: what they compute, hold, save and load, and adapters beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import pullback as pb
from pullback import nn
from pullback.errors import ShapeError, StateDictError
from pullback.nn.utils import dequantize_model, prune, quantize_model
from pullback.runtime.buffers import live_bytes


def network() -> nn.Module:
    pb.manual_seed(0)
    return nn.Sequential(nn.Linear(96, 128), nn.ReLU(), nn.Linear(128, 96, bias=False), nn.ReLU(), nn.Linear(96, 3))


def training(net: nn.Module) -> Callable[[], pb.Tensor]:
    optimizer = pb.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    x, y = pb.tensor(np.random.default_rng(0).standard_normal((40, 96)).astype(np.float32)), pb.ones(40, 3)

    def step() -> pb.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_a_layer_computes_with_the_decoded_weight(kind: str) -> None:
    pb.manual_seed(0)
    layer = nn.Linear(96, 64)
    coded = quantize_model(nn.Sequential(layer), kind)[0]
    assert coded.bias is layer.bias and [name for name, _ in coded.named_parameters()] == ["bias"]
    weight, bias = coded.dequantize().numpy(), layer.bias.detach().numpy()
    assert abs(weight - layer.weight.detach().numpy()).max() < (0.001 if kind == "int8" else 0.02)
    x = pb.tensor(np.random.default_rng(1).standard_normal((2, 5, 96)).astype(np.float32), requires_grad=True)
    found = coded(x)
    np.testing.assert_allclose(found.detach().numpy(), x.detach().numpy() @ weight.T + bias, rtol=1e-5, atol=1e-5)
    (gradient,) = pb.autograd.grad(found.tanh().sum(), x, create_graph=True)
    slope = 1 - np.tanh(found.detach().numpy()) ** 2
    np.testing.assert_allclose(gradient.detach().numpy(), slope @ weight, rtol=1e-4, atol=1e-5)
    assert pb.autograd.gradcheck(coded, (x.detach().double()[0, :2].requires_grad_(),))
    each = pb.func.vmap(coded)(x.detach())
    np.testing.assert_allclose(each.detach().numpy(), found.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_it_computes_in_the_dtype_that_it_is_told() -> None:
    layer = nn.Linear4bit(64, 64, compute_dtype=pb.bfloat16)
    x = pb.randn(3, 64)
    assert layer(x).dtype is pb.float32 and layer(x.bfloat16()).dtype is pb.bfloat16
    wanted = x @ layer.dequantize().T + layer.bias
    assert (layer(x) - wanted).abs().max().item() < 0.05
    with pb.autocast("cpu", dtype=pb.bfloat16):
        assert nn.Linear4bit(64, 64)(x).dtype is pb.bfloat16
    before = layer.dequantize().tolist()
    assert layer.to(pb.bfloat16).nested_absmax.dtype is pb.float32 and layer.bias.dtype is pb.bfloat16
    assert layer.dequantize().tolist() == before


def test_codes_are_saved_and_loaded_and_floats_are_taken_as_codes(tmp_path: Path) -> None:
    layer, other = (nn.Linear4bit(65, 33) for _ in range(2))
    pb.save(layer.state_dict(), tmp_path / "layer.safetensors")
    other.load_state_dict(pb.load(tmp_path / "layer.safetensors"))
    assert other.dequantize().tolist() == layer.dequantize().tolist()
    linear = nn.Linear(65, 33)
    other.load_state_dict(linear.state_dict())
    assert other.dequantize().tolist() == nn.Linear4bit.from_linear(linear).dequantize().tolist()
    with pytest.raises(StateDictError, match="other codes"):
        nn.Linear4bit(65, 33, quant_type="fp4").load_state_dict(layer.state_dict())
    with pytest.raises(StateDictError, match="wrong shape"):
        layer.load_state_dict(nn.Linear(33, 65).state_dict())
    eight = nn.Linear8bit(65, 33)
    eight.load_state_dict(nn.Linear8bit.from_linear(linear).state_dict())
    assert (eight.dequantize() - linear.weight).abs().max().item() < 1 / 254


@pytest.mark.parametrize("kind", [nn.Linear4bit, nn.Linear8bit])
def test_codes_of_another_shape_are_refused_and_arrays_are_taken_as_tensors(kind: type, tmp_path: Path) -> None:
    layer, other = kind(32, 128, bias=False), nn.Sequential(kind(128, 32, bias=False))
    kept = other[0].dequantize().tolist()
    pb.save({f"0.{name}": value for name, value in layer.state_dict().items()}, tmp_path / "layer.safetensors")
    for strict in (True, False):
        with pytest.raises(StateDictError, match=r"wrong shape: 0\.weight"):
            other.load_state_dict(pb.load(tmp_path / "layer.safetensors"), strict=strict)
    assert other[0].dequantize().tolist() == kept
    again = nn.Sequential(kind(32, 128, bias=False))
    again.load_state_dict(pb.load(tmp_path / "layer.safetensors"))
    assert again[0].dequantize().tolist() == layer.dequantize().tolist()
    theirs, linear = torch.nn.Linear(32, 128, bias=False), nn.Linear(32, 128, bias=False)
    linear.load_state_dict(theirs.state_dict())
    expected = kind.from_linear(linear).dequantize().tolist()
    for given in (theirs.state_dict(), {"weight": linear.weight.detach().numpy()}):
        layer.quantize_(pb.zeros(128, 32))
        layer.load_state_dict(given)
        assert layer.dequantize().tolist() == expected
    arrays = {name: value.numpy() for name, value in layer.state_dict().items()}
    again[0].load_state_dict(arrays)
    assert again[0].dequantize().tolist() == expected
    arrays = {**arrays, "quant_map": np.zeros(16, np.float32)} if kind is nn.Linear4bit else {"weight": np.zeros(3)}
    with pytest.raises(StateDictError, match=r"other codes|wrong shape"):
        again[0].load_state_dict(arrays)


@pytest.mark.parametrize("kind", [nn.Linear4bit, nn.Linear8bit])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), 3.4e38])
def test_numbers_that_codes_cannot_stand_for_are_refused_and_change_nothing(kind: type, number: float) -> None:
    net = pb.lora.apply(nn.Sequential(kind(64, 64), nn.Linear(64, 64)), 2, 4, ["0"])
    layer = net[0].base_layer
    before = {name: value.tolist() for name, value in net.state_dict().items()}
    linear = nn.Linear(64, 64)
    with pb.no_grad():
        linear.weight[3, 5] = number
    broken = {f"0.base_layer.{name}": value for name, value in linear.state_dict().items()}
    with pytest.raises(StateDictError, match=r"no codes: 0\.base_layer\.weight is not finite.*\n.*clamp"):
        net.load_state_dict({**net.state_dict(), **broken})
    with pytest.raises(ValueError, match=r"quantize_: the weight \[64, 64\] is not finite.*clamp"):
        layer.quantize_(linear.weight)
    for name in {"absmax", "nested_absmax", "nested_offset", "row_stats"} & layer._buffers.keys():
        scales = getattr(layer, name)
        if number != 3.4e38 and scales.is_floating_point():
            bad = {f"0.base_layer.{name}": pb.full_like(scales, number, dtype=pb.float64)}
            with pytest.raises(StateDictError, match=rf"  not finite: 0\.base_layer\.{name}, which scales codes"):
                net.load_state_dict({**net.state_dict(), **bad})
    linear.weight.tolist()
    with pytest.raises(ValueError, match=r"quantize_model: 0: .*the weight \[64, 64\] is not finite.*clamp"):
        quantize_model(nn.Sequential(linear), "int8" if kind is nn.Linear8bit else "nf4")
    assert {name: value.tolist() for name, value in net.state_dict().items()} == before
    with pb.no_grad():
        net[0].lora_B["default"].weight.fill_(number)
        net[0].lora_A["default"].weight.fill_(1.0)
    before = layer.dequantize().tolist()
    with pytest.raises(ValueError, match=r"lora\.merge: 0: the weight with its adapter is not finite"):
        pb.lora.merge(net)
    assert type(net[0]) is pb.lora.LoRALinear and layer.dequantize().tolist() == before


@pytest.mark.parametrize("kind", [nn.Linear4bit, nn.Linear8bit])
@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (0, 0)])
def test_layers_without_elements_compute(kind: type, sizes: tuple[int, int]) -> None:
    layer = kind(*sizes)
    assert layer(pb.ones(2, sizes[0])).shape == (2, sizes[1]) and layer.dequantize().shape == sizes[::-1]
    kind(*sizes).load_state_dict(layer.state_dict())


@pytest.mark.parametrize("kind", [nn.Linear4bit, nn.Linear8bit])
def test_great_numbers_have_codes(kind: type) -> None:
    linear = nn.Linear(64, 1000, bias=False)
    with pb.no_grad():
        linear.weight.fill_(3.3e38)
        linear.weight[::2].fill_(0.0)
    found = kind.from_linear(linear).dequantize().numpy()
    assert not found[::2].any() and abs(found[1::2] / 3.3e38 - 1).max() < 0.008
    linear = nn.Linear(64, 2, dtype=pb.float64)
    linear.weight.data = pb.full((2, 64), 1e200, dtype=pb.float64)
    with pytest.raises(ValueError, match="not finite in float32"):
        kind.from_linear(linear)


def test_what_is_replaced_and_what_is_refused() -> None:
    net = quantize_model(network(), skip=["4"])
    assert [type(part).__name__ for part in net] == ["Linear4bit", "ReLU", "Linear4bit", "ReLU", "Linear"]
    assert repr(net[2]) == "Linear4bit(in_features=128, out_features=96, bias=False, quant_type=nf4)"
    with pytest.raises(ValueError, match="no Linear is left"):
        quantize_model(net, skip=["4"])
    with pytest.raises(ValueError, match=r"\['5'\]"):
        quantize_model(network(), skip=["5"])
    with pytest.raises(ValueError, match="quant_type"):
        quantize_model(network(), "nf8")
    tied = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False), nn.Linear(5, 5))
    tied[1].weight = tied[0].weight
    assert type(quantize_model(tied)[1]) is nn.Linear and type(tied[2]) is nn.Linear4bit
    broken = nn.Linear(4, 4)
    broken.weight.data = pb.full((4, 4), float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        nn.Linear4bit.from_linear(broken)
    with pytest.raises(TypeError, match="takes a Linear"):
        nn.Linear8bit.from_linear(nn.ReLU())
    with pytest.raises(ValueError, match="compute_dtype"):
        nn.Linear4bit(4, 4, compute_dtype=pb.int64)
    with pytest.raises(ShapeError, match="quantize_"):
        nn.Linear4bit(4, 4).quantize_(pb.ones(4, 5))


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_adapters_are_trained_beside_codes(kind: str, tmp_path: Path) -> None:
    net = pb.lora.apply(quantize_model(network(), kind, skip=["4"]), 4, 8, "all-linear")
    codes = net[0].base_layer.weight.tolist()
    step = training(net)
    plain = [step().item() for _ in range(3)]
    compiled = pb.compile(step)
    losses = plain + [compiled().item() for _ in range(30)]
    assert losses[-1] < 0.2 * losses[0] and net[0].base_layer.weight.tolist() == codes
    x = pb.randn(7, 96)
    before = net(x).detach().numpy()
    pb.lora.save(net, tmp_path)
    again = pb.lora.load(quantize_model(network(), kind, skip=["4"]), tmp_path)
    np.testing.assert_array_equal(again(x).detach().numpy(), before)
    other = pb.lora.load(quantize_model(network(), kind, skip=["4"], compute_dtype=pb.bfloat16), tmp_path)
    assert pb.lora.merge(dequantize_model(other)) is other and type(other[0]) is nn.Linear
    found = [(p.dtype, p.requires_grad) for p in other.parameters()]
    assert found == [(pb.float32, False)] * 5
    whole = dequantize_model(pb.lora.load(quantize_model(network(), kind, skip=["4"]), tmp_path))
    np.testing.assert_allclose(whole(x).detach().numpy(), before, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pb.lora.merge(whole)(x).detach().numpy(), before, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no layers with codes inside"):
        dequantize_model(whole)
    with pytest.warns(UserWarning, match=r"2 layers.*dequantize_model\(model\)"):
        pb.lora.merge(net)
    assert type(net[0]).__name__ == ("Linear8bit" if kind == "int8" else "Linear4bit")
    assert abs(net(x).detach().numpy() - before).max() < 0.2 * abs(before).max()
    again = pb.lora.unload(again)
    assert again[0].weight.tolist() == codes


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_hooks_stay_where_another_layer_takes_the_place(kind: str) -> None:
    net, called = nn.Sequential(nn.Linear(64, 64)), list[str]()
    handle = net[0].register_forward_hook(lambda module, args, output: called.append(type(module).__name__))
    for replaced in (quantize_model(net, kind), dequantize_model(net)):
        replaced(pb.ones(1, 64))
    handle.remove()
    net(pb.ones(1, 64))
    assert len(called) == 2 and called[1] == "Linear"


def test_weights_are_decoded_only_to_what_they_are_finite_in() -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    with pb.no_grad():
        net[1].weight.mul_(1e7)
    quantize_model(net)
    with pytest.raises(ValueError, match="1 is not finite everywhere in float16; give a wider dtype"):
        dequantize_model(net, pb.float16)
    assert [type(layer).__name__ for layer in net] == ["Linear", "Linear4bit"]
    for wrong in ("float32", pb.int32, np.float32):
        with pytest.raises(ValueError, match="dtype must be a floating point dtype"):
            dequantize_model(net, wrong)  # type: ignore[arg-type]
    assert dequantize_model(net, pb.bfloat16)[1].weight.dtype is pb.bfloat16


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [pb.bfloat16, pb.float16, pb.float32, pb.float64])
def test_what_comes_out_has_the_inputs_dtype(kind: str, bias: bool, dtype: pb.dtype) -> None:
    for compute_dtype in (None, pb.bfloat16):
        net = nn.Sequential(nn.Linear(64, 8, bias=bias))
        quantize_model(net, kind, compute_dtype=compute_dtype)
        x = pb.randn(2, 64)
        found = net(x.to(dtype))
        assert found.dtype is dtype
        np.testing.assert_allclose(found.detach().float().numpy(), net(x).detach().numpy(), atol=0.1)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_model_in_16_bits_is_one_again_when_its_weights_are_decoded(kind: str) -> None:
    net = nn.Sequential(nn.Linear(64, 64, bias=False), nn.LayerNorm(64), nn.Linear(64, 4)).to(pb.bfloat16)
    pb.lora.apply(quantize_model(net, kind), 2, 4, ["0", "2"])
    dequantize_model(net)
    assert [net[place].base_layer.weight.dtype for place in (0, 2)] == [pb.bfloat16] * 2
    assert {p.dtype for p in net.parameters() if p.requires_grad} == {pb.float32}
    assert net(pb.ones(2, 64, dtype=pb.bfloat16)).dtype is pb.bfloat16
    assert pb.lora.merge(net)(pb.ones(2, 64, dtype=pb.bfloat16)).dtype is pb.bfloat16
    alone = quantize_model(nn.Sequential(nn.Linear(64, 64, bias=False)).to(pb.bfloat16), kind)
    assert dequantize_model(alone)[0].weight.dtype is pb.bfloat16
    beside = nn.Sequential(nn.Linear(64, 64).to(pb.bfloat16), nn.LayerNorm(64), nn.Linear(64, 4))
    dequantize_model(quantize_model(beside, kind))
    assert [p.dtype for p in beside.parameters()] == [pb.bfloat16] * 2 + [pb.float32] * 4
    later = quantize_model(nn.Sequential(nn.Linear(64, 64)), kind).to(pb.float16)
    assert {p.dtype for p in dequantize_model(later).parameters()} == {pb.float16}


def test_a_weight_that_is_written_before_it_was_drawn_is_looked_at() -> None:
    def spoil(weight: pb.Tensor, kind: str) -> None:
        if kind == "element":
            weight[0, 0] = float("inf")
        elif kind == "number":
            weight.mul_(float("nan"))
        elif kind == "tensor":
            weight.add_(pb.tensor([float("nan")]))
        elif kind == "product":
            weight.mul_(1e30).mul_(1e30)
        elif kind == "quotient":
            weight.div_(0)
        elif kind == "logarithm":
            weight.log_()
        else:
            weight.uniform_(-3e38, 3.4e38)

    for kind in ("element", "number", "tensor", "product", "quotient", "logarithm", "range"):
        net = nn.Sequential(nn.Linear(64, 64))
        with pb.no_grad():
            spoil(net[0].weight, kind)
        with pytest.raises(ValueError, match="0: Linear4bit: the weight"):
            quantize_model(net)


def test_one_layer_at_a_time_is_there_in_both_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    net, size = nn.Sequential(*[nn.Linear(256, 256, bias=False) for _ in range(4)]), 4 * 256 * 256
    held, adopt = list[int](), nn.Linear4bit._adopt
    for layer in net:
        layer.weight._buffer()

    def counting(self: nn.Linear4bit, layer: nn.Linear) -> None:
        held.append(live_bytes())
        adopt(self, layer)

    monkeypatch.setattr(nn.Linear4bit, "_adopt", counting)
    quantize_model(net)
    del layer
    # before the last one is made two have been let go of
    assert held[-1] - held[0] < -1.5 * size
    before = live_bytes()
    assert type(dequantize_model(net)[3]) is nn.Linear and live_bytes() - before > 3 * size
    assert not any(p.requires_grad for p in net.parameters())


def test_beside_adapters_only_the_layers_under_them_are_quantized() -> None:
    net = pb.lora.apply(nn.Sequential(network(), nn.ModuleDict({"lm_head": nn.Linear(3, 64)})), 4, 8, "all-linear")
    trained = {name: value for name, value in net.named_parameters() if value.requires_grad}
    quantize_model(net, "nf4", skip=["0.4", "lm_head"])
    kinds = [type(layer.base_layer).__name__ for layer in net.modules() if type(layer) is pb.lora.LoRALinear]
    assert kinds == ["Linear4bit", "Linear4bit", "Linear", "Linear"]
    now = {name: value for name, value in net.named_parameters() if value.requires_grad}
    assert now.keys() == trained.keys() and all(now[name] is value for name, value in trained.items())
    step = training(net[0])
    losses = [step().item() for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    plain = pb.lora.unload(net)[0]
    assert [type(plain[place]).__name__ for place in (0, 4)] == ["Linear4bit", "Linear"]


def test_linears_under_other_names_are_quantized_where_they_compute_what_linear_does() -> None:
    class Named(nn.Linear):
        """A Linear that begins otherwise."""

        def __init__(self) -> None:
            super().__init__(64, 64)
            nn.init.orthogonal_(self.weight)

    class Doubled(nn.Linear):
        """Another layer."""

        def forward(self, input: pb.Tensor) -> pb.Tensor:
            return 2 * super().forward(input)

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.named, self.doubled = nn.MultiheadAttention(64, 2), Named(), Doubled(64, 64)
            self.pruned = prune.l1_unstructured(nn.Linear(64, 64), "weight", 0.5)
            self.lazy = nn.LazyLinear(64)

        def forward(self, x: pb.Tensor) -> pb.Tensor:
            return self.lazy(self.pruned(self.doubled(self.named(self.attention(x, x, x)[0]))))

    net, x = Attends(), pb.randn(3, 2, 64)
    quantize_model(net, "int8")
    kinds = [type(getattr(net, name)).__name__ for name in ("named", "doubled", "pruned", "lazy")]
    assert kinds == ["Linear8bit", "Doubled", "Linear", "LazyLinear"]
    assert type(net.attention.out_proj).__name__ == "NonDynamicallyQuantizableLinear"
    assert net(x).shape == (3, 2, 64)
    with pytest.raises(ValueError, match=r"Linear layers are \[\].*left.*out_proj \(NonDynamically"):
        quantize_model(net.attention)
    adapted = pb.lora.apply(nn.Sequential(Named(), Doubled(64, 64)), 2, 4, "all-linear")
    assert [type(part).__name__ for part in adapted] == ["LoRALinear", "Doubled"]
    with pytest.raises(ValueError, match="pruned is a Linear"):
        pb.lora.apply(net, 2, 4, ["pruned"])


@pytest.mark.native("the reference has no arena")
def test_a_budget_is_kept_and_no_weight_in_floats_is_in_the_plan() -> None:
    pb.manual_seed(0)
    parts = [part for _ in range(3) for part in (nn.Linear(512, 512), nn.Tanh())]
    net = pb.lora.apply(quantize_model(nn.Sequential(*parts, nn.Linear(512, 1)), skip=["6"]), 2, 4, ["0", "2", "4"])
    x = pb.randn(64, 512)

    def step(x: pb.Tensor) -> pb.Tensor:
        loss = (net(x) ** 2).mean()
        net.zero_grad()
        loss.backward()
        return loss

    plan = pb.plan(step, x)
    weight = 4 * 512 * 512
    assert all(buffer.nbytes < weight // 4 for buffer in plan.buffers) and plan.peak_bytes < 2.2 * weight
    least = pb.plan(step, x, memory="least")
    assert least.peak_bytes < plan.peak_bytes
    held = pb.compile(step, memory=least.peak_bytes)(x).item()
    np.testing.assert_allclose(held, step(x).item(), rtol=1e-6)
