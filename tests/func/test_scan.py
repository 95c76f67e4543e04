"""scan against a loop in Python: values, gradients of any order, what it keeps, and how it is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pullback as pb
from pullback import debug
from pullback.autograd import gradcheck, gradgradcheck
from pullback.errors import CompileError, DTypeError, IndexOutOfRange, ShapeError, TraceError
from pullback.graph.node import reachable
from pullback.runtime.jit import statistics

scan = pb.func.scan


def looped(f: Callable[..., Any], carry: Any, xs: Any, reverse: bool = False) -> tuple[Any, Any]:
    """What scan means, for xs a tensor and y a tuple of tensors."""
    found = [()] * xs.shape[0]
    for step in reversed(range(xs.shape[0])) if reverse else range(xs.shape[0]):
        carry, found[step] = f(carry, xs[step])
    return carry, tuple(pb.stack(list(some)) for some in zip(*found, strict=True))


def drawn(*shape: int, dtype: Any = pb.float64, grad: bool = True) -> pb.Tensor:
    return pb.tensor(np.random.default_rng(sum(shape)).normal(size=shape), dtype=dtype).requires_grad_(grad)


def recurrent(h: Any, x: Any, w: Any, k: Any) -> tuple[Any, Any]:
    """A product, a gate, a value that only an output needs, and a product of that."""
    h = (h @ w + x).tanh() * k
    return h, (h * h, h @ w.T)


def total(loop: Callable[..., Any], reverse: bool) -> Callable[..., pb.Tensor]:
    def run(w: Any, x: Any, h: Any, k: Any) -> pb.Tensor:
        h, (y, z) = loop(lambda carry, row: recurrent(carry, row, w, k), h, x, reverse=reverse)
        return (h * h * h).sum() + (y * x).sum() + (z * z).sum()

    return run


OPERANDS = (4, 4), (5, 3, 4), (3, 4), (4,)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_values_and_gradients_are_those_of_the_loop(reverse: bool, backend: str) -> None:
    operands = [drawn(*shape) for shape in OPERANDS]
    with debug.override(backend=backend, verify=True):
        ours, theirs = total(scan, reverse)(*operands), total(looped, reverse)(*operands)
        np.testing.assert_allclose(ours.item(), theirs.item(), rtol=1e-12)
        found = pb.autograd.grad(ours, operands)
        expected = pb.autograd.grad(theirs, operands)
        for mine, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_first_and_second_derivatives_are_those_of_finite_differences(reverse: bool) -> None:
    operands = [drawn(*shape) for shape in ((2, 2), (3, 1, 2), (1, 2), (2,))]
    assert gradcheck(total(scan, reverse), operands)
    assert gradgradcheck(total(scan, reverse), operands)


@pytest.mark.parametrize("dtype", [pb.float32, pb.float16, pb.bfloat16])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 17), (2, 0, 4)])
def test_dtypes_and_sizes(dtype: Any, sizes: tuple[int, int, int]) -> None:
    steps, batch, width = sizes
    shapes = (width, width), (steps, batch, width), (batch, width), (width,)
    operands = [(drawn(*shape, grad=False) * 0.3).to(dtype).requires_grad_() for shape in shapes]
    ours, theirs = (total(loop, False)(*operands) for loop in (scan, looped))
    tolerance = {pb.float32: 1e-5, pb.float16: 2e-2, pb.bfloat16: 1e-1}[dtype]
    np.testing.assert_allclose(ours.float().item(), theirs.float().item(), rtol=tolerance, atol=tolerance)
    found, expected = (pb.autograd.grad(loss, operands) for loss in (ours, theirs))
    for mine, other in zip(found, expected, strict=True):
        assert mine.dtype is dtype
        scale = max(1.0, np.abs(other.float().numpy()).max(initial=0))
        assert np.abs(mine.float().numpy() - other.float().numpy()).max(initial=0) <= tolerance * scale


def test_a_directional_derivative_is_that_of_the_loop() -> None:
    operands = tuple(drawn(*shape, grad=False) for shape in OPERANDS)
    tangents = tuple(drawn(*shape, grad=False) * 0.5 for shape in OPERANDS)
    ours, theirs = (pb.func.jvp(total(loop, False), operands, tangents) for loop in (scan, looped))
    np.testing.assert_allclose(ours[1].item(), theirs[1].item(), rtol=1e-11)


def test_a_compiled_step_gives_the_bits_of_an_undecorated_one() -> None:
    operands = [drawn(*shape, dtype=pb.float32) for shape in ((64, 64), (9, 33, 64), (33, 64), (64,))]

    def gradients() -> tuple[pb.Tensor, ...]:
        return pb.autograd.grad(total(scan, False)(*operands), operands)

    for mine, other in zip(gradients(), pb.compile(gradients)(), strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy())


def test_any_number_of_threads_gives_the_same_bits() -> None:
    operands = [drawn(*shape, dtype=pb.float32) for shape in ((96, 96), (7, 70, 96), (70, 96), (96,))]

    def gradients() -> tuple[pb.Tensor, ...]:
        return pb.autograd.grad(total(scan, True)(*operands), operands)

    before, results = pb.get_num_threads(), []
    try:
        for threads in (1, 3):
            pb.set_num_threads(threads)
            results.append([g.numpy() for g in pb.compile(gradients)()])
    finally:
        pb.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one, three)


def test_trees_none_and_a_length_alone() -> None:
    def step(carry: Any, x: None) -> tuple[Any, Any]:
        assert x is None
        a, rest = carry
        return (a + rest["b"], {"b": a, "none": None}), {"sum": [a + rest["b"]], "nothing": None}

    start = pb.tensor(1.0), {"b": pb.tensor(0.0), "none": None}
    (last, rest), found = scan(step, start, None, length=7)
    assert last.item() == 21 and rest["b"].item() == 13 and rest["none"] is None and found["nothing"] is None
    assert found["sum"][0].tolist() == [1, 2, 3, 5, 8, 13, 21]


def test_no_steps_give_back_what_they_began_with() -> None:
    x, start = drawn(0, 3), drawn(3)
    last, y = scan(lambda carry, row: (carry * row, carry + row), start, x)
    assert last.tolist() == start.tolist() and y.shape == (0, 3)
    (last.sum() + y.sum()).backward()
    assert start.grad.tolist() == [1.0, 1.0, 1.0]


def test_carries_that_swap_and_stay() -> None:
    """What a step gives may be what it was given: the places of the carries must not be mixed up."""
    x = drawn(5, 3)

    def step(carry: Any, row: Any) -> tuple[Any, Any]:
        a, b, c = carry
        return (b, a * row, c), (a, a, b, row, c)

    start = drawn(3), drawn(3) + 1, drawn(3) + 2
    ours, theirs = scan(step, start, x), looped(step, start, x)
    for mine, other in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        np.testing.assert_array_equal(mine.detach().numpy(), other.detach().numpy())
    losses = [sum(((i + 1) * t * t).sum() for i, t in enumerate((*r[0], *r[1]))) for r in (ours, theirs)]
    found, expected = (pb.autograd.grad(loss, [x, *start[:1]]) for loss in losses)
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-12)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_an_inner_loop_reads_what_the_outer_one_carries(backend: str, kept: bool) -> None:
    x = drawn(4)

    def run(loop: Callable[..., Any]) -> tuple[pb.Tensor, ...]:
        rows = pb.ones(3, 1, dtype=pb.float64)

        def outer(carry: Any, _: Any) -> tuple[Any, Any]:
            inner = loop(lambda d, _: (d * carry, ()), carry[:2].sum() * pb.ones(4, dtype=pb.float64), rows)[0]
            deeper = loop(
                lambda d, _: (loop(lambda f, _: (f * carry[1:2] + carry, ()), d, rows)[0] * 0.1, ()), inner, rows
            )[0]
            return deeper.tanh(), (carry,) if kept else ()

        carry, held = loop(outer, x, rows)
        loss = (carry * carry).sum() + sum((h * h).sum() for h in held)
        return carry, *pb.autograd.grad(loss, [x])

    with debug.override(backend=backend):
        for ours, theirs in zip(run(scan), run(looped), strict=True):
            np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_loop_within_a_loop(backend: str) -> None:
    x, w, start = drawn(3, 4, 2), drawn(2, 2), drawn(2)

    def run(loop: Callable[..., Any]) -> Callable[..., pb.Tensor]:
        def whole(x: Any, w: Any, start: Any) -> pb.Tensor:
            def inner(carry: Any, row: Any) -> tuple[Any, Any]:
                carry = (carry @ w + row).tanh()
                return carry, (carry * carry,)

            def outer(carry: Any, rows: Any) -> tuple[Any, Any]:
                carry, (squares,) = loop(inner, carry, rows)
                return carry * 0.9, (squares * rows, carry)

            carry, (a, b) = loop(outer, start, x)
            return (carry * carry).sum() + (a * a).sum() + b.sum()

        return whole

    with debug.override(backend=backend):
        ours, theirs = (run(loop)(x, w, start) for loop in (scan, looped))
        np.testing.assert_allclose(ours.item(), theirs.item(), rtol=1e-12)
        found, expected = (pb.autograd.grad(loss, [x, w, start]) for loss in (ours, theirs))
        for mine, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-10)
    if backend == "reference":
        assert gradgradcheck(run(scan), [x, w, start])


def test_rules_of_ones_own_and_composites_work_in_the_body() -> None:
    class Doubled(pb.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            context.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(context: Any, cotangent: Any) -> Any:
            (x,) = context.saved_tensors
            return 2 * x * cotangent

    x, start = drawn(4, 3), drawn(3)

    def step(carry: Any, row: Any) -> tuple[Any, Any]:
        carry = pb.nn.functional.silu(Doubled.apply(carry * 0.5) + row).softmax(-1)
        return carry, (pb.nn.functional.layer_norm(carry, (3,)),)

    def run(loop: Callable[..., Any]) -> Callable[..., pb.Tensor]:
        def whole(x: Any, start: Any) -> pb.Tensor:
            carry, (y,) = loop(step, start, x)
            return (carry * carry).sum() + (y * x).sum()

        return whole

    found, expected = (pb.autograd.grad(run(loop)(x, start), [x, start]) for loop in (scan, looped))
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-9, atol=1e-12)
    assert gradgradcheck(run(scan), [x, start], atol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_each_step_draws_anew(compiled: bool) -> None:
    """Masks differ from step to step and from run to run, and the backward pass has the same ones."""
    x = pb.ones(6, 50)

    def run(x: Any) -> Any:
        _, masks = scan(lambda c, row: (c, pb.nn.functional.dropout(row * c, 0.5)), pb.tensor(1.0), x)
        return masks, pb.rand(3)

    pb.manual_seed(3)
    step = pb.compile(run) if compiled else run
    (first, after), (second, _) = step(x), step(x)
    rows = [tuple(row) for row in np.concatenate([first.numpy(), second.numpy()]).tolist()]
    assert len(set(rows)) == 12 and len(set(after.tolist())) == 3
    y = pb.ones(6, 50, requires_grad=True)
    masks, _ = run(y)
    masks.sum().backward()
    np.testing.assert_array_equal(y.grad.numpy(), masks.detach().numpy())


def test_an_index_is_looked_up_at_each_step_and_checked_before() -> None:
    table = drawn(5, 3)

    def run(index: pb.Tensor) -> pb.Tensor:
        def step(carry: Any, i: Any) -> tuple[Any, Any]:
            carry = carry * 0.5 + pb.nn.functional.embedding(i, table)
            return carry, carry

        return scan(step, pb.zeros(2, 3, dtype=pb.float64), index)[1]

    index = pb.tensor([[0, 4], [1, 1], [4, 0]])
    run(index).sum().backward()
    weights = np.zeros(5)
    np.add.at(weights, index.numpy(), np.array([[1.75], [1.5], [1.0]]))
    np.testing.assert_allclose(table.grad.numpy(), np.repeat(weights[:, None], 3, 1))
    with pytest.raises(IndexOutOfRange, match="5 at position"):
        run(pb.tensor([[0, 5], [1, 1]])).detach().numpy()


def kernels_of(steps: int, cell: type) -> int:
    """How many kernels are compiled for a training step over so many steps, none being there already."""
    network = cell(3, 5)
    x = pb.ones(steps, 2, 3)

    @pb.compile
    def step() -> pb.Tensor:
        loss = network(x)[0].sum()
        loss.backward()
        return loss

    before = statistics()
    step()
    after = statistics()
    return after.compiled + after.cached - before.compiled - before.cached


def test_a_thousand_steps_take_as_many_launches_and_nodes_as_ten() -> None:
    def built(steps: int) -> tuple[int, int]:
        network, x = pb.nn.LSTM(3, 5, 2), pb.ones(steps, 2, 3)

        @pb.compile
        def step() -> pb.Tensor:
            loss = network(x)[0].sum()
            loss.backward()
            return loss

        step()
        return len(step.program.layout.launches()), len(reachable([network(x)[0].node], stop_at_buffers=False))

    (few, nodes), (many, as_many_nodes) = built(10), built(1000)
    # beside the loops, a long sum may be cut into pieces
    assert as_many_nodes == nodes and many <= few + 10


def test_equal_loops_share_their_kernels() -> None:
    kernels_of(6, pb.nn.GRU)
    assert kernels_of(6, pb.nn.GRU) == 0


def test_memory_is_what_has_to_be_kept_of_each_step() -> None:
    """Of h' = tanh(h w + x) the backward pass needs h alone, which is the output too; and the cotangent that goes into
    the products."""
    w, x, start = drawn(16, 16, dtype=pb.float32), drawn(40, 8, 16, dtype=pb.float32), pb.zeros(8, 16)

    @pb.compile
    def step() -> tuple[Any, ...]:
        def one(h: Any, row: Any) -> tuple[Any, None]:
            return (h @ w + row).tanh(), None

        last, _ = scan(one, start, x)
        return pb.autograd.grad((last * last).sum(), [w])

    step()
    one = 8 * 16 * 4
    assert 2 * 40 * one <= step.program.memory.arena <= (2 * 40 + 12) * one + 2 * w.numel() * 4


def test_without_gradients_nothing_is_kept_of_the_steps() -> None:
    w, x = drawn(16, 16, dtype=pb.float32, grad=False), drawn(40, 8, 16, dtype=pb.float32, grad=False)
    step = pb.compile(lambda x: scan(lambda h, row: ((h @ w + row).tanh(), None), pb.zeros(8, 16), x)[0])
    step(x)
    assert step.program.memory.arena <= 6 * 8 * 16 * 4 + 2 * w.numel() * 4


def test_products_of_slices_and_for_outputs_stand_outside_of_the_loop() -> None:
    v, w, u = (drawn(4, 4) for _ in range(3))
    last, y = scan(lambda h, x: ((h * (x @ v).exp()), (h.tanh() @ w) * 2 @ u), drawn(3, 4), drawn(5, 3, 4))
    (loop,) = {n for n in reachable([last.node, y.node], stop_at_buffers=False) if n.op.name == "scan"}
    assert all(value.op.name != "matmul" for value in loop["body"].values)
    outside = [n for n in reachable([y.node], stop_at_buffers=False) if n.op.name == "matmul"]
    assert len(outside) == 3 and all(15 in n.shape for n in outside)


def test_the_gradient_of_a_weight_is_one_product() -> None:
    w = drawn(4, 4)
    last, _ = scan(lambda h, x: ((h @ w + x).tanh(), None), drawn(3, 4), drawn(6, 3, 4))
    (gradient,) = pb.autograd.grad(last.sum(), [w])
    products = [n for n in reachable([gradient.node], stop_at_buffers=False) if n.op.name == "matmul"]
    assert any(n.inputs[0].shape[-1] == 18 for n in products)


def test_errors_say_what_is_wrong() -> None:
    x = pb.ones(3, 2)
    with pytest.raises(ShapeError, match=r"carry 0 is float32\[2\] at first and float32\[\] after"):
        scan(lambda c, row: (c.sum(), None), pb.zeros(2), x)
    with pytest.raises(DTypeError, match="int64"):
        scan(lambda c, row: ((c + row).long(), None), pb.zeros(2), x)
    with pytest.raises(TypeError, match="nested as `init`"):
        scan(lambda c, row: ((c, c), None), pb.zeros(2), x)
    with pytest.raises(TypeError, match="pair"):
        scan(lambda c, row: c, pb.zeros(2), x)
    with pytest.raises(TypeError, match="init must be made of tensors, got float"):
        scan(lambda c, row: (c, None), 0.0, x)
    with pytest.raises(ShapeError, match=r"name \[3, 4\] steps"):
        scan(lambda c, row: (c, None), pb.zeros(2), (x, pb.ones(4)))
    with pytest.raises(ShapeError, match="give xs or length"):
        scan(lambda c, row: (c, None), pb.zeros(2))
    with pytest.raises(ShapeError, match=r"shape \[\]"):
        scan(lambda c, row: (c, None), pb.zeros(2), pb.tensor(1.0))
    with pytest.raises(ShapeError, match="negative"):
        scan(lambda c, row: (c, None), pb.zeros(2), length=-1)


def test_the_body_has_no_values_and_none_leave_it() -> None:
    x, kept = pb.ones(3, 2), []
    with pytest.raises(TraceError, match="body of a scan"):
        scan(lambda c, row: (c if c.sum().item() else row, None), pb.zeros(2), x)
    scan(lambda c, row: (kept.append(c + row) or c, None), pb.zeros(2), x)
    with pytest.raises(TraceError, match="body of a scan"):
        kept[0].detach().numpy()
    with pytest.raises(TraceError, match="body of a scan"):
        pb.compile(lambda: (scan(lambda c, row: (kept.append(c + row) or c, None), pb.zeros(2), x), kept[-1])[1])()


def test_a_body_writes_to_nothing_outside_of_it() -> None:
    norm = pb.nn.BatchNorm1d(3)
    with pytest.raises(pb.errors.TraceError, match="running statistics"):
        pb.func.scan(lambda c, x: (norm(c + x), c), pb.zeros(4, 3), pb.randn(5, 4, 3))
    assert norm.running_mean.tolist() == [0, 0, 0] and norm.num_batches_tracked.item() == 0
    norm.eval()
    pb.func.scan(lambda c, x: (norm(c + x), c), pb.zeros(4, 3), pb.randn(5, 4, 3))

    def own(c: pb.Tensor, x: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
        inside = c * 1
        inside.add_(x)
        return inside, inside

    assert pb.func.scan(own, pb.zeros(2), pb.ones(3, 2))[0].tolist() == [3, 3]


def test_what_a_native_loop_cannot_stop_for_is_refused() -> None:
    table = pb.arange(6).reshape(3, 2)

    def run() -> pb.Tensor:
        step = lambda i, _: (table[i][0] % 3, i)  # noqa: E731
        return scan(step, pb.tensor(1), None, length=3)[1]

    with debug.override(backend="reference"):
        assert run().tolist() == [1, 2, 1]
    with debug.override(backend="native"), pytest.raises(CompileError, match="depends on the carry"):
        run().numpy()


def test_a_rule_of_ones_own_in_a_loop_within_a_loop() -> None:
    class Squared(pb.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(context, cotangent):
            (x,) = context.saved_tensors
            return 2 * cotangent * x

    w, x = pb.ones(3, requires_grad=True), pb.randn(3, 3)

    def gradient(square):
        def cell(h, x):
            h = (h * 0.5 + x * w).tanh()
            return h, square(h)

        def step():
            w.grad = None
            _, outputs = pb.func.scan(lambda h, x: pb.func.scan(cell, h, pb.stack([x, x * 2])), pb.zeros(3), x)
            outputs.sum().backward()
            return w.grad

        return step

    expected = gradient(lambda h: h * h)().numpy()
    np.testing.assert_allclose(pb.compile(gradient(Squared.apply))().numpy(), expected, rtol=1e-5)
