"""no_grad, enable_grad, inference_mode and set_grad_enabled, as blocks and as decorators: PyTorch's."""

import pytest
import torch

import pullback as pb


def seen(lib):
    """What every form says of whether history is recorded, inside and after."""
    told = []

    def tell(said=None):
        told.append(lib.is_grad_enabled())
        return said

    for mode in (lib.no_grad, lib.enable_grad, lib.inference_mode):
        mode(tell)()
        mode()(tell)()
        with mode():
            tell()
        tell()
    for mode in (True, False):
        with lib.no_grad(), lib.inference_mode(mode=mode):
            tell()
        lib.inference_mode(mode)(tell)()
        with lib.set_grad_enabled(mode):
            tell()
        tell()
        wrapped = lib.set_grad_enabled(mode)(tell)
        tell()
        wrapped()
        tell()

    @lib.no_grad()
    def steps():
        try:
            told.append((yield lib.is_grad_enabled()))
        except ValueError:
            told.append("caught")
        yield lib.is_grad_enabled()
        return "end"

    told += list(steps())
    walk = steps()
    told += [next(walk), lib.is_grad_enabled(), walk.send("sent"), lib.is_grad_enabled()]
    walk = steps()
    told += [next(walk), walk.throw(ValueError()), lib.is_grad_enabled()]
    with pytest.raises(StopIteration, match="end"):
        next(walk)
    return told


def test_modes_are_pytorchs():
    assert seen(pb) == seen(torch) and pb.is_grad_enabled()


def test_decorated_functions_keep_their_name_and_methods_work():
    class Model:
        @pb.no_grad
        def run(self, x):
            """Runs."""
            return (x * 2).requires_grad

    assert Model.run.__name__ == "run" and not Model().run(pb.ones(1, requires_grad=True))


def test_one_object_can_be_entered_again_inside():
    mode = pb.no_grad()
    with mode:
        with mode:
            pass
        assert not pb.is_grad_enabled()
    assert pb.is_grad_enabled()


def test_whether_inference_mode_is_on_is_told_as_pytorch_tells():
    def told(lib):
        found, on = [], lib.is_inference_mode_enabled
        with lib.inference_mode():
            found.append(on())
            with lib.inference_mode(False):
                found.append((on(), lib.is_grad_enabled()))
            with lib.enable_grad():
                found.append((on(), lib.is_grad_enabled()))
        with lib.no_grad():
            found.append(on())
        lib.inference_mode()(lambda: found.append(on()))()
        return [*found, on()]

    assert told(pb) == told(torch)
