"""Containers of modules and parameters do to their contents what PyTorch's do: names, order, printed form, training."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb

nn = pb.nn


def layers(library: Any, count: int) -> list[Any]:
    """Layers that differ by their sizes."""
    return [library.nn.Linear(number + 1, 2) for number in range(count)]


def insert_at_the_ends(library: Any) -> Any:
    model = library.nn.Sequential(*layers(library, 2))
    assert model.insert(0, library.nn.ReLU()) is model
    return model.insert(-1, library.nn.Tanh()).insert(4, library.nn.GELU())


def join_and_repeat(library: Any) -> Any:
    n = library.nn
    one = n.Sequential(n.Linear(2, 2))
    model = (one + n.Sequential(n.ReLU())) * 2
    model += n.Sequential(n.Tanh())
    model *= 2
    return 2 * model


def take_out(library: Any) -> Any:
    n = library.nn
    model = n.Sequential(OrderedDict(zip("abcdef", layers(library, 6), strict=True)))
    part, last = model[1:4], model.pop(-1)
    del model[::2]
    model[0] = n.Sequential(part, last)
    model.extend([model.pop(1), n.ReLU()])
    return model.append(n.ModuleList([model[0]]))


def lists(library: Any) -> Any:
    n = library.nn
    held = n.ModuleList(layers(library, 3)) + n.ModuleList([n.ReLU(), n.ReLU()])
    held += (n.Tanh() for _ in range(2))
    held.insert(1, n.GELU())
    held.append(held.pop(0))
    del held[1:3]
    held[-1] = n.ModuleList()
    return n.ModuleList([held, held[::-1]]).extend([n.ReLU()])


def by_name(library: Any) -> Any:
    n = library.nn
    held = n.ModuleDict([("b", n.ReLU()), ("a", n.Tanh())])
    held.update({"c": n.GELU(), "b": n.Linear(1, 1)})
    held.update(n.ModuleDict({"d": n.ModuleDict(), "inner": n.ModuleDict({"x": held.pop("a")})}))
    assert (len(held), "a" in held, list(held.keys())) == (4, False, list(held))
    assert [name for name, part in held.items() if isinstance(part, n.ModuleDict)] == ["d", "inner"]
    gone = n.ModuleDict({"z": n.ReLU()})
    gone.clear()
    return n.ModuleList([held, gone])


@pytest.mark.parametrize("build", [insert_at_the_ends, join_and_repeat, take_out, lists, by_name])
def test_containers_of_modules_hold_what_pytorchs_hold(build: Callable[[Any], Any]) -> None:
    ours, theirs = build(pb), build(torch)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]


def parameter_list(library: Any) -> Any:
    n = library.nn
    held = n.ParameterList([n.Parameter(library.ones(1)), library.ones(2, 3), 4, "text"])
    held += [n.ParameterList([library.ones(5)]), n.Linear(1, 2)]
    held.append(library.zeros(3)).extend([held[0]])
    held[2], held[-2] = library.ones(4), None
    assert (len(held), len(held[1:3]), [type(v).__name__ for v in held[3:6]]) == (
        8,
        2,
        ["str", "ParameterList", "Linear"],
    )
    assert held[-1] is held[0] and type(held[1]) is n.Parameter
    return held


def parameter_dict(library: Any) -> Any:
    n = library.nn
    held = n.ParameterDict({"b": library.ones(1), "a": n.Parameter(library.ones(2)), "n": 3})
    held.update([("d", library.ones(4)), ("c", None)])
    held.update(OrderedDict([("z", library.ones(5)), ("y", library.ones(6))]))
    held.setdefault("a", library.ones(9)), held.setdefault("x", library.ones(7))
    assert (held.pop("z").shape[0], held.popitem()[0], held.get("q"), held.get("n")) == (5, "x", None, 3)
    assert list(reversed(held)) == list(held.keys())[::-1]
    joined = held | n.ParameterDict({"q": library.ones(8)})
    joined |= {"r": library.ones(1)}
    assert joined["a"] is held["a"] and "q" in joined and "q" not in held
    del joined["b"]
    joined.inner = n.ParameterDict({"deep": n.ParameterList([library.ones(1)])})
    gone = joined.copy()
    gone.clear()
    assert len(gone) == 0 and list(held.fromkeys(["k", "l"], 1).items()) == [("k", 1), ("l", 1)]
    return joined


@pytest.mark.parametrize("build", [parameter_list, parameter_dict])
def test_containers_of_parameters_hold_what_pytorchs_hold(build: Callable[[Any], Any]) -> None:
    ours, theirs = build(pb), build(torch)
    printed = repr(theirs).replace("torch.float32", "pullback.float32").replace("torch.FloatTensor", "pullback.float32")
    assert repr(ours) == printed
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
        (k, tuple(v.shape)) for k, v in theirs.state_dict().items()
    ]
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    twin = copy.deepcopy(ours)
    assert repr(twin) == repr(ours) and all(
        a is not b for a, b in zip(twin.parameters(), ours.parameters(), strict=True)
    )


class Mixed(nn.Module):
    """Uses parameters of a list and a dictionary, and the modules of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([pb.ones(3) * (number + 1) for number in range(3)])
        self.ends = nn.ParameterDict({"bias": pb.zeros(3)})
        self.parts = nn.ModuleList([nn.Tanh()])

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        for weight in self.weights:
            x = x * weight
        for part in self.parts:
            x = part(x)
        return x + self.ends["bias"]


def test_a_compiled_step_trains_what_containers_hold_and_follows_their_changes() -> None:
    model = Mixed()
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    @pb.compile
    def run(x: pb.Tensor) -> pb.Tensor:
        return model(x)

    x = pb.tensor([[0.1, 0.2, 0.3]])
    before = [p.detach().clone().numpy() for p in model.parameters()]
    assert step(x).item() > step(x).item()
    assert all((a != b.detach().numpy()).any() for a, b in zip(before, model.parameters(), strict=True))
    run(x)
    model.weights.append(pb.zeros(3))
    np.testing.assert_array_equal(run(x).tolist()[0], model.ends["bias"].tolist())
    model.ends["bias"] = pb.ones(3)
    assert run(x).tolist() == [[1.0] * 3]
    model.parts[0] = nn.Sequential(nn.Sigmoid())
    assert run(x).tolist() == [[1.5] * 3]


def test_errors_say_what_is_wrong() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Tanh())
    with pytest.raises(ValueError, match=r"Sequential \+ takes a Sequential, got ReLU"):
        model + nn.ReLU()
    with pytest.raises(ValueError, match="positive number, got 0"):
        model * 0
    with pytest.raises(TypeError, match="whole number, got float"):
        model *= 1.5
    with pytest.raises(IndexError, match="index 3 is outside the 2 modules"):
        model.insert(3, nn.ReLU())
    with pytest.raises(TypeError, match="insert takes a module, got int"):
        nn.ModuleList([nn.ReLU()]).insert(0, 3)
    with pytest.raises(TypeError, match="an iterable of modules is needed, got ReLU"):
        nn.ModuleList().extend(nn.ReLU())
    with pytest.raises(ValueError, match="element 0 must be a pair, got 3 values"):
        nn.ModuleDict([("a", nn.ReLU(), 1)])
    with pytest.raises(KeyError, match="has an attribute 'items' already"):
        nn.ModuleDict({"items": nn.ReLU()})
    with pytest.raises(KeyError, match="has an attribute 'items': take another key"):
        nn.ParameterDict({"items": pb.ones(1)})
    with pytest.raises(TypeError, match="must be a string, got 1"):
        nn.ParameterDict({1: pb.ones(1)})
    with pytest.raises(KeyError, match=r"no parameter 'b', only \['a'\]"):
        nn.ParameterDict({"a": pb.ones(1)}).pop("b")
    with pytest.raises(IndexError, match="index 1 is outside the 1 parameters"):
        nn.ParameterList([pb.ones(1)])[1]
    with pytest.raises(TypeError, match="got a tensor"):
        nn.ParameterList(pb.ones(3))
    with pytest.raises(RuntimeError, match="computes nothing"):
        nn.ParameterList()(1)
    with pytest.raises(KeyError, match="Linear has an attribute 'forward' already"):
        nn.Linear(1, 1).register_buffer("forward", pb.ones(1))
