"""accumulate: the gradient and the loss of a whole batch from its parts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback import nn
from pullback.errors import GradientError, MemoryBudgetError, ShapeError

F = nn.functional
EXAMPLES, CLASSES = 7, 4
#: the first part of two, and the second of three, has no valid target at all
TARGET = np.array([-100, -100, -100, -100, 2, 1, 3])


@pytest.fixture(autouse=True)
def doubles() -> Any:
    pb.manual_seed(0)
    pb.set_default_dtype(pb.float64)
    yield
    pb.set_default_dtype(pb.float32)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, CLASSES))


def gradients_of(run: Callable[[], Any], model: nn.Module) -> tuple[float, list[np.ndarray]]:
    for parameter in model.parameters():
        parameter.grad = None
    loss = run()
    return loss.item(), [p.grad.numpy().copy() for p in model.parameters() if p.grad is not None]


def check(loss_fn: Callable[[Any], Any], model: nn.Module, batch: Any, parts: int, dim: int = 0) -> None:
    """Compare with the undivided batch, undecorated and compiled."""

    def undivided() -> Any:
        loss = loss_fn(batch)
        loss.backward()
        return loss

    def divided() -> Any:
        return pb.accumulate(loss_fn, batch, parts=parts, dim=dim)

    loss, expected = gradients_of(undivided, model)
    for run in (divided, pb.compile(divided)):
        found, gradients = gradients_of(run, model)
        assert found == pytest.approx(loss, rel=1e-12, abs=1e-13)
        assert len(gradients) == len(expected)
        for gradient, wanted in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(gradient, wanted, rtol=1e-12, atol=1e-13)


def batch_of(kind: str) -> pb.Tensor:
    y = pb.randn(EXAMPLES, CLASSES)
    if kind == "classes":
        return pb.tensor(TARGET)
    return {"numbers": y, "probabilities": y.softmax(1), "units": y.sigmoid(), "signs": y.sign()}[kind]


WEIGHT = np.array([0.5, 2.0, 1.0, 0.25])
LOSSES: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "cross_entropy": ("classes", F.cross_entropy),
    "cross_entropy weighted": ("classes", lambda x, t: F.cross_entropy(x, t, weight=pb.tensor(WEIGHT))),
    "cross_entropy smoothed": ("classes", lambda x, t: F.cross_entropy(x, t, label_smoothing=0.1)),
    "cross_entropy weighted, smoothed": (
        "classes",
        lambda x, t: F.cross_entropy(x, t, weight=pb.tensor(WEIGHT), label_smoothing=0.1),
    ),
    "cross_entropy sum": ("classes", lambda x, t: F.cross_entropy(x, t, reduction="sum")),
    "cross_entropy of probabilities": ("probabilities", F.cross_entropy),
    "nll_loss": ("classes", lambda x, t: F.nll_loss(x.log_softmax(1), t, weight=pb.tensor(WEIGHT))),
    "mse_loss": ("numbers", F.mse_loss),
    "l1_loss": ("numbers", F.l1_loss),
    "smooth_l1_loss": ("numbers", F.smooth_l1_loss),
    "huber_loss": ("numbers", F.huber_loss),
    "mse_loss weighted": ("units", lambda x, y: F.mse_loss(x, y, weight=y)),
    "kl_div": ("probabilities", lambda x, y: F.kl_div(x.log_softmax(1), y, reduction="batchmean")),
    "binary_cross_entropy": ("units", lambda x, y: F.binary_cross_entropy(x.sigmoid(), y)),
    "with logits": ("units", lambda x, y: F.binary_cross_entropy_with_logits(x, y, pos_weight=pb.tensor(WEIGHT))),
    "poisson": ("units", F.poisson_nll_loss),
    "gaussian": ("numbers", lambda x, y: F.gaussian_nll_loss(x, y, y.exp())),
    "soft_margin": ("signs", F.soft_margin_loss),
    "multi_margin": ("classes", lambda x, t: F.multi_margin_loss(x, t.clamp(min=0))),
    "cosine": ("numbers", lambda x, y: F.cosine_embedding_loss(x, y, pb.ones(x.shape[0]))),
    "triplet": ("numbers", lambda x, y: F.triplet_margin_loss(x, y, y * 2)),
    "masked": ("signs", lambda x, y: ((x - y) ** 2 * (y > 0)).sum() / (y > 0).sum().clamp(min=1)),
    "guarded": ("signs", lambda x, y: pb.where((y > 0).any(), (x * (y > 0)).sum() / (y > 0).sum(), 0.0)),
    "divided by the rows": ("numbers", lambda x, y: ((x - y) ** 2 / x.shape[0]).sum()),
    "a number for each row added": ("numbers", lambda x, y: 0.5 * ((x - y) ** 2).sum() + 0.9189385 * len(x)),
    "taken from a number for each row": ("numbers", lambda x, y: 3 * len(x) - (x * y).sum() / len(x)),
    "gather": ("classes", lambda x, t: -x.log_softmax(1).gather(1, t.clamp(min=0)[:, None]).mean()),
    "numbers of rows": ("classes", lambda x, t: -x.log_softmax(1)[pb.arange(x.shape[0]), t.clamp(min=0)].mean()),
    "histogram": ("classes", lambda x, t: (pb.zeros(4, 4).index_add(0, t.clamp(min=0), x) * pb.arange(4.0)).sum()),
}


@pytest.mark.parametrize("parts", [2, 3, EXAMPLES])
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_the_undivided_batch(name: str, parts: int) -> None:
    kind, loss = LOSSES[name]
    model = network()
    check(lambda b: loss(model(b[0]), b[1]), model, (pb.randn(EXAMPLES, 5), batch_of(kind)), parts)


@pytest.mark.parametrize("parts", [2, 3])
def test_terms_are_divided_each_by_its_own_count(parts: int) -> None:
    model = network()
    scale = pb.nn.Parameter(pb.tensor(0.3))
    model.register_parameter("scale", scale)

    def loss_fn(batch: Any) -> Any:
        out = model[:4](batch["x"][0])
        decay = 0.01 * sum((p * p).sum() for p in model.parameters())
        return F.cross_entropy(out, batch["t"]) + (-scale).exp() * F.mse_loss(out, batch["y"]) + scale + decay

    batch = {"x": [pb.randn(EXAMPLES, 5), None], "t": batch_of("classes"), "y": batch_of("numbers")}
    check(loss_fn, model, batch, parts)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_output_layer_in_blocks(weighted: bool) -> None:
    model = nn.Linear(5, CLASSES)
    options = {"weight": pb.tensor(WEIGHT)} if weighted else {}

    def loss_fn(batch: Any) -> Any:
        return F.linear_cross_entropy(batch[0], model.weight, batch[1], linear_bias=model.bias, chunk_size=2, **options)

    check(loss_fn, model, (pb.randn(EXAMPLES, 5), batch_of("classes")), 2)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "lstm": (lambda: nn.LSTM(5, 6, batch_first=True), (6, 4, 5), 0),
    "lstm of two layers, steps first": (lambda: nn.LSTM(5, 6, num_layers=2), (4, 6, 5), 1),
    "gru": (lambda: nn.GRU(5, 6, batch_first=True), (6, 4, 5), 0),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), (6, 3, 8), 0),
    "transformer, steps first": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), (3, 6, 8), 1),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, stride=2)
        ),
        (6, 3, 8, 8),
        0,
    ),
    "batch norm that is not training": (lambda: nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 2)).eval(), (6, 5), 0),
    "instance norm": (lambda: nn.InstanceNorm2d(3, affine=True), (6, 3, 4, 4), 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_keep_examples_apart(name: str) -> None:
    build, shape, dim = NETWORKS[name]
    model = build()

    def loss_fn(x: Any) -> Any:
        out = model(x)
        return ((out[0] if isinstance(out, tuple) else out) ** 3).mean()

    check(loss_fn, model, pb.randn(*shape), 3, dim)


def test_statistics_of_the_data_are_those_of_the_whole_batch() -> None:
    model = network()
    check(lambda b: F.mse_loss(model((b - b.mean(0)) / b.std(0)), b[:, :4]), model, pb.randn(EXAMPLES, 5), 3)


def test_what_was_drawn_before_is_the_same_for_each_part() -> None:
    model, x, target = network(), pb.randn(EXAMPLES, 5), pb.randint(0, CLASSES, (EXAMPLES,))
    model(x).sum().backward()  # so that the parameters have been read
    weights = pb.rand(CLASSES) * 2  # and these have not

    def loss_fn(batch: Any) -> Any:
        return F.cross_entropy(model(batch[0]), batch[1], weight=weights)

    found, gradients = gradients_of(lambda: pb.accumulate(loss_fn, (x, target), parts=3), model)
    batch = (x, target)
    loss, expected = gradients_of(lambda: (total := loss_fn(batch), total.backward())[0], model)
    assert found == pytest.approx(loss, rel=1e-12)
    for gradient, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-12, atol=1e-13)
    with pytest.raises(GradientError, match="cannot be had from its parts"):  # other weights for each part
        pb.accumulate(lambda b: F.cross_entropy(model(b[0]), b[1], weight=pb.rand(CLASSES)), batch, parts=3)


class Mixing(pb.autograd.Function):
    """A gradient rule that looks at all examples."""

    @staticmethod
    def forward(context: Any, x: pb.Tensor) -> pb.Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, cotangent: pb.Tensor) -> pb.Tensor:
        return cotangent - cotangent.mean(0)


class Reversing(Mixing):
    """A gradient rule that does not."""

    @staticmethod
    def backward(context: Any, cotangent: pb.Tensor) -> pb.Tensor:
        return -0.5 * cotangent


def test_gradient_rules_of_ones_own() -> None:
    model = network()
    x = pb.randn(EXAMPLES, 5)
    check(lambda b: Reversing.apply(model(b)).pow(2).mean(), model, x, 3)
    with pytest.raises(GradientError, match="apply"):
        pb.accumulate(lambda b: Mixing.apply(model(b)).pow(2).mean(), x, parts=3)


def rows(x: pb.Tensor) -> pb.Tensor:
    return pb.arange(x.shape[0])


REFUSED: dict[str, Callable[[Any, Any], Any]] = {
    "a function of a mean": lambda m, x: m(x).pow(2).mean().log(),
    "contrast": lambda m, x: F.cross_entropy(m(x) @ m(x).T, rows(x)),
    "an extreme": lambda m, x: m(x).max(),
    "a deviation": lambda m, x: m(x).std(),
    "neighbours": lambda m, x: (m(x)[1:] - m(x)[:-1]).pow(2).sum(),
    "rows of other examples": lambda m, x: m(x)[rows(x[1:]) + 1].pow(2).sum(),
    "an order": lambda m, x: (m(x) * m(x).flip(0)).sum(),
    "sums so far": lambda m, x: m(x).cumsum(0).sum(),
    "the number of the example": lambda m, x: (m(x).sum(1) * rows(x)).sum(),
    "axes that are mixed": lambda m, x: m(x).reshape(4, -1).softmax(0)[0].sum(),
    "a count that is trained": lambda m, x: (m(x) * m(x).detach().exp()).sum() / m(x).detach().exp().sum(),
    "a squared sum": lambda m, x: m(x).sum() ** 2,
    "a value an example": lambda m, x: m(x).sum(1)[:1],
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_loss_that_does_not_divide_is_refused(name: str) -> None:
    model = network()
    with pytest.raises(GradientError, match=r"weight="):
        pb.accumulate(lambda b: REFUSED[name](model, b), pb.randn(EXAMPLES, 5), parts=2)
    assert all(p.grad is None for p in model.parameters())


def test_batch_normalization_in_training_mode_is_refused_and_left_as_it_was() -> None:
    first = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 4))  # divides, but its averages do not
    later = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
    for model, norm in ((first, first[0]), (later, later[1])):
        with pytest.raises(GradientError, match="batch_norm"):
            pb.accumulate(lambda b, model=model: F.mse_loss(model(b), b[:, :4]), pb.randn(EXAMPLES, 5), parts=2)
        assert norm.num_batches_tracked.item() == 0
        np.testing.assert_array_equal(norm.running_mean.numpy(), np.zeros(5))


def test_weights_of_the_user() -> None:
    model = network()
    x, t = pb.randn(EXAMPLES, 5), batch_of("classes")

    def loss_fn(batch: Any) -> Any:
        return F.cross_entropy(model(batch[0]), batch[1].clamp(min=0))

    expected = gradients_of(lambda: pb.accumulate(loss_fn, (x, t), parts=3), model)
    found = gradients_of(lambda: pb.accumulate(loss_fn, (x, t), parts=3, weight=lambda b: b[0].shape[0]), model)
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


WEIGHTS: dict[str, Callable[[Any], Any]] = {
    "a tensor": lambda b: (b[1] >= 0).sum(),
    "a tensor of shape [1], halves": lambda b: 0.5 * (b[1] >= 0).sum(0, keepdim=True),
    "an array": lambda b: np.asarray((TARGET_OF[b[0].shape[0]] >= 0).sum()),
}
#: what a part of three has of TARGET, by the number of its examples (2, 2 and 3): the first two count nothing
TARGET_OF = {2: TARGET[:2], 3: TARGET[4:]}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_part_of_weight_zero_counts_nothing(name: str) -> None:
    model = network()
    batch = pb.randn(EXAMPLES, 5), batch_of("classes")

    def loss_fn(part: Any) -> Any:
        return F.cross_entropy(model(part[0]), part[1])

    def weighted() -> Any:
        return pb.accumulate(loss_fn, batch, parts=3, weight=WEIGHTS[name])

    expected = gradients_of(lambda: pb.accumulate(loss_fn, batch, parts=1), model)
    for run in (weighted, pb.compile(weighted)):
        loss, gradients = gradients_of(run, model)
        assert loss == pytest.approx(expected[0], rel=1e-12)
        for gradient, wanted in zip(gradients, expected[1], strict=True):
            np.testing.assert_allclose(gradient, wanted, rtol=1e-12, atol=1e-13)


def test_weights_that_are_all_zero_give_what_the_mean_over_nothing_does() -> None:
    model = network()
    for nothing in (0, pb.tensor(False)):
        assert np.isnan(
            pb.accumulate(lambda b: model(b).mean(), pb.ones(4, 5), 2, weight=lambda _, n=nothing: n).item()
        )


def test_gradients_are_added() -> None:
    model = nn.Linear(5, CLASSES)
    x = pb.randn(EXAMPLES, 5)
    pb.accumulate(lambda b: model(b).mean(), x, parts=2)
    once = model.weight.grad.numpy().copy()
    pb.accumulate(lambda b: model(b).mean(), x, parts=3)
    np.testing.assert_allclose(model.weight.grad.numpy(), 2 * once, rtol=1e-12)


def test_a_generator_is_drawn_from_once_a_part() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5))
    generator = pb.default_generator()
    pb.accumulate(lambda b: model(b).mean(), pb.randn(EXAMPLES, 5), parts=3)
    before = generator.get_state().numpy()[1]
    pb.accumulate(lambda b: model(b).mean(), pb.ones(EXAMPLES, 5), parts=3)
    assert generator.get_state().numpy()[1] == before + 3


def test_a_trajectory_is_pytorchs_of_undivided_batches() -> None:
    ours = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    theirs = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, CLASSES)).double()
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    optimizer = pb.optim.AdamW(ours.parameters(), lr=0.01)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01)

    @pb.compile
    def step(x: pb.Tensor, t: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = pb.accumulate(lambda b: F.cross_entropy(ours(b[0]), b[1]), (x, t), parts=3)
        nn.utils.clip_grad_norm_(ours.parameters(), 0.1)
        optimizer.step()
        return loss

    random = np.random.default_rng(0)
    for _ in range(10):
        x, t = random.normal(size=(EXAMPLES, 5)), random.permutation(TARGET)
        loss = step(pb.tensor(x), pb.tensor(t))
        reference.zero_grad()
        expected = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(t))
        expected.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        reference.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    for mine, parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), parameter.detach().numpy(), rtol=1e-8, atol=1e-10)


def deep_step(parts: int | str, **budget: Any) -> tuple[Any, pb.Tensor]:
    pb.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(32, 32), nn.Tanh())])
    optimizer = pb.optim.SGD(model.parameters(), lr=0.01)

    @pb.compile(**budget)
    def step(x: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = pb.accumulate(lambda b: model(b).pow(2).mean(), x, parts=parts)
        optimizer.step()
        return loss

    return step, pb.randn(512, 32)


needs_native = pytest.mark.native("the reference has no arena")


@needs_native
def test_the_arena_falls_with_the_number_of_parts() -> None:
    arenas = []
    for parts in (1, 2, 4, 8):
        step, x = deep_step(parts)
        step(x)
        arenas.append(step.program.memory.arena)
    assert arenas[1] < 0.6 * arenas[0]
    assert arenas[2] < 0.6 * arenas[1]
    assert arenas[3] < 0.8 * arenas[2]


@needs_native
def test_auto_meets_the_budget() -> None:
    step, x = deep_step("auto")
    loss = step(x).item()
    assert step.parts == 1
    peak = step.program.memory.peak
    for share in (0.7, 0.5):
        budget = int(peak * share)
        step, x = deep_step("auto", memory=budget)
        assert step(x).item() == pytest.approx(loss, rel=1e-12)
        assert step.program.memory.peak <= budget
        assert step.parts > 1 or step.program.recomputed
    planned = step.plan(x)
    assert planned.peak_bytes <= budget


@needs_native
def test_auto_below_what_can_be_had_is_an_error() -> None:
    step, x = deep_step("auto", memory=1000)
    with pytest.raises(MemoryBudgetError):
        step(x[:4].clone())


def test_auto_is_one_part_where_there_is_no_budget() -> None:
    calls = []
    model = network()
    pb.accumulate(lambda b: calls.append(1) or model(b).mean(), pb.randn(EXAMPLES, 5), parts="auto")
    assert len(calls) == 1


def test_errors_of_the_call() -> None:
    model = network()
    x = pb.randn(EXAMPLES, 5)

    def loss_fn(batch: Any) -> Any:
        return model(batch).mean()

    for parts in (0, -1, 1.5, "many", True):
        with pytest.raises(ValueError, match="parts"):
            pb.accumulate(loss_fn, x, parts=parts)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="8 parts"):
        pb.accumulate(loss_fn, x, parts=8)
    with pytest.raises(ShapeError, match="one size"):
        pb.accumulate(loss_fn, (x, pb.ones(6)), parts=2)
    with pytest.raises(ShapeError, match="no examples"):
        pb.accumulate(loss_fn, (x, pb.tensor(1.0)), parts=2)
    with pytest.raises(TypeError, match="no tensors"):
        pb.accumulate(loss_fn, [1, 2], parts=2)
    for parts in (1, 2):
        for given, told in ((1.0, "a float"), ((loss_fn(x), 3), "a tuple of 2"), ({"loss": loss_fn(x)}, "a dict of 1")):
            with pytest.raises(TypeError, match=f"loss_fn must give the loss alone, a tensor, got {told}"):
                pb.accumulate(lambda b, given=given: given, x, parts=parts)
    with pytest.raises(TypeError, match="loss_fn must be a function of a batch, got 3"):
        pb.accumulate(3, x, 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weight must be a function of a part that gives its weight, got 0"):
        pb.accumulate(loss_fn, x, 2, weight=0)  # type: ignore[arg-type]
    for weight, told in (("many", "'many'"), (pb.ones(3), r"float64\[3\]"), (None, "None")):
        with pytest.raises(TypeError, match=f"weight must give a number for a part.*, got {told}"):
            pb.accumulate(loss_fn, x, 2, weight=lambda _, weight=weight: weight)
