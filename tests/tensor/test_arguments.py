"""Counts, sizes and offsets are whole numbers: 2.0 is refused where the user wrote it, as in PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pullback as pb

F = pb.nn.functional
X = pb.arange(12.0).reshape(4, 3)

CASES: dict[str, Callable[[], Any]] = {
    "affine_grid": lambda: F.affine_grid(X.reshape(2, 2, 3), (2, 1, 2.0, 2), align_corners=True),
    "avg_pool2d": lambda: F.avg_pool2d(X[None], 2, divisor_override=1.5),
    "cov": lambda: X.cov(correction=1.5),
    "cross_entropy": lambda: F.cross_entropy(X, pb.tensor([0, 1, 1, 1]), ignore_index=1.0),
    "embedding": lambda: F.embedding(pb.tensor([1]), X, padding_idx=1.0),
    "layer_norm": lambda: F.layer_norm(X, (3.0,)),
    "randint": lambda: pb.randint(0.5, 5, (2,)),
    "diag": lambda: X.diag(0.5),
    "diag_embed": lambda: X.diag_embed(1.0),
    "diagonal": lambda: X.diagonal(1.0),
    "eye": lambda: pb.eye(2.0),
    "eye by": lambda: pb.eye(2, 3.0),
    "histc": lambda: X.histc(3.0),
    "linspace": lambda: pb.linspace(0, 3, 3.0),
    "logspace": lambda: pb.logspace(0, 3, 3.0),
    "narrow": lambda: X.narrow(0, 1, 1.0),
    "one_hot": lambda: F.one_hot(pb.tensor([1, 2]), 4.0),
    "pad": lambda: F.pad(X, (1.5, 1)),
    "randperm": lambda: pb.randperm(3.0),
    "repeat_interleave": lambda: X.repeat_interleave(2.0),
    "rot90": lambda: X.rot90(1.0),
    "round": lambda: X.round(decimals=1.0),
    "squeeze": lambda: X.squeeze(0.0),
    "topk": lambda: X.topk(1.0),
    "tril": lambda: X.tril(0.5),
    "tril_indices": lambda: pb.tril_indices(2.0, 2),
    "triu": lambda: X.triu(0.5),
    "unfold": lambda: F.unfold(X.reshape(1, 1, 4, 3), (2.5, 2)),
    "windows": lambda: X.unfold(0, 2.0, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_a_fraction_is_no_count(name: str) -> None:
    with pytest.raises(TypeError):
        CASES[name]()


def test_whole_numbers_may_be_of_numpy_or_tensors() -> None:
    assert pb.eye(np.int64(2)).shape == (2, 2)
    assert X.narrow(0, np.int32(1), np.int64(2)).shape == (2, 3)
    assert F.pad(X, (np.int64(1), 0)).shape == (4, 4)
    assert X.repeat_interleave(np.int64(2), 0).shape == (8, 3)
