"""PyTorch's own database of modules as an oracle: its constructors and inputs in both libraries, everything compared.

`python tests/module_database.py NAME ...` tries every input of the modules of those names (or beginnings of names,
ending in `*`) and prints what differs; without names, all that there are.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pullback as pb
from operator_database import Outcome, agree, tensors_in, translated
from oracle import cotangent

#: modules that are not there or not whole, `name: reason` a line, sorted
NOT_YET = Path(__file__).parent / "nn" / "modules_not_yet.txt"


@cache
def database() -> dict[str, Any]:
    """The records of PyTorch's database by name, such as "nn.Linear"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_modules import module_db
    return {record.name: record for record in module_db}


def not_yet() -> dict[str, str]:
    """The names of the modules that are not there or not whole, with the reason."""
    lines = NOT_YET.read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines)  # type: ignore[misc]


def samples_of(record: Any, training: bool) -> Iterator[Any]:
    """What to construct the module with and call it on, in float64, the same at every call."""
    torch.default_generator.manual_seed(0)  # the function of that name notes the stack, each time
    np.random.seed(0)
    yield from record.module_inputs_func(
        record, device="cpu", dtype=torch.float64, requires_grad=True, training=training
    )


def moved(value: Any) -> Any:
    """An argument of PyTorch's as Pullback's, functions and packed sequences too."""
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return pb.nn.utils.rnn.PackedSequence(*[moved(part) for part in value])
    if isinstance(value, torch.nn.TransformerEncoderLayer):
        return encoder_layer(value)
    if isinstance(value, torch.nn.Module):
        return getattr(pb.nn, type(value).__name__)()
    if callable(value) and hasattr(torch.nn.functional, getattr(value, "__name__", "")):
        return getattr(pb.nn.functional, value.__name__)
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return type(value)([moved(v) for v in value])
    if isinstance(value, dict):
        return {k: moved(v) for k, v in value.items()}
    return translated(value)


def encoder_layer(theirs: Any) -> Any:
    """A layer of ours, constructed as PyTorch's was."""
    attention, first = theirs.self_attn, theirs.linear1
    return pb.nn.TransformerEncoderLayer(
        first.in_features,
        attention.num_heads,
        first.out_features,
        theirs.dropout.p,
        moved(theirs.activation),
        theirs.norm1.eps,
        attention.batch_first,
        theirs.norm_first,
        first.bias is not None,
    )


def apart(value: Any) -> Any:
    """An argument whose tensors are leaves of their own: a sample may hold one twice, or have one depend on another."""
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, (tuple, list)):
        return type(value)([apart(v) for v in value])
    return {k: apart(v) for k, v in value.items()} if isinstance(value, dict) else value


def both(record: Any, sample: Any, training: bool) -> tuple[Any, Any]:
    """PyTorch's module and ours, constructed alike, with PyTorch's state."""
    how = sample.constructor_input
    theirs = record.module_cls(*how.args, **how.kwargs).to(torch.float64).train(training)
    if record.is_lazy:
        theirs(*[a.detach() for a in sample.forward_input.args])
        theirs.zero_grad()
    made = getattr(pb.nn, record.name.removeprefix("nn."))(*moved(how.args), **moved(how.kwargs))
    ours = made.to(pb.float64).train(training)
    ours.load_state_dict({k: translated(v) for k, v in theirs.state_dict().items()})
    return ours, theirs


def compare_sample(record: Any, sample: Any, training: bool) -> None:
    """Assert PyTorch's outputs, gradients by inputs and parameters, state before and after, and printed form."""
    ours, theirs = both(record, sample, training)
    given, named = (apart(value) for value in (sample.forward_input.args, sample.forward_input.kwargs))
    mine = moved(given), moved(named)
    wanted = tensors_in(theirs(*given, **named))
    found = tensors_in(ours(*mine[0], **mine[1]))
    assert len(wanted) == len(found), f"gives {len(found)} tensors, PyTorch {len(wanted)}"
    for place, (a, b) in enumerate(zip(found, wanted, strict=True)):
        agree(a, b, f"output {place}")
    assert repr(ours) == repr(theirs), f"prints as {ours!r}, in PyTorch as {theirs!r}"
    state, their_state = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(their_state), f"state has {list(state)}, PyTorch's {list(their_state)}"
    for key, value in state.items():
        agree(value, their_state[key], f"{key} after the call")
    inputs = [
        (f"input {place}", a, b)
        for place, (a, b) in enumerate(zip(tensors_in(list(mine)), tensors_in([given, named]), strict=True))
    ]
    parameters = [(name, p, dict(theirs.named_parameters())[name]) for name, p in ours.named_parameters()]
    compare_gradients(found, wanted, [pair for pair in [*inputs, *parameters] if pair[2].requires_grad])


def compare_gradients(found: list[Any], wanted: list[Any], pairs: list[tuple[str, Any, Any]]) -> None:
    """Assert that all outputs have PyTorch's gradients by the pairs of tensors."""
    chosen = [place for place, t in enumerate(wanted) if t.requires_grad]
    if not chosen or not pairs:
        return
    seeds = [cotangent(wanted[place], place) for place in chosen]
    their_gradients = torch.autograd.grad(
        [wanted[place] for place in chosen],
        [b for _, _, b in pairs],
        [s.theirs() for s in seeds],
        allow_unused=True,
    )
    our_gradients = pb.autograd.grad(
        [found[place] for place in chosen], [a for _, a, _ in pairs], [s.ours() for s in seeds], allow_unused=True
    )
    for (name, like, other), a, b in zip(pairs, our_gradients, their_gradients, strict=True):
        a = pb.zeros_like(like) if a is None else a
        agree(a, torch.zeros_like(other) if b is None else b, f"gradient of {name}", slack=10)


def trial(name: str, most: int | None = None, modes: tuple[bool, ...] = (True, False)) -> Outcome:
    """Try the inputs of the module `name`, at most `most` of each mode, in training and in evaluation."""
    record, outcome = database()[name], Outcome()
    for training in modes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number, sample in enumerate(samples_of(record, training)):
                if most is not None and number >= most:
                    break
                outcome.samples += 1
                try:
                    compare_sample(record, sample, training)
                except Exception as error:
                    said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                    how = sample.constructor_input
                    mode = "training" if training else "evaluation"
                    outcome.failures.append(f"{name}(*{how.args}, **{how.kwargs}) in {mode}: {said}")
    return outcome


def main(names: list[str]) -> int:
    """Try the named modules, print what differs, and count."""
    torch.set_num_threads(1)
    chosen = [n for n in database() if any(n == g or (g.endswith("*") and n.startswith(g[:-1])) for g in names)]
    missing, failing = [], []
    for name in chosen if names else database():
        if not hasattr(pb.nn, name.removeprefix("nn.")):
            missing.append(name)
            continue
        outcome = trial(name)
        print(f"{name}: {outcome.samples - len(outcome.failures)} of {outcome.samples}", flush=True)
        for line in outcome.failures[:5]:
            print(f"    {line}")
        failing += [name] if outcome.failures else []
    print(f"missing: {' '.join(missing) or 'none'}\nfailing: {' '.join(failing) or 'none'}")
    return 1 if missing or failing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
