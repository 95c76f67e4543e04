"""Complex numbers are out of scope: wherever one arrives, the error says so."""

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.errors import DTypeError

ARRAY = np.array([1j, 1.0, 2.0])


def x():
    return pb.ones(3)


ARRIVALS = {
    "a number": lambda: pb.tensor(1j),
    "a list": lambda: pb.tensor([1j, 2]),
    "an array": lambda: pb.tensor(ARRAY),
    "as_tensor": lambda: pb.as_tensor(ARRAY),
    "from_numpy": lambda: pb.from_numpy(ARRAY),
    "dlpack of PyTorch": lambda: pb.from_dlpack(torch.ones(2, dtype=torch.complex64)),
    "dlpack of NumPy": lambda: pb.from_dlpack(ARRAY),
    "new_tensor": lambda: x().new_tensor(1j),
    "full": lambda: pb.full((2,), 1j),
    "fill_": lambda: x().fill_(1j),
    "arange": lambda: pb.arange(1j),
    "linspace": lambda: pb.linspace(0, 1j, 3),
    "x + 1j": lambda: x() + 1j,
    "1j * x": lambda: 1j * x(),
    "x ** 1j": lambda: x() ** 1j,
    "1j ** x": lambda: 1j ** x(),
    "x == 1j": lambda: x() == 1j,
    "x < 1j": lambda: x() < 1j,
    "x * np.complex64": lambda: x() * np.complex64(1j),
    "array + x": lambda: ARRAY + x(),
    "alpha": lambda: pb.add(x(), x(), alpha=1j),
    "clamp": lambda: x().clamp(1j),
    "where": lambda: pb.where(x() > 0, x(), 1j),
    "masked_fill": lambda: x().masked_fill(x() > 0, 1j),
    "x[0] = 1j": lambda: x().__setitem__(0, 1j),
    "x[:] = array": lambda: x().__setitem__(slice(None), ARRAY),
    "copy_": lambda: x().copy_(ARRAY),
    "dtype=complex": lambda: pb.zeros(2, dtype=complex),
    "dtype=numpy's": lambda: pb.zeros(2, dtype=np.complex64),
    "dtype=PyTorch's": lambda: pb.zeros(2, dtype=torch.complex64),
    "dtype of a layer": lambda: pb.nn.Linear(2, 2, dtype=complex),
    "a layer to it": lambda: pb.nn.Linear(2, 2).to(complex),
    "to": lambda: x().to(np.complex64),
    "set_default_dtype": lambda: pb.set_default_dtype(complex),
    "a state dictionary": lambda: pb.nn.Linear(3, 1).load_state_dict({"weight": ARRAY[None], "bias": ARRAY[:1]}),
    "a compiled step": lambda: pb.compile(lambda a, c: a * c)(x(), 1j),
    "a host call": lambda: pb.utils.host_call(lambda a: a * 1j, (3,), pb.float32, x()).numpy(),
    "the Array API": lambda: pb.array_api.asarray(1j),
}


@pytest.mark.parametrize("arrive", ARRIVALS.values(), ids=ARRIVALS)
def test_a_complex_number_is_refused(arrive):
    with pytest.raises(DTypeError, match=r"complex numbers, and with them FFTs, are out of scope"):
        arrive()


@pytest.mark.parametrize("name", ["complex64", "complex", "fft", "stft", "view_as_complex", "polar"])
def test_names_of_complex_things_say_so(name):
    with pytest.raises(AttributeError, match="out of scope"):
        getattr(pb, name)
    assert not hasattr(x(), name)


def test_tensors_say_that_they_are_not_complex():
    assert not pb.is_complex(x()) and not x().is_complex() and not x().is_conj()
    with pytest.raises(AttributeError, match="out of scope"):
        x().imag  # noqa: B018


def test_a_dtype_of_another_library_is_refused():
    for dtype in ("float32", np.float32, torch.float32):
        with pytest.raises(DTypeError, match=r"a dtype is pullback\.float32"):
            pb.zeros(2, dtype=dtype)
