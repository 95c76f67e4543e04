"""`pullback.compile`: what a recorded step takes in, leaves behind, and refuses."""

from __future__ import annotations

import gc
import sys
import threading

import numpy as np
import pytest

import pullback as pb
from pullback.errors import GradientError, IndexOutOfRange, TraceError


def trained(compiled: bool, steps: int = 5) -> tuple[list[float], list[list[float]]]:
    """Losses and weights of a small fit, compiled or not."""
    pb.manual_seed(3)
    model = pb.nn.Sequential(pb.nn.Linear(4, 8), pb.nn.Tanh(), pb.nn.Dropout(0.3), pb.nn.Linear(8, 2))
    optimizer = pb.optim.AdamW(model.parameters(), lr=0.05)
    x, y = pb.randn(16, 4), pb.randint(0, 2, (16,))

    def step() -> pb.Tensor:
        optimizer.zero_grad()
        loss = pb.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        pb.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    run = pb.compile(step) if compiled else step
    losses = [run().item() for _ in range(steps)]
    return losses, [p.flatten().tolist() for p in model.parameters()]


def test_a_compiled_step_trains_as_the_undecorated_one_dropout_included() -> None:
    for compiled, plain in zip(trained(True), trained(False), strict=True):
        for a, b in zip(compiled, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_state_written_over_what_it_is_computed_from() -> None:
    w = pb.nn.Parameter(pb.arange(5).float())

    @pb.compile
    def reverse() -> pb.Tensor:
        with pb.no_grad():
            w.copy_(w.flip(0) + 1)
        return w.sum()

    for expected in ([5, 4, 3, 2, 1], [2, 3, 4, 5, 6], [7, 6, 5, 4, 3]):
        assert reverse().item() == sum(expected)
        assert w.tolist() == expected


def test_two_states_exchanged() -> None:
    a, b = pb.zeros(3), pb.ones(3)

    @pb.compile
    def swap() -> None:
        kept = a.clone()
        a.copy_(b)
        b.copy_(kept)

    for turn in range(4):
        swap()
        assert (a.tolist(), b.tolist()) == (([1.0] * 3, [0.0] * 3) if turn % 2 == 0 else ([0.0] * 3, [1.0] * 3))


def test_whoever_holds_an_old_value_keeps_it() -> None:
    w = pb.nn.Parameter(pb.zeros(3))

    @pb.compile
    def step() -> None:
        w.grad = None
        (w * 2).sum().backward()
        with pb.no_grad():
            w.sub_(w.grad)

    for _ in range(3):
        step()
    pending, array, gradient = w.clone(), w.detach().numpy(), w.grad
    aliased, cut, part = w.data, w.detach(), w[1:]
    for _ in range(3):
        step()
    assert pending.tolist() == array.tolist() == [-6.0] * 3
    assert gradient is not None and gradient.tolist() == [2.0] * 3
    assert w.tolist() == aliased.tolist() == cut.tolist() == [-12.0] * 3
    assert part.tolist() == [-12.0] * 2


def test_a_parameter_set_between_steps_is_taken_as_it_is() -> None:
    w = pb.nn.Parameter(pb.ones(2))

    @pb.compile
    def step() -> pb.Tensor:
        with pb.no_grad():
            w.mul_(2.0)
        return w.sum()

    assert step().item() == 4.0
    w.data = pb.tensor([10.0, 1.0])
    assert step().item() == 22.0
    with pb.no_grad():
        w.zero_()
    assert step().item() == 0.0


def test_gradients_accumulate_where_the_step_does_not_clear_them() -> None:
    model = pb.nn.Linear(2, 1)

    @pb.compile
    def accumulate(x: pb.Tensor) -> None:
        model(x).sum().backward()

    for _ in range(3):
        accumulate(pb.ones(1, 2))
    assert model.weight.grad.tolist() == [[3.0, 3.0]]
    model.zero_grad()
    accumulate(pb.ones(1, 2))
    held = model.weight.grad
    accumulate(pb.ones(1, 2))
    assert held.tolist() == [[1.0, 1.0]] and model.weight.grad.tolist() == [[2.0, 2.0]]


def test_gradients_of_arguments_reach_the_callers_tensors() -> None:
    @pb.compile
    def step(x: pb.Tensor) -> None:
        (x * x).sum().backward()

    for value in (3.0, 4.0):
        x = pb.tensor([value], requires_grad=True)
        step(x)
        step(x)
        assert x.grad.tolist() == [4 * value]


def test_a_new_shape_dtype_or_number_is_recorded_anew() -> None:
    calls = []

    @pb.compile
    def scale(x: pb.Tensor, by: int) -> pb.Tensor:
        calls.append((x.shape, x.dtype, by))
        return x * by

    assert scale(pb.ones(2), 3).tolist() == [3, 3]
    assert scale(pb.ones(2), 3).tolist() == [3, 3]
    assert scale(pb.ones(2), 4).tolist() == [4, 4]
    assert scale(pb.ones(3), 4).tolist() == [4, 4, 4]
    assert scale(pb.ones(2).long(), 4).dtype is pb.int64
    assert len(calls) == 4


def test_train_and_eval_are_followed() -> None:
    drop = pb.nn.Dropout(0.5)
    step = pb.compile(lambda x: drop(x))
    assert 0.0 in step(pb.ones(100)).tolist()
    drop.eval()
    assert step(pb.ones(100)).tolist() == [1.0] * 100
    drop.train()
    assert 0.0 in step(pb.ones(100)).tolist()


def test_random_numbers_go_on_from_step_to_step_and_seeds_are_followed() -> None:
    draw = pb.compile(lambda: pb.rand(4))
    pb.manual_seed(1)
    first = [draw().tolist() for _ in range(3)]
    pb.manual_seed(1)
    assert [draw().tolist() for _ in range(3)] == first
    pb.manual_seed(1)
    assert [pb.rand(4).tolist() for _ in range(3)] == first
    assert len({tuple(values) for values in first}) == 3


def test_a_value_asked_for_inside_names_the_line_and_the_way_out() -> None:
    with pytest.raises(TraceError, match=r"test_compile\.py:\d+.*pb\.where"):
        pb.compile(lambda x: x.sum().item())(pb.ones(3))
    with pytest.raises(TraceError, match=r"test_compile\.py:\d+.*pb\.where"):
        pb.compile(lambda x: x if x.sum() > 0 else -x)(pb.ones(3))


def test_a_failed_recording_leaves_everything_as_it_was() -> None:
    w = pb.nn.Parameter(pb.ones(2))
    w.grad = pb.full((2,), 7.0)

    @pb.compile
    def broken() -> None:
        w.grad = None
        (w * 3).sum().backward()
        with pb.no_grad():
            w.sub_(w.grad)
        raise KeyError("the user's own")

    with pytest.raises(KeyError):
        broken()
    assert w.tolist() == [1.0, 1.0] and w.grad.tolist() == [7.0, 7.0]


def test_a_wrong_index_stops_a_step_before_it_changes_anything() -> None:
    embedding = pb.nn.Embedding(5, 3)
    optimizer = pb.optim.Adam(embedding.parameters())

    @pb.compile
    def step(x: pb.Tensor, y: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = pb.nn.functional.cross_entropy(embedding(x), y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = pb.tensor([0, 1, 4]), pb.tensor([0, 1, 2])
    step(x, y)
    before = embedding.weight.tolist()
    with pytest.raises(IndexOutOfRange, match=r"5 at position \[2\] is not in 0 to 4.*test_compile"):
        step(pb.tensor([0, 1, 5]), y)
    with pytest.raises(IndexOutOfRange, match=r"target 7 at position \[1\] is not in 0 to 2"):
        step(x, pb.tensor([0, 7, 1]))
    assert embedding.weight.tolist() == before
    assert optimizer.state[embedding.weight]["step"].item() == 1.0
    step(x, y)
    assert embedding.weight.tolist() != before


def test_an_index_computed_in_the_step_is_checked_before_state_is_overwritten() -> None:
    count, table = pb.zeros(3), pb.arange(4).float()

    @pb.compile
    def step(x: pb.Tensor, shift: pb.Tensor) -> pb.Tensor:
        count.add_(1)
        return table[x.argmax() + shift]

    x = pb.tensor([0.0, 5.0, 1.0])
    assert [step(x, pb.tensor(2)).item() for _ in range(3)] == [3.0] * 3
    with pytest.raises(IndexOutOfRange):
        step(x, pb.tensor(3))
    assert count.tolist() == [3.0] * 3, "a step that failed has changed its state"


def test_a_tensor_that_leaks_out_of_a_step_says_so() -> None:
    leaked = []

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        leaked.append(x * 2)
        return x.sum()

    step(pb.ones(3))
    with pytest.raises(TraceError, match="Return the tensor from the step"):
        leaked[0].tolist()


def test_a_history_from_outside_cannot_enter() -> None:
    w = pb.ones(2, requires_grad=True)
    outside = w * 2
    with pytest.raises(TraceError, match="computed outside"):
        pb.compile(lambda: (outside * 3).sum())()


def test_results_of_a_step_have_no_history() -> None:
    w = pb.ones(2, requires_grad=True)
    result = pb.compile(lambda: (w * 3).sum())()
    with pytest.raises(GradientError):
        result.backward()


def test_programs_run_from_two_threads_at_once() -> None:
    steps = [pb.compile(lambda x, k=k: (x @ x).sin().sum() + k) for k in range(2)]
    x = pb.randn(64, 64)
    expected = [step(x).item() for step in steps]
    found: list[list[float]] = [[], []]

    def work(k: int) -> None:
        found[k] = [steps[k](x).item() for _ in range(50)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[value] * 50 for value in expected]


def test_structures_of_tensors_go_in_and_out() -> None:
    @pb.compile
    def step(batch: dict[str, pb.Tensor], pair: tuple[pb.Tensor, int]) -> dict[str, object]:
        return {"sum": batch["a"] + pair[0] * pair[1], "rest": [batch["b"], "text", None]}

    found = step({"a": pb.ones(2), "b": pb.zeros(1)}, (pb.ones(2), 3))
    assert found["sum"].tolist() == [4.0, 4.0]
    assert found["rest"][0].tolist() == [0.0] and found["rest"][1:] == ["text", None]
    assert pb.compile(lambda a: a * 2)(np.ones(3, np.float32)).tolist() == [2.0, 2.0, 2.0]


def test_an_argument_that_is_also_the_steps_own_tensor_is_one_tensor() -> None:
    x = pb.ones(2, requires_grad=True)
    optimizer = pb.optim.SGD([x], lr=0.1)

    @pb.compile
    def descend(a: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = (a * 3).sum()
        loss.backward()
        optimizer.step()
        return loss

    assert descend(x).item() == 6.0
    np.testing.assert_allclose(x.tolist(), [0.7, 0.7], rtol=1e-6)
    np.testing.assert_allclose(descend(x).item(), 4.2, rtol=1e-6)
    other = pb.full((2,), 5.0, requires_grad=True)
    descend(other)
    assert other.tolist() == [5.0, 5.0]

    w = pb.ones(2, requires_grad=True)

    @pb.compile
    def product(a: pb.Tensor) -> None:
        (a * w).sum().backward()

    product(w)
    assert w.grad.tolist() == [2.0, 2.0]


def test_one_tensor_given_twice_is_one() -> None:
    @pb.compile
    def step(a: pb.Tensor, b: pb.Tensor) -> pb.Tensor:
        a.add_(1)
        return a + b

    t, u = pb.ones(2), pb.zeros(2)
    assert step(t, t).tolist() == [4.0, 4.0] and t.tolist() == [2.0, 2.0]
    assert step(t, u).tolist() == [3.0, 3.0] and u.tolist() == [0.0, 0.0]


def test_a_replaced_parameter_or_part_of_a_module_is_seen() -> None:
    model = pb.nn.Sequential(pb.nn.Linear(2, 1), pb.nn.Identity())
    step = pb.compile(lambda x: model(x))
    before = step(pb.ones(1, 2)).item()
    model[0].bias = pb.nn.Parameter(model[0].bias.detach() + 100)
    assert abs(step(pb.ones(1, 2)).item() - before - 100) < 1e-4
    model[1] = pb.nn.ReLU()
    model[0].bias = pb.nn.Parameter(pb.full((1,), -1e6))
    assert step(pb.ones(1, 2)).item() == 0.0


def test_a_step_first_called_by_two_threads_at_once() -> None:
    model = pb.nn.Linear(8, 8)
    optimizer = pb.optim.Adam(model.parameters())

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    x, failures = pb.ones(4, 8), []

    def work() -> None:
        try:
            for _ in range(10):
                step(x).item()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_a_learning_rate_that_became_nan_is_refused_before_anything_changes() -> None:
    w = pb.nn.Parameter(pb.ones(2))
    optimizer = pb.optim.Adam([w], lr=0.1)

    @pb.compile
    def step() -> None:
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    step()
    before = w.tolist()
    optimizer.param_groups[0]["lr"] = float("nan")
    with pytest.raises(ValueError, match="finite, got nan"):
        step()
    assert w.tolist() == before


def test_what_is_handed_out_untouched() -> None:
    w, other = pb.nn.Parameter(pb.ones(2)), pb.full((3,), 2.0)

    @pb.compile
    def step(x: pb.Tensor) -> tuple[pb.Tensor, ...]:
        w.grad = other[:2]
        return w, other, x, x, other

    for _ in range(2):
        found = step(pb.zeros(1))
        assert [t.tolist() for t in found] == [[1.0, 1.0], [2.0] * 3, [0.0], [0.0], [2.0] * 3]
        assert w.grad.tolist() == [2.0, 2.0]


def test_a_dropped_step_lets_go_of_its_memory() -> None:
    def made() -> object:
        x = pb.randn(256, 256)
        step = pb.compile(lambda: (x @ x).tanh().sum())
        step()
        return None

    from pullback.runtime.buffers import live_bytes

    made()
    gc.collect()
    before = live_bytes()
    for _ in range(3):
        made()
    gc.collect()
    assert live_bytes() <= before + 1024, "dropped compiled steps still hold tensors"


def test_no_update_is_lost_where_two_threads_call_one_step() -> None:
    count = pb.zeros(100_000)

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        count.add_(x)
        return count.sin().exp().sin().sum()

    one, before = pb.ones(100_000), sys.getswitchinterval()
    step(one)
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [step(one).item() for _ in range(100)]) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert count.min().item() == count.max().item() == 201.0


@pytest.mark.parametrize("count", [1.5, "2", None, True])
def test_the_number_of_threads_is_an_int(count: object) -> None:
    before = pb.get_num_threads()
    with pytest.raises(TypeError, match="must be an int"):
        pb.set_num_threads(count)  # type: ignore[arg-type]
    assert pb.get_num_threads() == before
