"""PyTorch's other spellings of arguments: `axis` for `dim`, `keepdims` for `keepdim`, Python's types for dtypes; and
that a switch is True or False, which PyTorch asks of all arguments that its C++ takes as `bool`.

They are given to functions by the names of their parameters, so that a new function has them too. A function takes
them by a thin caller of the same name and parameters, whose call Python inlines (some 0.05 µs); its code says that it
stands where the function's does, so that the line and the name of what a user called are found as before.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from ..graph.types import DType, bool_, float64, int64
from ..ops.primitive import user_source
from .arguments import UNSAID, flag
from .handle import Handle

#: what PyTorch also calls a parameter
_ALIASES = {
    **{"dim": "axis", "keepdim": "keepdims", "split_size": "split_size_or_sections"},
    **{"A": "input", "B": "other", "x": "input"},  # PyTorch's documents say the one, and its calls take the other
}
#: switches that PyTorch's Python looks at, and so takes anything for
_TRUTHS = {
    *("inplace", "return_indices", "hard", "include_last_offset", "full", "size_average", "reduce", "antialias"),
    *("recompute_scale_factor", "need_weights", "add_zero_attn", "use_separate_proj_weight", "average_attn_weights"),
    *("get_infos", "center", "create_graph", "retain_graph", "sci_mode", "weights_only"),
}
#: under which a caller keeps the function that it calls
_PLAIN = "__plain__"
#: the same, of one that only asks for switches
_CHECKED = "__checked__"
_DTYPES = {float: float64, int: int64, bool: bool_}


class _Missing:
    def __repr__(self) -> str:
        return "<missing>"


_MISSING = _Missing()


def dtype_of(given: Any) -> Any:
    """The dtype that PyTorch takes for Python's float, int or bool; anything else as it is."""
    return _DTYPES.get(given, given) if isinstance(given, type) else given


class _Parameters(NamedTuple):
    """The names of a function's parameters by kind; `needed` of them, from the left, have no default.

    `switches` are the conditions under which those that are bool are not: Python's text, by name. `tensor` is the first
    one of a method that stands as a function, which may be given anything.
    """

    positional: tuple[str, ...]
    several: str | None
    named: tuple[str, ...]
    needed: int
    switches: tuple[tuple[str, str], ...]
    is_renamed: bool
    tensor: str | None = None

    def differ(self) -> bool:
        """Whether there is anything for a caller to do."""
        return bool(self.switches or self.tensor) or (
            self.is_renamed and not {"dtype", *_ALIASES}.isdisjoint((*self.positional, *self.named))
        )


def _parameters(function: FunctionType, is_renamed: bool = True, tensor: str | None = None) -> _Parameters | None:
    """None where the function takes any keyword, and so says itself what it does with it."""
    code = function.__code__
    if code.co_flags & CO_VARKEYWORDS:
        return None
    positional, end = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
    several = code.co_varnames[end] if code.co_flags & CO_VARARGS else None
    names = code.co_varnames
    needed = positional - len(function.__defaults__ or ())
    switches = tuple(_switches(function.__annotations__))
    return _Parameters(names[:positional], several, names[positional:end], needed, switches, is_renamed, tensor)


def _switches(annotations: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, kind in annotations.items():
        text = kind.__name__ if isinstance(kind, type) else str(kind)
        if name not in _TRUTHS and name != "return" and text in ("bool", "bool | None"):
            others = f" and {name} is not None" if text == "bool | None" else ""
            yield name, f"{name} is not False and {name} is not True{others}"


@functools.cache
def _caller(parameters: _Parameters) -> tuple[CodeType, tuple[str, ...]]:
    """The code of a function of these parameters and their aliases that calls `function`, and the aliases' names."""
    positional, several, named = parameters[:3]
    known = (*positional, *named)
    aliases = {n: _ALIASES[n] for n in known if n in _ALIASES and _ALIASES[n] not in known}
    aliases = aliases if parameters.is_renamed else {}
    star = [f"*{several}"] if several else ["*"] if named or aliases else []
    head = ", ".join([*positional, *star, *named, *aliases.values()])
    body = [f"    if {a} is not MISSING: {n} = settled(function, {n!r}, {n}, {a!r}, {a})" for n, a in aliases.items()]
    body += [f"    if {n} is MISSING: missing(function, {n!r})" for n in _optional(parameters)]
    body += [f"    if {condition}: switch(function, {n!r}, {n})" for n, condition in parameters.switches]
    if "dtype" in known and parameters.is_renamed:
        body.append("    if dtype is not None and type(dtype) is not DType: dtype = dtype_of(dtype)")
    given = ", ".join([*positional, *([f"*{several}"] if several else []), *(f"{n}={n}" for n in named)])
    body += _calling(f"function({given})", parameters.tensor)
    source = [f"def made(function):\n  def caller({head}):", *body, "  return caller"]
    space: dict[str, Any] = {}
    exec("\n".join(source), _SPACE, space)  # names of our own parameters only
    return space["made"](None).__code__, tuple(aliases.values())


def _calling(call: str, tensor: str | None) -> list[str]:
    """The lines that give what a function gives. A number as its `tensor` shows by the attributes that it has not."""
    if tensor is None:
        return [f"    return {call}"]
    return [
        "    try:",
        f"      return {call}",
        f"    except AttributeError: untensored(function, {tensor!r}, {tensor})",
    ]


def _untensored(function: FunctionType, name: str, value: Any) -> None:
    """Refuse what is no tensor; otherwise raise the error that is being handled."""
    if isinstance(value, Handle):
        raise
    raise TypeError(
        f"{function.__name__}(): argument {name!r} (position 1) must be Tensor, not {type(value).__name__} "
        f"(at {user_source()})"
    ) from None


def _optional(parameters: _Parameters) -> tuple[str, ...]:
    """The parameters without a default from the first that has an alias on, which Python cannot ask for any more."""
    if not parameters.is_renamed:
        return ()
    needed = parameters.positional[: parameters.needed]
    first = next((i for i, n in enumerate(needed) if n in _ALIASES), len(needed))
    return needed[first:]


def _settled(function: FunctionType, name: str, value: Any, alias: str, given: Any) -> Any:
    """The value of a parameter whose alias was given."""
    code, defaults = function.__code__, function.__defaults__ or ()
    usual = dict(zip(code.co_varnames[: code.co_argcount][::-1], defaults[::-1], strict=False))
    usual |= function.__kwdefaults__ or {}
    if value is not _MISSING and value is not usual.get(name, _MISSING):
        raise TypeError(f"{function.__name__}() got both {name!r} and {alias!r} (at {user_source()})")
    return given


def _missing(function: FunctionType, name: str) -> None:
    raise TypeError(f"{function.__name__}() missing a required argument: {name!r} (at {user_source()})")


def _switch(function: FunctionType, name: str, value: Any) -> None:
    if value is not UNSAID:
        flag(value, function.__name__, name)


_SPACE = {
    **{"MISSING": _MISSING, "DType": DType, "settled": _settled, "missing": _missing, "dtype_of": dtype_of},
    **{"switch": _switch, "untensored": _untensored},
}


def spelled(function: Any, is_renamed: bool = True, tensor: str | None = None) -> Any:
    """The function, taking PyTorch's other spellings too (`is_renamed`), and refusing what is no switch, and no tensor
    as its parameter `tensor`; the same where it has no such parameter.
    """
    if not isinstance(function, FunctionType) or _PLAIN in function.__dict__:
        return function
    function = function.__dict__.get(_CHECKED, function)
    described = getattr(function, "__wrapped__", function)  # a decorator's own code takes anything
    parameters = _parameters(described, is_renamed, tensor) if isinstance(described, FunctionType) else None
    if parameters is None or not parameters.differ():
        return function
    return _with_caller(function, described, parameters)


def _with_caller(function: FunctionType, described: FunctionType, parameters: _Parameters) -> FunctionType:
    """A function of these parameters that calls `function`; names and defaults are those of `described`."""
    code, aliases = _caller(parameters)
    name, place = described.__name__, described.__code__.co_filename
    code = code.replace(co_name=name, co_qualname=described.__qualname__, co_filename=place)
    caller = FunctionType(code, _SPACE, name, None, _closure(function))
    functools.update_wrapper(caller, described)
    caller.__defaults__ = (*[_MISSING] * len(_optional(parameters)), *(described.__defaults__ or ())) or None
    caller.__kwdefaults__ = {**(described.__kwdefaults__ or {}), **dict.fromkeys(aliases, _MISSING)}
    caller.__dict__[_PLAIN if parameters.is_renamed else _CHECKED] = function
    return caller


def _closure(function: FunctionType) -> tuple[Any, ...]:
    """What a caller's code finds `function` in."""
    return (lambda: function).__closure__ or ()


def as_function(method: FunctionType, name: str, module: str, first: str) -> FunctionType:
    """A method as a function of `module`, whose tensor is called `first` as PyTorch's functions call it.

    It is the method's own code with another name for its first parameter, under a caller that says what was given in
    a tensor's place. Of a method under a decorator, whose own code takes anything, the names are asked for by it too.
    """
    plain = method.__dict__.get(_PLAIN, method)
    decorated = hasattr(plain, "__wrapped__")
    described = _renamed(plain.__wrapped__ if decorated else plain, first)
    described.__module__, described.__qualname__ = module, name
    if not decorated:
        return spelled(described, tensor=first)
    parameters = _parameters(described, tensor=first)
    assert parameters is not None, name
    return _with_caller(plain, described, parameters)


def _renamed(method: FunctionType, first: str) -> FunctionType:
    """The method with `first` in the place of `self`."""
    code = method.__code__
    names = [tuple(first if n == "self" else n for n in held) for held in (code.co_varnames, code.co_cellvars)]
    code = code.replace(co_varnames=names[0], co_cellvars=names[1])
    made = FunctionType(code, method.__globals__, method.__name__, method.__defaults__, method.__closure__)
    made.__kwdefaults__, made.__annotations__, made.__doc__ = (
        method.__kwdefaults__,
        method.__annotations__,
        method.__doc__,
    )
    return made


def spell_methods(made: type) -> None:
    """Have every public method of a class take the other spellings."""
    methods = {n: m for n in dir(made) if not n.startswith("_") and isinstance(m := getattr(made, n), FunctionType)}
    callers = {method: spelled(method) for method in methods.values()}
    for name, method in methods.items():
        caller = callers[method]
        if caller is not method:
            caller.__module__, caller.__qualname__ = made.__module__, f"{made.__name__}.{method.__name__}"
            setattr(made, name, caller)


def check_switches(space: dict[str, Any]) -> None:
    """Have the public functions of a module refuse what is no switch, as PyTorch's C++ does; no other spellings."""
    for name, found in space.items():
        if not name.startswith("_") and (other := spelled(found, is_renamed=False)) is not found:
            other.__module__, other.__qualname__ = space["__name__"], name
            space[name] = other


def spell_functions(space: dict[str, Any], firsts: dict[str, str] | None = None) -> None:
    """Have the public functions of a module, and methods of tensors that stand there, take PyTorch's spellings."""
    from . import Tensor

    methods = set(map(id, (getattr(Tensor, n) for n in dir(Tensor))))
    module = space["__name__"]
    for name, found in space.items():
        if name.startswith("_") or not isinstance(found, FunctionType):
            continue
        if id(found) in methods:
            space[name] = as_function(found, name, module, (firsts or {}).get(name, "input"))
        elif (other := spelled(found)) is not found:
            other.__module__, other.__qualname__ = module, name
            space[name] = other
