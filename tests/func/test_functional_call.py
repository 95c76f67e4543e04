"""Modules called with other tensors than their own: values, gradients, batches, compiled steps, and what is left."""

import numpy as np
import pytest
import torch

import pullback as pb
from oracle import numbers
from pullback.func import functional_call, stack_module_state
from pullback.tensor.random import default_generator

RNG = np.random.default_rng(3)


class Doubled(pb.nn.Module):
    """A parameter under two names, a buffer that forward changes in place, and one that it binds anew."""

    def __init__(self):
        super().__init__()
        self.first = pb.nn.Linear(3, 3)
        self.second = pb.nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("seen", pb.zeros(()))
        self.register_buffer("bound", pb.zeros(()))

    def forward(self, x, times=1.0):
        self.seen.add_(1)
        self.bound = self.bound + 1
        return self.second(self.first(x)) * times


def network(library, dtype):
    layers = [library.nn.Linear(4, 5), library.nn.BatchNorm1d(5), library.nn.Tanh(), library.nn.Linear(5, 3)]
    return library.nn.Sequential(*layers).to(dtype)


def paired(count):
    """Networks of both libraries with the same state."""
    torch.manual_seed(0)
    theirs = [network(torch, torch.float64) for _ in range(count)]
    ours = [network(pb, pb.float64) for _ in range(count)]
    for one, other in zip(ours, theirs, strict=True):
        one.load_state_dict({k: v.numpy() for k, v in other.state_dict().items()})
    return ours, theirs


def close(ours, theirs):
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-10, atol=1e-12)


def held(module):
    return {name: (tensor, tensor.tolist()) for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def test_one_tensor_given_for_a_tied_name_stands_under_all_of_them():
    module, x = Doubled(), pb.ones(2, 3)
    with pb.no_grad():
        module.first.bias.zero_(), module.second.bias.zero_()
    before = held(module)
    eye = pb.eye(3) * 2
    assert functional_call(module, {"second.weight": eye}, x).tolist() == [[4.0] * 3] * 2
    assert functional_call(module, {"first.weight": eye, "second.weight": eye}, (x, 0.5)).tolist() == [[2.0] * 3] * 2
    alone = functional_call(module, {"first.weight": eye}, x, {"times": 3.0}, tie_weights=False)
    expected = 6 * (pb.ones(2, 3) @ module.second.weight.T)
    np.testing.assert_allclose(numbers(alone), numbers(expected), rtol=1e-6)
    after = held(module)
    assert all(after[name][0] is before[name][0] for name in before if name != "bound")


def test_buffers_that_forward_changes_are_changed_in_the_dictionary_and_not_in_the_module():
    module = Doubled()
    given = {"seen": pb.zeros(()), "bound": pb.zeros(())}
    seen = given["seen"]
    for _ in range(2):
        functional_call(module, ({"first.bias": pb.zeros(3)}, given), (pb.ones(1, 3),))
    assert (given["seen"] is seen, seen.item(), given["bound"].item()) == (True, 2.0, 2.0)
    assert (module.seen.item(), module.bound.item()) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("given", "arguments", "error", "said"),
    [
        ({"first.bias": pb.zeros(3)}, {"strict": True}, RuntimeError, "missing: .'bound', 'first.weight'"),
        ({"third": pb.zeros(3)}, {"strict": True}, RuntimeError, "unexpected: .'third'"),
        ({"third.bias": pb.zeros(3)}, {}, AttributeError, "third"),
        ({"first": pb.zeros(3)}, {}, TypeError, "'first'"),
        ({"first.bias": 3.0}, {}, TypeError, "float"),
        ({"first.weight": pb.eye(3), "second.weight": pb.eye(3)}, {}, ValueError, "one tensor"),
        (({"seen": pb.ones(())}, {"seen": pb.ones(())}), {}, ValueError, "more than one"),
        ("first.bias", {}, ValueError, "str"),
        ({"first.bias": pb.zeros(3), "second.weight": pb.zeros(2, 7)}, {}, RuntimeError, "2, 7"),
    ],
)
def test_what_does_not_fit_raises_and_leaves_nothing_behind(given, arguments, error, said):
    module = Doubled()
    before, attributes = held(module), set(vars(module))
    with pytest.raises(error, match=said):
        functional_call(module, given, pb.ones(1, 3), **arguments)
    # forward has bound `bound`, which was not given, anew before it failed, as in any call
    assert all(tensor is before[name][0] for name, (tensor, _) in held(module).items() if name != "bound")
    assert set(vars(module)) == attributes


def test_a_name_that_is_no_tensor_of_the_module_is_an_attribute_for_the_time_of_the_call():
    class Reads(pb.nn.Module):
        def forward(self, x):
            return x * self.scale

    module = Reads()
    assert functional_call(module, {"scale": pb.tensor(3.0)}, pb.tensor(2.0)).item() == 6.0
    assert not hasattr(module, "scale")


def test_the_deprecated_name_warns_and_does_the_same():
    layer, given = pb.nn.Linear(1, 1), {"weight": pb.ones(1, 1), "bias": pb.ones(1)}
    with pytest.warns(FutureWarning, match=r"func\.functional_call"):
        result = pb.nn.utils.stateless.functional_call(layer, given, pb.ones(1, 1))
    assert result.item() == 2.0


@pytest.mark.parametrize("compiled", [False, True])
def test_an_ensemble_run_at_once_is_its_networks_one_by_one(compiled):
    """Values, gradients by parameters, and the running statistics of each network, against PyTorch's networks."""
    ours, theirs = paired(3)
    parameters, buffers = stack_module_state(ours)
    x, y = RNG.normal(size=(6, 4)), RNG.normal(size=(6, 3))

    def loss(tensors, statistics, x, y):
        return ((functional_call(ours[0], (tensors, statistics), (x,)) - y) ** 2).mean()

    batched = pb.vmap(pb.func.value_and_grad(loss), in_dims=(0, 0, None, None))
    run = pb.compile(batched) if compiled else batched
    for _ in range(2):
        values, gradients = run(parameters, buffers, pb.tensor(x), pb.tensor(y))
    for i, network in enumerate(theirs):
        for _ in range(2):
            network.zero_grad()
            value = ((network(torch.tensor(x)) - torch.tensor(y)) ** 2).mean()
            value.backward()
        close(values[i], value)
        for name, parameter in network.named_parameters():
            close(gradients[name][i], parameter.grad)
        for name, buffer in network.named_buffers():
            close(buffers[name][i], buffer)


def test_gradients_of_each_sample_are_those_of_a_loop_and_derivatives_along_a_tangent_follow():
    (ours,), (theirs,) = paired(1)
    ours.eval(), theirs.eval()
    x, y = RNG.normal(size=(5, 4)), RNG.integers(0, 3, size=5)
    parameters = {name: p.detach() for name, p in ours.named_parameters()}

    def loss(tensors, x, y):
        return pb.nn.functional.cross_entropy(functional_call(ours, tensors, (x[None],)), y[None])

    step = pb.compile(pb.vmap(pb.func.grad(loss), in_dims=(None, 0, 0)))
    gradients = step(parameters, pb.tensor(x), pb.tensor(y))
    recordings = step._recordings
    step(parameters, pb.tensor(x), pb.tensor(y))
    assert step._recordings == recordings, "the same call recorded twice"
    for i in range(5):
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(theirs(torch.tensor(x[i : i + 1])), torch.tensor(y[i : i + 1])).backward()
        for name, parameter in theirs.named_parameters():
            close(gradients[name][i], parameter.grad)
    tangents = {name: pb.ones_like(p) for name, p in parameters.items()}
    whole = lambda p: loss(p, pb.tensor(x[0]), pb.tensor(y[0]))  # noqa: E731
    _, along = pb.func.jvp(whole, (parameters,), (tangents,))
    assert along.item() == pytest.approx(sum(g[0].sum().item() for g in gradients.values()), rel=1e-10)


def test_a_compiled_step_trains_an_ensemble_and_reads_the_given_tensors_anew():
    models = [pb.nn.Linear(2, 1) for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    optimizer = pb.optim.SGD(parameters.values(), lr=0.1)
    x, y = pb.randn(8, 2), pb.randn(8, 1)
    errors = pb.vmap(lambda p: ((functional_call(models[0], p, (x,)) - y) ** 2).mean())

    @pb.compile
    def step():
        optimizer.zero_grad()
        loss = errors(parameters).sum()
        loss.backward()
        optimizer.step()
        return loss

    for model in models:
        alone = pb.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(4):
            alone.zero_grad()
            ((model(x) - y) ** 2).mean().backward()
            alone.step()
    for _ in range(4):
        step()
    assert step._recordings == 1
    for i, model in enumerate(models):
        np.testing.assert_allclose(parameters["weight"][i].detach().numpy(), model.weight.detach().numpy(), rtol=1e-5)
    assert not buffers


def test_modules_that_differ_do_not_stack():
    frozen = pb.nn.Linear(1, 1)
    frozen.weight.requires_grad_(False)
    for models, said in [
        ([], "at least one"),
        ([pb.nn.Linear(1, 1), pb.nn.Linear(1, 1).eval()], "training"),
        ([pb.nn.Linear(1, 1), pb.nn.Tanh()], "one class"),
        ([pb.nn.Linear(1, 1), frozen], "'weight'"),
    ]:
        with pytest.raises(RuntimeError, match=said):
            stack_module_state(models)
    parameters, _ = stack_module_state(pb.nn.ModuleList([pb.nn.Linear(1, 2), pb.nn.Linear(1, 2)]))
    assert all(p.is_leaf and p.requires_grad for p in parameters.values())
    assert parameters["weight"].shape == (2, 2, 1)


def test_skip_init_draws_nothing_and_to_empty_keeps_the_parameters():
    before = default_generator().get_state().tolist()
    layer = pb.nn.utils.skip_init(pb.nn.Linear, 3, 2, bias=False, device="cpu")
    assert (layer.weight.shape, layer.weight.requires_grad, layer.bias) == ((2, 3), True, None)
    assert default_generator().get_state().tolist() == before
    with pytest.raises(RuntimeError, match="device"):
        pb.nn.utils.skip_init(pb.nn.Tanh)
    with pytest.raises(RuntimeError, match="class of modules"):
        pb.nn.utils.skip_init(int)
    kept = layer.weight
    pb.nn.init.ones_(kept)
    assert layer.to_empty(device="cpu").weight is kept and kept.tolist() == [[0.0] * 3] * 2
    with pytest.raises(ValueError, match="cuda"):
        layer.to_empty(device="cuda")
