"""Files of other kinds, told from their first bytes, so that they are refused by name and with the mend."""

from __future__ import annotations

import zipfile
from typing import BinaryIO

from .stored import Fault

_CONVERT = (
    "it is a pickle, as torch.save writes, and loading one runs code that it holds. Convert it once where you trust "
    "it: safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)"
)
_KINDS = {
    b"\x93NUMPY": "it is a NumPy file: read it with numpy.load(path, allow_pickle=False)",
    b"\x89HDF\r\n": "it is an HDF5 file: read it with h5py",
    b"GGUF": "it is a GGUF file, whose weights are quantized; take the model's safetensors files",
    b"version https://git-lfs": "it is a pointer of Git LFS and not the file itself: run git lfs pull",
}


def check_kind(file: BinaryIO) -> None:
    """Raise Fault where a file is of a known kind that is no safetensors file; the file is read from its start."""
    start = file.read(32)
    file.seek(0)
    for magic, fault in _KINDS.items():
        if start.startswith(magic):
            raise Fault(fault)
    # a pickle of protocol 2 or later: as a header's length the bytes would be a number that nobody means
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and b"{" not in start[8:9]:
        raise Fault(_CONVERT)
    if start.startswith(b"PK\x03\x04"):
        raise Fault(_zip_fault(file))


def _zip_fault(file: BinaryIO) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        return f"it is a damaged zip file ({error})"
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return _CONVERT
    if names and all(name.endswith(".npy") for name in names):
        return "it is a NumPy archive: read it with numpy.load(path, allow_pickle=False)"
    return "it is a zip file"


__all__ = ["check_kind"]
