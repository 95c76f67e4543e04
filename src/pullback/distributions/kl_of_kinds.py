"""The Kullback-Leibler divergence of distributions of different kinds.

It is -entropy(p) - E[log q(x)] of x from p, so that each kind of q asks for a few expected values of x: its mean and
variance, of log x, or of exp(-x / s). Where p gives values that q does not, it is infinite.
"""

from __future__ import annotations

import math

from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.creation import full
from .bernoulli import Bernoulli
from .counts import Binomial
from .dirichlet import Beta
from .distribution import Distribution
from .exponential import Exponential
from .gamma import Gamma
from .gumbel import GAMMA, Gumbel
from .kl import register_kl
from .laplace import Laplace
from .normal import Normal
from .poisson import Poisson
from .transformed import Pareto
from .uniform import Uniform


def _infinite(p: Distribution, q: Distribution) -> Tensor:
    return full(p.batch_shape, math.inf, dtype=p.entropy().dtype)


for _p, _others in (
    (Beta, (Pareto,)),
    (Exponential, (Beta, Pareto, Uniform)),
    (Gamma, (Beta, Pareto, Uniform)),
    (Gumbel, (Beta, Exponential, Gamma, Pareto, Uniform)),
    (Laplace, (Beta, Exponential, Gamma, Pareto, Uniform)),
    (Normal, (Beta, Exponential, Gamma, Pareto, Uniform)),
    (Pareto, (Beta, Uniform)),
):
    for _q in _others:
        register_kl(_p, _q)(_infinite)


def _to_normal(p: Distribution, q: Normal) -> Tensor:
    square = p.variance + (p.mean - q.loc).square()
    return -p.entropy() + 0.5 * math.log(2 * math.pi) + q.scale.log() + square / (2 * q.scale.square())


for _kind in (Beta, Exponential, Gamma, Gumbel, Laplace, Uniform):
    register_kl(_kind, Normal)(_to_normal)


def _to_exponential(p: Distribution, q: Exponential) -> Tensor:
    return -p.entropy() - q.rate.log() + q.rate * p.mean


register_kl(Beta, Exponential)(_to_exponential)
register_kl(Gamma, Exponential)(_to_exponential)


def _expected_log(p: Beta | Exponential | Gamma | Pareto | Uniform) -> Tensor:
    if isinstance(p, Beta):
        return p.concentration1.digamma() - (p.concentration1 + p.concentration0).digamma()
    if isinstance(p, Gamma):
        return p.concentration.digamma() - p.rate.log()
    if isinstance(p, Exponential):
        return -p.rate.log() - GAMMA
    if isinstance(p, Pareto):
        return p.scale.log() + p.alpha.reciprocal()
    return _uniform_log(p.low, p.high)


def _uniform_log(low: Tensor, high: Tensor) -> Tensor:
    return (high.xlogy(high) - low.xlogy(low)) / (high - low) - 1


def _to_gamma(p: Beta | Exponential | Gamma | Pareto | Uniform, q: Gamma) -> Tensor:
    constant = q.concentration.lgamma() - q.concentration * q.rate.log()
    return -p.entropy() + constant - (q.concentration - 1) * _expected_log(p) + q.rate * p.mean


register_kl(Beta, Gamma)(_to_gamma)
register_kl(Exponential, Gamma)(_to_gamma)


@register_kl(Pareto, Exponential)
def _pareto_exponential(p: Pareto, q: Exponential) -> Tensor:
    return where(p.alpha <= 1, math.inf, _to_exponential(p, q))


@register_kl(Pareto, Gamma)
def _pareto_gamma(p: Pareto, q: Gamma) -> Tensor:
    return where(p.alpha <= 1, math.inf, _to_gamma(p, q))


@register_kl(Pareto, Normal)
def _pareto_normal(p: Pareto, q: Normal) -> Tensor:
    return where(p.alpha <= 2, math.inf, _to_normal(p, q))


@register_kl(Uniform, Pareto)
def _uniform_pareto(p: Uniform, q: Pareto) -> Tensor:
    expected = _uniform_log(p.low, p.high)
    found = -p.entropy() - q.alpha.log() - q.alpha * q.scale.log() + (q.alpha + 1) * expected
    return where(p.low < q.scale, math.inf, found)


@register_kl(Uniform, Gamma)
def _uniform_gamma(p: Uniform, q: Gamma) -> Tensor:
    return where(p.low < 0, math.inf, _to_gamma(p, q))


@register_kl(Uniform, Exponential)
def _uniform_exponential(p: Uniform, q: Exponential) -> Tensor:
    return where(p.low < 0, math.inf, _to_exponential(p, q))


@register_kl(Uniform, Beta)
def _uniform_beta(p: Uniform, q: Beta) -> Tensor:
    one, other = q.concentration1, q.concentration0
    constant = one.lgamma() + other.lgamma() - (one + other).lgamma()
    first = (one - 1) * _uniform_log(p.low, p.high)
    second = (other - 1) * _uniform_log(1 - p.high, 1 - p.low)
    return where((p.high > 1) | (p.low < 0), math.inf, -p.entropy() + constant - first - second)


@register_kl(Beta, Uniform)
def _beta_uniform(p: Beta, q: Uniform) -> Tensor:
    return where((q.low > 0) | (q.high < 1), math.inf, -p.entropy() + (q.high - q.low).log())


def _expected_exp(p: Exponential | Gamma | Normal | Uniform, scale: Tensor) -> Tensor:
    """Of exp(-x / scale)."""
    if isinstance(p, Normal):
        return (-p.loc / scale + 0.5 * (p.scale / scale).square()).exp()
    if isinstance(p, Gamma):
        return (1 + 1 / (p.rate * scale)).pow(-p.concentration)
    if isinstance(p, Exponential):
        return p.rate * scale / (p.rate * scale + 1)
    return scale / (p.high - p.low) * ((-p.low / scale).exp() - (-p.high / scale).exp())


def _to_gumbel(p: Exponential | Gamma | Normal | Uniform, q: Gumbel) -> Tensor:
    expected = (q.loc / q.scale).exp() * _expected_exp(p, q.scale)
    return -p.entropy() + q.scale.log() + (p.mean - q.loc) / q.scale + expected


for _source in (Exponential, Gamma, Normal, Uniform):
    register_kl(_source, Gumbel)(_to_gumbel)


@register_kl(Normal, Laplace)
def _normal_laplace(p: Normal, q: Laplace) -> Tensor:
    distance = p.loc - q.loc
    ratio = distance / p.scale
    size = math.sqrt(2 / math.pi) * p.scale * (-0.5 * ratio.square()).exp() + distance * (ratio / math.sqrt(2)).erf()
    return -p.entropy() + (2 * q.scale).log() + size / q.scale


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Bernoulli, q: Poisson) -> Tensor:
    return -p.entropy() - (p.probs * q.rate.log() - q.rate)


@register_kl(Poisson, Bernoulli)
@register_kl(Poisson, Binomial)
def _poisson_trials(p: Poisson, q: Bernoulli | Binomial) -> Tensor:
    return full(p.batch_shape, math.inf, dtype=p.rate.dtype)


__all__: list[str] = []
