"""autograd.Function means what it means in PyTorch: the context, several results, batches, and clear refusals."""

import numpy as np
import pytest

import pullback as pb
from pullback.autograd import Function, grad, gradcheck, gradgradcheck
from pullback.autograd.function import once_differentiable
from pullback.errors import GradientError


@pytest.fixture(autouse=True)
def on_the_reference():
    with pb.debug.override(backend="reference"):
        yield


def doubles(*values: float) -> pb.Tensor:
    return pb.tensor(list(values), dtype=pb.float64, requires_grad=True)


class Polar(Function):
    """Two results, one of which the gradient needs; no context in forward."""

    @staticmethod
    def forward(x, y, scale=1.0):
        return (x * x + y * y).sqrt() * scale, pb.atan2(y, x), "label"

    @staticmethod
    def setup_context(context, inputs, output):
        x, y, context.scale = inputs
        context.save_for_backward(x, y, output[0])

    @staticmethod
    def backward(context, radius, angle, label):
        assert label is None
        x, y, r = context.saved_tensors
        r = r / context.scale
        radius = radius * context.scale
        return radius * x / r - angle * y / r**2, radius * y / r + angle * x / r**2, None


def polar(x, y):
    return Polar.apply(x, y, scale=2.0)[:2]


def test_several_results_share_one_rule_of_any_order():
    x, y = doubles(0.5, -1.5), doubles(2.0, 0.7)
    assert gradcheck(polar, (x, y))
    assert gradgradcheck(polar, (x, y))
    assert Polar.apply(x, y)[2] == "label"
    # one result alone: the other's cotangent is zero
    (found,) = grad(polar(x, y)[1].sum(), x)
    np.testing.assert_allclose(found.numpy(), (-y / (x * x + y * y)).detach().numpy())


def test_the_transforms_and_compiled_steps_see_the_rule():
    x, y = doubles(0.5, -1.5), doubles(2.0, 0.7)
    one = lambda x, y: polar(x, y)[0] * polar(x, y)[1]  # noqa: E731
    plain = lambda x, y: 2 * (x * x + y * y).sqrt() * pb.atan2(y, x)  # noqa: E731
    expected = grad(plain(x, y).sum(), x)[0].numpy()
    each = pb.vmap(pb.func.grad(one))(x.detach(), y.detach())
    outside = pb.func.grad(lambda x: pb.vmap(one)(x, y.detach()).sum())(x.detach())
    step = pb.compile(lambda x, y: grad(one(x, y).sum(), x)[0])
    np.testing.assert_allclose(each.numpy(), expected)
    np.testing.assert_allclose(outside.numpy(), expected)
    np.testing.assert_allclose(step(x, y).numpy(), expected)
    tangents = (pb.ones_like(x), pb.zeros_like(y))
    pushed = pb.func.jvp(one, (x.detach(), y.detach()), tangents)[1]
    np.testing.assert_allclose(pushed.numpy(), expected)


class Sorted(Function):
    """A result of integers, and a `vmap` that does a whole batch by one call."""

    calls = 0

    @staticmethod
    def forward(context, x):
        values, places = x.sort(-1)
        context.mark_non_differentiable(places)
        context.save_for_backward(places)
        return values, places

    @staticmethod
    def backward(context, values, places):
        (order,) = context.saved_tensors
        return pb.zeros_like(values).scatter(-1, order, values)

    @staticmethod
    def vmap(info, in_dims, x):
        Sorted.calls += 1
        assert info.batch_size == x.shape[in_dims[0]]
        return Sorted.apply(x.movedim(in_dims[0], 0)), (0, 0)


def test_results_may_be_indices_and_a_batch_may_be_done_at_once():
    x = doubles(3.0, 1.0, 2.0)
    values, places = Sorted.apply(x)
    assert (places.tolist(), places.requires_grad, values.requires_grad) == ([1, 2, 0], False, True)
    (values * pb.tensor([1.0, 10.0, 100.0], dtype=pb.float64)).sum().backward()
    assert x.grad.tolist() == [100.0, 1.0, 10.0]
    batch = pb.tensor([[3.0, 1.0, 2.0], [4.0, 6.0, 5.0]], requires_grad=True)
    values, places = pb.vmap(Sorted.apply)(batch)
    assert places.tolist() == [[1, 2, 0], [0, 2, 1]]
    assert Sorted.calls == 1
    (values * pb.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert batch.grad.tolist() == [[100.0, 1.0, 10.0], [1.0, 100.0, 10.0]]


def test_cotangents_that_do_not_arrive_are_zeros_or_none():
    seen = []

    class Two(Function):
        @staticmethod
        def forward(context, x, materialize):
            context.set_materialize_grads(materialize)
            return x * 2, x * 3

        @staticmethod
        def backward(context, first, second):
            seen.append(second)
            return first * 2, None

    x = doubles(1.0)
    Two.apply(x, True)[0].sum().backward()
    Two.apply(x, False)[0].sum().backward()
    assert (seen[0].tolist(), seen[1], x.grad.tolist()) == ([0.0], None, [4.0])


def test_an_argument_may_be_changed_in_place_if_it_is_named():
    class Doubled(Function):
        @staticmethod
        def forward(context, x, named):
            x.mul_(2)
            if named:
                context.mark_dirty(x)
            return x

        @staticmethod
        def backward(context, cotangent):
            return cotangent * 2, None

    x = doubles(1.0, 2.0)
    y = x * 1
    assert Doubled.apply(y, True) is y
    y.sum().backward()
    assert (y.tolist(), x.grad.tolist()) == ([2.0, 4.0], [2.0, 2.0])
    with pytest.raises(GradientError, match=r"without naming it by context\.mark_dirty"):
        Doubled.apply(x * 1, False)
    with pytest.raises(GradientError, match="changed a leaf"):
        Doubled.apply(x, True)


def test_what_is_written_into_a_saved_tensor_later_does_not_reach_backward():
    class Squared(Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(context, cotangent):
            return 2 * context.saved_tensors[0] * cotangent

    x = doubles(3.0)
    y = x * 1
    z = Squared.apply(y)
    y.zero_()
    z.sum().backward()
    assert x.grad.tolist() == [6.0]


def test_once_differentiable_refuses_the_second_derivative():
    class Cubed(Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x**3

        @staticmethod
        @once_differentiable
        def backward(context, cotangent):
            return 3 * context.saved_tensors[0] ** 2 * cotangent

    x = doubles(2.0)
    (first,) = grad(Cubed.apply(x).sum(), x, create_graph=True)
    assert first.tolist() == [12.0]
    with pytest.raises(GradientError, match=r"Cubed.backward is marked once_differentiable"):
        grad(first.sum(), x)


def test_a_jvp_alone_is_transposed():
    class Scaled(Function):
        @staticmethod
        def forward(context, x, w):
            context.save_for_forward(x, w)
            return x * w

        @staticmethod
        def jvp(context, x_tangent, w_tangent):
            x, w = context.saved_tensors
            return x_tangent * w + x * w_tangent

    assert gradcheck(Scaled.apply, (doubles(1.0, 2.0), doubles(3.0, -4.0)))
    assert gradgradcheck(Scaled.apply, (doubles(1.0, 2.0), doubles(3.0, -4.0)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda c: (c, c, c), r"Returning.backward must return 2 cotangents, one an argument, got 3 .*test_function"),
        (lambda c: c, "must return 2 cotangents"),
        (lambda c: (pb.ones(3), None), r"shape \[3\] for argument 0 of shape \[2\]"),
        (lambda c: (c, c), "argument 1, which is no tensor"),
        (lambda c: (1.0, None), "must return tensors and None, got float"),
    ],
)
def test_cotangents_that_do_not_fit_are_refused(given, message):
    class Returning(Function):
        @staticmethod
        def forward(context, x, factor):
            return x * factor

        @staticmethod
        def backward(context, cotangent):
            return given(cotangent)

    with pytest.raises(GradientError, match=message):
        Returning.apply(pb.ones(2, requires_grad=True), 2.0).sum().backward()


def test_a_broadcast_cotangent_is_summed_and_none_is_no_dependence():
    class Wide(Function):
        @staticmethod
        def forward(context, x, y):
            return (x + y).expand(3, 2)

        @staticmethod
        def backward(context, cotangent):
            return cotangent, None

    x, y = doubles(1.0, 2.0), doubles(1.0, 2.0)
    Wide.apply(x, y).sum().backward()
    assert (x.grad.tolist(), y.grad) == ([3.0, 3.0], None)


def test_straight_through_reversed_and_surrogate_gradients():
    class Spike(Function):
        """A step whose slope is that of a fast sigmoid (Zenke & Ganguli, Neural Computation 30, 2018)."""

        @staticmethod
        def forward(context, potential):
            context.save_for_backward(potential)
            return (potential > 0).to(potential.dtype)

        @staticmethod
        def backward(context, cotangent):
            (potential,) = context.saved_tensors
            return cotangent / (10 * potential.abs() + 1) ** 2

    class Reversed(Function):
        @staticmethod
        def forward(context, x, weight):
            context.weight = weight
            return x

        @staticmethod
        def backward(context, cotangent):
            return -context.weight * cotangent, None

    x = doubles(-0.1, 0.4)
    spikes = Spike.apply(x)
    (found,) = grad(spikes.sum(), x)
    assert spikes.tolist() == [0.0, 1.0]
    np.testing.assert_allclose(found.numpy(), [1 / 4, 1 / 25])
    assert grad(Reversed.apply(x, 0.5).sum(), x)[0].tolist() == [-0.5, -0.5]


def test_a_rule_written_in_numpy_runs_in_compiled_steps():
    class Sine(Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return pb.utils.host_call(np.sin, x.shape, x.dtype, x)

        @staticmethod
        def backward(context, cotangent):
            (x,) = context.saved_tensors
            return pb.utils.host_call(lambda c, x: c * np.cos(x), x.shape, x.dtype, cotangent, x)

    assert gradcheck(Sine.apply, doubles(0.3, 1.2))
    step = pb.compile(lambda x: grad(Sine.apply(x).sum(), x)[0])
    np.testing.assert_allclose(step(doubles(0.3)).numpy(), np.cos([0.3]))
