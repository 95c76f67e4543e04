"""A run killed at random moments ends in the bytes of one that nobody killed (in full: python -m benchmarks.kills)."""

import subprocess
import sys


def test_killed_runs_go_on_bit_for_bit_and_damaged_files_are_passed_over() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.kills", "--kills=3", "--damages=40", "--steps=20"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 ended in other bytes" in found.stdout
    assert "40 damaged files: 0 accepted or not named" in found.stdout
