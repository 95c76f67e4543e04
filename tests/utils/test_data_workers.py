"""The processes that read examples: what they know, what is told when one fails, and that they end."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import pullback as pb
from data_examples import Numbers, OwnError, Unequal, mark, worker_id
from pullback.errors import GradientError, ShapeError, WorkerError

data = pb.utils.data


def test_what_a_worker_knows() -> None:
    loader = data.DataLoader(
        Numbers(4), 2, num_workers=2, worker_init_fn=mark, collate_fn=worker_id, multiprocessing_context="fork"
    )
    assert list(loader) == [(0, 2, 1004, 1), (1, 2, 1004, 1)]
    assert data.get_worker_info() is None


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("error", KeyError, r"Caught KeyError in DataLoader worker process 1.*in __getitem__.*sample 3 of the dataset"),
        ("stop", RuntimeError, r"StopIteration was raised while sample 3 of the dataset was read"),
        ("own error", WorkerError, r"Caught OwnError in DataLoader worker process 1.*sample 3 of the dataset"),
        ("kill", WorkerError, r"worker 1 \(process \d+\) was killed by SIGKILL.* at batch 1 \(samples 2, 3\)"),
        ("exit", WorkerError, r"worker 1 \(process \d+\) ended with exit code 3 at batch 1 \(samples 2, 3\)"),
        ("sleep", WorkerError, r"worker 1 .* took longer than timeout=2 seconds at batch 1 \(samples 2, 3\)"),
        ("lambda", (WorkerError, AttributeError), "while a batch was sent to the process that trains"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_told(fault: str, error: Any, said: str) -> None:
    loader = data.DataLoader(
        Numbers(6, {3: fault}), 2, num_workers=2, timeout=2 if fault == "sleep" else 60, multiprocessing_context="fork",
        collate_fn=list if fault == "lambda" else None,
    )  # fmt: skip
    batches = iter(loader)
    next(batches)
    with pytest.raises(error) as caught:
        next(batches)
    assert re.search(said, str(caught.value), re.DOTALL), str(caught.value)
    assert not isinstance(caught.value, OwnError)


def test_the_line_of_an_error_in_a_worker_is_that_of_the_loop() -> None:
    loader = data.DataLoader(Unequal(), 2, num_workers=1)  # no fork, whose stack goes on to the loop
    with pytest.raises(ShapeError, match=r"stack: shapes must be equal.*\(at .*test_data_workers.py:\d+\)"):
        next(iter(loader))


def test_what_cannot_be_sent_to_workers_is_refused_with_the_mend() -> None:
    class Local(Numbers):
        pass

    with pytest.raises(TypeError, match="define them at the top of a module"):
        next(iter(data.DataLoader(Local(3), num_workers=1)))
    weight = pb.ones(2, requires_grad=True)
    with pytest.raises(GradientError, match="a tensor with a history"):
        next(iter(data.DataLoader(data.TensorDataset(weight * 2), num_workers=1)))


def test_a_script_without_a_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pullback as pb\nloader = pb.utils.data.DataLoader(range(4), num_workers=1)\nprint(list(loader))\n"
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert found.returncode == 1
    assert found.stderr.rstrip().splitlines()[-1].startswith("pullback.errors.WorkerError")
    assert "if __name__ == '__main__'" in found.stderr.rstrip().splitlines()[-1]


def test_workers_end_with_their_parent() -> None:
    program = """
        import os, sys
        import pullback as pb
        if __name__ == "__main__":
            loader = pb.utils.data.DataLoader(range(100), num_workers=1, persistent_workers=True)
            batches = iter(loader)
            next(batches)
            print(loader._pool._processes[0].pid, flush=True)
            os.kill(os.getpid(), 9)
    """
    program = "\n".join(line[8:] for line in program.splitlines())
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    pid = int(found.stdout)
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}") or "\tZ" in Path(f"/proc/{pid}/status").read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"the worker {pid} lives on")
