"""PyTorch's own database of operators as an oracle: its samples in both libraries, values and gradients compared.

`python tests/operator_database.py NAME ...` tries every sample of the operators of those names (or beginnings of names,
ending in `*`) and prints what differs; without names, all that Pullback has. The suite tries the first few samples of
each. `--narrow` before the names tries the smaller dtypes instead, `--errors` the inputs that PyTorch refuses.
"""

from __future__ import annotations

import operator
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch

import pullback as pb
from oracle import TOLERANCE, cotangent, numbers

#: by default every floating point sample is also differentiated, in this dtype
DIFFERENTIATED = torch.float64
#: dtypes in which samples are asked for, as far as the operator takes them in PyTorch
DTYPES = (torch.float64, torch.float32, torch.int64, torch.bool)
#: the smaller dtypes, under the switch `--narrow`; in the 16-bit floats PyTorch's CPU often rounds within
NARROW = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
#: what gives places in order: integers, bools and 16-bit floats have equal elements, of which PyTorch gives the place
#: of any; there the elements are compared, and of argsort, which gives none, nothing
ANY_OF_EQUALS = {"argsort", "kthvalue", "mode", "sort", "topk"}
#: arguments that say where and how PyTorch is to lay a result out; there is one device and one layout
NOT_OURS = ("device", "layout", "pin_memory")


#: what gives random numbers, or whatever memory holds: shapes and dtypes are compared, and no values
UNDETERMINED = {
    *("empty", "empty_like", "new_empty", "rand_like", "randint", "randint_like", "randn", "randn_like"),
    *("nn.functional.fractional_max_pool2d", "nn.functional.fractional_max_pool3d"),
    *("bernoulli", "cauchy", "exponential", "geometric", "log_normal", "multinomial", "normal", "uniform"),
}

#: which PyTorch computes with errors of up to 3e-7, as it leaves the leading 1 of denominators out: SciPy's, which are
#: the records' own references, take its place
BY_SCIPY = {f"special.{name}" for name in ("airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1")}

#: names that the database calls in a way of its own, or that are properties
SPELT: dict[str, Callable[..., Any]] = {
    "linalg.lstsq grad_oriented": lambda a, b, driver: pb.linalg.lstsq(a, b, driver=driver)[:2],
    "linalg.pinv singular": lambda a, b: pb.linalg.pinv(a @ b.mT),
    "svd_lowrank": lambda a, b, **options: pb.svd_lowrank(a @ b.mT, **options),
    "pca_lowrank": lambda a, b, **options: pb.pca_lowrank(a @ b.mT, **options),
    "where": lambda x, condition, other: pb.where(condition, x, other),
    "einsum": lambda tensors, equation: pb.einsum(equation, tensors),
    **{
        name: (lambda x, *args, method=f"{name}_", **options: getattr(x.clone(), method)(*args, **options))
        for name in ("cauchy", "exponential", "geometric", "log_normal", "uniform")
    },
    "normal in_place": lambda x, *args, **options: x.clone().normal_(*args, **options),
    "zero_": lambda x: x.clone().zero_(),
    **{name: operator.attrgetter(name) for name in ("H", "T", "mH", "mT")},
    **{
        f"nn.functional.{name}": (
            lambda weight, index, name=name, **options: getattr(pb.nn.functional, name)(index, weight, **options)
        )
        for name in ("embedding", "embedding_bag")
    },
}

#: whose results are compared after what the record does with them: there are several right ones
NOT_UNIQUE = {"linalg.eigh", "linalg.svd", "pca_lowrank", "svd", "svd_lowrank"}


def seed_all(seed: int) -> None:
    """Seed what samples are drawn from. PyTorch's function notes the stack each time, for devices it has not."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@cache
def database() -> dict[str, list[Any]]:
    """The records of PyTorch's database by name: of one name, the variants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal import common_utils, opinfo
        from torch.testing._internal.common_methods_invocations import op_db
    # Before each series of samples PyTorch looks for a unittest among the callers, and reads the source of every frame
    # for that: 0.1 s in a worker of pytest-xdist, whose first frames have none. No test here is a unittest.
    common_utils.extract_test_fn = opinfo.core.extract_test_fn = lambda: None
    common_utils.set_rng_seed = seed_all
    found: dict[str, list[Any]] = {}
    for record in op_db:
        found.setdefault(record.name, []).append(record)
    return found


def ours(name: str, variant: str = "") -> Any:
    """What Pullback has under PyTorch's `name`: a function, or else a method of tensors; None where it has neither."""
    if f"{name} {variant}".strip() in SPELT:
        return SPELT[f"{name} {variant}".strip()]
    found: Any = pb
    for part in name.split("."):
        found = getattr(found, part, None)
    is_function = found is not None and not isinstance(found, (pb.dtype, ModuleType))
    return found if is_function else getattr(pb.Tensor, name, None)


@dataclass
class Outcome:
    """What trying an operator's samples gave."""

    samples: int = 0
    failures: list[str] = field(default_factory=list)


def translated(value: Any) -> Any:
    """An argument of PyTorch's as Pullback's: tensors (strides and all), dtypes, and what they are nested in."""
    if isinstance(value, torch.Tensor):
        plain = value.detach()
        array = (plain.float() if plain.dtype in (torch.bfloat16, torch.float16) else plain).numpy()
        made = pb.tensor(array, dtype=getattr(pb, str(plain.dtype).removeprefix("torch.")))
        return made.requires_grad_() if value.requires_grad else made
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, torch.nn.PairwiseDistance):
        return pb.nn.PairwiseDistance(value.norm, value.eps, value.keepdim)
    if isinstance(value, torch.dtype):
        return getattr(pb, str(value).removeprefix("torch."))
    if isinstance(value, (torch.Size, tuple, list)):
        plain_type = tuple if isinstance(value, torch.Size) or hasattr(value, "_fields") else type(value)
        return plain_type([translated(v) for v in value])
    if isinstance(value, dict):
        return {k: translated(v) for k, v in value.items() if k not in NOT_OURS}
    return value


def undetermined(record: Any, sample: Any) -> bool:
    """Whether chance has a part in the result of this sample."""
    if record.name in UNDETERMINED:
        return True
    options = sample.kwargs
    if record.name == "svd_lowrank" and options.get("M") is not None:
        return True  # of full rank, so that the approximation is the random basis's
    if record.name == "nn.functional.rrelu":
        return bool(options.get("training"))
    if record.name == "nn.functional.multi_head_attention_forward":
        return bool(options["training"]) and sample.args[9] > 0  # dropout_p
    dropped = options.get("dropout_p", options.get("p", 0.5) if "dropout" in record.name else 0.0)
    return 0 < dropped < 1 and bool(options.get("training", True)) if isinstance(dropped, float) else False


def tensors_in(value: Any) -> list[Any]:
    """The tensors of either library in nested tuples, lists and dictionaries, in order."""
    if isinstance(value, (torch.Tensor, pb.Tensor)):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors_in(v)]
    return [t for v in value for t in tensors_in(v)] if isinstance(value, (tuple, list)) else []


def compare_sample(record: Any, sample: Any, second: bool = False) -> None:
    """Assert that one sample has PyTorch's result, and PyTorch's gradients by every tensor that requires them."""
    arguments = (sample.input, sample.args, {k: v for k, v in sample.kwargs.items() if k not in NOT_OURS})
    mine = tuple(translated(a) for a in arguments)
    expected = record.op(sample.input, *sample.args, **sample.kwargs)
    if record.name in BY_SCIPY:
        expected = torch.as_tensor(record.ref(sample.input.double().numpy())).to(expected.dtype)
    function = ours(record.name, record.variant_test_name)
    got = function(mine[0], *mine[1], **mine[2])
    process = sample.output_process_fn_grad if record.name in NOT_UNIQUE else _as_it_is
    wanted, found = tensors_in(process(expected)), tensors_in(process(got))
    if record.name in ANY_OF_EQUALS and wanted[0].dtype not in (torch.float32, torch.float64):
        wanted, found = wanted[:1], found[:1]
    if not wanted and not found:
        assert got == expected, f"gives {got!r}, PyTorch {expected!r}"
        return
    assert len(wanted) == len(found), f"gives {len(found)} tensors, PyTorch {len(wanted)}"
    chance = undetermined(record, sample)
    for place, (a, b) in enumerate(zip(found, wanted, strict=True)):
        agree_in_kind(a, b, f"output {place}")
        if not chance:
            agree(a, b, f"output {place}")
    if chance or wanted[0].dtype != DIFFERENTIATED or not record.supports_autograd:
        return
    compare_gradients(record, sample, expected, got, arguments, mine)


def _as_it_is(result: Any) -> Any:
    return result


def compare_gradients(record: Any, sample: Any, expected: Any, got: Any, theirs: Any, mine: Any) -> None:
    """Assert that the gradients are PyTorch's; of outputs that are not unique, of what the record makes of them."""
    process = sample.output_process_fn_grad
    wanted = [t for t in tensors_in(process(expected)) if t.requires_grad]
    try:
        found = [t for t in tensors_in(process(got)) if t.requires_grad]
    except AttributeError:
        return  # what PyTorch's record does with the result is no function of ours
    inputs = [(a, b) for a, b in zip(tensors_in(list(mine)), tensors_in(list(theirs)), strict=True) if b.requires_grad]
    if not wanted or not inputs:
        return
    assert len(wanted) == len(found), f"{len(found)} outputs have a gradient, in PyTorch {len(wanted)}"
    seeds = [cotangent(t, place) for place, t in enumerate(wanted)]
    their_gradients = torch.autograd.grad(
        wanted, [b for _, b in inputs], [s.theirs() for s in seeds], allow_unused=True, retain_graph=True
    )
    our_gradients = pb.autograd.grad(found, [a for a, _ in inputs], [s.ours() for s in seeds], allow_unused=True)
    for place, (a, b) in enumerate(zip(our_gradients, their_gradients, strict=True)):
        if a is None and b is None:
            continue
        like = inputs[place][0]
        a = pb.zeros_like(like) if a is None else a
        b = torch.zeros(tuple(like.shape), dtype=DIFFERENTIATED) if b is None else b
        agree(a, b, f"gradient of tensor {place}", slack=10)


def agree_in_kind(a: Any, b: Any, what: str) -> None:
    """Assert one shape and one dtype."""
    their_name = str(b.dtype).removeprefix("torch.")
    assert a.dtype.name == their_name, f"{what}: dtype {a.dtype.name}, PyTorch has {their_name}"
    assert tuple(a.shape) == tuple(b.shape), f"{what}: shape {tuple(a.shape)}, PyTorch has {tuple(b.shape)}"


def agree(a: Any, b: Any, what: str, slack: float = 1.0) -> None:
    """Assert one shape, one dtype, and the same values within the dtype's tolerance; NaN equals NaN."""
    agree_in_kind(a, b, what)
    their_name = str(b.dtype).removeprefix("torch.")
    relative, absolute = TOLERANCE.get(their_name, (0.0, 0.0))
    x, y = numbers(a), numbers(b.resolve_conj().resolve_neg())
    scale = np.max(np.abs(y[np.isfinite(y)]), initial=0.0) if y.dtype.kind == "f" else 0.0
    np.testing.assert_allclose(
        x, y, rtol=relative * slack, atol=slack * (absolute + relative * float(scale)), equal_nan=True, err_msg=what
    )


def samples_of(record: Any, dtype: torch.dtype) -> Iterator[Any]:
    """The record's samples in `dtype`, the same at every call."""
    if dtype not in record.supported_dtypes("cpu"):
        return
    seed_all(0)
    differentiable = dtype is DIFFERENTIATED and record.supports_autograd
    for sample in record.sample_inputs("cpu", dtype, requires_grad=differentiable):
        if sample.kwargs.get("memory_format") is not torch.channels_last:  # there is one layout
            yield sample


def described(sample: Any) -> str:
    """A sample's arguments in a line: tensors by dtype and shape."""

    def short(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        if isinstance(value, (tuple, list)):
            return f"({', '.join(map(short, value))})"
        if isinstance(value, dict):
            return ", ".join(f"{k}={short(v)}" for k, v in value.items())
        return repr(value)

    return f"{short(sample.input)}, {short(sample.args)}, {short(sample.kwargs)}"


def trial(name: str, most: int | None = None, dtypes: tuple[torch.dtype, ...] = DTYPES) -> Outcome:
    """Try the samples of every variant of `name`, at most `most` of each dtype."""
    outcome = Outcome()
    for record in database()[name]:
        for dtype in dtypes:
            if name == "argsort" and dtype not in (torch.float32, torch.float64):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for number, sample in enumerate(samples_of(record, dtype)):
                    if most is not None and number >= most:
                        break
                    outcome.samples += 1
                    try:
                        compare_sample(record, sample)
                    except Exception as error:
                        said = " ".join(f"{type(error).__name__}: {error}".split())[:400]
                        outcome.failures.append(
                            f"{record.name}.{record.variant_test_name}({described(sample)}): {said}"
                        )
    return outcome


#: what says that a bad input was refused, and by what it is refused; anything else is an accident within
REFUSALS = (TypeError, ValueError, RuntimeError, IndexError, NotImplementedError)


def answered(name: str) -> Outcome:
    """Try what PyTorch refuses: the failures are the inputs that are answered here, or fail with an accident."""
    outcome = Outcome()
    for record in database()[name]:
        if record.error_inputs_func is None:
            continue
        seed_all(0)
        for error in record.error_inputs("cpu"):
            sample = error.sample_input
            if error.error_type is Warning or _is_not_ours(sample) or _has_numbers_for_tensors(error):
                continue
            outcome.samples += 1
            try:
                first, args, kwargs = translated((sample.input, tuple(sample.args), dict(sample.kwargs)))
                result = ours(name, record.variant_test_name)(first, *args, **kwargs)
                for tensor in tensors_in(result):
                    tensor.detach().numpy()
            except REFUSALS:
                continue
            except Exception as accident:
                said = f"fails with {type(accident).__name__}: {accident}"
            else:
                said = "is answered"
            outcome.failures.append(f"{name}({described(sample)}) {said}; PyTorch: {error.error_regex}"[:400])
    return outcome


def _is_not_ours(sample: Any) -> bool:
    """Whether a sample speaks of what Pullback leaves out: complex numbers, results written where one says."""
    tensors = tensors_in([sample.input, list(sample.args), sample.kwargs])
    if sample.kwargs.get("layout") not in (None, torch.strided):
        return True
    return any(t.is_complex() or t.layout is not torch.strided or t.device.type != "cpu" for t in tensors)


def _has_numbers_for_tensors(error: Any) -> bool:
    """Whether all that is wrong is a number as an operand of a function of two, which takes it here."""
    sample = error.sample_input
    return not error.error_regex and any(isinstance(v, (int, float)) for v in (sample.input, *sample.args))


def main(names: list[str]) -> int:
    """Try the named operators, print what differs, and count."""
    switches = {n for n in names if n.startswith("--")}
    names = [n for n in names if n not in switches]
    if switches - {"--narrow", "--errors"}:
        raise SystemExit(f"the switches are --narrow and --errors, got {' '.join(sorted(switches))}")
    dtypes = NARROW if "--narrow" in switches else DTYPES
    torch.set_num_threads(1)
    every = sorted(database())
    chosen = [n for n in every if any(n == g or (g.endswith("*") and n.startswith(g[:-1])) for g in names)]
    missing, failing = [], []
    for name in chosen if names else [n for n in every if ours(n) is not None]:
        if ours(name) is None:
            missing.append(name)
            continue
        outcome = answered(name) if "--errors" in switches else trial(name, dtypes=dtypes)
        print(f"{name}: {outcome.samples - len(outcome.failures)} of {outcome.samples}", flush=True)
        for line in outcome.failures[:5]:
            print(f"    {line}")
        failing += [name] if outcome.failures else []
    print(f"missing: {' '.join(missing) or 'none'}\nfailing: {' '.join(failing) or 'none'}")
    return 1 if missing or failing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
