"""What is computed along with what is asked for, and recorded in peace."""

import gc

import pytest

import pullback as pb


def _is_computed(tensor):
    return tensor._node.buffer is not None


def test_pending_tensors_that_share_work_are_computed_together_and_no_others():
    x, other = pb.randn(5), pb.randn(5)
    before = x.exp()
    middle = before * 2
    after, apart = middle + 1, other * 3
    beside = before - other  # shares `before`
    middle.numpy()
    assert all(map(_is_computed, (x, before, middle, after, beside)))
    assert not _is_computed(apart)
    assert not _is_computed(other)


def test_one_parameter_of_many_is_initialized_alone():
    layers = [pb.nn.Linear(3, 3) for _ in range(4)]
    layers[2].weight.detach().numpy()
    computed = [_is_computed(p) for layer in layers for p in layer.parameters()]
    assert computed == [place == 4 for place in range(8)]


def test_no_garbage_is_collected_while_a_step_is_recorded():
    seen = []

    @pb.compile
    def step(x):
        seen.append(gc.isenabled())
        if x.shape == (3,):
            raise ValueError("three")
        return x + 1

    assert gc.isenabled()
    step(pb.ones(2))
    with pytest.raises(ValueError, match="three"):
        step(pb.ones(3))
    assert gc.isenabled()
    gc.disable()
    try:
        step(pb.ones(4))
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert seen == [False] * 3
