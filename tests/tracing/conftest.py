"""How steps look for others who hold their state."""

from __future__ import annotations

import pytest

from pullback.tracing.settled import Settled


@pytest.fixture(params=["shortcut", "counted"])
def counted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether references are counted at every step, or only where something has happened."""
    if request.param == "counted":
        monkeypatch.setattr(Settled, "is_calm", lambda self: False)
    return request.param == "counted"
