"""Averaged models and their schedule, against PyTorch's."""

import numpy as np
import pytest
import torch

import pullback as pb

AVERAGES = {
    "equal": lambda u: {},
    "exponential": lambda u: {"avg_fn": u.get_ema_avg_fn(0.8)},
    "equal, all at once": lambda u: {"multi_avg_fn": u.get_swa_multi_avg_fn()},
    "exponential, all at once": lambda u: {"multi_avg_fn": u.get_ema_multi_avg_fn(0.8)},
    "a function of one's own": lambda u: {"avg_fn": lambda a, m, n: 0.25 * a + 0.75 * m},
    "buffers too": lambda u: {"avg_fn": u.get_ema_avg_fn(0.8), "use_buffers": True},
}
X = np.random.default_rng(0).normal(size=(6, 3))


def model(lib):
    return lib.nn.Sequential(lib.nn.Linear(3, 4), lib.nn.BatchNorm1d(4), lib.nn.Linear(4, 1)).to(lib.float64)


def trained(lib, start, options, compiled=lambda f: f):
    """States and results of an averaged model over some steps."""
    network = model(lib)
    network.load_state_dict({k: lib.tensor(v) for k, v in start.items()})
    averaged = lib.optim.swa_utils.AveragedModel(network, **options(lib.optim.swa_utils))
    optimizer = lib.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

    @compiled
    def step(x):
        optimizer.zero_grad()
        (network(x) ** 2).mean().backward()
        optimizer.step()
        averaged.update_parameters(network)

    for _ in range(4):
        step(lib.tensor(X))
    state = {k: v.numpy().copy() for k, v in averaged.state_dict().items()}
    lib.optim.swa_utils.update_bn([lib.tensor(X), (lib.tensor(X + 1), None)], averaged)
    return state, {k: v.numpy() for k, v in averaged.state_dict().items()}, averaged.eval()(lib.tensor(X))


@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize("compiled", [False, True])
def test_averaged_models_are_pytorchs(name, compiled):
    options = AVERAGES[name]
    # there PyTorch's share of a model, 1 / (n + 1), is a float32
    tolerance = 1e-6 if name == "equal, all at once" else 1e-10
    start = {k: v.numpy() for k, v in model(torch).state_dict().items()}
    found = trained(pb, start, options, *([pb.compile] if compiled else []))
    wanted = trained(torch, start, options)
    for a, b in zip(found[:2], wanted[:2], strict=True):
        assert list(a) == list(b)
        for key, value in b.items():
            np.testing.assert_allclose(a[key], value, rtol=tolerance, atol=1e-12, err_msg=key)
    np.testing.assert_allclose(found[2].detach().numpy(), wanted[2].detach().numpy(), rtol=tolerance)


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("epochs", [0, 1, 5])
def test_the_schedule_is_pytorchs(strategy, epochs):
    def rates(lib):
        groups = [{"params": [lib.ones(1, requires_grad=True)], "lr": lr} for lr in (1.0, 0.1)]
        optimizer = lib.optim.SGD(groups, lr=0.5)
        decay = lib.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        scheduler = lib.optim.swa_utils.SWALR(optimizer, [0.05, 0.3], epochs, strategy)
        found = []
        for number in range(8):
            optimizer.step()
            (decay if number == 3 else scheduler).step()
            found.append([group["lr"] for group in optimizer.param_groups])
        return found, sorted(scheduler.state_dict())

    (found, keys), (wanted, their_keys) = rates(pb), rates(torch)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert set(keys) <= {*their_keys, "_is_initial"}


def test_what_does_not_fit_is_refused():
    utils, optimizer = pb.optim.swa_utils, pb.optim.SGD([pb.ones(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ValueError, match="decay"):
        utils.get_ema_avg_fn(1.5)
    with pytest.raises(AssertionError, match="only one"):
        utils.AveragedModel(
            pb.nn.Linear(1, 1), avg_fn=utils.get_swa_avg_fn(), multi_avg_fn=utils.get_swa_multi_avg_fn()
        )
    for options in ({"anneal_strategy": "step"}, {"anneal_epochs": -1}):
        with pytest.raises(ValueError, match="anneal"):
            utils.SWALR(optimizer, 0.1, **options)
