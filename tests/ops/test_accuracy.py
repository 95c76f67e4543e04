"""Elementary and special functions against SciPy's in float64, over their ranges, in units in the last place."""

import numpy as np
import pytest
import scipy.special

import pullback as pb
from pullback import debug

_RANDOM = np.random.default_rng(0)
_BOTH = np.concatenate([s * 10 ** _RANDOM.uniform(-8, 1.5, 2000) for s in (-1, 1)])
_ABOVE = 10 ** _RANDOM.uniform(-6, 6, 4000)
_UNIT = _RANDOM.uniform(-1, 1, 4000)

#: name, the same in float64, points, and the greatest error in float32 and float64 (SciPy's own included:
#: against 35 digits ours stay below 4 units for erfc and lgamma too)
CASES = [
    ("tan", np.tan, _BOTH, 3, 4),
    ("atan", np.arctan, _BOTH, 3, 3),
    ("asin", np.arcsin, _UNIT, 3, 3),
    ("acos", np.arccos, _UNIT, 3, 3),
    ("sinh", np.sinh, _BOTH, 4, 4),
    ("cosh", np.cosh, _BOTH, 4, 4),
    ("asinh", np.arcsinh, _BOTH, 4, 4),
    ("acosh", np.arccosh, 1 + _ABOVE, 4, 4),
    ("atanh", np.arctanh, _UNIT, 4, 4),
    ("expm1", np.expm1, _BOTH, 4, 4),
    ("log1p", np.log1p, _ABOVE, 3, 4),
    ("log2", np.log2, _ABOVE, 4, 4),
    ("log10", np.log10, _ABOVE, 4, 4),
    ("erfc", scipy.special.erfc, _RANDOM.uniform(-3, 8, 4000), 5, 40),
    ("erfinv", scipy.special.erfinv, _UNIT, 6, 12),
    ("lgamma", scipy.special.gammaln, _ABOVE, 9, 150),
    ("i0", scipy.special.i0, _BOTH, 7, 12),
]


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(("name", "function", "points", "single", "double"), CASES, ids=[c[0] for c in CASES])
def test_errors_are_a_few_units_in_the_last_place(name, function, points, single, double, backend) -> None:
    for dtype, bound in ((np.float32, single), (np.float64, double)):
        x = points.astype(dtype)
        expected = function(x.astype(np.float64))
        with debug.override(backend=backend):
            got = getattr(pb.tensor(x), name)().numpy()
        inside = np.abs(expected) < np.finfo(dtype).max / 2
        error = np.abs(got.astype(np.float64) - expected)[inside]
        assert np.max(error / np.spacing(np.abs(expected[inside]).astype(dtype))) <= bound


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logarithms_of_powers_are_whole(dtype: str) -> None:
    binary = pb.tensor([2.0**k for k in range(-120, 120)], dtype=getattr(pb, dtype))
    assert binary.log2().tolist() == list(range(-120, 120))
    decimal = pb.tensor([10.0**k for k in range(11)], dtype=getattr(pb, dtype))
    assert decimal.log10().tolist() == list(range(11))
