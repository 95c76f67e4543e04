"""backward() and grad() mean what they mean in PyTorch."""

import pytest

import pullback as pb
from pullback.autograd import Function, grad, gradcheck, gradgradcheck
from pullback.errors import GradientError, ShapeError
from pullback.graph.node import reachable


def leaf(*values: float) -> pb.Tensor:
    return pb.tensor(list(values), requires_grad=True)


def test_gradients_add_up_over_calls():
    x = leaf(1.0, 2.0)
    for _ in range(2):
        (x * x).sum().backward()
    assert x.grad.tolist() == [4.0, 8.0]
    x.grad = None
    (3 * x).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_a_second_backward_needs_retain_graph():
    x = leaf(1.0, 2.0)
    loss = (x * x).sum()
    loss.backward()
    with pytest.raises(GradientError, match="retain_graph=True"):
        loss.backward()
    loss = (x * x).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert x.grad.tolist() == [6.0, 12.0]


def test_a_graph_of_linear_operations_may_be_gone_through_twice():
    x = leaf(1.0, 2.0)
    loss = (x + 1).reshape(2, 1).sum()
    loss.backward()
    loss.backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_a_tensor_of_several_elements_needs_its_cotangent():
    x = leaf(1.0, 2.0)
    with pytest.raises(GradientError, match=r"one element, got shape \[2\]"):
        (x * 2).backward()
    with pytest.raises(ShapeError, match=r"must be float32\[2\], got float32\[1\]"):
        (x * 2).backward(pb.ones(1))
    (x * 2).backward(pb.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [2.0, 20.0]


def test_backward_without_a_graph_is_refused():
    with pytest.raises(GradientError, match="no graph"):
        pb.ones(()).backward()
    x = leaf(1.0)
    with pb.no_grad():
        y = x * 2
    with pytest.raises(GradientError, match="no_grad"):
        y.backward()
    with pytest.raises(GradientError, match="no graph"):
        x.detach().sum().backward()


def test_grad_leaves_grad_alone_and_knows_unused_inputs():
    x, y = leaf(2.0), leaf(3.0)
    (g,) = grad((x * x).sum(), x)
    assert (g.tolist(), x.grad, g.requires_grad) == ([4.0], None, False)
    with pytest.raises(GradientError, match=r"input 1 .* not used"):
        grad((x * x).sum(), [x, y])
    assert grad((x * x).sum(), [x, y], allow_unused=True)[1] is None


def test_grad_takes_cotangents_and_several_outputs():
    x = leaf(2.0, 3.0)
    (g,) = grad([x * x, x.sum()], x, [pb.tensor([1.0, 10.0]), None])
    assert g.tolist() == [5.0, 61.0]


def test_gradients_of_gradients():
    x = leaf(2.0)
    (first,) = grad((x**3).sum(), x, create_graph=True)
    (second,) = grad(first.sum(), x, create_graph=True)
    (third,) = grad(second.sum(), x)
    assert [g.item() for g in (first, second, third)] == [12.0, 12.0, 6.0]


def test_inputs_restricts_who_receives_gradients():
    x, y = leaf(2.0), leaf(3.0)
    (x * y).sum().backward(inputs=[y])
    assert (x.grad, y.grad.tolist()) == (None, [2.0])


def test_an_intermediate_keeps_its_gradient_if_asked():
    x = leaf(2.0)
    y = x * 3
    y.retain_grad()
    (y * y).sum().backward()
    assert (y.grad.tolist(), x.grad.tolist()) == ([12.0], [36.0])


def test_a_flat_operation_gives_zeros_and_a_detached_one_nothing():
    x = leaf(1.5)
    x.floor().sum().backward()
    assert x.grad.tolist() == [0.0]
    y = leaf(1.0)
    (x * y.detach()).sum().backward()
    assert y.grad is None


def test_a_function_of_ones_own_rule():
    class Doubled(Function):
        @staticmethod
        def forward(context, x, factor):
            context.save_for_backward(x)
            return x * factor

        @staticmethod
        def backward(context, cotangent):
            return cotangent * context.saved_tensors[0], None

    x = leaf(5.0)
    Doubled.apply(x, 2).sum().backward()
    assert x.grad.tolist() == [5.0]


def chain(length: int) -> tuple[pb.Tensor, pb.Tensor]:
    x = leaf(1.0)
    y = x
    for _ in range(length):
        y = y * 1.0001
    return x, y


def test_ten_thousand_operations_need_no_recursion():
    with pb.debug.override(backend="reference"):
        x, y = chain(10_000)
        y.sum().backward()
        assert x.grad.item() == pytest.approx(1.0001**10_000, rel=1e-2)
        assert "grad_fn" in repr(y)


def test_the_backward_graph_grows_linearly_with_depth():
    sizes = []
    for length in (1000, 2000):
        x, y = chain(length)
        (g,) = grad(y.sum(), x)
        sizes.append(len(reachable([g.node])))
    assert sizes[1] <= 2 * sizes[0] + 10


def test_gradcheck_passes_right_rules_and_names_what_is_wrong():
    x = pb.tensor([[0.5, 2.0], [1.0, -1.0]], dtype=pb.float64, requires_grad=True)
    y = pb.tensor([0.3, 0.7], dtype=pb.float64, requires_grad=True)
    assert gradcheck(lambda x, y: ((x * y).sin(), x @ y), (x, y))
    assert gradgradcheck(lambda x, y: (x * y).sin(), (x, y))
    with pytest.raises(GradientError, match=r"^gradgradcheck: input 0, element"):
        gradgradcheck(lambda x, y: x * x.detach() + y * 0, (x, y))
    with pytest.raises(ValueError, match=r"^gradgradcheck: eps must be positive"):
        gradgradcheck(lambda x, y: x * y, (x, y), eps=0.0)

    class Wrong(Function):
        @staticmethod
        def forward(context, x):
            return x * x

        @staticmethod
        def backward(context, cotangent):
            return cotangent * pb.tensor([[1.0, 4.0], [2.0, 0.0]], dtype=pb.float64)

    with pytest.raises(GradientError, match=r"input 0, element \[1, 1\]: reverse mode gives 0, .* give -\d"):
        gradcheck(Wrong.apply, x)
    assert not gradcheck(Wrong.apply, x, raise_exception=False)
    with pytest.raises(GradientError, match="no input requires grad"):
        gradcheck(lambda x: x, pb.ones(2))
    coarse = pb.tensor([0.5, 2.0], requires_grad=True)
    assert gradcheck(lambda x: x.exp(), coarse)
