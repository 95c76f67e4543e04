"""Small trainings, sound and faulty: nothing is found in a sound one, and in a faulty one what was put in, at its line.

The line of a fault is marked by `# fault`; a fault of a whole training has none.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import pullback as pb
from pullback import debug

nn, F, optim = pb.nn, pb.nn.functional, pb.optim
Step = Callable[[], Any]


def net(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), *more, nn.Linear(16, 3))


def data() -> tuple[pb.Tensor, pb.Tensor]:
    return pb.randn(64, 6), pb.randint(0, 3, (64,))


def plain(model: nn.Module, optimizer: Any, loss_of: Callable[..., Any] = F.cross_entropy, x: Any = None) -> Step:
    """The usual step; its lines are not marked."""
    given, y = data()
    x = given if x is None else x

    def step() -> None:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()

    return step


# ---- sound


def ordinary() -> Step:
    model = net(nn.Dropout(0.3), nn.BatchNorm1d(16))
    return plain(model, optim.SGD(model.parameters(), lr=0.1, momentum=0.9))


def adamw_at_a_small_rate_with_dropout() -> Step:
    model = net(nn.Dropout(0.5))
    return plain(model, optim.AdamW(model.parameters(), lr=1e-4))


def fine_tuning_at_a_very_small_rate() -> Step:
    model = net(nn.Dropout(0.1))
    return plain(model, optim.Adam(model.parameters(), lr=1e-5))


def sgd_at_a_small_rate() -> Step:
    model = net(nn.Dropout(0.1))
    return plain(model, optim.SGD(model.parameters(), lr=1e-3))


def a_rate_that_warms_up() -> Step:
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 1e6)
    inner = plain(model, optimizer)

    def step() -> None:
        inner()
        schedule.step()

    return step


def two_optimizers_of_a_part_each() -> Step:
    model, (x, y) = net(), data()
    first, last = optim.SGD(model[0].parameters(), lr=0.1), optim.Adam(model[2].parameters(), lr=1e-3)

    def step() -> None:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        first.step()
        last.step()
        first.zero_grad()
        last.zero_grad()

    return step


def adversaries(lr: float = 2e-4) -> Step:
    maker, judge = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6)), net()[:2].append(nn.Linear(16, 1))
    of_maker, of_judge = optim.Adam(maker.parameters(), lr=lr), optim.Adam(judge.parameters(), lr=lr)
    x, loss_of = pb.randn(32, 6), nn.BCEWithLogitsLoss()

    def step() -> None:
        made = maker(pb.randn(32, 4))
        of_judge.zero_grad()
        loss_of(judge(x), pb.ones(32, 1)).backward()
        loss_of(judge(made.detach()), pb.zeros(32, 1)).backward()
        of_judge.step()
        of_maker.zero_grad()
        (-loss_of(judge(made), pb.zeros(32, 1))).backward()
        of_maker.step()

    return step


def gradients_of_several_batches() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        for part in range(4):
            rows = slice(16 * part, 16 * part + 16)
            (F.cross_entropy(model(x[rows]), y[rows]) / 4).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    return step


def a_frozen_part_and_a_teacher() -> Step:
    model, teacher, (x, _) = net(nn.BatchNorm1d(16)), net(nn.Dropout(0.1)).eval(), data()
    model[:3].requires_grad_(False)
    model[2].eval()
    optimizer = optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    def step() -> None:
        optimizer.zero_grad()
        F.mse_loss(model(x), teacher(x).detach()).backward()
        optimizer.step()

    return step


def validation_between() -> Step:
    model = net(nn.Dropout(0.1))
    inner, (x, y) = plain(model, optim.SGD(model.parameters(), lr=0.1)), data()

    def step() -> None:
        model.eval()
        F.cross_entropy(model(x), y).item()
        model.train()
        inner()

    return step


def a_line_search() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return lambda: optimizer.step(closure)


def a_line_search_that_ends_at_nothing() -> Step:
    model, x = nn.Linear(6, 1), pb.randn(32, 6)
    optimizer = optim.LBFGS(model.parameters())

    def closure() -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    return lambda: optimizer.step(closure)


def an_objective_that_is_maximized() -> Step:
    model = net()
    optimizer = optim.Adam(model.parameters(), lr=1e-2, maximize=True)
    return plain(model, optimizer, lambda out, y: -F.cross_entropy(out, y))


def gradients_that_are_assigned() -> Step:
    w, x = pb.nn.Parameter(pb.randn(6)), pb.randn(32, 6)
    optimizer = optim.SGD([w], lr=0.1)

    def step() -> None:
        w.grad = pb.func.grad(lambda v: (x @ v).square().mean())(w.detach())
        optimizer.step()

    return step


def adversaries_at_a_usual_rate() -> Step:
    return adversaries(1e-3)


def updates_by_hand() -> Step:
    model, (x, y) = net(), data()

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        with pb.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
                p.grad = None

    return step


def updates_of_a_plain_tensor_by_hand() -> Step:
    w, x = pb.zeros(6, requires_grad=True), pb.randn(32, 6)

    def step() -> None:
        nonlocal w
        (x @ w - x.sum(1)).square().mean().backward()
        with pb.no_grad():
            w -= 0.1 * w.grad
        w.grad = None

    return step


def log_likelihood() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        (-pb.log_softmax(model(x), -1).gather(1, y[:, None]).mean()).backward()
        optimizer.step()

    return step


def a_softmax_of_ones_own() -> Step:
    """Which no loss does again: its logarithm is taken, or it is what another is compared with."""
    model, other, (x, y) = net(), net(), data()
    optimizer = optim.Adam([*model.parameters(), *other.parameters()], lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss = F.nll_loss(pb.softmax(model(x), -1).log(), y) + F.cross_entropy(other(x), pb.softmax(model(x), -1))
        (loss + F.mse_loss(other(x).sigmoid(), F.one_hot(y, 3).float())).backward()
        optimizer.step()

    return step


def regression_far_from_where_it_begins() -> Step:
    """The first steps are larger than the weights, and right."""
    model, (x, _) = nn.Linear(6, 8), data()
    optimizer = optim.Adam(model.parameters(), lr=1.0)
    return plain(model, optimizer, lambda out, _: F.mse_loss(out, 50 * x.sum(1, keepdim=True).expand(-1, 8)), x)


def logarithms() -> Step:
    """Several ways to logarithms of probabilities, and a divergence whose target is trained too."""
    model, other, (x, y) = net(), net(), data()
    optimizer = optim.Adam([*model.parameters(), *other.parameters()], lr=1e-2)

    def step() -> None:
        optimizer.zero_grad()
        scores = model(x)
        mixed = ((scores.softmax(-1) + other(x).softmax(-1)) / 2).log()
        shifted = scores - scores.logsumexp(-1, keepdim=True)
        between = F.kl_div(scores.log_softmax(-1), other(x).softmax(-1), reduction="batchmean")
        again = F.kl_div(scores.log_softmax(-1), other(x).log_softmax(-1), reduction="batchmean", log_target=True)
        (F.nll_loss(mixed, y) + F.nll_loss(shifted, y) + between + again).backward()
        optimizer.step()

    return step


def an_optimizer_without_state_made_for_each_step() -> Step:
    model, (x, y) = net(), data()

    def step() -> None:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optim.SGD(model.parameters(), lr=0.1).step()

    return step


def weights_as_plain_tensors() -> Step:
    (x, y), weights = data(), {"first": pb.randn(6, 16) * 0.3, "second": pb.randn(16, 3) * 0.2}

    def loss_of(weights: dict[str, pb.Tensor]) -> pb.Tensor:
        return F.cross_entropy((x @ weights["first"]).tanh() @ weights["second"], y)

    def step() -> None:
        gradients, _ = pb.func.grad_and_value(loss_of)(weights)
        for name, weight in weights.items():
            weight.sub_(0.1 * gradients[name])

    return step


def gradients_of_each_example() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.3)

    def loss_of(parameters: dict[str, pb.Tensor], x: pb.Tensor, y: pb.Tensor) -> pb.Tensor:
        return F.cross_entropy(pb.func.functional_call(model, parameters, (x[None],)), y[None])

    def step() -> None:
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        found = pb.func.vmap(pb.func.grad(loss_of), in_dims=(None, 0, 0))(parameters, x, y)
        for name, parameter in model.named_parameters():
            parameter.grad = found[name].mean(0)
        optimizer.step()

    return step


def gradients_that_are_asked_for_and_assigned() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step() -> None:
        parameters = list(model.parameters())
        for parameter, gradient in zip(
            parameters, pb.autograd.grad(F.cross_entropy(model(x), y), parameters), strict=True
        ):
            parameter.grad = gradient
        optimizer.step()

    return step


SOUND = [
    weights_as_plain_tensors,
    gradients_of_each_example,
    gradients_that_are_asked_for_and_assigned,
    an_optimizer_without_state_made_for_each_step,
    logarithms,
    a_softmax_of_ones_own, regression_far_from_where_it_begins,
    ordinary, adamw_at_a_small_rate_with_dropout, fine_tuning_at_a_very_small_rate, sgd_at_a_small_rate,
    a_rate_that_warms_up, two_optimizers_of_a_part_each, adversaries, gradients_of_several_batches,
    a_frozen_part_and_a_teacher, validation_between, a_line_search, updates_by_hand,
    updates_of_a_plain_tensor_by_hand, log_likelihood, a_line_search_that_ends_at_nothing,
    an_objective_that_is_maximized, gradients_that_are_assigned, adversaries_at_a_usual_rate,
]  # fmt: skip


# ---- faulty


def not_cleared() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()  # fault
        optimizer.step()

    return step


def cleared_too_late() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.zero_grad(set_to_none=False)
        optimizer.step()  # fault

    return step


def clipped_to_nothing() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.0)  # fault
        optimizer.step()

    return step


def a_column_beside_a_row() -> Step:
    model, x = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1)), pb.randn(64, 6)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        F.mse_loss(model(x), x[:, 0]).backward()  # fault
        optimizer.step()

    return step


def no_backward() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y)
        optimizer.step()  # fault

    return step


def no_step() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # fault

    return step


def evaluation_mode() -> Step:
    model, (x, y) = net(nn.Dropout(0.1)).eval(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # fault
        optimizer.step()

    return step


def all_frozen() -> Step:
    model, (x, y) = net().requires_grad_(False), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()  # fault
        optimizer.step()

    return step


def one_frozen() -> Step:
    model, (x, y) = net(), data()
    model[0].weight.requires_grad_(False)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # fault
        optimizer.step()

    return step


def a_detached_loss() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        scores = model(x).detach()  # fault
        F.cross_entropy(scores, y).backward()
        optimizer.step()

    return step


def a_loss_of_choices() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        chosen = model(x).argmax(1)  # fault
        (chosen - y).float().square().mean().backward()
        optimizer.step()

    return step


def a_forward_pass_without_gradients() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        with pb.no_grad():
            scores = model(x)  # fault
        F.cross_entropy(scores, y).backward()
        optimizer.step()

    return step


def a_detached_layer() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model[1:](model[0](x).detach()), y).backward()  # fault
        optimizer.step()

    return step


def an_unused_layer() -> Step:
    model, (x, y) = net(), data()
    model.spare = nn.Linear(2, 2)  # the forward pass of a Sequential goes on from what is left
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        model.forward = lambda x: model[2](model[1](model[0](x)))
        F.cross_entropy(model(x), y).backward()  # fault
        optimizer.step()

    return step


def a_layer_that_came_later() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    model.append(nn.Linear(3, 3))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # fault
        optimizer.step()

    return step


def the_optimizer_of_another_model() -> Step:
    model, other, (x, y) = net(), net(), data()
    optimizer = optim.SGD(other.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()  # fault

    return step


def a_second_optimizer_that_does_not_step() -> Step:
    model, (x, y) = net(), data()
    first, last = optim.SGD(model[0].parameters(), lr=0.1), optim.SGD(model[2].parameters(), lr=0.1)

    def step() -> None:
        first.zero_grad(), last.zero_grad()
        F.cross_entropy(model(x), y).backward()  # fault
        first.step()

    return step


def labels_from_one() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y + 1).backward()
        optimizer.step()

    return step


def raw_inputs() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x * 100 + 500), y).backward()  # fault
        optimizer.step()

    return step


def the_wrong_sign() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        loss = -F.cross_entropy(model(x), y)  # fault
        loss.backward()
        optimizer.step()

    return step


def a_missing_sign() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        logs = pb.log_softmax(model(x), -1)  # fault
        logs[pb.arange(64), y].mean().backward()
        optimizer.step()

    return step


def rate(make: Callable[..., Any], value: float, loss_of: Callable[..., Any] = F.cross_entropy) -> Callable[[], Step]:
    def made() -> Step:
        model = net(nn.Dropout(0.1))
        return plain(model, make(model.parameters(), lr=value), loss_of)

    made.__name__ = f"{make.__name__} at {value:g}"
    return made


def dead_relus() -> Step:
    model, (x, y) = net(), data()
    with pb.no_grad():
        model[0].bias.fill_(-100.0)
    optimizer = optim.SGD(model[0].parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model[2](model[1](model[0](x))), y).backward()  # fault
        optimizer.step()

    return step


def a_crash() -> Step:
    model, (x, _) = net(), data()

    def step() -> None:
        model(x[:, :5])  # fault

    return step


def nothing_at_all() -> Step:
    return lambda: None


def a_logarithm_of_negative_numbers() -> Step:
    w, x = pb.nn.Parameter(pb.ones(6)), -pb.ones(32, 6)
    optimizer = optim.SGD([w], lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        loss = (x @ w).log().mean()  # fault
        loss.backward()
        optimizer.step()

    return step


def a_softmax_before_cross_entropy() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        chances = pb.softmax(model(x), -1)  # fault
        F.cross_entropy(chances.float(), y).backward()
        optimizer.step()

    return step


def a_sigmoid_before_a_loss_of_scores() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        chances = model(x).sigmoid()  # fault
        nn.BCEWithLogitsLoss()(chances, F.one_hot(y, 3).float()).backward()
        optimizer.step()

    return step


def probabilities_without_a_logarithm() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        chances = nn.Softmax(-1)(model(x))  # fault
        F.nll_loss(chances, y).backward()
        optimizer.step()

    return step


def given(loss_of: Callable[..., Any], name: str) -> Callable[[], Step]:
    """A training whose loss is made of the scores, and the labels, by a function of one line."""

    def made() -> Step:
        model = net()
        return plain(model, optim.Adam(model.parameters(), lr=1e-3), loss_of)

    made.__name__ = name
    return made


def spread(y: pb.Tensor) -> pb.Tensor:
    return F.one_hot(y, 3).float()


def a_step_before_the_backward_pass() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        optimizer.step()  # fault
        loss.backward()

    return step


def a_loss_made_of_a_number() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss = pb.tensor(F.cross_entropy(model(x), y).item(), requires_grad=True)
        loss.backward()  # fault
        optimizer.step()

    return step


def a_number_for_a_loss() -> Step:
    model, (x, y) = net(), data()

    def step() -> None:
        F.cross_entropy(model(x), y).item().backward()  # fault

    return step


def a_loss_that_is_lost_on_the_way() -> Step:
    model, batches = nn.Linear(6, 1), iter([pb.randn(32, 6), pb.randn(32, 6), pb.zeros(32, 6)] * 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        x = next(batches)
        loss = model(x).square().mean() - x.square().sum().log()  # fault
        loss.backward()
        optimizer.step()

    return step


DOUBLED = "scores and probabilities"


def a_model_made_in_each_step() -> Step:
    x, y = data()

    def step() -> None:
        model = net()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()  # fault

    return step


def an_optimizer_made_in_each_step() -> Step:
    model, (x, y) = net(), data()

    def step() -> None:
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()  # fault

    return step


def layers_in_a_list() -> Step:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.layers = nn.Linear(16, 3), [nn.Linear(6, 16)]

        def forward(self, x: pb.Tensor) -> pb.Tensor:
            return self.head(self.layers[0](x).relu())

    model = Listed()
    return plain(model, optim.SGD(model.parameters(), lr=0.1))


def weights_that_are_all_zero() -> Step:
    model = net()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return plain(model, optim.SGD(model.parameters(), lr=0.1))


FAULTY: list[tuple[Callable[[], Step], list[str], str]] = [
    (a_logarithm_of_negative_numbers, ["loss is finite"], "logarithm of a negative number"),
    (not_cleared, ["gradients cleared"], "at 7 of 8 steps"),
    (cleared_too_late, ["gradients cleared"], "between backward() and optimizer.step()"),
    (clipped_to_nothing, ["parameters get gradients"], "clip_grad_norm_ made zeros of all gradients"),
    (a_column_beside_a_row, ["shapes of the loss"], "input of shape [64, 1] and a target of shape [64]"),
    (no_backward, ["backward called"], "backward() was not called"),
    (a_model_made_in_each_step, ["optimizer stepped"], "8 optimizers made one step each, and each trained a model of"),
    (an_optimizer_made_in_each_step, ["optimizer stepped"], "knew nothing of the steps before"),
    (layers_in_a_list, ["optimizer has the parameters"], "a parameter [16, 6] and a parameter [16] (not_in_optimizer)"),
    (weights_that_are_all_zero, ["parameters get gradients"], "it is 0 everywhere, and so is its gradient"),
    (no_step, ["optimizer stepped"], "was not called after 8 calls of backward()"),
    (evaluation_mode, ["train mode"], "2 is in evaluation mode"),
    (all_frozen, ["parameters require gradients"], "all 4 parameters have requires_grad=False"),
    (one_frozen, ["parameters require gradients"], "1 of 4 parameters"),
    (a_detached_loss, ["parameters get gradients"], "the way from all parameters to it is cut by detach()"),
    (a_loss_of_choices, ["parameters get gradients"], "by argmax, through which no gradient goes"),
    (a_forward_pass_without_gradients, ["parameters get gradients"], "computed under no_grad()"),
    (a_detached_layer, ["parameters get gradients"], "by detach()"),
    (an_unused_layer, ["parameters get gradients"], "spare.weight and spare.bias (unreached), each: the loss does not"),
    (a_layer_that_came_later, ["optimizer has the parameters"], "3.weight and 3.bias (not_in_optimizer), each: it has"),
    (the_optimizer_of_another_model, ["optimizer has the parameters"], "the optimizer of another model"),
    (a_second_optimizer_that_does_not_step, ["optimizer has the parameters"], "step() of its optimizer"),
    (labels_from_one, ["labels in range"], "3"),
    (raw_inputs, ["inputs normalized"], "mean 5"),
    (the_wrong_sign, ["sign of the loss"], "cross_entropy is the better the smaller it is"),
    (a_missing_sign, ["sign of the loss"], "log_softmax is the better the larger it is"),
    (a_softmax_before_cross_entropy, ["scores and probabilities"], "cross_entropy is given what softmax has made"),
    (a_sigmoid_before_a_loss_of_scores, ["scores and probabilities"], "is given what sigmoid has made"),
    (probabilities_without_a_logarithm, ["scores and probabilities"], "nll_loss is given what softmax has made"),
    (given(F.nll_loss, "scores for logarithms"), [DOUBLED], "nll_loss is given what linear has made"),
    (
        given(lambda z, y: F.kl_div(z.softmax(-1), spread(y), reduction="batchmean"), "probabilities for logarithms"),
        [DOUBLED],
        "kl_div is given what softmax has made",
    ),
    (given(lambda z, y: F.kl_div(z, spread(y), reduction="sum"), "scores"), [DOUBLED], "kl_div is given what linear"),
    (given(lambda z, y: F.cross_entropy(z.sigmoid(), y), "sigmoid"), [DOUBLED], "is given what sigmoid has made"),
    (a_step_before_the_backward_pass, ["optimizer stepped"], "before backward() of the loss"),
    (a_loss_made_of_a_number, ["parameters get gradients"], "made of a number"),
    (a_number_for_a_loss, ["runs"], "call backward() on the tensor"),
    (rate(optim.Adam, 0.0), ["learning rate sane"], "the learning rate is 0"),
    (a_loss_that_is_lost_on_the_way, ["loss is finite"], "after 2 steps the loss is not finite: logarithm of zero"),
    (rate(optim.Adam, 10.0), ["learning rate sane"], "lower it"),
    (rate(optim.Adam, 1.0), ["learning rate sane"], "lower it, to 0."),
    (rate(optim.SGD, 1e4), ["learning rate sane"], "lower it"),
    (rate(optim.SGD, 1e-9), ["learning rate sane"], "raise it"),
    (dead_relus, ["parameters get gradients"], "all gradients were exactly 0"),
    (a_crash, ["runs"], "ShapeError"),
    (nothing_at_all, ["backward called", "optimizer stepped"], "backward() was never called"),
]


def examined(make: Callable[[], Step]) -> pb.checkup.Report:
    pb.manual_seed(0)
    with debug.override(backend="reference"):
        return pb.doctor(make(), steps=8)


@pytest.mark.parametrize("make", SOUND, ids=lambda make: make.__name__)
def test_nothing_is_found_in_a_sound_training(make: Callable[[], Step]) -> None:
    report = examined(make)
    assert report.ok, str(report)


@pytest.mark.parametrize(("make", "checks", "told"), FAULTY, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_wrong_is_found_at_its_line(make: Callable[[], Step], checks: list[str], told: str) -> None:
    report = examined(make)
    # where a loss does not fall, that is told beside the reason
    found: dict[str, Any] = {}
    for fault in report.faults:
        if not fault.check.startswith("loss falls"):
            found.setdefault(fault.check, fault)
    assert list(found) == checks, str(report)
    first = found[checks[0]]
    assert told in str(first) and first.mend
    lines, start = inspect.getsourcelines(make)
    marked = [start + number for number, line in enumerate(lines) if "# fault" in line]
    if marked:
        assert first.line == f"{__file__}:{marked[0]}"
    if make in (a_crash, nothing_at_all, all_frozen):
        assert all(finding.check not in ("train mode", "labels in range") for finding in report.findings)


def test_the_rate_that_is_advised_is_not_called_wrong_in_turn() -> None:
    def trained(value: float) -> Callable[[], Step]:
        def made() -> Step:
            model = net()
            return plain(model, optim.Adam(model.parameters(), lr=value))

        return made

    faults = {fault.check: fault.mend for fault in examined(trained(1e-9)).faults}
    assert faults["loss falls on one batch"] == "change the learning rate, see there"
    advised = faults["learning rate sane"].removeprefix("raise it, to ").removesuffix(" or so")
    assert examined(trained(float(advised))).ok, advised
