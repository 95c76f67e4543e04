"""Blocks of a Llama of 7 billion parameters, their weights in 4 bits and adapters beside them: what the plan of a
training step says that each block takes, and what is held while the step runs.

    python examples/llama_layers.py [LAYERS ...]

Weights are random; a row of 256 tokens is a batch. `pullback plan --model llama-7b --quantize nf4 --lora-r 16
--tokens 256 --dtype bfloat16` plans all 32 blocks; here as many are run as are asked for, and the bytes that are there
are counted. With --width, --hidden, --heads and --vocabulary other sizes can be tried.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

import pullback as pb
from pullback.runtime.buffers import live_bytes
from pullback.train.llama import Llama, LlamaConfiguration
from pullback.train.models import training_step

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Run(NamedTuple):
    """Of a number of blocks: the plan's peak; the bytes of the memory that the program works in, and of all tensors
    that are alive after the steps, but for the tables of codes, which no step reads; the losses, and the time.
    """

    layers: int
    planned: int
    held: int
    losses: list[float]
    seconds: float


def run(sizes: LlamaConfiguration, tokens: int, rank: int = 16, steps: int = 3) -> Run:
    """Train the adapters of a model of these sizes for some steps."""
    pb.manual_seed(0)
    pb.rand(1).item()  # the generator's own numbers are there before we count
    gc.collect()
    before = live_bytes()
    model = Llama(sizes).to(pb.bfloat16)
    pb.nn.utils.quantize_model(model, "nf4")
    pb.lora.apply(model, rank, 2 * rank, LAYERS)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = pb.optim.AdamW(trained, lr=1e-3)
    uncompiled, _ = training_step(model, optimizer, 1, tokens)
    step: Callable[..., pb.Tensor] = pb.compile(uncompiled)
    row = pb.randint(0, sizes.vocabulary, (1, tokens + 1))
    x, y = row[:, :-1].clone(), row[:, 1:].clone()
    del row
    planned = step.plan(x, y).peak_bytes  # type: ignore[attr-defined]
    losses, taken = list[float](), list[float]()
    for _ in range(steps):
        start = time.perf_counter()
        losses.append(step(x, y).item())
        taken.append(time.perf_counter() - start)
    gc.collect()
    held = live_bytes() - before + step.program.memory.arena  # type: ignore[attr-defined]
    within = _nbytes(trained)  # gradients lie in the program's memory, and are counted with it already
    unread = _nbytes([buffer for name, buffer in model.named_buffers() if name.endswith("quant_map")])
    return Run(sizes.layers, planned, held - within - unread, losses, min(taken))


def _nbytes(tensors: Iterable[pb.Tensor]) -> int:
    return sum(tensor.numel() * tensor.dtype.itemsize for tensor in tensors)


def main() -> None:
    """Run each number of blocks, and compare what a further one takes."""
    parser = argparse.ArgumentParser(description="What blocks of a 7B Llama take, as planned and as held.")
    parser.add_argument("layers", type=int, nargs="*", default=[1, 2, 3])
    for name, default in (("width", 4096), ("hidden", 11008), ("heads", 32), ("vocabulary", 32000), ("tokens", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    found: list[Run] = []
    for layers in given.layers:
        sizes = LlamaConfiguration(given.vocabulary, given.width, layers, given.heads, given.heads, given.hidden)
        found.append(run(sizes, given.tokens))
        made = found[-1]
        print(
            f"{made.layers} layers: {made.planned:,} bytes planned, {made.held:,} held, {made.seconds:.2f} s a step, "
            f"loss {made.losses[0]:.3f} to {made.losses[-1]:.3f}",
            flush=True,
        )
    for less, more in pairwise(found):
        planned, held = more.planned - less.planned, more.held - less.held
        print(f"from {less.layers} to {more.layers} layers: {planned:,} bytes planned, {held:,} held")


if __name__ == "__main__":
    main()
