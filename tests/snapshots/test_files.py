"""`pb.save` and `pb.load`: what goes in comes out, and no file is believed."""

import errno
import gzip
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

import pullback as pb
from pullback.errors import SnapshotError
from pullback.snapshots import files


def same(a: Any, b: Any) -> bool:
    """Whether two nested values are of the same types and the same bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, pb.Tensor):
        return a.dtype is b.dtype and a.shape == b.shape and a._array().tobytes() == b._array().tobytes()
    if isinstance(a, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and np.shape(a) == np.shape(b) and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


VALUES: dict[str, Any] = {
    "tensors": [pb.tensor([1, 0, 3]).to(dtype) for dtype in pb.graph.types.ALL],
    "bfloat16": pb.tensor([1.5, float("nan"), float("-inf"), -0.0]).bfloat16(),
    "empty": (pb.zeros(0, 3), np.zeros((2, 0)), {}, [], (), "", b""),
    "scalar": pb.tensor(2.5),
    "arrays": [np.arange(6).reshape(2, 3)[:, ::2], np.float16([1]), np.array(7, ">i4").astype("i4"), np.array(True)],
    "numbers": [0, -1, 10**40, 1.5, -0.0, 5e-324, float("nan"), float("inf"), float("-inf"), True, False, None],
    "numpy": [np.float64(1.5), np.int8(-3), np.bool_(True), np.float32("nan")],
    "strings": {"": "ü\n\0", "a.b": "\ud800", "__metadata__": pb.ones(1), "a": {"b": pb.ones(2)}, 7: "7", "7": 7},
    "paths": {"../../a": pb.ones(1), "a/..": pb.ones(2), "..": pb.ones(3), "/a/b..c": pb.ones(4), "__": pb.ones(5)},
    "tuple": (1, [2, (3, {"x": (4,)})]),
    "counter": Counter([3, 3, 5]),
    "dtype": pb.bfloat16,
    "states": [random.Random(0).getstate(), np.random.default_rng(0).bit_generator.state, pb.get_rng_state()],
}


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_the_same(name: str, tmp_path: Path) -> None:
    pb.save(VALUES[name], tmp_path / "file")
    assert same(pb.load(tmp_path / "file"), VALUES[name])
    assert os.listdir(tmp_path) == ["file"]


def test_states_come_back_and_go_on(tmp_path: Path) -> None:
    model = pb.nn.Sequential(pb.nn.Linear(3, 2), pb.nn.BatchNorm1d(2))
    optimizer = pb.optim.Adam(model.parameters())
    scheduler = pb.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3])
    model(pb.ones(4, 3)).sum().backward()
    optimizer.step(), scheduler.step()
    state = [part.state_dict() for part in (model, optimizer, scheduler)]
    pb.save(state, tmp_path / "file")
    loaded = pb.load(tmp_path / "file")
    assert same(loaded, state)
    assert loaded[0]._metadata == state[0]._metadata
    for part, held in zip((model, optimizer, scheduler), loaded, strict=True):
        part.load_state_dict(held)
    scheduler._get_closed_form_lr()


def test_a_tensor_in_two_places_is_written_once(tmp_path: Path) -> None:
    weight = pb.ones(1000)
    pb.save({"a": weight, "b": weight.detach(), "c": weight.reshape(10, 100)}, tmp_path / "file")
    loaded = pb.load(tmp_path / "file")
    assert len(safetensors.numpy.load_file(tmp_path / "file")) == 2
    assert loaded["a"] is loaded["b"]
    assert loaded["c"].shape == (10, 100)


def test_what_is_loaded_changes_on_its_own(tmp_path: Path) -> None:
    pb.save([pb.ones(3), np.ones(3)], tmp_path / "file")
    tensor, array = pb.load(tmp_path / "file")
    before = tensor.numpy()
    tensor.add_(1), array.__iadd__(1)
    assert before.tolist() == [1, 1, 1]
    assert tensor.tolist() == array.tolist() == [2, 2, 2]


def test_files_of_the_library_are_read_and_ours_are_read_by_it(tmp_path: Path) -> None:
    theirs = {"a": torch.tensor([1.5, 2]).bfloat16(), "b": torch.arange(3), "c": torch.tensor([True, False])}
    safetensors.torch.save_file(theirs, tmp_path / "theirs", {"format": "pt"})
    loaded = pb.load(tmp_path / "theirs")
    assert same(dict(sorted(loaded.items())), {
        "a": pb.tensor([1.5, 2]).bfloat16(), "b": pb.arange(3), "c": pb.tensor([True, False])
    })  # fmt: skip
    pb.save(OrderedDict(loaded), tmp_path / "ours")
    found = safetensors.torch.load_file(tmp_path / "ours")
    assert found.keys() == theirs.keys()
    assert all(torch.equal(found[name], theirs[name]) and found[name].dtype == theirs[name].dtype for name in found)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"a": {"b": [lambda: 0]}}, "a.b.0 cannot be saved: it is a builtins.function"),
        ({"a": {1.5: 0}}, "a cannot be saved: it has the key 1.5"),
        ({True: 0}, "the key True"),
        ([np.array(["x"])], "no type in the file for arrays of <U1"),
        ([np.ones(1, complex)], "arrays of complex128"),
        ({"r": np.ma.array([1])}, "r cannot be saved: it is a numpy.ma"),
        ([1 << 8192], "more than 8192 bits"),
        (None, "nested deeper than 64, or that hold themselves"),
    ],
)
def test_what_cannot_be_saved_is_named(value: Any, fault: str, tmp_path: Path) -> None:
    if value is None:
        value = []
        value.append(value)
    with pytest.raises((TypeError, ValueError), match=fault):
        pb.save(value, tmp_path / "file")
    assert not os.listdir(tmp_path)


# ---- files that are not believed


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def own(description: Any, **arrays: Any) -> bytes:
    """A file whose checksum is right, with a description of somebody else's making."""
    text = description if isinstance(description, str) else json.dumps(description)
    header = json.dumps(
        {"__metadata__": {"pullback.checksum": "0" * 64, "pullback": text}, **arrays}, separators=(",", ":")
    ).encode()
    content = raw(header, bytes(sum(a["data_offsets"][1] - a["data_offsets"][0] for a in arrays.values())))
    digest = files._digest()
    digest.update(content)
    return content.replace(b"0" * 64, digest.hexdigest().encode(), 1)


DEEP = b"[" * 100_000 + b"]" * 100_000
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it ends after 0 bytes"),
    "short": (b"\1\0", "it ends after 2 bytes"),
    "a length that lies": (raw({}, length=1000), "says that its header has 1,000 bytes, but has only 2 after"),
    "a huge header": (raw({}, length=2**40), "1,099,511,627,776 bytes; at most 100,000,000 are read"),
    "no text": (raw(b"\xff{}"), "its header is not JSON"),
    "no JSON": (raw(b'{"a":'), "its header is not JSON"),
    "more than JSON": (raw(b"{} {}"), "its header is not JSON"),
    "a list": (raw([]), "its header is no JSON object"),
    "a number": (raw({"a": 1}), "'a' is not given by its dtype"),
    "nested deep": (raw(DEEP), "nested too deep"),
    "nested deep inside": (raw(b'{"a":' + DEEP + b"}"), "nested too deep"),
    "a key twice": (raw(b'{"a":1,"a":1}'), "has the key 'a' twice"),
    "a path that climbs": (raw({"../../a": entry()}, bytes(8)), r"'../../a', a path that climbs"),
    "a path that climbs elsewhere": (own({"tensor": "a\\..\\b"}, **{"a\\..\\b": entry()}), "a path that climbs"),
    "a path from the root": (raw({"/etc/a": entry()}, bytes(8)), r"'/etc/a', a path from the root"),
    "a path from a root elsewhere": (raw({"C:\\a": entry()}, bytes(8)), "a path from the root"),
    "a number with many digits": (raw(b'{"a":' + b"9" * 5000 + b"}"), "its header is not JSON"),
    "not a number": (raw(b'{"a":NaN}'), "NaN where JSON has numbers"),
    "an unknown type": (raw({"a": entry("F8_E4M3")}, bytes(8)), "has the type 'F8_E4M3'; known are"),
    "a type that is none": (raw({"a": {**entry(), "dtype": ["F32"]}}, bytes(8)), r"has the type \['F32'\]"),
    "more fields": (raw({"a": {**entry(), "more": 1}}, bytes(8)), "not given by its dtype"),
    "a negative size": (raw({"a": entry(shape=(-2,))}, bytes(8)), r"has the shape \[-2\]"),
    "a size that is true": (raw({"a": entry(shape=(True, 2))}, bytes(8)), "has the shape"),
    "a size that is a float": (raw({"a": entry(shape=(2.0,))}, bytes(8)), "has the shape"),
    "many axes": (raw({"a": entry(shape=(1,) * 65 + (2,))}, bytes(8)), "has the shape"),
    "a shape of no memory": (raw({"a": entry(shape=(0, 2**62, 2**62), offsets=(0, 0))}), "which no memory holds"),
    "another shape": (raw({"a": entry(shape=(3,))}, bytes(8)), r"has 8 bytes, but F32\[3\] has 12"),
    "places that turn back": (raw({"a": entry(offsets=(8, 0))}, bytes(8)), r"data_offsets \[8, 0\]"),
    "negative places": (raw({"a": entry(offsets=(-8, 0))}, bytes(8)), "data_offsets"),
    "three places": (raw({"a": entry(offsets=(0, 8, 8))}, bytes(8)), "data_offsets"),
    "out of the file": (raw({"a": entry()}, bytes(4)), "8 bytes, but the file has 4: 4 are missing"),
    "more than tensors": (raw({"a": entry()}, bytes(9)), "1 follow its last tensor"),
    "a hole": (raw({"a": entry(offsets=(4, 12))}, bytes(12)), "bytes 0 to 4 of its data belong to no tensor"),
    "overlapping": (raw({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)), "'a' and 'b' overlap"),
    "metadata of numbers": (raw({"__metadata__": {"a": 1}}), "no JSON object of strings"),
    "metadata that are none": (raw({"__metadata__": None}), "no JSON object of strings"),
    "booleans": (raw({"a": entry("BOOL", (1,), (0, 1))}, b"\2"), "bytes other than 0 and 1"),
    "no checksum": (raw({"__metadata__": {"pullback": "1"}}), "lack 'pullback.checksum'"),
    "no description": (raw({"__metadata__": {"pullback.checksum": "0" * 64}}), "lack 'pullback'"),
    "a short checksum": (
        raw({"__metadata__": {"pullback": "1", "pullback.checksum": "0"}}),
        "its checksum is none that Pullback writes",
    ),
    "a strange checksum": (
        raw({"__metadata__": {"pullback": "1", "pullback.checksum": "\ud800" * 64}}),
        "its checksum is none that Pullback writes",
    ),
    "a wrong checksum": (own(1).replace(b'"1"', b'"2"'), "does not have the checksum"),
    "a description that is no JSON": (own("{"), "its description is not JSON"),
    "a deep description": (own(DEEP.decode()), "its description is nested too deep"),
    "a rather deep description": (own("[" * 66 + "]" * 66), "nested deeper than 64"),
    "an unknown kind": (own({"object": "os.system"}), "the unknown kind 'object'"),
    "two kinds": (own({"tuple": [], "dict": []}), "where one kind was expected"),
    "a tensor that is not there": (own({"tensor": "a"}), "names the array 'a', which is not in the file"),
    "a tensor without a name": (own({"tensor": []}), "the name of an array of the type list"),
    "a tensor left over": (own(1, a=entry()), "says nothing of the array 'a'"),
    "a tensor and an array": (own([{"tensor": "a"}, {"array": "a"}], a=entry()), "as a tensor and as an array"),
    "an array of bfloat16": (own({"array": "a"}, a=entry("BF16", (4,))), "which NumPy does not have"),
    "a number with axes": (own({"scalar": "a"}, a=entry()), "an array of shape"),
    "bytes of floats": (own({"bytes": "a"}, a=entry()), "which are an array of float32"),
    "a dict of no pairs": (own({"dict": [["a"]]}), "no pairs of a key and a value"),
    "a dict of strange keys": (own({"dict": [[[], 1]]}), "no pairs of a key and a value"),
    "a dict with a key twice": (own({"dict": [["a", 1], ["a", 2]]}), "the key 'a' twice"),
    "a strange float": (own({"float": "1e5"}), "has the float '1e5'"),
    "an unknown dtype": (own({"dtype": "float8"}), "the unknown dtype 'float8'"),
    "counts of text": (own({"counter": [["a", "b"]]}), "no whole numbers"),
    "a pickle": (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c", "it is a pickle"),
    "a NumPy file": (b"\x93NUMPY\1\0", "read it with numpy.load"),
    "half a zip file": (b"PK\x03\x04" + bytes(30), "a damaged zip file"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_by_name_and_fault(kind: str, tmp_path: Path) -> None:
    content, fault = HOSTILE[kind]
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match=fault) as caught:
        pb.load(path)
    assert caught.value.path == str(path)
    assert str(caught.value) == f"{path}: {caught.value.fault}"
    with pytest.raises(SnapshotError, match=fault):
        pb.load(io.BytesIO(content))


def test_files_of_torch_and_numpy_are_refused_with_the_mend(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "model.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    for name, mend in (("model.pt", "save_file"), ("old.pt", "save_file"), ("arrays.npz", "numpy.load")):
        with pytest.raises(SnapshotError, match=mend):
            pb.load(tmp_path / name)


def test_other_things_than_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(SnapshotError, match="no regular file"):
            pb.load(path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        pb.load(tmp_path / "nothing")


def test_every_flipped_bit_and_every_end_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    pb.save({"a": pb.ones(2), "b": 3}, path)
    content = path.read_bytes()
    damaged = [content[:end] for end in range(len(content))]
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    for held in [*damaged, content + b"\0", content + content, bytes(len(content))]:
        path.write_bytes(held)
        with pytest.raises(SnapshotError):
            pb.load(path)


# ---- writing


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "inside" / "file")
    for value in (1, 2):
        pb.save(value, tmp_path / "link")
        assert (pb.load(tmp_path / "inside" / "file"), (tmp_path / "link").is_symlink()) == (value, True)


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: (tmp_path / "copy").write_bytes(pipe.read_bytes()))
    reader.start()
    pb.save({"a": pb.ones(3)}, pipe)
    reader.join()
    assert pipe.is_fifo() and pb.load(tmp_path / "copy")["a"].tolist() == [1.0] * 3
    assert sorted(os.listdir(tmp_path)) == ["copy", "pipe"]


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    pb.save("old", path)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SnapshotError, match=r"file: cannot be written \(No space left on device\): it needs [\d,]+"):
        pb.save("new", path)
    monkeypatch.undo()
    assert (os.listdir(tmp_path), pb.load(path)) == (["file"], "old")


def test_a_limit_of_the_system_in_the_middle_of_the_file_is_an_error(tmp_path: Path) -> None:
    program = """
        import resource, sys
        import numpy as np, pullback as pb
        pb.save("old", sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            pb.save(np.zeros(1_000_000), sys.argv[1])
        except pb.errors.SnapshotError as error:
            print(error.fault, pb.load(sys.argv[1]))
    """
    command = [sys.executable, "-c", "\n".join(line[8:] for line in program.splitlines()), str(tmp_path / "file")]
    result = subprocess.run(command, capture_output=True, text=True)
    said = r"cannot be written \(File too large\): it needs 8,000,\d\d\d bytes, and the process may write 100,000"
    assert re.match(said + r" \(ulimit -f\)\. What was there before is as it was old\n", result.stdout), result.stdout
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"nothing/file: cannot be written \(No such file or directory\)"):
        pb.save(1, tmp_path / "nothing" / "file")


def test_pytorchs_arguments_of_load(tmp_path: Path) -> None:
    pb.save({"x": pb.ones(2), "n": (1, [pb.zeros(1)])}, tmp_path / "x")
    seen: list[str] = []
    for options in (
        {"weights_only": True},
        {"weights_only": False, "mmap": False},
        {"map_location": pb.device("cpu")},
        {"map_location": {"cuda:0": "cpu", "cpu": pb.device("cpu:0")}},
        {"map_location": lambda storage, place: seen.append(place) or storage},
        {"map_location": lambda storage, place: None},
    ):
        assert pb.load(tmp_path / "x", **options)["x"].tolist() == [1, 1]  # type: ignore[arg-type]
    assert seen == ["cpu", "cpu"]
    for elsewhere in ("cuda", {"cpu": "cuda:0"}, 0):
        with pytest.raises(ValueError, match='map_location can be "cpu" only'):
            pb.load(tmp_path / "x", map_location=elsewhere)
    with pytest.raises(ValueError, match="must give back the tensor"):
        pb.load(tmp_path / "x", lambda storage, place: storage + 1)
    with pytest.raises(ValueError, match="mmap=True is not there"):
        pb.load(tmp_path / "x", mmap=True)
    with pytest.raises(TypeError, match="weights_only must be True or False"):
        pb.load(tmp_path / "x", weights_only="no")  # type: ignore[arg-type]


class OneWay(io.RawIOBase):
    """A pipe that takes and gives a few bytes at a time."""

    def __init__(self, content: bytes = b""):
        self.content = content

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self.content += bytes(piece[:7])
        return min(7, len(piece))

    def readinto(self, memory: Any) -> int:
        count = min(7, len(memory), len(self.content))
        memory[:count], self.content = self.content[:count], self.content[count:]
        return count


def test_open_files_are_written_and_read_from_where_they_stand(tmp_path: Path) -> None:
    value = {"a": pb.arange(5), "b": (1, pb.ones(2, 2).bfloat16())}
    memory, pipe = io.BytesIO(b"front"), OneWay()
    memory.seek(5)
    pb.save(value, memory)
    pb.save(value, pipe)
    pb.save(value, f=tmp_path / "file")
    assert memory.getvalue()[5:] == pipe.content == (tmp_path / "file").read_bytes()
    with pytest.raises(SnapshotError, match=r"<BytesIO>: it ends after 0 bytes .* seek\(0\)"):
        pb.load(memory)
    memory.seek(5)
    assert same(pb.load(memory), value) and same(pb.load(pipe), value) and not memory.closed
    with gzip.open(tmp_path / "packed", "wb") as packed:
        pb.save(value, packed)
    with gzip.open(tmp_path / "packed") as packed, (tmp_path / "file").open("rb") as file:
        assert same(pb.load(packed), value) and same(pb.load(file), value)
    for wrong in (pb.save, lambda _, f: pb.load(f)):
        with pytest.raises(TypeError, match="opened in binary mode"):
            wrong(value, io.StringIO())
    damaged = bytearray(memory.getvalue()[5:])
    damaged[-1] ^= 1
    for content, fault in (
        (damaged, "checksum"),
        (damaged + b"x", "bytes"),
        (damaged[:-3], "bytes"),
    ):
        with pytest.raises(SnapshotError, match=fault):
            pb.load(io.BytesIO(content))
