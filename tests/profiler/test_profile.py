"""The profiler: what it names, counts and attributes; its table and its trace; several threads, nesting, errors."""

import dataclasses
import json
import math
import subprocess
import sys
import threading

import numpy as np
import pytest

import pullback as pb
from pullback import timeline
from pullback.codegen.text import Code
from pullback.runtime import jit, limits
from pullback.runtime.stamps import BEGIN, BUSY, END, TASKS, StampedSchedule

F = pb.nn.functional
# how operations are fused into kernels is told by the native backend alone
compiled_code = pytest.mark.native("no kernels on the reference")


def small_step():
    """A compiled training step of two layers, run once, and its batch."""
    pb.manual_seed(0)
    model = pb.nn.Sequential(pb.nn.Linear(16, 32), pb.nn.GELU(), pb.nn.Linear(32, 4))
    optimizer = pb.optim.Adam(model.parameters(), lr=1e-3)

    @pb.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = pb.randn(8, 16), pb.randint(0, 4, (8,))
    step(x, y)
    return step, x, y


@compiled_code
def test_kernels_are_named_by_what_the_user_called():
    step, x, y = small_step()
    with pb.profile() as prof:
        for _ in range(3):
            step(x, y)
    operations = {row.name: row for row in prof.operations}
    assert {"linear", "linear backward", "gelu", "cross_entropy", "optimizer.step"} <= set(operations)
    assert any(row.name.startswith("linear + gelu") for row in prof.kernels)
    assert {row.calls for row in prof.kernels} == {3}
    # the products of the forward pass: 2 m n k each, and their biases
    assert operations["linear"].operations == 3 * (2 * 8 * 16 * 32 + 2 * 8 * 32 * 4 + 8 * 32 + 8 * 4)


def test_sums_agree():
    step, x, y = small_step()
    with pb.profile() as prof:
        for _ in range(20):
            step(x, y)
    kernels, lines, operations = prof.kernels, prof.lines, prof.operations
    for name in ("seconds", "operations", "nbytes", "least_seconds"):
        sums = [math.fsum(getattr(row, name) for row in rows) for rows in (kernels, lines, operations)]
        assert sums == pytest.approx([sums[0]] * 3), name
        assert sums[0] > 0
    whole = math.fsum(row.seconds for row in (*kernels, *prof.python))
    assert whole == pytest.approx(prof.seconds, rel=1e-3)
    assert all(row.seconds >= 0 for row in (*kernels, *prof.python))
    assert [row.seconds for row in kernels] == sorted((row.seconds for row in kernels), reverse=True)


@compiled_code
def test_lines_are_the_users():
    w = pb.tensor(np.eye(8, dtype=np.float32))
    with pb.profile() as prof:
        a = (w @ w).tanh()
        b = a.softmax(-1)
        b.sum().item()
    codes = {row.code for row in prof.lines}
    assert codes == {"a = (w @ w).tanh()", "b = a.softmax(-1)", "b.sum().item()"}
    assert all(row.source.startswith(f"{__file__}:") for row in prof.lines)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_profiled_step_computes_the_same_bits(threads):
    before = pb.get_num_threads()
    pb.set_num_threads(threads)
    try:
        x = pb.randn(300, 200, generator=pb.Generator().manual_seed(1))
        product = pb.compile(lambda x: ((x @ x.T).tanh() @ x).sum(0))
        plain = product(x).numpy()
        with pb.profile() as prof:
            profiled = product(x).numpy()
        np.testing.assert_array_equal(plain, profiled)
        assert sum(row.seconds for row in prof.kernels) > 0
        np.testing.assert_array_equal(plain, product(x).numpy())
    finally:
        pb.set_num_threads(before)


WAIT = Code(
    "wait_a_little",
    """define void @wait_a_little(ptr %args, ptr %scratch, i64 %task) nounwind {
entry:
  %slept = call i32 @usleep(i32 200)
  ret void
}
declare i32 @usleep(i32)
""",
)


@pytest.mark.parametrize("threads", [1, 2])
def test_stamps_tell_order_and_tasks(threads):
    address = jit.load([WAIT])["wait_a_little"]
    schedule = StampedSchedule([(address, 0, 3), (address, 0, 0), (address, 0, 1)], threads, 0)
    for _ in range(2):
        begin = timeline.now()
        stamps = schedule.run()
        end = timeline.now()
        assert stamps.shape == (3, threads, 4)
        assert stamps[:, :, TASKS].sum(1).tolist() == [3, 0, 1]
        ran = stamps[stamps[:, :, TASKS] > 0]
        assert begin <= ran[:, BEGIN].min() < ran[:, END].max() <= end
        assert (ran[:, BUSY] >= 200_000 * ran[:, TASKS]).all()
        assert (ran[:, END] - ran[:, BEGIN] >= ran[:, BUSY]).all()
        assert stamps[0, :, END].max() <= stamps[2, 0, BEGIN]


@compiled_code
def test_without_a_profile_nothing_is_stamped():
    step, x, y = small_step()
    step(x, y)
    assert not timeline.LISTENERS
    assert all(stage.stamped is None for stage in step.program.stages)
    with pb.profile() as prof:
        step(x, y)
    step(x, y)
    assert {row.calls for row in prof.kernels} == {1}


@compiled_code
def test_the_table_shows_rows_and_sorts():
    step, x, y = small_step()
    with pb.profile() as prof:
        step(x, y)
    assert str(prof) == prof.table(by="kernel", sort="time", rows=20)
    for by in ("kernel", "line", "operation"):
        for sort in ("time", "calls", "operations", "bytes", "limit", "name"):
            lines = prof.table(by=by, sort=sort, rows=3).splitlines()
            assert lines[0].split()[:2] == ["calls", "time"]
            assert len(lines[2:]) >= 3
    names = [row.name for row in prof.operations]
    shown = [line.split("  ")[0] for line in prof.table(by="operation", sort="name", rows=99).splitlines()[2:]]
    assert shown[: len(names)] == sorted(names)
    assert f"({len(prof.kernels) - 2} more)" in prof.table(rows=2)


@compiled_code
def test_python_around_kernels_has_rows_of_its_own():
    @pb.compile
    def fresh(x):
        return pb.utils.host_call(np.sort, (4,), pb.float32, x * 3.0) + pb.linalg.solve(matrix, x)

    matrix = pb.eye(4) * 2.0
    x = pb.tensor([3.0, 1.0, 2.0, 0.0])
    with pb.profile() as prof:
        fresh(x)
    rows = {row.name: row for row in prof.python}
    assert {"Python: recording a step", "compiling", "host_call", "between kernels"} <= set(rows)
    assert "solve, a host_call" in rows
    assert (
        rows["host_call"].code
        == "return pb.utils.host_call(np.sort, (4,), pb.float32, x * 3.0) + pb.linalg.solve(matrix, x)"
    )
    assert rows["compiling"].seconds > 0


@compiled_code
def test_undecorated_code_is_profiled():
    x = pb.tensor(np.eye(32, dtype=np.float32)).requires_grad_()
    with pb.profile() as prof:
        for _ in range(2):
            x.grad = None
            (x @ x).sin().sum().backward()
            x.grad.tolist()
    assert {row.calls for row in prof.kernels} == {2}
    assert "sin backward" in {row.name for row in prof.operations}
    assert "Python: computing what is pending" in {row.name for row in prof.python}


@compiled_code
def test_profiles_nest_and_are_entered_again():
    double = pb.compile(lambda x: x * 2.0)
    x = pb.ones(4)
    double(x)
    outer, inner = pb.profile(), pb.profile()
    with outer:
        double(x)
        with inner:
            double(x)
        with pytest.raises(RuntimeError, match="is not being taken"):
            pb.profile().__exit__(None, None, None)
        with pytest.raises(RuntimeError, match="being taken already"), outer:
            pass
    assert (outer.kernels[0].calls, inner.kernels[0].calls) == (2, 1)
    with inner:
        double(x)
    assert (outer.kernels[0].calls, inner.kernels[0].calls) == (2, 2)
    assert not timeline.LISTENERS and not timeline.PROFILES


@compiled_code
def test_an_error_inside_ends_the_profile():
    table = pb.randn(4, 2)

    @pb.compile
    def rows(index):
        return F.embedding(index, table)

    rows(pb.tensor([1]))
    prof = pb.profile()
    with pytest.raises(pb.errors.IndexOutOfRange), prof:
        rows(pb.tensor([7]))
    assert not timeline.PROFILES
    assert [row.name for row in prof.kernels] == ["check of embedding"]
    assert rows(pb.tensor([2])).shape == (1, 2)


def test_an_empty_profile_has_a_table():
    with pb.profile() as prof:
        pass
    assert prof.kernels == prof.lines == prof.operations == []
    assert "in all, 0 ns in kernels" in str(prof)


@pytest.mark.parametrize(
    ("argument", "value"), [("by", "layer"), ("sort", "speed"), ("rows", 0), ("rows", None), ("rows", 1.5)]
)
def test_wrong_arguments_of_the_table(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be"):
        pb.profile().table(**{argument: value})


def test_the_trace_is_one_that_viewers_read(tmp_path):
    step, x, y = small_step()
    big = pb.compile(lambda a: (a @ a).tanh() @ a)
    a = pb.randn(256, 256)
    before = pb.get_num_threads()
    pb.set_num_threads(2)
    try:
        big(a)
        with pb.profile() as prof:
            other = threading.Thread(target=lambda: step(x, y), name="other")
            other.start()
            for _ in range(20):
                big(a)
            other.join()
    finally:
        pb.set_num_threads(before)
    path = tmp_path / "trace.json"
    prof.export_chrome_trace(path)
    events = json.loads(path.read_text())["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert {event["ph"] for event in events} == {"X", "M"}
    for event in complete:
        assert {"name", "ts", "dur", "pid", "tid"} <= event.keys()
        assert event["ts"] >= 0 and event["dur"] >= 0
    named = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert {event["tid"] for event in complete} == set(named)
    assert "MainThread" in named.values()
    _check_nesting(complete)
    calls = sum(1 for event in complete if event["cat"] == "kernel")
    assert calls >= sum(row.calls for row in prof.kernels)


def _check_nesting(events):
    """On one thread two events lie in each other or apart: anything else is drawn wrongly."""
    for thread in {event["tid"] for event in events}:
        ends = []
        for event in sorted((e for e in events if e["tid"] == thread), key=lambda e: (e["ts"], -e["dur"])):
            begin, end = event["ts"], event["ts"] + event["dur"]
            while ends and ends[-1] <= begin + 0.002:
                ends.pop()
            assert not ends or end <= ends[-1] + 0.002, event
            ends.append(end)


@compiled_code
def test_slices_and_rows_are_counted_as_what_is_read():
    table, index = pb.randn(1000, 64), pb.tensor([1, 2, 3])
    rows = pb.compile(lambda index: F.embedding(index, table) * 2.0)
    rows(index)
    with pb.profile() as prof:
        rows(index)
    (row,) = [row for row in prof.kernels if row.name != "check of embedding"]
    assert row.nbytes == 2 * 3 * 64 * 4 + 3 * 8


def test_limits_bound_what_is_reached():
    for dtype in ("float32", "float64", "bfloat16"):
        assert limits.peak_operations(dtype, 1) > 1e9
    assert limits.peak_operations("float32", 1) > limits.peak_operations("float64", 1)
    assert limits.bandwidth(1, 1) > 1e9 and limits.bandwidth(2, 1) > 1e9 and limits.bandwidth(4, 1) > 1e8
    assert limits.bandwidth(1, 1, reading=True) > 1e9
    assert limits.least_seconds(2e9, 0, 0, "float32", 1) == 2e9 / limits.peak_operations("float32", 1)
    assert limits.least_seconds(0, 0, 0, "float32", 1) == 0


def test_what_a_cache_may_have_held_is_not_limited_by_memory(monkeypatch):
    """Rates of 400, 100, 20 and 5 bytes a second, twice that for reading; caches of 10, 100 and 1000 bytes."""
    rates = {1: 400.0, 2: 100.0, 3: 20.0, 4: 5.0}
    monkeypatch.setattr(limits, "bandwidth", lambda level, threads, reading=False: rates[level] * (1 + reading))
    caches = dataclasses.replace(jit.host_target(), l1=10, l2=100, l3=1000)
    monkeypatch.setattr(limits, "host_target", lambda: caches)
    assert limits.moving_seconds(0, 0, 1) == 0
    assert limits.moving_seconds(4, 4, 1) == 8 / 400
    assert limits.moving_seconds(8, 0, 1) == 8 / 800
    assert limits.moving_seconds(2, 6, 1) == 8 / 400
    # what is written may lie over what is read
    assert limits.moving_seconds(30, 30, 1) == pytest.approx(40 / 100)
    assert limits.moving_seconds(500, 500, 1) == pytest.approx(800 / 20)
    assert limits.moving_seconds(500, 500, 2) == pytest.approx(600 / 20)
    assert limits.moving_seconds(5000, 5000, 1) == pytest.approx(8000 / 5)


@compiled_code
@pytest.mark.parametrize("rows", [8, 32])
def test_the_steps_of_a_loop_are_counted_and_packing_is_not_multiplying(rows):
    """Whether all steps are one launch, as of 32 rows, or go one by one."""
    pb.manual_seed(0)
    layer, x = pb.nn.RNN(24, 32), pb.randn(6, rows, 24)
    step = pb.compile(lambda x: layer(x)[0])
    step(x)
    with pb.profile() as prof:
        step(x)
    products = 6 * 2 * rows * 32 * 32
    per_step = [row for row in prof.kernels if row.calls == 6]
    assert products <= sum(row.operations for row in per_step) <= 2 * products
    for rows_ in (prof.kernels, prof.lines, prof.operations):
        assert sum(row.operations for row in rows_) <= 1.5 * products + 2 * 6 * rows * 24 * 32
        assert sum(row.nbytes for row in rows_) == pytest.approx(sum(row.nbytes for row in prof.kernels))
        assert sum(row.least_seconds for row in rows_) == pytest.approx(sum(r.least_seconds for r in prof.kernels))


def test_the_reference_is_profiled_operation_by_operation():
    x = pb.tensor(np.eye(8, dtype=np.float32))
    with pb.debug.override(backend="reference"), pb.profile() as prof:
        (x @ x).tanh().tolist()
    assert [row.name for row in sorted(prof.kernels, key=lambda row: row.name)] == ["matmul", "tanh"]
    assert sum(row.seconds for row in prof.kernels) > 0


def test_operations_of_a_convolution():
    x, window = pb.tensor(np.ones((2, 3, 8, 8), np.float32)), pb.tensor(np.ones((5, 3, 3, 3), np.float32))
    with pb.profile() as prof:
        F.conv2d(x, window, padding=1).tolist()
    multiply_adds = 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)
    assert multiply_adds <= max(row.operations for row in prof.operations) < 1.05 * multiply_adds


@compiled_code
def test_what_another_thread_compiles_is_no_share_of_the_time():
    """LLVM's thread works beside the one that waits for it: both together may be more than the block took."""
    shape = 61, 67  # of no other test, so that there is something to compile
    with pb.debug.override(cache_dir="off"), pb.profile() as prof:
        pb.compile(lambda x: (x @ x.T).softmax(-1).sum())(pb.randn(*shape))
    rows = {row.name: row for row in prof.python}
    meanwhile = rows.pop("compiling, on another thread meanwhile", None)
    whole = math.fsum(row.seconds for row in (*prof.kernels, *rows.values()))
    assert whole == pytest.approx(prof.seconds, rel=1e-3)
    assert meanwhile is not None and meanwhile.calls >= 1 and meanwhile.seconds > 0
    (line,) = [line for line in str(prof).splitlines() if line.startswith(meanwhile.name)]
    assert len(line.split()) == len(meanwhile.name.split()) + 5  # calls, time and time a call, no share


@compiled_code
def test_the_first_profile_does_not_measure_its_own_compiling():
    code = """if True:
        import pullback as pb
        step, x = pb.compile(lambda x: x.sin().sum()), pb.ones(8)
        step(x)
        with pb.profile() as prof:
            step(x)
        assert not [row for row in prof.python if row.name.startswith("compiling")], prof.table()
    """
    subprocess.run([sys.executable, "-c", code], check=True)
