"""Low-rank adapters: what they compute, what is trained, how they are merged, and PEFT's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pullback as pb


class Block(pb.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.out = pb.nn.Linear(6, 6), pb.nn.Linear(6, 6, bias=False), pb.nn.Linear(6, 3)

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        return self.out(self.query(x).tanh() * self.value(x))


def model() -> pb.nn.Module:
    pb.manual_seed(0)
    return pb.nn.Sequential(Block(), pb.nn.ReLU(), pb.nn.Linear(3, 2))


def trained(net: pb.nn.Module, steps: int = 5) -> list[float]:
    optimizer = pb.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.05)
    x, y = pb.tensor(np.linspace(-1, 1, 48, dtype=np.float32).reshape(8, 6)), pb.ones(8, 2)

    @pb.compile
    def step() -> pb.Tensor:
        optimizer.zero_grad()
        loss = pb.nn.functional.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return [step().item() for _ in range(steps)]


def test_adapters_are_drawn_in_the_order_of_their_layers() -> None:
    layers = [pb.nn.Linear(3, 3) for _ in range(12)]
    pb.manual_seed(5)
    alone = [pb.lora.apply(pb.nn.Sequential(layer), 2, 4, ["0"])[0] for layer in layers]
    drawn = [layer.lora_A["default"].weight.tolist() for layer in alone]
    pb.manual_seed(5)
    net = pb.lora.apply(pb.nn.Sequential(*layers), r=2, alpha=4, targets="all-linear")
    assert [layer.lora_A["default"].weight.tolist() for layer in net] == drawn


def test_a_fresh_adapter_changes_nothing_and_only_adapters_are_trained() -> None:
    x = pb.randn(4, 6)
    net = model()
    before, weights = net(x).detach().numpy(), {n: p.detach().numpy().copy() for n, p in net.named_parameters()}
    assert pb.lora.apply(net, r=2, alpha=8, targets=["query", "value"]) is net
    np.testing.assert_array_equal(net(x).detach().numpy(), before)
    losses = trained(net)
    assert losses[-1] < losses[0]
    names = [n for n, p in net.named_parameters() if p.requires_grad]
    assert names == [f"0.{layer}.lora_{m}.default.weight" for layer in ("query", "value") for m in "AB"]
    kept = {n.replace(".base_layer", ""): p.detach().numpy() for n, p in net.named_parameters() if "lora" not in n}
    assert kept.keys() == weights.keys()
    for name, value in kept.items():
        np.testing.assert_array_equal(value, weights[name])


@pytest.mark.parametrize(("rslora", "scaling"), [(False, 8 / 2), (True, 8 / 2**0.5)])
def test_an_adapter_adds_its_product(rslora: bool, scaling: float) -> None:
    layer = pb.nn.Sequential(pb.nn.Linear(5, 3))
    pb.lora.apply(layer, r=2, alpha=8, targets=["0"], rslora=rslora)
    own = dict(layer.named_parameters())
    own["0.lora_B.default.weight"].data = pb.randn(3, 2)
    x = pb.randn(7, 5)
    w = {n: p.detach().numpy().astype(np.float64) for n, p in layer.named_parameters()}
    addition = w["0.lora_B.default.weight"] @ w["0.lora_A.default.weight"] * scaling
    expected = x.numpy() @ (w["0.base_layer.weight"] + addition).T + w["0.base_layer.bias"]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_merged_layers_compute_the_same_and_unloaded_ones_what_they_did_before() -> None:
    x = pb.randn(4, 6)
    net = pb.lora.apply(model(), r=2, alpha=4, targets="all-linear")
    before = model()(x).detach().numpy()
    trained(net)
    after = net(x).detach().numpy()
    assert abs(after - before).max() > 1e-3
    names = [n for n, _ in model().named_parameters()]
    assert [n for n, _ in pb.lora.merge(net).named_parameters()] == names
    np.testing.assert_allclose(net(x).detach().numpy(), after, rtol=1e-5, atol=1e-6)
    other = pb.lora.apply(model(), r=2, alpha=4, targets=["out", "2"])
    trained(other)
    np.testing.assert_array_equal(pb.lora.unload(other)(x).detach().numpy(), before)


class Tied(pb.nn.Module):
    """Places 0 and 2 hold the same layer; `other` has its weight, and `head` the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        pb.manual_seed(0)
        first = pb.nn.Linear(6, 6)
        self.embedding, self.body = pb.nn.Embedding(9, 6), pb.nn.Sequential(first, pb.nn.Tanh(), first)
        self.twice = pb.nn.ModuleList([self.body])
        self.other, self.head = pb.nn.Linear(6, 6), pb.nn.Linear(6, 9, bias=False)
        self.other.weight, self.head.weight = first.weight, self.embedding.weight

    def forward(self, tokens: pb.Tensor) -> pb.Tensor:
        return self.head(self.other(self.twice[0](self.embedding(tokens))))


def test_a_shared_layer_has_one_adapter_and_a_shared_weight_stays_what_others_read(tmp_path: Path) -> None:
    tokens = pb.arange(9)
    before = Tied()(tokens).detach().numpy()
    net = pb.lora.apply(Tied(), r=2, alpha=4, targets=["body.0", "other", "head"])
    assert net.body[0] is net.body[2] and type(net.body[0].base_layer) is pb.nn.Linear
    assert sum("lora" in name for name, _ in net.named_parameters()) == 6
    with pb.no_grad():
        for layer in (net.body[0], net.other, net.head):
            layer.lora_B["default"].weight.copy_(pb.randn(*layer.lora_B["default"].weight.shape))
    after = net(tokens).detach().numpy()
    assert abs(after - before).max() > 1e-2
    pb.lora.save(net, tmp_path)
    again = pb.lora.load(Tied(), tmp_path)
    np.testing.assert_array_equal(again(tokens).detach().numpy(), after)
    with pytest.warns(UserWarning, match=r"3 layers \(body.0 …\)"):
        pb.lora.merge(net)
    np.testing.assert_allclose(net(tokens).detach().numpy(), after, rtol=1e-4, atol=1e-5)
    assert net.body[0] is net.body[2] and net.head.weight is not net.embedding.weight
    assert not any(p.requires_grad for p in net.parameters())
    np.testing.assert_array_equal(pb.lora.unload(again)(tokens).detach().numpy(), before)
    assert again.head.weight is again.embedding.weight and again.other.weight is again.body[0].weight


def test_a_layer_that_also_stands_without_its_adapter_stays_there_as_it_is() -> None:
    layer, x = pb.nn.Linear(6, 6), pb.randn(4, 6)
    net = pb.lora.apply(pb.nn.Sequential(layer, pb.nn.Tanh()), r=2, alpha=4, targets=["0"])
    net.append(layer)
    pb.nn.init.ones_(net[0].lora_B["default"].weight)
    after, weight = net(x).detach().numpy(), layer.weight.tolist()
    with pytest.warns(UserWarning, match=r"1 layers \(0 …\)"):
        pb.lora.merge(net)
    assert net[2] is layer and layer.weight.tolist() == weight
    np.testing.assert_allclose(net(x).detach().numpy(), after, rtol=1e-4, atol=1e-5)


def test_files_are_pefts_and_give_the_same_model_back(tmp_path: Path) -> None:
    net = pb.lora.apply(model(), r=2, alpha=4, targets=["query", "out"], dropout=0.25)
    trained(net)
    pb.lora.save(net, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    wanted = {"peft_type": "LORA", "r": 2, "lora_alpha": 4.0, "target_modules": ["query", "out"]}
    assert wanted.items() <= config.items()
    tensors = pb.load(tmp_path / "adapter" / "adapter_model.safetensors")
    assert set(tensors) == {f"base_model.model.0.{n}.lora_{m}.weight" for n in ("query", "out") for m in "AB"}
    again = pb.lora.load(model(), tmp_path / "adapter")
    x = pb.randn(4, 6)
    np.testing.assert_array_equal(again.eval()(x).detach().numpy(), net.eval()(x).detach().numpy())
    pb.lora.load(again, tmp_path / "adapter")  # into the adapters that are there


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "no configuration of a LoRA"),
        ({"use_dora": True}, "use_dora=True is not supported"),
        ({"rank_pattern": {"query": 4}}, "rank_pattern"),
        ({"r": "2"}, "r is '2'"),
        ({"r": 0}, "at least 1"),
        ({"r": 3}, "lora_A.weight is"),
        ({"target_modules": ["nothing"]}, "no layer is named"),
        ({"target_modules": ["value"]}, "missing"),
        ({"target_modules": 3}, "target_modules is 3"),
        ({"target_modules": "("}, "no regular expression"),
        ({"target_modules": "(" * 5000 + ")" * 5000}, "no regular expression"),
        ({"target_modules": "(0|2){1000000000000}"}, "no regular expression"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' is not"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"use_qalora": True}, "use_qalora"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"lora_bias": True}, "lora_bias"),
        ({"something_of_later": 3}, "something_of_later=3 is not supported"),
        ({"lora_alpha": True}, "lora_alpha is True"),
        ({"lora_alpha": 10**400}, "alpha must be finite"),
        ({"lora_alpha": 1e308}, "has not in float32"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    pb.lora.save(pb.lora.apply(model(), r=2, alpha=4, targets=["query"]), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    net = model()
    names = [(n, p.requires_grad) for n, p in net.named_parameters()]
    with pytest.raises(pb.errors.SnapshotError, match=message):
        pb.lora.load(net, tmp_path)
    assert [(n, p.requires_grad) for n, p in net.named_parameters()] == names


def test_options_that_change_nothing_are_read_over(tmp_path: Path) -> None:
    pb.lora.save(pb.lora.apply(model(), r=2, alpha=4, targets=["query"]), tmp_path)
    path = tmp_path / "adapter_config.json"
    others = {
        "alora_invocation_tokens": None, "loftq_config": {}, "lora_bias": False, "megatron_core": "megatron.core",
        "peft_version": "0.18.0", "qalora_group_size": 16, "init_lora_weights": "gaussian", "revision": "main",
    }  # fmt: skip
    path.write_text(json.dumps({**json.loads(path.read_text()), **others}))
    assert "query.lora_A" in "".join(pb.lora.load(model(), tmp_path).state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {n: t * float("nan") for n, t in tensors.items()}, "not finite"),
        (lambda tensors: {n: t.to(pb.int32) for n, t in tensors.items()}, "is int32"),
        (lambda tensors: {n: t > 0 for n, t in tensors.items()}, "is bool"),
        (lambda tensors: dict.fromkeys(tensors, 3), "is int, and no tensor"),
        (lambda tensors: {n: [t] for n, t in tensors.items()}, "is list"),
        (lambda tensors: list(tensors.values()), "holds a list"),
        (None, "cannot be read"),
    ],
)
def test_tensors_that_are_no_weights_are_refused_and_change_nothing(tmp_path: Path, change: Any, message: str) -> None:
    pb.lora.save(pb.lora.apply(model(), r=2, alpha=4, targets=["query"]), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = pb.load(path)
    path.unlink()
    if change is not None:
        pb.save(change(tensors), path)
    net = model()
    with pytest.raises(pb.errors.SnapshotError, match=f"adapter_model.safetensors: .*{message}"):
        pb.lora.load(net, tmp_path)
    assert all(p.requires_grad and "lora" not in n for n, p in net.named_parameters())


def test_weights_that_peft_writes_beside_adapters_must_be_the_models(tmp_path: Path) -> None:
    pb.lora.save(pb.lora.apply(model(), r=2, alpha=4, targets=["out"]), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    own, adapter, name = model()[0].out, pb.load(path), "base_model.model.0.out.base_layer.weight"
    with pb.no_grad():
        coded = pb.nn.Linear4bit.from_linear(own).dequantize()

    def load(tensors: dict[str, pb.Tensor], kind: str | None = None) -> pb.nn.Module:
        pb.save({**adapter, **tensors}, path)
        net = model() if kind is None else pb.nn.utils.quantize_model(model(), kind)
        before = {n: p.requires_grad for n, p in net.named_parameters()}
        try:
            return pb.lora.load(net, tmp_path)
        except pb.errors.SnapshotError:
            assert {n: p.requires_grad for n, p in net.named_parameters()} == before
            raise

    whole = {name: own.weight.detach(), name.replace("weight", "bias"): own.bias.detach()}
    for kind in (None, "nf4", "int8"):
        assert type(load(whole, kind)[0].out) is pb.lora.LoRALinear
    load({name: own.weight.detach().bfloat16(), "base_model.model.2.weight": model()[2].weight.detach()})
    load({name: coded}, "nf4")
    with pb.no_grad():
        others = (own.weight * 1.1, own.weight[:2], own.weight.double() * (1 + 1e-6))
    for kind, other in ((None, others[0]), (None, others[1]), (None, others[2]), ("nf4", others[0]), ("int8", coded)):
        with pytest.raises(pb.errors.SnapshotError, match=rf"{name} .*another than the model's.*save_embedding_layers"):
            load({name: other}, kind)
    inner = name.replace("base_layer", "lora_A.default")  # which no file of PEFT names so
    with pytest.raises(pb.errors.SnapshotError, match=rf"not those of the model's adapters: .*{inner}.* too many"):
        load({inner: pb.zeros(2, 8)})
    with pytest.raises(pb.errors.SnapshotError, match=rf"{name} is uint8.*save_embedding_layers=False"):
        load({name: own.weight.detach().to(pb.uint8)})


@pytest.mark.parametrize("dtype", [pb.bfloat16, pb.float16, pb.float64])
def test_adapters_are_kept_in_no_less_than_float32(dtype: pb.dtype, tmp_path: Path) -> None:
    """As with PEFT: steps that are small beside an element would not move one of 16 bits."""
    wide = pb.float64 if dtype is pb.float64 else pb.float32
    net = pb.lora.apply(model(), r=2, alpha=4, targets=["query"])
    with pb.no_grad():
        for p in net.parameters():
            if p.requires_grad:
                p.copy_(pb.randn(*p.shape) * 0.1)
    pb.lora.save(net, tmp_path)
    again = pb.lora.load(model().to(dtype), tmp_path)
    trained = {name: p for name, p in again.named_parameters() if p.requires_grad}
    own = dict(net.named_parameters())
    assert trained and all(p.dtype is wide and p.tolist() == own[name].tolist() for name, p in trained.items())
    x = pb.randn(3, 6)
    found = again(x.to(dtype))
    assert found.dtype is dtype
    np.testing.assert_allclose(found.detach().float().numpy(), net(x).detach().numpy(), atol=0.05)
    found.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype is wide for p in trained.values())
    merged = pb.lora.merge(again)
    assert {p.dtype for p in merged.parameters()} == {dtype}
    np.testing.assert_allclose(merged(x.to(dtype)).detach().float().numpy(), net(x).detach().numpy(), atol=0.05)


def test_adapters_of_another_scaling_are_refused(tmp_path: Path) -> None:
    pb.lora.save(pb.lora.apply(model(), r=2, alpha=32, targets=["query"]), tmp_path)
    for options in ({"alpha": 4}, {"alpha": 32, "rslora": True}):
        net = pb.lora.apply(model(), r=2, targets=["query"], **options)
        before = [p.tolist() for p in net.parameters()]
        with pytest.raises(pb.errors.SnapshotError, match="scaled by 16"):
            pb.lora.load(net, tmp_path)
        assert [p.tolist() for p in net.parameters()] == before


def test_an_adapter_that_is_not_finite_is_neither_saved_nor_merged_nor_loaded(tmp_path: Path) -> None:
    for dtype, number in ((pb.float32, float("nan")), (pb.float16, 6e4)):
        net = pb.lora.apply(model().to(dtype), r=2, alpha=4, targets=["query"])
        pb.nn.init.constant_(net[0].query.lora_B["default"].weight, 1.0)
        pb.nn.init.constant_(net[0].query.lora_A["default"].weight, number)
        before = [p.tolist() for n, p in net.named_parameters() if "base" in n]
        with pytest.raises(ValueError, match=rf"lora.merge: 0.query: .* is not finite in {dtype.name}"):
            pb.lora.merge(net)
        assert [p.tolist() for n, p in net.named_parameters() if "base" in n] == before
        assert type(net[0].query) is pb.lora.LoRALinear
        if number != number:
            with pytest.raises(ValueError, match=r"lora.save: .*0.query.lora_A.weight is not finite"):
                pb.lora.save(net, tmp_path / "none")
            assert not (tmp_path / "none").exists()
    # what is finite in the file and not in the dtype of the model
    wide = model().double()
    pb.lora.apply(wide, r=2, alpha=4, targets=["query"])
    pb.nn.init.constant_(wide[0].query.lora_A["default"].weight, 1e300)
    pb.lora.save(wide, tmp_path)
    net = model()
    with pytest.raises(pb.errors.SnapshotError, match=r"lora_A.weight is not finite everywhere in float32"):
        pb.lora.load(net, tmp_path)
    assert all(p.requires_grad and "lora" not in n for n, p in net.named_parameters())


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    pb.lora.save(pb.lora.apply(model(), r=2, alpha=4, targets=["query"]), tmp_path)
    (tmp_path / "adapter_config.json").write_text("[" * 100_000)
    with pytest.raises(pb.errors.SnapshotError, match="cannot be read"):
        pb.lora.load(model(), tmp_path)


def test_wrong_arguments_raise() -> None:
    for options, message in (
        ({"r": 0}, "r must be"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"alpha": float("inf")}, "alpha must be"),
        ({"targets": ["nothing"]}, "its Linear layers are"),
        ({"targets": ["1"]}, "is a ReLU"),
        ({"targets": "*0"}, "no regular expression"),
        ({"targets": [3]}, "list of strings"),
        ({"alpha": "4"}, "alpha must be"),
        ({"r": 2.0}, "r must be"),
    ):
        with pytest.raises(ValueError, match=message):
            pb.lora.apply(model(), **{"r": 2, "alpha": 4, "targets": ["query"], **options})
    net = pb.lora.apply(model(), r=np.int64(2), alpha=np.float32(4), targets=["query"])
    with pytest.raises(ValueError, match="already"):
        pb.lora.apply(net, r=2, alpha=4, targets=["value"])
    with pytest.raises(TypeError, match=r"lora.apply: .*lora_alpha is alpha here, exclude_modules is exclude here"):
        pb.lora.apply(model(), 2, lora_alpha=4, exclude_modules=["out"])
    with pytest.raises(TypeError, match="there is no use_dora here, there is no lora_bias here"):
        pb.lora.apply(model(), 2, 4, ["query"], use_dora=True, lora_bias=True)
    for function in (pb.lora.merge, pb.lora.unload):
        with pytest.raises(ValueError, match="no adapters"):
            function(model())


class Decoder(pb.nn.Module):
    """Two blocks; `norm.out` is no Linear, and `twice` the same layer as `head`."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = pb.nn.ModuleList([Block(), Block()])
        self.norm = pb.nn.ModuleDict({"out": pb.nn.LayerNorm(6)})
        self.head = pb.nn.Linear(6, 9)
        self.twice = self.head


def test_what_all_linear_meant_is_named_in_the_file(tmp_path: Path) -> None:
    def saved(model: pb.nn.Module, name: str) -> Any:
        pb.lora.save(model, tmp_path / name)
        return json.loads((tmp_path / name / "adapter_config.json").read_text())

    net = pb.lora.apply(Decoder(), r=2, alpha=4, targets="all-linear")
    config = saved(net, "all")
    # the shortest ends of names that the LayerNorm has not
    assert config["target_modules"] == ["query", "value", "0.out", "1.out", "head"]
    layers = {name for name, layer in Decoder().named_modules() if isinstance(layer, pb.nn.Linear)}
    named = config["target_modules"]
    seen_by_peft = {n for n, _ in Decoder().named_modules() if n in named or any(n.endswith(f".{t}") for t in named)}
    assert seen_by_peft == layers
    assert type(pb.lora.load(Decoder(), tmp_path / "all").head) is pb.lora.LoRALinear

    net = pb.lora.apply(Decoder(), r=2, alpha=4, targets="all-linear", exclude=["twice"])
    assert type(net.head) is pb.nn.Linear
    config = saved(net, "less")
    assert config["target_modules"] == ["query", "value", "0.out", "1.out"]
    assert config["exclude_modules"] is None
    assert type(pb.lora.load(Decoder(), tmp_path / "less").head) is pb.nn.Linear

    config = saved(pb.lora.apply(Decoder(), 2, 4, r".*out|head", exclude=["norm.out", "0.out"]), "both")
    assert config["target_modules"] == ".*out|head" and config["exclude_modules"] == ["norm.out", "0.out"]
    again = pb.lora.load(Decoder(), tmp_path / "both")
    assert [n for n, m in again.named_modules() if type(m) is pb.lora.LoRALinear] == ["blocks.1.out", "head"]
    # PEFT sees a layer at its first place alone
    assert saved(pb.lora.apply(Decoder(), 2, 4, ["twice"]), "twice")["target_modules"] == ["head"]
    # "0" is also the end of "1.0", which is no Linear
    nested = pb.nn.Sequential(pb.nn.Linear(6, 6), pb.nn.Sequential(pb.nn.ReLU()))
    assert saved(pb.lora.apply(nested, 2, 4, "all-linear"), "nested")["target_modules"] == "0"
    with pytest.raises(ValueError, match=r"and not by exclude=\['twice"):
        pb.lora.apply(Decoder(), 2, 4, ["head"], exclude=["twice"])


def test_what_is_trained_beside_adapters_is_told_not_to_be_saved(tmp_path: Path) -> None:
    net = pb.lora.apply(model(), r=2, alpha=4, targets=["query"])
    net[2].requires_grad_()
    with pytest.warns(UserWarning, match=r"the 2 parameters that are trained beside them \(2.weight …\)"):
        pb.lora.save(net, tmp_path)


def test_adapters_in_a_pickle_are_not_read(tmp_path: Path) -> None:
    model = pb.nn.Sequential(pb.nn.Linear(4, 4))
    pb.lora.save(pb.lora.apply(model, 2, 4, ["0"]), tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(pb.errors.SnapshotError, match=r"only adapter_model.bin, a pickle.*safe_serialization=True"):
        pb.lora.load(model, tmp_path)
