"""What PyTorch's tensors have is there, or says why it is not; and how tensors are made, copied and read."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.tensor.absent import ABSENT


def test_what_is_not_there_says_why() -> None:
    theirs = {name for name in dir(torch.Tensor) if not name.startswith("_")}
    missing = {name for name in theirs if not hasattr(pb.Tensor, name)}
    assert missing - ABSENT.keys() == set()
    assert {name for name in ABSENT if hasattr(pb.ones(1), name)} == set()
    with pytest.raises(AttributeError, match=r"Tensor\.untyped_storage is not there: .* no storage"):
        pb.ones(1).untyped_storage()
    with pytest.raises(AttributeError, match="one device"):
        pb.ones(1).cuda()


def test_constructors_take_their_elements_by_name() -> None:
    assert pb.Tensor(data=[1, 2]).tolist() == [1.0, 2.0] and pb.LongTensor(data=[1]).tolist() == [1]
    for wrong in (lambda: pb.Tensor([1], data=[2]), lambda: pb.Tensor(2, elements=1), lambda: pb.FloatTensor(size=2)):
        with pytest.raises(TypeError):
            wrong()
    assert pb.ones(2, dtype=pb.int64).type(pb.Tensor).dtype is pb.float32
    assert pb.ones(2).type("torch.LongTensor").dtype is pb.ones(2).type(pb.LongTensor).dtype is pb.int64
    for name in ("new_zeros", "new_ones", "new_empty"):
        assert getattr(pb.ones(1), name)(size=(2, 2), dtype=pb.int64, device="cpu").shape == (2, 2)
        with pytest.raises(TypeError, match="size"):
            getattr(pb.ones(1), name)()


@pytest.mark.parametrize("lib", [pb, torch], ids=["pullback", "torch"])
def test_copies(lib: Any) -> None:
    leaf = lib.ones(2, requires_grad=True)
    (leaf * 2).sum().backward()
    leaf.tag = ["x"]
    twin = copy.deepcopy(leaf)
    assert twin.tag == ["x"] and twin.tag is not leaf.tag and twin.grad.tolist() == [2, 2]
    twin.grad.zero_()
    assert leaf.grad.tolist() == [2, 2] and twin.is_leaf and twin.requires_grad
    parameter = lib.nn.Parameter(lib.ones(2))
    parameter.grad = lib.ones(2)
    assert copy.deepcopy(parameter).grad is None
    with pytest.raises(RuntimeError, match="Only Tensors created explicitly"):
        copy.deepcopy(leaf * 2)
    first, second = copy.deepcopy([leaf, leaf])
    assert first is second


@pytest.mark.parametrize("lib", [pb, torch], ids=["pullback", "torch"])
def test_reading(lib: Any) -> None:
    x = lib.tensor([[1, 2], [3, 4]])
    assert reversed(x).tolist() == [[3, 4], [1, 2]] and reversed(lib.tensor(1)).item() == 1
    assert 3 in x and 5 not in x and lib.tensor([1, 2]) in x
    with pytest.raises(RuntimeError, match="only supports Tensor or scalar"):
        _ = "a" in x
    with pytest.raises(TypeError, match="unsupported format string"):
        f"{x:.2f}"
    assert f"{lib.tensor(1.5):.3f} {lib.tensor(3):3d} {lib.tensor(True)}" == "1.500   3 True"
    base = lib.arange(6).reshape(2, 3)
    size = base.element_size()
    assert base[1].data_ptr() - base.data_ptr() == 3 * size and base.t().data_ptr() == base.data_ptr()
    assert base[:, 1:].data_ptr() - base.view(-1).data_ptr() == size and base.detach().data_ptr() == base.data_ptr()
    assert base.clone().data_ptr() != base.data_ptr()
    for dtype in ("float16", "bfloat16", "float64", "int8", "uint8", "int16", "int32", "bool", "uint16", "uint64"):
        held = x.to(getattr(lib, dtype)).tolist()
        assert type(held[0][0]) is (bool if dtype == "bool" else float if "float" in dtype else int)
    assert not (x.is_pinned() or x.is_shared() or x.is_inference() or x.is_distributed())


@pytest.mark.parametrize("lib", [pb, torch], ids=["pullback", "torch"])
def test_python_functions_of_elements(lib: Any) -> None:
    x = lib.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert x.apply_(lambda v: v * 3) is x and x.tolist() == [[3, 6], [9, 12]]
    x[0].apply_(lambda v: 0.0)
    assert x.map_(lib.tensor([[10.0, 20], [30, 40]]), lambda a, b: a + b).tolist() == [[10, 20], [39, 52]]
    pair = lib.tensor([2.0, 3.0])
    assert lib.ones(2).map2_(pair, pair, lambda a, b, c: a + b * c).tolist() == [5, 10]
    assert lib.zeros(0).apply_(lambda v: v).shape == (0,)
    with pytest.raises(RuntimeError, match="requires grad"):
        lib.ones(2, requires_grad=True).apply_(lambda v: v)


def test_python_functions_have_no_place_in_a_step() -> None:
    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        return x.apply_(lambda v: v + 1)

    with pytest.raises(pb.errors.TraceError, match="apply_"):
        step(pb.ones(2))
    np.testing.assert_array_equal(np.sqrt(pb.tensor([4.0])), [2.0])
