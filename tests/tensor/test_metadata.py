"""What PyTorch's tensors and namespace tell besides: sizes, kinds, devices, constants, names of the same things."""

import math

import numpy as np
import pytest
import torch

import pullback as pb

ASKED = [
    *("nelement", "element_size", "dim_order", "get_device", "is_complex", "is_conj", "is_neg", "is_signed", "type"),
    *("is_floating_point", "numel", "dim"),
]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64", "float16", "bfloat16", "float32", "float64"])
def test_tensors_tell_what_pytorchs_tell(dtype):
    def told(lib):
        x = lib.zeros(3, 4, 2, dtype=getattr(lib, dtype)).permute(2, 0, 1)
        attributes = (x.itemsize, x.nbytes, x.is_cpu, x.is_cuda, x.is_sparse, x.is_quantized, x.is_leaf, x.grad_fn)
        return [getattr(x, name)() for name in ASKED], attributes, x.device.type

    assert told(pb) == told(torch)


def test_histories_begin_and_go_on():
    x = pb.ones(2, requires_grad=True)
    y = (x * 2).exp()
    assert x.grad_fn is None and y.detach().grad_fn is None
    assert y.grad_fn.name() == "exp" and y.grad_fn.next_functions[0][0].name() == "mul"
    z = x * 2
    assert z.detach_() is z and not z.requires_grad and z.grad_fn is None


def test_devices():
    cpu = pb.device("cpu")
    assert cpu == "cpu" and pb.ones(1).device == cpu and (cpu.type, cpu.index) == ("cpu", None)
    assert repr(pb.device("cpu:0")) == repr(torch.device("cpu:0")) and repr(cpu) == repr(torch.device("cpu"))
    assert pb.zeros(2, device=pb.device("cpu")).cpu().device.type == "cpu"
    for name in ("cuda", "cpu:x"):
        with pytest.raises(ValueError, match=name):
            pb.device(name)


def test_constants_and_kinds():
    assert (pb.pi, pb.e, pb.inf) == (math.pi, math.e, math.inf) and math.isnan(pb.nan) and pb.newaxis is None
    assert isinstance(pb.ones(2).shape, pb.Size) and pb.is_tensor(pb.ones(2)) and not pb.is_tensor([1.0])
    assert pb.is_nonzero(pb.tensor(1.0)) and pb.is_same_size(pb.ones(2), pb.zeros(2))


def test_asarray_shares_copies_and_refuses():
    array = np.ones(3, np.float32)
    shared, copied = pb.asarray(array, copy=False), pb.asarray(array, copy=True)
    array[0] = 5
    assert (shared.tolist(), copied.tolist()) == ([5.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    x = pb.ones(2)
    assert pb.asarray(x) is x and pb.asarray(x, copy=True) is not x
    with pytest.raises(ValueError, match="copy=False"):
        pb.asarray([1.0], copy=False)
    assert pb.asarray([1.0], requires_grad=True).requires_grad
    assert pb.arange(np.int64(3)).tolist() == [0, 1, 2]


def test_the_default_generators_state():
    pb.manual_seed(4)
    state, first = pb.get_rng_state(), pb.rand(3).tolist()
    pb.set_rng_state(state)
    assert pb.rand(3).tolist() == first
    assert pb.seed() == pb.initial_seed()


@pytest.mark.parametrize("name", ["bartlett", "blackman", "hamming", "hann", "kaiser"])
@pytest.mark.parametrize("options", [{}, {"periodic": False}, {"dtype": "float64"}])
def test_windows(name, options):
    found, wanted = (
        getattr(lib, f"{name}_window")(7, **{k: getattr(lib, v) if k == "dtype" else v for k, v in options.items()})
        for lib in (pb, torch)
    )
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=1e-6)


def test_layers_in_the_namespace():
    """Those whose arguments are ordered otherwise than in nn.functional."""
    random = np.random.default_rng(0)
    x, w, b = random.normal(size=(2, 4, 5)), random.normal(size=4), random.normal(size=4)

    def results(lib):
        t, weight, bias = lib.tensor(x), lib.tensor(w), lib.tensor(b)
        zeros, ones = lib.zeros(4, dtype=lib.float64), lib.ones(4, dtype=lib.float64)
        return [
            lib.batch_norm(t, weight, bias, zeros, ones, True, 0.1, 1e-5, *([False] if lib is torch else [])),
            lib.group_norm(t, 2, weight, bias),
            lib.layer_norm(t, (5,), None, None, 1e-5),
            lib.embedding(t[0], lib.tensor([1, 3])),
            lib.dropout(t, 0.5, False),
            lib.alpha_dropout(t, 0.5, False),
            lib.conv1d(t, lib.ones(3, 4, 2, dtype=lib.float64), padding=1),
            lib.max_pool1d(t, 2),
            lib.exp_(t.clone()),
            zeros,
        ]

    for found, wanted in zip(results(pb), results(torch), strict=True):
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-6, atol=1e-9)
