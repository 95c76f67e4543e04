"""What scripts for PyTorch ask before they begin."""

import warnings
from typing import Any

import pytest
import torch

import pullback as pb


def test_devices_and_settings_say_what_is_so() -> None:
    assert not pb.cuda.is_available() and pb.cuda.device_count() == 0
    pb.cuda.manual_seed_all(0)
    with pytest.raises(AttributeError, match="no GPU"):
        _ = pb.cuda.synchronize
    assert pb.cpu.is_available() and pb.cpu.is_initialized() and pb.cpu.device_count() == 1
    assert pb.cpu.current_device() == "cpu" and pb.cpu.synchronize() is None  # type: ignore[func-returns-value]
    pb.use_deterministic_algorithms(True)
    pb.set_float32_matmul_precision("highest")
    with pytest.raises(ValueError, match="highest"):
        pb.set_float32_matmul_precision("high")
    assert pb.Generator(7).initial_seed() == 7
    assert pb.ones(1).layout is pb.strided and isinstance(pb.strided, pb.layout)


@pytest.mark.parametrize(
    "call",
    [
        *("cuda.is_initialized()", "cuda.is_bf16_supported()", "cuda.memory_reserved()", "cuda.max_memory_reserved()"),
        *("cuda.get_arch_list()", "cuda.get_rng_state_all()", "cuda.is_tf32_supported()", "cuda.memory_allocated()"),
        *(f"cuda.manual_seed{all}({seed})" for all in ("", "_all") for seed in ("'a'", "'3'", "None", "1.5")),
        *(f"manual_seed({seed}) and None" for seed in ("'a'", "'3'", "None", "1.5", "2**70", "-1")),
    ],
)
def test_answers_and_refusals_are_pytorchs(call: str) -> None:
    def told(lib: Any) -> Any:
        try:
            return eval(f"lib.{call}", {"lib": lib})
        except (TypeError, ValueError, RuntimeError) as error:
            return next(kind for kind in (TypeError, ValueError, RuntimeError) if isinstance(error, kind))

    assert told(pb) == told(torch)


def test_switches_of_other_libraries_are_kept_and_put_back() -> None:
    for lib in (pb, torch):
        for library in (lib.backends.cudnn, lib.backends.mkldnn):
            before = library.enabled, library.deterministic
            with library.flags(enabled=False, deterministic=True):
                assert (library.enabled, library.deterministic) == (False, True)
            assert (library.enabled, library.deterministic) == before
    assert not any(getattr(pb.backends, name).is_available() for name in ("mkldnn", "mkl", "openmp"))


def test_the_default_can_be_said_as_a_kind_of_tensor() -> None:
    for lib in (pb, torch):
        for given, dtype in ((lib.DoubleTensor, lib.float64), ("torch.FloatTensor", lib.float32)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                lib.set_default_tensor_type(given)
            assert lib.get_default_dtype() == dtype
        for wrong in ("torch.LongTensor", lib.float64):
            with warnings.catch_warnings(), pytest.raises(TypeError):
                warnings.simplefilter("ignore")
                lib.set_default_tensor_type(wrong)


def test_repeats_by_a_tensor_inside_a_step_ask_for_the_size() -> None:
    def step(x: pb.Tensor, n: pb.Tensor) -> pb.Tensor:
        return x.repeat_interleave(n)

    with pytest.raises(pb.errors.TraceError, match="output_size"):
        pb.compile(step)(pb.ones(2), pb.tensor([1, 2]))


@pytest.mark.parametrize("call", ["x.hardshrink(0.6)", "x.prelu(0.5 * one)"])
def test_methods(call: str) -> None:
    ours, theirs = (eval(call, {"x": f.tensor([-1.0, 0.5, 2.0]), "one": f.ones(1)}).tolist() for f in (pb, torch))
    assert ours == theirs


def test_gradients_that_differ_from_pytorchs_on_purpose() -> None:
    x, a, b = pb.zeros(2, requires_grad=True), pb.eye(2).requires_grad_(), pb.zeros(2, requires_grad=True)
    (pb.xlogy(x, x).sum() + pb.linalg.eigh(a)[1].sum()).backward()
    given = pb.ones(3, 2, requires_grad=True)
    slope = pb.autograd.grad(pb.relu(given + b).sum(), given, create_graph=True)[0]
    (slope * given).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0] and a.grad.tolist() == [[0.0, 0.0]] * 2 and b.grad is None
