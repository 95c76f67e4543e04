"""The dtype of a result is PyTorch's for every pair of dtypes and every rank of operand."""

import itertools

import numpy as np
import pytest
import torch

import pullback as pb
from oracle import our_dtype
from pullback.errors import DTypeError

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
RANKS = {"tensor with axes": (2,), "tensor of shape []": ()}
NUMBERS = (True, 2, 2.5)


#: which PyTorch holds but hardly works with: their promotion is NumPy's
WIDE_UNSIGNED = ("uint16", "uint32", "uint64")
INTEGERS = ("uint8", *WIDE_UNSIGNED, "int8", "int16", "int32", "int64")


def expected_name(dtype: torch.dtype) -> str:
    """PyTorch's dtype by name."""
    return str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("left", DTYPES)
@pytest.mark.parametrize(("left_shape", "right_shape"), list(itertools.product(RANKS.values(), repeat=2)))
def test_two_tensors_promote_as_in_pytorch(left, left_shape, right_shape):
    for right in DTYPES:
        ours = pb.zeros(left_shape, dtype=our_dtype(left)), pb.zeros(right_shape, dtype=our_dtype(right))
        theirs = (
            torch.zeros(left_shape, dtype=getattr(torch, left)),
            torch.zeros(right_shape, dtype=getattr(torch, right)),
        )
        wanted = expected_name(torch.result_type(*theirs))
        assert pb.result_type(*ours).name == wanted, (left, right)
        assert (ours[0] + ours[1]).dtype.name == wanted
        assert (ours[0] * ours[1]).dtype.name == wanted
        assert pb.where(ours[0] == ours[1], *ours).dtype.name == wanted


@pytest.mark.parametrize("left", WIDE_UNSIGNED)
def test_wide_unsigned_integers_promote_as_in_numpy_where_pytorch_refuses(left):
    ours = pb.ones(2, dtype=our_dtype(left))
    for right in ("bool", *INTEGERS):
        other = pb.ones(2, dtype=our_dtype(right))
        wanted = np.promote_types(left, right)
        if wanted.kind == "f":
            with pytest.raises(DTypeError, match="no integer dtype holds every"):
                pb.result_type(ours, other)
            continue
        assert pb.result_type(ours, other).name == wanted.name == (ours + other).dtype.name, (left, right)
        assert pb.promote_types(ours.dtype, other.dtype).name == wanted.name
    for right in ("float16", "bfloat16", "float32", "float64"):
        theirs = torch.promote_types(getattr(torch, left), getattr(torch, right))
        assert pb.promote_types(ours.dtype, our_dtype(right)).name == expected_name(theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", RANKS.values(), ids=RANKS.keys())
def test_a_tensor_and_a_number_promote_as_in_pytorch(dtype, shape):
    ours, theirs = pb.zeros(shape, dtype=our_dtype(dtype)), torch.zeros(shape, dtype=getattr(torch, dtype))
    for number in NUMBERS:
        wanted = expected_name(torch.result_type(theirs, number))
        assert pb.result_type(ours, number).name == wanted
        assert (ours + number).dtype.name == wanted
        assert (number + ours).dtype.name == wanted


@pytest.mark.parametrize("dtype", DTYPES)
def test_division_and_functions_of_integers_give_the_default_float(dtype):
    ours, theirs = pb.ones(2, dtype=our_dtype(dtype)), torch.ones(2, dtype=getattr(torch, dtype))
    for function in (lambda x: x / x, lambda x: x / 2, lambda x: x.exp(), lambda x: x.sqrt(), lambda x: x.sigmoid()):
        assert function(ours).dtype.name == expected_name(function(theirs).dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_have_pytorchs_dtype(dtype):
    ours, theirs = pb.ones(2, dtype=our_dtype(dtype)), torch.ones(2, dtype=getattr(torch, dtype))
    assert ours.sum().dtype.name == expected_name(theirs.sum().dtype)
    assert ours.amax().dtype.name == expected_name(theirs.amax().dtype)


def test_gradients_have_the_dtype_of_what_they_are_for():
    x = pb.ones(2, dtype=pb.float16, requires_grad=True)
    y = pb.ones(2, dtype=pb.float64, requires_grad=True)
    (x * y).sum().backward()
    assert (x.grad.dtype, y.grad.dtype) == (pb.float16, pb.float64)


def test_an_in_place_operation_keeps_its_dtype_or_refuses():
    x = pb.ones(2, dtype=pb.float32)
    x += pb.ones(2, dtype=pb.float64)
    assert x.dtype is pb.float32
    integers = pb.ones(2, dtype=pb.int64)
    with pytest.raises(DTypeError, match="int64 into float32"):
        integers += 0.5
