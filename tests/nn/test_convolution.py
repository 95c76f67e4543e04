"""Convolutions against PyTorch and finite differences: values, gradients and second derivatives of awkward shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from oracle import Value, compare
from pullback import debug
from pullback.autograd import gradcheck, gradgradcheck
from pullback.errors import DTypeError, ShapeError

F = pb.nn.functional
RNG = np.random.default_rng(0)

#: function, shapes of input and weight, options
CONVOLUTIONS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ("conv2d", (2, 4, 7, 9), (6, 4, 3, 3), {}),
    "padded": ("conv2d", (2, 3, 7, 6), (5, 3, 3, 3), dict(padding=1)),
    "more channels than lanes": ("conv2d", (2, 20, 5, 4), (35, 20, 3, 3), dict(padding=1)),
    "strides": ("conv2d", (2, 4, 9, 8), (6, 4, 3, 3), dict(stride=(2, 3), padding=(1, 0))),
    "stride beyond the window": ("conv2d", (2, 3, 9, 9), (4, 3, 2, 2), dict(stride=5)),
    "one by one": ("conv2d", (2, 5, 4, 3), (7, 5, 1, 1), {}),
    "one by one with stride": ("conv2d", (2, 5, 5, 4), (7, 5, 1, 1), dict(stride=2)),
    "one by one with padding": ("conv2d", (1, 2, 3, 3), (3, 2, 1, 1), dict(padding=2, stride=2)),
    "dilation": ("conv2d", (2, 3, 9, 8), (4, 3, 3, 2), dict(dilation=(2, 3), padding=2)),
    "dilation and stride": ("conv2d", (1, 3, 11, 12), (4, 3, 3, 3), dict(dilation=(2, 3), stride=(3, 2), padding=3)),
    "groups": ("conv2d", (2, 6, 5, 5), (9, 2, 3, 3), dict(groups=3, padding=1)),
    "groups and stride": ("conv2d", (2, 4, 7, 6), (6, 2, 3, 3), dict(groups=2, stride=2, padding=1)),
    "depthwise": ("conv2d", (2, 19, 6, 5), (19, 1, 3, 3), dict(groups=19, padding=1)),
    "depthwise and stride": ("conv2d", (3, 5, 7, 6), (5, 1, 3, 2), dict(groups=5, stride=(2, 3), padding=1)),
    "depthwise multiplied": ("conv2d", (2, 3, 5, 4), (6, 1, 3, 2), dict(groups=3)),
    "window longer than the input": ("conv2d", (2, 3, 2, 3), (4, 3, 5, 4), dict(padding=2)),
    "window of the whole input": ("conv2d", (3, 4, 5, 6), (7, 4, 5, 6), {}),
    "one place, one channel": ("conv2d", (1, 1, 1, 1), (1, 1, 1, 1), {}),
    "padding beyond the window": ("conv2d", (1, 2, 3, 3), (2, 2, 2, 2), dict(padding=4)),
    "no image": ("conv2d", (0, 3, 5, 5), (4, 3, 3, 3), dict(padding=1)),
    "no batch axis": ("conv2d", (3, 5, 5), (4, 3, 3, 3), dict(padding=1)),
    "valid": ("conv2d", (2, 3, 5, 5), (4, 3, 3, 2), dict(padding="valid", stride=2)),
    "same": ("conv2d", (2, 3, 5, 6), (4, 3, 3, 5), dict(padding="same", dilation=(2, 1))),
    "one axis": ("conv1d", (2, 3, 41), (5, 3, 4), dict(padding=2, stride=3)),
    "one axis, same": ("conv1d", (2, 3, 9), (4, 3, 4), dict(padding="same")),
    "one long axis": ("conv1d", (1, 2, 1031), (3, 2, 5), dict(padding=2)),
    "one axis, depthwise": ("conv1d", (2, 4, 11), (4, 1, 3), dict(groups=4, dilation=2)),
    "three axes": ("conv3d", (2, 3, 5, 4, 6), (4, 3, 3, 2, 3), dict(padding=1, stride=(2, 1, 2))),
    "transposed": ("conv_transpose2d", (2, 4, 3, 5), (4, 3, 3, 3), {}),
    "transposed, stride": ("conv_transpose2d", (2, 4, 3, 4), (4, 3, 3, 2), dict(stride=(2, 3), padding=1)),
    "transposed, output padding": (
        "conv_transpose2d", (2, 3, 3, 4), (3, 2, 3, 3), dict(stride=2, padding=1, output_padding=(1, 0)),
    ),
    "transposed, groups": (
        "conv_transpose2d", (2, 4, 3, 4), (4, 3, 3, 3), dict(groups=2, stride=2, dilation=(1, 2), padding=(0, 1)),
    ),
    "transposed, cut": ("conv_transpose2d", (1, 2, 4, 4), (2, 2, 2, 2), dict(padding=2)),
    "transposed, depthwise": ("conv_transpose2d", (2, 3, 3, 4), (3, 1, 4, 4), dict(groups=3, stride=2, padding=1)),
    "transposed, one axis": ("conv_transpose1d", (2, 3, 7), (3, 4, 5), dict(stride=3, dilation=2, output_padding=2)),
    "transposed, three axes": ("conv_transpose3d", (1, 2, 3, 2, 3), (2, 3, 2, 2, 2), dict(stride=2)),
}  # fmt: skip


@pytest.fixture
def reference() -> Iterator[None]:
    """The interpreter: what gradient rules mean does not depend on how they are compiled."""
    with debug.override(backend="reference"):
        yield


def normal(*shape: int, dtype: str = "float64") -> Value:
    return Value(RNG.normal(size=shape), dtype)


def run(name: str, dtype: str, second: bool, slack: float = 4.0) -> None:
    function, x, weight, options = CONVOLUTIONS[name]
    outputs = weight[1] * options.get("groups", 1) if "transpose" in function else weight[0]
    compare(
        lambda library, *tensors: getattr(library.nn.functional, function)(*tensors, **options),
        normal(*x, dtype=dtype),
        normal(*weight, dtype=dtype),
        normal(outputs, dtype=dtype),
        second=second,
        slack=slack,
    )


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_reference_gives_pytorchs_values_gradients_and_second_derivatives(name: str) -> None:
    with debug.override(backend="reference"):
        run(name, "float64", second=True)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_native_code_gives_pytorchs_values_and_gradients(name: str) -> None:
    run(name, "float32", second=name in ("groups and stride", "transposed, groups"), slack=8.0)


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64"])
@pytest.mark.parametrize("name", ["more channels than lanes", "groups and stride", "depthwise"])
def test_float32_on_processors_of_any_width(name: str, cpu: str) -> None:
    with debug.override(cpu=cpu):
        run(name, "float32", second=False, slack=8.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["groups and stride", "depthwise"])
def test_sixteen_bit_floats_are_summed_in_float32(name: str, dtype: str) -> None:
    function, x, weight, options = CONVOLUTIONS[name]
    rounded = [pb.tensor(RNG.normal(size=shape), dtype=getattr(pb, dtype)).requires_grad_() for shape in (x, weight)]
    wide = [t.detach().float().requires_grad_() for t in rounded]
    results = []
    for operands in (rounded, wide):
        value = getattr(F, function)(*operands, **options)
        results.append([value, *pb.autograd.grad(value.float().sum(), operands)])
    assert all(r.dtype is getattr(pb, dtype) for r in results[0])
    for got, exact in zip(*results, strict=True):
        np.testing.assert_array_equal(got.float().detach().numpy(), exact.to(got.dtype).float().detach().numpy())


@pytest.mark.parametrize("name", ["strides", "groups and stride", "dilation and stride", "transposed, groups"])
def test_first_and_second_derivatives_are_those_of_finite_differences(name: str, reference: None) -> None:
    function, x, weight, options = CONVOLUTIONS[name]
    inputs = [pb.tensor(RNG.normal(size=shape) * 0.5).requires_grad_() for shape in (x, weight)]
    assert gradcheck(lambda *tensors: getattr(F, function)(*tensors, **options), inputs, fast_mode=True)
    assert gradgradcheck(lambda *tensors: getattr(F, function)(*tensors, **options), inputs, fast_mode=True)


def test_operands_that_are_not_contiguous() -> None:
    def expression(library: Any, x: Any, weight: Any) -> Any:
        shifted = x.permute(1, 3, 0, 2)[:, :, 1:].flip((2,))
        return library.nn.functional.conv2d(shifted, weight.permute(3, 2, 0, 1)[:, :, :, ::2], padding=1)

    compare(expression, normal(6, 2, 5, 4), normal(3, 5, 4, 7), second=True)


def test_several_convolutions_with_what_stands_between_them() -> None:
    """Elementwise operations, reductions, slices and joins in the order that convolutions compute in."""

    def expression(library: Any, x: Any, first: Any, second: Any, bias: Any) -> Any:
        f = library.nn.functional
        y = f.conv2d(x, first, padding=1)
        y = (y - y.mean((0, 2, 3), keepdim=True)) * bias.reshape(-1, 1, 1) + x[:, :1]
        y = library.cat([y.tanh(), y * y], 1)[:, 1:-1]
        z = f.conv2d(y, second, padding=1, stride=2)
        return z.sum(1) * z.amax((2, 3))[:, :1, None], (z * y[:, :2, ::2, ::2]).permute(1, 0, 3, 2).flatten(1)

    compare(expression, normal(2, 3, 6, 8), normal(4, 3, 3, 3), normal(2, 6, 3, 3), normal(4), second=True, slack=8.0)


def test_infinity_and_nan_go_where_pytorchs_go() -> None:
    x = np.zeros((1, 2, 6, 7))
    x[0, 0, 1, 2], x[0, 1, 4, 5] = np.inf, np.nan
    compare(lambda library, t, w: library.nn.functional.conv2d(t, w), Value(x), Value(np.ones((3, 2, 2, 2))))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.conv2d(x, pb.ones(4, 2, 3, 3)), ShapeError, "has 3 channels .* takes 2"),
        (lambda x: F.conv2d(x, pb.ones(4, 3, 3)), ShapeError, "weight must be .* with 4 axes"),
        (lambda x: F.conv2d(x[0, 0], pb.ones(4, 3, 3, 3)), ShapeError, "input must have 4 axes"),
        (lambda x: F.conv2d(x, pb.ones(4, 1, 3, 3), groups=3), ValueError, r"first axis \(4\) must be divisible"),
        (lambda x: F.conv2d(x, pb.ones(4, 3, 3, 3), groups=0), ValueError, "groups must be a whole number from 1 on"),
        (lambda x: F.conv2d(x, pb.ones(4, 3, 7, 7)), ShapeError, r"window of \[7, 7\] .* is longer than the input"),
        (lambda x: F.conv2d(x, pb.ones(4, 3, 3, 3), pb.ones(3)), ShapeError, r"bias must be \[4\]"),
        (lambda x: F.conv2d(x, pb.ones(4, 3, 3, 3).double()), DTypeError, "input is float32 and weight float64"),
        (lambda x: F.conv2d(x.bool(), pb.ones(4, 3, 3, 3).bool()), DTypeError, "must be of floating point"),
        (lambda x: F.conv2d(x, pb.ones(4, 3, 3, 3), stride=0), ValueError, "stride must be .* at least 1"),
        (lambda x: F.conv2d(x, pb.ones(4, 3, 3, 3), padding=-1), ValueError, "padding must be .* at least 0"),
        (lambda x: F.conv2d(x, pb.ones(4, 3, 3, 3), padding="most"), ValueError, '"same", "valid" or numbers'),
        (lambda x: F.conv2d(x, pb.ones(4, 3, 3, 3), stride=2, padding="same"), ValueError, '"same" is for stride 1'),
        (lambda x: F.conv2d(x, pb.ones(4, 3, 3, 3), dilation=(1, 2, 3)), ValueError, "or 2 of them"),
        (lambda x: F.conv_transpose2d(x, pb.ones(2, 3, 3, 3)), ShapeError, "has 3 channels .* takes 2"),
        (
            lambda x: F.conv_transpose2d(x, pb.ones(3, 2, 3, 3), output_padding=1), ValueError,
            r"output_padding \[1, 1\] must be below stride",
        ),
        (lambda x: F.conv_transpose2d(x, pb.ones(3, 2, 1, 1), padding=3), ShapeError, "nothing is left"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(pb.ones(2, 3, 5, 5))


MODULES = {
    "Conv1d": ((4, 6, 3), dict(stride=2, padding=1), (2, 4, 9)),
    "Conv2d": ((4, 6, (3, 2)), dict(padding=1, groups=2, bias=False), (2, 4, 5, 6)),
    "Conv3d": ((2, 3, 2), {}, (2, 2, 3, 4, 3)),
    "ConvTranspose1d": ((4, 6, 3), dict(stride=2, output_padding=1), (2, 4, 5)),
    "ConvTranspose2d": ((4, 6, 3), dict(stride=2, padding=1, groups=2, dilation=2), (2, 4, 5, 3)),
    "ConvTranspose3d": ((2, 3, 2), dict(stride=2), (1, 2, 2, 3, 2)),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_take_pytorchs_state_and_print_as_pytorchs(name: str) -> None:
    arguments, options, shape = MODULES[name]
    theirs, ours = getattr(torch.nn, name)(*arguments, **options), getattr(pb.nn, name)(*arguments, **options)
    assert {k: tuple(v.shape) for k, v in theirs.state_dict().items()} == {
        k: v.shape for k, v in ours.state_dict().items()
    }
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = RNG.normal(size=shape).astype(np.float32)
    expected = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours(pb.tensor(x)).detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, (2, 1), "same"])
def test_padding_modes_continue_the_input_as_pytorchs_do(mode: str, padding: Any) -> None:
    theirs = torch.nn.Conv2d(2, 3, (3, 4), padding=padding, padding_mode=mode).double()
    ours = pb.nn.Conv2d(2, 3, (3, 4), padding=padding, padding_mode=mode).double()
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    compare(lambda library, x: (theirs if library is torch else ours)(x), normal(2, 2, 5, 6), second=True)


def test_parameters_start_as_pytorchs_do() -> None:
    pb.manual_seed(0)
    for layer, inputs in ((pb.nn.Conv2d(16, 64, 3), 144), (pb.nn.ConvTranspose2d(64, 16, 3, groups=2), 72)):
        bound = 1 / inputs**0.5
        for values in (layer.weight.detach().numpy(), layer.bias.detach().numpy()):
            assert abs(values).max() <= bound
            assert abs(values).max() > 0.8 * bound
        assert abs(layer.weight.detach().numpy().std() - bound / 3**0.5) < 0.05 * bound


def test_a_transposed_convolution_is_asked_for_a_size() -> None:
    layer = pb.nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
    x = pb.randn(1, 2, 4, 4)
    assert layer(x).shape == (1, 3, 7, 7)
    assert layer(x, output_size=(8, 7)).shape == (1, 3, 8, 7)
    with pytest.raises(ValueError, match=r"output_size \[9, 9\] must lie between \[7, 7\] and \[8, 8\]"):
        layer(x, output_size=(9, 9))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pb.nn.Conv2d(3, 4, 3, groups=2), "in_channels=3 must be divisible by groups=2"),
        (lambda: pb.nn.Conv2d(4, 5, 3, groups=2), "out_channels=5 must be divisible by groups=2"),
        (lambda: pb.nn.Conv2d(3, 4, 3, padding_mode="mirror"), "padding_mode must be one of"),
        (lambda: pb.nn.Conv2d(3, 4, 0), "kernel_size must be"),
        (lambda: pb.nn.ConvTranspose2d(3, 4, 3, padding_mode="circular"), 'only padding_mode "zeros"'),
    ],
)
def test_modules_check_their_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "name", ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]
)
def test_sizes_of_another_number_of_axes_are_refused(name):
    rank = int(name[-2])
    for size in {(3,), (3, 3), (3, 3, 3), (3,) * 4}:
        if len(size) == rank:
            getattr(pb.nn, name)(1, 1, size)
        else:
            with pytest.raises(ValueError, match=f"{name}: kernel_size must be"):
                getattr(pb.nn, name)(1, 1, size)


def test_windows_of_another_number_of_axes_are_refused():
    x = pb.ones(1, 1, 8, 8)
    for wrong in ((3,), (3, 3, 3)):
        for run in (pb.nn.Unfold(wrong), pb.nn.AdaptiveAvgPool2d(wrong), pb.nn.AdaptiveMaxPool2d(wrong)):
            with pytest.raises(ValueError, match=r"size|windows"):
                run(x)
    for run in (pb.nn.MaxPool2d((3, 3, 3)), pb.nn.AvgPool2d((3, 3, 3)), pb.nn.LPPool2d(2, (3, 3, 3))):
        with pytest.raises(ValueError, match="kernel_size"):
            run(x)
    for option in ("stride", "padding", "dilation"):
        with pytest.raises(ValueError, match=option):
            pb.nn.functional.conv2d(x, pb.ones(1, 1, 2, 2), **{option: (1, 1, 1)})


@pytest.mark.parametrize(
    ("name", "shape", "window", "options"),
    [
        ("conv2d", (2, 4, 7, 6), (6, 2, 3, 2), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}),
        ("conv1d", (3, 9), (4, 3, 3), {"padding": "same"}),
        ("conv3d", (1, 2, 4, 4, 4), (2, 2, 2, 2, 2), {"stride": 2}),
        ("conv_transpose2d", (2, 4, 5, 4), (4, 3, 3, 2), {"stride": (2, 3), "output_padding": 1, "groups": 2}),
        ("conv_transpose1d", (2, 4, 5), (4, 3, 3), {"padding": 3, "stride": 2}),
    ],
)
def test_convolutions_of_integers_are_exact(name, shape, window, options):
    random = np.random.default_rng(0)
    x, weight = random.integers(-(2**40), 2**40, shape), random.integers(-9, 9, window)
    bias = random.integers(0, 5, window[1] * options.get("groups", 1) if "transpose" in name else window[0])
    ours, theirs = (
        getattr(lib.nn.functional, name)(*map(lib.tensor, (x, weight, bias)), **options) for lib in (pb, torch)
    )
    assert ours.dtype is pb.int64 and np.array_equal(ours.numpy(), theirs.numpy())


def test_small_integers_wrap_around_in_convolutions():
    x, weight = np.full((1, 2, 4), 100, np.uint8), np.full((3, 2, 2), 7, np.uint8)
    ours, theirs = (lib.nn.functional.conv1d(lib.tensor(x), lib.tensor(weight)) for lib in (pb, torch))
    assert ours.dtype is pb.uint8 and ours.tolist() == theirs.tolist()
    with pytest.raises(DTypeError, match="bool"):
        pb.nn.functional.conv1d(pb.tensor(x > 0), pb.tensor(weight > 0))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_gradients_as_functions_are_pytorchs(rank: int) -> None:
    numbers = np.random.default_rng(rank)
    sizes = {"x": (2, 4, *(5, 6, 7)[:rank]), "w": (6, 2, *(3, 2, 3)[:rank])}
    options = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2}
    x, w = (numbers.standard_normal(size) for size in sizes.values())
    result = getattr(torch.nn.functional, f"conv{rank}d")(torch.tensor(x), torch.tensor(w), **options)
    g = numbers.standard_normal(tuple(result.shape))

    def found(lib: Any) -> list[Any]:
        grad, (a, b, c) = lib.nn.grad, (lib.tensor(value) for value in (x, w, g))
        made = [
            getattr(grad, f"conv{rank}d_input")(sizes["x"], b, c, **options),
            getattr(grad, f"conv{rank}d_weight")(a, sizes["w"], c, **options),
        ]
        c.requires_grad_()
        again = getattr(grad, f"conv{rank}d_input")(sizes["x"], b, c, **options)
        (again * a).sum().backward()
        with lib.no_grad():
            assert not getattr(grad, f"conv{rank}d_weight")(a, sizes["w"], c, **options).requires_grad
        return [*(m.numpy() for m in made), c.grad.numpy()]

    for ours, theirs in zip(found(pb), found(torch), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
