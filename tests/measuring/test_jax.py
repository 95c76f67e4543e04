"""The networks written for JAX are those written for PyTorch: the same weights and data give the same losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import workloads

pytest.importorskip("jax", reason="JAX is a peer in benchmarks only (pip install '.[bench]')")
pytest.importorskip("optax", reason="optax is a peer in benchmarks only (pip install '.[bench]')")
from benchmarks import workloads_jax

SMALL: dict[str, dict[str, int]] = {
    "gpt-char": dict(layers=1, batch=2),
    "resnet20": dict(blocks=2, batch=4, size=16),
}


def losses(name: str, steps: int, **options: Any) -> tuple[list[float], list[float]]:
    torch.manual_seed(0)
    theirs = workloads.build(torch, name, **options)
    ours = workloads_jax.build(name, **options)
    ours.load_state_dict({key: value.detach().numpy() for key, value in theirs.model.state_dict().items()})
    expected = [theirs.step().item() for _ in range(steps)]
    return [ours.step().item() for _ in range(steps)], expected


# the other transformers are the same network
@pytest.mark.parametrize("name", [name for name in workloads.NAMES if name not in ("gpt-mid", "gpt2")])
def test_first_losses_are_pytorchs(name: str) -> None:
    found, expected = losses(name, 4, **SMALL.get(name, {}))
    # the first step of resnet20 amplifies the last bits of its gradients
    np.testing.assert_allclose(found, expected, rtol=1e-2 if name == "resnet20" else 1e-4)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    assert found[-1] != found[0]


def test_losses_in_bfloat16_are_pytorchs_under_autocast() -> None:
    small = dict(context=8, layers=1, batch=2)
    found, expected = losses("gpt-char", 3, bf16=True, **small)
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    torch.manual_seed(0)
    exact = workloads.build(torch, "gpt-char", **small).forward().item()
    assert abs(found[0] - exact) > 1e-5 * exact, "these are the losses in float32"


def test_the_network_of_a_width_is_pytorchs() -> None:
    theirs = workloads.width_network(torch, 7, 5)
    ours = workloads_jax.width_network(7, 5)
    ours.load_state_dict({key: value.detach().numpy() for key, value in theirs.model.state_dict().items()})
    for _ in range(3):
        np.testing.assert_allclose(ours.step().item(), theirs.step().item(), rtol=1e-5)


def test_an_unknown_workload_is_refused() -> None:
    with pytest.raises(ValueError, match="'nothing'"):
        workloads_jax.build("nothing")
