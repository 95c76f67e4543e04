"""Tensors change, alias, copy and show themselves as PyTorch's do."""

import copy
import re

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.errors import DTypeError, GradientError, ShapeError


def leaf(*values: float) -> pb.Tensor:
    return pb.tensor(list(values), requires_grad=True)


def test_a_leaf_that_requires_grad_changes_only_under_no_grad():
    w = leaf(1.0, 2.0)
    with pytest.raises(GradientError, match="no_grad"):
        w -= 1
    with pb.no_grad():
        w -= 0.5
    assert (w.tolist(), w.requires_grad, w.is_leaf) == ([0.5, 1.5], True, True)
    (w * w).sum().backward()
    assert w.grad.tolist() == [1.0, 3.0]


def test_data_writes_through_to_the_tensor():
    w = leaf(1.0, 2.0)
    w.data = pb.tensor([3.0, 4.0])
    assert (w.tolist(), w.requires_grad) == ([3.0, 4.0], True)
    w.data.copy_(pb.tensor([5.0, 6.0]))
    w.data -= 1
    w.data.mul_(2)
    assert (w.tolist(), w.requires_grad, w.data.requires_grad) == ([8.0, 10.0], True, False)
    assert w.data.numpy().tolist() == [8.0, 10.0]
    (3 * w).sum().backward()
    assert w.grad.tolist() == [3.0, 3.0]


def test_what_was_built_before_an_in_place_change_keeps_the_old_value():
    x = pb.ones(2)
    before = x * 10
    x += 1
    after = x * 10
    assert (before.tolist(), after.tolist()) == ([10.0, 10.0], [20.0, 20.0])


def test_in_place_on_a_result_is_differentiated():
    x = leaf(2.0)
    y = x * 3
    y *= x
    y.sum().backward()
    assert x.grad.tolist() == [12.0]


def test_clone_passes_gradients_and_detach_does_not():
    x = leaf(2.0)
    clone, detached = x.clone(), x.detach()
    assert (clone.is_leaf, clone.requires_grad, detached.is_leaf, detached.requires_grad) == (False, True, True, False)
    (clone * clone).sum().backward()
    assert x.grad.tolist() == [4.0]


def test_leaves_are_what_no_recorded_operation_made():
    x = leaf(1.0)
    assert x.is_leaf and pb.ones(2).is_leaf and (pb.ones(2) * 2).is_leaf and not (x * 2).is_leaf
    with pytest.raises(DTypeError, match="floating point"):
        pb.tensor([1]).requires_grad_()
    with pytest.raises(GradientError, match="leaf"):
        (x * 2).requires_grad_(False)


def test_a_copy_is_a_leaf_of_its_own():
    x = leaf(1.0)
    y = copy.deepcopy(x)
    with pb.no_grad():
        y += 1
    assert (x.tolist(), y.tolist(), y.requires_grad) == ([1.0], [2.0], True)


def test_shape_and_dtype_are_kept_in_place():
    with pytest.raises(ShapeError, match="cannot change the shape"):
        pb.ones(2).add_(pb.ones(3, 2))


@pytest.mark.parametrize("values", [[1.5, -2.0], [1, -2], [True, False], [[1.0], [2.0]]])
def test_small_tensors_print_as_in_pytorch(values):
    ours, theirs = (
        re.sub(r"\s|(?<=\.)0+|(?<=\.\d)0+", "", repr(made)) for made in (pb.tensor(values), torch.tensor(values))
    )
    assert ours == theirs


def test_printing_tells_what_differs_from_the_default():
    assert repr(pb.tensor([1.0], dtype=pb.float64)).endswith("dtype=pullback.float64)")
    assert repr(leaf(1.0)).endswith("requires_grad=True)")
    assert "grad_fn=<mul>" in repr(leaf(1.0) * 2)


def test_numpy_shares_memory_and_is_read_only():
    x = pb.tensor([1.0, 2.0])
    array = x.numpy()
    assert np.shares_memory(array, x.numpy()) and not array.flags.writeable
    with pytest.raises(GradientError, match="detach"):
        leaf(1.0).numpy()
    with pytest.raises(DTypeError, match="bfloat16"):
        pb.ones(1, dtype=pb.bfloat16).numpy()
    x += 1
    assert (array.tolist(), x.tolist()) == ([1.0, 2.0], [2.0, 3.0])


def test_from_numpy_shares_contiguous_memory():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.shares_memory(pb.from_numpy(array).numpy(), array)
    assert pb.from_numpy(array.T).tolist() == array.T.tolist()
    x = pb.from_numpy(array)
    x += 1
    assert array[0, 0] == 0.0


def test_dlpack_goes_both_ways_with_torch_and_numpy():
    theirs = torch.arange(4, dtype=torch.float32)
    ours = pb.from_dlpack(theirs)
    assert ours.tolist() == theirs.tolist()
    assert np.shares_memory(ours.numpy(), theirs.numpy())
    mine = pb.tensor([1.0, 2.0])
    assert torch.from_dlpack(mine).tolist() == [1.0, 2.0]
    assert np.from_dlpack(mine).tolist() == [1.0, 2.0]


def test_numbers_come_out_as_pythons():
    assert (type(pb.tensor(2).item()), type(pb.tensor(2.0).item()), type(pb.tensor(True).item())) == (int, float, bool)
    assert pb.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert (float(pb.tensor([2.5])), int(pb.tensor(3)), bool(pb.tensor(0.0)), len(pb.zeros(3, 2))) == (2.5, 3, False, 3)
    with pytest.raises(ShapeError, match="one element"):
        pb.zeros(2).item()


def test_a_tensor_is_a_container_as_pytorchs_is():
    scalar, x = pb.tensor(1.0), pb.tensor([[1.0, 2.0], [3.0, 4.0]])
    for ask in (len, iter):
        with pytest.raises(TypeError, match="0-d"):
            ask(scalar)
    assert not np.iterable(scalar) and np.iterable(x)
    assert 3 in x and 5 not in x and pb.tensor(4.0) in x
    assert [row.tolist() for row in x] == x.tolist()
    for data in ([np.float64(1)], [1.0, np.float64(1)], [[np.ones(2)], [[1.0, 2.0]]]):
        assert pb.tensor(data).dtype is pb.float64
    assert pb.tensor([1.0, np.float32(1)]).dtype is pb.float32
