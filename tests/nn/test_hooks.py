"""Hooks of modules: when they run, what they see and replace, against PyTorch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.errors import GradientError, StateDictError, TraceError


def pair(library: Any) -> Any:
    """A module of two inputs and two outputs, with weights that are the same in both libraries."""

    class Pair(library.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = library.nn.Parameter(library.tensor([2.0, 3.0]))

        def forward(self, x: Any, y: Any, scale: float = 1.0) -> Any:
            return x * y * scale, (x + y) * self.weight

    return Pair()


def forward_events(library: Any) -> list[Any]:
    """What forward hooks of every kind see and make of a call."""
    module, events = pair(library), []
    x, y = library.tensor([1.0, 2.0]), library.tensor([5.0, 7.0])
    module.register_forward_pre_hook(lambda m, args: events.append("second") or (args[0] + 1, args[1]))
    module.register_forward_pre_hook(lambda m, args: events.append("first"), prepend=True)
    module.register_forward_pre_hook(lambda m, args, kwargs: (args, {"scale": 10.0}), with_kwargs=True)
    module.register_forward_hook(lambda m, args, out: events.append(args[0].tolist()))
    module.register_forward_hook(lambda m, args, kwargs, out: (out[0], kwargs["scale"]), with_kwargs=True)
    module.register_forward_hook(lambda m, args, out: events.append(out[0].tolist()), prepend=True)
    handle = module.register_forward_hook(lambda m, args, out: "replaced")
    events.append(module(x, y))
    handle.remove()
    first, second = module(x, y)
    events += [first.tolist(), second]
    return events


def test_forward_hooks_see_and_replace_what_pytorchs_do() -> None:
    assert forward_events(pb) == forward_events(torch)


def backward_events(library: Any, inputs_need: bool = True) -> list[Any]:
    """Gradients that backward hooks see, and those that result where they replace them."""
    module, events = pair(library), []
    x = library.tensor([1.0, 2.0], requires_grad=inputs_need)
    y = library.tensor([5.0, 7.0], requires_grad=inputs_need)

    def note(who: str, *gradients: Any) -> None:
        events.append((who, *[[None if g is None else g.tolist() for g in gs] for gs in gradients]))

    module.register_full_backward_pre_hook(lambda m, out: note("before", out) or (out[0], out[1] * 2))
    module.register_full_backward_hook(lambda m, into, out: note("after", into, out))
    if inputs_need:
        module.register_full_backward_hook(lambda m, into, out: (into[0] * 10, into[1]))
    first, second = module(x * 1, y * 1)
    (first.sum() + (second * second).sum()).backward()
    return [*events, *[None if t.grad is None else t.grad.tolist() for t in (x, y, module.weight)]]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("inputs_need", [True, False])
def test_backward_hooks_see_and_replace_what_pytorchs_do(inputs_need: bool) -> None:
    assert backward_events(pb, inputs_need) == backward_events(torch, inputs_need)


def network_events(library: Any) -> list[Any]:
    """Hooks of every module, while a network is trained for one step."""
    network = library.nn.Sequential(library.nn.Linear(2, 2), library.nn.Tanh(), library.nn.Linear(2, 1))
    for number, parameter in enumerate(network.parameters()):
        parameter.data = library.full(tuple(parameter.shape), 0.1 * (number + 1))
    events: list[Any] = []
    where = library.nn.modules.module
    handles = [
        where.register_module_forward_pre_hook(lambda m, a: events.append(("in", type(m).__name__))),
        where.register_module_forward_hook(lambda m, a, out: events.append(("out", out.tolist()))),
        where.register_module_full_backward_hook(lambda m, i, o: events.append((type(m).__name__, o[0].tolist()))),
        where.register_module_full_backward_pre_hook(lambda m, o: events.append(("pre", o[0].tolist()))),
    ]
    with handles[0]:
        network(library.tensor([[1.0, 2.0]])).sum().backward()
    for handle in handles[1:]:
        handle.remove()
    network(library.tensor([[1.0, 2.0]]))
    return events


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_hooks_of_all_modules_run_in_pytorchs_order_and_stop_when_removed() -> None:
    ours, theirs = network_events(pb), network_events(torch)
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    for (_, a), (_, b) in zip(ours, theirs, strict=True):
        if isinstance(a, str):
            assert a == b
        else:
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_hook_becomes_part_of_a_compiled_step_which_follows_its_coming_and_going() -> None:
    layer = pb.nn.Linear(2, 1)
    x = pb.ones(1, 2)
    step = pb.compile(lambda x: layer(x).sum())
    plain = step(x).item()
    calls: list[int] = []
    handle = layer.register_forward_hook(lambda m, args, out: calls.append(1) or out * 3)
    assert [step(x).item() for _ in range(2)] == [pytest.approx(3 * plain)] * 2
    assert len(calls) == 1
    handle.remove()
    assert step(x).item() == pytest.approx(plain)
    layer.register_forward_hook(lambda m, args, out: print(out.sum().item()))
    with pytest.raises(TraceError, match="the value of a tensor was asked for"):
        step(x)


def test_a_backward_hook_runs_while_a_step_is_recorded_and_changes_what_is_learned() -> None:
    layer = pb.nn.Linear(2, 1, bias=False)
    first = pb.nn.Linear(2, 2, bias=False)
    layer.register_full_backward_hook(lambda m, into, out: (into[0] * 0,))
    optimizer = pb.optim.SGD([*first.parameters(), *layer.parameters()], lr=0.1)

    @pb.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = layer(first(x)).sum()
        loss.backward()
        optimizer.step()
        return loss

    kept, changed = first.weight.tolist(), layer.weight.tolist()
    step(pb.ones(3, 2)), step(pb.ones(3, 2))
    assert first.weight.tolist() == kept and layer.weight.tolist() != changed


def test_hooks_that_are_always_called_run_where_forward_fails() -> None:
    module, calls = pair(pb), []
    module.register_forward_hook(lambda m, args, out: calls.append("never"))
    module.register_forward_hook(lambda m, args, out: calls.append(out), always_call=True)
    with pytest.raises(TypeError):
        module(1.0)
    assert calls == [None]


def test_backward_hooks_that_return_too_few_gradients_are_refused() -> None:
    module = pair(pb)
    module.register_full_backward_hook(lambda m, into, out: (into[0],))
    x = pb.ones(2, requires_grad=True)
    with pytest.raises(GradientError, match="as many grad_input as it gets, 2, got 1"):
        module(x, x)[0].sum().backward()
    with pytest.raises(NotImplementedError, match="register_full_backward_hook"):
        module.register_backward_hook(print)


def test_registration_hooks_see_what_is_registered_and_may_replace_it() -> None:
    seen: list[str] = []
    where = pb.nn.modules.module
    with (
        where.register_module_parameter_registration_hook(lambda m, name, p: seen.append(name)),
        where.register_module_buffer_registration_hook(lambda m, name, b: b * 2),
        where.register_module_module_registration_hook(lambda m, name, part: pb.nn.Tanh() if name == "x" else None),
    ):
        module = pb.nn.Module()
        module.p, module.x = pb.nn.Parameter(pb.ones(1)), pb.nn.Identity()
        module.register_buffer("b", pb.ones(1))
    assert seen == ["p"] and module.b.tolist() == [2.0] and isinstance(module.x, pb.nn.Tanh)


def state_events(library: Any) -> list[Any]:
    """Hooks of state dictionaries, extra state, prefixes, and keys that a hook renames."""
    events: list[Any] = []

    class Counted(library.nn.Linear):
        count = 7

        def get_extra_state(self) -> Any:
            return {"count": self.count}

        def set_extra_state(self, state: Any) -> None:
            self.count = state["count"] + 1

    network = library.nn.Sequential(Counted(1, 1), library.nn.BatchNorm1d(1))
    network.register_state_dict_pre_hook(lambda m, prefix, keep: events.append((prefix, keep)))
    network[0].register_state_dict_post_hook(lambda m, state, prefix, meta: state.update({prefix + "old": 1}))
    state = network.state_dict(prefix="a.", keep_vars=True)
    events += [list(state), state["a.0._extra_state"], state["a.0.weight"].requires_grad]
    state = network.state_dict()
    network[0].register_load_state_dict_pre_hook(lambda m, state, prefix, *rest: state.pop(prefix + "old"))
    network.register_load_state_dict_post_hook(lambda m, keys: events.append([sorted(k) for k in keys]))
    del state["1.running_mean"]
    result = network.load_state_dict(state, strict=False)
    events += [network[0].count, list(result.missing_keys), list(result.unexpected_keys)]
    network.register_load_state_dict_post_hook(
        lambda m, keys: keys.missing_keys.clear() or keys.unexpected_keys.clear()
    )
    network.load_state_dict(state)
    return events


def test_hooks_and_extra_state_of_state_dictionaries_are_pytorchs() -> None:
    assert state_events(pb) == state_events(torch)


def test_a_dictionary_that_does_not_fit_changes_nothing_even_where_a_part_did() -> None:
    network = pb.nn.Sequential(pb.nn.Linear(2, 2), pb.nn.Linear(2, 1))
    before = {k: v.tolist() for k, v in network.state_dict().items()}
    state = {k: pb.zeros(*v.shape) for k, v in network.state_dict().items()}
    for assign in (False, True):
        with pytest.raises(StateDictError, match=r"1\.weight"):
            network.load_state_dict({**state, "1.weight": pb.zeros(3)}, assign=assign)
        assert {k: v.tolist() for k, v in network.state_dict().items()} == before


def test_assign_takes_the_tensors_themselves() -> None:
    layer, theirs = pb.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    given = {"weight": pb.ones(1, 2, dtype=pb.float64), "bias": pb.nn.Parameter(pb.ones(1))}
    theirs.load_state_dict(
        {"weight": torch.ones(1, 2).double(), "bias": torch.nn.Parameter(torch.ones(1))}, assign=True
    )
    layer.bias.requires_grad_(False)
    layer.load_state_dict(given, assign=True)
    assert layer.weight.dtype is pb.float64 and theirs.weight.dtype is torch.float64
    assert layer.bias is given["bias"] and not layer.bias.requires_grad and layer.weight.requires_grad


def test_a_copy_has_hooks_of_its_own() -> None:
    layer = pb.nn.Linear(2, 1)
    layer.register_forward_hook(lambda m, args, out: out * 0)
    copied = copy.deepcopy(layer)
    copied.register_forward_hook(lambda m, args, out: out + 1)
    assert copied(pb.ones(1, 2)).tolist() == [[1.0]] and layer(pb.ones(1, 2)).tolist() == [[0.0]]


def test_parts_and_buffers_are_found_and_replaced_by_dotted_names() -> None:
    network = pb.nn.Sequential(pb.nn.Sequential(pb.nn.BatchNorm1d(2)))
    assert network.get_buffer("0.0.running_mean") is network[0][0].running_mean
    network.set_submodule("0.0", pb.nn.Tanh(), strict=True)
    assert isinstance(network[0][0], pb.nn.Tanh)
    with pytest.raises(AttributeError, match=r"no module '0\.1'"):
        network.set_submodule("0.1", pb.nn.Tanh(), strict=True)
    with pytest.raises(AttributeError, match="no buffer"):
        network.get_buffer("0.0.x")
    with pytest.raises(ValueError, match="cuda"):
        network.cuda()
