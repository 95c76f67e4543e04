"""What a function says of operands that do not fit: in its own name, with their shapes, and how to mend it."""

from __future__ import annotations

from typing import Any

import numpy as np
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


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "multi_margin_loss"])
@pytest.mark.parametrize("dtype", [pb.float16, pb.float64])
def test_weights_of_classes_are_of_the_inputs_dtype(name: str, dtype: Any) -> None:
    with pytest.raises(RuntimeError, match=f"{name}: weight must have the input's dtype float32, got {dtype.name}"):
        getattr(F, name)(floats(2, 3), whole(2), weight=floats(3, dtype=dtype))
    with pytest.raises(DTypeError, match="linear_cross_entropy: weight must have the input's dtype"):
        F.linear_cross_entropy(floats(4, 2), floats(3, 2), whole(4), weight=floats(3, dtype=dtype), chunk_size=2)


def test_a_class_to_ignore_is_refused_beside_probabilities() -> None:
    for call in (F.cross_entropy, pb.nn.CrossEntropyLoss(ignore_index=1)):
        given = {"ignore_index": 1} if call is F.cross_entropy else {}
        with pytest.raises(RuntimeError, match="ignore_index is not supported for floating point targets"):
            call(floats(2, 3), floats(2, 3), **given)
    assert F.cross_entropy(floats(2, 3), floats(2, 3), ignore_index=-1).item() == 0  # as in PyTorch


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda x: pb.nn.HuberLoss(delta=1j)(x, x), "delta"),
        (lambda x: F.smooth_l1_loss(x, x, beta=1j), "beta"),
        (lambda x: F.cross_entropy(x, x, label_smoothing=0j), "label_smoothing"),
        (lambda x: F.triplet_margin_loss(x, x, x, margin=1j), "margin"),
        (lambda x: F.hardtanh(x, 0j, 1), "min_val"),
        (lambda x: F.softshrink(x, 1j), "lambd"),
        (lambda x: F.rrelu(x, 0, 1j), "upper"),
        (lambda x: F.dropout(x, 1j), "p"),
        (lambda x: pb.nn.Dropout(1j), "p"),
        (lambda x: F.poisson_nll_loss(x, x, eps=np.complex64(1)), "eps"),
    ],
)
def test_a_complex_number_is_refused_by_the_arguments_name(call: Any, argument: str) -> None:
    with pytest.raises(TypeError, match=f"argument '{argument}' must be float, not complex"):
        call(floats(2, 3))


@pytest.mark.parametrize("given", [np.ones((3, 4), np.float32), [[1.0] * 4], 3, None, "text"])
@pytest.mark.parametrize("kind", ["Linear", "Linear4bit", "LayerNorm", "ReLU", "Sequential", "Flatten"])
def test_what_is_no_tensor_is_told_to_be_none(kind: str, given: object) -> None:
    layer = {
        "Linear": lambda: pb.nn.Linear(4, 2),
        "Linear4bit": lambda: pb.nn.Linear4bit(4, 2),
        "LayerNorm": lambda: pb.nn.LayerNorm(4),
        "ReLU": pb.nn.ReLU,
        "Flatten": pb.nn.Flatten,
        "Sequential": lambda: pb.nn.Sequential(pb.nn.Linear(4, 2)),
    }[kind]()
    with pytest.raises(TypeError, match=f"the input must be a tensor, got {type(given).__name__}"):
        layer(given)
    with pytest.raises(TypeError, match="matmul takes tensors, got ndarray"):
        pb.ones(2, 4) @ np.ones((4, 2), np.float32)


def test_what_else_is_no_tensor_is_told_too() -> None:
    layer, x = pb.nn.Linear(4, 2), pb.ones(3, 4)
    with pytest.raises(TypeError, match=r"Linear: the input must be a tensor, got tuple .* the output of an LSTM"):
        pb.nn.Sequential(pb.nn.LSTM(4, 4), layer)(x)
    with pytest.raises(TypeError, match="Linear: the input must be a tensor, got NoneType"):
        layer(input=None)
    for target in (None, np.zeros(3, np.int64)):
        with pytest.raises(
            TypeError, match=f"CrossEntropyLoss: the target must be a tensor, got {type(target).__name__}"
        ):
            pb.nn.CrossEntropyLoss()(x, target)
    with pytest.raises(ShapeError, match="linear"):  # what is wrong otherwise is told as before
        layer(pb.ones(3, 5))
