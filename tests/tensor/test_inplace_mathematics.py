"""In-place forms of elementwise methods do what PyTorch's do, values, dtypes and refusals."""

import inspect

import pytest
import torch

import pullback as pb
from pullback.tensor.inplace_mathematics import InplaceMathematics

NAMES = sorted(name for name in vars(InplaceMathematics) if name.endswith("_") and not name.startswith("_"))
#: what each is given beside the tensor, where it is not nothing or one more operand
ARGUMENTS = {"addcdiv": 2, "addcmul": 2, "lerp": 2, "mvlgamma": 1, "polygamma": 1, "clip": 2}
ALONE = {"logit", "nan_to_num", "round"}


def _applied(library, name: str, kind: str):
    whole = kind == "int64"
    x = library.tensor([1, 3, 2] if whole else [0.25, 0.5, 0.75], dtype=getattr(library, kind))
    y = library.tensor([1, 2, 1] if whole else [0.5, 0.25, 0.75], dtype=getattr(library, kind))
    plain = name.removesuffix("_")
    extra = [y, y][: ARGUMENTS.get(plain, _operands(plain))]
    if plain in ("cumprod", "cumsum", "renorm"):
        extra = [0] if plain != "renorm" else [2.0, 0, 1.0]
    if plain in ("mvlgamma", "polygamma"):
        extra = [1]
        x = x + 1
    result = getattr(x, name)(*extra)
    assert result is x
    return x


def _operands(plain: str) -> int:
    if plain in ALONE:
        return 0
    parameters = list(inspect.signature(getattr(pb.Tensor, plain)).parameters.values())[1:]
    return sum(p.kind is not p.KEYWORD_ONLY for p in parameters)


def test_float_power_is_not_written_into_what_is_narrower() -> None:
    for dtype in (pb.float32, pb.bfloat16):
        with pytest.raises(pb.errors.DTypeError, match="float64"):
            pb.ones(2, dtype=dtype).float_power_(2)


@pytest.mark.parametrize("kind", ["float64", "int64"])
@pytest.mark.parametrize("name", NAMES)
def test_in_place_methods_give_what_pytorchs_give_or_raise_where_they_do(name: str, kind: str) -> None:
    try:
        expected = _applied(torch, name, kind)
    except (RuntimeError, NotImplementedError):
        with pytest.raises((pb.errors.PullbackError, TypeError)):
            _applied(pb, name, kind)
        return
    got, plain = _applied(pb, name, kind), name.removesuffix("_")
    assert got.dtype.name == kind
    assert got.tolist() == pytest.approx(expected.tolist(), rel=1e-9 if plain == "polygamma" else 1e-12, nan_ok=True)
