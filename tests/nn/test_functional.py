"""The functions of networks against PyTorch: values, gradients and second derivatives, awkward inputs included."""

import math

import numpy as np
import pytest
import torch

import pullback as pb
from oracle import Value, compare
from pullback.errors import DTypeError, GradientError, IndexOutOfRange, ShapeError, TraceError

F = pb.nn.functional
RNG = np.random.default_rng(0)


def normal(*shape: int, dtype: str = "float64", scale: float = 1.0) -> Value:
    return Value(RNG.normal(size=shape) * scale, dtype)


def functional(library):
    return library.nn.functional


ACTIVATIONS = {
    "relu": lambda f, x: f.relu(x),
    "leaky_relu": lambda f, x: f.leaky_relu(x, 0.2),
    "sigmoid": lambda f, x: f.sigmoid(x),
    "tanh": lambda f, x: f.tanh(x),
    "silu": lambda f, x: f.silu(x),
    "gelu": lambda f, x: f.gelu(x),
    "gelu_tanh": lambda f, x: f.gelu(x, approximate="tanh"),
    "logsigmoid": lambda f, x: f.logsigmoid(x),
    "softplus": lambda f, x: f.softplus(x, beta=2.0),
    "softmax": lambda f, x: f.softmax(x, dim=-1),
    "softmax_first": lambda f, x: f.softmax(x, dim=0),
    "log_softmax": lambda f, x: f.log_softmax(x, dim=-1),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_activations(name: str, dtype: str) -> None:
    compare(
        lambda library, x: ACTIVATIONS[name](functional(library), x),
        normal(3, 7, dtype=dtype, scale=3.0),
        second=dtype == "float64",
        slack=4.0,
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_extreme_numbers(name: str) -> None:
    extremes = Value([[0.0, -0.0, 80.0, -80.0, 1e4, -1e4, 1e-8]], "float32")
    compare(lambda library, x: ACTIVATIONS[name](functional(library), x), extremes, slack=4.0)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "sigmoid", "tanh", "logsigmoid", "softmax", "log_softmax"])
@pytest.mark.parametrize("row", [[math.nan, 1.0, -2.0], [-math.inf, 1.0, 0.0], [-math.inf] * 3, [math.inf, 1.0, 0.0]])
def test_values_that_are_not_finite(name: str, row: list[float]) -> None:
    compare(lambda library, x: ACTIVATIONS[name](functional(library), x), Value([row]), gradients=False)


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (3, 0), (2, 0, 4)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "gelu", "relu"])
def test_shapes_without_much_in_them(name: str, shape: tuple[int, ...]) -> None:
    compare(lambda library, x: ACTIVATIONS[name](functional(library), x), normal(*shape))


def test_softmax_in_another_dtype() -> None:
    compare(lambda library, x: functional(library).softmax(x, -1, dtype=library.float64), normal(2, 5, dtype="float32"))


def test_softmax_takes_no_integers() -> None:
    with pytest.raises(DTypeError, match="softmax takes a floating point tensor, got int64"):
        F.softmax(pb.arange(3), 0)


def test_inplace_writes_into_the_input() -> None:
    x = pb.tensor([-1.0, 2.0])
    assert F.relu(x, inplace=True) is x
    assert x.tolist() == [0.0, 2.0]


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(lead: tuple[int, ...], bias: bool) -> None:
    compare(
        lambda library, x, w, b: functional(library).linear(x, w, b if bias else None),
        normal(*lead, 5),
        normal(3, 5),
        normal(3),
        second=True,
    )


def test_linear_names_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"input \[2, 4\].*weight \[3, 5\]"):
        F.linear(pb.zeros(2, 4), pb.zeros(3, 5))


@pytest.mark.parametrize("affine", ["both", "weight", "neither"])
@pytest.mark.parametrize("sizes", [(7,), (3, 7)])
def test_layer_norm(affine: str, sizes: tuple[int, ...]) -> None:
    compare(
        lambda library, x, w, b: functional(library).layer_norm(
            x, sizes, w if affine != "neither" else None, b if affine == "both" else None
        ),
        normal(2, 3, 7),
        normal(*sizes),
        normal(*sizes),
        second=True,
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layer_norm_in_lower_precision(dtype: str) -> None:
    compare(
        lambda library, x, w, b: functional(library).layer_norm(x, (9,), w, b),
        Value(RNG.normal(size=(4, 9)) + 5, dtype),
        normal(9, dtype=dtype),
        normal(9, dtype=dtype),
        slack=20.0,
    )


def test_layer_norm_of_a_constant_row() -> None:
    compare(lambda library, x: functional(library).layer_norm(x, (4,)), Value(np.full((2, 4), 3.0)))


def test_layer_norm_names_the_shapes() -> None:
    with pytest.raises(ShapeError, match=r"input \[2, 4\] must be normalized_shape \[5\]"):
        F.layer_norm(pb.zeros(2, 4), 5)


@pytest.mark.parametrize("padding", [None, 0, -1])
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_embedding(padding: int | None, dtype: str) -> None:
    compare(
        lambda library, i, w: functional(library).embedding(i, w, padding_idx=padding),
        Value([[1, 0, 4], [4, 4, 2]], dtype),
        normal(5, 3),
        second=True,
    )


def test_embedding_names_the_wrong_index() -> None:
    with pytest.raises(IndexOutOfRange, match=r"embedding: index 5 at position \[1\] is not in 0 to 4"):
        F.embedding(pb.tensor([1, 5]), pb.zeros(5, 2)).numpy()
    with pytest.raises(DTypeError, match="indices must be integers"):
        F.embedding(pb.zeros(2), pb.zeros(5, 2))


def test_one_hot() -> None:
    for classes in (-1, 6):
        ours, theirs = (
            F.one_hot(pb.tensor([[0, 3]]), classes),
            torch.nn.functional.one_hot(torch.tensor([[0, 3]]), classes),
        )
        assert ours.tolist() == theirs.tolist()
    with pytest.raises(IndexOutOfRange, match="one_hot: class 3"):
        F.one_hot(pb.tensor([3]), 3).numpy()


# ---- dropout


def test_dropout_keeps_the_mean_and_passes_the_mask_back() -> None:
    pb.manual_seed(1)
    x = pb.ones(10000, requires_grad=True)
    y = F.dropout(x, 0.3)
    y.sum().backward()
    values = y.detach().numpy()
    np.testing.assert_allclose(np.unique(values), [0, 1 / 0.7], rtol=1e-6)
    assert abs((values == 0).mean() - 0.3) < 0.02
    np.testing.assert_array_equal(x.grad.numpy(), values)


def test_dropout_draws_anew_and_repeats_with_the_seed() -> None:
    pb.manual_seed(5)
    first, second = (F.dropout(pb.ones(100)).tolist() for _ in range(2))
    pb.manual_seed(5)
    assert first != second
    assert F.dropout(pb.ones(100)).tolist() == first


def test_dropout_of_all_and_of_nothing() -> None:
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    assert F.dropout(x, 1.0).tolist() == [0.0, 0.0]
    assert F.dropout(x, 0.0) is x
    assert F.dropout(x, 0.5, training=False) is x
    with pytest.raises(ValueError, match=r"p must lie between 0 and 1, got 1\.5"):
        F.dropout(x, 1.5)


# ---- losses

REDUCTIONS = ["mean", "sum", "none"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss"])
def test_distances(name: str, reduction: str) -> None:
    compare(
        lambda library, x, y: getattr(functional(library), name)(x, y, reduction=reduction),
        normal(3, 4),
        normal(3, 4),
        second=True,
    )


def test_distances_of_other_shapes_warn() -> None:
    with pytest.warns(UserWarning, match=r"input \[3\] and target \[3, 1\]"):
        F.mse_loss(pb.zeros(3), pb.zeros(3, 1))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [True, False])
def test_binary_cross_entropy(reduction: str, weighted: bool) -> None:
    weight, positive = np.array([0.5, 1.0, 2.0]), np.array([3.0, 1.0, 0.2])

    def loss(library, x, y):
        of = {"weight": library.tensor(weight), "pos_weight": library.tensor(positive)} if weighted else {}
        return functional(library).binary_cross_entropy_with_logits(x, y, reduction=reduction, **of)

    compare(loss, normal(4, 3, scale=5.0), Value(RNG.uniform(size=(4, 3))), second=True)
    compare(loss, Value([[90.0, -90.0, 0.0], [20.0, -20.0, 0.0]]), Value([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(
    ("shape", "target"), [((5,), 3), ((4, 5), [0, 4, -100, 2]), ((2, 5, 3), [[0, 4, -100], [2, 2, 1]])]
)
def test_cross_entropy_of_classes(reduction: str, smoothing: float, weighted: bool, shape, target) -> None:
    weight = np.array([0.5, 1.0, 2.0, 0.3, 4.0])

    def loss(library, x, y):
        w = library.tensor(weight) if weighted else None
        return functional(library).cross_entropy(x, y, w, reduction=reduction, label_smoothing=smoothing)

    compare(loss, normal(*shape, scale=3.0), Value(target, "int64"), second=True)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [True, False])
def test_cross_entropy_of_probabilities(reduction: str, smoothing: float, weighted: bool) -> None:
    weight = np.array([0.5, 1.0, 2.0])

    def loss(library, x, y):
        w = library.tensor(weight) if weighted else None
        return functional(library).cross_entropy(x, y, w, reduction=reduction, label_smoothing=smoothing)

    compare(loss, normal(4, 3), Value(RNG.dirichlet(np.ones(3), 4)), second=True)


@pytest.mark.parametrize("ignored", [1, -1])
def test_cross_entropy_with_an_ignored_class(ignored: int) -> None:
    compare(
        lambda library, x, y: functional(library).cross_entropy(x, y, ignore_index=ignored),
        normal(4, 3),
        Value([0, ignored, 2, ignored], "int64"),
    )


def test_cross_entropy_of_awkward_logits() -> None:
    def loss(library, x, y):
        return functional(library).cross_entropy(x, y, reduction="none")

    compare(
        loss,
        Value([[1e4, -1e4, 0.0], [-math.inf, 1.0, 2.0], [0.0, -math.inf, 0.0]], "float32"),
        Value([1, 1, 1], "int64"),
    )
    compare(loss, Value([[math.nan, 1.0, 2.0]]), Value([1], "int64"), gradients=False)
    ignored = F.cross_entropy(pb.zeros(2, 3), pb.tensor([-100, -100]))
    assert math.isnan(ignored.item())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_cross_entropy_in_lower_precision(dtype: str) -> None:
    compare(
        lambda library, x, y: functional(library).cross_entropy(x, y),
        normal(6, 9, dtype=dtype),
        Value([0, 8, 1, 2, 3, 4], "int64"),
        slack=2.0,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [True, False])
def test_nll(reduction: str, weighted: bool) -> None:
    def loss(library, x, y):
        w = library.tensor(np.array([0.5, 1.0, 2.0])) if weighted else None
        return functional(library).nll_loss(functional(library).log_softmax(x, 1), y, w, reduction=reduction)

    compare(loss, normal(4, 3, 2), Value([[0, 1], [2, 2], [-100, 0], [1, 1]], "int64"), second=True)


def test_losses_name_what_is_wrong() -> None:
    logits = pb.zeros(2, 3)
    with pytest.raises(IndexOutOfRange, match=r"cross_entropy: target 3 at position \[1\] is not in 0 to 2, or -100"):
        F.cross_entropy(logits, pb.tensor([0, 3])).item()
    with pytest.raises(ShapeError, match=r"with 3 classes along axis 1, target must be \[2\], got \[3\]"):
        F.cross_entropy(logits, pb.tensor([0, 1, 2]))
    with pytest.raises(ShapeError, match=r"one entry a class, \[3\], got \[2\]"):
        F.cross_entropy(logits, pb.tensor([0, 1]), pb.ones(2))
    with pytest.raises(ValueError, match="reduction must be"):
        F.mse_loss(logits, logits, reduction="average")


def test_rules_keep_the_value_that_they_were_given() -> None:
    w = pb.tensor([1.0, 2.0], requires_grad=True)
    x = pb.tensor([[1.0, 3.0]], requires_grad=True)
    y = F.layer_norm(x, 2, w)
    with pb.no_grad():
        w.fill_(100.0)
    y[0, 0].backward()
    assert abs(w.grad[0].item() + 1) < 1e-3
    with pytest.raises(GradientError):
        y.sum().backward(), y.sum().backward()


def test_negative_variances_are_refused_at_the_call_or_once_they_are_computed():
    x, model = pb.ones(2), pb.ones(2, requires_grad=True)
    for var in (-1.0, -x, pb.tensor([1.0, -1.0])):
        with pytest.raises(ValueError, match="gaussian_nll_loss: var"):
            F.gaussian_nll_loss(x, x, var)
    loss = F.gaussian_nll_loss(x, x, model - 2)  # of a model's output: when the loss is computed
    with pytest.raises(ValueError, match="var has negative entries"):
        loss.item()
    step = pb.compile(lambda var: F.gaussian_nll_loss(x, x, var))
    assert step(x).item() == 0
    with pytest.raises(ValueError, match="var has negative entries"):
        step(-x).item()
    with pytest.raises(RuntimeError, match="binary_cross_entropy: input must lie in"):
        F.binary_cross_entropy(x * 2, x).item()


def test_targets_of_ctc_loss_one_after_the_other_take_lengths_known_to_a_compiled_step():
    log_probs, targets = pb.randn(5, 2, 4).log_softmax(-1), pb.tensor([1, 2, 3])
    wanted = pb.nn.functional.ctc_loss(log_probs, targets, (5, 4), (2, 1)).item()
    step = pb.compile(lambda x, t, lengths: pb.nn.functional.ctc_loss(x, t, (5, 4), lengths))
    assert step(log_probs, targets, (2, 1)).item() == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(TraceError, match=r"say where each target begins.*\[N, S\], or target_lengths as a tuple"):
        step(log_probs, targets, pb.tensor([2, 1]))
