"""Tensors whose values have not been computed: what shares work is computed at once, and nothing else is looked at."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import pullback as pb

pending = import_module("pullback.tensor.pending")


@pytest.fixture(params=["few", "many"])
def others(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[pb.Tensor]]:
    """Tensors that wait for their values meanwhile, and that nothing else has to do with."""
    monkeypatch.setattr(pending, "_FEW", 0 if request.param == "many" else 10**6)
    yield [pb.randn(3) for _ in range(50)]


def is_computed(tensor: pb.Tensor) -> bool:
    return tensor._node.buffer is not None


def test_what_shares_work_is_computed_with_it(others: list[pb.Tensor]) -> None:
    for _ in range(4):  # fresh at first, in the index then
        x = pb.randn(4)
        y = x.exp()
        kept = [y * 2, y.sum(), (y + 1).log()]
        others += [pb.randn(3) for _ in range(50)]
        changed = pb.ones(4)
        changed.mul_(y)
        assert kept[1].item() == pytest.approx(float(np.exp(x.numpy()).sum()), rel=1e-5)
        assert all(map(is_computed, (y, changed, *kept)))
        late = y * 3
        assert not is_computed(late) and late.numpy().tolist() == pytest.approx((3 * y.numpy()).tolist())
    assert not any(map(is_computed, others))


def test_what_was_changed_waits_for_its_new_value(others: list[pb.Tensor]) -> None:
    x, z = pb.ones(3), pb.ones(3)
    for turn in range(5):
        others[turn].numpy()  # what waits is looked through
        x.add_(z)
        y = x * 2
        assert y.tolist() == [2.0 * (turn + 2)] * 3
        assert is_computed(x)


def test_those_that_are_gone_are_not_looked_for(others: list[pb.Tensor]) -> None:
    before = len(pending._PENDING)
    made = [pb.randn(3) for _ in range(100)]
    assert len(pending._PENDING) == before + 100
    others[0].numpy()
    del made
    gc.collect()
    assert len(pending._PENDING) <= before


def test_the_parameters_of_a_model_are_not_gone_through_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first value of each of n parameters would take n² steps."""
    count, met = 1000, list[int]()
    waiting_for = pending._waiting_for

    def counting(serials: Any) -> Any:
        found = waiting_for(serials)
        met.append(len(found))
        return found

    monkeypatch.setattr(pending, "_waiting_for", counting)
    parameters = [pb.nn.Parameter(pb.randn(2)) for _ in range(count)]
    for parameter in parameters:
        assert len(parameter.detach().numpy()) == 2
    assert sum(met) <= count**2 / 20, f"{sum(met)} tensors were gone through for {count} values"
