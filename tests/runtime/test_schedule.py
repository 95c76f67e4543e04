"""The native driver and its threads: order, completeness, sharing, sleeping, forking, leaving."""

import ctypes
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from pullback import debug
from pullback.codegen.text import Code
from pullback.runtime import jit, threads
from pullback.runtime.schedule import Schedule

# args: values, number of tasks. Task t reads the values of all tasks written by the launch before (first half of
# `values` to second half, or back), so a launch that begins too early gives other numbers.
MIX = Code(
    "mix",
    """define void @mix(ptr %args, ptr %scratch, i64 %task) nounwind {
entry:
  %from = load ptr, ptr %args
  %to.at = getelementptr i64, ptr %args, i64 1
  %to = load ptr, ptr %to.at
  %count.at = getelementptr i64, ptr %args, i64 2
  %count = load i64, ptr %count.at
  store i64 %task, ptr %scratch
  br label %head
head:
  %i = phi i64 [0, %entry], [%i.next, %head]
  %sum = phi i64 [0, %entry], [%sum.next, %head]
  %p = getelementptr i64, ptr %from, i64 %i
  %x = load i64, ptr %p
  %scaled = mul i64 %sum, 31
  %sum.next = add i64 %scaled, %x
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %count
  br i1 %more, label %head, label %end
end:
  %kept = load i64, ptr %scratch
  %seed = mul i64 %kept, 7919
  %result = add i64 %sum.next, %seed
  %q = getelementptr i64, ptr %to, i64 %task
  store i64 %result, ptr %q
  ret void
}
""",
)


class Chain:
    """Launches of mixed sizes that depend on one another, and what they must compute."""

    def __init__(self, count: int = 24, tasks: tuple[int, ...] = (24, 1, 24, 0, 3, 24, 24, 1, 1)):
        self.values = np.zeros((2, count), np.int64)
        address = jit.load([MIX])["mix"]
        rows = [self.values[i].ctypes.data for i in range(2)]
        self.arguments = np.array([[rows[0], rows[1], count], [rows[1], rows[0], count]], np.int64)
        self.launches = [(address, self.arguments[i % 2].ctypes.data, n) for i, n in enumerate(tasks * 10)]
        self.tasks, self.count = tasks * 10, count

    def expected(self) -> np.ndarray:
        values = np.zeros_like(self.values)
        with np.errstate(over="ignore"):
            for i, tasks in enumerate(self.tasks):
                total = np.int64(0)
                for x in values[i % 2]:
                    total = total * np.int64(31) + x
                values[1 - i % 2, :tasks] = total + np.arange(tasks, dtype=np.int64) * 7919
        return values

    def check(self, schedule: Schedule, runs: int) -> None:
        expected = self.expected()
        for _ in range(runs):
            self.values[:] = 0
            schedule.run()
            np.testing.assert_array_equal(self.values, expected)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_launches_run_in_order_and_whole(count):
    chain = Chain()
    chain.check(Schedule(chain.launches, count, 8), 200 if count < 8 else 20)


def test_empty_schedules():
    Schedule([], 1, 0).run()
    Schedule([], 4, 0).run()
    Schedule([(0, 0, 0)], 2, 64).run()


def test_too_many_tasks_are_an_error():
    with pytest.raises(ValueError, match="tasks"):
        Schedule([(0, 0, 1 << 24)], 2, 0)


def test_run_outlives_its_schedule():
    chain = Chain()
    run = Schedule(chain.launches, 2, 8).run
    chain.values[:] = 0
    run()
    np.testing.assert_array_equal(chain.values, chain.expected())


def test_fewer_and_more_threads_in_turn():
    chain = Chain()
    schedules = [Schedule(chain.launches, count, 8) for count in (4, 2, 3, 1)]
    for _ in range(10):
        for schedule in schedules:
            chain.check(schedule, 1)


def test_every_worker_takes_part():
    """Two tasks that wait for each other end only if two threads run them at once."""
    text = """define void @meet(ptr %args, ptr %scratch, i64 %task) nounwind {
entry:
  %before = atomicrmw add ptr %args, i64 1 seq_cst, align 8
  br label %head
head:
  %met = load atomic i64, ptr %args seq_cst, align 8
  %all = icmp uge i64 %met, 3
  br i1 %all, label %end, label %head
end:
  ret void
}
"""
    met = np.zeros(1, np.int64)
    schedule = Schedule([(jit.load([Code("meet", text)])["meet"], met.ctypes.data, 3)], 3, 0)
    for wait in (0.0, 0.0, 0.01):  # at once, and after the workers have gone to sleep
        time.sleep(wait)
        met[:] = 0
        stay_alone_until(0)
        schedule.run()
        assert met[0] == 3


def stay_alone_until(nanoseconds: int) -> None:
    threads.pool().memory.view(np.int64)[threads.ALONE_UNTIL // 8] = nanoseconds


def test_caller_that_stays_alone_computes_the_same():
    chain = Chain()
    schedule = Schedule(chain.launches, 2, 8)
    stay_alone_until(1 << 62)
    chain.check(schedule, 5)
    stay_alone_until(0)
    chain.check(schedule, 5)


def test_scratch_is_aligned_and_of_each_thread():
    text = """declare i32 @sched_yield()
define void @own(ptr %args, ptr %scratch, i64 %task) nounwind {
  store volatile i64 %task, ptr %scratch, align 64
  %ignored = call i32 @sched_yield()
  %kept = load volatile i64, ptr %scratch, align 64
  %p = getelementptr i64, ptr %args, i64 %task
  store i64 %kept, ptr %p
  ret void
}
"""
    seen = np.zeros(300, np.int64)
    schedule = Schedule([(jit.load([Code("own", text)])["own"], seen.ctypes.data, 300)], 3, 5)
    for _ in range(20):
        seen[:] = -1
        schedule.run()
        np.testing.assert_array_equal(seen, np.arange(300))


def test_two_python_threads_at_once():
    chains = [Chain() for _ in range(3)]
    failures: list[BaseException] = []

    def use(chain: Chain) -> None:
        try:
            chain.check(Schedule(chain.launches, 2, 8), 100)
        except BaseException as error:
            failures.append(error)

    users = [threading.Thread(target=use, args=(chain,)) for chain in chains]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert not failures


def test_schedule_within_a_task_of_another():
    """A host call may run a schedule of its own while its caller holds the pool."""
    chain = Chain()
    inner = Schedule(chain.launches, 2, 8)
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(lambda *_: inner.run())
    address = ctypes.cast(callback, ctypes.c_void_p).value
    Schedule([(address, 0, 1), (chain.launches[0][0], chain.arguments.ctypes.data, 24)], 2, 8).run()
    chain.check(Schedule([(address, 0, 1), (0, 0, 0)], 2, 8), 5)


def test_idle_workers_use_no_processor_time():
    chain = Chain()
    chain.check(Schedule(chain.launches, 2, 8), 5)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1  # a spinning worker would use the whole of it


def test_number_of_threads(monkeypatch):
    monkeypatch.setattr(threads, "_num_threads", None)
    assert threads.get_num_threads() == (debug.get("num_threads") or threads.available_cores())
    assert 1 <= threads.available_cores() <= os.cpu_count()
    with debug.override(num_threads=3):
        assert threads.get_num_threads() == 3
    threads.set_num_threads(5)
    assert threads.get_num_threads() == 5
    with pytest.raises(ValueError, match="got 0"):
        threads.set_num_threads(0)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/a/b\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3.0),
        (
            {
                "proc/self/cgroup": "4:memory:/m\n1:cpu,cpuacct:/box\n0::/\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
    ],
)
def test_cgroup_quota(tmp_path, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads._cgroup_quota(tmp_path) == quota


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([os.path.dirname(__file__), *(part for part in sys.path if part)])
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_fork():
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    result = run_program("""
import os, warnings
warnings.simplefilter("ignore")
from test_schedule import Chain, Schedule
chain = Chain()
schedule = Schedule(chain.launches, 2, 8)
chain.check(schedule, 5)
for _ in range(5):
    child = os.fork()
    if child == 0:
        chain.check(schedule, 20)
        os._exit(7)
    chain.check(schedule, 20)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print("done")
""")
    assert result.stdout == "done\n", result.stderr
    assert result.returncode == 0


@pytest.mark.parametrize("last", ["", "import time; time.sleep(0.01)", "import atexit; atexit.register(schedule.run)"])
def test_clean_exit(last):
    result = run_program(f"""
from test_schedule import Chain, Schedule
chain = Chain()
schedule = Schedule(chain.launches, 4, 8)
chain.check(schedule, 5)
{last}
""")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_exit_with_a_schedule_still_running_in_a_daemon_thread():
    result = run_program("""
import threading, time
from test_schedule import Chain, Schedule
chain = Chain()
schedule = Schedule(chain.launches, 2, 8)
def forever():
    while True:
        schedule.run()
threading.Thread(target=forever, daemon=True).start()
time.sleep(0.05)
""")
    assert result.returncode == 0, result.stderr
