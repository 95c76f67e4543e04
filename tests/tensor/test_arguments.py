"""Counts, sizes and offsets are whole numbers: 2.0 is refused where the user wrote it, as in PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("name", ["tensor_split", "hsplit", "vsplit", "dsplit"])
@pytest.mark.parametrize("named", [{"sections": 2}, {"indices": (1, 3)}], ids=str)
def test_cuts_can_be_named(name, named):
    def parts(lib):
        x = lib.arange(64).reshape(4, 4, 4)
        return [[p.tolist() for p in found] for found in (getattr(lib, name)(x, **named), getattr(x, name)(**named))]

    assert parts(pb) == parts(torch)
    for wrong in ({}, {"sections": 2, "indices": (1,)}):
        with pytest.raises(TypeError, match="sections, indices"):
            getattr(pb.ones(4, 4, 4), name)(**wrong)


def test_bounds_of_draws_have_pytorchs_names():
    x = pb.zeros(200, dtype=pb.float64)
    assert set(x.random_(**{"from": 3, "to": 5}).tolist()) == {3, 4} == set(x.random_(3, to=5).tolist())
    assert set(x.random_(to=2).tolist()) == {0, 1} == set(x.random_(2).tolist())
    for given in (((), {"from": 2, "to": 3}), ((2,), {"to": 3}), ((2, 3), {}), ((), {"from": 2.5, "to": 3})):
        assert 2 <= x.uniform_(*given[0], **given[1]).min().item() < x.max().item() < 3
    for args, named, said in (((1,), {"from": 2}, "twice"), ((), {"low": 2}, "'low'"), ((1, 2, 3), {}, "at most two")):
        for method in (x.random_, x.uniform_):
            with pytest.raises(TypeError, match=said):
                method(*args, **named)


def test_memory_formats_that_change_nothing_are_taken_and_others_refused():
    x = pb.ones(1, 2, 3, 4)
    for form in (pb.contiguous_format, pb.preserve_format):
        made = (x.clone(memory_format=form), x.to(pb.float64, memory_format=form), pb.rand_like(x, memory_format=form))
        assert all(y.shape == x.shape for y in (*made, pb.zeros_like(x, memory_format=form)))
    assert x.is_contiguous(memory_format=pb.contiguous_format) and pb.empty(2, memory_format=pb.contiguous_format).ndim
    turned = pb.ones(1, 3, 4, 2).permute(0, 3, 1, 2)
    wanted = torch.ones(1, 3, 4, 2).permute(0, 3, 1, 2)
    for form in ("contiguous_format", "channels_last", "channels_last_3d"):
        told = [t.is_contiguous(memory_format=getattr(pb, form)) for t in (x, turned)]
        asked = [torch.ones(1, 2, 3, 4), wanted]
        if form != "channels_last_3d":  # which PyTorch raises for
            assert told == [t.is_contiguous(memory_format=getattr(torch, form)) for t in asked]
    for refused in (x.to, x.contiguous, pb.nn.Linear(1, 1).to, x.clone):
        with pytest.raises(ValueError, match=r"channels_last is not there.*Leave it out"):
            refused(memory_format=pb.channels_last)
    with pytest.raises(ValueError, match="contiguous_format"):
        x.contiguous(memory_format=pb.preserve_format)


@pytest.mark.parametrize(
    ("run", "mend"),
    [
        (lambda m: 1 - m, "~mask"),
        (lambda m: 1.0 - m, "~mask"),
        (lambda m: m - pb.ones(1), "~mask"),
        (lambda m: pb.ones(1) - m, "~mask"),
        (lambda m: pb.ones(1) - True, "~mask"),
        (lambda m: np.ones(1, np.bool_) - pb.ones(1), "~mask"),
        (lambda m: -m, "~mask"),
        (lambda m: pb.neg(m), "~mask"),
        (lambda m: pb.rsub(m, 1), "~mask"),
        (lambda m: m - m, r"mask \^ other"),
        (lambda m: m.sub(True), r"mask \^ other"),
    ],
)
def test_masks_are_not_subtracted(run, mend):
    with pytest.raises(pb.errors.DTypeError, match=mend) as raised:
        run(pb.tensor([True]))
    assert isinstance(raised.value, RuntimeError)


#: calls with a switch that is `v`; PyTorch's C++ takes True and False alone, its Python whatever can be looked at
SWITCHES = """
x.var(unbiased=v)
x.std(unbiased=v)
x.var(0, unbiased=v)
var_mean(x, unbiased=v)
x.sum(0, keepdim=v)
max(x, 0, v)
aminmax(x, dim=0, keepdim=v)
x.nonzero(as_tuple=v)
unique(x, sorted=v)
topk(x, 1, 0, v)
allclose(x, x, equal_nan=v)
sort(x, stable=v)
argsort(x, descending=v)
x.to(float64, copy=v)
isin(x, x, invert=v)
bucketize(x, x[0], right=v)
linalg.vector_norm(x, keepdim=v)
svd(x, some=v)
zeros(2, requires_grad=v)
tensor(1.0, requires_grad=v)
hann_window(4, periodic=v)
vander(x[0], increasing=v)
randn(2, requires_grad=v)
x.clone().requires_grad_(v)
nn.Parameter(x, v)
nn.Linear(1, 1).requires_grad_(v)
nn.Linear(1, 1).train(v)
setattr(x.clone(), 'requires_grad', v)
set_grad_enabled(v)
nn.ReLU(inplace=v)(x)
nn.functional.relu(x, inplace=v)
nn.functional.dropout(x, 0.5, v)
nn.functional.max_pool1d(x, 2, ceil_mode=v)
nn.functional.kl_div(x, x, log_target=v)
nn.functional.poisson_nll_loss(x, x, full=v)
nn.Linear(1, 1, bias=v)
nn.functional.gaussian_nll_loss(x, x, x + 1, full=v)
nn.functional.interpolate(x[None], scale_factor=2, mode='linear', align_corners=v)
nn.functional.embedding(tensor([0]), x, scale_grad_by_freq=v)
nn.functional.scaled_dot_product_attention(x, x, x, is_causal=v)
nn.functional.pairwise_distance(x, x, keepdim=v)
nn.GRU(2, 2, batch_first=v)(zeros(1, 1, 2))
nn.GRU(2, 2, bidirectional=v)(zeros(1, 1, 2))
nn.utils.rnn.pad_sequence([x[0]], batch_first=v)
autograd.grad((y * y).sum(), y, create_graph=v)
autograd.grad((y * y).sum(), y, materialize_grads=v)
""".strip().splitlines()


@pytest.mark.parametrize("call", SWITCHES)
@pytest.mark.filterwarnings("ignore")
def test_switches_are_true_or_false_where_pytorch_asks_for_it(call):
    def refusal(lib, value):
        space = {**vars(lib), "x": lib.ones(2, 4) / 2, "y": lib.ones(2, requires_grad=True), "v": value}
        before = lib.is_grad_enabled()
        try:
            eval(call, space)
        except (TypeError, ValueError, RuntimeError) as error:
            return next(kind for kind in (TypeError, ValueError, RuntimeError) if isinstance(error, kind))
        finally:
            lib.set_grad_enabled(before)
        return None

    for value in (True, 1, 0, "x", np.True_):
        assert refusal(pb, value) == refusal(torch, value), value
    if "unbiased" in call or "keepdim" in call:
        assert refusal(pb, None) is refusal(torch, None) is TypeError


@pytest.mark.parametrize("name", ["zeros", "ones", "empty", "rand", "randn", "full", "randint", "randperm"])
def test_what_is_made_has_a_size(name):
    for lib in (pb, torch):
        with pytest.raises(TypeError):
            getattr(lib, name)()
    if name in ("zeros", "randn"):
        for given in ({"size": ()}, {"size": (2,)}):
            assert getattr(pb, name)(**given).shape == getattr(torch, name)(**given).shape
        assert getattr(pb, name)(()).shape == getattr(pb, name)([]).shape == ()


@pytest.mark.parametrize(
    "call",
    [
        *(
            "x.pow(v)",
            "x.eq(v)",
            "not_equal(x, v)",
            "x ** v",
            "x.add(v)",
            "x.clamp(v)",
            "x.lerp(x, v)",
            "x.std(correction=v)",
        ),
        "nn.functional.batch_norm(x, None, None, training=True, momentum=v)",
        "nn.functional.instance_norm(x[None], momentum=v)",
        "nn.functional.poisson_nll_loss(x, x, eps=v)",
        "nn.functional.leaky_relu(x, v)",
    ],
)
def test_text_is_no_number(call):
    for lib in (pb, torch):
        for value in ("a", "0.5"):
            with pytest.raises(TypeError):
                eval(call, {**vars(lib), "x": lib.ones(2, 4), "v": value})
    for lib in (pb, torch):
        assert (lib.ones(2) == "a") is False and (lib.ones(2) != "a") is True
