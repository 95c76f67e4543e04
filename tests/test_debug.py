"""The registry of switches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pullback as pb
from pullback import debug


def test_defaults(monkeypatch):
    for switch in debug.SWITCHES.values():
        monkeypatch.delenv(switch.variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", os.sep + "x")
    assert debug.get("backend") == "native"
    assert debug.get("cpu") == ""
    assert debug.get("num_threads") is None
    assert debug.get("cache_dir") == Path(os.sep + "x") / "pullback"
    assert debug.get("verify") is False
    assert debug.get("debug") == frozenset()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("backend", "reference", "reference"),
        ("num_threads", " 3 ", 3),
        ("cache_dir", "off", None),
        ("cache_dir", " OFF ", None),
        ("cache_bytes", "1000", 1000),
        ("debug", " compile", frozenset({"compile"})),
        ("verify", "1", True),
        ("verify", "0", False),
        ("debug", "graph, plan", frozenset({"graph", "plan"})),
    ],
)
def test_environment(monkeypatch, name, text, value):
    monkeypatch.setenv(debug.SWITCHES[name].variable, text)
    assert debug.get(name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("backend", "cuda"),
        ("num_threads", "0"),
        ("num_threads", "many"),
        ("num_threads", "1.5"),
        ("num_threads", "100000"),
        ("num_threads", "1_0"),
        ("cache_dir", "~there-is-no-such-user/cache"),
        ("verify", "yes"),
        ("verify", "True"),
        ("verify", "2"),
        ("debug", "graph,colour"),
        ("debug", "graph,,"),
        ("debug", ","),
        ("cache_bytes", "512M"),
        ("cache_bytes", "-1"),
    ],
)
def test_bad_value_names_variable_value_and_what_is_allowed(monkeypatch, name, text):
    switch = debug.SWITCHES[name]
    monkeypatch.setenv(switch.variable, text)
    with pytest.raises(ValueError) as caught:
        debug.get(name)
    for part in (switch.variable, repr(text), switch.allowed):
        assert part in str(caught.value)


@pytest.mark.parametrize(("name", "text"), [("verify", "yes"), ("num_threads", "0"), ("debug", "colour")])
def test_importing_refuses_a_bad_value_of_any_switch(name, text):
    switch = debug.SWITCHES[name]
    environment = {**os.environ, "PULLBACK_BACKEND": "reference", switch.variable: text}
    command = [sys.executable, "-c", "import pullback"]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"ValueError: {switch.variable}={text!r} is not allowed: expected {switch.allowed}"


def test_override_nests_and_restores(monkeypatch):
    monkeypatch.setenv("PULLBACK_VERIFY", "0")
    with debug.override(verify=True, debug=("graph",)):
        assert debug.get("verify") is True
        with debug.override(verify=False, cache_dir=None):
            assert debug.get("verify") is False
            assert debug.get("cache_dir") is None
            assert debug.get("debug") == {"graph"}
        assert debug.get("verify") is True
    assert debug.get("verify") is False
    assert debug.get("debug") == frozenset()


def test_override_restores_after_an_exception():
    with pytest.raises(KeyError), debug.override(backend="reference"):
        raise KeyError
    assert debug.get("backend") == "native"


def test_override_rejects_bad_values_and_unknown_switches():
    with pytest.raises(ValueError, match="PULLBACK_BACKEND='gpu'"), debug.override(verify=True, backend="gpu"):
        pass
    assert debug.get("verify") is False
    with pytest.raises(ValueError, match="no switch 'colour'"), debug.override(colour=1):
        pass


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_value_is_as_if_it_were_not_set(monkeypatch, text):
    for switch in debug.SWITCHES.values():
        monkeypatch.delenv(switch.variable, raising=False)
    unset = {name: debug.get(name) for name in debug.SWITCHES}
    for switch in debug.SWITCHES.values():
        monkeypatch.setenv(switch.variable, text)
    assert {name: debug.get(name) for name in debug.SWITCHES} == unset
    with debug.override(**dict.fromkeys(debug.SWITCHES, text)):
        assert {name: debug.get(name) for name in debug.SWITCHES} == unset


@pytest.mark.parametrize(
    ("name", "value"),
    [("cache_dir", 3), ("cache_dir", True), ("num_threads", True), ("num_threads", 2.0), ("verify", 1), ("debug", 1)],
)
def test_override_refuses_values_of_other_types(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r} is not allowed: expected"), debug.override(**{name: value}):
        pass


def test_a_variable_that_is_no_switch_warns_once_with_the_nearest_name():
    environment = {**os.environ, "PULLBACK_BACKEND": "reference", "PULLBACK_THREADS": "2"}
    command = [sys.executable, "-c", "import pullback, pullback.debug; pullback.ones(1).tolist()"]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=True)
    assert done.stderr.count("PULLBACK_THREADS is no switch") == 1
    assert "did you mean PULLBACK_NUM_THREADS?" in done.stderr


def test_table_has_a_row_for_every_switch():
    lines = debug.table().splitlines()
    assert len(lines) == 2 + len(debug.SWITCHES)
    for line, switch in zip(lines[2:], debug.SWITCHES.values(), strict=True):
        assert line.startswith(f"| `{switch.variable}` |")
        assert line.count("|") == 5


def test_the_plan_of_what_is_compiled_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    x = pb.ones(1000)
    with debug.override(debug="plan"):
        step = pb.compile(lambda: (x * 2).sum())
        step()
        step()
    printed = capsys.readouterr().err
    assert printed.count("plan of ") == 1 and "at the peak" in printed
