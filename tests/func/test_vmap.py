"""vmap against a loop: every operation, every primitive, and what stands around them."""

import numpy as np
import pytest

import pullback as pb
from operation_rows import tables
from oracle import numbers
from pullback import debug
from pullback.errors import ShapeError, TraceError
from pullback.graph.node import reachable
from pullback.ops.primitive import LEAF, REGISTRY

ROWS = [row for table in tables() for row in table.ROWS]
#: what has a size that depends on data, which a function under vmap does not know
DATA_DEPENDENT = ("masked_select", "nonzero", "argwhere", "unique", "bincount")


@pytest.fixture(autouse=True)
def reference():
    """The interpreter: what a batch means does not depend on how it is compiled."""
    with debug.override(backend="reference"):
        yield


def as_tuple(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def derived(row):
    """The outputs of a row's expression, and the gradients of their weighted sum by all floating operands."""

    def function(*operands):
        wanted = [i for i, o in enumerate(operands) if o.is_floating_point()]

        def outputs(*chosen):
            given = list(operands)
            for place, tensor in zip(wanted, chosen, strict=True):
                given[place] = tensor
            return as_tuple(row.expression(pb, *given))

        def split(*chosen):
            values = outputs(*chosen)
            floating = [v for v in values if v.is_floating_point()] or [chosen[0] * 0.0]
            return floating, [v for v in values if not v.is_floating_point()]

        if not wanted:
            return outputs()
        values, pull, others = pb.func.vjp(split, *(operands[i] for i in wanted), has_aux=True)
        return (*values, *others, *pull([v * 0.0 + 0.5 for v in values]))

    return function


def examples(value):
    """Two examples of an operand, which differ if it is of floats."""
    one = value.ours()
    if not one.is_floating_point():
        return pb.stack([one, one])
    return pb.stack([one, one * 1.01])


def has_known_size(row):
    return row.name == "nonzero_static" or not row.name.startswith(DATA_DEPENDENT)


@pytest.mark.parametrize("row", [row for row in ROWS if has_known_size(row)], ids=str)
def test_every_operation_and_its_gradient_give_for_a_batch_what_a_loop_gives(row):
    values = row.values(row.operands, "float64")
    function = derived(row)
    stacks = [examples(v) for v in values]
    every = (0,) * len(stacks)
    alone = [tuple(0 if i == place else None for i in range(len(stacks))) for place in range(len(stacks))]
    for in_dims in {every, *alone}:
        given = [s if d == 0 else s[0] for s, d in zip(stacks, in_dims, strict=True)]
        found = pb.vmap(function, in_dims, randomness="same")(*given)
        for place in range(2):
            expected = function(*(s[place] if d == 0 else s[0] for s, d in zip(stacks, in_dims, strict=True)))
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(
                    numbers(ours[place]), numbers(theirs), rtol=1e-9, atol=1e-12, err_msg=f"{in_dims} {place}"
                )


@pytest.mark.parametrize("row", [row for row in ROWS if not has_known_size(row)], ids=str)
def test_sizes_that_depend_on_data_are_refused(row):
    with pytest.raises(TraceError, match="vmap"):
        pb.vmap(derived(row))(*(examples(v) for v in row.values(row.operands, "float64")))


def test_every_primitive_has_a_form_for_a_batch():
    """A primitive that no batched row passes through would have a form that nothing checks."""
    found = set()
    for row in filter(has_known_size, ROWS):
        values = row.values(row.operands, "float64")
        operands = [examples(v).requires_grad_(v.dtype.startswith("float")) for v in values]
        results = as_tuple(pb.vmap(lambda *o, row=row: row.expression(pb, *o), randomness="same")(*operands))
        found |= {node.op.name for node in reachable([t.node for t in results], stop_at_buffers=False)}
    found |= {"several", "result"}  # of a Function's results: tests/autograd/test_function.py
    assert {p.name for p in REGISTRY.values() if p.kind != LEAF} <= found


def loss(weight, x):
    return ((x @ weight).tanh() ** 2).sum()


def test_gradients_of_each_example_are_those_of_a_loop_also_in_a_compiled_step():
    pb.manual_seed(0)
    weight, x = pb.randn(3, 2), pb.randn(5, 3)
    expected = [pb.func.grad(loss)(weight, row).tolist() for row in x]
    each = pb.vmap(pb.func.grad(loss), (None, 0))
    for backend in ("reference", "native"):
        with debug.override(backend=backend):
            np.testing.assert_allclose(each(weight, x).tolist(), expected, rtol=1e-5)
            np.testing.assert_allclose(pb.compile(each)(weight, x).tolist(), expected, rtol=1e-5)


def test_second_derivatives_go_through_a_batch_and_stay_in_it():
    x = pb.tensor([0.5, -1.0, 2.0], dtype=pb.float64, requires_grad=True)
    assert pb.autograd.gradgradcheck(lambda x: pb.vmap(lambda v: v.exp() * v.sin())(x), x)
    second = pb.vmap(pb.func.grad(pb.func.grad(lambda v: v.sin())))(x)
    np.testing.assert_allclose(second.tolist(), (-x.sin()).tolist())


def test_axes_may_stand_anywhere_in_arguments_and_results_nested_at_will():
    x, y = pb.randn(2, 5, 3), pb.randn(5)

    def function(pair, scale):
        return {"sum": pair["x"].sum(1) * scale, "rest": (pair["y"], pb.ones(2))}

    found = pb.vmap(function, ({"x": 1, "y": -1}, None), {"sum": 1, "rest": (0, None)})({"x": x, "y": y}, 2.0)
    np.testing.assert_allclose(found["sum"].tolist(), (x.sum(2) * 2.0).tolist(), rtol=1e-6)
    assert found["rest"][0].tolist() == y.tolist() and found["rest"][1].shape == (2,)


def test_nested_batches_multiply_everything_by_everything():
    outer = pb.vmap(pb.vmap(lambda a, b: a * b, (None, 0)), (0, None))
    assert outer(pb.tensor([1.0, 2.0]), pb.tensor([3.0, 4.0, 5.0])).tolist() == [[3, 4, 5], [6, 8, 10]]


def test_chunks_give_the_whole():
    x = pb.randn(7, 3)
    function = lambda v: (v.softmax(0), v.sum())  # noqa: E731
    for ours, whole in zip(pb.vmap(function, chunk_size=3)(x), pb.vmap(function)(x), strict=True):
        assert ours.tolist() == whole.tolist()


def test_draws_are_refused_made_once_or_made_for_each_example():
    x = pb.zeros(4)
    draw = lambda v: pb.rand(2) + v  # noqa: E731
    with pytest.raises(TraceError, match="randomness"):
        pb.vmap(draw)(x)
    same, different = (pb.vmap(draw, randomness=r)(x).tolist() for r in ("same", "different"))
    assert len({tuple(row) for row in same}) == 1 and len({tuple(row) for row in different}) == 4
    nested = pb.vmap(pb.vmap(draw, randomness="different"), randomness="different")(pb.zeros(3, 4))
    assert len({v for plane in nested.tolist() for row in plane for v in row}) == 24


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_loops_and_their_gradients_are_batched(kind):
    pb.manual_seed(1)
    layer, x = getattr(pb.nn, kind)(2, 3).double(), pb.randn(4, 5, 1, 2, dtype=pb.float64)

    def function(x):
        return layer(x)[0].square().sum()

    def twice(x):
        return pb.func.grad(lambda x: (pb.func.grad(function)(x) ** 2).sum())(x)

    for derivative in (pb.func.grad(function), twice):
        found = pb.vmap(derivative)(x)
        for place in range(4):
            np.testing.assert_allclose(numbers(found[place]), numbers(derivative(x[place])), rtol=1e-9, atol=1e-12)


def test_a_loop_draws_anew_in_each_step_of_each_example():
    def function(x):
        return pb.func.scan(lambda c, _: (c, pb.rand(1)[0] + c * 0), x, length=3)[1]

    found = pb.vmap(function, randomness="different")(pb.zeros(4))
    assert len({v for row in found.tolist() for v in row}) == 12


def test_gradient_rules_of_ones_own_are_batched_with_what_they_saved():
    class Scaled(pb.autograd.Function):
        @staticmethod
        def forward(context, x, scale):
            context.save_for_backward(x, scale)
            return x.round() * scale

        @staticmethod
        def backward(context, cotangent):
            x, scale = context.saved_tensors
            return cotangent * scale * x, (cotangent * x).sum()

    def function(x, scale):
        return pb.func.grad(lambda x, s: Scaled.apply(x, s).square().sum(), (0, 1))(x, scale)

    x, scale = pb.randn(3, 4, dtype=pb.float64), pb.tensor([1.0, 2.0, 3.0], dtype=pb.float64)
    for dims in ((0, 0), (0, None), (None, 0)):
        given = [t if d == 0 else t[0] for t, d in zip((x, scale), dims, strict=True)]
        found = pb.vmap(function, dims)(*given)
        for place in range(3):
            expected = function(*(t[place] if d == 0 else t for t, d in zip(given, dims, strict=True)))
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(numbers(ours[place]), numbers(theirs), rtol=1e-12)


def test_a_gradient_rule_inside_a_loop_is_batched():
    class Straight(pb.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x.round()

        @staticmethod
        def backward(context, cotangent):
            (x,) = context.saved_tensors
            return cotangent * x.cos()

    def function(x, w):
        return pb.func.scan(lambda c, v: (c + Straight.apply(v * w) * c, c), pb.tensor(1.0).double(), x)[0]

    def twice(x, w):
        return pb.func.grad(lambda x: (pb.func.grad(function)(x, w) ** 2).sum())(x)

    x, w = pb.randn(3, 4, dtype=pb.float64), pb.tensor([1.0, 2.0, 3.0], dtype=pb.float64)
    for derivative in (pb.func.grad(function), twice):
        found = pb.vmap(derivative)(x, w)
        for place in range(3):
            np.testing.assert_allclose(numbers(found[place]), numbers(derivative(x[place], w[place])), rtol=1e-10)


def test_an_argument_changed_in_place_is_changed_for_all_examples():
    x = pb.zeros(2, 3)

    def function(v, by):
        v.add_(by)
        return v * 2

    found = pb.vmap(function, (1, 0))(x, pb.tensor([1.0, 2.0, 3.0]))
    assert x.tolist() == [[1, 2, 3], [1, 2, 3]] and found.tolist() == [[2, 2], [4, 4], [6, 6]]


def test_a_tensor_from_outside_has_no_room_for_a_batch():
    outside, weight = pb.zeros(()), pb.ones(3, requires_grad=True)
    with pytest.raises(TraceError, match="inside vmap a tensor from outside"):
        pb.vmap(lambda v: outside.add_(v))(pb.ones(3))
    with pytest.raises(TraceError, match="use func"):
        pb.vmap(lambda v: (weight * v).sum().backward() or v)(pb.ones(3))
    assert outside.item() == 0 and weight.grad is None


def test_wrong_calls_say_what_is_wrong():
    x = pb.ones(2, 3)
    with pytest.raises(ShapeError, match=r"\[2, 3\]"):
        pb.vmap(lambda a, b: a)(x, pb.ones(3))
    with pytest.raises(TypeError, match="pass None"):
        pb.vmap(lambda a, b: a)(x, 2.0)
    with pytest.raises(ValueError, match="no axis to batch"):
        pb.vmap(lambda a: a, in_dims=(None,))(x)
    with pytest.raises(IndexError, match="axis 2"):
        pb.vmap(lambda a: a, in_dims=2)(x)
    with pytest.raises(ValueError, match="not nested"):
        pb.vmap(lambda a: a, in_dims=((0, 0),))({"a": x})
    with pytest.raises(ValueError, match="differs between examples"):
        pb.vmap(lambda a: a, out_dims=None)(x)
    with pytest.raises(TypeError, match="must give tensors"):
        pb.vmap(lambda a: 3)(x)
    with pytest.raises(TraceError, match="has no values"):
        pb.vmap(lambda a: a if a.sum() > 0 else -a)(x)
    with pytest.raises(ValueError, match="randomness"):
        pb.vmap(lambda a: a, randomness="some")
    with pytest.raises(ValueError, match="chunk_size"):
        pb.vmap(lambda a: a, chunk_size=0)
