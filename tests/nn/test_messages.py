"""What a function says of operands that do not fit: in its own name, with their shapes, and how to mend it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pullback as pb
from pullback.errors import DTypeError, ShapeError

F = pb.nn.functional


def floats(*shape: int, dtype: Any = pb.float32) -> pb.Tensor:
    return pb.zeros(*shape, dtype=dtype)


def whole(*shape: int) -> pb.Tensor:
    return pb.zeros(*shape, dtype=pb.int64)


MISFITS: list[tuple[str, tuple[Any, ...], str]] = [
    ("linear", (floats(2, 3), floats(4, 3), floats(5)), r"bias \[5\] does not broadcast to \[2, 4\]"),
    ("linear", (floats(2, 3), floats(4, 3), floats(4, 4)), r"bias \[4, 4\]"),
    ("linear", (floats(2, 3), floats(4, 3, dtype=pb.float64)), "got float32 and float64.*Convert"),
    ("bilinear", (floats(2, 3), floats(2, 4), floats(5, 3, 4), floats(6)), r"bias \[6\]"),
    ("linear_cross_entropy", (floats(3, 4), floats(5, 4), whole(2)), r"integers of shape \[3\].*int64 of shape \[2\]"),
    (
        "linear_cross_entropy",
        (floats(3, 4), floats(5, 4), floats(3)),
        r"floats of shape \[3, 5\].*float32 of shape",
    ),
    ("linear_cross_entropy", (floats(4), floats(5, 4), whole(3)), r"integers of shape \[\]"),
    ("linear_cross_entropy", (floats(3, 4), floats(5, 4, dtype=pb.float64), whole(3)), "float32 and float64"),
    ("binary_cross_entropy", (floats(3), floats(3), floats(4)), r"weight \[4\]"),
    ("binary_cross_entropy_with_logits", (floats(3), floats(3), floats(4)), r"weight \[4\]"),
    ("margin_ranking_loss", (floats(3), floats(4), floats(3)), r"\[3\] and \[4\]"),
    ("cosine_embedding_loss", (floats(3, 2), floats(3, 3), floats(3)), r"\[3, 2\] and \[3, 3\]"),
    ("cosine_embedding_loss", (floats(3, 2), floats(3, 2), floats(4)), r"\[4\]"),
    ("triplet_margin_loss", (floats(3, 2), floats(3, 2), floats(3, 4)), r"\[3, 4\]"),
    ("triplet_margin_with_distance_loss", (floats(3, 2), floats(4, 2), floats(3, 2)), r"\[4, 2\]"),
    ("multilabel_soft_margin_loss", (floats(3, 5), floats(3, 4)), r"\[3, 4\]"),
    ("multilabel_soft_margin_loss", (floats(3, 5), floats(3, 5), floats(4)), r"\[4\]"),
    ("cosine_similarity", (floats(3, 2), floats(4, 2)), r"\[4, 2\]"),
    ("pairwise_distance", (floats(3, 2), floats(3, 4)), r"\[3, 4\]"),
    ("softmax", (floats(3), 4), "axis 4"),
    ("log_softmax", (floats(3), 2), "axis 2"),
    ("gumbel_softmax", (floats(3), 1.0, False, 1e-10, 3), "axis 3"),
    ("normalize", (floats(3), 2.0, 4), "axis 4"),
]


@pytest.mark.parametrize(("name", "operands", "message"), MISFITS)
def test_operands_that_do_not_fit_are_named_by_the_function(name: str, operands: Any, message: str) -> None:
    with pytest.raises((ShapeError, DTypeError, IndexError), match=f"^{name}:.*{message}"):
        getattr(F, name)(*operands)


def test_einsum_says_which_label() -> None:
    with pytest.raises(ShapeError, match="einsum: label 'j' names axes of sizes 3 and 4"):
        pb.einsum("ij,jk", floats(2, 3), floats(4, 5))
    with pytest.raises(ShapeError, match="einsum: label 'i' names axes of sizes 2 and 3"):
        pb.einsum("ii", floats(2, 3))
    with pytest.raises(ShapeError, match="not so of label 'z'"):
        pb.einsum("ij->iz", floats(2, 3))
    with pytest.raises(ShapeError, match="label 1 names axes of sizes 3 and 4"):
        pb.einsum(floats(2, 3), [0, 1], floats(4, 5), [1, 2])
    with pytest.raises(ShapeError, match="an axis of the ellipsis names axes of sizes 2 and 3"):
        pb.einsum("...,...", floats(2), floats(3))


def test_a_layer_of_fewer_than_no_features_is_refused() -> None:
    for sizes in ((-1, 4), (4, -1)):
        with pytest.raises(ValueError, match=f"Linear: .* must not be negative, got {sizes[0]} and {sizes[1]}"):
            pb.nn.Linear(*sizes)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_no_examples_take_any_output_padding_as_in_pytorch(rank: int) -> None:
    arguments = {"stride": 1, "output_padding": 2}
    shape, window = (0, 3, *[4] * rank), (3, 5, *[2] * rank)
    theirs = getattr(torch.nn.functional, f"conv_transpose{rank}d")(
        torch.zeros(shape), torch.zeros(window), **arguments
    )
    function = getattr(F, f"conv_transpose{rank}d")
    assert function(floats(*shape), floats(*window), **arguments).shape == tuple(theirs.shape)
    with pytest.raises(ValueError, match="output_padding"):
        function(floats(1, *shape[1:]), floats(*window), **arguments)
