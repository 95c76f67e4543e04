"""The registry of switches."""

import os
from pathlib import Path

import pytest

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
        ("cache_dir", "", None),
        ("verify", "1", True),
        ("verify", "No", False),
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
        ("verify", "perhaps"),
        ("debug", "graph,colour"),
    ],
)
def test_bad_value_names_variable_value_and_what_is_allowed(monkeypatch, name, text):
    switch = debug.SWITCHES[name]
    monkeypatch.setenv(switch.variable, text)
    with pytest.raises(ValueError) as caught:
        debug.get(name)
    for part in (switch.variable, repr(text), switch.allowed):
        assert part in str(caught.value)


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


def test_table_has_a_row_for_every_switch():
    lines = debug.table().splitlines()
    assert len(lines) == 2 + len(debug.SWITCHES)
    for line, switch in zip(lines[2:], debug.SWITCHES.values(), strict=True):
        assert line.startswith(f"| `{switch.variable}` |")
        assert line.count("|") == 5
