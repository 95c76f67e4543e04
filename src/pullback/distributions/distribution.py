"""What every distribution has."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.grad_modes import no_grad
from ..tensor.joining import broadcast_tensors
from ..tensor.order import checked
from ..tensor.size import Size
from ..tensor.state import STATE
from .constraints import Constraint, is_dependent
from .utils import lazy_property

Shape = Sequence[int]


class Distribution:
    """A distribution of values of shape `event_shape`, one for each place of `batch_shape`.

    Parameters and values outside of what is allowed raise DomainError, a ValueError: at once where they are known, and
    otherwise, as in a compiled step, when what depends on them is computed. `validate_args` False leaves that out.
    """

    has_rsample = False
    has_enumerate_support = False
    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    #: whether arguments are looked at where it is not said
    _validate_args: bool = True

    def __init__(self, batch_shape: Shape = (), event_shape: Shape = (), validate_args: bool | None = None):
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            for name, constraint in self.arg_constraints.items():
                self._look_at(name, constraint)

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Have arguments looked at from now on, or not, where it is not said."""
        if value not in (True, False):
            raise ValueError(f"set_default_validate_args takes True or False, got {value!r} (at {user_source()})")
        Distribution._validate_args = bool(value)

    def _look_at(self, name: str, constraint: Constraint) -> None:
        """Have a parameter of the object looked at, if its constraint can be known of it alone."""
        given = name in self.__dict__
        told = isinstance(getattr(type(self), name, None), lazy_property)  # from what is looked at itself
        if is_dependent(constraint) or (told and not given):
            return
        value = getattr(self, name)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{type(self).__name__}: the parameter {name} must be a tensor, got {value!r} (at {user_source()})"
            )
        held = self._parameter(name, value, constraint)
        if given:
            self.__dict__[name] = held

    def _parameter(self, name: str, value: Tensor, constraint: Constraint, validate_args: bool | None = True) -> Tensor:
        """A parameter, looked at where that is wanted."""
        if not (self._validate_args if validate_args is None else validate_args):
            return value
        said = f"Expected parameter {name} (Tensor of shape {tuple(value.shape)}) to satisfy the constraint"
        return self._held(value, constraint, f"{said} {constraint}")

    def _validate_sample(self, value: Tensor) -> Tensor:
        """A value, looked at; to be used in its place, since what is not known yet is looked at when it is computed."""
        if not isinstance(value, Tensor):
            raise ValueError(f"The value argument to log_prob must be a Tensor, got {value!r} (at {user_source()})")
        shape, end = (*self._batch_shape, *self._event_shape), tuple(self._event_shape)
        if tuple(value.shape[len(value.shape) - len(end) :]) != end:
            raise ValueError(
                f"The right-most size of value must match event_shape: {list(value.shape)} vs {list(end)} (at "
                f"{user_source()})"
            )
        if any(i not in (1, j) and j != 1 for i, j in zip(reversed(value.shape), reversed(shape), strict=False)):
            raise ValueError(
                f"Value is not broadcastable with batch_shape+event_shape: {list(value.shape)} vs {list(shape)} (at "
                f"{user_source()})"
            )
        try:
            support = self.support
        except NotImplementedError:
            warnings.warn(
                f"{type(self).__name__} does not define `support` to enable sample validation. Please initialize the "
                "distribution with `validate_args=False` to turn off validation.",
                stacklevel=2,
            )
            return value
        said = f"Expected value argument (Tensor of shape {tuple(value.shape)}) to be within the support"
        return self._held(value, support, f"{said} ({support})")

    def _value(self, value: Tensor) -> Tensor:
        """A value whose density is asked for, looked at where that is wanted."""
        return self._validate_sample(value) if self._validate_args else value

    def _held(self, value: Tensor, constraint: Constraint, message: str) -> Tensor:
        with no_grad():
            holds = constraint.check(value.detach())
        whole, wide = broadcast_tensors(holds.reshape((*holds.shape, *(1,) * constraint.event_dim)), value)
        known = STATE.trace is None and value._node.buffer is not None
        held = Tensor(checked(wide.node, whole.node, f"{type(self).__name__}: {message}"))
        if known:
            held._buffer()
            return value
        return held

    @property
    def support(self) -> Any:
        """The constraint of all values."""
        raise NotImplementedError(f"{type(self).__name__} has no support")

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

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        """The distribution with parameters expanded to `batch_shape`.

        A derived class with an `__init__` of its own, which may hold more than `arg_constraints` name, has its own
        `expand` too: it may make the object by `_get_checked_instance` and have this one fill `_instance`.
        """
        wanted = Size(batch_shape)
        made = self._get_checked_instance(_own_maker(type(self)), _instance)
        made.__dict__.update({**self.__dict__, **made.__dict__})
        for name, value in self.__dict__.items():
            if isinstance(value, Tensor) and name in self.arg_constraints:
                made.__dict__[name] = value.expand(wanted + value.shape[len(self._batch_shape) :])
            elif isinstance(value, Distribution):
                extra = value.batch_shape[len(self._batch_shape) :]
                made.__dict__[name] = value.expand(wanted + extra)
        made._batch_shape = wanted
        return made

    def _get_checked_instance(self, cls: type, _instance: Any = None) -> Any:
        """An object to be filled by `expand` of `cls`, whose `__init__` this one must have."""
        if _instance is None and type(self).__init__ is not cls.__init__:  # type: ignore[misc]
            raise NotImplementedError(
                f"Subclass {type(self).__name__} of {cls.__name__} that defines a custom __init__ method must also "
                f"define a custom .expand() method (at {user_source()})."
            )
        return type(self).__new__(type(self)) if _instance is None else _instance

    def _extended_shape(self, sample_shape: Shape = ()) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def __repr__(self) -> str:
        held = {name: self.__dict__[name] for name in self.arg_constraints if name in self.__dict__}
        said = (f"{name}: {value if value.numel() == 1 else value.size()}" for name, value in held.items())
        return f"{type(self).__name__}({', '.join(said)})"


def _own_maker(kind: type) -> type:
    """The first class of the package that objects of `kind` derive from."""
    return next(base for base in kind.__mro__ if base.__module__.startswith(__package__))


__all__ = ["Distribution"]
