"""`Tensor.to` in all of PyTorch's forms."""

from typing import Any

import pytest

import pullback as pb


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((pb.float64,), {}),
        (("cpu", pb.float64), {}),
        (("cpu", pb.float64, True, True), {}),
        ((pb.float64, False, True), {}),
        ((pb.zeros(1, dtype=pb.float64),), {"non_blocking": True}),
        ((), {"other": pb.zeros(1, dtype=pb.float64)}),
        ((None, pb.float64), {"memory_format": None}),
        ((), {"dtype": pb.float64, "device": "cpu"}),
    ],
)
def test_every_form_gives_the_dtype(args: tuple[Any, ...], options: dict[str, Any]) -> None:
    assert pb.ones(2).to(*args, **options).dtype is pb.float64


def test_copy_gives_a_tensor_of_its_own() -> None:
    x = pb.ones(2)
    assert x.to("cpu", pb.float32) is x
    y = x.to("cpu", pb.float32, False, True)
    y.add_(1.0)
    assert x.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "args", [("cuda",), (3,), (pb.float32, pb.float64), (pb.zeros(1), pb.float32), (pb.float32, True, True, True)]
)
def test_other_forms_are_refused(args: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, ValueError), match="to\\(\\)"):
        pb.ones(2).to(*args)


def test_other_layouts_are_refused() -> None:
    with pytest.raises(ValueError, match="memory_format"):
        pb.ones(2).to(pb.float64, memory_format="channels_last")


def test_the_nuclear_norm_of_more_axes_needs_two_named() -> None:
    with pytest.raises(pb.errors.ShapeError, match="needs a `dim`"):
        pb.ones(2, 2, 2).norm("nuc")
