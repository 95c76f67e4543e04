"""Linear algebra: hard matrices, errors, compiled steps and second derivatives; the rest by the operator database."""

import numpy as np
import pytest
import torch

import pullback as pb
from oracle import Value, compare
from pullback.autograd import gradcheck, gradgradcheck
from pullback.errors import DTypeError, LinAlgError, ShapeError

RANDOM = np.random.default_rng(3)


def well_conditioned(*shape):
    return RANDOM.normal(size=shape) + 3 * np.eye(*shape[-2:])


def positive(*shape):
    a = RANDOM.normal(size=shape)
    return a @ np.swapaxes(a, -1, -2) + np.eye(shape[-1])


EXPRESSIONS = {
    "inv": lambda f, a: f.linalg.inv(a),
    "det": lambda f, a: f.linalg.det(a),
    "slogdet": lambda f, a: f.linalg.slogdet(a)[1],
    "solve": lambda f, a: f.linalg.solve(a, a @ a + 1),
    "solve from the right": lambda f, a: f.linalg.solve(a, a @ a + 1, left=False),
    "solve a vector": lambda f, a: f.linalg.solve(a, a[..., 0]),
    "triangular": lambda f, a: f.linalg.solve_triangular(a, a * a + 1, upper=True),
    "cholesky": lambda f, a: f.linalg.cholesky(a @ a.mT + 2 * f.eye(a.shape[-1], dtype=a.dtype)),
    "qr": lambda f, a: f.linalg.qr(a)[1].abs(),
    "singular values": lambda f, a: f.linalg.svdvals(a),
    "singular vectors": lambda f, a: f.linalg.svd(a)[0].abs(),
    "eigenvalues": lambda f, a: f.linalg.eigvalsh(a + a.mT),
    "eigenvectors": lambda f, a: f.linalg.eigh(a + a.mT)[1].abs(),
    "lu": lambda f, a: f.linalg.lu(a)[1:],
    "pinv": lambda f, a: f.linalg.pinv(a),
    "lstsq": lambda f, a: f.linalg.lstsq(a, a * a)[0],
    "matrix_exp": lambda f, a: f.linalg.matrix_exp(a),
    "matrix_power": lambda f, a: (f.linalg.matrix_power(a, 5), f.linalg.matrix_power(a, -2)),
    "nuclear norm": lambda f, a: f.linalg.matrix_norm(a, "nuc"),
    "cond": lambda f, a: f.linalg.cond(a),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4)], ids=str)
def test_values_and_two_derivatives_are_pytorchs(name, shape):
    compare(EXPRESSIONS[name], Value(well_conditioned(*shape)), second=True, slack=10)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_derivatives_are_those_of_finite_differences(name):
    a = pb.tensor(well_conditioned(3, 3), requires_grad=True)
    assert gradcheck(lambda x: EXPRESSIONS[name](pb, x), [a], fast_mode=True)
    assert gradgradcheck(lambda x: EXPRESSIONS[name](pb, x), [a], fast_mode=True)


def test_tall_and_wide_factorizations_multiply_to_the_matrix():
    for shape in [(5, 3), (3, 5), (2, 70, 40), (0, 3), (3, 0), (0, 2, 2)]:
        a = pb.tensor(RANDOM.normal(size=shape))
        q, r = pb.linalg.qr(a)
        u, s, vh = pb.linalg.svd(a, full_matrices=False)
        p, lower, upper = pb.linalg.lu(a)
        for product in (q @ r, u * s.unsqueeze(-2) @ vh, p @ lower @ upper):
            np.testing.assert_allclose(product.numpy(), a.numpy(), atol=1e-12)


def test_a_singular_matrix_has_a_determinant_with_a_gradient():
    for a in ([[1.0, 2.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]):
        x = pb.tensor(a, dtype=pb.float64, requires_grad=True)
        pb.linalg.det(x).backward()
        minors = torch.func.jacrev(torch.linalg.det)(torch.tensor(a, dtype=torch.float64) + 1e-7 * torch.eye(len(a)))
        np.testing.assert_allclose(x.grad.numpy(), minors.numpy(), atol=1e-5)


def test_triangular_systems_larger_than_a_panel():
    a, b = np.tril(well_conditioned(100, 100)) + 5 * np.eye(100), RANDOM.normal(size=(100, 3))
    for upper, matrix in ((False, a), (True, a.T.copy())):
        x = pb.linalg.solve_triangular(pb.tensor(matrix), pb.tensor(b), upper=upper)
        np.testing.assert_allclose(matrix @ x.numpy(), b, atol=1e-9)


def test_equal_eigenvalues_do_no_harm_to_what_does_not_depend_on_the_choice_of_vectors():
    x = pb.eye(3, dtype=pb.float64).requires_grad_()
    values, vectors = pb.linalg.eigh(x)
    (values.sum() + (vectors @ vectors.mT).sum()).backward()
    np.testing.assert_allclose(x.grad.numpy(), np.eye(3), atol=1e-12)


def test_errors_name_the_matrix_and_the_line():
    singular = np.stack([np.eye(2), np.zeros((2, 2))])
    with pytest.raises(LinAlgError, match=r"inv: the matrix at \[1\] of the batch is singular.*test_linalg"):
        pb.linalg.inv(pb.tensor(singular)).numpy()
    with pytest.raises(LinAlgError, match="order 2 is not positive"):
        pb.linalg.cholesky(pb.tensor([[1.0, 2.0], [2.0, 1.0]])).numpy()
    assert pb.linalg.cholesky_ex(pb.tensor([[1.0, 2.0], [2.0, 1.0]])).info.item() == 2
    assert pb.linalg.inv_ex(pb.tensor(singular)).info.tolist() == [0, 1]
    for factor in (lambda a: pb.linalg.lu_factor_ex(a, check_errors=True), pb.linalg.lu_factor):
        with pytest.raises(LinAlgError, match=r"U\[1,1\] of the matrix at \[1\] of the batch is zero"):
            factor(pb.tensor(singular))[0].numpy()
    assert pb.linalg.lu_factor_ex(pb.tensor(singular)).info.tolist() == [0, 1]
    assert pb.linalg.lu(pb.tensor(singular)).U.tolist() == singular.tolist()
    with pytest.raises(LinAlgError, match="singular"):
        pb.linalg.inv_ex(pb.tensor(singular), check_errors=True).inverse.numpy()
    with pytest.raises(ShapeError, match="square"):
        pb.linalg.det(pb.ones(2, 3))
    with pytest.raises(DTypeError, match="float32 or float64"):
        pb.linalg.inv(pb.ones(2, 2).half())
    with pytest.raises(DTypeError, match="complex"):
        pb.linalg.eig(pb.ones(2, 2))


def test_a_compiled_step_solves_and_a_singular_matrix_leaves_its_state_alone():
    weight = pb.nn.Parameter(pb.tensor(well_conditioned(3, 3)))
    optimizer = pb.optim.SGD([weight], lr=0.1)

    @pb.compile
    def step(b):
        optimizer.zero_grad()
        loss = (pb.linalg.solve(weight, b) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    b = pb.tensor(RANDOM.normal(size=(3, 2)))
    losses = [step(b).item() for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    with pb.no_grad():
        weight.zero_()
    with pytest.raises(LinAlgError, match="singular"):
        step(b).item()
    assert weight.tolist() == np.zeros((3, 3)).tolist()


@pytest.mark.parametrize("matrix", [[[0, 0], [0, 0]], [[1, 2], [2, 4]], [[[1, 2], [2, 4]], [[1, 0], [0, 2]]]], ids=str)
def test_of_singular_matrices_is_given_what_dividing_by_a_zero_pivot_leaves(matrix):
    a, b = np.array(matrix, np.float64), np.arange(2.0)
    for name, operands in (("inv_ex", (a,)), ("solve_ex", (a, np.broadcast_to(b, a.shape[:-1])))):
        ours = getattr(pb.linalg, name)(*(pb.tensor(np.array(o)) for o in operands))
        theirs = getattr(torch.linalg, name)(*(torch.tensor(np.array(o)) for o in operands))
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize(("size", "order"), [(2, 1), (5, 3), (40, 20)])
def test_a_cholesky_factor_has_the_columns_before_the_minor_that_fails(size, order, upper):
    random = np.random.default_rng(0)
    a = random.standard_normal((size, size))
    a = a @ a.T + size * np.eye(size)
    a[order, order] = -5
    ours, theirs = (lib.linalg.cholesky_ex(lib.tensor(a), upper=upper) for lib in (pb, torch))
    assert ours.info.item() == theirs.info.item() == order + 1
    done = (slice(order), slice(None)) if upper else (slice(None), slice(order))
    np.testing.assert_allclose(ours.L.numpy()[done], theirs.L.numpy()[done], rtol=1e-12, atol=1e-14)


def test_gradients_of_inv_ex_and_solve_ex_are_those_of_inv_and_solve():
    random = np.random.default_rng(1)
    a = pb.tensor(random.standard_normal((2, 3, 3)) + 3 * np.eye(3), requires_grad=True)
    b = pb.tensor(random.standard_normal((3, 4)), requires_grad=True)
    assert pb.autograd.gradcheck(lambda a: pb.linalg.inv_ex(a).inverse, a, fast_mode=True)
    assert pb.autograd.gradcheck(lambda a, b: pb.linalg.solve_ex(a, b).result, (a, b), fast_mode=True)
    assert pb.autograd.gradcheck(lambda a, b: pb.linalg.solve_ex(a, b.mT, left=False).result, (a, b), fast_mode=True)


def test_the_gradient_of_the_logarithm_of_a_determinant_of_zero_is_not_finite() -> None:
    a = pb.nn.Parameter(pb.tensor([[1.0, 2.0], [2.0, 4.0]]))
    pb.linalg.slogdet(a)[1].backward()
    assert not bool(a.grad.isfinite().all())  # type: ignore[union-attr]

    @pb.compile
    def step() -> pb.Tensor:
        loss = pb.linalg.slogdet(a)[1].clamp(min=-5)
        loss.backward()
        return loss

    a.grad = None
    with pytest.raises(pb.errors.NonFiniteError):
        step()
