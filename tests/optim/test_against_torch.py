"""Every optimizer against PyTorch's, over the sets of options in PyTorch's own database of optimizers."""

import inspect

import numpy as np
import pytest
import torch
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

import pullback as pb

INFOS = {info.name: info for info in optim_db if info.name != "SparseAdam"}
CASES = [(name, i) for name, info in INFOS.items() for i in range(len(info.optim_inputs_func(device="cpu")))]
STEPS = 50


class Run:
    """A small fit in either library; the last parameter has a gradient at every third step only."""

    def __init__(self, library, name, options, dtype="float64", matrices=False):
        self.library, self.dtype = library, getattr(library, dtype)
        rng = np.random.default_rng(0)
        shapes = [(4, 3), (3, 5), (5, 1)] if matrices else [(4, 3), (4,), (2, 3, 2), ()]
        self.x = library.tensor(rng.normal(size=(6, 3))).to(self.dtype)
        self.parameters = [
            library.nn.Parameter(library.tensor(rng.normal(size=shape)).to(self.dtype)) for shape in shapes
        ]
        self.optimizer = getattr(library.optim, name)(self.parameters, **own(library, options))
        self.closes_over = name == "LBFGS"
        self.number = 0

    def loss(self):
        first, *middle, last = self.parameters
        loss = (self.x @ first.T).tanh().square().mean() + (first - 1).square().mean()
        for p in middle:
            loss = loss + (p * 2 - 1).square().mean() + p.sin().sum() * 0.125
        return loss + (last * last).sum() if self.number % 3 == 2 else loss

    def closure(self):
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        return loss

    def step(self):
        if self.closes_over:  # of one loss: with a changing one, differences in the last bit grow without bounds
            self.number = 2
            self.optimizer.step(self.closure)
        else:
            self.closure()
            self.optimizer.step()
        self.number += 1

    def values(self):
        return [np.array(p.detach().to(self.library.float64).numpy()) for p in self.parameters]


def own(library, options):
    """Options with PyTorch's tensors made the library's."""
    if library is torch:
        return dict(options)
    return {k: pb.tensor(v.numpy()) if isinstance(v, torch.Tensor) else v for k, v in options.items()}


def options_of(name, place):
    return INFOS[name].optim_inputs_func(device="cpu")[place].kwargs


def assert_same(ours, theirs, tolerance=1e-10):
    for p, q in zip(ours.values(), theirs.values(), strict=True):
        np.testing.assert_allclose(p, q, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "place"), CASES)
def test_trajectories_over_50_steps(name, place):
    options = options_of(name, place)
    ours, theirs = (Run(library, name, options, matrices=name == "Muon") for library in (pb, torch))
    for _ in range(10 if name == "LBFGS" else STEPS):  # a step of L-BFGS is twenty
        ours.step(), theirs.step()
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", [name for name in INFOS if name not in ("LBFGS", "Muon", "SGD", "ASGD")])
def test_a_tensor_as_rate_is_computed_with_as_pytorch_does(name):
    """What depends on it is rounded to its float32."""
    decay = {} if name == "Rprop" else {"weight_decay": 0.1}
    ours, theirs = (Run(library, name, {"lr": torch.tensor(0.01), **decay}) for library in (pb, torch))
    for _ in range(10):
        ours.step(), theirs.step()
    assert_same(ours, theirs)


@pytest.mark.parametrize("compiled", [False, True])
def test_lbfgs_goes_on_from_another_optimizer_and_the_other_way(compiled):
    """On the same parameters, with one closure, compiled or not. Without a line search a last digit grows 1e9-fold,
    in PyTorch itself too.
    """
    runs = [Run(pb, "Adam", {"lr": 0.05}), Run(torch, "Adam", {"lr": 0.05})]
    losses = []
    for run in runs:
        run.number = 2
        options = {"line_search_fn": "strong_wolfe", "max_iter": 4, "history_size": 2}
        adam, lbfgs = run.optimizer, run.library.optim.LBFGS(run.parameters, **options)
        closure = pb.compile(run.closure) if compiled and run.library is pb else run.closure

        def step(closure=closure, adam=adam):
            loss = closure()
            adam.step()
            return loss

        found = []
        for take in (step, step, lambda c=closure, o=lbfgs: o.step(c), lambda c=closure, o=lbfgs: o.step(c)) * 2:
            found.append(float(take().detach()))
        losses.append(found)
    np.testing.assert_allclose(*losses, rtol=1e-10)
    assert_same(*runs)


def error_cases():
    for name, info in INFOS.items():
        for place, case in enumerate(info.optim_error_inputs_func("cpu", torch.float32)):
            shown = str(case.optimizer_error_input.params) + str(case.optimizer_error_input.kwargs)
            if "complex" not in shown and "j]" not in shown and case.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR:
                yield name, place


def as_ours(value, made):
    """PyTorch's parameters as ours, the same one for the same one."""
    if isinstance(value, torch.Tensor):
        if id(value) not in made:
            tensor = pb.tensor(value.detach().numpy())
            made[id(value)] = pb.nn.Parameter(tensor) if value.requires_grad else tensor
        return made[id(value)]
    if isinstance(value, dict):
        return {key: as_ours(item, made) for key, item in value.items()}
    return type(value)(as_ours(item, made) for item in value) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(("name", "place"), list(error_cases()))
def test_bad_options_raise_as_pytorch_says(name, place):
    case = INFOS[name].optim_error_inputs_func("cpu", torch.float32)[place]
    given = case.optimizer_error_input
    made = {}
    params = [pb.nn.Parameter(pb.ones(2, 2))] if given.params is None else as_ours(given.params, made)
    # parameters that are given twice, of which PyTorch warns, are refused
    kind = ValueError if case.error_type is UserWarning else case.error_type
    with pytest.raises(kind, match=case.error_regex):
        getattr(pb.optim, name)(params, **as_ours(given.kwargs, made))


@pytest.mark.parametrize("name", INFOS)
def test_signatures_are_pytorchs(name):
    def arguments(kind):
        found = inspect.signature(kind.__init__).parameters.values()
        return [(p.name, p.kind, p.default) for p in found if p.name != "self"]

    ours, theirs = (arguments(getattr(library.optim, name)) for library in (pb, torch))
    assert ours == theirs


# NAdam and RAdam with a decoupled decay keep a further group key; all groups must have PyTorch's keys
STATES = {
    "SGD": [{"lr": 0.02, "momentum": 0.9}, {"lr": 0.02}],
    "Adam": [{"amsgrad": True}],
    "AdamW": [{}],
    "Adamax": [{}],
    "NAdam": [{"decoupled_weight_decay": True, "weight_decay": 0.1}],
    "RAdam": [{}],
    "Adagrad": [{"initial_accumulator_value": 0.25, "lr_decay": 0.1}],
    "Adadelta": [{}],
    "RMSprop": [{"centered": True, "momentum": 0.5}],
    "Rprop": [{}],
    "ASGD": [{"t0": 2, "lambd": 0.1}],
    "Adafactor": [{"weight_decay": 0.1}],
    "Muon": [{}],
    "LBFGS": [{"max_iter": 3}, {"max_iter": 3, "line_search_fn": "strong_wolfe"}],
}


def to_torch(value):
    if isinstance(value, pb.Tensor):
        return torch.tensor(value.numpy())
    if isinstance(value, dict):
        return {key: to_torch(item) for key, item in value.items()}
    return [to_torch(item) for item in value] if isinstance(value, list) else value


def copied(source, target):
    for p, q in zip(source.parameters, target.parameters, strict=True):
        values = p.detach().numpy()
        with target.library.no_grad():
            q.copy_(target.library.tensor(values))
    target.number = source.number


@pytest.mark.parametrize(("name", "options"), [(name, o) for name, several in STATES.items() for o in several])
def test_states_go_both_ways(name, options):
    """A run begun in one library goes on in the other as it would have at home."""
    first, torchs, back = (Run(library, name, options, matrices=name == "Muon") for library in (torch, pb, torch))
    for _ in range(5):
        first.step()
    ours = torchs
    copied(first, ours)
    ours.optimizer.load_state_dict(first.optimizer.state_dict())
    first.optimizer.load_state_dict(first.optimizer.state_dict())  # NAdam goes on in the parameters' dtype from there
    for _ in range(4):
        first.step(), ours.step()
    assert_same(ours, first, tolerance=1e-12 if name == "NAdam" else 1e-10)
    mine, theirs = ours.optimizer.state_dict(), first.optimizer.state_dict()
    assert [set(group) for group in mine["param_groups"]] == [set(group) for group in theirs["param_groups"]]
    for number, held in theirs["state"].items():
        kept = {key: value for key, value in held.items() if value is not None}
        assert kept.keys() - {"al"} <= mine["state"][number].keys()
        for key, value in kept.items():
            if isinstance(value, torch.Tensor):
                assert tuple(mine["state"][number][key].shape) == tuple(value.shape), key
    copied(ours, back)
    back.optimizer.load_state_dict(to_torch(mine))
    for _ in range(4):
        first.step(), back.step()
    assert_same(back, first)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in INFOS if name != "LBFGS"])
def test_narrow_parameters_follow_within_their_precision(name, dtype):
    """The first steps: a rounding of a 16-bit state that falls the other way changes all that follow it."""
    options = {"eps": 1e-3} if name in ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop") else {}
    ours, theirs = (Run(library, name, options, dtype, matrices=name == "Muon") for library in (pb, torch))
    for _ in range(4):
        ours.step(), theirs.step()
    assert_same(ours, theirs, 2e-5 if dtype == "float32" else 0.05)
    assert all(p.dtype is ours.dtype for p in ours.parameters)
