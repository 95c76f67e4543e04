"""Launches in bundles: what depends on one another stays apart and in order, and memory does not grow."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pullback as pb
from pullback import debug
from pullback.codegen.launch import Launch, Workspace
from pullback.codegen.text import Code
from pullback.compiler.place import Request, place
from pullback.errors import VerifyError
from pullback.runtime import bundles, jit
from pullback.runtime.bundles import Between, Extent, Stretch, arrange, verify_bundles
from pullback.runtime.schedule import Schedule, _dealt

native_only = pytest.mark.native("the reference has no launches")


def launch(name, reads=(), writes=(), work=1, tasks=1):
    return Launch(Code(name, ""), tasks, [*reads, *writes], 0, set(reads), set(writes), set(), work)


def nbytes(thing):
    return thing.nbytes


def names(found):
    return [[each.code.name for each in bundle] for bundle in found]


def placed(ordered):
    """Where things lie, with the life of each from its first bundle to its last; and the size of it all."""
    lives = {}
    for step, bundle in enumerate(ordered):
        for each in bundle:
            for thing in each.arguments:
                lives.setdefault(thing, [step, step])[1] = step
    found = place([Request(thing.nbytes, *life) for thing, life in lives.items()])
    extents = dict(zip(lives, found.offsets, strict=True))
    return (lambda thing: Extent("arena", extents[thing], extents[thing] + thing.nbytes)), found.nbytes


def most_alive(ordered):
    """Bytes of things that live in one bundle, at most."""
    lives = {}
    for step, bundle in enumerate(ordered):
        for each in bundle:
            for thing in each.arguments:
                lives.setdefault(thing, [step, step])[1] = step
    steps = range(len(ordered))
    return max((sum(t.nbytes for t, (a, b) in lives.items() if a <= step <= b) for step in steps), default=0)


def test_two_chains_run_side_by_side_and_updates_together():
    a, b = ([Workspace(64) for _ in range(3)] for _ in range(2))
    kept = [Workspace(64) for _ in range(4)]
    launches = [launch(f"{n}{i}", c[i - 1 : i], [c[i]]) for n, c in (("a", a), ("b", b)) for i in range(3)]
    launches += [launch(f"update{i}", [c[i]], [kept[2 * (c is b) + i]]) for c in (a, b) for i in range(2)]
    (found,) = arrange([Stretch(launches, kept)], lambda thing: 0, {})
    assert names(found) == [
        ["a0", "b0"],
        ["a1", "b1"],
        ["a2", "b2", "update0", "update1", "update0", "update1"],
    ]


def test_what_is_written_over_is_read_before():
    given_, made, copy = Workspace(64), Workspace(64), Workspace(64)
    read, write = launch("read", [given_], [copy]), launch("write", [], [made])
    (apart,) = arrange([Stretch([read, write], ())], lambda thing: 0, {made: [given_]})
    (beside,) = arrange([Stretch([read, write], ())], lambda thing: 0, {})
    assert names(apart) == [["read"], ["write"]]
    assert names(beside) == [["read", "write"]]


def test_launches_stay_in_their_stretch():
    first, second = launch("first", [], [Workspace(64)]), launch("second", [], [Workspace(64)])
    assert [names(found) for found in arrange([Stretch([first], ()), Stretch([second], ())], nbytes, {})] == [
        [["first"]],
        [["second"]],
    ]


def test_large_results_are_not_made_early():
    chain = [Workspace(64) for _ in range(5)]
    large = Workspace(bundles._LARGE)
    launches = [launch(f"chain{i}", chain[i - 1 : i], [chain[i]]) for i in range(5)]
    launches += [launch("large", [], [large]), launch("reader", [large, chain[-1]], [Workspace(64)])]
    (found,) = arrange([Stretch(launches, ())], lambda thing: thing.nbytes if thing is not large else 0, {})
    assert "large" in names(found)[0]
    launches = [*launches[:5], launch("most", [chain[-1]], [Workspace(4 * large.nbytes)]), *launches[5:]]
    (found,) = arrange([Stretch(launches, ())], nbytes, {})
    assert "large" in names(found)[-2]


@st.composite
def programs(draw):
    """Launches that read what earlier ones made and write new things, or what earlier ones have written."""
    made, launches = [], []
    for number in range(draw(st.integers(1, 25))):
        reads = draw(st.lists(st.sampled_from(made), max_size=3, unique=True)) if made else []
        writes = [Workspace(64 * draw(st.integers(1, 8)))]
        if made and draw(st.booleans()):
            writes = draw(st.lists(st.sampled_from(made), min_size=1, max_size=2, unique=True))
        made += [thing for thing in writes if thing not in made]
        launches.append(launch(f"l{number}", [r for r in reads if r not in writes], writes))
    return launches


@settings(max_examples=200, deadline=None)
@given(programs(), st.integers(0, 3))
def test_bundles_of_random_programs_are_sound_and_need_no_more_memory(launches, cuts):
    at = sorted({len(launches) * (i + 1) // (cuts + 1) for i in range(cuts + 1)})
    stretches = [Stretch(launches[a:b], ()) for a, b in zip([0, *at], at, strict=False)]
    found = [bundle for bundles_ in arrange(stretches, nbytes, {}) for bundle in bundles_]
    extent, _ = placed(found)
    verify_bundles(launches, found, extent)
    assert most_alive(found) <= most_alive([[each] for each in launches])


def test_the_verifier_finds_what_is_wrong():
    a, b, c = (Workspace(64) for _ in range(3))
    first, second, third = launch("first", [], [a]), launch("second", [a], [b]), launch("third", [], [c])
    launches = [first, second, third]
    apart = {a: Extent("arena", 0, 64), b: Extent("arena", 64, 128), c: Extent("arena", 128, 192)}
    verify_bundles(launches, [[first, third], [second]], apart.__getitem__)
    with pytest.raises(VerifyError, match="missing"):
        verify_bundles(launches, [[first], [second]], apart.__getitem__)
    with pytest.raises(VerifyError, match="more than once"):
        verify_bundles(launches, [[first], [second], [third, first]], apart.__getitem__)
    with pytest.raises(VerifyError, match="stand in the bundles 0 and 0"):
        verify_bundles(launches, [[first, second], [third]], apart.__getitem__)
    with pytest.raises(VerifyError, match="stand in the bundles 1 and 0"):
        verify_bundles(launches, [[second], [first], [third]], apart.__getitem__)
    with pytest.raises(VerifyError, match="in the same bundle"):
        verify_bundles(launches, [[first], [second, third]], {**apart, c: apart[a]}.__getitem__)
    with pytest.raises(VerifyError, match="has overwritten"):
        verify_bundles(launches, [[first], [third], [second]], {**apart, c: apart[a]}.__getitem__)
    # what is read for the last time may be written over by a later bundle
    verify_bundles(launches, [[first], [second], [third]], {**apart, c: apart[a]}.__getitem__)


def test_what_a_host_call_gives_lies_in_memory_from_the_call_on():
    before, result, copy, late = (Workspace(64) for _ in range(4))
    first, second = launch("first", [], [before]), launch("second", [result], [copy])
    places = {before: Extent("arena", 0, 64), result: Extent("arena", 0, 64), copy: Extent("arena", 64, 128)}
    call = Between(1, [before], [result])
    verify_bundles([first, second], [[first], [second]], places.__getitem__, [call])
    with pytest.raises(VerifyError, match="a host call reads"):
        over = launch("over", [], [late])
        places[late] = Extent("arena", 0, 64)
        verify_bundles([first, over], [[first], [over]], places.__getitem__, [Between(2, [before], [result])])
    with pytest.raises(VerifyError, match=r"second reads .* which first has overwritten"):
        verify_bundles([first, second], [[first], [second]], places.__getitem__, [Between(0, [], [result])])


def test_what_is_given_may_not_be_overwritten_before_it_is_read():
    given_, made, copy = Workspace(64), Workspace(64), Workspace(64)
    write, read = launch("write", [], [made]), launch("read", [given_], [copy])
    places = {given_: Extent("input", 0, 64), made: Extent("input", 0, 64), copy: Extent("arena", 0, 64)}
    verify_bundles([read, write], [[read], [write]], places.__getitem__)
    with pytest.raises(VerifyError, match="has overwritten"):
        verify_bundles([read, write], [[write], [read]], places.__getitem__)


def two_networks():
    """Two networks with clipping and Adam, and a loop beside them."""
    pb.manual_seed(1)
    networks = [pb.nn.Sequential(pb.nn.Linear(24, 40), pb.nn.Tanh(), pb.nn.Linear(40, 8)) for _ in range(2)]
    parameters = [p for network in networks for p in network.parameters()]
    optimizer = pb.optim.Adam(parameters)
    x = pb.randn(16, 24)
    cell = pb.randn(8, 8) * 0.1

    @pb.compile
    def step():
        optimizer.zero_grad()
        first, second = (network(x) for network in networks)
        state, _ = pb.func.scan(lambda h, y: ((h @ cell + y).tanh(), None), first, pb.stack([second] * 5))
        loss = (state * second).sum() + (first - second).square().mean()
        loss.backward()
        pb.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss

    return step, parameters


@native_only
def test_a_step_in_bundles_has_the_bits_of_one_thread(monkeypatch):
    monkeypatch.setattr("pullback.runtime.native._SMALL_WORK", -math.inf)
    monkeypatch.setattr("pullback.runtime.bundles._HAND_OVER", -math.inf)
    results = []
    for threads in (1, 2, 3):
        with debug.override(num_threads=threads, verify=True):
            step, parameters = two_networks()
            losses = [step().item() for _ in range(5)]
            sizes = [len(bundle.members) for s in step.program.stages for bundle in s.bundles]
            results.append([losses, *(p.detach().numpy().tobytes() for p in parameters)])
            # all parameters are updated in one hand-over, save for two biases, which the kernel of the norm does
            assert max(sizes) == 1 if threads == 1 else max(sizes) >= len(parameters) - 2
    assert results[0] == results[1] == results[2]


@native_only
def test_times_of_a_bundle_are_shared_among_its_kernels(monkeypatch):
    monkeypatch.setattr("pullback.runtime.native._SMALL_WORK", -math.inf)
    monkeypatch.setattr("pullback.runtime.bundles._HAND_OVER", -math.inf)
    with debug.override(num_threads=2):
        step, _ = two_networks()
        step()
        with pb.profile() as profile:
            for _ in range(3):
                step().item()
    assert all(np.isfinite(row.seconds) and row.seconds >= 0 for row in profile.kernels)
    assert sum(row.seconds for row in profile.kernels) > 0
    assert {row.calls % 3 for row in profile.kernels} == {0}


def test_halves_of_launches_stand_in_the_same_half_and_long_tasks_outside():
    rows = _dealt([(1, 10, 4), (2, 20, 3), (3, 30, 1)], [5.0, 2.0, 1.0])
    assert sorted(rows) == [(1, 10, t) for t in range(4)] + [(2, 20, t) for t in range(3)] + [(3, 30, 0)]
    assert rows[:2] == [(1, 10, 0), (1, 10, 1)]
    assert rows[-2:] == [(1, 10, 2), (1, 10, 3)]
    lengths = {1: 5.0, 2: 2.0, 3: 1.0}
    first, last = (sum(lengths[function] for function, _, _ in half) for half in (rows[:4], rows[4:]))
    assert abs(first - last) <= 2.0


def test_more_tasks_than_can_be_claimed_one_by_one_go_in_chunks(monkeypatch):
    monkeypatch.setattr("pullback.runtime.threads.MAXIMUM_CLAIMS", 7)
    text = """define void @count_task(ptr %args, ptr %scratch, i64 %task) nounwind {
  %place = getelementptr i64, ptr %args, i64 %task
  %before = atomicrmw add ptr %place, i64 1 monotonic
  ret void
}
"""
    counts = np.zeros(100, np.int64)
    address = jit.load([Code("count_task", text)])["count_task"]
    for threads in (1, 2, 3):
        Schedule([(address, counts.ctypes.data, 100)], threads, 0).run()
    assert (counts == 3).all()


def test_a_bundle_is_shared_if_that_saves_more_than_it_costs():
    data = Workspace(1 << 16)
    alone = launch("alone", [], [data], work=10**6, tasks=1)
    cut = launch("cut", [], [data], work=10**6, tasks=2)
    beside = launch("beside", [], [Workspace(64)], work=10**5, tasks=1)
    assert bundles.saved([alone], 1 << 20) < 0
    assert bundles.saved([cut], 1 << 20) == 500_000 - bundles._MOVE * data.nbytes
    assert bundles.saved([cut], 0) == 500_000  # the data lies in no cache of one core
    assert bundles.saved([alone, beside], 0) == 100_000
    assert bundles.saved([launch("noted elsewhere", work=0, tasks=2)], 0) == float("inf")
