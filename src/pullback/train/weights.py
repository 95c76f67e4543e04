"""Weights in safetensors files: written whole or not at all, read without trust.

The header carries, as JSON under the key "pullback", what is needed to build the model again. Nothing in a file is
executed, and nothing of a size that the file does not itself have is allocated.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import StateDictError

_KEY = "pullback"
#: types that the models of this room have, as safetensors names them
_DTYPES = {"F32": np.float32}


def check_writable(path: Path) -> None:
    """Raise OSError, in one line that names the path, if `save_weights` could not write there."""
    if path.is_dir():
        raise OSError(f"{path}: cannot be written: it is a directory")
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: cannot be written: it is not a regular file")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"{path}: cannot be written: {path.parent}: {error.strerror}") from None


def save_weights(path: Path, weights: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> None:
    """Write float32 arrays and a `description` (what JSON can hold) to `path`, replacing the file in one move.

    A reader sees the old file or the new one, never a part. Raises StateDictError if a weight is not finite, so that
    good weights are never replaced by useless ones.
    """
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise StateDictError(f"{name} holds values that are not finite; {path} was not written")
    arrays = {name: np.asarray(array, order="C") for name, array in weights.items()}
    content = save(arrays, {_KEY: json.dumps(description)})
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    """The process's mask of permissions, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def read_description(path: Path) -> dict[str, Any]:
    """The description that `save_weights` was given; StateDictError if the file is none of its files."""
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
    except FileNotFoundError:
        raise StateDictError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise StateDictError(f"{path}: this is no safetensors file ({error})") from None
    if text is None:
        raise StateDictError(f"{path}: the file was not written by pullback train: its header has no {_KEY!r}")
    try:
        description = json.loads(text)
    except (ValueError, RecursionError):
        description = None
    if not isinstance(description, dict):
        raise StateDictError(f"{path}: the {_KEY!r} in its header is not a JSON object")
    return description


def load_weights(path: Path, expected: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """The weights in a file, which must be exactly the `expected` names and shapes, of float32 and finite.

    Names and shapes are compared from the file's header, before any array is read; the comparison ends as soon as more
    is expected than the file can hold. Raises StateDictError that lists what is missing, left over or different.
    """
    with safe_open(path, framework="numpy") as file:
        found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (the file is no mapping)
        faults: list[str] = []
        names = set()
        for name, shape in expected:
            if len(faults) > len(found) + 8:
                faults.append("and more")
                break
            names.add(name)
            if name not in found:
                faults.append(f"missing: {name}")
            elif (has := tuple(found[name].get_shape())) != shape:
                faults.append(f"{name} has the shape {list(has)}, expected {list(shape)}")
            elif (dtype := found[name].get_dtype()) not in _DTYPES:
                faults.append(f"{name} has the type {dtype}, expected F32")
        else:
            faults += [f"left over: {name}" for name in found if name not in names]
        if faults:
            raise StateDictError(f"{path}: the weights do not fit their description:\n  " + "\n  ".join(faults))
        weights = {name: file.get_tensor(name) for name in found}
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise StateDictError(f"{path}: {name} holds values that are not finite")
    return weights
