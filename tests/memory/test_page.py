"""The page of a plan in a real browser, with no network: Chromium, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import pullback as pb
from benchmarks import workloads
from pullback.memory.sizes import format_bytes

pytest.importorskip("plotly")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1250,2200",
    "--virtual-time-budget=10000",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.html"
    pb.plan(workloads.build(pb, "mlp").step).save(path)
    return path


def test_the_page_fetches_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=", text)


def test_the_page_says_whether_the_budget_is_kept(tmp_path: Path) -> None:
    plan = pb.plan(workloads.build(pb, "mlp").step, memory="1KiB")
    plan.save(tmp_path / "plan.html")
    text = (tmp_path / "plan.html").read_text(encoding="utf-8")
    missed = format_bytes(plan.over_budget_bytes)
    assert f"the budget of 1 KiB, which is missed by {missed}." in text and "MISSES the budget of 1 KiB by" in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed to look at the page with")
def test_a_browser_draws_the_page(page: Path, tmp_path: Path) -> None:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path}", "--dump-dom", page.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    drawn = ran.stdout.split("</script>")[-1] if "</script>" in ran.stdout else ran.stdout
    peak = format_bytes(pb.plan(workloads.build(pb, "mlp").step).peak_bytes)
    assert ran.returncode == 0 and f"<h1>Plan of step: {peak} at the peak</h1>" in ran.stdout, ran.stderr
    document = ran.stdout
    assert document.count('class="main-svg"') >= 3, drawn[-2000:]
    # six roles over time, and a bar for each buffer
    assert len(re.findall(r'class="trace scatter ', document)) >= 6
    assert document.count('class="point"') >= 25
    for words in ("step of the schedule", "parameters", "0.weight float32[64, 128]", "workloads.py:"):
        assert words in document
