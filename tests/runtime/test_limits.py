"""The kernels that measure what the machine can do still do all of their work once LLVM has optimized them."""

from __future__ import annotations

import re

import llvmlite.binding as llvm
import pytest

from pullback.codegen.text import Code
from pullback.runtime import jit, limits


def results(code: Code) -> list[str]:
    """The names of the values that `code` ends with, behind LLVM's passes as they are run on every kernel."""
    session = jit._session(jit.host_target())
    module = llvm.parse_assembly(code.text, llvm.create_context())
    module.triple, module.data_layout = session.target.triple, session._layout
    session._passes.run(module, session._builder)
    return re.findall(r"store volatile <[^>]*> (%[\w.]+), ptr %scratch", str(module))


@pytest.mark.parametrize("element", ["float", "double"])
def test_no_chain_of_multiply_adds_is_merged_with_another(element: str) -> None:
    found = results(limits._multiply_add(jit.host_target(), element))
    assert len(set(found)) == len(found) == limits._CHAINS


def test_no_chain_of_products_of_bfloat16_is_merged_with_another() -> None:
    if not limits._has_bfloat16_products(jit.host_target()):
        pytest.skip("this processor has no products of bfloat16")
    found = results(limits._multiply_add_bfloat16())
    assert len(set(found)) == len(found) == limits._CHAINS
