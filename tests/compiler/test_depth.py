"""Deep graphs compile without recursion running out and without kernels growing without bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import pullback as pb

CHAINS: dict[str, tuple[int, Callable[[pb.Tensor, int], pb.Tensor]]] = {
    "elementwise": (3000, lambda y, i: y * 0.9999 if i % 2 else y.sin()),
    "movement": (3000, lambda y, i: y.flip(0) if i % 2 else y.reshape(8, 8).T.reshape(64)),
    "movement and sums": (1000, lambda y, i: (y.reshape(8, 8) + y.reshape(8, 8).T).reshape(64) * 0.5),
    "row reductions": (300, lambda y, i: y - y.mean() * 0.1),
    "slices and pads": (400, lambda y, i: pb.cat([y[1:], y[:1]])),
}


@pytest.mark.parametrize("name", CHAINS)
def test_deep_chains_and_their_gradients(name: str) -> None:
    count, function = CHAINS[name]
    results = []
    for backend in ("native", "reference"):
        with pb.debug.override(backend=backend):
            x = pb.linspace(0.1, 1.0, 64).requires_grad_()
            y = x
            for i in range(count):
                y = function(y, i)
            (y * pb.arange(64)).sum().backward()
            results.append((y.detach().numpy(), x.grad.numpy()))
    for native, reference in zip(*results, strict=True):
        np.testing.assert_allclose(native, reference, rtol=2e-4, atol=1e-6)
