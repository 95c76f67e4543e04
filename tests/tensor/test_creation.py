"""Making tensors: what PyTorch's database of operators does not say."""

import pytest
import torch

import pullback as pb
from pullback.errors import DTypeError, ShapeError


def test_new_tensors_take_the_dtype_of_the_one_that_makes_them():
    x = pb.ones(2, dtype=pb.float64)
    made = [x.new_tensor([1, 2]), x.new_zeros(2), x.new_ones((2,)), x.new_empty(2), x.new_full((2,), 7)]
    assert [t.dtype for t in made] == [pb.float64] * 5
    assert [t.tolist() for t in made] == [[1, 2], [0, 0], [1, 1], [0, 0], [7, 7]]
    assert x.new_ones(2, dtype=pb.int32).dtype is pb.int32


def test_what_is_like_a_tensor_takes_options_by_name_only():
    with pytest.raises(TypeError):
        pb.zeros_like(pb.ones(2), pb.float64)
    assert pb.ones_like(pb.ones(2), requires_grad=True).requires_grad


def test_whole_ranges_are_of_whole_numbers_from_the_start():
    assert pb.arange(0.9, 5.9, 2.0, dtype=pb.int64).tolist() == [0, 2, 4]
    assert pb.linspace(4.3, 0, 5, dtype=pb.int64).tolist() == [4, 3, 2, 1, 0]


def test_fill_passes_the_gradient_to_the_value():
    x, value = pb.ones(3, requires_grad=True), pb.tensor(2.0, requires_grad=True)
    pb.fill(x, value).sum().backward()
    assert (x.grad.tolist(), value.grad.item()) == ([0, 0, 0], 3)
    with pytest.raises(ShapeError, match="shape"):
        pb.fill(x, pb.ones(2))


def test_bad_sizes_and_dtypes_are_refused():
    with pytest.raises(ValueError, match="rows"):
        pb.tril_indices(-1, 2)
    with pytest.raises(DTypeError, match="int32 or int64"):
        pb.triu_indices(2, 2, dtype=pb.float32)
    for sizes in ((-1,), (2, -3), (-1, 2)):
        with pytest.raises(RuntimeError, match="eye: n and m must not be negative"):
            pb.eye(*sizes)
    with pytest.raises(ValueError, match="steps"):
        pb.logspace(0, 1, -1)


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16", "int32", "bool"])
def test_tensors_of_pytorch_keep_their_dtype(name: str) -> None:
    theirs = torch.arange(6.0).reshape(2, 3).T.to(getattr(torch, name))
    for given in (theirs, theirs.requires_grad_() if theirs.is_floating_point() else theirs):
        for ours in (pb.tensor(given), pb.as_tensor(given)):
            assert ours.dtype.name == name and not ours.requires_grad
            assert ours.tolist() == theirs.tolist()
    assert pb.tensor(theirs, dtype=pb.int64).dtype is pb.int64
    weight = pb.nn.Linear(2, 3, bias=False)
    weight.load_state_dict({"weight": theirs})
    assert weight.weight.tolist() == theirs.tolist()


def test_tensors_of_dtypes_that_are_not_there_are_refused() -> None:
    with pytest.raises(DTypeError, match=r"tensors of torch\.float8_e4m3fn are not taken"):
        pb.tensor(torch.ones(2, dtype=torch.float8_e4m3fn))
