"""What the namespace can do: the object that `__array_namespace_info__()` gives."""

from __future__ import annotations

from typing import Any

from ..graph import types
from ..graph.types import DType
from ..tensor.promotion import get_default_dtype
from .dtypes import check_device, isdtype

#: the dtypes that the standard names; float16 and bfloat16 stand in the namespace too, but in none of its kinds
_STANDARD = tuple(d for d in types.ALL if d not in (types.float16, types.bfloat16))


class NamespaceInfo:
    """Answers of the namespace about itself."""

    def capabilities(self) -> dict[str, Any]:
        """Whether bool arrays may be indices and shapes depend on values: outside of compiled steps, they may."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        """The only one."""
        return "cpu"

    def devices(self) -> list[str]:
        """The only one."""
        return ["cpu"]

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """The dtypes of arrays where none is given. There is no complex one."""
        check_device(device)
        return {"real floating": get_default_dtype(), "integral": types.int64, "indexing": types.int64}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        """The standard's dtypes by name, all of them or those of `kind`."""
        check_device(device)
        return {d.name: d for d in _STANDARD if kind is None or isdtype(d, kind)}


def __array_namespace_info__() -> NamespaceInfo:
    """What the namespace can do.

    >>> pb.array_api.__array_namespace_info__().default_device()
    'cpu'
    """
    return NamespaceInfo()
