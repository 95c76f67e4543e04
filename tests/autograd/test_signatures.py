"""backward, grad and gradcheck under PyTorch's signatures."""

import itertools

import pytest
import torch

import pullback as pb


def test_backward_and_grad_of_several_tensors_as_pytorch() -> None:
    results = []
    for f in (torch, pb):
        x, y = (f.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
        f.autograd.backward([x * y, (x * x).sum()], grad_tensors=[f.tensor([1.0, 3.0]), None], inputs=[x])
        rows = f.tensor([[1.0, 0.0], [0.0, 1.0]])
        batched = f.autograd.grad(x**3, [x], rows, retain_graph=True, is_grads_batched=True)[0]
        zeros = f.autograd.grad(x.sum(), [x, y], materialize_grads=True)[1]
        wide = f.autograd.grad(x**2, x, f.ones(2, dtype=f.float64))[0]
        assert y.grad is None and str(wide.dtype).endswith("float32")
        results.append([t.tolist() for t in (x.grad, batched, zeros, wide)])
    assert results[0] == results[1]


def test_what_gradcheck_does_not_do_is_refused() -> None:
    x = pb.tensor([0.5, 2.0], dtype=pb.float64, requires_grad=True)
    assert pb.autograd.gradcheck(pb.exp, x, fast_mode=True, nondet_tol=1e-9, check_undefined_grad=False)
    assert pb.autograd.gradgradcheck(pb.exp, x, check_batched_grad=False)
    for option in ("check_undefined_grad", "check_batched_grad", "check_forward_ad", "masked"):
        with pytest.raises(NotImplementedError, match=option):
            pb.autograd.gradcheck(pb.exp, x, **{option: True})
    with pytest.raises(ValueError, match="nothing to check"):
        pb.autograd.gradcheck(pb.exp, x, check_backward_ad=False)


def test_gradcheck_finds_a_backward_that_varies() -> None:
    runs = itertools.count()

    class Varying(pb.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x * 1

        @staticmethod
        def backward(context, cotangent):
            return cotangent + 1e-8 * next(runs)

    x = pb.ones(2, dtype=pb.float64, requires_grad=True)
    with pytest.raises(pb.errors.GradientError, match="run twice"):
        pb.autograd.gradcheck(Varying.apply, x)
    assert pb.autograd.gradcheck(Varying.apply, x, nondet_tol=1e-6)


def test_keyword_arguments_of_apply_count_at_their_places() -> None:
    class Times(pb.autograd.Function):
        @staticmethod
        def forward(context, x, k=1):
            context.k = k
            return x * k

        @staticmethod
        def backward(context, cotangent):
            return cotangent * context.k, None

    x = pb.ones(2, requires_grad=True)
    Times.apply(x, k=3).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3.0, 3.0]
