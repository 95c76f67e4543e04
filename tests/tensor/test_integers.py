"""The integer dtypes: arithmetic wraps and divides as NumPy's, and values pass to and from other libraries as they are.

NumPy is the oracle, because PyTorch refuses most operations on uint16, uint32 and uint64.
"""

import numpy as np
import pytest
import torch

import pullback as pb
from oracle import our_dtype
from pullback.errors import DTypeError

NAMES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def extremes(name: str) -> np.ndarray:
    """Both ends, what is next to them, and small numbers of both signs where there are two."""
    limits = np.iinfo(name)
    numbers = [limits.min, limits.max, limits.min + 1, limits.max - 1, 0, 1, 2, 3, 7, limits.max // 2 + 1]
    return np.array(numbers + ([-1, -2, -7] if limits.min else []), name)


def pairs(name: str) -> tuple[np.ndarray, np.ndarray]:
    one, other = np.meshgrid(extremes(name), extremes(name))
    return one.ravel(), other.ravel()


BINARY = {
    "add": (lambda x, y: x + y, np.add),
    "sub": (lambda x, y: x - y, np.subtract),
    "mul": (lambda x, y: x * y, np.multiply),
    "floor_divide": (lambda x, y: x // pb.where(y == 0, 1, y), lambda x, y: x // np.where(y == 0, x.dtype.type(1), y)),
    "remainder": (lambda x, y: x % pb.where(y == 0, 1, y), lambda x, y: x % np.where(y == 0, x.dtype.type(1), y)),
    "less": (lambda x, y: x < y, np.less),
    "less_equal": (lambda x, y: x <= y, np.less_equal),
    "maximum": (lambda x, y: x.maximum(y), np.maximum),
    "minimum": (lambda x, y: x.minimum(y), np.minimum),
    "xor": (lambda x, y: x ^ y, np.bitwise_xor),
    "shift left": (lambda x, y: x << (y & 7), lambda x, y: x << (y & 7)),
    "shift right": (lambda x, y: x >> (y & 7), lambda x, y: x >> (y & 7)),
    "power": (lambda x, y: x ** (y & 7), lambda x, y: x ** (y & 7)),
    "gcd": (lambda x, y: x.gcd(y), np.gcd),
}
UNARY = {
    "neg": (lambda x: -x, np.negative),
    "abs": (lambda x: x.abs(), np.abs),
    "sign": (lambda x: x.sign(), np.sign),
    "not": (lambda x: ~x, np.invert),
    "float64": (lambda x: x.double(), lambda x: x.astype(np.float64)),
    "float32": (lambda x: x.float(), lambda x: x.astype(np.float32)),
    "amax": (lambda x: x.amax(), np.max),
    "amin": (lambda x: x.amin(), np.min),
    "argmax": (lambda x: x.argmax(), np.argmax),
    "argmin": (lambda x: x.argmin(), np.argmin),
    "sort": (lambda x: x.sort()[0], np.sort),
    "argsort": (lambda x: x.argsort(), lambda x: np.argsort(x, kind="stable")),
    "argsort descending": (lambda x: x.argsort(descending=True), lambda x: np.argsort(~x, kind="stable")),
    "unique": (lambda x: x.unique(), np.unique),
    "cummax": (lambda x: x.cummax(0)[0], np.maximum.accumulate),
    "sum": (lambda x: x.sum(), lambda x: x.astype(np.int64).sum()),
    "cumsum": (lambda x: x.cumsum(0), lambda x: x.astype(np.int64).cumsum()),
    "clamp": (lambda x: x.clamp(1, 100), lambda x: np.clip(x, 1, 100)),
    "nonzero": (lambda x: x.nonzero()[:, 0], lambda x: np.nonzero(x)[0]),
}


@pytest.mark.parametrize("name", NAMES)
def test_arithmetic_is_numpys_at_both_ends_of_the_range(name):
    with np.errstate(all="ignore"):
        x, y = pairs(name)
        results = {key: ours(pb.tensor(x), pb.tensor(y)) for key, (ours, _) in BINARY.items()}
        wanted = {key: theirs(x, y) for key, (_, theirs) in BINARY.items()}
        single = extremes(name)
        results |= {key: ours(pb.tensor(single)) for key, (ours, _) in UNARY.items()}
        wanted |= {key: np.asarray(theirs(single)) for key, (_, theirs) in UNARY.items()}
        for key, result in results.items():
            np.testing.assert_array_equal(result.numpy(), wanted[key], err_msg=f"{key} of {name}")
            assert result.numpy().dtype == wanted[key].dtype, f"{key} of {name}"


@pytest.mark.parametrize("name", NAMES)
def test_every_integer_becomes_every_other_as_in_numpy(name):
    x = extremes(name)
    for other in NAMES:
        np.testing.assert_array_equal(pb.tensor(x).to(our_dtype(other)).numpy(), x.astype(other))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", ["float32", "float64"])
def test_floats_are_cut_to_the_integers_that_hold_them(name, source):
    limits = np.iinfo(name)
    numbers = [0.9, 1.5, 100.7, float(limits.max // 2), limits.max * 0.75, 0.0] + ([-1.5, -100.7] if limits.min else [])
    x = np.array(numbers, source)
    np.testing.assert_array_equal(pb.tensor(x).to(our_dtype(name)).numpy(), x.astype(name))


@pytest.mark.parametrize("name", NAMES)
def test_integers_pass_to_and_from_other_libraries_unchanged(name):
    x = extremes(name)
    ours, theirs = pb.from_numpy(x), torch.from_numpy(x)
    assert ours.dtype.name == name == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_array_equal(pb.from_dlpack(theirs).numpy(), x)
    np.testing.assert_array_equal(torch.from_dlpack(ours).numpy(), x)
    np.testing.assert_array_equal(np.from_dlpack(ours), x)
    assert ours.tolist() == x.tolist()
    assert ours[0].item() == x[0].item()


def test_bfloat16_passes_by_dlpack_both_ways_without_a_copy():
    theirs = torch.tensor([[1.0, -2.5], [float("inf"), 3.0]], dtype=torch.bfloat16)
    ours = pb.from_dlpack(theirs)
    assert ours.dtype is pb.bfloat16
    assert ours.tolist() == theirs.tolist()
    back = torch.from_dlpack(ours * 2)
    assert back.dtype == torch.bfloat16
    assert back.tolist() == (theirs * 2).tolist()
    assert torch.from_dlpack(pb.from_dlpack(theirs)).data_ptr() == theirs.data_ptr()


@pytest.mark.parametrize("name", NAMES)
def test_integers_of_every_dtype_are_made_and_select(name):
    dtype = our_dtype(name)
    assert pb.arange(5, dtype=dtype).tolist() == [0, 1, 2, 3, 4]
    drawn = pb.randint(3, 90, (50,), dtype=dtype)
    assert drawn.dtype is dtype
    assert set(drawn.tolist()) <= set(range(3, 90))
    places, values = pb.tensor([2, 0, 1], dtype=dtype), pb.tensor([10.0, 20.0, 30.0])
    assert values.gather(0, places).tolist() == [30.0, 10.0, 20.0]
    assert values.index_select(0, places).tolist() == [30.0, 10.0, 20.0]
    assert pb.nn.functional.one_hot(places).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    if name != "uint8":  # a mask, as in PyTorch
        assert values[places].tolist() == [30.0, 10.0, 20.0]
    suffix = "" if name == "int64" else f", dtype=pullback.{name}"
    assert repr(places) == f"tensor([2, 0, 1]{suffix})"


@pytest.mark.parametrize("name", NAMES)
def test_limits_of_integers_are_pytorchs(name):
    ours, theirs = pb.iinfo(our_dtype(name)), torch.iinfo(getattr(torch, name))
    assert [getattr(ours, f) for f in ("bits", "min", "max", "dtype")] == [
        getattr(theirs, f) for f in ("bits", "min", "max", "dtype")
    ]


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_limits_of_floats_are_pytorchs(name):
    ours, theirs = pb.finfo(our_dtype(name)), torch.finfo(getattr(torch, name))
    for field in ("bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution", "dtype"):
        assert getattr(ours, field) == getattr(theirs, field), field


def test_limits_are_refused_for_the_other_kind():
    with pytest.raises(DTypeError, match="see iinfo"):
        pb.finfo(pb.int32)
    with pytest.raises(DTypeError, match="see finfo"):
        pb.iinfo(pb.float32)


def test_what_can_be_stored_as_what_is_pytorchs():
    names = ("bool", "uint8", "int8", "int16", "int64", "float16", "float32", "float64")
    for one in names:
        for other in names:
            wanted = torch.can_cast(getattr(torch, one), getattr(torch, other))
            assert pb.can_cast(our_dtype(one), our_dtype(other)) is wanted, (one, other)
