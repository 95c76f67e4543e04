"""Parametrizations, and the normalizations of weights made of them, against PyTorch's."""

import copy
import warnings

import numpy as np
import pytest
import torch

import pullback as pb

LAYERS = {
    "Linear": (lambda lib: lib.nn.Linear(5, 4), (3, 5)),
    "Conv2d": (lambda lib: lib.nn.Conv2d(3, 4, 2), (2, 3, 4, 4)),
    "ConvTranspose1d": (lambda lib: lib.nn.ConvTranspose1d(3, 4, 2), (2, 3, 5)),
}


def newer(lib):
    return lib.nn.utils.parametrizations


def older(lib):
    return lib.nn.utils


NORMALIZATIONS = {
    "weight_norm": lambda lib, m: newer(lib).weight_norm(m),
    "weight_norm along 1": lambda lib, m: newer(lib).weight_norm(m, "weight", dim=1),
    "weight_norm of all": lambda lib, m: newer(lib).weight_norm(m, "weight", dim=None),
    "spectral_norm": lambda lib, m: newer(lib).spectral_norm(m),
    "spectral_norm by 3 steps": lambda lib, m: newer(lib).spectral_norm(m, n_power_iterations=3),
    "older weight_norm": lambda lib, m: older(lib).weight_norm(m),
    "older weight_norm of all": lambda lib, m: older(lib).weight_norm(m, dim=None),
    "older spectral_norm": lambda lib, m: older(lib).spectral_norm(m),
}


def both(layer, normalization):
    """Ours with PyTorch's state."""
    make, shape = LAYERS[layer]
    made = []
    for lib in (pb, torch):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.append(NORMALIZATIONS[normalization](lib, make(lib).to(lib.float64)))
    ours, theirs = made
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours, theirs, np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_normalized_layers_are_pytorchs(layer, normalization, training):
    ours, theirs, x = both(layer, normalization)
    ours.train(training), theirs.train(training)
    for _ in range(2):
        results = [module(lib.tensor(x)) for lib, module in ((pb, ours), (torch, theirs))]
        for result in results:
            (result * result).sum().backward()
        np.testing.assert_allclose(results[0].detach().numpy(), results[1].detach().numpy(), rtol=1e-9, atol=1e-12)
    for (name, mine), (other, parameter) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        np.testing.assert_allclose(mine.grad.numpy(), parameter.grad.numpy(), rtol=1e-8, atol=1e-11, err_msg=name)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name].numpy(), value.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("normalization", ["weight_norm", "spectral_norm"])
def test_removing_leaves_the_weight(normalization):
    for utils, remove in (
        (newer, lambda lib, m: lib.nn.utils.parametrize.remove_parametrizations(m, "weight")),
        (older, lambda lib, m: getattr(lib.nn.utils, f"remove_{normalization}")(m)),
    ):
        layer = getattr(utils(pb), normalization)(pb.nn.Linear(3, 2))
        weight = layer.eval().weight.tolist()
        assert remove(pb, layer) is layer
        assert type(layer) is pb.nn.Linear and isinstance(layer.weight, pb.nn.Parameter)
        np.testing.assert_allclose(layer.weight.tolist(), weight, rtol=1e-6)
        assert sorted(layer.state_dict()) == ["bias", "weight"]


def test_state_of_the_older_weight_norm_loads_into_the_newer():
    old = older(pb).weight_norm(pb.nn.Linear(3, 2))
    new = newer(pb).weight_norm(pb.nn.Linear(3, 2))
    new.load_state_dict(old.state_dict())
    assert new.weight.tolist() == old.weight.tolist()


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
@pytest.mark.parametrize("orthogonal_map", [None, "matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("trivializes", [True, False])
def test_orthogonal_weights_are_pytorchs(shape, orthogonal_map, trivializes):
    def make(lib):
        layer = lib.nn.Linear(*shape).to(lib.float64)
        return newer(lib).orthogonal(layer, "weight", orthogonal_map, use_trivialization=trivializes)

    ours, theirs = make(pb), make(torch)
    weight = ours.weight if shape[0] > shape[1] else ours.weight.mT
    small = min(shape)
    np.testing.assert_allclose((weight @ weight.mT).detach().numpy()[:small, :small], np.eye(small), atol=1e-12)
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    if trivializes:
        assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    results = []
    for lib, layer in ((pb, ours), (torch, theirs)):
        original = layer.parametrizations.weight.original
        with lib.no_grad():
            original += lib.tensor(np.random.default_rng(1).normal(size=tuple(original.shape)) * 0.3)
        (layer.weight * lib.tensor(np.random.default_rng(2).normal(size=tuple(layer.weight.shape)))).sum().backward()
        results.append((layer.weight.detach().numpy(), original.grad.numpy()))
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)


def chained(lib):
    """Two parametrizations of one tensor, read, written, trained, cached and removed."""

    class Symmetric(lib.nn.Module):
        def forward(self, x):
            return x.triu() + x.triu(1).mT

        def right_inverse(self, x):
            return x.triu()

    class Doubled(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = lib.nn.Parameter(lib.tensor(2.0, dtype=lib.float64))

        def forward(self, x):
            return x * self.scale

        def right_inverse(self, x):
            return x / self.scale

    p = lib.nn.utils.parametrize
    layer = lib.nn.Linear(3, 3).to(lib.float64)
    with lib.no_grad():
        layer.weight.copy_(lib.tensor(np.arange(9.0).reshape(3, 3)))
        layer.bias.zero_()
    p.register_parametrization(layer, "weight", Symmetric())
    p.register_parametrization(layer, "weight", Doubled().to(lib.float64))
    said = [repr(layer), list(layer.state_dict()), p.is_parametrized(layer), p.is_parametrized(layer, "bias")]
    said.append([name for name, _ in layer.named_parameters()])
    layer.weight = lib.tensor(np.arange(9.0).reshape(3, 3) - 4)
    with p.cached():
        assert layer.weight is layer.weight
    assert layer.weight is not layer.weight
    (layer(lib.ones(2, 3, dtype=lib.float64)) ** 2).sum().backward()
    said += [layer.weight.tolist(), *(t.grad.tolist() for t in layer.parameters())]
    twin = copy.deepcopy(layer)
    said += [twin.weight.tolist(), type(layer).__name__, p.type_before_parametrizations(layer).__name__]
    p.remove_parametrizations(layer, "weight")
    return [*said, repr(layer), type(layer).__name__, layer.weight.tolist(), list(layer.state_dict())]


def test_parametrizations_behave_as_pytorchs():
    for found, wanted in zip(chained(pb), chained(torch), strict=True):
        assert found == wanted


def test_what_does_not_fit_is_refused():
    class Flat(pb.nn.Module):
        def forward(self, x):
            return x.sum()

    register = pb.nn.utils.parametrize.register_parametrization
    with pytest.raises(ValueError, match="shape"):
        register(pb.nn.Linear(2, 2), "weight", Flat())
    with pytest.raises(ValueError, match="nothing"):
        register(pb.nn.Linear(2, 2), "nothing", Flat())
    with pytest.raises(ValueError, match="no parameter"):
        pb.nn.utils.weight_norm(pb.nn.Linear(2, 2), "nothing")
    with pytest.raises(ValueError, match="no weight_norm"):
        pb.nn.utils.remove_weight_norm(pb.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="orthogonal_map"):
        newer(pb).orthogonal(pb.nn.Linear(2, 2), orthogonal_map="svd")


@pytest.mark.parametrize("normalization", ["weight_norm", "spectral_norm", "older weight_norm", "older spectral_norm"])
def test_compiled_steps_train_normalized_layers(normalization):
    ours, theirs, x = both("Linear", normalization)

    def train(lib, layer, compiled=lambda f: f):
        optimizer = lib.optim.SGD(layer.parameters(), lr=0.1)

        @compiled
        def step(x):
            loss = (layer(x) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return [step(lib.tensor(x)).item() for _ in range(5)]

    np.testing.assert_allclose(train(pb, ours, pb.compile), train(torch, theirs), rtol=1e-9)


def test_weights_of_recurrent_networks_are_normalized_and_restored_in_any_order():
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    results = []
    for lib in (pb, torch):
        layer = lib.nn.LSTM(3, 2, bidirectional=True).to(lib.float64)
        rng = np.random.default_rng(1)
        layer.load_state_dict({k: lib.tensor(rng.normal(size=v.shape)) for k, v in layer.state_dict().items()})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in ("weight_hh_l0", "weight_ih_l0_reverse"):
                older(lib).weight_norm(layer, name)
        layer.weight_hh_l0_g.data.mul_(2)
        twin = copy.deepcopy(layer) if lib is pb else None
        layer(lib.tensor(x))[0].square().sum().backward()
        seen = [layer.weight_hh_l0_v.grad.numpy(), layer.weight_ih_l0_reverse_g.grad.numpy()]
        for name in ("weight_hh_l0", "weight_ih_l0_reverse"):
            older(lib).remove_weight_norm(layer, name)
        seen += [t.detach().numpy() for weights in layer.all_weights for t in weights]
        results.append(seen)
        if twin is not None:
            older(lib).remove_weight_norm(twin, "weight_hh_l0")
            assert twin.weight_hh_l0.tolist() == layer.weight_hh_l0.tolist() and twin.weight_ih_l0_reverse_g is not None
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
