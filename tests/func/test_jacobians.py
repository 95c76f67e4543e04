"""jacrev, jacfwd, hessian, hvp and linearize against torch.func on the same functions."""

from collections import namedtuple

import numpy as np
import pytest
import torch

import pullback as pb
from pullback import debug
from pullback.errors import GradientError, ShapeError, TraceError

func = pb.func
A = np.random.default_rng(0).normal(size=(3, 4))
B = np.random.default_rng(1).normal(size=(4,))
Pair = namedtuple("Pair", "first second")


@pytest.fixture(autouse=True)
def reference(request):
    """The interpreter: what a derivative is does not depend on how it is compiled. Compiled steps are native."""
    with debug.override(backend="native" if "compiled" in request.node.name else "reference"):
        yield


def same(ours, theirs) -> None:
    if isinstance(theirs, (tuple, list)):
        assert type(ours) is type(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            same(mine, other)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            same(ours[key], theirs[key])
    else:
        assert not ours.requires_grad
        assert tuple(ours.shape) == tuple(theirs.shape)
        assert ours.dtype.name == str(theirs.dtype).removeprefix("torch.")
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-10, atol=1e-12)


def both(expression) -> None:
    same(*(expression(library, library.func, library.tensor(A), library.tensor(B)) for library in (pb, torch)))


def mixed(x, y):
    return (x * y).sin() @ (x.T * x.T.exp()) + y.prod()


@pytest.mark.parametrize("name", ["jacrev", "jacfwd"])
@pytest.mark.parametrize("argnums", [0, 1, -1, (0, 1), (1,)])
def test_jacobians_by_any_arguments(name, argnums) -> None:
    # PyTorch's jacfwd takes -1 and gives zeros
    counted = {torch: argnums if argnums != -1 else 1, pb: argnums}
    both(lambda library, f, a, b: getattr(f, name)(mixed, counted[library])(a, b))


@pytest.mark.parametrize("name", ["jacrev", "jacfwd"])
def test_results_and_arguments_may_be_nested(name) -> None:
    def function(p, rest):
        return {"one": (p["a"] * rest[0]).sum(), "more": [p["a"] @ p["b"], Pair(rest[0].exp(), rest[0].new_ones(2))]}

    both(lambda library, f, a, b: getattr(f, name)(function, (0, 1))({"a": a, "b": b}, (b * 2,)))
    both(lambda library, f, a, b: getattr(f, name)(lambda p: p.first @ p.second)(Pair(a, b)))


@pytest.mark.parametrize("name", ["jacrev", "jacfwd"])
def test_what_stands_beside_the_value(name) -> None:
    both(lambda library, f, a, b: getattr(f, name)(lambda x: (x @ b, {"x": x * 2}), has_aux=True)(a))


@pytest.mark.parametrize("name", ["jacrev", "jacfwd"])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0)])
def test_sizes_of_none_and_one(name, shape) -> None:
    x = np.full(shape, 0.5)
    for library in (pb, torch):
        found = getattr(library.func, name)(lambda v: v.exp())(library.tensor(x))
        assert tuple(found.shape) == (*shape, *shape)
        np.testing.assert_allclose(found.numpy().ravel(), np.exp(x).ravel())


def test_jacobians_keep_the_dtype_of_the_argument() -> None:
    x = pb.tensor([0.5, 2.0], dtype=pb.bfloat16)
    for name in ("jacrev", "jacfwd"):
        found = getattr(func, name)(lambda v: v * v)(x)
        assert found.dtype is pb.bfloat16 and found.tolist() == [[1.0, 0.0], [0.0, 4.0]]
    assert func.jacrev(lambda v: v.double() * 3)(x).dtype is pb.bfloat16


def test_chunks_give_the_whole() -> None:
    whole = func.jacrev(mixed, (0, 1))(pb.tensor(A), pb.tensor(B))
    for chunk in (1, 2, 4, 100):
        found = func.jacrev(mixed, (0, 1), chunk_size=chunk)(pb.tensor(A), pb.tensor(B))
        for ours, expected in zip(found, whole, strict=True):
            np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=1e-13)


def scalar(x, y):
    return (x @ y.sin()).exp().sum() + (x * x.cos()).sum() * y.prod()


@pytest.mark.parametrize("argnums", [0, (0, 1)])
def test_hessians(argnums) -> None:
    both(lambda library, f, a, b: f.hessian(scalar, argnums)(a, b))
    both(lambda library, f, a, b: f.hessian(lambda p: scalar(p["a"], p["b"]))({"a": a, "b": b}))


@pytest.mark.parametrize("outer", ["jacrev", "jacfwd"])
@pytest.mark.parametrize("inner", ["jacrev", "jacfwd"])
def test_any_composition_gives_second_derivatives_of_vectors(outer, inner) -> None:
    both(lambda library, f, a, b: getattr(f, outer)(getattr(f, inner)(lambda y: mixed(a, y)))(b))


def test_third_derivatives() -> None:
    both(lambda library, f, a, b: f.jacfwd(f.hessian(lambda y: scalar(a, y)))(b))


def test_derivatives_of_batches_and_batches_of_derivatives() -> None:
    both(lambda library, f, a, b: f.vmap(f.hessian(lambda x: (x * b).sin().prod()))(a))
    both(lambda library, f, a, b: f.jacrev(f.vmap(lambda x: (x * b).sin().prod()))(a))
    both(lambda library, f, a, b: f.jacfwd(lambda y: f.vmap(lambda x: x.softmax(0) @ y)(a))(b))
    both(lambda library, f, a, b: f.vmap(f.jacrev(lambda x, y: x * y, 1), in_dims=(0, None))(a, b))
    both(lambda library, f, a, b: f.vmap(f.jacfwd(lambda x, y: x * y, 1), in_dims=(0, None))(a, b))


def test_products_with_the_hessian() -> None:
    for library in (pb, torch):
        a, b = library.tensor(A), library.tensor(B)
        full = library.func.hessian(scalar, (0, 1))(a, b)
        by_hand = [
            sum((block * v).sum(tuple(range(-v.ndim, 0))) for block, v in zip(row, (a.cos(), b.exp()), strict=True))
            for row in full
        ]
        if library is pb:
            ours = func.hvp(scalar, (a, b), (a.cos(), b.exp()))
            assert isinstance(ours, tuple)
        for mine, expected in zip(ours, by_hand, strict=True):
            np.testing.assert_allclose(mine.numpy(), expected.numpy(), rtol=1e-10)
    a, b = pb.tensor(A), pb.tensor(B)
    alone = func.hvp(lambda y: scalar(a, y), b, b)
    same(
        alone, torch.autograd.functional.hvp(lambda y: scalar(torch.tensor(A), y), torch.tensor(B), torch.tensor(B))[1]
    )
    (nested,) = func.hvp(lambda p: scalar(a, p["y"]), ({"y": b},), ({"y": b},))
    assert nested["y"].tolist() == alone.tolist()


def test_a_linearized_function_is_called_once_and_pushes_many() -> None:
    calls = []

    def function(x, y):
        calls.append(1)
        return {"p": x @ y, "q": (x * y).exp()}

    a, b = pb.tensor(A), pb.tensor(B)
    value, push = func.linearize(function, a, b)
    found = [push(a * k, b.sin()) for k in (1.0, 2.0)]
    assert len(calls) == 1
    for k, ours in zip((1.0, 2.0), found, strict=True):
        ta, tb = torch.tensor(A), torch.tensor(B)
        same((value, ours), torch.func.jvp(function, (ta, tb), (ta * k, tb.sin())))


def through_derivatives(library):
    """The gradient of a loss that is made of derivatives."""
    w, a = library.tensor(B, requires_grad=True), library.tensor(A)
    rows = library.func.jacrev(lambda x: (x @ w).tanh())(a)
    columns = library.func.jacfwd(lambda y: (a @ y).tanh())(w)
    matrix = library.func.hessian(lambda y: (a @ y).tanh().sum())(w)
    ((rows**2).sum() + (columns**3).sum() + (matrix**2).sum()).backward()
    return w.grad


def test_histories_outside_stay_differentiable() -> None:
    same(through_derivatives(pb), through_derivatives(torch))


def test_draws_are_refused_shared_or_made_for_each_column() -> None:
    x = pb.ones(4, dtype=pb.float64)
    draw = lambda v: v * pb.rand(4, dtype=pb.float64)  # noqa: E731
    with pytest.raises(TraceError, match="randomness"):
        func.jacfwd(draw)(x)
    pb.manual_seed(0)
    same_, different = (func.jacfwd(draw, randomness=r)(x).numpy() for r in ("same", "different"))
    for found in (same_, different):
        assert np.all(found[~np.eye(4, dtype=bool)] == 0) and len(set(np.diag(found))) == 4
    total = lambda v: draw(v).sum() * pb.ones(2, dtype=pb.float64)  # noqa: E731
    ones = func.jacfwd(lambda v: (v * 0 + 1).sum() * pb.rand(1, dtype=pb.float64) * v, randomness="different")(x)
    assert len(set(np.diag(ones.numpy()))) == 4
    assert func.jacrev(total)(x).shape == (2, 4)
    with pytest.raises(TraceError, match="randomness"):
        pb.vmap(func.jacfwd(draw, randomness="same"))(pb.ones(3, 4, dtype=pb.float64))


def test_compiled_derivatives_are_those_of_pytorch() -> None:
    a, b = pb.tensor(A), pb.tensor(B)
    for name in ("jacrev", "jacfwd", "hessian"):
        function = scalar if name == "hessian" else mixed
        ours = pb.compile(getattr(func, name)(function, (0, 1)))
        for _ in range(2):
            same(ours(a, b), getattr(torch.func, name)(function, (0, 1))(torch.tensor(A), torch.tensor(B)))
    each = pb.compile(pb.vmap(func.hessian(lambda x: (x * b).sin().prod())))
    expected = torch.func.vmap(torch.func.hessian(lambda x: (x * torch.tensor(B)).sin().prod()))(torch.tensor(A))
    same(each(a), expected)


def test_what_is_wrong_is_said() -> None:
    x = pb.ones(3)
    for name in ("jacrev", "jacfwd", "hessian", "grad"):
        transform = getattr(func, name)
        with pytest.raises(GradientError, match="got int64"):
            transform(lambda x: x.sum())(pb.arange(3))
        with pytest.raises(IndexError, match="argnums 1 is outside the 1 arguments"):
            transform(lambda x: x.sum(), 1)(x)
        with pytest.raises(ValueError, match="each once"):
            transform(lambda x, y: x.sum(), (0, -2))(x, x)
        with pytest.raises(ValueError, match="each once"):
            transform(lambda x, y: x.sum(), ())(x, x)
        for wrong in ([0], 1.0, True, ("x",), None):
            with pytest.raises(TypeError, match="argnums must be"):
                transform(lambda x: x.sum(), wrong)(x)
        with pytest.raises(TypeError, match="must give tensors" if name != "grad" else "gives a tensor"):
            transform(lambda x: 2.0)(x)
    with pytest.raises(GradientError, match="of floats, got int64"):
        func.jacrev(lambda x: (x, x.argmax()))(x)
    with pytest.raises(ValueError, match="chunk_size"):
        func.jacrev(lambda x: x, chunk_size=0)
    with pytest.raises(ValueError, match="randomness"):
        func.jacfwd(lambda x: x, randomness="some")
    with pytest.raises(TypeError, match="a pair"):
        func.jacrev(lambda x: x, has_aux=True)(x)
    with pytest.raises(TypeError, match="a pair"):
        func.grad(lambda x: x.sum(), has_aux=True)(x)
    with pytest.raises(ShapeError, match=r"shape \[\], got shape \[1\].*jacrev"):
        func.grad(lambda x: x.sum().reshape(1))(x)
    with pytest.raises(TypeError, match="tuple of arguments, got Tensor"):
        func.jvp(lambda x: x, x, x)
    with pytest.raises(GradientError, match="output 1 of shape"):
        func.jvp(lambda x: (x, pb.ones(2)), (x,), (x,), strict=True)
    with pytest.raises(ShapeError, match="linearize: tangents"):
        func.linearize(lambda x, y: x * y, x, x)[1](x)
    with pytest.raises(TypeError, match="hvp: primals and tangents must both be"):
        func.hvp(lambda x: x.sum(), (x,), x)
    with pytest.raises(ShapeError, match="nested otherwise"):
        func.vjp(lambda x: x, x)[1]((x,))
