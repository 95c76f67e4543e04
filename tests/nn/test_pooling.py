"""Pooling against PyTorch: values, gradients and second derivatives, ties and windows beyond the end included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from oracle import Value, compare
from pullback import debug
from pullback.errors import DTypeError, ShapeError

F = pb.nn.functional
RNG = np.random.default_rng(0)
NAN, INF = np.nan, np.inf

POOLS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "halves": ("max_pool2d", (2, 3, 8, 6), dict(kernel_size=2)),
    "what is left over": ("max_pool2d", (2, 3, 7, 5), dict(kernel_size=2)),
    "overlapping": ("max_pool2d", (2, 3, 8, 7), dict(kernel_size=3, stride=2, padding=1)),
    "beyond the end": ("max_pool2d", (2, 3, 8, 7), dict(kernel_size=3, stride=2, ceil_mode=True)),
    "beyond the padding": ("max_pool2d", (2, 3, 8, 7), dict(kernel_size=2, stride=3, padding=1, ceil_mode=True)),
    "dilation": ("max_pool2d", (1, 2, 9, 9), dict(kernel_size=(2, 3), stride=1, dilation=(3, 2), padding=1)),
    "stride beyond the window": ("max_pool2d", (1, 2, 9, 8), dict(kernel_size=1, stride=4)),
    "no batch axis": ("max_pool2d", (3, 6, 6), dict(kernel_size=2)),
    "no image": ("max_pool2d", (0, 3, 6, 6), dict(kernel_size=2)),
    "one axis": ("max_pool1d", (2, 3, 17), dict(kernel_size=3, stride=2, padding=1)),
    "means": ("avg_pool2d", (2, 3, 8, 6), dict(kernel_size=2)),
    "means of what is left over": ("avg_pool2d", (2, 3, 7, 5), dict(kernel_size=(3, 2), stride=(2, 3))),
    "means with padding": ("avg_pool2d", (2, 3, 8, 7), dict(kernel_size=3, stride=2, padding=1)),
    "means without padding": (
        "avg_pool2d", (2, 3, 8, 7), dict(kernel_size=3, stride=2, padding=1, count_include_pad=False),
    ),
    "means beyond the end": ("avg_pool2d", (2, 3, 8, 7), dict(kernel_size=3, stride=2, ceil_mode=True)),
    "means beyond the padding": (
        "avg_pool2d", (2, 3, 8, 7), dict(kernel_size=2, stride=3, padding=1, ceil_mode=True),
    ),
    "sums": ("avg_pool2d", (2, 3, 6, 6), dict(kernel_size=3, divisor_override=1)),
    "means of one axis": ("avg_pool1d", (2, 3, 17), dict(kernel_size=4, stride=3, padding=2, ceil_mode=True)),
    "means of all": ("adaptive_avg_pool2d", (2, 3, 5, 7), dict(output_size=1)),
    "means of equal shares": ("adaptive_avg_pool2d", (2, 3, 8, 6), dict(output_size=(4, 2))),
    "means of overlapping shares": ("adaptive_avg_pool2d", (2, 3, 8, 7), dict(output_size=(3, None))),
    "more shares than elements": ("adaptive_avg_pool2d", (2, 3, 2, 3), dict(output_size=(5, 4))),
    "shares of one axis": ("adaptive_avg_pool1d", (2, 3, 10), dict(output_size=4)),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("name", POOLS)
def test_pools_are_pytorchs(name: str, backend: str) -> None:
    function, shape, options = POOLS[name]
    with debug.override(backend=backend):
        compare(
            lambda library, x: getattr(library.nn.functional, function)(x, **options),
            Value(RNG.normal(size=shape)),
            second=backend == "reference",
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["overlapping", "means with padding", "means of overlapping shares"])
def test_other_dtypes(name: str, dtype: str) -> None:
    function, shape, options = POOLS[name]
    x = Value(RNG.integers(-8, 8, size=shape), dtype)
    compare(lambda library, t: getattr(library.nn.functional, function)(t, **options), x, slack=3.0)


@pytest.mark.parametrize("options", [dict(kernel_size=2), dict(kernel_size=3, stride=2, padding=1, ceil_mode=True)])
def test_of_equal_elements_the_first_is_the_greatest_and_nan_wins(options: dict[str, Any]) -> None:
    x = RNG.integers(0, 3, size=(3, 4, 7, 6)).astype(np.float64)
    x[0, 0], x[0, 1, 2, 3], x[1, 0, :3, :3], x[2, 1] = 1.0, NAN, NAN, -INF
    compare(
        lambda library, t: library.nn.functional.max_pool2d(t, **options, return_indices=True),
        Value(x),
    )


def test_indices_name_the_elements() -> None:
    x = pb.randn(2, 3, 9, 8)
    value, index = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    assert index.dtype is pb.int64
    np.testing.assert_array_equal(x.flatten(2).gather(2, index.flatten(2)).numpy(), value.flatten(2).numpy())


def test_no_share_is_an_empty_result() -> None:
    assert F.adaptive_avg_pool2d(pb.ones(2, 3, 4, 4), (0, 2)).shape == (2, 3, 0, 2)


def test_pools_between_convolutions() -> None:
    def expression(library: Any, x: Any, first: Any, second: Any) -> Any:
        f = library.nn.functional
        y = f.max_pool2d(f.conv2d(x, first, padding=1).relu(), 2)
        return f.adaptive_avg_pool2d(f.avg_pool2d(f.conv2d(y, second), 2, 1), 1).flatten(1)

    shapes = ((2, 3, 12, 10), (4, 3, 3, 3), (5, 4, 3, 2))
    compare(expression, *(Value(RNG.normal(size=shape)) for shape in shapes), second=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.max_pool2d(x, 7), ShapeError, "windows of .* do not fit"),
        (lambda x: F.max_pool2d(x, 2, padding=2), ValueError, "must be at most half of kernel_size"),
        (lambda x: F.max_pool2d(x, 0), ValueError, "kernel_size must be"),
        (lambda x: F.max_pool2d(x[0, 0], 2), ShapeError, "input must have 4 axes"),
        (lambda x: F.max_pool2d(x > 0, 2), DTypeError, "must be of floating point"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=0), ValueError, "divisor_override must not be 0"),
        (lambda x: F.adaptive_avg_pool2d(x, (1, 2, 3)), ValueError, "output_size must be"),
        (lambda x: F.adaptive_avg_pool2d(x[:, :, :0], 1), ShapeError, "no elements"),
    ],
)
def test_what_does_not_fit_is_said(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(pb.ones(2, 3, 5, 5))


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("MaxPool1d", (2, 1), (2, 3, 7)),
        ("MaxPool2d", ((3, 2), None, 1), (2, 3, 7, 6)),
        ("AvgPool1d", (2,), (2, 3, 7)),
        ("AvgPool2d", (3, 2, 1, True, False), (2, 3, 7, 6)),
        ("AdaptiveAvgPool1d", (3,), (2, 3, 7)),
        ("AdaptiveAvgPool2d", ((2, None),), (2, 3, 7, 6)),
    ],
)
def test_modules_are_pytorchs(name: str, arguments: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    theirs, ours = getattr(torch.nn, name)(*arguments), getattr(pb.nn, name)(*arguments)
    compare(lambda library, x: (theirs if library is torch else ours)(x), Value(RNG.normal(size=shape)))
    assert repr(ours).startswith(f"{name}(")


def test_an_infinity_stays_in_the_shares_that_hold_it():
    x = np.zeros((1, 2, 16), np.float32)
    x[0, 0, 0], x[0, 1, 7] = np.inf, np.nan
    ours = pb.nn.functional.adaptive_avg_pool1d(pb.tensor(x), 6)
    expected = torch.nn.functional.adaptive_avg_pool1d(torch.tensor(x), 6)
    np.testing.assert_array_equal(ours.numpy(), expected.numpy())


def test_pooling_with_indices_has_names_of_its_own() -> None:
    x = pb.arange(16.0).reshape(1, 1, 4, 4)
    values, places = F.max_pool2d_with_indices(x, 2)
    assert (values.flatten().tolist(), places.flatten().tolist()) == ([5, 7, 13, 15], [5, 7, 13, 15])
    values, places = F.adaptive_max_pool2d_with_indices(x, 1)
    assert (values.item(), places.item()) == (15, 15)
