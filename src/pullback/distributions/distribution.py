"""What every distribution has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ..ops.elementwise import broadcast_shapes
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.grad_modes import no_grad
from ..tensor.handle import STATE
from ..tensor.joining import broadcast_tensors
from ..tensor.order import checked
from ..tensor.size import Size
from .constraints import Constraint

Shape = Sequence[int]


class Distribution:
    """A distribution of values of shape `event_shape`, one for each place of `batch_shape`.

    Parameters and values outside of what is allowed raise DomainError, a ValueError: at once where they are known, and
    otherwise, as in a compiled step, when what depends on them is computed. `validate_args` False leaves that out.
    """

    has_rsample = False
    has_enumerate_support = False
    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    support: Constraint
    #: whether arguments are looked at where it is not said
    validates = True

    def __init__(self, batch_shape: Shape = (), event_shape: Shape = (), validate_args: bool | None = None):
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self.validates = validate_args

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Have arguments looked at from now on, or not, where it is not said."""
        Distribution.validates = bool(value)

    def _parameter(self, name: str, value: Tensor, validate_args: bool | None) -> Tensor:
        """A parameter, looked at."""
        wanted = self.validates if validate_args is None else validate_args
        constraint = self.arg_constraints[name]
        return self._held(value, constraint, f"{name} must be {constraint}") if wanted else value

    def _value(self, value: Tensor) -> Tensor:
        """A value whose density is asked for, looked at."""
        if not isinstance(value, Tensor):
            raise ValueError(f"the value of a distribution must be a tensor, got {value!r} (at {user_source()})")
        shape = (*self._batch_shape, *self._event_shape)
        broadcast_shapes(f"{type(self).__name__}.log_prob", tuple(value.shape), shape)
        return self._held(value, self.support, f"a value must be {self.support}") if self.validates else value

    def _held(self, value: Tensor, constraint: Constraint, message: str) -> Tensor:
        with no_grad():
            holds = constraint.check(value)
        whole, wide = broadcast_tensors(holds.reshape((*holds.shape, *(1,) * constraint.event_dim)), value)
        known = STATE.trace is None and value._node.buffer is not None
        held = Tensor(checked(wide.node, whole.node, f"{type(self).__name__}: {message}"))
        if known:
            held._buffer()
            return value
        return held

    @property
    def batch_shape(self) -> Size:
        """The shape of the parameters."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one value."""
        return self._event_shape

    @property
    def mean(self) -> Tensor:
        """The expected value."""
        raise NotImplementedError(f"{type(self).__name__} has no mean")

    @property
    def mode(self) -> Tensor:
        """The value of the greatest density."""
        raise NotImplementedError(f"{type(self).__name__} has no mode")

    @property
    def variance(self) -> Tensor:
        """The variance."""
        raise NotImplementedError(f"{type(self).__name__} has no variance")

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Values, through which no gradients go."""
        with no_grad():
            return self.rsample(sample_shape)

    def sample_n(self, n: int) -> Tensor:
        """`n` values."""
        return self.sample((n,))

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Values as functions of the parameters, so that gradients go through them to these."""
        raise NotImplementedError(
            f"{type(self).__name__}.rsample is not there (at {user_source()}): there is no gradient through its values "
            "to its parameters. Use sample(), and log_prob of what it gave"
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, or the probability, of `value`."""
        raise NotImplementedError(f"{type(self).__name__} has no log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of `value` and less."""
        raise NotImplementedError(f"{type(self).__name__} has no cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose `cdf` is `value`."""
        raise NotImplementedError(f"{type(self).__name__} has no icdf")

    def entropy(self) -> Tensor:
        """The expected value of -log_prob."""
        raise NotImplementedError(f"{type(self).__name__} has no entropy")

    def perplexity(self) -> Tensor:
        """exp of the entropy."""
        return self.entropy().exp()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values there are, along a new first axis; with `expand` for each place of the batch."""
        raise NotImplementedError(f"{type(self).__name__} has no finite support")

    def expand(self, batch_shape: Shape) -> Any:
        """The distribution with parameters expanded to `batch_shape`."""
        wanted = Size(batch_shape)
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        for name, value in self.__dict__.items():
            if isinstance(value, Tensor) and (name in self.arg_constraints or name == "_param"):
                made.__dict__[name] = value.expand(wanted + value.shape[len(self._batch_shape) :])
            elif isinstance(value, Distribution):
                extra = value.batch_shape[len(self._batch_shape) :]
                made.__dict__[name] = value.expand(wanted + extra)
        made._batch_shape = wanted
        return made

    def _extended_shape(self, sample_shape: Shape = ()) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def __repr__(self) -> str:
        held = {name: getattr(self, name) for name in self.arg_constraints if name in self.__dict__}
        said = (f"{name}: {value if not value.ndim else list(value.shape)}" for name, value in held.items())
        return f"{type(self).__name__}({', '.join(said)})"


__all__ = ["Distribution"]
