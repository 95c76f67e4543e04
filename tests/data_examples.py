"""Datasets that worker processes can import."""

import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import pullback as pb
from pullback.utils.data import Dataset, IterableDataset, get_worker_info


class OwnError(Exception):
    """An exception that cannot be made of a text."""

    def __init__(self, a: int, b: int):
        super().__init__(a, b)


class Broken(Dataset[Any]):
    """Nine numbers of which the fourth cannot be read, in any library."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> int:
        return {3: {}}.get(index, {"number": index})["number"]


class Unequal(Dataset[Any]):
    """Tensors of different sizes."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return pb.ones(index + 1)


class Numbers(Dataset[Any]):
    """Number i as a tensor, with what is drawn at random for it; negative ones of `faults` do what they say."""

    def __init__(self, count: int, faults: dict[int, str] | None = None):
        self.count, self.faults = count, faults or {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        fault = self.faults.get(index)
        if fault == "error":
            raise KeyError("broken")
        if fault == "stop":
            raise StopIteration("broken")
        if fault == "own error":
            raise OwnError(1, 2)
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "exit":
            os._exit(3)
        if fault == "sleep":
            time.sleep(60)
        if fault == "lambda":
            return {"f": lambda: 0}
        return {"number": index, "tensor": (pb.full((2,), index) + 0.5).bfloat16(), "drawn": draws()}


def draws() -> list[float]:
    return [pb.rand(()).item(), random.random(), float(np.random.random())]


class Stream(IterableDataset[Any]):
    """The numbers below `count`, divided among the workers."""

    def __init__(self, count: int):
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for number in range(first, self.count, step):
            yield number, random.random()

    def __len__(self) -> int:
        return self.count


def mark(worker: int) -> None:
    info = get_worker_info()
    assert info is not None and info.id == worker
    info.dataset.count += 1000


def worker_id(samples: list[Any]) -> Any:
    info = get_worker_info()
    return None if info is None else (info.id, info.num_workers, info.dataset.count, pb.get_num_threads())
