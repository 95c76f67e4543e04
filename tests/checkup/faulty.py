"""Trainings with a fault each: the checks that fail, and what is told.

The line of a fault is marked by `# fault`; a fault of a whole training has none.
"""

from collections.abc import Callable
from typing import Any

import pullback as pb
from checkup.trainings import F, Step, data, net, nn, optim, plain


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


def a_schedule_of_epochs_in_each_step() -> Step:
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    schedule, inner = optim.lr_scheduler.StepLR(optimizer, 1, 0.1), plain(model, optimizer)

    def step() -> None:
        inner()
        schedule.step()

    return step


def weights_that_decay_at_once() -> Step:
    model = net()
    return plain(model, optim.AdamW(model.parameters(), lr=1e-3, weight_decay=100.0))


def dropout_of_all() -> Step:
    model = net(nn.Dropout(1.0))
    return plain(model, optim.AdamW(model.parameters(), lr=1e-3))


def batches_of_one_class() -> Step:
    model, x, classes = net(), pb.randn(64, 6), iter(range(8))
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), pb.full((64,), next(classes) // 3))
        loss.backward()  # fault
        optimizer.step()

    return step


def log_softmax_over_the_examples() -> Step:
    model, (x, y) = net(), data()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        chances = F.log_softmax(model(x), dim=0)  # fault
        F.nll_loss(chances, y).backward()
        optimizer.step()

    return step


def clipped_before_it_is_unscaled() -> Step:
    model, (x, y), scaler = net(), data(), pb.amp.GradScaler("cpu")
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # fault
        scaler.step(optimizer)
        scaler.update()

    return step


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
    (
        a_schedule_of_epochs_in_each_step,
        ["learning rate sane"],
        "has lowered it from 0.1 to 1e-08 in 8 steps",
    ),
    (clipped_before_it_is_unscaled, ["gradients unscaled", "learning rate sane"], "next to nothing is left of them"),
    (weights_that_decay_at_once, ["weight decay sane"], "it takes 10% of each weight away in each step"),
    (dropout_of_all, ["dropout sane"], "2 with p=1: nothing comes through in training"),
    (batches_of_one_class, ["batches mixed"], "all labels of a batch were the same at 8 of 8 steps"),
    (log_softmax_over_the_examples, ["shapes of the loss"], "log_softmax was taken over axis 0"),
    (
        given(lambda z, y: F.kl_div(spread(y) + 0.1, z.log_softmax(-1), reduction="sum"), "swapped"),
        [DOUBLED, "loss is finite"],
        "kl_div is given what log_softmax has made",
    ),
    (nothing_at_all, ["backward called", "optimizer stepped"], "backward() was never called"),
]
