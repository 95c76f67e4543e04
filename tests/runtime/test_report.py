"""The table of PULLBACK_DEBUG=compile: its stages, its counts, its slowest kernels, and one table a compilation."""

import re

import numpy as np
import pytest

import pullback as pb
from pullback import timeline

pytestmark = pytest.mark.native("the reference compiles nothing")


def compiled(capsys, function, *arguments, **switches):
    """What compiling and running `function` prints to standard error."""
    capsys.readouterr()
    with pb.debug.override(debug="compile", **switches):
        pb.compile(function)(*arguments)
    return capsys.readouterr().err


def training(x):
    w = x.detach().requires_grad_()
    (w @ w).tanh().sum().backward()
    return w.grad


def test_stages_and_slowest_kernels_are_listed(capsys):
    x = pb.tensor(np.ones((11, 11), np.float32))
    printed = compiled(capsys, training, x, cache_dir=None)
    assert len(re.findall(r"^compile ", printed, re.MULTILINE)) == 1
    assert re.match(r"compile training: \d+\.\d+ s; \d+ kernels compiled, 0 from the cache \(off\)\n", printed)
    for stage in ("recording", "differentiate", "simplify", "canonicalize", "copies", "fuse", "groups and launches"):
        assert re.search(rf"^ +\d+\.\d+ s  {stage}", printed, re.MULTILINE), stage
    assert "meanwhile, on another thread:" in printed
    for stage in ("LLVM: read", "LLVM: optimize", "LLVM: generate"):
        assert re.search(rf"^ +\d+\.\d+ s  {stage}", printed, re.MULTILINE), stage
    _, _, slowest = printed.partition("the slowest of")
    assert re.search(rf"matmul.* float32\[11, 11\].* at {re.escape(__file__)}:\d+", slowest)
    assert not timeline.LISTENERS


def test_what_was_compiled_before_is_counted_apart(capsys):
    x = pb.tensor(np.ones((13, 13), np.float32))
    compiled(capsys, training, x)
    again = compiled(capsys, lambda x: training(x), x)
    assert re.search(r"; 0 kernels compiled, 0 from the cache", again)
    assert "the slowest of" not in again


def test_a_fault_prints_no_table_and_ends_the_listening(capsys):
    def wrong(x):
        return x @ pb.ones(3, 3)

    with pb.debug.override(debug="compile"), pytest.raises(pb.errors.ShapeError):
        pb.compile(wrong)(pb.ones(2, 2))
    assert "compile wrong" not in capsys.readouterr().err
    assert not timeline.LISTENERS
    assert compiled(capsys, training, pb.ones(3, 3)).startswith("compile ")
