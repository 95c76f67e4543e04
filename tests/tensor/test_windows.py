"""Windows: SciPy's points, symmetric and periodic; bad arguments are refused."""

from typing import Any

import numpy as np
import pytest
import scipy.signal.windows

import pullback as pb

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("bartlett", "blackman", "cosine", "hamming", "hann", "nuttall")),
    ("exponential", {"tau": 2.5}),
    ("gaussian", {"std": 1.7}),
    ("general_cosine", {"a": [0.4, 0.3, 0.2, 0.1]}),
    ("general_hamming", {"alpha": 0.7}),
    ("kaiser", {"beta": 8.6}),
]


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_points_are_scipys(name: str, options: dict[str, Any], sym: bool) -> None:
    for size in (0, 1, 2, 7, 12):
        wanted = getattr(scipy.signal.windows, name)(size, **options, sym=sym)
        found = getattr(pb.signal.windows, name)(size, **options, sym=sym, dtype=pb.float64)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hann", {"M": -1}),
        ("hann", {"M": 3.0}),
        ("hann", {"M": 3, "dtype": pb.int64}),
        ("hann", {"M": 3, "dtype": pb.float16}),
        ("hann", {"M": 3, "device": "cuda"}),
        ("exponential", {"M": 3, "tau": 0.0}),
        ("exponential", {"M": 3, "center": 1.0}),
        ("gaussian", {"M": 3, "std": -1.0}),
        ("kaiser", {"M": 3, "beta": -1.0}),
        ("general_cosine", {"M": 3, "a": []}),
        ("general_cosine", {"M": 3, "a": 0.5}),
    ],
)
def test_bad_arguments_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\(at "):
        getattr(pb.signal.windows, name)(**options)
