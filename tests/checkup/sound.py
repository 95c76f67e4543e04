"""Trainings in which nothing is wrong, though some look as if there were."""

from typing import Any

import pullback as pb
from checkup.trainings import F, Step, data, net, nn, optim, plain


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


def clipped_after_it_is_unscaled() -> Step:
    model, (x, y), scaler = net(), data(), pb.amp.GradScaler("cpu")
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        for _ in range(2):
            scaler.scale(F.cross_entropy(model(x), y) / 2).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    return step


def a_frozen_backbone_with_dropout_in_evaluation_mode() -> Step:
    backbone, (x, y) = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.BatchNorm1d(16)), data()
    backbone.requires_grad_(False).eval()
    model = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(16, 3)})
    optimizer = optim.Adam(model["head"].parameters(), lr=1e-2)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model

        def forward(self, x: pb.Tensor) -> pb.Tensor:
            return self.parts["head"](self.parts["backbone"](x))

    whole = Whole()

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(whole(x), y).backward()
        optimizer.step()

    return step


def a_prompt_for_a_model_that_is_frozen() -> Step:
    """What is trained is a tensor of no module."""
    model, (x, y), prompt = net().requires_grad_(False), data(), pb.zeros(6, requires_grad=True)
    optimizer = optim.Adam([prompt], lr=1e-2)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x + prompt), y).backward()
        optimizer.step()

    return step


def a_schedule_that_comes_to_its_end() -> Step:
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    schedule, inner = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=6), plain(model, optimizer)

    def step() -> None:
        inner()
        schedule.step()  # which raises when it is over

    return step


def a_class_that_is_rare() -> Step:
    """No batch that is watched has it: no fault, and nothing that could be told."""
    model, x = net(), pb.randn(64, 6)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), pb.zeros(64, dtype=pb.int64)).backward()
        optimizer.step()

    return step


SOUND = [
    a_frozen_backbone_with_dropout_in_evaluation_mode,
    a_prompt_for_a_model_that_is_frozen,
    a_schedule_that_comes_to_its_end,
    a_class_that_is_rare,
    clipped_after_it_is_unscaled,
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
