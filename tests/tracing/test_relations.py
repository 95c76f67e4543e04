"""Arguments that are views of one another, or of what the step has from outside: the same as without compiling."""

import pytest

import pullback as pb
from pullback.errors import TraceError

RELATED = {
    "a view second": lambda d: (d, d.view(4)),
    "a view first": lambda d: (d.view(4), d),
    "overlapping slices": lambda d: (d[:2], d[1:3]),
    "equal slices": lambda d: (d[:2], d[:2]),
    "slices apart": lambda d: (d[:2], d[2:]),
    "detached": lambda d: (d.detach(), d),
    "data": lambda d: (d.data, d),
    "a view of a view": lambda d: (d.view(2, 2).t(), d[::2]),
    "the same twice": lambda d: (d, d),
    "a copy": lambda d: (d, d.clone()),
}


def _write_first(x, y):
    x.add_(1)
    return y * 1


def _write_second(x, y):
    y.mul_(3)
    return x * 1


def _write_both(x, y):
    x.add_(1)
    y.mul_(3)
    x.sub_(y.sum())
    return x.sum() + y.sum()


@pytest.mark.parametrize("function", [_write_first, _write_second, _write_both])
def test_arguments_that_share_memory_change_along(function):
    step = pb.compile(function)
    for _ in range(2):
        for name, related in RELATED.items():
            found = []
            for run in (function, step):
                base = pb.arange(1.0, 5.0)
                pair = related(base)
                result = run(*pair)
                found.append([t.tolist() for t in (result, base, *pair)])
            assert found[0] == found[1], name


def test_one_recording_serves_all_that_are_related_alike():
    step = pb.compile(_write_first)
    first, other = pb.zeros(4), pb.ones(4)
    step(first[:2], first[1:3])
    program = step.program
    assert step(other[:2], other[1:3]).tolist() == [2.0, 1.0] and step.program is program
    assert step(first[:2], other[1:3]).tolist() == [2.0, 1.0] and step.program is not program


def test_what_is_only_read_makes_no_recording_for_each_place():
    data = pb.arange(100.0)
    step = pb.compile(lambda x, y: (x * y).sum())
    step(data[0:4], data[1:5])
    program = step.program
    for start in range(5):
        assert step(data[start : start + 4], data[start + 1 : start + 5]).item() == sum(
            i * (i + 1) for i in range(start, start + 4)
        )
        assert step.program is program


def test_an_argument_that_is_a_view_of_what_the_step_knows():
    held = pb.zeros(2)

    def write_argument(x):
        x.add_(1)
        return held * 1

    def write_held(x):
        held.add_(1)
        return x * 1

    for function in (write_argument, write_held):
        step = pb.compile(function)
        found = []
        for run in (function, step):
            held.zero_()
            steps = [run(held.view(2)), run(held), run(held.detach()), run(pb.ones(2)), run(pb.ones(3)[1:]), run(held)]
            found.append([t.tolist() for t in [*steps, held]])
        assert found[0] == found[1]


def test_a_fresh_view_of_what_the_step_knows_makes_no_new_recording():
    held = pb.zeros(4)

    @pb.compile
    def step(x):
        x.add_(1)
        return held.sum()

    step(held[:2])
    program = step.program
    assert step(held[:2]).item() == 4.0 and step.program is program
    assert step(held[2:]).item() == 6.0 and step.program is not program


def test_gradients_reach_the_tensor_that_both_arguments_are_of():
    def function(w, v):
        loss = (w * v.view(2) * 3).sum()
        loss.backward()
        return loss

    step = pb.compile(function)
    for _ in range(2):
        found = []
        for run in (function, step):
            w = pb.tensor([1.0, 2.0], requires_grad=True)
            run(w, w.view(2, 1))
            found.append(w.grad.tolist())
        assert found[0] == found[1] == [6.0, 12.0]


def test_a_gradient_that_is_a_view_is_not_taken_for_another():
    def make():
        flat, p = pb.zeros(4), pb.nn.Parameter(pb.ones(2))
        p.grad = flat[:2]

        def function():
            (p * 3).sum().backward()
            return flat.sum()

        return function, p

    function, p = make()
    compiled, q = make()
    step = pb.compile(compiled)
    for _ in range(3):
        assert function().item() == step().item()
        assert p.grad.tolist() == q.grad.tolist()


def test_a_view_that_became_a_leaf_is_refused_with_what_is_written():
    base = pb.zeros(4)
    leaf = base[:2].requires_grad_()

    @pb.compile
    def step(weight, data):
        with pb.no_grad():
            data.add_(1)
        return weight * 1

    with pytest.raises(TraceError, match=r"writes the argument data, and the argument weight is a view.*clone"):
        step(leaf, base)
    assert base.tolist() == [0.0] * 4
    assert step(leaf, pb.zeros(4)).tolist() == [0.0, 0.0]

    @pb.compile
    def inside():
        with pb.no_grad():
            base.add_(1)
        return leaf * 1

    with pytest.raises(TraceError, match="made a leaf"):
        inside()
