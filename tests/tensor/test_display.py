"""Tensors as text: PyTorch's rules."""

import numpy as np
import pytest
import torch

import pullback as pb

random = np.random.default_rng(0)
VALUES = [
    *(random.standard_normal(shape) * scale for shape in ((), (3,), (2, 3), (40, 30)) for scale in (1, 1e-6, 1e5)),
    *(
        random.standard_normal(shape).astype(np.float32)
        for shape in ((20,), (2, 3, 4), (1500,), (11, 200), (2, 5, 300))
    ),
    *(np.array(v, np.float32) for v in ([], [1, np.inf], [np.nan, 0], [0, -0.0], [1e-5, 1], [1.5, np.nan, -np.inf])),
    *(np.array(v, np.float32) for v in ([100, 1e5], [1e9], [5, 1e-7], [[[1.0]]], [-np.inf, np.inf], [1e-40])),
    *(random.integers(-500, 500, shape) for shape in ((), (2, 3), (60, 60))),
    *(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), np.array([True, False])),
    random.standard_normal((3, 3)).astype(np.float16),
]
OPTIONS = [
    {},
    {"precision": 2},
    {"threshold": 5},
    {"edgeitems": 1, "threshold": 10},
    {"linewidth": 40},
    {"sci_mode": True},
    {"sci_mode": False},
    {"profile": "short"},
    {"profile": "full"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tensors_are_written_as_pytorchs(options):
    def written(lib):
        lib.set_printoptions(profile="default")
        lib.set_printoptions(**options)
        try:
            # without the dtype, whose name is of another length, which may break the line elsewhere
            return [repr(lib.tensor(v)).split("dtype")[0].rstrip(", \n") for v in VALUES]
        finally:
            lib.set_printoptions(profile="default")

    assert written(pb) == written(torch)


def test_what_stands_behind_the_elements():
    assert repr(pb.tensor([1.0], requires_grad=True)) == "tensor([1.], requires_grad=True)"
    assert repr(pb.tensor([1], dtype=pb.int8)) == "tensor([1], dtype=pullback.int8)"
    assert repr(pb.zeros(0, 2, dtype=pb.int64)) == "tensor([], size=(0, 2), dtype=pullback.int64)"
    assert repr(pb.tensor([1.0], requires_grad=True) * 2) == "tensor([2.], grad_fn=<mul>)"
    assert (f"{pb.tensor(1.5)}", f"{pb.tensor(1.25):.1f}", f"{pb.tensor([1.25])}") == ("1.5", "1.2", "tensor([1.2500])")


def test_wrong_options_are_refused():
    for options in ({"profile": "long"}, {"precision": -1}, {"linewidth": "wide"}):
        with pytest.raises(ValueError, match="set_printoptions"):
            pb.set_printoptions(**options)
