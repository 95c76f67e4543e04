"""backward, grad and gradcheck under PyTorch's signatures."""

import itertools

import numpy as np
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
    for check in (pb.autograd.gradcheck, pb.autograd.gradgradcheck):
        with pytest.raises(NotImplementedError, match="masked"):
            check(pb.exp, x, masked=True)
    with pytest.raises(ValueError, match="nothing to check"):
        pb.autograd.gradcheck(pb.exp, x, check_backward_ad=False)
    with pytest.raises(ValueError, match="nothing to check"):
        pb.autograd.gradgradcheck(pb.exp, x, check_rev_over_rev=False)
    with pytest.raises(ValueError, match="needs check_forward_ad"):
        pb.autograd.gradcheck(pb.exp, x, check_batched_forward_grad=True)


def test_gradcheck_compares_forward_mode_and_batches() -> None:
    x, w = (pb.tensor(np.random.default_rng(0).random(s), requires_grad=True) for s in ((3, 2), (2, 4)))
    modes = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert pb.autograd.gradcheck(lambda x, w: ((x @ w).tanh(), x.exp()), (x, w), **modes)
    options = {"check_fwd_over_rev": True, "check_batched_grad": True, "gen_non_contig_grad_outputs": True}
    assert pb.autograd.gradgradcheck(lambda x, w: (x @ w).tanh(), (x, w), **options)

    class Square(pb.autograd.Function):
        """Of which the gradient is right, and its derivative by the cotangent, of which forward mode is made, not."""

        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(context, cotangent):
            return 2 * context.saved_tensors[0] * cotangent.detach()

    assert pb.autograd.gradcheck(Square.apply, x)
    for backward in (True, False):
        with pytest.raises(pb.errors.GradientError, match=r"output 0, element \[0, 0\].*forward mode gives 0"):
            pb.autograd.gradcheck(Square.apply, x, check_forward_ad=True, check_backward_ad=backward)


def test_gradcheck_finds_a_backward_that_takes_none_for_something() -> None:
    class Two(pb.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(context, first, second):
            return first if second is None else second if first is None else first * 2 + second * 3

    x = pb.ones(2, dtype=pb.float64, requires_grad=True)
    with pytest.raises(pb.errors.GradientError, match="input 0 by output 0 alone"):
        pb.autograd.gradcheck(Two.apply, x)
    assert pb.autograd.gradcheck(Two.apply, x, check_undefined_grad=False)


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


def test_gradcheck_looks_at_every_element_unless_it_is_to_be_fast() -> None:
    class Wrong(pb.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(context, cotangent):
            (x,) = context.saved_tensors
            slope = x.cos()
            return cotangent * pb.where(pb.arange(200) == 137, 1.01 * slope, slope)

    x = pb.linspace(0.1, 1.0, 200, dtype=pb.float64).requires_grad_()
    with pytest.raises(pb.errors.GradientError, match=r"element \[137\]"):
        pb.autograd.gradcheck(Wrong.apply, x)
    assert pb.autograd.gradcheck(lambda x: x.sin(), x)
    for options in ({"eps": 0.0}, {"atol": -1.0}, {"rtol": -1.0}):
        with pytest.raises(ValueError, match="must be positive"):
            pb.autograd.gradcheck(lambda x: x.sin(), x, **options)
