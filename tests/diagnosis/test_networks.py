"""Networks with a fault each, of a known place: the short form of `python -m benchmarks.faults`."""

import pytest

from benchmarks import faults

CASES = faults.cases(100, seed=0)[::9]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "anomaly"])
def test_the_fault_is_found_and_named(case: faults.Case, compiled: bool) -> None:
    assert faults.run(case, compiled) == []
