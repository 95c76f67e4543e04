"""Modules: registration, walking, state and printing, against PyTorch where it has the same."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.errors import StateDictError

nn = pb.nn


def build(library):
    n = library.nn

    class Block(n.Module):
        def __init__(self):
            super().__init__()
            self.norm = n.LayerNorm(6)
            self.up, self.down = n.Linear(6, 8), n.Linear(8, 6, bias=False)
            self.register_buffer("scale", library.ones(1))
            self.register_buffer("hidden", library.ones(2), persistent=False)

        def forward(self, x):
            return x + self.down(n.functional.gelu(self.up(self.norm(x)))) * self.scale

    class Model(n.Module):
        def __init__(self):
            super().__init__()
            self.token = n.Embedding(5, 6)
            self.blocks = n.ModuleList([Block() for _ in range(2)])
            self.tail = n.Sequential(n.Dropout(0.1), n.Tanh(), n.Flatten(), n.LeakyReLU(0.2))
            self.named = n.ModuleDict({"soft": n.Softmax(dim=-1), "gelu": n.GELU()})
            self.head = n.Linear(6, 5, bias=False)
            self.head.weight = self.token.weight

        def forward(self, i):
            x = self.token(i)
            for block in self.blocks:
                x = block(x)
            return self.named["soft"](self.head(x))

    return Model()


def test_walks_name_the_same_as_pytorch() -> None:
    ours, theirs = build(pb), build(torch)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_parameters(remove_duplicate=False)] == [
        n for n, _ in theirs.named_parameters(remove_duplicate=False)
    ]
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    assert [n for n, _ in ours.named_children()] == [n for n, _ in theirs.named_children()]
    assert [n for n, _ in ours.named_buffers()] == [n for n, _ in theirs.named_buffers()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)


def test_a_state_dictionary_of_pytorch_loads_and_computes_the_same() -> None:
    ours, theirs = build(pb), build(torch)
    loaded = ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    assert loaded == ([], [])
    tokens = [[0, 4, 2]]
    y, z = ours(pb.tensor(tokens)), theirs(torch.tensor(tokens))
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-5)
    y[0, 1, 2].backward(), z[0, 1, 2].backward()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-4, atol=1e-7, err_msg=name)


def test_loading_lists_everything_that_is_wrong_and_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {k: v.tolist() for k, v in model.state_dict().items()}
    wrong = {"0.weight": np.zeros((3, 3)), "0.bias": np.zeros(3), "1.weight": np.zeros((1, 3)), "2.weight": np.zeros(4)}
    with pytest.raises(StateDictError) as caught:
        model.load_state_dict(wrong)
    lines = str(caught.value).splitlines()
    assert "  wrong shape: 0.weight: [3, 3] in the dictionary, [3, 2] in the module" in lines
    assert "  missing: 1.bias [1]" in lines
    assert "  unexpected: 2.weight [4]" in lines
    assert {k: v.tolist() for k, v in model.state_dict().items()} == before
    with pytest.raises(StateDictError, match="wrong shape"):
        model.load_state_dict(wrong, strict=False)
    del wrong["0.weight"]
    assert model.load_state_dict(wrong, strict=False) == (["0.weight", "1.bias"], ["2.weight"])


def test_a_state_dictionary_is_the_module_s_own_state_and_a_copy_of_it_is_of_its_moment() -> None:
    layer = nn.Linear(1, 1)
    live = layer.state_dict()
    saved = copy.deepcopy(live)
    value = saved["weight"].item()
    assert not live["weight"].requires_grad
    nn.init.zeros_(layer.weight)
    assert (live["weight"].item(), saved["weight"].item()) == (0.0, value)
    live["bias"].fill_(3)
    assert layer.bias.item() == 3.0
    layer.load_state_dict(saved)
    assert layer.weight.item() == value
    assert layer.weight.requires_grad


def test_attributes() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(AttributeError, match="Linear has no attribute 'wieght'"):
        layer.wieght  # noqa: B018
    with pytest.raises(TypeError, match=r"Linear\.weight is a parameter and takes a Parameter or None, got Tensor"):
        layer.weight = pb.zeros(2, 2)
    layer.bias = None
    assert [n for n, _ in layer.named_parameters()] == ["weight"]
    layer.extra = nn.Parameter(pb.ones(1))
    del layer.weight
    assert [n for n, _ in layer.named_parameters()] == ["extra"]

    class Forgetful(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\)"):
        Forgetful()
    with pytest.raises(KeyError, match="without dots"):
        layer.register_buffer("a.b", pb.ones(1))
    with pytest.raises(NotImplementedError, match="Module must define forward"):
        nn.Module()(1)


def test_buffers() -> None:
    module = nn.Module()
    module.register_buffer("mean", pb.zeros(2))
    module.mean = pb.ones(2)
    assert dict(module.named_buffers())["mean"].tolist() == [1.0, 1.0]
    with pytest.raises(TypeError, match="is a buffer"):
        module.mean = 3
    assert list(module.state_dict()) == ["mean"]


def test_training_and_evaluation_reach_every_part() -> None:
    model = build(pb)
    assert all(m.training for m in model.modules())
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    x = pb.ones(4)
    assert model.tail[0](x) is x


def test_dtypes_and_gradients_of_all() -> None:
    model = nn.Linear(2, 2)
    model(pb.ones(1, 2)).sum().backward()
    model.double()
    assert model.weight.dtype is pb.float64
    assert model.weight.grad.dtype is pb.float64
    model.bfloat16()
    assert model(pb.ones(1, 2, dtype=pb.bfloat16)).dtype is pb.bfloat16
    model.zero_grad()
    assert model.weight.grad is None
    model.requires_grad_(False)
    assert not model.float()(pb.ones(1, 2)).requires_grad


def test_containers() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 3))
    assert isinstance(model[-1], nn.Linear)
    assert len(model[1:]) == 2
    assert list(model[1:]._modules) == list(torch.nn.Sequential(*[torch.nn.ReLU() for _ in range(3)])[1:]._modules)
    model.append(nn.Tanh())
    del model[1]
    assert list(model._modules) == ["0", "1", "2"]
    with pytest.raises(IndexError, match="index 3 is outside the 3 modules"):
        model[3]
    named = nn.Sequential({"a": nn.ReLU(), "b": nn.Tanh()})
    assert named.get_submodule("b") is named[1]
    listed = nn.ModuleList([nn.ReLU()]).extend([nn.Tanh(), nn.GELU()])
    listed.insert(1, nn.Sigmoid())
    assert [type(m).__name__ for m in listed] == ["ReLU", "Sigmoid", "Tanh", "GELU"]
    with pytest.raises(KeyError, match="no module 'c'"):
        nn.ModuleDict({"a": nn.ReLU()})["c"]
    with pytest.raises(AttributeError, match=r"no module '1\.x'"):
        model.get_submodule("1.x")


def test_a_copy_is_independent() -> None:
    model = build(pb)
    twin = copy.deepcopy(model)
    nn.init.zeros_(model.blocks[0].up.weight)
    assert twin.blocks[0].up.weight.abs().sum().item() > 0
    assert twin.head.weight is twin.token.weight


def test_apply_visits_the_parts_first() -> None:
    seen = []
    nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh())).apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["ReLU", "Tanh", "Sequential", "Sequential"]


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "NLLLoss", "MSELoss", "L1Loss", "BCEWithLogitsLoss"])
def test_losses(name: str) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    y = np.array([0, 1, 3]) if name in ("CrossEntropyLoss", "NLLLoss") else np.abs(x[::-1].copy()) / 4
    ours = getattr(pb.nn, name)(reduction="sum")(pb.tensor(x), pb.tensor(y)).item()
    theirs = getattr(torch.nn, name)(reduction="sum")(torch.tensor(x), torch.tensor(y)).item()
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_compiled_step_follows_train_and_eval() -> None:
    dropout = nn.Dropout(0.5)
    run = pb.compile(lambda x: dropout(x))
    x = pb.ones(64)
    assert 0.0 in run(x).tolist()
    dropout.eval()
    assert run(x).tolist() == [1.0] * 64
    dropout.train()
    assert 0.0 in run(x).tolist()


def test_classes_stand_in_the_files_where_pytorchs_do() -> None:
    elsewhere = {"MultiheadAttention", "LinearCrossEntropyOptions"}  # there by their names, see test_names.py
    elsewhere |= {"Linear4bit", "Linear8bit"}  # bitsandbytes', and of its kind
    places = {
        name: (getattr(pb.nn, name).__module__.split(".")[-1], getattr(torch.nn, name).__module__.split(".")[-1])
        for name in pb.nn.__all__
        if isinstance(getattr(pb.nn, name), type) and name not in elsewhere
    }
    assert {name: place for name, place in places.items() if place[0] != place[1]} == {}


@pytest.mark.parametrize(
    ("base", "made"),
    [
        ("batchnorm._BatchNorm", lambda nn: nn.BatchNorm2d(1)),
        ("instancenorm._InstanceNorm", lambda nn: nn.InstanceNorm1d(1)),
        ("batchnorm._NormBase", lambda nn: nn.InstanceNorm1d(1)),
        ("conv._ConvNd", lambda nn: nn.Conv1d(1, 1, 1)),
        ("conv._ConvNd", lambda nn: nn.ConvTranspose3d(1, 1, 1)),
        ("conv._ConvTransposeNd", lambda nn: nn.ConvTranspose3d(1, 1, 1)),
        ("dropout._DropoutNd", lambda nn: nn.Dropout2d()),
        ("dropout.Dropout", lambda nn: nn.Dropout2d()),
        ("dropout.Dropout", lambda nn: nn.AlphaDropout()),
        ("loss._Loss", lambda nn: nn.CrossEntropyLoss()),
        ("loss._WeightedLoss", lambda nn: nn.CrossEntropyLoss()),
        ("loss._WeightedLoss", lambda nn: nn.MSELoss()),
        ("rnn.RNNBase", lambda nn: nn.LSTM(1, 1)),
        ("batchnorm._BatchNorm", lambda nn: nn.LazyBatchNorm1d()),
    ],
)
def test_bases_are_those_that_pytorchs_users_ask_for(base: str, made: Any) -> None:
    file, name = base.split(".")
    told = [isinstance(made(nn), getattr(getattr(nn.modules, file), name)) for nn in (pb.nn, torch.nn)]
    assert told[0] == told[1]


def test_pairs() -> None:
    for name in ("_single", "_pair", "_triple", "_quadruple"):
        ours, theirs = (getattr(nn.modules.utils, name) for nn in (pb.nn, torch.nn))
        assert [ours(x) for x in (2, (1, 2), [3])] == [theirs(x) for x in (2, (1, 2), [3])]


def test_helpers_of_modules_do_what_pytorchs_do() -> None:
    def told(lib: Any) -> list[Any]:
        utils, state = lib.nn.modules.utils, lib.nn.Linear(1, 1).state_dict(prefix="module.")
        state["other"] = lib.zeros(1)
        metadata = getattr(state, "_metadata", None)
        utils.consume_prefix_in_state_dict_if_present(state, "module.")
        clones = lib.nn.modules.transformer._get_clones(lib.nn.Linear(2, 2), 3)
        return [
            utils._reverse_repeat_tuple((1, 2), 2),
            utils._list_with_default([None, 2], [5, 6, 7]),
            sorted(state),
            sorted(metadata),
            type(clones).__name__,
            len({*map(id, clones.parameters())}),
            lib.nn.modules.module._addindent("a\nb", 2),
            lib.nn.modules.transformer._get_activation_fn("relu")(lib.tensor([-1.0])).item(),
        ]

    assert told(pb) == told(torch)
    for nn in (pb.nn, torch.nn):
        with pytest.raises(RuntimeError, match="relu/gelu"):
            nn.modules.transformer._get_activation_fn("tanh")


def test_what_loading_says_is_pytorchs() -> None:
    def told(lib: Any) -> list[str]:
        layer = lib.nn.Linear(1, 1)
        state = layer.state_dict()
        first = layer.load_state_dict(state)
        state["other"] = state.pop("bias")
        return [repr(first), str(first), repr(layer.load_state_dict(state, strict=False))]

    ours, theirs = told(pb), told(torch)
    assert ours[:2] == theirs[:2] == ["<All keys matched successfully>"] * 2
    assert ours[2].removeprefix("_") == theirs[2].removeprefix("_")


def test_names_of_before_warn_as_pytorchs() -> None:
    for nn in (pb.nn, torch.nn):
        with pytest.warns(FutureWarning):
            assert [name for name, _ in nn.Container(a=nn.ReLU()).named_children()] == ["a"]
        with pytest.warns(FutureWarning):
            assert isinstance(nn.NLLLoss2d(), nn.NLLLoss)
        weight = nn.Linear(2, 2).weight
        with pytest.warns(FutureWarning):
            assert nn.init.constant(weight, 3.0) is weight
        with pytest.warns(FutureWarning):
            nn.utils.clip_grad_norm([weight], 1.0)
        assert nn.init._calculate_correct_fan(nn.Linear(3, 2).weight, "fan_out") == 2
        assert (nn.init._no_grad_fill_(weight, 2.0) == 2).all() and (nn.init._no_grad_zero_(weight) == 0).all()
