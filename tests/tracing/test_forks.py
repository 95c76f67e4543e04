"""A process that forks while another of its threads is inside a compiled step: the child has steps that work."""

import os
import subprocess
import sys
import textwrap

import pytest

_PROGRAM = textwrap.dedent(
    """
    import os, signal, sys, threading, warnings
    import pullback as pb

    warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads, which is what is tried
    weight = pb.zeros(1000)
    a = pb.ones(200, 200)
    other = pb.compile(lambda a: (a @ a).tanh())
    small = pb.compile(lambda x: x * 2)

    @pb.compile
    def step():
        weight.add_(1)
        return weight.sum()

    step(), other(a), small(pb.ones(3))
    stop = threading.Event()

    def work():
        number = 0
        while not stop.is_set():
            step(), other(a)
            number += 1
            if sys.argv[1] == "recording":
                pb.compile(lambda x: x + number)(a)

    thread = threading.Thread(target=work)
    thread.start()
    found = []
    for _ in range(8):
        child = os.fork()
        if not child:
            signal.alarm(20)
            values = weight.tolist()
            good = len(set(values)) == 1 and step().item() == 1000 * (values[0] + 1)
            good &= other(a).tolist()[0][0] == 1.0 and small(pb.ones(3)).tolist() == [2.0] * 3
            good &= pb.compile(lambda x: x.sin())(pb.zeros(2)).tolist() == [0.0, 0.0] and (a + 1).sum().item() == 80000
            os._exit(0 if good else 1)
        found.append(os.waitpid(child, 0)[1])
    stop.set()
    thread.join()
    print(found)
    """
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize("meanwhile", ["running", "recording"])
def test_a_child_of_a_process_whose_threads_are_in_steps_runs_steps(meanwhile):
    command = [sys.executable, "-c", _PROGRAM, meanwhile]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.strip() == str([0] * 8), done.stderr
