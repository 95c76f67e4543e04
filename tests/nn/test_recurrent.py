"""RNN, LSTM, GRU and their cells against PyTorch's: outputs, states and all gradients, for every option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback import debug
from pullback.errors import ShapeError

LAYERS = ("RNN", "LSTM", "GRU")
CELLS = ("RNNCell", "LSTMCell", "GRUCell")


def pair(name: str, *sizes: int, **options: Any) -> tuple[Any, Any]:
    """PyTorch's module, and ours with its parameters, in float64."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*sizes, **options).double()
    ours = getattr(pb.nn, name)(*sizes, dtype=pb.float64, **options)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    ours.load_state_dict({k: pb.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return theirs, ours


def given(*shape: int) -> tuple[torch.Tensor, pb.Tensor]:
    values = np.random.default_rng(sum(shape)).normal(size=shape)
    return torch.tensor(values, requires_grad=True), pb.tensor(values).requires_grad_()


def flat(results: Any) -> list[Any]:
    return [r for part in results for r in flat(part)] if isinstance(results, tuple) else [results]


def compare(theirs: Any, ours: Any, inputs: list[tuple[Any, Any]]) -> None:
    """Results and the gradients of their weighted sum by inputs and parameters."""
    expected, found = flat(theirs), flat(ours)
    assert len(expected) == len(found)
    for e, f in zip(expected, found, strict=True):
        assert tuple(e.shape) == f.shape
        np.testing.assert_allclose(f.detach().numpy(), e.detach().numpy(), rtol=1e-9, atol=1e-12)
    sum((i + 1) * (e * e).sum() for i, e in enumerate(expected)).backward()
    sum((i + 1) * (f * f).sum() for i, f in enumerate(found)).backward()
    for e, f in inputs:
        np.testing.assert_allclose(f.grad.numpy(), e.grad.numpy(), rtol=1e-8, atol=1e-11)


def run(modules: tuple[Any, Any], inputs: list[tuple[Any, Any]], state: list[tuple[Any, Any]] | None = None) -> None:
    results = []
    for side, module in enumerate(modules):
        x = [i[side] for i in inputs]
        if state is not None:
            parts = tuple(s[side] for s in state)
            x.append(parts if len(parts) == 2 else parts[0])
        results.append(module(*x))
    parameters = [(p, dict(modules[1].named_parameters())[n]) for n, p in modules[0].named_parameters()]
    compare(*results, [*inputs, *(state or []), *parameters])


OPTIONS = [
    {},
    dict(num_layers=2, batch_first=True),
    dict(bias=False),
    dict(bidirectional=True, num_layers=2),
]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: " ".join(o) or "plain")
def test_layers_are_pytorchs(name: str, options: dict[str, Any]) -> None:
    run(pair(name, 3, 4, **options), [given(5, 2, 3)])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_initial_states_are_taken_and_differentiated(name: str, backend: str) -> None:
    with debug.override(backend=backend):
        state = [given(4, 2, 4), given(4, 2, 4)][: 2 if name == "LSTM" else 1]
        run(pair(name, 3, 4, num_layers=2, bidirectional=True), [given(5, 2, 3)], state)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(1, 2, 3), (4, 1, 3), (6, 3), (1, 3)], ids=str)
def test_one_step_one_example_and_no_batch(name: str, shape: tuple[int, ...]) -> None:
    run(pair(name, 3, 4), [given(*shape)])


@pytest.mark.parametrize("name", LAYERS)
def test_states_without_a_batch(name: str) -> None:
    state = [given(1, 4), given(1, 4)][: 2 if name == "LSTM" else 1]
    run(pair(name, 3, 4), [given(5, 3)], state)


def test_relu_and_projections() -> None:
    run(pair("RNN", 3, 4, nonlinearity="relu", num_layers=2), [given(5, 2, 3)])
    run(pair("LSTM", 3, 4, num_layers=2, proj_size=2, bidirectional=True), [given(5, 2, 3)])
    run(pair("LSTM", 3, 4, proj_size=2), [given(5, 2, 3)], [given(1, 2, 2), given(1, 2, 4)])


def test_an_empty_batch() -> None:
    output, (h, c) = pb.nn.LSTM(3, 4)(pb.ones(5, 0, 3))
    assert output.shape == (5, 0, 4) and h.shape == c.shape == (1, 0, 4)
    assert output.sum().item() == 0


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("options", [{}, dict(bias=False)], ids=["bias", "no bias"])
def test_cells_are_pytorchs(name: str, options: dict[str, Any]) -> None:
    state = [given(2, 4), given(2, 4)][: 2 if name == "LSTMCell" else 1]
    run(pair(name, 3, 4, **options), [given(2, 3)], state)
    run(pair(name, 3, 4, **options), [given(2, 3)])
    run(pair(name, 3, 4, **options), [given(3)])


def test_a_relu_cell() -> None:
    run(pair("RNNCell", 3, 4, nonlinearity="relu"), [given(2, 3)])


def test_a_gradient_of_a_gradient_goes_through_a_layer() -> None:
    theirs, ours = pair("LSTM", 3, 4)
    (x, mine) = given(4, 2, 3)
    (g,) = torch.autograd.grad((theirs(x)[0] ** 2).sum(), x, create_graph=True)
    (h,) = pb.autograd.grad((ours(mine)[0] ** 2).sum(), mine, create_graph=True)
    (g * g).sum().backward()
    (h * h).sum().backward()
    np.testing.assert_allclose(mine.grad.numpy(), x.grad.numpy(), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.weight_hh_l0.grad.numpy(), theirs.weight_hh_l0.grad.numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_parameters_start_as_pytorchs(name: str) -> None:
    pb.manual_seed(0)
    for _, parameter in getattr(pb.nn, name)(300, 25).named_parameters():
        values = parameter.detach().numpy()
        assert np.abs(values).max() <= 0.2 and np.abs(values).max() > 0.15 and abs(values.mean()) < 0.1


def test_dropout_stands_between_layers_in_training_only() -> None:
    pb.manual_seed(0)
    network = pb.nn.LSTM(3, 8, num_layers=2, dropout=0.5)
    x = pb.ones(4, 2, 3)
    first, second = (network(x)[0].detach().numpy() for _ in range(2))
    assert (first != second).any()
    network.eval()
    first, second = (network(x)[0].detach().numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    with pytest.warns(UserWarning, match="between layers"):
        pb.nn.GRU(3, 4, dropout=0.5)


@pytest.mark.parametrize("dtype", [pb.bfloat16, pb.float16])
def test_layers_run_in_sixteen_bits(dtype: Any) -> None:
    theirs, _ = pair("LSTM", 3, 4)
    ours = pb.nn.LSTM(3, 4, dtype=dtype)
    ours.load_state_dict({k: pb.tensor(v.numpy()).to(dtype) for k, v in theirs.state_dict().items()})
    x, mine = given(5, 2, 3)
    output, (h, c) = ours(mine.detach().to(dtype))
    assert output.dtype is h.dtype is c.dtype is dtype
    np.testing.assert_allclose(output.detach().float().numpy(), theirs(x)[0].detach().numpy(), atol=2e-2)


def _under_autocast(library: Any, kind: str, dtype: str) -> list[Any]:
    """What the layer and the cell give of ones in a region, and the gradients by the layer's parameters."""
    layer, cell = getattr(library.nn, kind)(3, 4), getattr(library.nn, kind + "Cell")(3, 4)
    x = library.ones(5, 2, 3).to(getattr(library, dtype))
    with library.autocast("cpu", dtype=library.bfloat16):
        output, state = layer(x)
        after = cell(x[0])
    found = [output, *(part for ends in (state, after) for part in (ends if isinstance(ends, tuple) else (ends,)))]
    sum(part.float().sum() for part in found).backward()
    return [*found, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_under_autocast_layers_and_cells_give_pytorchs_dtypes(kind: str, dtype: str) -> None:
    ours, theirs = (_under_autocast(library, kind, dtype) for library in (pb, torch))
    assert [part.dtype.name for part in ours] == [str(part.dtype).removeprefix("torch.") for part in theirs]


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_autocast_lowers_the_products(kind: str) -> None:
    network, x = getattr(pb.nn, kind)(3, 4), pb.ones(5, 2, 3)
    with pb.autocast("cpu", dtype=pb.bfloat16):
        output, _ = network(x)
    plain, found = network(x)[0].detach().numpy(), output.detach().float().numpy()
    assert np.abs(found - plain).max() > 0
    np.testing.assert_allclose(found, plain, atol=2e-2)


def test_errors_say_what_is_wrong() -> None:
    network = pb.nn.LSTM(3, 4, batch_first=True)
    with pytest.raises(ShapeError, match=r"\[batch, steps, input\] or \[steps, input\] with input size 3"):
        network(pb.ones(2, 5, 4))
    with pytest.raises(ShapeError, match="no steps"):
        network(pb.ones(2, 0, 3))
    with pytest.raises(ShapeError, match=r"must be of shape \[1, 2, 4\] and \[1, 2, 4\], got \[1, 3, 4\]"):
        network(pb.ones(2, 5, 3), (pb.zeros(1, 3, 4), pb.zeros(1, 2, 4)))
    with pytest.raises(TypeError, match=r"pair \(h, c\)"):
        network(pb.ones(2, 5, 3), pb.zeros(1, 2, 4))
    with pytest.raises(TypeError, match="must be a tensor, got list"):
        network([1.0])
    with pytest.raises(ValueError, match="nonlinearity"):
        pb.nn.RNN(3, 4, nonlinearity="gelu")
    with pytest.raises(ValueError, match="positive"):
        pb.nn.GRU(3, 0)
    with pytest.raises(ValueError, match="proj_size"):
        pb.nn.LSTM(3, 4, proj_size=4)
    with pytest.raises(ShapeError, match=r"\[batch, 3\] or \[3\]"):
        pb.nn.GRUCell(3, 4)(pb.ones(2, 4))
    with pytest.raises(ShapeError, match=r"state must be of shape \[2, 4\]"):
        pb.nn.GRUCell(3, 4)(pb.ones(2, 3), pb.zeros(2, 5))
