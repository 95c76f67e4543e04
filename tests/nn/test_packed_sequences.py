"""Sequences of different lengths: padded and packed as PyTorch's, and recurrent layers over packed ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback import debug
from pullback.errors import DTypeError, ShapeError, TraceError

ours_rnn, theirs_rnn = pb.nn.utils.rnn, torch.nn.utils.rnn
LENGTHS = [3, 5, 1, 3]
LAYERS = [
    ("RNN", dict(nonlinearity="relu")),
    ("RNN", dict(num_layers=2, bidirectional=True, batch_first=True)),
    ("GRU", dict(num_layers=2, bidirectional=True)),
    ("GRU", dict(bias=False)),
    ("LSTM", dict(num_layers=2, bidirectional=True, proj_size=2)),
    ("LSTM", dict(num_layers=2, dropout=0.0)),
]


def sequences(library: Any, *sizes: int, lengths: list[int] = LENGTHS) -> list[Any]:
    """The same numbers in both libraries, in float64."""
    generator = np.random.default_rng(0)
    return [library.tensor(generator.normal(size=(n, *sizes))) for n in lengths]


def same(ours: Any, theirs: Any) -> None:
    """Assert equal tensors, or equal tuples and lists of such."""
    if isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    elif theirs is None:
        assert ours is None
    else:
        assert ours.dtype.name == str(theirs.dtype).removeprefix("torch.")
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("sizes", [(), (2,), (2, 0), (2, 3)], ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_pytorchs(sizes: tuple[int, ...], batch_first: bool, side: str) -> None:
    mine, other = sequences(pb, *sizes), sequences(torch, *sizes)
    padded = ours_rnn.pad_sequence(mine, batch_first, 7, side)
    same(padded, theirs_rnn.pad_sequence(other, batch_first, 7, side))
    if side == "right":
        same(ours_rnn.unpad_sequence(padded, pb.tensor(LENGTHS), batch_first), other)


@pytest.mark.parametrize("sizes", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [[5, 3, 3, 1], [3, 5, 1, 3], [2, 2], [1]], ids=str)
def test_packing_is_pytorchs(sizes: tuple[int, ...], batch_first: bool, lengths: list[int]) -> None:
    falling = sorted(lengths, reverse=True) == lengths
    mine, other = (sequences(library, *sizes, lengths=lengths) for library in (pb, torch))
    same(
        list(ours_rnn.pack_sequence(mine, enforce_sorted=falling)),
        list(theirs_rnn.pack_sequence(other, enforce_sorted=falling)),
    )
    padded, theirs_padded = ours_rnn.pad_sequence(mine, batch_first), theirs_rnn.pad_sequence(other, batch_first)
    packed = ours_rnn.pack_padded_sequence(padded, pb.tensor(lengths), batch_first, falling)
    theirs = theirs_rnn.pack_padded_sequence(theirs_padded, torch.tensor(lengths), batch_first, falling)
    same(list(packed), list(theirs))
    same(ours_rnn.unpack_sequence(packed), theirs_rnn.unpack_sequence(theirs))
    for total in (None, 6):
        same(
            ours_rnn.pad_packed_sequence(packed, batch_first, -1.5, total),
            theirs_rnn.pad_packed_sequence(theirs, batch_first, -1.5, total),
        )


def test_a_packed_sequence_has_pytorchs_forms() -> None:
    packed = ours_rnn.pack_sequence([pb.tensor([1, 2, 3]), pb.tensor([4])])
    theirs = theirs_rnn.pack_sequence([torch.tensor([1, 2, 3]), torch.tensor([4])])
    assert repr(packed) == repr(theirs)
    assert packed.to(pb.int64) is packed and packed.double().data.dtype is pb.float64
    assert type(packed.float()) is ours_rnn.PackedSequence and packed.cpu() is packed and not packed.is_cuda
    again = ours_rnn.PackedSequence((packed.data, packed.batch_sizes), sorted_indices=pb.tensor([1, 0, 2]))
    assert again.unsorted_indices.tolist() == [1, 0, 2]
    order = pb.tensor([2, 0, 1])
    assert ours_rnn.invert_permutation(order).tolist() == order.argsort().tolist()
    with pytest.raises(ValueError, match="cuda"):
        packed.cuda()


def test_gradients_go_through_packing_and_padding() -> None:
    gradients = []
    for library, rnn in ((pb, ours_rnn), (torch, theirs_rnn)):
        x = sequences(library, 3, lengths=[6])[0].reshape(2, 3, 3).requires_grad_()
        packed = rnn.pack_padded_sequence(x, [1, 3], batch_first=True, enforce_sorted=False)
        padded, _ = rnn.pad_packed_sequence(packed._replace(data=packed.data**3), total_length=4)
        (first,) = library.autograd.grad((padded**2).sum(), x, create_graph=True)
        gradients.append((first, *library.autograd.grad((first**2).sum(), x)))
    same(*gradients)


def pair(name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Our layer and PyTorch's, of the same parameters, in float64."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(3, 4, **options).double()
    ours = getattr(pb.nn, name)(3, 4, dtype=pb.float64, **options)
    ours.load_state_dict({k: pb.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return ours, theirs


def passed(library: Any, rnn: Any, layer: Any, lengths: list[int], state: bool) -> list[Any]:
    """Outputs, last states, and gradients of a sum over all by the input, the states and the parameters."""
    x = [one.requires_grad_() for one in sequences(library, 3, lengths=lengths)]
    packed = rnn.pack_sequence(x, enforce_sorted=False)
    directions = layer.num_layers * (1 + layer.bidirectional)
    sizes = [layer.proj_size or 4, 4] if layer.mode == "LSTM" else [4]
    generator = np.random.default_rng(1)
    start = [library.tensor(generator.normal(size=(directions, len(lengths), n))).requires_grad_() for n in sizes]
    hx = () if not state else (tuple(start) if layer.mode == "LSTM" else start[0],)
    output, last = layer(packed, *hx)
    ends = list(last) if isinstance(last, tuple) else [last]
    loss = sum((number + 1) * (part**2).sum() for number, part in enumerate([output.data, *ends]))
    wanted = [*x, *(start if state else []), *layer.parameters()]
    return [list(output), ends, list(library.autograd.grad(loss, wanted))]


@pytest.mark.parametrize("name, options", LAYERS, ids=str)
def test_layers_over_packed_sequences_are_pytorchs(name: str, options: dict[str, Any]) -> None:
    ours, theirs = pair(name, options)
    for lengths, state in ((LENGTHS, True), (LENGTHS, False), ([2, 2], True), ([3], False)):
        with debug.override(backend="reference"):
            found = passed(pb, ours_rnn, ours, lengths, state)
        same(found, passed(torch, theirs_rnn, theirs, lengths, state))


@pytest.mark.parametrize("name, options", LAYERS[2:5:2], ids=str)
def test_native_code_gives_them_too(name: str, options: dict[str, Any]) -> None:
    ours, theirs = pair(name, options)
    with debug.override(backend="native"):
        found = passed(pb, ours_rnn, ours, LENGTHS, True)
    same(found, passed(torch, theirs_rnn, theirs, LENGTHS, True))


def test_an_infinite_input_stays_in_its_sequence() -> None:
    layer = pb.nn.GRU(1, 2)
    x = pb.tensor([[[1.0], [float("nan")]], [[2.0], [0.0]], [[3.0], [0.0]]]).requires_grad_()
    output, h = layer(ours_rnn.pack_padded_sequence(x, [3, 1]))
    padded, _ = ours_rnn.pad_packed_sequence(output)
    assert not padded[:, 0].isnan().any() and padded[0, 1].isnan().all() and (padded[1:, 1] == 0).all()
    h[:, 0].sum().backward()
    assert x.grad[:, 0].isfinite().all()


def test_compiled_steps_take_lengths_that_are_python_numbers() -> None:
    results = []
    for compile_ in (pb.compile, lambda function: function):
        ours, _ = pair("LSTM", dict(num_layers=2, bidirectional=True))
        optimizer = pb.optim.SGD(ours.parameters(), lr=0.1)

        def step(x, lengths, layer=ours, optimizer=optimizer):
            optimizer.zero_grad()
            packed = ours_rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
            again = ours_rnn.PackedSequence(packed.data * 2, *packed[1:])
            output, (h, _) = layer(again)
            padded, counts = ours_rnn.pad_packed_sequence(output)
            loss = (padded**2).sum() + h.sum()
            loss.backward()
            optimizer.step()
            return loss, counts

        run, x = compile_(step), ours_rnn.pad_sequence(sequences(pb, 3))
        results.append([[part.tolist() for part in run(x, lengths)] for lengths in ([3, 5, 1, 3], [5, 2, 2, 1])])
        results[-1].append([p.tolist() for p in ours.parameters()])
    for found, wanted in zip(*results, strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_errors_say_what_is_wrong() -> None:
    x, layer = pb.ones(4, 2, 3), pb.nn.LSTM(3, 4)
    with pytest.raises(ValueError, match=r"lengths must fall, got \[1, 2\].*enforce_sorted=False"):
        ours_rnn.pack_padded_sequence(x, [1, 2])
    with pytest.raises(ValueError, match=r"from 1 to the 4 steps of the input, got \[5, 1\]"):
        ours_rnn.pack_padded_sequence(x, [5, 1])
    with pytest.raises(ValueError, match=r"from 1 to the 4 steps of the input, got \[2, 0\]"):
        ours_rnn.pack_padded_sequence(x, [2, 0])
    with pytest.raises(ShapeError, match="3 lengths for a batch of 2"):
        ours_rnn.pack_padded_sequence(x, [4, 2, 1])
    with pytest.raises(ShapeError, match="not empty"):
        ours_rnn.pack_padded_sequence(pb.ones(0, 2, 3), [1, 1])
    with pytest.raises(ValueError, match="padding_side must be 'left' or 'right', got 'up'"):
        ours_rnn.pad_sequence([x], padding_side="up")
    with pytest.raises(ShapeError, match=r"alike but for the steps, got \[\[4, 2, 3\], \[4, 2\]\]"):
        ours_rnn.pad_sequence([x, x[..., 0]])
    with pytest.raises(ShapeError, match="at least one tensor"):
        ours_rnn.pad_sequence([])
    packed = ours_rnn.pack_padded_sequence(x, [4, 2])
    with pytest.raises(ValueError, match="total_length 3 is less than the longest sequence, 4"):
        ours_rnn.pad_packed_sequence(packed, total_length=3)
    with pytest.raises(ShapeError, match=r"packed data must be \[steps, input\] with input size 3, got \[6, 2\]"):
        layer(packed._replace(data=packed.data[:, :2]))
    with pytest.raises(ShapeError, match=r"initial state must be of shape \[1, 2, 4\]"):
        layer(packed, (pb.ones(1, 3, 4), pb.ones(1, 3, 4)))
    with pytest.raises(ShapeError, match=r"are 6 steps, but data is \[5, 3\]"):
        layer(packed._replace(data=packed.data[1:]))
    with pytest.raises(TypeError, match="a PackedSequence is needed, got Tensor"):
        ours_rnn.pad_packed_sequence(x)
    with pytest.raises(DTypeError, match=r"input is float64 and the weights are float32.*convert one"):
        layer(packed.double())
    with pytest.raises(TraceError, match="lengths must be known when a compiled step is recorded"):
        pb.compile(lambda x, lengths: ours_rnn.pack_padded_sequence(x, lengths).data)(x, pb.tensor([4, 2]))
