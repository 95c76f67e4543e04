"""From the same weights, Pullback's losses follow PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pullback as pb
from benchmarks import workloads


# gpt2 is the same network as the other transformers, and large
@pytest.mark.parametrize("name", [name for name in workloads.NAMES if name != "gpt2"])
def test_first_twenty_losses_are_pytorchs(name: str) -> None:
    sizes = {"gpt-mid": dict(layers=2, batch=1), "resnet20": dict(blocks=1, batch=8, size=16)}
    small: dict[str, int] = sizes.get(name, {})
    torch.manual_seed(0)
    theirs = workloads.build(torch, name, **small)
    ours = workloads.build(pb, name, **small)
    workloads.copy_weights(theirs.model, ours.model, pb)
    step = pb.compile(ours.step)
    expected = [theirs.step().item() for _ in range(20)]
    found = [step().item() for _ in range(20)]
    # batch normalization over few numbers: PyTorch's own losses stray by a thousandth from those in float64
    relative = 5e-3 if name == "resnet20" else 2e-4
    np.testing.assert_allclose(found, expected, rtol=relative, atol=1e-6, err_msg=f"{name}: first 20 losses")


@pytest.mark.parametrize("name", ["gpt-char", "gpt-mid"])
def test_losses_under_autocast_to_bfloat16_are_pytorchs(name: str) -> None:
    """bfloat16 has 8 bits: PyTorch's own losses differ by 2e-4 between its bfloat16 and its float32 here."""
    small = {"gpt-mid": dict(layers=2, batch=1)}.get(name, {})
    torch.manual_seed(0)
    theirs = workloads.build(torch, name, bf16=True, **small)
    ours = workloads.build(pb, name, bf16=True, **small)
    workloads.copy_weights(theirs.model, ours.model, pb)
    step = pb.compile(ours.step)
    expected = [theirs.step().item() for _ in range(20)]
    found = [step().item() for _ in range(20)]
    np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=f"{name}: losses of the first 20 steps")
