"""Launches that another process has emitted: found by all that they depend on, read with suspicion, and the same."""

import json
import os
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest

import pullback as pb
from pullback import timeline
from pullback.codegen import kernels, templates
from pullback.compiler.pipeline import lower
from pullback.graph import types
from pullback.ops.primitive import REGISTRY, Primitive
from pullback.runtime import engine, jit
from pullback.runtime.backends import made_program
from pullback.runtime.buffers import Buffer
from random_graphs import random_graph

pytestmark = pytest.mark.native("the reference emits nothing")


@pytest.fixture
def forgetful(monkeypatch, tmp_path):
    """Forgets, when called, what this process has emitted; what is emitted is kept in a directory of its own."""
    monkeypatch.setattr(kernels, "_SEEN", kernels.OrderedDict())
    with pb.debug.override(cache_dir=tmp_path):
        yield kernels._SEEN.clear


def emitted(function):
    """The result of `function`, and the names of all that was emitted meanwhile."""
    spans: list[timeline.Span] = []
    with timeline.listen(spans.append):
        result = function()
    return result, [span.name for span in spans if span.name.startswith("emit ")]


def network():
    pb.manual_seed(0)
    model = pb.nn.Sequential(pb.nn.Linear(20, 33), pb.nn.GELU(), pb.nn.LayerNorm(33), pb.nn.Linear(33, 5))
    optimizer = pb.optim.Adam(model.parameters())
    x, y = pb.randn(7, 20), pb.randint(0, 5, (7,))

    @pb.compile
    def step():
        optimizer.zero_grad()
        loss = pb.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    values = [step().item() for _ in range(3)]
    return values, [p.detach().numpy().tobytes() for p in model.parameters()]


def test_what_was_kept_gives_the_same_bits_and_nothing_is_emitted(forgetful):
    engine._programs.clear()
    first, written = emitted(network)
    forgetful()
    engine._programs.clear()
    second, again = emitted(network)
    assert written
    assert first == second
    assert again == []


@pytest.mark.parametrize("seed", range(8))
def test_random_graphs_from_what_was_kept(forgetful, seed):
    graph = random_graph(seed, 40)
    wanted = list(dict.fromkeys(k.node for k in graph.outputs if k.node.buffer is None))
    whole = engine.Graph.of(wanted)
    leaves = [node for node in whole.nodes if node.buffer is not None]

    def run():
        forgetful()
        results = [Buffer.empty(engine.count(node), node.dtype) for node in wanted]
        made_program(*engine.without_values(whole, leaves)).run([leaf.buffer for leaf in leaves], results)
        return [r.array.tobytes() for r in results]

    first, _ = emitted(run)
    second, again = emitted(run)
    assert first == second
    assert again == []


def test_a_second_process_emits_nothing(tmp_path):
    program = (
        "import pullback as pb\n"
        "from pullback import timeline\n"
        "spans = []\n"
        "with timeline.listen(spans.append):\n"
        "    print((pb.linspace(0, 1, 50).view(5, 10) @ pb.ones(10, 3)).softmax(-1).sum().item(), end=' ')\n"
        "print(any(s.name.startswith('emit ') for s in spans))\n"
    )
    path = os.pathsep.join(part for part in sys.path if part)
    environment = {**os.environ, "PYTHONPATH": path, "PULLBACK_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
        for _ in range(2)
    ]
    (first, anew), (second, again) = (run.stdout.split() for run in runs)
    assert (first, anew, again) == (second, "True", "False")


def kept_and_emit(forgetful):
    """What is kept of one kernel, by key, and a function that emits it again with what is there then."""
    found: dict[str, bytes] = {}

    class Store:
        def get(self, key):
            return found.get(key)

        def put(self, key, payload):
            found[key] = payload

    x, y = (pb.tensor(np.ones((3, 4), np.float32)) for _ in range(2))
    graph = engine.Graph.of([((x * y).exp().sum(-1))._node])
    leaves = [node for node in graph.nodes if node.buffer is not None]
    graph, inputs = engine.without_values(graph, leaves)
    lowered, fusion = lower(graph)
    (group,) = fusion.groups

    def emit():
        forgetful()
        return kernels.emit(group, {*inputs, *lowered.outputs}.__contains__, jit.host_target(), Store())

    emit()
    return found, emit


def changed(payload: bytes, change) -> bytes:
    document = json.loads(zlib.decompress(payload))
    change(document)
    return zlib.compress(json.dumps(document).encode())


WRONG = {
    "truncated": lambda payload: payload[:-7],
    "something behind it": lambda payload: payload + b"\0",
    "not packed": lambda payload: zlib.decompress(payload),
    "no JSON": lambda payload: zlib.compress(b"\xff\x00"),
    "nested without end": lambda payload: zlib.compress(b"[" * 100_000),
    "larger than any kernel": lambda payload: zlib.compress(zlib.decompress(payload) + b" " * (65 << 20), level=1),
    "another document": lambda payload: zlib.compress(b'["launches"]'),
    "a node that is not there": lambda p: changed(p, lambda d: d["launches"][0]["nodes"][0].append(99)),
    "a negative node": lambda p: changed(p, lambda d: d["launches"][0]["nodes"][1].append(-1)),
    "a fraction of a task": lambda p: changed(p, lambda d: d["launches"][0].update(tasks=1.5)),
    "a word for a number": lambda p: changed(p, lambda d: d["launches"][0].update(scratch="1")),
    "an unknown argument": lambda p: changed(p, lambda d: d["launches"][0]["arguments"].append(["pointer", 0, 0])),
    "a loop of no length": lambda p: changed(p, lambda d: d["launches"][0].update(columns=[4, -1])),
    "a code that is not there": lambda p: changed(p, lambda d: d["launches"][0].update(code=7)),
    "a code that needs itself": lambda p: changed(p, lambda d: d["codes"][0][2].append(0)),
    "a name that is none": lambda p: changed(p, lambda d: d["codes"][0].__setitem__(0, "a b")),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_read_as_launches_is_emitted_anew_and_put_in_its_place(forgetful, wrong):
    found, emit = kept_and_emit(forgetful)
    ((key, sound),) = found.items()
    found[key] = WRONG[wrong](sound)
    launches, again = emitted(emit)
    assert again == ["emit loop"]
    assert found == {key: sound}
    from_store, none = emitted(emit)
    assert none == []
    assert [(a.code, a.tasks, a.arguments, a.reads, a.writes, a.exact, a.work, a.in_place) for a in launches] == [
        (a.code, a.tasks, a.arguments, a.reads, a.writes, a.exact, a.work, a.in_place) for a in from_store
    ]


def test_keys_tell_apart_all_that_a_kernel_depends_on(monkeypatch):
    target = jit.host_target()
    values = [0.0, -0.0, 0, False, None, "0", (0,), ((0,),), (), types.float32, types.float64, float, int]
    values += [REGISTRY["add"], REGISTRY["mul"]]
    keys = [templates.key_of(target, value) for value in values]
    keys.append(templates.key_of(replace(target, l2=target.l2 * 2), 0))
    monkeypatch.setattr(templates, "_sources", lambda: "another version")
    keys.append(templates.key_of(target, 0))
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_what_only_this_process_knows_has_no_key(monkeypatch):
    target = jit.host_target()
    unknown = Primitive("add", "elementwise", REGISTRY["add"].infer, REGISTRY["add"].evaluate)
    for value in (object(), unknown, (lambda: 0,), np.float32(1)):
        assert templates.key_of(target, value) is None
    monkeypatch.setattr(templates, "_sources", lambda: None)
    assert templates.key_of(target, 0) is None
