"""Arguments under every name that PyTorch takes for them."""

import inspect
import sys
from collections import defaultdict
from typing import Any

import pytest

import pullback as pb
from pullback.graph.node import Source

torch = pytest.importorskip("torch")

#: names in PyTorch's schemas that are for storage, names of axes, and others that its functions do not take
NO_ARGUMENTS = {
    "layout",
    "device",
    "pin_memory",
    "memory_format",
    "dimname",
    "out_dtype",
    "cudnn_enabled",
    "cudnn_enable",
}
#: overloads of TorchScript for Python's numbers, strings and lists, and what only those have by these names
SCRIPT = {"a", "b", "i", "x", "l", "n", "t", "idx", "list", "element", "reverse", "max", "separator", "path"}
#: spelled otherwise: variadic, of Python's keywords, or of layouts
ELSEWHERE = {
    *("result_type", "einsum", "tensordot", "broadcast_shapes"),
    *("random_", "uniform_", "embedding", "split", "isin", "select", "concatenate", "copy_"),
    *("atleast_1d", "atleast_2d", "atleast_3d", "initial_seed", "manual_seed", "seed", "set_grad_enabled"),
    *("backward", "is_grad_enabled", "orgqr", "ormqr", "save", "load"),
}


def schemas() -> dict[str, list[set[str]]]:
    found = defaultdict(list)
    for schema in torch._C._jit_get_all_schemas():
        names = {argument.name for argument in schema.arguments}
        written = any(argument.is_out for argument in schema.arguments)
        if schema.name.startswith("aten::") and not written and "names" not in names:
            found[schema.name[6:]].append(names)
    return found


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (pb, torch, ""),
        (pb.Tensor, torch.Tensor, ""),
        (pb.linalg, torch.linalg, "linalg_"),
        (pb.special, torch.special, "special_"),
    ],
)
def test_names_of_parameters(ours: Any, theirs: Any, prefix: str) -> None:
    known, missing = schemas(), {}
    for name in sorted({*dir(ours)} & {*dir(theirs)} - ELSEWHERE):
        function = getattr(ours, name)
        if name.startswith("_") or not inspect.isfunction(function) or prefix + name not in known:
            continue
        parameters = {**inspect.signature(function).parameters, **(function.__kwdefaults__ or {})}
        wanted = set().union(*known[prefix + name]) - NO_ARGUMENTS - SCRIPT
        if "self" in wanted:
            wanted = wanted - {"self"} | (set() if ours is pb.Tensor else {"input"})
        if wanted - {*parameters} and not {"options", "kwargs"} & {*parameters}:
            missing[name] = wanted - {*parameters}
    assert missing == {}


CALLS = [
    "sum(input=x, axis=1, keepdims=True)",
    "max(x, axis=0)",
    "max(input=x, other=x)",
    "softmax(input=x, axis=1, dtype=float)",
    "cat(tensors=[x, x], axis=1)",
    "index_select(input=x, axis=1, index=torch.tensor([1, 0]))",
    "addmm(input=x, mat1=x, mat2=x, beta=2)",
    "mm(input=x, mat2=x)",
    "split(tensor=x, split_size_or_sections=1, dim=1)[1]",
    "where(x > 1.5, input=x, other=0.0)",
    "zeros(size=(2, 3), dtype=int)",
    "ones(2, dtype=bool)",
    "special.logsumexp(input=x, axis=0)",
    "linalg.vector_norm(x, axis=1, keepdims=True)",
    "Tensor.topk(x, k=1, axis=0).values",
    "Tensor.to(x, float)",
    "multiply(x, other=x)",
    "unsqueeze(input=x, axis=0)",
]


@pytest.mark.parametrize("call", CALLS)
def test_results(call: str) -> None:
    made = [eval(call, vars(t) | {"torch": t, "x": t.tensor([[1.0, 2.0], [3.0, 4.0]])}) for t in (torch, pb)]
    theirs, ours = (m.values if isinstance(m, tuple) else m for m in made)
    assert pb.allclose(ours, pb.from_numpy(theirs.numpy()))
    assert str(ours.dtype).split(".")[1] == str(theirs.dtype).split(".")[1]


def test_what_is_refused_is_named() -> None:
    x = pb.ones(2, 2)
    for call, said in {
        "pb.softmax(x)": "missing a required argument: 'dim'",
        "x.sum(0, axis=1)": "both 'dim' and 'axis'",
        "pb.sum(x, surprising=1)": "surprising",
        "pb.max(x, 0, other=x)": "not both",
        "pb.zeros(2, size=(3,))": "given twice",
    }.items():
        with pytest.raises(TypeError, match=said):
            eval(call, {"pb": pb, "x": x})


def test_a_function_stays_what_it_was() -> None:
    for made in (pb.sum, pb.exp, pb.cat, pb.addmm):
        assert getattr(sys.modules[made.__module__], made.__qualname__) is made  # as whoever saves it by name finds it
    source = pb.sum(input=pb.ones(2).exp(), axis=0).node.source
    assert isinstance(source, Source)
    assert (source.operation, source.file) == ("sum", __file__)


@pytest.mark.parametrize("name", ["logical_and", "max", "clamp_min", "sin", "reshape", "argmax"])
def test_a_function_that_is_given_no_tensor_says_so(name):
    others = {"reshape": ((1,),), "sin": (), "argmax": ()}.get(name, (pb.zeros(2),))
    with pytest.raises(
        TypeError, match=rf"^{name}\(\): argument 'input' \(position 1\) must be Tensor, not int \(at .*spellings"
    ):
        getattr(pb, name)(2, *others)
    assert pb.minimum(2, pb.ones(1)).tolist() == pb.add(0, pb.ones(1)).tolist() == [1.0]
