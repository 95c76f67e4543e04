"""Functions of SciPy and of scikit-learn that take any namespace of the Array API standard, on tensors.

SciPy looks at SCIPY_ARRAY_API when it is imported, so each library's functions run in a process of their own.
"""

import os
import subprocess
import sys
import textwrap

import pytest

_COMMON = """
import numpy as np
import pullback as pb

given = np.random.default_rng(0).standard_normal((20, 3))
x = pb.tensor(given)

def check(name, function, gives_tensor=True):
    found, expected = function(x), function(given)
    assert isinstance(found, pb.Tensor) == gives_tensor, f"{name} gave a {type(found).__name__}"
    found = found.numpy() if gives_tensor else found
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12, err_msg=name)
"""
_SCIPY = """
import scipy.cluster.vq, scipy.integrate, scipy.special, scipy.stats

for name in ("zscore", "skew", "kurtosis", "variation", "sem"):
    check(name, getattr(scipy.stats, name))
check("moment", lambda a: scipy.stats.moment(a, 2))
check("pearsonr", lambda a: scipy.stats.pearsonr(a[:, 0], a[:, 1]).statistic)
check("entropy", lambda a: scipy.stats.entropy(abs(a)))
check("gmean", lambda a: scipy.stats.gmean(abs(a)))
check("ttest_1samp", lambda a: scipy.stats.ttest_1samp(a, 0.0).statistic)
for name in ("logsumexp", "erf", "expit"):
    check(name, getattr(scipy.special, name))
check("softmax", lambda a: scipy.special.softmax(a, axis=1))
check("xlogy", lambda a: scipy.special.xlogy(abs(a), abs(a)))
check("whiten", scipy.cluster.vq.whiten)
check("trapezoid", lambda a: scipy.integrate.trapezoid(a, axis=0))
"""
_SKLEARN = """
from sklearn import config_context
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, StandardScaler

with config_context(array_api_dispatch=True):
    for kind in (MinMaxScaler, MaxAbsScaler, StandardScaler, Normalizer):
        check(kind.__name__, lambda a: kind().fit_transform(a))
    check("PCA", lambda a: abs(PCA(2, svd_solver="full").fit_transform(a)))
    check("Ridge", lambda a: Ridge(solver="svd").fit(a, a[:, 0]).predict(a))
    check("euclidean_distances", lambda a: euclidean_distances(a[:10], a[10:]))
    check("cosine_similarity", cosine_similarity)
    check("mean_squared_error", lambda a: mean_squared_error(a[:, 0], a[:, 1]), gives_tensor=False)
    check("r2_score", lambda a: r2_score(a[:, 0], a[:, 1]), gives_tensor=False)
"""


@pytest.mark.parametrize("library, uses", [("scipy", _SCIPY), ("sklearn", _SKLEARN)])
def test_functions_of_the_standard_take_tensors_and_give_them(library: str, uses: str) -> None:
    pytest.importorskip(library)
    program = textwrap.dedent(_COMMON + uses)
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
