"""Python functions of arrays inside graphs."""

from __future__ import annotations

import numpy as np
import pytest

import pullback as pb
from pullback.errors import ShapeError


def sort(array: np.ndarray) -> np.ndarray:
    return np.sort(array, axis=-1)


def test_a_host_call_in_a_compiled_step_sees_what_was_computed_before_it() -> None:
    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        return pb.utils.host_call(sort, (2, 3), pb.float32, (x * -1).T) * 10

    for shift in (0.0, 1.0):
        x = np.array([[3, 1], [2, 5], [4, 0]], np.float32) + shift
        np.testing.assert_array_equal(step(pb.tensor(x)).numpy(), np.sort(-x.T, axis=-1) * 10)


def test_the_gradient_of_a_host_call_comes_from_a_function_around_it() -> None:
    class Cube(pb.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return pb.utils.host_call(lambda a: a**3, x.shape, x.dtype, x)

        @staticmethod
        def backward(context, cotangent):
            (x,) = context.saved_tensors
            return cotangent * 3 * x * x

    x = pb.tensor([1.0, 2.0], requires_grad=True)
    Cube.apply(x).sum().backward()
    assert x.grad.tolist() == [3.0, 12.0]


def test_a_wrong_result_is_named() -> None:
    with pytest.raises(ShapeError, match=r"returned shape \[3\], promised \[2\].*test_host_call"):
        pb.utils.host_call(lambda a: a, (2,), pb.float32, pb.ones(3)).tolist()
    with pytest.raises(TypeError, match="takes tensors"):
        pb.utils.host_call(sort, (2,), pb.float32, [1.0])
