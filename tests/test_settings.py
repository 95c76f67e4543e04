"""What scripts for PyTorch ask before they begin."""

import pytest
import torch

import pullback as pb


def test_devices_and_settings_say_what_is_so() -> None:
    assert not pb.cuda.is_available() and pb.cuda.device_count() == 0
    pb.cuda.manual_seed_all(0)
    with pytest.raises(AttributeError, match="no GPU"):
        _ = pb.cuda.synchronize
    pb.use_deterministic_algorithms(True)
    pb.set_float32_matmul_precision("highest")
    with pytest.raises(ValueError, match="highest"):
        pb.set_float32_matmul_precision("high")
    assert pb.Generator(7).initial_seed() == 7


def test_repeats_by_a_tensor_inside_a_step_ask_for_the_size() -> None:
    def step(x: pb.Tensor, n: pb.Tensor) -> pb.Tensor:
        return x.repeat_interleave(n)

    with pytest.raises(pb.errors.TraceError, match="output_size"):
        pb.compile(step)(pb.ones(2), pb.tensor([1, 2]))


@pytest.mark.parametrize("call", ["x.hardshrink(0.6)", "x.prelu(0.5 * one)"])
def test_methods(call: str) -> None:
    ours, theirs = (eval(call, {"x": f.tensor([-1.0, 0.5, 2.0]), "one": f.ones(1)}).tolist() for f in (pb, torch))
    assert ours == theirs


def test_gradients_that_differ_from_pytorchs_on_purpose() -> None:
    x, a, b = pb.zeros(2, requires_grad=True), pb.eye(2).requires_grad_(), pb.zeros(2, requires_grad=True)
    (pb.xlogy(x, x).sum() + pb.linalg.eigh(a)[1].sum()).backward()
    given = pb.ones(3, 2, requires_grad=True)
    slope = pb.autograd.grad(pb.relu(given + b).sum(), given, create_graph=True)[0]
    (slope * given).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0] and a.grad.tolist() == [[0.0, 0.0]] * 2 and b.grad is None
