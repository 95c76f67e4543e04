"""Operands that a matrix product computes as it packs them: values, memory, and the bits of any number of threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import pullback as pb
from pullback import debug, quant
from pullback.runtime import layout
from pullback.runtime.jit import host_target


class Weight:
    """A weight in one of the forms, with the numbers that it stands for."""

    def __init__(self, kind: str, rows: int, columns: int):
        x = pb.tensor(np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float32))
        self.kind = kind
        if kind == "int8":
            self.codes, self.state = quant.int8_vectorwise_quant(x)
            read = (self.codes, self.state)
        elif kind == "bytes":
            self.codes, self.state = (x * 50).to(pb.int8), None
            read = (self.codes,)
        else:
            nested = "nested" in kind
            self.codes, self.state = quant.quantize_4bit(x, compress_statistics=nested, quant_type=kind[:3])
            inner = self.state.state2
            read = (self.codes, self.state.absmax, *(() if inner is None else (inner.absmax, inner.offset)))
        for tensor in read:
            tensor.numpy()
        self.numbers = self.tensor().numpy().astype(np.float64)

    def tensor(self) -> pb.Tensor:
        """The weight in floats, as nodes."""
        if self.kind == "int8":
            return quant.int8_vectorwise_dequant(self.codes, self.state)
        return quant.dequantize_4bit(self.codes, self.state) if self.state else self.codes.float() * 0.02 + 1.0


def close(found: pb.Tensor, left: np.ndarray, right: np.ndarray) -> None:
    wanted, size = left @ right, abs(left) @ abs(right)
    bound = (4 + np.sqrt(left.shape[-1])) * 2.0**-24 * size
    assert (abs(found.detach().numpy() - wanted) <= bound).all()


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


CASES = [
    ("nf4", 1, 96, 128), ("nf4", 37, 65, 71), ("nf4", 300, 160, 448), ("fp4, nested", 5, 64, 64),
    ("fp4, nested", 64, 33, 1030), ("int8", 1, 65, 71), ("int8", 40, 96, 300), ("bytes", 70, 64, 130),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "m", "n", "k"), CASES)
def test_products_and_gradients(kind: str, m: int, n: int, k: int) -> None:
    weight, x, g = Weight(kind, n, k), numbers(m, k), numbers(m, n)

    def run(x: pb.Tensor, g: pb.Tensor) -> tuple[pb.Tensor, ...]:
        x = x.detach().requires_grad_()
        found = x @ weight.tensor().T
        return found, pb.autograd.grad(found, x, g)[0], weight.tensor() @ x.detach().T

    with debug.override(verify=True):
        plan = pb.plan(run, pb.tensor(x), pb.tensor(g))
        forward, backward, mirrored = pb.compile(run)(pb.tensor(x), pb.tensor(g))
    close(forward, x, weight.numbers.T)
    close(backward, g, weight.numbers)
    close(mirrored, weight.numbers, x.T)
    floats = [b for b in plan.buffers if b.nbytes >= 4 * n * k]
    assert n * k < 4096 or all(b.nbytes in (4 * m * k, 4 * m * n) or "workspace" in b.what for b in floats), floats


def test_the_bits_are_those_of_any_number_of_threads_and_no_weight_in_floats_is_held() -> None:
    weight, x = Weight("fp4, nested", 520, 640), pb.tensor(numbers(96, 640))
    layer = pb.compile(lambda x: (x @ weight.tensor().T).tanh() @ weight.tensor())
    found = []
    for threads in (1, 2, 3):
        with debug.override(num_threads=threads):
            found.append(layer(x).numpy().tobytes())
    assert found[0] == found[1] == found[2]
    plan = pb.plan(lambda x: (x @ weight.tensor().T).tanh() @ weight.tensor(), x)
    assert plan.peak_bytes < 4 * 520 * 640


@pytest.mark.parametrize("width", [16, 32])
def test_narrower_processors(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    target = replace(host_target(), vector_bytes=width, registers=16, has_bf16=False)
    if width == 16:
        target = replace(target, cpu="", features="")
    monkeypatch.setattr(layout, "host_target", lambda: target)
    weight, x = Weight("nf4", 96, 192), numbers(40, 192)
    found = pb.compile(lambda x: (x @ weight.tensor().T, weight.tensor().T @ x[:, :96].T))(pb.tensor(x))
    close(found[0], x, weight.numbers.T)
    close(found[1], weight.numbers.T, x[:, :96].T)


def test_a_batch_a_part_and_low_precision() -> None:
    weight, x = Weight("nf4", 128, 192), numbers(2, 3, 40, 192)

    def run(x: pb.Tensor) -> tuple[pb.Tensor, ...]:
        part = weight.tensor()[32:96, 1:].T
        return x @ weight.tensor().T, x[..., 1:] @ part, x.bfloat16() @ weight.tensor().bfloat16().T

    whole, part, low = pb.compile(run)(pb.tensor(x))
    close(whole, x, weight.numbers.T)
    close(part, x[..., 1:], weight.numbers[32:96, 1:].T)
    wanted = x @ weight.numbers.T
    assert abs(low.float().numpy() - wanted).max() < 2.0**-6 * abs(wanted).max()


def test_a_value_that_is_wanted_is_read_from_memory() -> None:
    weight, x = Weight("int8", 96, 128), numbers(40, 128)

    def run(x: pb.Tensor) -> tuple[pb.Tensor, ...]:
        made = weight.tensor()
        return made, x @ made.T, made.sum()

    made, product, total = pb.compile(run)(pb.tensor(x))
    np.testing.assert_array_equal(made.numpy(), weight.numbers.astype(np.float32))
    close(product, x, weight.numbers.T)
    np.testing.assert_allclose(total.item(), weight.numbers.sum(), atol=1e-3)
