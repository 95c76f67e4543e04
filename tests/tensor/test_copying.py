"""Tensors, modules and optimizers by `copy` and by `pickle`, with which users' processes hand each other tensors."""

import copy
import pickle  # noqa: TID251  # the library itself reads and writes none
from multiprocessing import get_context

import numpy as np
import pytest

import pullback as pb


def again(value):
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool"])
def test_a_tensor_is_pickled_with_its_dtype(dtype):
    for x in (pb.tensor([[1.5, 0.0, 3.0]]).to(getattr(pb, dtype)), pb.ones((), dtype=getattr(pb, dtype))):
        found = again(x)
        assert type(found) is pb.Tensor and found.dtype is x.dtype and found.shape == x.shape
        assert found.tolist() == x.tolist() and not found.requires_grad


def test_a_tensor_is_pickled_without_its_history():
    w = pb.nn.Parameter(pb.ones(2))
    w.note = "kept"
    w.grad = pb.ones(2)
    parameter, result, view = again([w, w * 2, pb.arange(4)[1:3]])
    assert type(parameter) is pb.nn.Parameter and parameter.note == "kept" and parameter.grad is None
    assert result.is_leaf and result.requires_grad and result.tolist() == [2.0, 2.0]
    assert view.tolist() == [1, 2] and view.fill_(0).tolist() == [0, 0]
    (parameter * 3).sum().backward()
    assert parameter.grad.tolist() == [3.0, 3.0]
    buffer = again(pb.nn.Buffer(pb.ones(1), persistent=False))
    assert type(buffer) is pb.nn.Buffer and not buffer.persistent


def test_a_model_with_its_optimizer_goes_on_where_it_was_pickled():
    model = pb.nn.Sequential(pb.nn.Linear(3, 3), pb.nn.BatchNorm1d(3), pb.nn.Linear(3, 3))
    model[2].weight = model[0].weight
    optimizer = pb.optim.Adam(model.parameters(), lr=0.1)
    x = pb.tensor(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))

    def train(model, optimizer):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()

    train(model, optimizer)
    twin, twin_optimizer = again((model, optimizer))
    assert twin[2].weight is twin[0].weight and twin_optimizer.param_groups[0]["params"][0] is twin[0].weight
    saved = again(optimizer.state_dict())
    train(model, optimizer), train(twin, twin_optimizer)
    for (name, ours), theirs in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert ours.tolist() == theirs.tolist(), name
    optimizer.load_state_dict(saved)
    assert again(model.state_dict())["1.running_mean"].tolist() == model[1].running_mean.tolist()


def test_tensors_go_to_processes_and_back():
    with get_context("spawn").Pool(1) as pool:
        assert pool.map(pb.sum, [pb.ones(3), pb.ones(2, dtype=pb.bfloat16)])[1].item() == 2.0


def test_a_shallow_copy_of_a_detached_tensor_has_what_its_source_had():
    x = pb.zeros(2)
    copied = copy.copy(x.detach())
    x.fill_(3)
    del x
    assert copied.tolist() == [3.0, 3.0]
