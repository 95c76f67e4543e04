"""Every public function, class and method refuses an argument that it does not know, and names it."""

import warnings
from typing import Any

import pytest

import pullback as pb

NAMESPACES = [
    *("", "nn", "nn.functional", "nn.init", "nn.utils", "nn.utils.rnn", "nn.utils.prune", "optim", "func"),
    *(
        "nn.utils.parametrize",
        "nn.utils.parametrizations",
        "optim.lr_scheduler",
        "optim.swa_utils",
        "autograd",
        "autograd.functional",
        "amp",
    ),
    *("distributions", "testing", "linalg", "special", "signal.windows", "array_api", "utils", "utils.data"),
]
#: classes to be derived from, or that take anything as PyTorch's do; errors; what takes a class first, and its
#: arguments; and a step's own arguments
ANYTHING = {
    *("Size", "LinAlgError", "Function", "Dataset", "IterableDataset", "Sampler", "BasePruningMethod"),
    *("Identity", "skip_init", "plan"),
    *("global_unstructured", "StackDataset"),
}


def refusal(function: Any) -> str | None:
    """None where the argument was named in a TypeError; otherwise what happened."""
    said = "takes other arguments first"
    for args in ((), (pb.ones(2, 2),), (pb.ones(2, 2), pb.ones(2, 2)), (2, 3), (0,), (0, 1)):
        try:
            function(*args, surprising_option=1)
            return "accepted it"
        except TypeError as error:
            if "surprising_option" in str(error):
                return None
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
    return said


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_functions_and_classes(namespace: str) -> None:
    found: Any = pb
    for part in namespace.split(".") if namespace else ():
        found = getattr(found, part)
    names = [n for n in found.__all__ if not n.startswith("_") and n not in ANYTHING]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = {n: refusal(getattr(found, n)) for n in names if callable(getattr(found, n))}
    assert {n: s for n, s in said.items() if s is not None} == {}


def test_methods_of_tensors() -> None:
    x, wide = pb.ones(2, 2), pb.ones(2, 2, dtype=pb.float64)
    methods = {n: getattr(x, n) for n in dir(pb.Tensor) if not n.startswith("_") and n != "grad"}
    methods["float_power_"] = wide.float_power_  # of float64 alone
    said = {n: refusal(method) for n, method in methods.items() if callable(method)}
    assert {n: s for n, s in said.items() if s is not None} == {}
