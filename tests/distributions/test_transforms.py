"""Constraints, transforms and their registries against PyTorch's, and divergences of all pairs; users' own classes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback import debug

random = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def plainly_in_float64() -> Iterator[None]:
    for lib in (pb, torch):
        lib.set_default_dtype(lib.float64)
    with debug.override(backend="reference"):  # nothing of this is about native code
        yield
    for lib in (pb, torch):
        lib.set_default_dtype(lib.float32)


VALUES = [
    np.array([-1.0, 0, 0.5, 1, 2, np.nan]),
    np.array([[0.0, 1, 0], [0.25, 0.5, 0.25], [1, 2, 3]]),
    np.array([[2.0, 0, 0], [0.5, 3, 0], [1, 1, 1]]),
    np.array([[1.0, 0.2], [0.2, 1]]),
    np.array([[[1.0, 0], [0.6, 0.8]]]),
    np.array([[[1.0, 2], [2, 1]], [[2, 1], [1, 2]]]),
]
ROWS = [
    *(
        lambda C, name=name: getattr(C, name)
        for name in ("boolean", "one_hot", "real", "real_vector", "positive", "nonnegative", "nonnegative_integer")
    ),
    *(
        lambda C, name=name: getattr(C, name)
        for name in ("positive_integer", "unit_interval", "simplex", "lower_triangular", "lower_cholesky")
    ),
    *(
        lambda C, name=name: getattr(C, name)
        for name in ("corr_cholesky", "square", "symmetric", "positive_semidefinite", "positive_definite")
    ),
    lambda C: C.greater_than(0.5),
    lambda C: C.greater_than_eq(0.5),
    lambda C: C.less_than(0.5),
    lambda C: C.interval(0.0, 1.5),
    lambda C: C.half_open_interval(0.0, 1.0),
    lambda C: C.integer_interval(0, 1),
    lambda C: C.multinomial(2),
    lambda C: C.independent(C.positive, 1),
    lambda C: C.MixtureSameFamilyConstraint(C.real),
    lambda C: C.cat([C.positive, C.real], -1, [1, 1]),
    lambda C: C.stack([C.positive, C.real], -1),
]


@pytest.mark.parametrize("make", ROWS, ids=lambda make: str(make(torch.distributions.constraints)))
def test_constraints(make: Any) -> None:
    ours, theirs = make(pb.distributions.constraints), make(torch.distributions.constraints)
    assert (ours.event_dim, ours.is_discrete) == (theirs.event_dim, theirs.is_discrete)
    if type(theirs).__name__ not in ("_Cat", "_Stack", "_Multinomial"):  # which do not print their parts
        assert str(ours) == str(theirs).replace("torch.", "")
    for value in VALUES:
        if type(theirs).__name__ in ("_Cat", "_Stack") and value.shape[-1] != 2:  # PyTorch passes over the rest
            continue
        try:
            wanted = theirs.check(torch.tensor(value)).numpy()
        except (RuntimeError, IndexError, AssertionError, ValueError):  # other sizes than it has
            continue
        np.testing.assert_array_equal(ours.check(pb.tensor(value)).numpy(), wanted)


def test_public_names_are_all_there() -> None:
    for room in ("constraints", "transforms", "constraint_registry"):
        names = getattr(torch.distributions, room).__all__
        assert [n for n in names if not hasattr(getattr(pb.distributions, room), n)] == []


VECTOR, MATRIX = random.standard_normal((2, 3)), random.standard_normal((2, 3, 3))
TRANSFORMS = [
    ("exp", lambda T, lib: T.ExpTransform(), VECTOR),
    ("power", lambda T, lib: T.PowerTransform(lib.tensor(-1.5)), abs(VECTOR)),
    ("sigmoid", lambda T, lib: T.SigmoidTransform(), VECTOR),
    ("softplus", lambda T, lib: T.SoftplusTransform(), VECTOR),
    ("tanh", lambda T, lib: T.TanhTransform(), VECTOR),
    ("abs", lambda T, lib: T.AbsTransform(), VECTOR),
    ("affine", lambda T, lib: T.AffineTransform(0.5, -2.0), VECTOR),
    ("affine of vectors", lambda T, lib: T.AffineTransform(lib.zeros(3), lib.tensor([1.0, -2.0, 3.0]), 1), VECTOR),
    ("cdf", lambda T, lib: T.CumulativeDistributionTransform(lib.distributions.Normal(0.5, 2.0)), VECTOR),
    ("softmax", lambda T, lib: T.SoftmaxTransform(), VECTOR),
    ("sticks", lambda T, lib: T.StickBreakingTransform(), VECTOR),
    ("lower", lambda T, lib: T.LowerCholeskyTransform(), MATRIX),
    ("definite", lambda T, lib: T.PositiveDefiniteTransform(), MATRIX),
    ("correlations", lambda T, lib: T.CorrCholeskyTransform(), VECTOR),
    ("reshaped", lambda T, lib: T.ReshapeTransform((3, 3), (9,)), MATRIX),
    ("independent", lambda T, lib: T.IndependentTransform(T.ExpTransform(), 1), VECTOR),
    ("composed", lambda T, lib: T.ComposeTransform([T.AffineTransform(0.0, -2.0), T.StickBreakingTransform()]), VECTOR),
    ("joined", lambda T, lib: T.CatTransform([T.ExpTransform(), T.TanhTransform()], 1, [1, 2]), VECTOR),
    ("stacked", lambda T, lib: T.StackTransform([T.ExpTransform(), T.AffineTransform(1.0, 2.0)], 0), VECTOR),
    ("inverse", lambda T, lib: T.ExpTransform().inv, abs(VECTOR)),
    ("identity", lambda T, lib: T.identity_transform, VECTOR),
]


def told(lib: Any, make: Any, value: np.ndarray) -> dict[str, Any]:
    made, again = (make(lib.distributions.transforms, lib) for _ in range(2))
    x = lib.tensor(value, requires_grad=True)
    y = made(x)
    found: dict[str, Any] = {"y": y, "back": made.inv(y.detach()), "gradient": lib.autograd.grad(y.sin().sum(), x)[0]}
    asks: dict[str, Any] = {
        "stretched": lambda: made.log_abs_det_jacobian(x, y),
        "sign": lambda: made.sign + lib.zeros(1),
        "event_dim": lambda: made.event_dim,
        "dims": lambda: (made.domain.event_dim, made.codomain.event_dim, made.inv.domain.event_dim),
        "forward": lambda: tuple(made.forward_shape(x.shape)),
        "inverse": lambda: tuple(made.inverse_shape(y.shape)),
        "equal": lambda: made == again,
        "cached": lambda: made.with_cache()(x).shape == y.shape,
    }
    for name, ask in asks.items():
        try:
            found[name] = ask()
        except (NotImplementedError, ValueError) as error:
            found[name] = type(error)
    found |= {"bijective": made.bijective, "inv.inv": made.inv.inv is made}
    return found


@pytest.mark.parametrize(("make", "value"), [t[1:] for t in TRANSFORMS], ids=[t[0] for t in TRANSFORMS])
def test_transforms(make: Any, value: np.ndarray) -> None:
    ours, theirs = (told(lib, make, value) for lib in (pb, torch))
    if theirs["equal"] is False and not make(pb.distributions.transforms, pb).bijective:
        del theirs["equal"]
    for name, wanted in theirs.items():
        if isinstance(wanted, torch.Tensor):
            np.testing.assert_allclose(
                ours[name].detach().numpy(), wanted.detach().numpy(), rtol=1e-9, atol=1e-12, err_msg=name
            )
        elif name == "equal":
            assert ours[name] or not wanted  # what has no parameters is equal to its like here in more cases
        else:
            assert ours[name] == wanted, name


def test_a_transform_remembers_where_its_value_came_from() -> None:
    T = pb.distributions.transforms
    x = pb.tensor([30.0])
    for made in (T.TanhTransform(cache_size=1), T.TanhTransform().with_cache(), T.TanhTransform().inv.with_cache().inv):
        y = made(x)
        assert made.inv(y) is x and made(x) is y
    assert T.TanhTransform().inv(y).item() == float("inf")
    with pytest.raises(ValueError, match="cache_size must be 0 or 1"):
        T.ExpTransform(cache_size=2)


def test_registries() -> None:
    for registry in ("transform_to", "biject_to"):
        for make in ROWS:
            theirs = make(torch.distributions.constraints)
            look = getattr(torch.distributions, registry)
            try:
                wanted = look(theirs)
            except NotImplementedError:
                with pytest.raises(NotImplementedError):
                    getattr(pb.distributions, registry)(make(pb.distributions.constraints))
                continue
            found = getattr(pb.distributions, registry)(make(pb.distributions.constraints))
            assert type(found).__name__ == type(wanted).__name__, str(theirs)
            if wanted.domain.event_dim < 2 and "cat" not in str(type(theirs)).lower():
                value = VECTOR[:, :2] if "Stack" in type(theirs).__name__ else VECTOR
                np.testing.assert_allclose(found(pb.tensor(value)).numpy(), wanted(torch.tensor(value)).numpy())

    class Even(pb.distributions.constraints.Constraint):
        def check(self, value: pb.Tensor) -> pb.Tensor:
            return value % 2 == 0

    mine = pb.distributions.constraint_registry.ConstraintRegistry()
    mine.register(Even, lambda _: pb.distributions.AffineTransform(0.0, 2.0))
    assert mine(Even())(pb.tensor(3.0)).item() == 6 and str(Even()) == "Even()"
    with pytest.raises(TypeError, match="Constraint subclass"):
        mine.register(int, lambda _: None)


class _Softsign:
    """What a user writes: x / (1 + |x|)."""

    @staticmethod
    def made(lib: Any) -> Any:
        D = lib.distributions

        class Softsign(D.transforms.Transform):
            bijective, sign = True, 1
            domain, codomain = D.constraints.real, D.constraints.interval(-1.0, 1.0)

            def _call(self, x: Any) -> Any:
                return x / (1 + x.abs())

            def _inverse(self, y: Any) -> Any:
                return y / (1 - y.abs())

            def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
                return -2 * (1 + x.abs()).log()

        return Softsign


def test_a_transform_of_the_users_own() -> None:
    found = []
    for lib in (pb, torch):
        D, kind = lib.distributions, _Softsign.made(lib)
        base = D.Independent(D.Normal(lib.zeros(2), lib.ones(2)), 1)
        made = D.TransformedDistribution(base, [kind(cache_size=1), D.AffineTransform(0.0, lib.tensor([2.0, 3.0]))])
        value = lib.tensor([[0.5, -1.0], [1.5, 2.5]], requires_grad=True)
        density = made.log_prob(value)
        density.sum().backward()
        wide = made.expand((4,))
        assert wide.sample((3,)).shape == (3, 4, 2) and made.event_shape == (2,)
        single = D.TransformedDistribution(D.Normal(0.0, 1.0), kind())
        numbers = (density, value.grad, single.cdf(lib.tensor(0.3)), single.icdf(lib.tensor(0.3)))
        found.append([n.detach().numpy() for n in numbers])
        with pytest.raises(ValueError, match="within the support"):
            single.log_prob(lib.tensor(2.0))
        with pytest.raises(NotImplementedError):
            D.AbsTransform().log_abs_det_jacobian(value, value)
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def _triangle(lib: Any) -> Any:
    D = lib.distributions

    class Triangle(D.Distribution):
        """Density 2 x / high² on [0, high]."""

        arg_constraints = {"high": D.constraints.positive}  # noqa: RUF012
        has_rsample = True

        def __init__(self, high: Any, validate_args: bool | None = None):
            (self.high,) = D.utils.broadcast_all(high)
            super().__init__(self.high.shape, validate_args=validate_args)

        def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
            new = self._get_checked_instance(Triangle, _instance)
            new.high = self.high.expand(batch_shape)
            super(Triangle, new).__init__(batch_shape, validate_args=False)
            new._validate_args = self._validate_args
            return new

        @D.constraints.dependent_property(is_discrete=False, event_dim=0)
        def support(self) -> Any:
            return D.constraints.interval(0.0, self.high)

        def rsample(self, sample_shape: Any = ()) -> Any:
            return self.high * lib.rand(self._extended_shape(sample_shape)).sqrt()

        def log_prob(self, value: Any) -> Any:
            if self._validate_args:
                self._validate_sample(value)
            return np.log(2.0) + value.log() - 2 * self.high.log()

    return Triangle


@pytest.mark.parametrize("lib", [pb, torch], ids=["pullback", "torch"])
def test_a_distribution_of_the_users_own(lib: Any) -> None:
    D, Triangle = lib.distributions, _triangle(lib)
    made = Triangle(lib.tensor([2.0, 4.0]))
    np.testing.assert_allclose(made.log_prob(lib.tensor([1.0, 1.0])).numpy(), np.log([0.5, 0.125]))
    assert made.sample((3,)).shape == (3, 2) and made.expand((5, 2)).log_prob(lib.ones(2)).shape in ((5, 2), (2,))
    assert str(Triangle(2.0)) == "Triangle(high: 2.0)"
    assert D.Independent(made, 1).log_prob(lib.ones(2)).shape == ()
    with pytest.raises(ValueError, match="Expected parameter high"):
        Triangle(lib.tensor([2.0, -1.0]))
    with pytest.raises(ValueError, match="within the support"):
        made.log_prob(lib.tensor([3.0, 1.0]))
    assert lib.isfinite(Triangle(2.0, validate_args=False).log_prob(lib.tensor(3.0)))
    assert D.constraints.is_dependent(Triangle.support) and Triangle.support.event_dim == 0

    class Squares(D.Normal):
        def __init__(self, loc: Any):
            super().__init__(loc, loc.square())

    with pytest.raises(NotImplementedError, match=r"custom \.expand"):
        Squares(lib.ones(2)).expand((3, 2))

    class Unknown(D.Distribution):
        arg_constraints = {}  # noqa: RUF012

    for ask in ("mean", "variance", "support"):
        with pytest.raises(NotImplementedError):
            getattr(Unknown(validate_args=False), ask)
    with pytest.raises(NotImplementedError):
        D.kl_divergence(Unknown(validate_args=False), made)
    if lib is pb:  # PyTorch's check lets int pass
        with pytest.raises(TypeError, match="Expected type_p to be a Distribution subclass"):
            D.register_kl(int, Unknown)


def test_bases_and_how_they_print() -> None:
    made = {
        "Gumbel": (0.5, 2.0), "HalfNormal": (2.0,), "HalfCauchy": (2.0,), "LogNormal": (0.5, 2.0), "Normal": (0.0, 1.0)
    }  # fmt: skip
    for name, arguments in made.items():
        ours, theirs = (getattr(lib.distributions, name)(*map(lib.tensor, arguments)) for lib in (pb, torch))
        assert str(ours) == str(theirs)
        if name != "Normal":
            assert str(ours.base_dist).split("(")[0] == str(theirs.base_dist).split("(")[0]
            assert [type(t).__name__ for t in ours.transforms] == [type(t).__name__ for t in theirs.transforms]
    for name, value in (("RelaxedBernoulli", 0.3), ("RelaxedOneHotCategorical", [0.3, 0.7])):
        found = []
        for lib in (pb, torch):
            relaxed = getattr(lib.distributions, name)(lib.tensor(0.5), probs=lib.tensor(value))
            at = lib.tensor([-1.0, -0.5]).log_softmax(-1) if isinstance(value, list) else lib.tensor(0.4)
            found.append([relaxed.base_dist.log_prob(at).numpy(), relaxed.probs.numpy(), relaxed.temperature.numpy()])
            assert type(relaxed.base_dist).__name__ in ("LogitRelaxedBernoulli", "ExpRelaxedCategorical")
        np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-9)
    assert str(pb.distributions.Categorical(pb.ones(3))) == "Categorical(probs: pullback.Size([3]))"


PARAMETERS = {
    "Bernoulli": (0.3,), "Beta": (1.5, 2.5), "Cauchy": (0.4, 1.5), "Exponential": (1.7,), "Gamma": (1.5, 2.5),
    "Geometric": (0.3,), "Gumbel": (0.5, 1.5), "HalfNormal": (1.5,), "Laplace": (0.5, 1.5), "LogNormal": (0.3, 1.2),
    "Binomial": (4, 0.3), "Normal": (0.5, 1.5), "Pareto": (0.7, 2.5), "Poisson": (2.5,), "Uniform": (0.1, 0.8),
}  # fmt: skip


def test_divergences_of_all_pairs() -> None:
    """In PyTorch's registry, of what is here; with other parameters on the other side."""
    checked = 0
    for p, q in torch.distributions.kl._KL_REGISTRY:
        if p.__name__ not in PARAMETERS or q.__name__ not in PARAMETERS:
            continue
        found = []
        for lib in (pb, torch):
            at = [lib.tensor([float(v)], requires_grad=True) for v in PARAMETERS[p.__name__]]
            other = [lib.tensor([v * 1.1 if isinstance(v, float) else float(v)]) for v in PARAMETERS[q.__name__]]
            one = getattr(lib.distributions, p.__name__)(*at)
            value = lib.distributions.kl_divergence(one, getattr(lib.distributions, q.__name__)(*other))
            if np.isfinite(value.item()):
                value.sum().backward()
            found.append([value.item(), *(0 if t.grad is None else t.grad.item() for t in at)])
        np.testing.assert_allclose(*found, rtol=1e-8, atol=1e-10, err_msg=f"{p.__name__} {q.__name__}")
        checked += 1
    assert checked > 60
