"""Compiled methods: each object has recordings of its own, its attributes are followed, and it can be collected."""

import copy
import gc
import weakref
from functools import partial

import pytest

import pullback as pb
from pullback import nn
from pullback.errors import TraceError


class Scale:
    """Multiplies by what it holds."""

    def __init__(self, factor):
        self.factor = factor
        self.state = pb.zeros(2)

    @pb.compile
    def scale(self, x):
        """Times the factor."""
        return x * self.factor

    @pb.compile
    def remember(self, x):
        self.state = self.helper(x)

    @pb.compile
    def helper(self, x):
        return x * self.factor + 1

    @staticmethod
    @pb.compile
    def double(x):
        return x * 2

    @pb.compile
    @staticmethod
    def triple(x):
        return x * 3

    @classmethod
    @pb.compile
    def name_of(cls, x):
        return x + len(cls.__name__)

    @pb.compile
    @classmethod
    def again(cls, x):
        return x - len(cls.__name__)


class Longer(Scale):
    """A subclass."""

    @pb.compile
    def scale(self, x):
        return super().scale(x) + 100


class Net(nn.Module):
    """A module with a compiled method and an attribute of its own."""

    def __init__(self, alpha):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.alpha = alpha

    def forward(self, x):
        return self.linear(x) * self.alpha

    @pb.compile
    def loss(self, x):
        return self(x).sum()


X = [1.0, 2.0]


def test_two_instances_do_not_mix():
    first, second = Scale(2.0), Scale(pb.tensor([3.0, 4.0]))
    for _ in range(2):
        assert first.scale(pb.tensor(X)).tolist() == [2.0, 4.0]
        assert second.scale(pb.tensor(X)).tolist() == [3.0, 8.0]


def test_attributes_of_the_instance_are_followed():
    one = Scale(2.0)
    one.scale(pb.tensor(X))
    one.factor = 5.0
    assert one.scale(pb.tensor(X)).tolist() == [5.0, 10.0]
    one.factor = pb.tensor([0.0, 1.0])
    assert one.scale(pb.tensor(X)).tolist() == [0.0, 2.0]
    one.factor = pb.tensor([1.0, 1.0])
    assert one.scale(pb.tensor(X)).tolist() == X


def test_a_method_that_calls_another_follows_and_binds_what_that_one_names():
    one = Scale(2.0)
    for factor in (2.0, 2.0, 3.0):
        one.factor = factor
        one.remember(pb.tensor(X))
        assert one.state.tolist() == [factor + 1, 2 * factor + 1]


def test_an_instance_given_to_the_function_of_the_class_is_followed():
    one = Scale(2.0)
    Scale.scale(one, pb.tensor(X))
    one.factor = 4.0
    assert Scale.scale(one, pb.tensor(X)).tolist() == [4.0, 8.0]


def test_a_subclass_calls_the_method_of_its_base():
    assert Longer(2.0).scale(pb.tensor(X)).tolist() == [102.0, 104.0]


def test_static_and_class_methods_in_both_orders():
    x = pb.tensor(X)
    assert Scale.double(x).tolist() == Scale(1.0).double(x).tolist() == [2.0, 4.0]
    assert Scale.triple(x).tolist() == Scale(1.0).triple(x).tolist() == [3.0, 6.0]
    assert Scale.name_of(x).tolist() == [6.0, 7.0]
    assert Longer.name_of(x).tolist() == Longer(1.0).name_of(x).tolist() == [7.0, 8.0]
    assert Longer.again(x).tolist() == [-5.0, -4.0]


@pytest.mark.parametrize("make", [lambda: Scale(2.0), lambda: Net(2.0)])
def test_an_instance_is_collected_with_its_recordings(make):
    one = make()
    (one.scale if isinstance(one, Scale) else one.loss)(pb.ones(1, 2))
    alive = weakref.ref(one)
    del one
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_has_recordings_of_its_own(duplicate):
    one = Scale(2.0)
    one.scale(pb.tensor(X))
    other = duplicate(one)
    other.factor = 7.0
    assert other.scale(pb.tensor(X)).tolist() == [7.0, 14.0]
    assert one.scale(pb.tensor(X)).tolist() == [2.0, 4.0]


def test_name_and_docstring_are_those_of_the_method():
    one = Scale(2.0)
    assert (one.scale.__name__, one.scale.__doc__) == ("scale", "Times the factor.")
    assert Scale.scale.__wrapped__ is Scale.scale.function
    assert one.scale is one.scale


def test_a_bound_method_a_partial_and_a_module_can_be_compiled():
    net, x = Net(2.0), pb.ones(1, 2)
    plain = net(x).tolist()
    for compiled in (pb.compile(net.forward), pb.compile(net), pb.compile(partial(Net.forward, net))):
        net.alpha = 2.0
        assert compiled(x).tolist() == plain
        net.alpha = 4.0
        assert compiled(x).tolist() == [[2 * value for value in plain[0]]]


def test_compiled_methods_of_modules_follow_their_attributes():
    nets, x = [Net(1.0), Net(2.0)], pb.ones(1, 2)
    for alpha in (1.0, 3.0):
        for net in nets:
            net.alpha = alpha
            assert net.loss(x).item() == pytest.approx(net(x).sum().item(), rel=1e-6)
    assert set(nets[0].state_dict()) == {"linear.weight", "linear.bias"}


def test_an_object_with_slots_is_refused():
    class Slotted:
        __slots__ = ("factor",)

        @pb.compile
        def scale(self, x):
            return x * self.factor

    with pytest.raises(TraceError, match="Slotted keeps its attributes in __slots__"):
        Slotted().scale(pb.tensor(X))
