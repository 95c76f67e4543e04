"""Pruning against PyTorch: masks, values, keys of state dictionaries, and training under a mask."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.utils.prune

import pullback as pb
from pullback.errors import ShapeError

WEIGHT = np.random.default_rng(0).permutation(24).reshape(4, 3, 2) / 8 - 1.3


def both(*shape, names=("weight",)):
    """A module in each library with the same parameters."""
    made = []
    for lib in (pb, torch):
        module = lib.nn.Module()
        for place, name in enumerate(names):
            values = (WEIGHT if not shape else WEIGHT.reshape(shape)) + place
            module.register_parameter(name, lib.nn.Parameter(lib.tensor(values)))
        made.append(module)
    return made


def seen(module):
    """Everything there is to see, as plain data."""
    p = pb.nn.utils.prune if isinstance(module, pb.nn.Module) else torch.nn.utils.prune
    hooks = [type(h).__name__ for h in module._forward_pre_hooks.values()]
    state = {key: np.array(value.detach().numpy()) for key, value in module.state_dict().items()}
    weight = np.array(module.weight.detach().numpy())
    return hooks, p.is_pruned(module), list(state), [n for n, _ in module.named_parameters()], [*state.values(), weight]


def assert_same(ours, theirs):
    *names, arrays = seen(ours)
    *wanted_names, wanted = seen(theirs)
    assert names == wanted_names
    for found, other in zip(arrays, wanted, strict=True):
        np.testing.assert_array_equal(found, other)


SCORES = np.random.default_rng(1).permutation(24).reshape(4, 3, 2) / 4
#: one after the other on the same parameter
SEQUENCES = {
    "elements": [("l1_unstructured", {"amount": 5}), ("l1_unstructured", {"amount": 0.4}), ("identity", {})],
    "slices": [
        ("ln_structured", {"amount": 1, "n": 2, "dim": 0}),
        ("ln_structured", {"amount": 0.5, "n": float("inf"), "dim": -2}),
        ("l1_unstructured", {"amount": 2}),
        ("ln_structured", {"amount": 1, "n": 1, "dim": 0}),
    ],
    "scores": [
        ("l1_unstructured", {"amount": 3, "importance_scores": SCORES}),
        ("ln_structured", {"amount": 2, "n": 2, "dim": 0, "importance_scores": SCORES}),
    ],
    "masks": [("custom_from_mask", {"mask": SCORES > 1}), ("custom_from_mask", {"mask": SCORES < 5})],
    "nothing": [
        ("identity", {}),
        ("l1_unstructured", {"amount": 0}),
        ("ln_structured", {"amount": 0.0, "n": 2, "dim": 1}),
    ],
    "all": [("l1_unstructured", {"amount": 1.0}), ("l1_unstructured", {"amount": 0})],
}


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES)
def test_prunings_on_top_of_each_other(sequence):
    ours, theirs = both()
    for name, options in sequence:
        for lib, module in ((pb, ours), (torch, theirs)):
            given = {k: lib.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
            assert getattr(lib.nn.utils.prune, name)(module, "weight", **given) is module
        assert_same(ours, theirs)
    for lib, module in ((pb, ours), (torch, theirs)):
        assert lib.nn.utils.prune.remove(module, "weight") is module
        assert isinstance(module.weight, lib.nn.Parameter)
    assert_same(ours, theirs)
    assert type(ours) is pb.nn.Module


@pytest.mark.parametrize("structured", [False, True])
def test_random_pruning_takes_as_many_as_it_says_of_what_is_left(structured):
    ours, _ = both(4, 6)
    prune = pb.nn.utils.prune
    for left in (4, 3) if structured else (16, 8):
        if structured:
            prune.random_structured(ours, "weight", amount=2 if left == 4 else 0.25, dim=1)
        else:
            prune.random_unstructured(ours, "weight", amount=8 if left == 16 else 0.5)
        mask = ours.weight_mask.numpy()
        assert mask.sum() == left * (4 if structured else 1)
        assert not structured or mask.all(0).sum() == left


def test_several_parameters_as_one():
    scores = {1: -SCORES, 2: SCORES}
    for given in (None, scores):
        ours, theirs = both(names=("weight", "other", "third"))
        for lib, module in ((pb, ours), (torch, theirs)):
            prune, pairs = lib.nn.utils.prune, [(module, name) for name in ("weight", "other", "third")]
            prune.l1_unstructured(module, "other", amount=2)
            named = None if given is None else {pairs[k]: lib.tensor(v) for k, v in given.items()}
            prune.global_unstructured(pairs, prune.L1Unstructured, importance_scores=named, amount=0.4)
        assert_same(ours, theirs)


def test_a_method_of_the_users_own_and_one_that_fails():
    def make(lib):
        class Above(lib.nn.utils.prune.BasePruningMethod):
            PRUNING_TYPE = "unstructured"

            def __init__(self, limit):
                self.limit = limit

            def compute_mask(self, t, default_mask):
                if self.limit is None:
                    raise RuntimeError("no limit")
                return default_mask * (t.abs() > self.limit)

        return Above

    ours, theirs = both()
    for lib, module in ((pb, ours), (torch, theirs)):
        method = make(lib)
        with pytest.raises(RuntimeError, match="no limit"):
            method.apply(module, "weight", None)
        assert list(module.state_dict()) == ["weight"]
        method.apply(module, "weight", limit=0.5)
        container = method.apply(module, "weight", 0.9)
        assert len(container) == 2 and container[1].limit == 0.9
        t = lib.tensor([0.1, 1.0, 2.0])
        assert method(0.5).prune(t, default_mask=lib.tensor([1.0, 1.0, 0.0])).tolist() == [0.0, 1.0, 0.0]
    assert_same(ours, theirs)


def test_copies_are_pruned_and_restored_on_their_own():
    ours, _ = both(names=("weight", "other"))
    prune = pb.nn.utils.prune
    prune.l1_unstructured(ours, "weight", 5)
    prune.l1_unstructured(ours, "other", 6)
    twin = copy.deepcopy(ours)
    prune.remove(twin, "weight")
    assert [int((m.weight == 0).sum()) for m in (ours, twin)] == [5, 5]
    assert [int((m.other == 0).sum()) for m in (ours, twin)] == [6, 6]
    with pb.no_grad():
        twin.other_orig.fill_(3.0)
    assert (twin.other.sum().item(), twin.weight.is_leaf, ours.weight.is_leaf) == (54.0, True, False)


def test_a_compiled_step_trains_what_is_kept_and_sees_a_further_pruning():
    def train(lib, compiled):
        layers = [lib.nn.Linear(3, 4), lib.nn.LSTM(4, 2)]
        model = lib.nn.Sequential(*layers).to(lib.float64)
        rng = np.random.default_rng(2)
        model.load_state_dict({k: lib.tensor(rng.normal(size=v.shape)) for k, v in model.state_dict().items()})
        prune = lib.nn.utils.prune
        prune.l1_unstructured(layers[0], "weight", amount=4)
        prune.ln_structured(layers[1], "weight_hh_l0", amount=3, n=2, dim=0)
        optimizer = lib.optim.Adam(model.parameters(), lr=0.05)
        x = lib.tensor(rng.normal(size=(5, 3)))

        @compiled
        def step(x):
            optimizer.zero_grad()
            loss = (model(x)[0] - 1).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        losses = [step(x).item() for _ in range(3)]
        prune.l1_unstructured(layers[0], "weight", amount=0.5)
        losses += [step(x).item() for _ in range(2)]
        prune.remove(layers[0], "weight")
        losses += [step(x).item() for _ in range(2)]
        return losses, {k: v.numpy() for k, v in model.state_dict().items()}

    (ours, ours_state), (theirs, their_state) = train(pb, pb.compile), train(torch, lambda f: f)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    assert list(ours_state) == list(their_state)
    for key, value in their_state.items():
        np.testing.assert_allclose(ours_state[key], value, rtol=1e-9, atol=1e-12)


def test_what_does_not_fit_is_refused():
    prune, (layer, _) = pb.nn.utils.prune, both()
    for amount, kind in (("0.5", TypeError), (-1, ValueError), (1.5, ValueError), (25, ValueError)):
        with pytest.raises(kind, match="amount"):
            prune.l1_unstructured(layer, "weight", amount)
    with pytest.raises(ShapeError, match="importance_scores"):
        prune.l1_unstructured(layer, "weight", 2, importance_scores=pb.ones(3))
    with pytest.raises(ShapeError, match="mask"):
        prune.custom_from_mask(layer, "weight", pb.ones(3))
    with pytest.raises(ValueError, match="no parameter 'bias'"):
        prune.identity(layer, "bias")
    with pytest.raises(ValueError, match="has to be pruned"):
        prune.remove(layer, "weight")
    with pytest.raises(IndexError, match="dim 3"):
        prune.random_structured(layer, "weight", 1, dim=3)
    with pytest.raises(ValueError, match="two axes"):
        prune.ln_structured(pb.nn.Linear(2, 2), "bias", 1, n=2, dim=0)
    with pytest.raises(TypeError, match="unstructured"):
        prune.global_unstructured([(layer, "weight")], prune.LnStructured, amount=1, n=2)
    container = prune.PruningContainer()
    with pytest.raises(TypeError, match="no BasePruningMethod"):
        container.add_pruning_method(10)
    container._tensor_name, method = "weight", prune.Identity()
    method._tensor_name = "bias"
    with pytest.raises(ValueError, match="'bias'"):
        container.add_pruning_method(method)
    assert list(layer.state_dict()) == ["weight"] and not prune.is_pruned(layer)
