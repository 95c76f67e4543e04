"""Small trainings: nothing is found in a sound one, and in a faulty one what was put in, at its line."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import pullback as pb
from checkup.faulty import FAULTY, a_crash, all_frozen, nothing_at_all
from checkup.sound import SOUND
from checkup.trainings import Step, net, optim, plain
from pullback import debug


def examined(make: Callable[[], Step]) -> pb.checkup.Report:
    pb.manual_seed(0)
    with debug.override(backend="reference"):
        return pb.doctor(make(), steps=8)


@pytest.mark.parametrize("make", SOUND, ids=lambda make: make.__name__)
def test_nothing_is_found_in_a_sound_training(make: Callable[[], Step]) -> None:
    report = examined(make)
    assert report.ok, str(report)


@pytest.mark.parametrize(("make", "checks", "told"), FAULTY, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_wrong_is_found_at_its_line(make: Callable[[], Step], checks: list[str], told: str) -> None:
    report = examined(make)
    # where a loss does not fall, that is told beside the reason
    found: dict[str, Any] = {}
    for fault in report.faults:
        if not fault.check.startswith("loss falls"):
            found.setdefault(fault.check, fault)
    assert list(found) == checks, str(report)
    first = found[checks[0]]
    assert told in str(first) and first.mend
    lines, start = inspect.getsourcelines(make)
    marked = [start + number for number, line in enumerate(lines) if "# fault" in line]
    if marked:
        assert first.line == f"{inspect.getsourcefile(make)}:{marked[0]}"
    if make in (a_crash, nothing_at_all, all_frozen):
        assert all(finding.check not in ("train mode", "labels in range") for finding in report.findings)


def test_the_rate_that_is_advised_is_not_called_wrong_in_turn() -> None:
    def trained(value: float) -> Callable[[], Step]:
        def made() -> Step:
            model = net()
            return plain(model, optim.Adam(model.parameters(), lr=value))

        return made

    faults = {fault.check: fault.mend for fault in examined(trained(1e-9)).faults}
    assert faults["loss falls on one batch"] == "change the learning rate, see there"
    advised = faults["learning rate sane"].removeprefix("raise it, to ").removesuffix(" or so")
    assert examined(trained(float(advised))).ok, advised
