"""Elementary and special functions against SciPy's in float64, over their ranges, in units in the last place."""

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

import pullback as pb
from pullback import debug
from pullback.errors import DomainError, GradientError

_RANDOM = np.random.default_rng(0)
_BOTH = np.concatenate([s * 10 ** _RANDOM.uniform(-8, 1.5, 2000) for s in (-1, 1)])
_ABOVE = 10 ** _RANDOM.uniform(-6, 6, 4000)
_UNIT = _RANDOM.uniform(-1, 1, 4000)

#: name, the same in float64, points, and the greatest error in float32 and float64 (SciPy's own included:
#: against 35 digits ours stay below 4 units for erfc and lgamma too)
CASES = [
    ("tan", np.tan, _BOTH, 3, 4),
    ("atan", np.arctan, _BOTH, 3, 3),
    ("asin", np.arcsin, _UNIT, 3, 3),
    ("acos", np.arccos, _UNIT, 3, 3),
    ("sinh", np.sinh, _BOTH, 4, 4),
    ("cosh", np.cosh, _BOTH, 4, 4),
    ("asinh", np.arcsinh, _BOTH, 4, 4),
    ("acosh", np.arccosh, 1 + _ABOVE, 4, 4),
    ("atanh", np.arctanh, _UNIT, 4, 4),
    ("expm1", np.expm1, _BOTH, 4, 4),
    ("log1p", np.log1p, _ABOVE, 3, 4),
    ("log2", np.log2, _ABOVE, 4, 4),
    ("log10", np.log10, _ABOVE, 4, 4),
    ("erfc", scipy.special.erfc, _RANDOM.uniform(-3, 8, 4000), 5, 40),
    ("erfinv", scipy.special.erfinv, np.concatenate([_UNIT, 0.01 * _UNIT]), 5, 12),
    ("lgamma", scipy.special.gammaln, _ABOVE, 4, 150),
    ("i0", scipy.special.i0, _BOTH, 7, 12),
]


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(("name", "function", "points", "single", "double"), CASES, ids=[c[0] for c in CASES])
def test_errors_are_a_few_units_in_the_last_place(name, function, points, single, double, backend) -> None:
    for dtype, bound in ((np.float32, single), (np.float64, double)):
        x = points.astype(dtype)
        expected = function(x.astype(np.float64))
        with debug.override(backend=backend):
            got = getattr(pb.tensor(x), name)().numpy()
        inside = np.abs(expected) < np.finfo(dtype).max / 2
        error = np.abs(got.astype(np.float64) - expected)[inside]
        assert np.max(error / np.spacing(np.abs(expected[inside]).astype(dtype))) <= bound


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logarithms_of_powers_are_whole(dtype: str) -> None:
    binary = pb.tensor([2.0**k for k in range(-120, 120)], dtype=getattr(pb, dtype))
    assert binary.log2().tolist() == list(range(-120, 120))
    decimal = pb.tensor([10.0**k for k in range(11)], dtype=getattr(pb, dtype))
    assert decimal.log10().tolist() == list(range(11))


def test_tanh_of_float64_is_right_to_two_units() -> None:
    x = np.concatenate([np.linspace(-1, 1, 200_000), _BOTH])
    exact = np.tanh(x.astype(np.longdouble))
    error = np.abs(pb.tensor(x).tanh().numpy() - exact) / np.spacing(np.abs(exact.astype(np.float64)))
    assert error.max() < 1.5


@pytest.mark.parametrize(
    ("name", "low", "high", "bound"),
    [
        ("lgamma", 0.01, 20, 4),
        ("erfinv", 1e-6, 0.9999, 5),
        ("erfc", 0.01, 9, 5),
        ("i0", 0.1, 80, 5),
        ("i1", 0.1, 80, 9),
    ],
)
def test_float32_is_within_the_bound_that_is_named(name: str, low: float, high: float, bound: float) -> None:
    """Against SciPy's float64, also near the zeros of lgamma."""
    x = np.geomspace(low, high, 100_000).astype(np.float32)
    exact = getattr(scipy.special, {"lgamma": "gammaln"}.get(name, name))(x.astype(np.float64))
    error = np.abs(_named(pb, name)(pb.tensor(x)).numpy() - exact)
    assert (error / np.spacing(np.abs(exact).astype(np.float32))).max() < bound


#: by PyTorch's name, in `torch` or `torch.special`
ONE_OPERAND = (
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "digamma", "entr", "erf", "erfc", "erfcx",
    "erfinv", "exp", "exp2", "expm1", "i0", "i0e", "i1", "i1e", "lgamma", "log", "log10", "log1p", "log2",
    "log_ndtr", "logit", "ndtr", "ndtri", "reciprocal", "rsqrt", "sigmoid", "sin", "sinc", "sinh",
    "spherical_bessel_j0", "sqrt", "tan", "tanh",
)  # fmt: skip
TWO_OPERANDS = ("atan2", "hypot", "logaddexp", "logaddexp2", "pow", "xlogy", "xlog1py")


def _of_every_exponent(dtype: Any, count: int) -> np.ndarray:
    """`count` numbers of each sign and exponent, subnormal ones too, powers of two among them, and infinities."""
    digits, whole, exponents = (23, np.uint32, 256) if dtype is np.float32 else (52, np.uint64, 2048)
    fractions = np.concatenate([[0], np.random.default_rng(0).integers(0, 1 << digits, count - 1)]).astype(whole)
    bits = (np.arange(exponents, dtype=whole)[:, None] << whole(digits)) | fractions
    found = bits.ravel().view(dtype)
    return np.concatenate([found, -found, np.arange(-20, 20, dtype=dtype) / 2])


def _named(library: Any, name: str) -> Callable[..., Any]:
    return getattr(library, name, None) or getattr(library.special, name)


def _assert_as_finite(name: str, operands: list[np.ndarray]) -> None:
    """No NaN where PyTorch has a number, and nothing infinite where it is finite, in this type and in float64."""
    dtype = operands[0].dtype
    got = _named(pb, name)(*map(pb.tensor, operands)).numpy()
    narrow = _named(torch, name)(*map(torch.tensor, operands)).numpy()
    wide = _named(torch, name)(*(torch.tensor(x).double() for x in operands)).numpy()
    with np.errstate(all="ignore"):
        finite = np.isfinite(narrow) & np.isfinite(wide.astype(dtype))
    some_nan = np.logical_or.reduce([np.isnan(x) for x in operands])
    wrong = (np.isnan(got) & ~np.isnan(narrow) & ~np.isnan(wide) & ~some_nan) | (np.isinf(got) & finite)
    assert not wrong.any(), [(x[wrong][:3], got[wrong][:3], narrow[wrong][:3]) for x in operands]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ONE_OPERAND)
def test_what_is_finite_in_pytorch_is_finite_over_all_exponents(name: str, dtype: Any) -> None:
    _assert_as_finite(name, [_of_every_exponent(dtype, 24 if dtype is np.float32 else 4)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TWO_OPERANDS)
def test_pairs_that_are_finite_in_pytorch_are_finite(name: str, dtype: Any) -> None:
    points = np.random.default_rng(1).choice(_of_every_exponent(dtype, 2), (2, 2000))
    _assert_as_finite(name, list(points[:, np.isfinite(points).all(0)]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["erfc", "erfcx", "i1e", "logit", "sinc"])
def test_gradients_are_numbers_where_pytorchs_are(name: str, dtype: Any) -> None:
    x = _of_every_exponent(dtype, 8)
    x = x[np.isfinite(x)]
    ours, theirs = pb.tensor(x).requires_grad_(), torch.tensor(x).requires_grad_()
    got = pb.autograd.grad(_named(pb, name)(ours).sum(), ours)[0].numpy()
    (wanted,) = torch.autograd.grad(_named(torch, name)(theirs).sum(), theirs)
    wrong = np.isnan(got) & ~np.isnan(wanted.numpy())
    assert not wrong.any(), (x[wrong][:3], wanted.numpy()[wrong][:3])


def test_the_angle_of_points_of_which_sums_and_squares_are_not_floats() -> None:
    for size in (3e38, 1e-30, 1e-37):
        y, x = (pb.tensor([size * k]).requires_grad_() for k in (0.6, -1.0))
        angle = pb.atan2(y, x)
        np.testing.assert_allclose(angle.item(), np.arctan2(0.6, -1.0), rtol=3e-7)
        slopes = [g.item() for g in pb.autograd.grad(angle.sum(), [y, x])]
        np.testing.assert_allclose(slopes, [-1 / 1.36 / size, -0.6 / 1.36 / size], rtol=1e-5)


def test_zeta_keeps_its_digits_for_great_powers() -> None:
    s, q = np.array([19.7, 60.0, 3.0, 400.0]), np.array([10.01, 30.0, 10.5, 200.0])
    got = pb.special.zeta(pb.tensor(s), pb.tensor(q)).numpy()
    np.testing.assert_allclose(got, scipy.special.zeta(s, q), rtol=1e-14)


#: name, points, the gradients there (of mpmath), and the relative error in float32; some tiny and large in its terms
SLOPES = [
    ("erfcx", [3.0, 15.0, 40.0, 1e10, 1e19, np.inf],
     [-0.05437226, -0.00249097544, -0.000352288425, -5.641896e-21, -5.641896e-39, 0.0], 2e-5),
    ("i1", [0.0, -1e-45, 1e-30, 1e-9, 0.5], [0.5, 0.5, 0.5, 0.5, 0.54769476], 1e-6),
    ("i1e", [0.0, -1e-45, 1e-30, 0.001, -0.5], [0.5, 0.5, 0.5, 0.4990009369, 0.1757728609], 1e-6),
    ("expm1", [-40.0, -20.0, 0.0], [4.2483543e-18, 2.0611536e-9, 1.0], 1e-6),
    ("elu", [-40.0, -20.0, 1.0], [4.2483543e-18, 2.0611536e-9, 1.0], 1e-6),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [pb.float32, pb.float64])
def test_slopes_keep_their_digits_where_terms_cancel(dtype: Any) -> None:
    inputs = [pb.tensor(points, dtype=dtype, requires_grad=True) for _, points, _, _ in SLOPES]
    functions = [getattr(pb.nn.functional, name, None) or _named(pb, name) for name, *_ in SLOPES]
    values = [function(x) for function, x in zip(functions, inputs, strict=True)]
    slopes = pb.autograd.grad(sum(v.sum() for v in values), inputs)
    for (name, _, expected, bound), slope in zip(SLOPES, slopes, strict=True):
        np.testing.assert_allclose(slope.tolist(), expected, rtol=bound, atol=1e-45, err_msg=name)


def test_the_gradient_of_nextafter_is_zero_where_there_is_no_way_to_go() -> None:
    x, y = pb.tensor([0.0, 1.0, 2.0]).requires_grad_(), pb.tensor([0.0, 3.0, 1.0])
    assert pb.autograd.grad(pb.nextafter(x, y).sum(), x)[0].tolist() == [0, 1, 1]


def test_erfcx_of_what_is_beyond_its_polynomial() -> None:
    x = pb.tensor([1e19, 1e37, 3e38, np.inf])
    np.testing.assert_allclose(pb.special.erfcx(x).tolist(), [5.6418958e-20, 5.6418958e-38, 1.8806e-39, 0], rtol=1e-4)
    x = pb.tensor([1e19, 1e300], dtype=pb.float64)
    np.testing.assert_allclose(
        pb.special.erfcx(x).tolist(), [5.641895835477563e-20, 5.641895835477563e-301], rtol=1e-15
    )


def test_zeta_far_below_zero_takes_no_more_steps() -> None:
    s, q = np.array([2.0, 3.0, 4.0, 2.0]), np.array([-1.5, -0.25, -1000.25, -1e9 - 0.5])
    # of 40-digit arithmetic
    expected = [9.3792466449891238, -61.34868339183118, 259.75757609034058, 9.8696044000893586]
    np.testing.assert_allclose(pb.special.zeta(pb.tensor(s), pb.tensor(q)).numpy(), expected, rtol=1e-12)


def test_incomplete_gamma_of_great_numbers() -> None:
    """Against 40-digit arithmetic; the sum of its series would have a million terms."""
    a = np.array([1e4, 1e4, 1e6, 1e6, 100.0, 1e-10, 0.001])
    x = np.array([1e4 - 300, 1e4 + 300, 1e6, 1e6 + 3000, 1.0, 5.0, 5.0])
    upper = [0.9987658244155315, 0.0014704948963856813, 0.4998670192391274, 0.0013617406462175915, 1.0,
             1.1482955915436805e-13, 1.150981339730861e-06]  # fmt: skip
    np.testing.assert_allclose(pb.special.gammaincc(pb.tensor(a), pb.tensor(x)).numpy(), upper, rtol=2e-14)
    lower = pb.special.gammainc(pb.tensor(a), pb.tensor(x)).numpy()
    np.testing.assert_allclose(lower[:4], 1 - np.array(upper[:4]), rtol=1e-12)
    np.testing.assert_allclose(lower[4], 3.9812808189568546e-159, rtol=2e-13)
    far = pb.special.gammainc(pb.tensor(np.full(3, 1e12)), pb.tensor(np.array([0.999e12, 1e12, 1.001e12]))).tolist()
    np.testing.assert_allclose(far, [0, 0.5 + 1 / (3 * np.sqrt(2e12 * np.pi)), 1], rtol=1e-15)


@pytest.mark.parametrize(("dtype", "rtol"), [(pb.float32, 1e-6), (pb.float64, 1e-12)])
def test_the_slope_of_incomplete_gamma_keeps_its_digits(dtype: Any, rtol: float) -> None:
    a, x = [1000.0, 0.5, 1.0, 2.0], [970.0, 0.25, 0.0, 1e-30]
    point = pb.tensor(x, dtype=dtype, requires_grad=True)
    (slope,) = pb.autograd.grad(pb.special.gammainc(pb.tensor(a, dtype=dtype), point).sum(), point, create_graph=True)
    np.testing.assert_allclose(slope.tolist(), scipy.stats.gamma.pdf(np.array(x), np.array(a)), rtol=rtol)
    (bend,) = pb.autograd.grad(slope[:2].sum(), point)
    expected = slope.detach().numpy()[:2] * ((np.array(a[:2]) - 1) / np.array(x[:2]) - 1)
    np.testing.assert_allclose(bend.numpy()[:2], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "order", "points", "expected"),
    [  # of mpmath
        (pb.float32, 30, [30.0, 3.0, -0.25], [-6.804363e-14, -4.2949627e17, np.inf]),
        (pb.float32, 20, [0.7, -0.25, 3.0], [-4.35578e21, 1.0700016e31, -2.3314156e8]),
        (pb.float64, 40, [30.0, 3.0, -0.25], [-3.0429735e-13, -2.2370562e28, 3.9455242e72]),
        (pb.float64, 171, [30.0, 3.0, -0.25, np.inf], [1.0726779e55, 1.0688636e227, np.inf, 0]),
    ],
)
def test_polygamma_of_high_orders(dtype: Any, order: int, points: list[float], expected: list[float]) -> None:
    """The powers and the factorial would be no floats by themselves."""
    with debug.override(backend="reference"):
        got = pb.polygamma(order, pb.tensor(points, dtype=dtype)).tolist()
    np.testing.assert_allclose(got, expected, rtol=4e-6 if dtype is pb.float32 else 1e-7)


def test_poles_of_polygamma_are_as_in_pytorch() -> None:
    points = [0.0, -0.0, -1.0, -7.0]
    for order, pole in ((1, np.inf), (2, -np.inf), (3, np.inf)):
        assert pb.polygamma(order, pb.tensor(points)).tolist() == [pole] * 4


def test_incomplete_gamma_is_a_share() -> None:
    a, x = np.array([5e-324, 1e-300, 1e-38]), np.array([0.5, 1.0, 1e-38])
    lower, upper = (f(pb.tensor(a), pb.tensor(x)).numpy() for f in (pb.special.gammainc, pb.special.gammaincc))
    assert (lower >= 0).all() and (lower <= 1).all() and (upper >= 0).all() and (upper <= 1).all()


@pytest.mark.parametrize("dtype", [pb.float32, pb.float64])
def test_hardswish_has_a_slope_at_infinity(dtype: Any) -> None:
    x = pb.tensor([np.inf, -np.inf, 3.0, -3.0, 1.0], dtype=dtype).requires_grad_()
    (slope,) = pb.autograd.grad(pb.nn.functional.hardswish(x).sum(), x)
    np.testing.assert_allclose(slope.numpy(), [1, 0, 1, 0, 5 / 6], rtol=1e-6)


def _airy(x: np.ndarray) -> np.ndarray:
    """SciPy's, and between 1 and 2.1, where its series takes off most of a sum, mpmath's."""
    found, middle = np.array(scipy.special.airy(x)[0]), (x > 1) & (x < 2.1)
    found[middle] = [float(mpmath.airyai(value)) for value in x[middle]]
    return found


#: Bessel's and Airy's functions by PyTorch's name: SciPy's, what an error is relative to, and the greatest one allowed
#: in units of the type's epsilon
BESSEL = {
    "bessel_j0": (scipy.special.j0, lambda x, y: 1 + 0 * y, 4),
    "bessel_j1": (scipy.special.j1, lambda x, y: 1 + 0 * y, 4),
    "bessel_y0": (scipy.special.y0, lambda x, y: 1 + np.abs(y), 4),
    "bessel_y1": (scipy.special.y1, lambda x, y: 1 + np.abs(y), 4),
    "modified_bessel_k0": (scipy.special.k0, lambda x, y: y * (1 + x / 12), 12),
    "modified_bessel_k1": (scipy.special.k1, lambda x, y: y * (1 + x / 12), 12),
    "scaled_modified_bessel_k0": (scipy.special.k0e, lambda x, y: y, 12),
    "scaled_modified_bessel_k1": (scipy.special.k1e, lambda x, y: y, 12),
    "airy_ai": (
        _airy,
        lambda x, y: np.where(x > 0, y, 1) * (1 + np.abs(x) ** 1.5),
        4,
    ),
}


def _all_bessel(x: pb.Tensor) -> Any:
    return pb.stack([_named(pb, name)(x) for name in BESSEL])


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bessels_functions_are_scipys(dtype: Any, backend: str) -> None:
    """In one program. PyTorch's leave the leading 1 of some denominators out, and are off by 3e-7."""
    random = np.random.default_rng(3)
    ends = [0.0, -0.0, -1.0, 1.0, 2.0, 2.09, -2.09, 5.0, np.inf, -np.inf, np.nan, np.finfo(dtype).tiny]
    parts = (random.uniform(-10, 10, 2000), random.uniform(10, 80, 1000), 10 ** random.uniform(-6, 0, 500), ends)
    x = np.concatenate(parts).astype(dtype)
    with debug.override(backend=backend):
        found = _all_bessel(pb.tensor(x)).numpy().astype(np.float64)
    exact = x.astype(np.float64)
    for (name, (function, scale, bound)), got in zip(BESSEL.items(), found, strict=True):
        wanted = function(exact)
        with np.errstate(all="ignore"):
            wanted = wanted.astype(dtype).astype(np.float64) if dtype is np.float32 else wanted
            error = np.abs(got - wanted) / (scale(exact, np.abs(wanted)) * np.finfo(dtype).eps)
        counts = np.isfinite(wanted) & (np.abs(wanted) > np.finfo(dtype).tiny)
        assert error[counts].max() <= bound, (name, exact[counts][error[counts].argmax()], error[counts].max())
        np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted), name)
        np.testing.assert_array_equal(got[np.isinf(wanted)], wanted[np.isinf(wanted)], name)


def test_bessels_functions_have_their_derivatives_and_airys_says_that_it_has_none() -> None:
    x = pb.tensor([0.3, 1.1, 3.0, 7.0], dtype=pb.float64).requires_grad_()
    names = [name for name in BESSEL if name != "airy_ai"]
    with debug.override(backend="reference"):
        for check in (pb.autograd.gradcheck, pb.autograd.gradgradcheck):
            assert check(lambda x: pb.stack([_named(pb, name)(x) for name in names]), [x])
        zero = pb.tensor([0.0]).requires_grad_()
        assert pb.autograd.grad(pb.special.bessel_j1(zero).sum(), zero)[0].item() == 0.5
        with pytest.raises(GradientError, match="airy_ai has no derivative"):
            pb.special.airy_ai(x).sum().backward()


def test_what_takes_steps_by_its_arguments_takes_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far below zero, in the middle of large gamma functions, and at degrees that have no end."""
    whole, beyond = np.array([3.0, 2.0, 3.0, 3.0]), np.array([-1e6 + 0.25, -1e12 + 0.5, -1e15 + 0.5, -100.3])
    fraction = beyond - np.floor(beyond)
    sign, zeta = np.where(whole == 2, 1.0, -1.0), scipy.special.zeta
    exact = zeta(whole, fraction) + sign * (zeta(whole, 1 - fraction) - zeta(whole, 1 - beyond))
    np.testing.assert_allclose(
        pb.special.zeta(pb.tensor(whole), pb.tensor(beyond)).numpy(), exact, rtol=1e-14, atol=1e-14
    )
    a = np.array([1e4, 1e6, 1e9, 1e12])[:, None]
    x = a + np.sqrt(a) * np.array([-8, -3.0, -1.0, 0.0, 1.0, 3.0, 8])
    for name, of_one in (("gammainc", scipy.special.gammainc), ("gammaincc", scipy.special.gammaincc)):
        got = getattr(pb.special, name)(pb.tensor(a), pb.tensor(x)).numpy()
        np.testing.assert_allclose(got, of_one(a, x), rtol=1e-11 if name == "gammaincc" else 1e-9, atol=1e-15)
    monkeypatch.setattr("pullback.ops.polynomials._GREATEST_DEGREE", 1000)
    with pytest.raises(DomainError, match=r"degree is 1099511627776: .* 1000 at most"):
        pb.special.legendre_polynomial_p(pb.tensor([0.5]), 2**40).numpy()
    with pytest.raises(ValueError, match="at most 200"):
        pb.polygamma(1000, pb.tensor([1.5]))
