"""A product of a column and a row is a multiplication, which fuses with what reads it."""

import numpy as np
import pytest

import pullback as pb
from pullback import nn, optim
from pullback.compiler.groups import LOOP, PRODUCT

native_only = pytest.mark.native("the reference has no kernels")


def groups(step):
    return [group for _, group in step.program.kernels()]


@native_only
@pytest.mark.parametrize("dtype", [pb.float32, pb.float64, pb.float16, pb.bfloat16])
@pytest.mark.parametrize("batch", [(), (3,), (2, 5)])
@pytest.mark.parametrize("turned", [False, True])
def test_an_outer_product_is_rounded_once_and_needs_no_product_kernel(dtype, batch, turned):
    generator = np.random.default_rng(0)
    a, b = (pb.tensor(generator.normal(size=(*batch, n, 1)).astype(np.float32)).to(dtype) for n in (17, 40))

    @pb.compile
    def product(a, b):
        return (b @ a.transpose(-1, -2)).transpose(-1, -2) if turned else a @ b.transpose(-1, -2)

    result = product(a, b)
    wanted = (a.double() * b.double().transpose(-1, -2)).to(dtype)
    assert np.array_equal(result.float().numpy(), wanted.float().numpy())
    assert {group.kind for group in groups(product)} == {LOOP}


@native_only
def test_the_gradient_of_a_weight_at_batch_1_is_made_where_the_optimizer_reads_it():
    pb.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 40), nn.Sigmoid(), nn.Linear(40, 8))
    optimizer = optim.Adam(model.parameters())
    x = pb.randn(1, 24)

    @pb.compile
    def step():
        optimizer.zero_grad()
        loss = (model(x) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    step()
    products = [group for group in groups(step) if group.kind == PRODUCT]
    # two forward, and one that takes the cotangent through the second layer
    assert len(products) == 3
    for weight in (model[0].weight, model[2].weight):
        size = weight.numel()
        assert sum(group.size == size and group.kind == LOOP for group in groups(step)) == 1
    with pb.no_grad():
        assert model[0].weight.grad is not None


@native_only
def test_what_no_row_changes_is_computed_once_for_all_rows():
    x, row, number = pb.randn(40, 24), pb.randn(24), pb.tensor(0.5, dtype=pb.float64)

    @pb.compile
    def scaled(x, row, number):
        return (1 - number).sqrt() * (x * row + x.sum(1, keepdim=True))

    result = scaled(x, row, number)
    wanted = (x.double() * row.double() + x.double().sum(1, keepdim=True)) * np.sqrt(0.5)
    np.testing.assert_allclose(result.numpy(), wanted.numpy(), rtol=2e-5, atol=1e-5)
    (text,) = {launch.code.text for launch, group in scaled.program.kernels() if group.row == 24}
    assert "sqrt" in text.partition("\nhead")[0].partition("entry:")[2]
