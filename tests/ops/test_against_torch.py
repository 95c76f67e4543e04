"""Every operation against PyTorch and finite differences: values, dtypes, gradients, second derivatives."""

import pytest

import pullback as pb
from operation_rows import tables
from oracle import Value, compare
from pullback import debug
from pullback.autograd import gradcheck, gradgradcheck
from pullback.graph.node import reachable
from pullback.ops.primitive import REGISTRY

TABLES = tables()
ROWS = [row for table in TABLES for row in table.ROWS]
assert len({row.name for row in ROWS}) == len(ROWS), "two rows have one name"
CHECKED_BY_DIFFERENCES = [
    row
    for table in TABLES
    for row in table.ROWS
    if row.smooth and (row.differences or row.name in getattr(table, "CHECKED_BY_DIFFERENCES", ()))
]
IN_SIXTEEN_BITS = [
    row for table in TABLES for row in table.ROWS if row.sixteen or row.name in getattr(table, "IN_SIXTEEN_BITS", ())
]

#: what stands for a value from outside in a compiled program, never in a graph that a user builds
ONLY_IN_PROGRAMS = {"input"}
#: what stands for a value from outside in the body of a loop, never outside of it
ONLY_IN_LOOPS = {"parameter"}


def check(row, dtype, second=False):
    if dtype in row.dtypes:
        compare(row.expression, *row.values(row.operands, dtype), theirs=row.theirs, second=second)


def check_awkward(row, dtype):
    for operands in row.awkward if dtype in row.dtypes else ():
        compare(row.expression, *row.values(operands, dtype), theirs=row.theirs)


@pytest.fixture
def reference():
    """The interpreter: what gradient rules mean does not depend on how they are compiled."""
    with debug.override(backend="reference"):
        yield


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_values_and_gradients_are_pytorchs(row, reference):
    check(row, "float64", second=row.smooth)
    check_awkward(row, "float64")


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_native_code_gives_pytorchs_values_and_gradients(row):
    dtype = "float32" if "float32" in row.dtypes else "float64"
    with debug.override(backend="native"):
        check(row, dtype)
        check_awkward(row, dtype)


@pytest.mark.parametrize("row", CHECKED_BY_DIFFERENCES, ids=str)
def test_first_and_second_derivatives_are_those_of_finite_differences(row, reference):
    inputs = [value.ours(requires_grad=True) for value in row.values(row.operands, "float64")]
    assert gradcheck(lambda *tensors: row.expression(pb, *tensors), inputs, fast_mode=True)
    assert gradgradcheck(lambda *tensors: row.expression(pb, *tensors), inputs, fast_mode=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("row", IN_SIXTEEN_BITS, ids=str)
def test_sixteen_bit_floats_agree_within_their_precision(row, dtype, reference):
    compare(row.expression, *row.values(row.operands, dtype), theirs=row.theirs, slack=3)


def _primitives(outputs) -> set[str]:
    return {node.op.name for node in reachable([t.node for t in outputs], stop_at_buffers=False)}


def test_every_primitive_is_in_the_table():
    covered: set[str] = set()
    for row in ROWS:
        inputs = [value.ours(requires_grad=True) for value in row.values(row.operands, "float64")]
        outputs = row.expression(pb, *inputs)
        covered |= _primitives(outputs if isinstance(outputs, (tuple, list)) else (outputs,))
    assert set(REGISTRY) - ONLY_IN_PROGRAMS - ONLY_IN_LOOPS <= covered


def test_every_pullback_of_a_primitive_is_reached():
    """A rule that no row differentiates through would be a rule that nothing checks."""
    unreached = {
        (op.name, index)
        for op in REGISTRY.values()
        if not callable(op.pullbacks)
        for index, rule in enumerate(op.pullbacks)
        if rule is not None
    }
    for row in ROWS:
        inputs = [value.ours(requires_grad=True) for value in row.values(row.operands, "float64")]
        outputs = row.expression(pb, *inputs)
        for node in reachable([t.node for t in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))], False):
            if node.requires_grad:
                unreached -= {(node.op.name, i) for i, operand in enumerate(node.inputs) if operand.requires_grad}
    assert not unreached


def test_operands_of_an_operation_may_be_one_tensor():
    for expression in (
        lambda f, x: x * x,
        lambda f, x: x @ x,
        lambda f, x: x.maximum(x),
        lambda f, x: f.cat([x, x]) * 2,
    ):
        compare(expression, Value([[0.5, -1.0], [2.0, 3.0]]), second=True)
