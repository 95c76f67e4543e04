"""Modules that are trained as a whole beside adapters: a new head, embeddings of new words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pullback as pb

nn = pb.nn


class Classifier(nn.Module):
    """A body, and a head with a buffer that is no float."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8))
        self.head = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 3))

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        return self.head(self.body(x))


def adapted(**options: Any) -> nn.Module:
    pb.manual_seed(0)
    return pb.lora.apply(Classifier(), r=2, alpha=4, targets="all-linear", modules_to_save=["head"], **options)


def train(model: nn.Module) -> None:
    optimizer = pb.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    pb.manual_seed(1)
    x, y = pb.randn(16, 6), pb.randint(0, 3, (16,))
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_they_are_trained_and_get_no_adapters() -> None:
    model = adapted()
    assert {name.rpartition(".lora")[0] for name, _ in pb.lora.adapters.adapters(model).items()} == {""}
    trained = [name for name, p in model.named_parameters() if p.requires_grad and "lora" not in name]
    assert trained == ["head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias"]
    before = model.head[1].weight.tolist()
    train(model)
    assert model.head[1].weight.tolist() != before


def test_they_are_written_beside_adapters_and_come_back(tmp_path: Path) -> None:
    model = adapted()
    train(model)
    pb.lora.save(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["head"] and "head.1" not in config["target_modules"]
    names = set(pb.load(tmp_path / "adapter_model.safetensors"))
    assert {f"base_model.model.head.{n}" for n in model.head.state_dict()} <= names
    pb.manual_seed(0)
    other = pb.lora.load(Classifier(), tmp_path)
    own, found = ({name: value.tolist() for name, value in m.state_dict().items()} for m in (model, other))
    assert found == own
    assert other.head[1].weight.requires_grad and other.head[0].num_batches_tracked.item() == 3
    train(other)
    assert pb.lora.load(other, tmp_path).head[1].weight.tolist() == model.head[1].weight.tolist()


def test_merged_models_keep_what_they_have_learned() -> None:
    model, x = adapted(), pb.randn(4, 6)
    train(model)
    model.eval()
    wanted = model(x).detach()
    merged = pb.lora.merge(model)
    pb.testing.assert_close(merged(x), wanted)
    assert merged.head[1].weight.requires_grad


def test_they_stay_in_floats_where_the_rest_is_quantized() -> None:
    model = pb.nn.utils.quantize_model(adapted())
    assert isinstance(model.body[0].base_layer, nn.Linear4bit) and type(model.head[1]) is nn.Linear
    train(model)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.body, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        return self.head(self.body(self.words(x)))


@pytest.mark.parametrize("named", [["head"], ["words"], ["words", "head"]])
def test_what_shares_a_weight_gets_its_own_as_in_peft(named: list[str], tmp_path: Path) -> None:
    pb.manual_seed(0)
    model, x = Tied(), pb.arange(9)
    before = model.words.weight.tolist()
    with pytest.warns(UserWarning, match="it gets weights of its own, which are trained"):
        pb.lora.apply(model, r=2, alpha=4, targets=["body"], modules_to_save=named)
    optimizer = pb.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), x).backward()
        optimizer.step()
    for name in ("words", "head"):
        assert (model.get_submodule(name).weight.tolist() == before) is (name not in named)
    pb.lora.save(model, tmp_path)
    names = {n for n in pb.load(tmp_path / "adapter_model.safetensors") if "lora" not in n}
    assert names == {f"base_model.model.{name}.weight" for name in named}
    pb.manual_seed(0)
    with pytest.warns(UserWarning, match="weights of its own"):
        other = pb.lora.load(Tied(), tmp_path)
    assert other(x).tolist() == model(x).tolist()


def test_a_file_that_does_not_fit_leaves_ties_as_they_are(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="weights of its own"):
        pb.lora.save(pb.lora.apply(Tied(), 2, 4, ["body"], modules_to_save=["head"]), tmp_path)
    without("head.weight")(tmp_path)
    model = Tied()
    with pytest.raises(pb.errors.SnapshotError, match="missing"), pytest.warns(UserWarning, match="weights of its own"):
        pb.lora.load(model, tmp_path)
    assert model.head.weight is model.words.weight and model.head.weight.requires_grad


def refused(change: Callable[[Path], Any], tmp_path: Path, model: nn.Module) -> str:
    pb.lora.save(adapted(), tmp_path)
    change(tmp_path)
    state = {name: value.tolist() for name, value in model.state_dict().items()}
    needed = [p.requires_grad for p in model.parameters()]
    with pytest.raises(pb.errors.SnapshotError) as caught:
        pb.lora.load(model, tmp_path)
    assert {name: value.tolist() for name, value in model.state_dict().items()} == state
    assert [p.requires_grad for p in model.parameters()] == needed
    return str(caught.value)


def with_config(**entries: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        file = path / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))

    return change


def without(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        tensors = pb.load(path / "adapter_model.safetensors")
        del tensors[f"base_model.model.{name}"]
        pb.save(tensors, path / "adapter_model.safetensors")

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_config(modules_to_save="head"), "modules_to_save is 'head'"),
        (with_config(modules_to_save=[1]), "modules_to_save is [1]"),
        (with_config(modules_to_save=["tail"]), "head.0.num_batches_tracked is int64, and no tensor of floats"),
        (with_config(modules_to_save=["head", "tail"]), "no module is named 'tail'"),
        (without("head.1.bias"), "'base_model.model.head.1.bias'] missing"),
    ],
)
def test_files_that_do_not_fit_change_nothing(change: Callable[[Path], Any], told: str, tmp_path: Path) -> None:
    assert told in refused(change, tmp_path, Classifier())


def test_a_model_that_trains_other_modules_takes_none(tmp_path: Path) -> None:
    model = pb.lora.apply(Classifier(), r=2, alpha=4, targets=["body.0", "body.2"])
    assert "beside the model's adapters no modules are trained" in refused(lambda _: None, tmp_path, model)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes a list of names, got 'head'.*; \['head'\] does"):
        pb.lora.apply(Classifier(), 2, 4, ["body.0"], modules_to_save="head")
    with pytest.raises(ValueError, match="no module is named 'tail'"):
        pb.lora.apply(Classifier(), 2, 4, ["body.0"], modules_to_save=["head", "tail"])
    with pytest.raises(ValueError, match=r"head has weights that are kept as codes.*leave it out of quantize_model"):
        pb.lora.apply(pb.nn.utils.quantize_model(Classifier()), 2, 4, ["body.0"], modules_to_save=["head"])
    with pytest.raises(ValueError, match=r"no layer is named .* nor within modules_to_save=\['head'\]"):
        pb.lora.apply(Classifier(), 2, 4, ["head.1"], modules_to_save=["head"])
    pb.lora.apply(Classifier(), 2, 4, ["body.0"], modules_to_save=["head", "head.1"])  # one within another
    with pytest.raises(TypeError, match=r"lora\.apply takes a module, got int"):
        pb.lora.apply(3, 2, 4, ["body.0"])  # type: ignore[arg-type]
