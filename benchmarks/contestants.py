"""Who is measured: the libraries, each in the ways that its users train with it, and what each of them needs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass

from . import workloads


@dataclass(frozen=True)
class Contestant:
    """A way to take a training step.

    `key` is what `--only` calls it and `title` what tables call it; `library` is the module whose step it is. `mode` is
    "compiled" where the library compiles the whole step, "plain" where each operation runs as it is called; `fused` is
    the optimizer's argument of that name. `needs` are further modules.
    """

    key: str
    title: str
    library: str
    mode: str
    fused: bool | None = None
    needs: tuple[str, ...] = ()

    @property
    def is_peer(self) -> bool:
        """Whether it is another library's."""
        return self.library != "pullback"

    def environment(self, cache: str) -> dict[str, str]:
        """This process's environment, changed so that all that the contestant compiles is kept under `cache`."""
        return (peers_environment() if self.is_peer else dict(os.environ)) | {
            "PULLBACK_CACHE_DIR": cache,
            "TORCHINDUCTOR_CACHE_DIR": cache,
            "JAX_COMPILATION_CACHE_DIR": cache,
            # JAX keeps only what took long to compile, unless it is told to keep everything
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "JAX_PLATFORMS": "cpu",
        }

    def missing(self) -> str | None:
        """Why the contestant cannot run on this machine; None where it can."""
        absent = [name for name in (self.library, *self.needs) if importlib.util.find_spec(name) is None]
        if absent:
            return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed"
        if self.key == "torch-compile":
            compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
            if shutil.which(compiler) is None:
                return f"torch.compile needs a C++ compiler, and there is no {compiler}"
        return None

    def takes(self, workload: str) -> bool:
        """Whether the contestant runs `workload` when it is not asked for by name."""
        return self.key != "pullback-undecorated" or workload in workloads.SMALL


def peers_environment() -> dict[str, str]:
    """This process's environment without what some installations set for NumPy's products, which slows a peer down."""
    return {name: value for name, value in os.environ.items() if name not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}


CONTESTANTS = {
    contestant.key: contestant
    for contestant in (
        Contestant("pullback", "Pullback", "pullback", "compiled"),
        Contestant("pullback-undecorated", "Pullback, undecorated", "pullback", "plain"),
        Contestant("torch", "PyTorch", "torch", "plain"),
        Contestant("torch-fused", "PyTorch, fused", "torch", "plain", fused=True),
        Contestant("torch-compile", "PyTorch, compiled", "torch", "compiled", fused=True),
        Contestant("jax", "JAX", "jax", "compiled", needs=("optax",)),
    )
}
