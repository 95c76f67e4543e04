"""What less memory costs in quality: a small GPT trained on characters in each way, from the same start on the same
batches, compared by its loss on text that it has not seen.

    python examples/low_precision.py [--text FILE] [--only NAME,NAME] [--json FILE] [--base FILE] [--plot FILE]

Ways are float32 with AdamW; bfloat16 and float16 autocast; AdamW with its moments in 8 and in 4 bits; Adafactor; and,
from a model that was trained on the first half of the text, adapters (LoRA) on the second half beside float32 weights
and beside weights of 4 bits (QLoRA). Without --text the text is a million characters of Python's own library. A file of
--json keeps results between runs, so that ways can be trained one by one; the plot shows all that are in it.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import pullback as pb
from pullback.data import Corpus, read_python_sources, read_text
from pullback.memory import format_bytes
from pullback.train.gpt import GPT, GPTConfiguration, validator

BATCH, CONTEXT, EVERY = 12, 64, 100
#: the layers that get adapters, and whose weights are kept in 4 bits
LAYERS = ["query_key_value", "projection", "expansion", "contraction"]


class Way(NamedTuple):
    """A way to train: its optimizer and rate, the dtype of its products, and for adapters the codes of the weights."""

    optimizer: Callable[..., pb.optim.Optimizer] = pb.optim.AdamW
    rate: float = 1e-3
    dtype: pb.dtype | None = None
    adapters: bool = False
    codes: str | None = None
    compared_with: str = "float32"


WAYS = {
    "float32": Way(),
    "bfloat16": Way(dtype=pb.bfloat16),
    "float16": Way(dtype=pb.float16),
    "AdamW8bit": Way(pb.optim.AdamW8bit),
    "AdamW4bit": Way(pb.optim.AdamW4bit),
    # its rate is a part of the weights' size, 0.02 at first
    "Adafactor": Way(pb.optim.Adafactor, 5e-2),
    "LoRA": Way(rate=2e-3, adapters=True, compared_with="LoRA"),
    "QLoRA": Way(rate=2e-3, adapters=True, codes="nf4", compared_with="LoRA"),
}


class Result(NamedTuple):
    """The losses of the validation text after the steps counted, the bytes of a step, and the time of it."""

    steps: list[int]
    losses: list[float]
    peak_bytes: int
    state_bytes: int
    seconds: float


def halves(text: str) -> tuple[Corpus, Corpus]:
    """Two corpora over one vocabulary: what adapters begin from, and what they and all other ways learn."""
    whole, middle = Corpus.of(text, CONTEXT), len(text) // 2
    tokens = whole.vocabulary.encode(text)
    found = []
    for part in (tokens[:middle], tokens[middle:]):
        split = len(part) * 9 // 10
        found.append(Corpus(whole.vocabulary, part[:split], part[split:]))
    return found[0], found[1]


def train(way: Way, model: GPT, corpus: Corpus, steps: int) -> Result:
    """Train a model, and look at the validation text every hundred steps."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = way.optimizer(trained, lr=way.rate)
    rates = pb.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 50) * _cosine(step / steps))
    scaler = pb.amp.GradScaler("cpu", enabled=way.dtype is pb.float16)

    @pb.compile
    def step(x: pb.Tensor, y: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        with pb.autocast("cpu", dtype=way.dtype or pb.bfloat16, enabled=way.dtype is not None):
            scores = model(x)
            loss = pb.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        pb.nn.utils.clip_grad_norm_(trained, max_norm=1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss

    random = np.random.default_rng(0)
    validate = validator(model, corpus.validation, 64)
    counts, losses, spent = [0], [validate()], 0.0
    for count in range(1, steps + 1):
        batch = [pb.tensor(part) for part in corpus.draw(random, BATCH, CONTEXT)]
        start = time.perf_counter()
        step(*batch).item()
        spent += time.perf_counter() - start
        rates.step()
        if count % EVERY == 0 or count == steps:
            counts.append(count)
            losses.append(validate())
    plan = step.plan(*batch)
    return Result(counts, losses, plan.peak_bytes, plan.breakdown["optimizer"], spent)


def _cosine(part: float) -> float:
    return 0.1 + 0.45 * (1 + math.cos(math.pi * part))


def begun(corpus: Corpus) -> GPT:
    """A model as it is drawn: the same for every way."""
    pb.manual_seed(0)
    return GPT(GPTConfiguration(len(corpus.vocabulary), CONTEXT))


def adapted(model: GPT, way: Way) -> GPT:
    """The model with adapters, its own weights fixed."""
    if way.codes is not None:
        pb.nn.utils.quantize_model(model, way.codes, skip=["head"])
    pb.lora.apply(model, r=8, alpha=16, targets=LAYERS)
    return model


def run(names: list[str], text: str, steps: int, base: Path, told: Callable[[str, Result], None]) -> None:
    """Train in each of these ways; adapters begin from the model in the file `base`, made if it is not there."""
    first, second = halves(text)
    for name in names:
        way, model = WAYS[name], begun(second)
        if way.adapters:
            if not base.exists():
                source = begun(first)
                train(WAYS["float32"], source, first, steps)
                pb.save(source.state_dict(), base)
            model.load_state_dict(pb.load(base))
            model = adapted(model, way)
        told(name, train(way, model, second, steps))


def table(results: dict[str, Result]) -> str:
    """A row for each way: its last loss beside that of the way it is compared with, and its memory."""
    lines = [f"{'':10} {'loss':>7} {'beside':>18} {'memory':>9} {'state':>9} {'a step':>8}"]
    for name, found in results.items():
        other = WAYS[name].compared_with
        beside = ""
        if other != name and other in results:
            beside = f"{found.losses[-1] / results[other].losses[-1] - 1:+.2%} {other}"
        memory, state = format_bytes(found.peak_bytes), format_bytes(found.state_bytes)
        each = 1e3 * found.seconds / max(1, found.steps[-1])
        lines.append(f"{name:10} {found.losses[-1]:7.4f} {beside:>18} {memory:>9} {state:>9} {each:5.1f} ms")
    return "\n".join(lines)


def draw(results: dict[str, Result], path: Path) -> None:
    """The losses of all ways over the steps: those from a fresh model, and the adapters'."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "pullback"  # equal figures are equal files
    import matplotlib.pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, found in results.items():
        axes = both[int(WAYS[name].adapters)]
        first = 0 if WAYS[name].adapters else 1  # a fresh model's first loss says nothing
        style = "--" if name in ("float32", "LoRA") else "-"
        axes.plot(found.steps[first:], found.losses[first:], style, label=f"{name}: {found.losses[-1]:.3f}")
    for axes, title in zip(both, ("from a fresh model", "adapters, from a trained model"), strict=True):
        axes.set(xlabel="step", ylabel="validation loss, nats a character", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def main() -> None:
    """Train as the command line says, print a table of all results, and draw them."""
    parser = argparse.ArgumentParser(description="Train a small GPT in ways that take less memory.")
    parser.add_argument("--text", type=Path, help="a text file in UTF-8 (default: sources of Python's library)")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--only", default=",".join(WAYS), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--json", type=Path, help="where results are kept, and read from")
    parser.add_argument("--base", type=Path, help="where the model that adapters begin from is kept")
    parser.add_argument("--plot", type=Path, help="draw the losses to this file")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := [name for name in names if name not in WAYS]:
        parser.error(f"--only takes {', '.join(WAYS)}, got {', '.join(unknown)}")
    text = read_python_sources() if arguments.text is None else read_text(arguments.text)
    results: dict[str, Result] = {}
    if arguments.json is not None and arguments.json.exists():
        results = {name: Result(**kept) for name, kept in json.loads(arguments.json.read_text()).items()}

    def told(name: str, found: Result) -> None:
        results[name] = found
        print(f"{name}: {found.losses[-1]:.4f}", flush=True)
        if arguments.json is not None:
            ordered = {name: results[name]._asdict() for name in WAYS if name in results}
            arguments.json.write_text(json.dumps(ordered) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        run(names, text, arguments.steps, arguments.base or Path(folder) / "base.safetensors", told)
    print(table({name: results[name] for name in WAYS if name in results}))
    if arguments.plot is not None:
        draw(results, arguments.plot)


if __name__ == "__main__":
    main()
