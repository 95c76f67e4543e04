"""Matrices that hold NaN or infinity: where they come from is told, and not the function that cannot be computed."""

import math
from collections.abc import Callable

import pytest
import torch

import pullback as pb
from pullback.errors import LinAlgError, NonFiniteError

FUNCTIONS: dict[str, Callable[[pb.Tensor], pb.Tensor]] = {
    "eigh": lambda a: pb.linalg.eigh(a + a.mT)[0].sum(),
    "svd": lambda a: pb.linalg.svd(a)[1].sum(),
    "pinv": lambda a: pb.linalg.pinv(a).sum(),
    "lstsq": lambda a: pb.linalg.lstsq(a, pb.ones(3, 1)).solution.sum(),
    "norm": lambda a: pb.linalg.matrix_norm(a, 2),
    "matrix_exp": lambda a: pb.linalg.matrix_exp(a).sum(),
    "det": pb.linalg.det,
    "slogdet": lambda a: pb.linalg.slogdet(a)[1],
    "solve": lambda a: pb.linalg.solve(a, pb.ones(3)).sum(),
    "cholesky": lambda a: pb.linalg.cholesky(a @ a.mT).sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_made_them_is_named_in_steps_and_where_anomalies_are_looked_for(name: str) -> None:
    w, scale = pb.eye(3).requires_grad_(), pb.tensor(1000.0)

    def step() -> pb.Tensor:
        w.grad = None
        loss = FUNCTIONS[name](w * scale.exp())  # fault
        loss.backward()
        return loss

    line = step.__code__.co_firstlineno + 2
    for run in (pb.compile(step), step):
        with pytest.raises(NonFiniteError) as caught, pb.autograd.detect_anomaly(run is step):
            run()
        assert (caught.value.op, caught.value.lineno) == ("exp", line)
    skipping = pb.compile(step, on_nonfinite="skip")
    with pytest.warns(UserWarning, match="a step was skipped"):
        assert not skipping().isfinite()
    assert skipping.skipped == 1


def test_of_a_batch_only_those_are_nan() -> None:
    given = [[[1.0, 0.0], [0.0, 2.0]], [[math.nan, 0.0], [0.0, 1.0]]]
    own, theirs = pb.tensor(given, requires_grad=True), torch.tensor(given, requires_grad=True)
    found, wanted = pb.linalg.matrix_exp(own), torch.linalg.matrix_exp(theirs)
    pb.testing.assert_close(found.detach(), pb.tensor(wanted.detach().numpy()), equal_nan=True)
    found.sum().backward(), wanted.sum().backward()
    pb.testing.assert_close(own.grad, pb.tensor(theirs.grad.numpy()), equal_nan=True)
    assert pb.compile(lambda a: pb.linalg.svdvals(a))(pb.tensor(given))[0].tolist() == [2.0, 1.0]
    with pytest.raises(LinAlgError, match="the matrix at \\[1\\] of the batch holds NaN or infinity"):
        pb.linalg.svdvals(pb.tensor(given)).tolist()


def test_compiled_code_gives_what_other_code_does_wherever_that_does_not_raise() -> None:
    a, right = pb.tensor([[2.0, 1.0], [0.0, 3.0]]), pb.tensor([[1.0, math.nan, 1.0], [1.0, 1.0, 1.0]])
    bad = pb.tensor([[math.inf, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    functions: list[Callable[[], object]] = [
        lambda: pb.linalg.solve(a, right),
        lambda: pb.linalg.solve_triangular(a, right, upper=True),
        lambda: pb.cholesky_solve(right, a.mT),
        lambda: pb.linalg.lu_solve(*pb.linalg.lu_factor(a), right),
        lambda: pb.linalg.lu(a)[2],
        lambda: pb.linalg.lu(pb.eye(3)[:, :2])[1],
        lambda: pb.linalg.det(bad),
        lambda: pb.linalg.slogdet(bad)[1],
        lambda: pb.linalg.inv(bad),
        lambda: pb.linalg.qr(bad)[1],
    ]
    for function in functions:
        pb.testing.assert_close(pb.compile(function)(), function(), equal_nan=True)


@pytest.mark.parametrize("name", ["eigh", "svd", "pinv", "lstsq", "norm", "det"])
def test_an_infinity_in_float64_ends_in_an_error_and_not_in_lapack(name: str) -> None:
    """LAPACK may never return from it."""
    a = pb.eye(3, dtype=pb.float64) + 0.1
    a[1, 0] = math.inf
    a.requires_grad_()

    def step() -> pb.Tensor:
        a.grad = None
        loss = pb.linalg.lstsq(a, pb.ones(3, 1, dtype=pb.float64))[0].sum() if name == "lstsq" else FUNCTIONS[name](a)
        loss.backward()
        return loss

    if name == "det":
        assert not step().isfinite()
    else:
        with pytest.raises(LinAlgError, match="holds NaN or infinity"):
            step().item()
    assert not pb.compile(step, on_nonfinite="ignore")().isfinite()
