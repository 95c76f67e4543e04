"""`Tensor` and PyTorch's former constructors called with sizes and with data, and the shapes that tensors have."""

import json
import warnings

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.errors import DTypeError, ShapeError
from pullback.tensor import autocast_mode

GIVEN = {
    "nothing": (),
    "one size": (3,),
    "sizes": (2, 3),
    "a shape": (torch.Size([2, 1]),),
    "a tuple": ((2, 3),),
    "a list": ([[1, 2], [3, 4]],),
    "no elements": ([],),
    "an array": (np.arange(3.0),),
}


@pytest.mark.parametrize("name", ["Tensor", "FloatTensor", "DoubleTensor", "LongTensor", "BoolTensor"])
@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_sizes_make_zeros_and_data_is_copied(name, given):
    ours = [pb.Size(g) if isinstance(g, torch.Size) else g for g in given]
    made, wanted = getattr(pb, name)(*ours), getattr(torch, name)(*given)
    assert (made.dtype.name, tuple(made.shape)) == (str(wanted.dtype)[6:], tuple(wanted.shape))
    is_data = bool(given) and not isinstance(given[0], (int, torch.Size))
    assert made.tolist() == (wanted.tolist() if is_data else torch.zeros_like(wanted).tolist())


def test_a_tensor_of_a_tensor_shares_its_elements_without_its_history():
    x = pb.ones(2, requires_grad=True)
    y = pb.Tensor(x)
    y[0] = 5
    assert x.tolist() == [5, 1] and not y.requires_grad
    assert pb.Tensor(pb.tensor([1, 2])).dtype is pb.int64
    with pytest.raises(DTypeError, match="LongTensor"):
        pb.LongTensor(x)


def test_what_is_neither_sizes_nor_data_is_refused():
    for given in ((5.0,), ("2",), (1.0, 2.0), (None,), ([1], [2])):
        with pytest.raises(TypeError, match=r"Tensor\(\) takes sizes"):
            pb.Tensor(*given)
    with pytest.raises(ShapeError, match="negative"):
        pb.Tensor(-1)
    with pytest.raises(TypeError, match="option"):
        pb.Tensor(2, option=1)


def test_constructors_follow_the_default_dtype_and_classes_know_theirs():
    pb.set_default_dtype(pb.float64)
    try:
        assert pb.Tensor(2).dtype is pb.float64 and pb.FloatTensor(2).dtype is pb.float32
    finally:
        pb.set_default_dtype(pb.float32)
    x = pb.ones(2)
    assert isinstance(x, pb.FloatTensor) and not isinstance(x, pb.LongTensor) and not isinstance(1.0, pb.FloatTensor)
    assert x.type(pb.LongTensor).type() == x.type("torch.LongTensor").type() == "torch.LongTensor"
    with pytest.raises(ValueError, match="FloatTensor"):
        x.type("float32")
    layer = pb.nn.Linear(1, 1)
    assert layer.type("torch.DoubleTensor").weight.dtype is pb.float64 is layer.to("cpu", pb.float64).weight.dtype
    variable = pb.autograd.Variable(x, requires_grad=True)
    assert variable.requires_grad and not x.requires_grad and isinstance(x, pb.autograd.Variable)


def test_constructors_in_compiled_steps():
    @pb.compile
    def step(x):
        return x + pb.Tensor([1, 2]) + pb.Tensor(2) + pb.Tensor(x)

    assert step(pb.ones(2)).tolist() == [3, 4]


def test_shapes_are_tuples_that_stay_shapes():
    shape = pb.ones(2, 3, 4).shape
    assert shape == (2, 3, 4) and hash(shape) == hash((2, 3, 4)) and isinstance(shape, tuple)
    made = (shape[1:], shape[:0], shape + (1,), (1,) + shape, shape * 2, 2 * shape, pb.ones(2, 3).size())  # noqa: RUF005
    assert all(type(s) is pb.Size for s in made)
    assert made == ((3, 4), (), (2, 3, 4, 1), (1, 2, 3, 4), (2, 3, 4) * 2, (2, 3, 4) * 2, (2, 3))
    assert shape.numel() == 24 and pb.Size().numel() == 1 and type(shape[-1]) is int
    assert repr(shape).replace("pullback", "torch") == repr(torch.Size(shape))
    batch, *rest = shape
    assert (batch, rest, json.dumps(shape)) == (2, [3, 4], "[2, 3, 4]")
    assert pb.zeros(shape).view(shape[0], shape[1:].numel()).expand(pb.Size([2, 12])).shape == (2, 12)
    with pytest.raises(TypeError, match="whole numbers"):
        pb.Size([1.5])
    assert np.zeros(shape).shape == shape and {shape: 1}[2, 3, 4] == 1


def test_graphs_hold_plain_tuples():
    x = pb.ones(2, 3).requires_grad_()
    made = [x.reshape(x.shape[::-1]), x.expand(x.shape), x.new_zeros(x.shape), pb.rand(x.shape), pb.Tensor(x.shape)]
    made += [x.sum(0).broadcast_to(x.shape), x.flatten().view(x.size()), pb.full(x.shape, 2.0), x.unsqueeze(0)[0]]
    for y in made:
        seen, ahead = set(), [y.node]
        while ahead:
            node = ahead.pop()
            assert type(node.shape) is tuple and type(node.attributes.get("shape", ())) is tuple, node
            ahead += [i for i in node.inputs if i not in seen]
            seen.update(node.inputs)


def test_shapes_can_be_arguments_of_steps_and_saved(tmp_path):
    @pb.compile
    def step(x, shape):
        return x.reshape(shape)

    assert step(pb.ones(6), pb.ones(2, 3).shape).shape == (2, 3)
    pb.save({"shape": pb.ones(2, 3).shape}, tmp_path / "file.safetensors")
    assert pb.load(tmp_path / "file.safetensors")["shape"] == (2, 3)


def test_former_spellings_keep_every_digit():
    assert pb.LongTensor((2**40 + 1, 3)).tolist() == [2**40 + 1, 3] == pb.LongTensor([2**40 + 1, 3]).tolist()
    x = pb.ones(1, dtype=pb.float64)
    assert x.new([0.1]).tolist() == [0.1] and x.new(2, 1).tolist() == [[0.0], [0.0]] and x.new(2).dtype is pb.float64
    raw = np.arange(4, dtype=np.int16).tobytes()
    assert pb.frombuffer(raw, dtype=pb.int16, count=2, offset=2).tolist() == [1, 2]
    with pytest.raises(ValueError, match="frombuffer"):
        pb.frombuffer(b"abc", dtype=pb.int16)


def test_what_scripts_ask_before_they_choose_a_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(autocast_mode._State, "warned", set())
    found = pb.accelerator.current_accelerator() if pb.accelerator.is_available() else "cpu"
    other = "mps" if pb.backends.mps.is_available() or pb.backends.cudnn.is_available() else "cpu"
    assert pb.device(found) == pb.device(other) == pb.get_default_device()
    pb.set_default_device(pb.device("cpu"))
    with pytest.raises(ValueError, match="cuda"):
        pb.set_default_device("cuda")
    with pytest.warns(UserWarning, match="no such device"):
        scaler = pb.amp.GradScaler()
    model = pb.nn.Linear(1, 1)
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    scaler.scale(model(pb.ones(1, 1)).sum()).backward()
    scaler.unscale_(optimizer)
    before = model.bias.item()
    scaler.step(optimizer)
    scaler.update()
    assert model.bias.item() == pytest.approx(before - 0.1)
    with pb.cuda.amp.autocast(enabled=False):
        assert model(pb.ones(1, 1)).dtype is pb.float32 and not pb.cuda.amp.GradScaler(enabled=False).is_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is told once that there is no such device
        assert pb.cuda.amp.GradScaler(512.0).get_scale() == 512.0  # the former place takes no device
    with pb.cpu.amp.autocast():
        assert model(pb.ones(1, 1)).dtype is pb.bfloat16
    assert pb.cpu.amp.GradScaler(256.0).get_scale() == 256.0


@pytest.mark.parametrize("draw", ["rand", "randn"])
def test_random_tensors_refuse_negative_sizes(draw: str) -> None:
    for shape in ((-1,), (2, -1)):
        with pytest.raises(pb.errors.ShapeError, match="negative sizes"):
            getattr(pb, draw)(*shape)
    with pytest.raises(pb.errors.ShapeError, match="negative sizes"):
        pb.randint(0, 3, (-1,))
    with pytest.raises(pb.errors.ShapeError, match="negative sizes"):
        pb.distributions.Normal(0.0, 1.0).sample((-1,))


def test_legacy_constructors_refuse_other_devices() -> None:
    for made in (lambda: pb.FloatTensor([1.0], device="cuda"), lambda: pb.LongTensor([1], device="foo")):
        with pytest.raises(ValueError, match="is not there"):
            made()


@pytest.mark.parametrize("value", [256, -1, -255, -256, 300, -129, -128, 2**31, 1.5, 300.7, float("nan")])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64"])
def test_whole_numbers_that_do_not_fit_are_refused_where_pytorch_refuses_them(value: float, dtype: str) -> None:
    for make in (
        lambda lib: lib.tensor([value], dtype=getattr(lib, dtype)),
        lambda lib: lib.full((2,), value, dtype=getattr(lib, dtype)),
    ):
        try:
            expected = make(torch).tolist()
        except RuntimeError:
            with pytest.raises(RuntimeError, match="without overflow"):
                make(pb)
        else:
            assert make(pb).tolist() == expected
