"""Whatever happens between compiled steps, everybody sees the values that steps which are not compiled give."""

from __future__ import annotations

import numpy as np
import pytest

from stories import Story, told


@pytest.mark.parametrize("seed", [0, 1, 4, 14, 15, 19, 24, 47])
@pytest.mark.parametrize("turns", ["apart", "in turns"])
def test_compiled_steps_are_seen_as_others_are(seed: int, turns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that are held, detached, shown, added to, changed in place and dropped, with arenas shared or not."""
    if turns == "in turns":
        monkeypatch.setattr("pullback.runtime.native.SHARED_FROM", 0)
    ours, plain = (Story(compiled, clip=bool(seed % 2)) for compiled in (True, False))
    happened = []
    for what, rows, is_read in told(seed):
        happened.append((what, rows))
        ours.do(what, rows)
        plain.do(what, rows)
        if is_read:
            found, wanted = ours.values(), plain.values()
            assert len(found) == len(wanted)
            for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
                np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-5, err_msg=f"{number} after {happened}")
