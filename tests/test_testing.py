"""`testing.assert_close` passes and fails where PyTorch's does."""

import numpy as np
import pytest
import torch

import pullback as pb

PAIRS = [
    ([1.0, 2.0], [1.0, 2.0], {}),
    ([1.0, 2.0], [1.0, 2.000001], {}),
    ([1.0, 2.0], [1.0, 2.001], {}),
    ([1.0, 2.0], [1.0, 2.001], {"rtol": 1e-2, "atol": 0}),
    ([np.nan], [np.nan], {}),
    ([np.nan], [np.nan], {"equal_nan": True}),
    ([np.inf], [np.inf], {}),
    ([np.inf], [-np.inf], {}),
    ([1, 2], [1, 2], {}),
    ([1, 2], [1, 3], {}),
    ([1, 2], [1.0, 2.0], {}),
    ([1, 2], [1.0, 2.0], {"check_dtype": False}),
    ([[1.0]], [1.0], {}),
    ([True], [False], {}),
]


def passes(lib, actual, expected, options):
    try:
        lib.testing.assert_close(actual, expected, **options)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(("actual", "expected", "options"), PAIRS)
def test_tensors_arrays_and_lists_of_them(actual, expected, options):
    for wrap in (lambda t: t, lambda t: [t, t], lambda t: {"a": (t,)}):
        told = [passes(lib, wrap(lib.tensor(actual)), wrap(lib.tensor(expected)), options) for lib in (pb, torch)]
        assert told[0] == told[1]
    arrays = [np.array(actual), np.array(expected)]
    assert passes(pb, *arrays, options) == passes(torch, *arrays, options)


@pytest.mark.parametrize(
    ("actual", "expected"), [(1, 1.0), (1.0, 1.0 + 1e-9), (1.0, 1.1), ([1, 2], [1]), ({"a": 1}, {"b": 1}), (None, None)]
)
def test_numbers_and_what_holds_them(actual, expected):
    assert passes(pb, actual, expected, {}) == passes(torch, actual, expected, {})


#: of which the two are compared with one another
KINDS = {
    "tensor": lambda lib: lib.tensor(1.0, dtype=lib.float64),
    "parameter": lambda lib: lib.nn.Parameter(lib.tensor(1.0, dtype=lib.float64)),
    "array": lambda lib: np.ones(()),
    "number": lambda lib: 1.0,
    "whole": lambda lib: 1,
    "numpy's": lambda lib: np.float32(1),
    "numpy's bool": lambda lib: np.bool_(True),
    "list": lambda lib: [1.0],
    "none": lambda lib: None,
    "text": lambda lib: "a",
}


@pytest.mark.parametrize("options", [{}, {"allow_subclasses": False}, {"check_dtype": False}], ids=str)
def test_what_is_compared_with_what(options):
    def told(lib, one, other):
        try:
            lib.testing.assert_close(KINDS[one](lib), KINDS[other](lib), **options)
        except (TypeError, AssertionError) as error:
            return type(error), str(error).split(":")[0].split("type <")[0]

    for one in KINDS:
        for other in KINDS:
            assert told(pb, one, other) == told(torch, one, other), (one, other)


@pytest.mark.parametrize(
    ("actual", "expected", "options"),
    [
        ([[1.0, 2.0]], [[1.0, 4.0]], {}),
        ([[1.0, 2.0]], [[1.0, 4.0]], {"rtol": 0, "atol": 0.125}),
        ([1, 2, 9], [1, 3, 4], {}),
        ([True, False], [False, False], {}),
        (2.0, 1.0, {}),
        ([1.0], [1.0, 2.0], {}),
    ],
)
def test_messages_are_pytorchs(actual, expected, options):
    def said(lib, wrap):
        with pytest.raises(AssertionError) as raised:
            lib.testing.assert_close(wrap(lib.tensor(actual)), wrap(lib.tensor(expected)), **options)
        return str(raised.value).replace("pullback.", "torch.")

    for wrap in (lambda t: t, lambda t: {"a": [t]}):
        assert said(pb, wrap) == said(torch, wrap)


def test_messages_of_ones_own_and_what_is_refused():
    x, y = pb.tensor([[1.0, 2.0]]), pb.tensor([[1.0, 2.5]])
    with pytest.raises(AssertionError, match=r"^mine$"):
        pb.testing.assert_close(x, y, msg="mine")
    with pytest.raises(AssertionError, match=r"^so: Tensor-likes are not close!"):
        pb.testing.assert_close(x, y, msg=lambda said: f"so: {said}")
    with pytest.raises(AssertionError, match="stride"):
        pb.testing.assert_close(pb.ones(2, 3).t(), pb.ones(3, 2), check_stride=True)
    with pytest.raises(ValueError, match=r"Both 'rtol' and 'atol'.* no atol"):
        pb.testing.assert_close(x, y, rtol=1.0)
    for given in ({"rtol": -1, "atol": -1}, {"rtol": 0, "atol": -1.0}):
        with pytest.raises(RuntimeError, match="negative"):
            pb.testing.assert_close(x, x, **given)
        with pytest.raises(RuntimeError):
            torch.testing.assert_close(torch.ones(1), torch.ones(1), **given)
    for given in ({"rtol": "a", "atol": 1}, {"equal_nan": "x"}):
        with pytest.raises(TypeError):
            pb.testing.assert_close(x, x, **given)


@pytest.mark.parametrize("name", ["bool", "uint8", "int8", "int64", "float16", "bfloat16", "float32", "float64"])
def test_tensors_are_made(name):
    wide, spread = {"low": -1e30, "high": 1e30}, {"noncontiguous": True, "exclude_zero": True}
    for given in ({}, {"low": 1, "high": 2}, spread, wide):
        made = [lib.testing.make_tensor(3, 40, dtype=getattr(lib, name), device="cpu", **given) for lib in (pb, torch)]
        ours, theirs = (t.double().numpy() for t in made)
        assert str(made[0].dtype).split(".")[1] == name and ours.shape == (3, 40)
        assert made[0].is_contiguous() == made[1].is_contiguous()
        room = 1.01 if given is wide else 1.0  # 1e30 itself is no float of 16 bits
        for low, high in ((ours.min(), ours.max()), (theirs.min(), theirs.max())):
            assert given.get("low", -9) * room <= low <= high <= given.get("high", 9) * room
        assert not given.get("exclude_zero") or ours.all()
    if made[0].dtype.is_floating_point:
        assert pb.testing.make_tensor((2,), dtype=made[0].dtype, device="cpu", requires_grad=True).requires_grad


@pytest.mark.parametrize(
    "given", [{"low": 2, "high": 1}, {"low": float("nan")}, {"low": 300, "high": 400}, {"requires_grad": True}], ids=str
)
def test_tensors_that_cannot_be_made(given):
    for lib in (pb, torch):
        with pytest.raises(ValueError):
            lib.testing.make_tensor((2,), dtype=lib.uint8, device="cpu", **given)
