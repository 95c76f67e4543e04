"""Optimizers in code that is not compiled: the update is a compiled step of its own."""

import copy
import gc
import weakref

import numpy as np
import pytest

import pullback as pb


def _train(optimizer, parameter, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        (parameter**2).sum().backward()
        optimizer.step()
    return parameter.detach().numpy().copy()


def _adam(values=(1.0, 2.0), **options):
    parameter = pb.tensor(list(values), requires_grad=True)
    return parameter, pb.optim.Adam([parameter], **options)


def test_the_update_is_recorded_once():
    parameter, optimizer = _adam()
    _train(optimizer, parameter, 3)
    program = optimizer._alone[False].program
    _train(optimizer, parameter, 5)
    assert optimizer._alone[False].program is program


def test_a_parameter_without_a_gradient_is_left_alone_and_comes_back():
    one, two = (pb.tensor([1.0], requires_grad=True) for _ in range(2))
    optimizer = pb.optim.SGD([one, two], lr=0.25)
    (one * 1).sum().backward()
    optimizer.step()
    assert (one.item(), two.item()) == (0.75, 1.0)
    optimizer.zero_grad()
    (one + two).sum().backward()
    optimizer.step()
    assert (one.item(), two.item()) == (0.5, 0.75)
    optimizer.zero_grad()
    optimizer.step()
    assert (one.item(), two.item()) == (0.5, 0.75)


def test_the_rate_and_the_other_hyperparameters_may_change_between_steps():
    parameter, optimizer = _adam(lr=0.1)
    twin, whole = _adam(lr=0.1)

    @pb.compile
    def step():
        whole.zero_grad()
        (twin**2).sum().backward()
        whole.step()

    for rate, decay in ((0.1, 0.0), (0.01, 0.0), (0.01, 0.5)):
        for group in (*optimizer.param_groups, *whole.param_groups):
            group["lr"], group["weight_decay"] = rate, decay
        _train(optimizer, parameter, 1)
        step()
        np.testing.assert_array_equal(parameter.detach().numpy(), twin.detach().numpy())


def test_a_copy_goes_its_own_way():
    parameter, optimizer = _adam()
    _train(optimizer, parameter, 2)
    both = copy.deepcopy({"parameter": parameter, "optimizer": optimizer})
    before = parameter.detach().numpy().copy()
    _train(both["optimizer"], both["parameter"], 2)
    assert (parameter.detach().numpy() == before).all()
    np.testing.assert_array_equal(
        _train(optimizer, parameter, 2), both["parameter"].detach().numpy(), "the copy continues as the original does"
    )


def test_an_optimizer_goes_with_its_last_reference():
    parameter, optimizer = _adam()
    _train(optimizer, parameter, 2)
    gone = weakref.ref(optimizer)
    gc.disable()
    try:
        del optimizer
        assert gone() is None, "something refers to the optimizer in a circle"
    finally:
        gc.enable()


def test_a_gradient_that_cannot_be_computed_leaves_the_parameters_as_they_were():
    table = pb.ones(3, 2, requires_grad=True)
    optimizer = pb.optim.SGD([table], lr=1.0)
    pb.nn.functional.embedding(pb.tensor([0, 5]), table).sum().backward()
    with pytest.raises(pb.errors.PullbackError):
        optimizer.step()
    assert (table.detach().numpy() == 1).all()
