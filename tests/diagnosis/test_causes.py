"""How a NaN or an infinity came about, in words, for every kind of operation that makes one of sound operands."""

import math
from collections.abc import Callable
from typing import Any

import pytest

import pullback as pb
from pullback import debug

F, inf, nan = pb.nn.functional, math.inf, math.nan


def of(*values: float) -> pb.Tensor:
    return pb.tensor(values).requires_grad_()


def large(*shape: int, value: float = 1e30) -> pb.Tensor:
    return pb.full(shape, value).requires_grad_()


BOTH_SIGNS = pb.tensor([[1e30], [-1e30]])
OVERFLOW = "overflow of float32, whose largest number is 3.40e38"
PRODUCTS = f"{OVERFLOW}, in sums of products of operands up to 1e+30 and 1e+30"
RUNNING = f"{OVERFLOW}, in running sums or products of numbers up to"
SINGULAR = "logarithm of the determinant of a singular matrix, which is 0"
COUNTED = "division by zero: 0/0, the mean over no label: all are ignored, or have a weight of 0"

CAUSES: dict[str, tuple[Callable[[], Any], str]] = {
    "product of matrices": (lambda: large(2, 2) @ large(2, 2), PRODUCTS),
    "product of matrices, of both signs": (lambda: large(1, 2) @ BOTH_SIGNS, PRODUCTS),
    "product with an infinity": (lambda: of(0.0, 1.0) @ pb.tensor([inf, 1.0]), "inf - inf or 0 · inf in a sum"),
    "convolution, of both signs": (lambda: F.conv1d(large(1, 1, 2), BOTH_SIGNS.reshape(1, 1, 2)), PRODUCTS),
    "product in half precision": (
        lambda: large(2, 2, value=300.0).half() @ large(2, 2, value=300.0).half(),
        "overflow of float16, whose largest number is 65504, in sums of products of operands up to 300 and 300",
    ),
    "sum in half precision": (
        lambda: large(100, value=1000.0).half().sum(),
        "overflow of float16, whose largest number is 65504, in sums of numbers up to 1e+03",
    ),
    "running sum": (lambda: large(4, value=1e38).cumsum(0), f"{RUNNING} 1e+38"),
    "running product": (lambda: large(4).cumprod(0), f"{RUNNING} 1e+30"),
    "scatter": (
        lambda: pb.zeros(1).index_add(0, pb.tensor([0, 0]), large(2, value=3e38)),
        f"{OVERFLOW}, in sums of numbers up to 3e+38",
    ),
    "layer norm": (lambda: F.layer_norm(of(1e20, -1e20), (2,)), OVERFLOW),
    "group norm": (lambda: F.group_norm(of(1e20, -1e20)[None], 1), OVERFLOW),
    "instance norm": (lambda: F.instance_norm(of(1e20, -1e20)[None, None]), OVERFLOW),
    "batch norm": (lambda: F.batch_norm(of(1e20, -1e20)[:, None], None, None, training=True), OVERFLOW),
    "rms norm": (lambda: F.rms_norm(of(1e20, -1e20), 2), OVERFLOW),
    "sum of infinities": (lambda: (of(1.0, 2.0) + pb.tensor([inf, -inf])).sum(), "inf - inf or 0 · inf in a sum"),
    "addition": (lambda: large(1, value=3e38) + large(1, value=3e38), OVERFLOW),
    "difference of infinities": (lambda: of(1.0) + inf - inf, "inf - inf"),
    "zero times infinity": (lambda: of(0.0) * inf, "0 · inf"),
    "infinity by infinity": (lambda: (of(1.0) + inf) / inf, "inf / inf"),
    "a small divisor": (lambda: large(1) / 1e-30, OVERFLOW),
    "exp": (lambda: of(1000.0).exp(), "exp of 1000 overflows float32"),
    "square root": (lambda: of(-1.0).sqrt(), "square root of a negative number"),
    "power": (lambda: of(-1.0) ** 1.5, "power of a negative number with an exponent that is not whole"),
    "negative power": (lambda: of(0.0) ** -1.0, "division by zero: a negative power of zero"),
    "sine": (lambda: (of(1.0) + inf).sin(), "sin of an infinity"),
    "remainder": (lambda: pb.remainder(of(1.0), 0.0), "remainder by zero"),
    "pole": (lambda: of(-2.0).lgamma(), "lgamma of -2, where it is infinite"),
    "softmax": (lambda: (of(1.0, 2.0) - inf).softmax(0), "softmax over nothing but -inf, which is inf - inf"),
    "log_softmax of inf": (lambda: (of(1.0, 2.0) + inf).log_softmax(0), "softmax of inf, which is inf - inf"),
    "logsumexp": (lambda: (of(1.0, 2.0) - inf).logsumexp(0), "logsumexp over nothing but -inf, which is -inf"),
    "variance of one": (lambda: of(1.0).var(), "division by zero: 0/0, the variance of a single element"),
    "mean of nothing": (lambda: of(1.0)[:0].mean(), "division by zero: 0/0, the mean of nothing"),
    "count of nothing": (
        lambda: of(0.0).sum() / (of(1.0).detach() > 2).float().sum(),
        "division by zero: 0/0, by a sum of nothing but zeros",
    ),
    "labels that are ignored": (lambda: F.cross_entropy(of(1.0, 2.0)[None], pb.tensor([-100])), COUNTED),
    "labels without weight": (
        lambda: F.cross_entropy(of(1.0, 2.0)[None], pb.tensor([0]), weight=pb.tensor([0.0, 1.0])),
        COUNTED,
    ),
    "floor of a quotient": (lambda: of(1.0) // 0.0, "division by zero"),
    "floor of no quotient": (lambda: of(0.0) // 0.0, "division by zero: 0/0"),
    "attention to nothing": (
        lambda: pb.nn.MultiheadAttention(2, 1)(*[large(1, 2, value=1.0)] * 3, key_padding_mask=pb.tensor([True]))[0],
        "softmax over nothing but -inf, which is inf - inf",
    ),
    "determinant": (
        lambda: pb.logdet(pb.tensor([[0.0, 1.0], [1.0, 0.0]], requires_grad=True)),
        "logarithm of a negative determinant",
    ),
    "logarithm of no determinant": (lambda: pb.linalg.slogdet(large(2, 2, value=1.0))[1], SINGULAR),
    "logdet of a singular matrix": (lambda: pb.logdet(large(2, 2, value=1.0)), SINGULAR),
    "exponential of a matrix": (lambda: pb.linalg.matrix_exp(large(2, 2, value=1e3)), OVERFLOW),
    "a weight": (
        lambda: F.embedding(pb.tensor([1]), of(1.0, nan)[:, None]),
        "a tensor from outside is NaN already, before the step",
    ),
}


@pytest.mark.parametrize("name", CAUSES)
def test_it_is_told_how_it_came_about(name: str) -> None:
    make, how = CAUSES[name]
    reference, anomalies = debug.override(backend="reference"), pb.autograd.detect_anomaly()
    with reference, pytest.raises(pb.errors.NonFiniteError) as caught, anomalies:
        make().sum().item()
    assert caught.value.how == how
    assert caught.value.phase == "forward"


MASKED = "the log-probability of a target is -inf: what masks classes out masks a target out too"
UNALIGNED = "no alignment of the targets has a probability above 0: there are too few steps for them, or a mask"
LOSSES: dict[str, tuple[Callable[[pb.Tensor, pb.Tensor], Any], str]] = {
    "cross_entropy": (lambda x, mask: F.cross_entropy(x + mask, pb.tensor([1, 2])), MASKED),
    "nll_loss": (lambda x, _: F.nll_loss(x.masked_fill(x == x, -inf)[:1] + x, pb.tensor([1, 2])), MASKED),
    "kl_div": (lambda x, mask: F.kl_div(x + mask, pb.full((2, 3), 0.5), reduction="sum"), MASKED),
    "ctc_loss": (
        lambda x, mask: F.ctc_loss(
            (x + mask)[:, None], pb.tensor([[2, 2]]), pb.tensor([2]), pb.tensor([2]), reduction="sum"
        ),
        UNALIGNED,
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_mask_that_leaves_out_a_target_is_named_at_the_loss(name: str) -> None:
    make, how = LOSSES[name]
    x, mask = pb.zeros(2, 3, requires_grad=True), pb.tensor([0.0, 0.0, -inf])

    @pb.compile
    def step(mask: pb.Tensor) -> None:
        make(x, mask).backward()

    with debug.override(backend="reference"), pytest.raises(pb.errors.NonFiniteError) as caught:
        step(mask)
    assert (caught.value.op, caught.value.phase) == (name, "forward") and caught.value.how.startswith(how)
    assert caught.value.operands


HIDDEN: dict[str, tuple[Callable[[pb.Tensor], pb.Tensor], str, Callable[[pb.Tensor], pb.Tensor]]] = {
    "log, logsumexp": (lambda x: (x.relu() * 0).log(), "log", lambda y: pb.logsumexp(y, -1).sum()),
    "overflow, logsumexp": (lambda x: -(x.exp() * 3e38) * 10, "mul", lambda y: pb.logsumexp(y, -1).sum()),
    "log, ctc_loss": (
        lambda x: (x * 0).log(),
        "log",
        lambda y: F.ctc_loss(y[:, None], pb.tensor([[1, 2]]), pb.tensor([2]), pb.tensor([2])),
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_an_infinity_that_a_function_hides_in_a_sum_is_named_where_it_was_made(name: str) -> None:
    make, op, loss_of = HIDDEN[name]
    x = pb.zeros(2, 3, requires_grad=True)

    @pb.compile
    def step() -> None:
        loss_of(make(x)).backward()

    with debug.override(backend="reference"), pytest.raises(pb.errors.NonFiniteError) as caught:
        step()
    assert (caught.value.op, caught.value.phase) == (op, "forward"), str(caught.value)
    assert caught.value.lineno == make.__code__.co_firstlineno


def test_an_infinity_in_the_data_is_named() -> None:
    w = pb.ones(2, 2, requires_grad=True)

    @pb.compile
    def step(x: pb.Tensor) -> None:
        (x @ w).sum().backward()

    with pytest.raises(pb.errors.NonFiniteError, match="argument 1 holds an infinity already"):
        step(pb.tensor([[1.0, inf]]))


@pytest.mark.parametrize("number", [inf, nan])
def test_an_argument_that_is_one_number_is_data_too(number: float) -> None:
    w = pb.ones(2, requires_grad=True)

    @pb.compile
    def step(x: pb.Tensor, scale: pb.Tensor) -> None:
        (x * w * scale).sum().backward()

    with pytest.raises(pb.errors.NonFiniteError, match=r"argument 2 (holds an infinity|is NaN in the data) already"):
        step(pb.ones(2), pb.tensor(number))


@pytest.mark.parametrize("row", [[inf, inf, inf], [inf, 0.0, 0.0]], ids=["forward", "backward"])
def test_where_the_infinity_that_made_a_nan_came_from_is_told(row: list[float]) -> None:
    rnn = pb.nn.LSTM(3, 4, batch_first=True)

    @pb.compile
    def step(other: pb.Tensor, x: pb.Tensor) -> None:
        (rnn(x)[0] * other).square().sum().backward()

    x = pb.ones(2, 5, 3)
    x[1, 2] = pb.tensor(row)
    with debug.override(backend="reference"), pytest.raises(pb.errors.NonFiniteError) as caught:
        step(pb.ones(4), x)
    assert ": inf - inf or 0 · inf in a sum; argument 2 holds an infinity already.\n" in str(caught.value)
    assert caught.value.op == "linear" and caught.value.operands[0].name == "argument 2"


def test_a_weight_that_is_nan_already_is_named_outside_of_compiled_steps_too() -> None:
    net = pb.nn.Sequential(pb.nn.Linear(2, 2), pb.nn.Linear(2, 2))
    with pb.no_grad():
        net[1].weight[0, 1] = nan
    assert math.isnan(net[1].weight.tolist()[0][1])  # computed: of who wrote it nothing is known any more
    with pytest.raises(pb.errors.NonFiniteError) as caught, pb.autograd.detect_anomaly():
        net(pb.ones(1, 2)).sum().backward()
    assert caught.value.how == "1.weight is NaN already, before the step" and caught.value.module == "1"


SMOOTH: dict[str, Callable[[pb.Tensor], Any]] = {
    "norm": lambda x: x.norm(),
    "norm of 1.5": lambda x: pb.linalg.vector_norm(x, 1.5),
    "distance": lambda x: pb.cdist(x[None], pb.zeros(1, 2)),
    "deviation of equal numbers": lambda x: x.std(),
    "angle": lambda x: pb.atan2(x, x.detach()),
    "attention that sees nothing": lambda x: F.scaled_dot_product_attention(
        x.reshape(1, 2, 1), x.reshape(1, 2, 1), x.reshape(1, 2, 1), attn_mask=pb.zeros(2, 2, dtype=pb.bool)
    ),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_what_has_no_slope_at_zero_has_a_gradient_all_the_same(name: str) -> None:
    x = pb.zeros(2, requires_grad=True)
    with debug.override(backend="reference"), pb.autograd.detect_anomaly():
        SMOOTH[name](x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
