"""Distributions against PyTorch's: every number they tell, gradients, shapes, errors; values by their moments."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback import debug

random = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    for lib in (pb, torch):
        lib.set_default_dtype(lib.float64)
    yield
    for lib in (pb, torch):
        lib.set_default_dtype(lib.float32)


def positive(*shape: int) -> np.ndarray:
    return random.random(shape) + 0.3


def normal(*shape: int) -> np.ndarray:
    return random.standard_normal(shape)


def simplex(*shape: int) -> np.ndarray:
    x = positive(*shape)
    return x / x.sum(-1, keepdims=True)


MATRIX = normal(3, 3)
COVARIANCE = MATRIX @ MATRIX.T + 3 * np.eye(3)
LOW = normal(3)
BITS = ({"probs": simplex(4)}, {"logits": normal(4)})
CASES = [
    *(
        (name, {"loc": normal(3), "scale": positive(3)}, normal(4, 3))
        for name in ("Normal", "Laplace", "Cauchy", "Gumbel")
    ),
    ("LogNormal", {"loc": normal(3), "scale": positive(3)}, positive(4, 3)),
    *((name, {"scale": positive(3)}, positive(4, 3)) for name in ("HalfNormal", "HalfCauchy")),
    ("Uniform", {"low": LOW, "high": LOW + 2}, LOW + random.random((4, 3))),
    ("Exponential", {"rate": positive(3)}, positive(4, 3)),
    ("Gamma", {"concentration": positive(3), "rate": positive(3)}, positive(4, 3)),
    ("Chi2", {"df": positive(3) * 3}, positive(4, 3)),
    ("Beta", {"concentration1": positive(3), "concentration0": positive(3)}, simplex(4, 3)),
    ("Dirichlet", {"concentration": positive(2, 3)}, simplex(4, 2, 3)),
    ("Poisson", {"rate": positive(3)}, np.array([0.0, 2, 5])),
    *(
        ("Bernoulli", parameter, np.array([0.0, 1, 1, 0]))
        for parameter in ({"probs": simplex(4)}, {"logits": normal(4)})
    ),
    *(
        ("Geometric", parameter, np.array([0.0, 1, 3, 2]))
        for parameter in ({"probs": simplex(4)}, {"logits": normal(4)})
    ),
    ("Categorical", {"probs": positive(2, 4)}, np.array([0, 3])),
    ("Categorical", {"logits": normal(2, 4)}, np.array([[0, 3], [1, 2]])),
    *(("OneHotCategorical", p, np.eye(4)[[1, 2]]) for p in ({"probs": positive(2, 4)}, {"logits": normal(2, 4)})),
    ("MultivariateNormal", {"loc": normal(2, 3), "covariance_matrix": COVARIANCE}, normal(4, 2, 3)),
    ("MultivariateNormal", {"loc": normal(3), "precision_matrix": COVARIANCE}, normal(4, 3)),
    ("MultivariateNormal", {"loc": normal(3), "scale_tril": np.linalg.cholesky(COVARIANCE)}, normal(4, 3)),
    ("RelaxedBernoulli", {"temperature": np.array(0.7), "logits": normal(3)}, simplex(4, 3)),
    ("RelaxedOneHotCategorical", {"temperature": np.array(0.7), "logits": normal(2, 3)}, simplex(4, 2, 3)),
    ("Normal", {"loc": 0.0, "scale": 1.0}, normal(3)),
    ("StudentT", {"df": 2.5 + positive(3), "loc": normal(3), "scale": positive(3)}, normal(4, 3)),
    ("StudentT", {"df": np.array([0.5, 1.5])}, normal(4, 2)),
    ("FisherSnedecor", {"df1": 2 + positive(3), "df2": 9 + positive(3)}, positive(4, 3)),
    ("Pareto", {"scale": positive(3), "alpha": 4 + positive(3)}, 2 + positive(4, 3)),
    ("Weibull", {"scale": positive(3), "concentration": 1 + positive(3)}, positive(4, 3)),
    ("Kumaraswamy", {"concentration1": 1 + positive(3), "concentration0": 1 + positive(3)}, simplex(4, 3)),
    ("InverseGamma", {"concentration": 5 + positive(3), "rate": positive(3)}, positive(4, 3)),
    ("LogisticNormal", {"loc": normal(2, 2), "scale": positive(2, 2)}, simplex(4, 2, 3)),
    *(("Binomial", {"total_count": 5, **p}, np.array([0.0, 1, 5, 3])) for p in BITS),
    *(("NegativeBinomial", {"total_count": 3, **p}, np.array([0.0, 1, 5, 3])) for p in BITS),
    *(
        ("Multinomial", {"total_count": 5, **p}, np.array([[0.0, 1, 4, 0], [2, 1, 1, 1]]))
        for p in ({"probs": positive(2, 4)}, {"logits": normal(2, 4)})
    ),
]


#: further kinds, whose functions need no native code of their own
PLAIN = {"StudentT", "FisherSnedecor", "Pareto", "Weibull", "Kumaraswamy", "InverseGamma", "LogisticNormal", "Binomial"}
PLAIN |= {"NegativeBinomial", "Multinomial", "HalfCauchy"}


def backend(name: str) -> Any:
    return debug.override(backend="reference") if name in PLAIN else nullcontext()


def given(lib: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        name: lib.tensor(value, requires_grad=True) if isinstance(value, np.ndarray) else value
        for name, value in parameters.items()
    }


def asked(ask: Any) -> Any:
    try:
        found = ask()
    except (NotImplementedError, TypeError):
        return None
    return np.array(found.detach().numpy() if hasattr(found, "detach") else found, np.float64)


def told(lib: Any, name: str, parameters: dict[str, Any], value: np.ndarray) -> dict[str, Any]:
    arguments, at = given(lib, parameters), lib.tensor(value)
    made = getattr(lib.distributions, name)(**arguments)
    density = made.log_prob(at)
    if density.requires_grad:
        density.sum().backward()
    found = {f"gradient of {k}": asked(lambda t=t: t.grad) for k, t in arguments.items() if hasattr(t, "grad")}
    found |= {p: asked(lambda p=p: getattr(made, p)) for p in ("mean", "mode", "variance", "stddev", "batch_shape")}
    found |= {"log_prob": asked(lambda: density), "entropy": asked(made.entropy), "cdf": asked(lambda: made.cdf(at))}
    found |= {"icdf": asked(lambda: made.icdf(lib.tensor(0.3))), "values": asked(made.enumerate_support)}
    drawn, wide = made.sample((2,)), made.expand((5, *made.batch_shape))
    event = len(made.event_shape)
    one = at[0] if at.ndim > len(made.batch_shape) + event else at
    found |= {"shape": asked(lambda: drawn.shape), "event_shape": asked(lambda: made.event_shape)}
    return found | {"expanded": asked(lambda: wide.log_prob(one)), "dtype": str(drawn.dtype).split(".")[-1]}


@pytest.mark.parametrize(("name", "parameters", "value"), CASES, ids=[f"{c[0]}-{'-'.join(c[1])}" for c in CASES])
def test_all_that_they_tell(name: str, parameters: dict[str, Any], value: np.ndarray) -> None:
    with backend(name):
        ours, theirs = (told(lib, name, parameters, value) for lib in (pb, torch))
    for what, wanted in theirs.items():
        if wanted is None or isinstance(wanted, str):
            assert ours[what] == wanted, what
        else:
            np.testing.assert_allclose(ours[what], wanted, rtol=1e-9, atol=1e-10, err_msg=what)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Normal", lambda: {"loc": normal(3), "scale": positive(3)}),
        ("LogNormal", lambda: {"loc": normal(3), "scale": positive(3)}),
        ("Laplace", lambda: {"loc": normal(3), "scale": positive(3)}),
        ("Bernoulli", lambda: {"probs": np.array([0.0, 1, 0, 1, 0.5, 0.5]) * random.integers(0, 2, 6)}),
        ("Categorical", lambda: {"probs": np.array([[0.0, 1], [0.5, random.integers(0, 2) + 0.5]])}),
        ("OneHotCategorical", lambda: {"logits": normal(2, 3)}),
        ("Exponential", lambda: {"rate": positive(3)}),
        ("Poisson", lambda: {"rate": positive(3)}),
        ("Gamma", lambda: {"concentration": positive(3), "rate": positive(3)}),
        ("Dirichlet", lambda: {"concentration": positive(2, 3)}),
        ("Beta", lambda: {"concentration1": positive(3), "concentration0": positive(3)}),
        ("Uniform", lambda: {"low": -positive(3), "high": positive(3)}),
        ("MultivariateNormal", lambda: {"loc": normal(3), "covariance_matrix": COVARIANCE * positive(1)}),
    ],
)
def test_divergences(name: str, parameters: Any) -> None:
    first, second = parameters(), parameters()
    found = []
    for lib in (pb, torch):
        kind = getattr(lib.distributions, name)
        p, q = kind(**given(lib, first)), kind(**given(lib, second))
        found.append(lib.distributions.kl_divergence(p, q).detach().numpy())
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-12)


def test_composed_distributions() -> None:
    weights, loc, scale, value = normal(2, 3), normal(2, 3, 4), positive(2, 3, 4), normal(5, 2, 4)
    found = []
    for lib in (pb, torch):
        D = lib.distributions
        centre, spread = (lib.tensor(v, requires_grad=True) for v in (loc, scale))
        mixture = D.MixtureSameFamily(
            D.Categorical(logits=lib.tensor(weights)), D.Independent(D.Normal(centre, spread), 1)
        )
        squashed = D.TransformedDistribution(
            D.Independent(D.Normal(centre[0], spread[0]), 1),
            [D.transforms.TanhTransform(cache_size=1), D.transforms.AffineTransform(0.5, 2.0)],
        )
        logistic = D.TransformedDistribution(
            D.Uniform(lib.tensor(0.0), lib.tensor(1.0)),
            [D.transforms.SigmoidTransform().inv, D.transforms.AffineTransform(loc=1.0, scale=2.0)],
        )
        one = D.MixtureSameFamily(D.Categorical(lib.ones(2, 3)), D.Normal(centre[..., 0], spread[..., 0]))
        density = mixture.log_prob(lib.tensor(value))
        density.sum().backward()
        outside = squashed.log_prob(lib.tensor(np.tanh(value[0, :1, :]).repeat(3, 0)))
        divergence = D.kl_divergence(
            D.Independent(D.Normal(centre, spread), 1), D.Independent(D.Normal(0 * centre, 1), 1)
        )
        numbers = [density, centre.grad, spread.grad, mixture.mean, mixture.variance, outside, divergence]
        numbers += [logistic.log_prob(lib.tensor([0.3, 2.0])), one.cdf(lib.tensor(value[..., 0])), one.mean]
        assert mixture.sample((2,)).shape == (2, 2, 4) and squashed.rsample((2,)).shape == (2, 3, 4)
        drawn = squashed.rsample()
        again = squashed.transforms[0].log_abs_det_jacobian(drawn.detach(), drawn)
        assert squashed.log_prob(drawn).shape == (3,) and again.shape == (3, 4)
        found.append([n.detach().numpy() for n in numbers])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (name, p)
        for name, p, _ in CASES
        if name not in ("Cauchy", "HalfCauchy", "Categorical", "RelaxedBernoulli", "RelaxedOneHotCategorical")
        and name not in ("LogisticNormal", "FisherSnedecor")
        and not (name == "StudentT" and p["df"].min() < 2)
    ],
    ids=lambda p: p if isinstance(p, str) else "-".join(p),
)
def test_values_have_the_moments(name: str, parameters: dict[str, Any]) -> None:
    pb.manual_seed(0)
    made = getattr(pb.distributions, name)(
        **{k: pb.tensor(v) if k != "total_count" else v for k, v in parameters.items()}
    )
    with backend(name):
        drawn = made.sample((4000,))
        mean, deviation = made.mean.numpy(), made.stddev.numpy()
    np.testing.assert_allclose(drawn.numpy().mean(0), mean, atol=5 * deviation.max() / 4000**0.5)
    if name not in ("LogNormal", "StudentT", "Pareto"):  # whose fourth moments are far too large for that
        np.testing.assert_allclose(drawn.numpy().std(0), deviation, rtol=0.25)


def test_gradients_go_through_values_where_they_do_in_pytorch() -> None:
    for name, parameters, _ in CASES:
        if "Gamma" in name or name in ("Chi2", "Beta", "Dirichlet", "StudentT", "FisherSnedecor"):
            continue
        known = ("temperature", "total_count")
        arguments = {k: pb.tensor(v, requires_grad=True) for k, v in parameters.items() if k not in known}
        extra = {k: v for k, v in parameters.items() if k not in arguments}
        made = getattr(pb.distributions, name)(**arguments, **extra)
        theirs = getattr(torch.distributions, name)(**given(torch, parameters))
        assert made.has_rsample == theirs.has_rsample, name
        assert not made.sample().requires_grad
        if made.has_rsample:
            with backend(name):
                made.rsample((3,)).sum().backward()
            assert all(t.grad is not None for t in arguments.values()), name
    with pytest.raises(NotImplementedError, match="log_prob"):
        pb.distributions.Gamma(1.0, 1.0).rsample()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda D: D.Normal(pb.tensor([0.0]), pb.tensor([-1.0])),
            "Expected parameter scale .*GreaterThan.lower_bound=0.0",
        ),
        (lambda D: D.Normal(0.0, 1.0).log_prob(pb.tensor(float("nan"))), r"within the support \(Real\(\)\)"),
        (lambda D: D.Categorical(probs=pb.tensor([-1.0, 2.0])), "Expected parameter probs .*GreaterThanEq"),
        (lambda D: D.Bernoulli(probs=pb.tensor(1.5)), r"Interval\(lower_bound=0.0, upper_bound=1.0\)"),
        (lambda D: D.Categorical(logits=pb.tensor([1.0, 1.0])).log_prob(pb.tensor(5)), "IntegerInterval"),
        (lambda D: D.Categorical(), "either probs or logits"),
        (lambda D: D.Uniform(1.0, 0.0), "not defined when low >= high"),
        (lambda D: D.MultivariateNormal(pb.zeros(2)), "one of covariance_matrix"),
        (lambda D: D.MultivariateNormal(pb.zeros(2), pb.tensor([[1.0, 2], [2, 1]])), "PositiveDefinite"),
        (lambda D: D.Normal(0.0, 1.0).log_prob(1.0), "must be a Tensor"),
        (lambda D: D.Normal(pb.zeros(2), 1.0).log_prob(pb.ones(3)), "not broadcastable"),
        (lambda D: D.MultivariateNormal(pb.zeros(2), pb.eye(2)).log_prob(pb.ones(3)), "match event_shape"),
    ],
)
def test_what_is_not_allowed_is_said(run: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(pb.distributions)


def test_what_is_computed_is_looked_at_when_it_is() -> None:
    D = pb.distributions
    made = D.Normal(pb.zeros(2), pb.tensor([1.0, -1.0]) * 2)
    with pytest.raises(ValueError, match="Expected parameter scale"):
        made.rsample().numpy()
    assert D.Normal(pb.zeros(1), pb.tensor([-1.0]), validate_args=False).sample().shape == (1,)

    @pb.compile
    def step(logits, action):
        policy = D.Categorical(logits=logits)
        return policy.log_prob(action), policy.entropy(), policy.sample()

    log_prob, entropy, _ = step(pb.zeros(3, 2), pb.tensor([0, 1, 1]))
    np.testing.assert_allclose([*log_prob.tolist(), entropy[0].item()], [-np.log(2)] * 3 + [np.log(2)])
    with pytest.raises(ValueError, match="IntegerInterval"):
        step(pb.zeros(3, 2), pb.tensor([0, 1, 2]))[0].numpy()


@pytest.mark.parametrize("make", [
    lambda lib: lib.distributions.AffineTransform(0.5, -2.0),
    lambda lib: [lib.distributions.AffineTransform(0.0, -1.0), lib.distributions.ExpTransform()],
    lambda lib: [lib.distributions.ExpTransform(), lib.distributions.PowerTransform(lib.tensor(-1.0))],
])  # fmt: skip
def test_functions_that_fall_turn_the_distribution_round(make: Any) -> None:
    def made(lib: Any) -> Any:
        base = lib.distributions.Normal(lib.tensor(0.3), lib.tensor(1.2))
        return lib.distributions.TransformedDistribution(base, make(lib))

    ours, theirs = made(pb), made(torch)
    for value in (0.2, 0.7):
        assert ours.cdf(pb.tensor(value)).item() == pytest.approx(theirs.cdf(torch.tensor(value)).item(), abs=1e-6)
        assert ours.icdf(pb.tensor(value)).item() == pytest.approx(theirs.icdf(torch.tensor(value)).item(), rel=1e-5)


def test_what_lies_outside_is_refused() -> None:
    distributions = pb.distributions
    squashed = distributions.TransformedDistribution(distributions.Normal(0.0, 1.0), distributions.SigmoidTransform())
    for wrong in (
        lambda: squashed.log_prob(pb.tensor([-5.0, 0.3])),
        lambda: distributions.Categorical(pb.tensor([0.0, 0.0])),
        lambda: distributions.Categorical(logits=pb.tensor([math.nan, 0.0])),
        lambda: distributions.Geometric(pb.tensor(0.0)),
        lambda: distributions.AffineTransform(0.0, 0.0),
    ):
        with pytest.raises(ValueError):
            wrong()
    drawn = distributions.TransformedDistribution(
        distributions.Normal(pb.tensor([20.0]), pb.tensor([1.0])), [distributions.TanhTransform()]
    )
    assert math.isfinite(drawn.log_prob(drawn.sample()).item())
