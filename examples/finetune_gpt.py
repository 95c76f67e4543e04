"""A GPT of 100 million parameters is trained on English for a while (with bfloat16 products, for speed), and then on
Python in two ways: all of it in float32, and with adapters beside its weights in 4 bits (QLoRA).

    python examples/finetune_gpt.py FOLDER [--seconds 100] [--plot FILE]

Each call does the next part of the work, of about so many seconds, and keeps a snapshot of it in the folder, so that it
can be called until it says that nothing is left; then it prints the table and draws the curves. The texts are on any
machine: the language reference behind Python's help(), and the modules of its library. `--size tiny` goes through the
same in seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import pullback as pb
from pullback.data import Corpus, Vocabulary, read_python_sources, read_python_topics
from pullback.memory import format_bytes
from pullback.train.gpt import GPT, GPTConfiguration, validator

PRETRAIN, FULL, QLORA = "pretraining", "full float32", "QLoRA"
#: the layers that get adapters, and whose weights are kept in 4 bits
LAYERS = ["query_key_value", "projection", "expansion", "contraction"]


class Size(NamedTuple):
    """How large everything is: the model, a batch, the steps of both stages, and how often and on how many windows the
    loss of text that was not seen is looked at.
    """

    layers: int
    width: int
    heads: int
    context: int
    batch: int
    pretraining: int
    tuning: int
    every: int
    windows: int


SIZES = {
    "tiny": Size(2, 64, 2, 32, 4, 12, 12, 4, 4),
    "100m": Size(12, 832, 13, 256, 2, 200, 100, 20, 16),
}


class Stage(NamedTuple):
    """A part of the work: its steps, its learning rate, and which text it learns."""

    name: str
    steps: int
    rate: float
    text: int


class Texts(NamedTuple):
    """English and Python over one vocabulary."""

    vocabulary: Vocabulary
    corpora: tuple[Corpus, Corpus]

    @classmethod
    def read(cls, windows: int, context: int) -> Texts:
        """The texts, of which so many windows are set aside."""
        written = read_python_topics(), read_python_sources()
        vocabulary = Vocabulary.of("".join(written))
        corpora = []
        for text in written:
            tokens = vocabulary.encode(text)
            aside = windows * context + 1
            corpora.append(Corpus(vocabulary, tokens[:-aside], tokens[-aside:]))
        return cls(vocabulary, (corpora[0], corpora[1]))


def stages(size: Size) -> list[Stage]:
    """The work in its order."""
    return [
        Stage(PRETRAIN, size.pretraining, 3e-4, 0),
        Stage(FULL, size.tuning, 1e-4, 1),
        Stage(QLORA, size.tuning, 1e-3, 1),
    ]


class Work:
    """The folder of a run: a snapshot of each stage, and what has been found."""

    def __init__(self, folder: Path, size: Size):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.size = folder, size
        self.texts = Texts.read(size.windows, size.context)
        self._found = folder / "found.json"
        self.found: dict[str, dict[str, Any]] = json.loads(self._found.read_text()) if self._found.exists() else {}

    def left(self) -> list[Stage]:
        """The stages that are not done."""
        return [s for s in stages(self.size) if self.found.get(s.name, {}).get("done", 0) < s.steps]

    def go_on(self, seconds: float, tell: Callable[[str], None] = print) -> None:
        """Work on the next stage for about so many seconds."""
        stage = self.left()[0]
        model = self._model(stage)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = pb.optim.AdamW(trained, lr=stage.rate)
        generator = np.random.default_rng(1)
        with pb.Checkpointer(self.folder / stage.name.replace(" ", "-"), keep=1) as snapshots:
            parts = {"model": model, "optimizer": optimizer, "generator": generator}
            done = snapshots.restore(**parts) or 0
            done = self._train(stage, model, optimizer, generator, done, seconds, tell)
            snapshots.save(done, force=True, **parts)
        if done == stage.steps and stage.name == PRETRAIN:
            pb.save(model.state_dict(), self._base)
        self._found.write_text(json.dumps(self.found) + "\n")

    @property
    def _base(self) -> Path:
        return self.folder / "base.safetensors"

    def _model(self, stage: Stage) -> GPT:
        size = self.size
        pb.manual_seed(0)
        shape = GPTConfiguration(len(self.texts.vocabulary), size.context, size.layers, size.width, size.heads)
        model = GPT(shape)
        if stage.name != PRETRAIN:
            model.load_state_dict(pb.load(self._base))
        if stage.name == QLORA:
            pb.nn.utils.quantize_model(model, "nf4", skip=["head"])
            pb.lora.apply(model, r=16, alpha=32, targets=LAYERS)
        return model

    def _train(
        self, stage: Stage, model: GPT, optimizer: pb.optim.Optimizer, generator: np.random.Generator, done: int,
        seconds: float, tell: Callable[[str], None],
    ) -> int:  # fmt: skip
        """Train from a step on for about so many seconds; up to which step it came."""
        corpus, size = self.texts.corpora[stage.text], self.size
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

        @pb.compile
        def step(x: pb.Tensor, y: pb.Tensor) -> pb.Tensor:
            optimizer.zero_grad()
            with pb.autocast("cpu", dtype=pb.bfloat16, enabled=stage.name == PRETRAIN):
                scores = model(x)
                loss = pb.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))
            loss.backward()
            pb.nn.utils.clip_grad_norm_(trained, max_norm=1.0)
            optimizer.step()
            return loss

        validate = validator(model, corpus.validation, size.batch)
        kept = self.found.setdefault(stage.name, {"done": 0, "steps": [], "losses": [], "seconds": []})
        start = time.perf_counter()
        if done == 0:
            _note(kept, 0, validate(), tell, stage.name)
        batch: list[pb.Tensor] = []
        for count in range(done + 1, stage.steps + 1):
            optimizer.param_groups[0]["lr"] = stage.rate * min(1.0, count / 20)
            batch = [pb.tensor(part) for part in corpus.draw(generator, size.batch, size.context)]
            before = time.perf_counter()
            step(*batch).item()
            kept["seconds"].append(time.perf_counter() - before)
            done = count
            if done % size.every == 0 or done == stage.steps:
                _note(kept, done, validate(), tell, stage.name)
                if time.perf_counter() - start > seconds:
                    break
        plan = step.plan(*batch)
        kept |= {"done": done, "peak": plan.peak_bytes, "held": dict(plan.breakdown)}
        kept["trained"] = sum(parameter.numel() for parameter in trained)
        return done


def _note(kept: dict[str, Any], count: int, loss: float, tell: Callable[[str], None], name: str) -> None:
    kept["steps"].append(count)
    kept["losses"].append(loss)
    tell(f"{name}, step {count}: {loss:.4f}")


def table(found: dict[str, dict[str, Any]]) -> str:
    """Both ways to tune beside one another, in Markdown."""
    roles = {role: role for role in ("parameters", "gradients", "optimizer", "activations", "temporaries")}
    roles |= {"parameters": "parameters, trained and fixed", "inputs": "inputs"}
    lines = ["| | " + " | ".join((FULL, QLORA)) + " |", "|---|--:|--:|"]
    both = [found[FULL], found[QLORA]]
    rows: list[tuple[str, list[str]]] = [
        ("parameters trained", [f"{kept['trained']:,}" for kept in both]),
        ("memory of a step", [format_bytes(kept["peak"]) for kept in both]),
        *((f"– {name}", [format_bytes(kept["held"].get(role, 0)) for kept in both]) for role, name in roles.items()),
        ("time of a step", [f"{float(np.median(kept['seconds'])):.2f} s" for kept in both]),
        ("loss before", [f"{kept['losses'][0]:.3f}" for kept in both]),
        ("loss after", [f"{kept['losses'][-1]:.3f}" for kept in both]),
    ]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join(lines)


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """The loss of all stages, and what a step of both ways to tune holds."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "pullback"  # equal figures are equal files
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in (FULL, QLORA):
        left.plot(found[name]["steps"], found[name]["losses"], label=f"{name}: {found[name]['losses'][-1]:.3f}")
    left.set(xlabel="step", ylabel="validation loss, nats a character", title="English to Python")
    roles = [role for role in found[FULL]["held"] if any(found[name]["held"].get(role) for name in (FULL, QLORA))]
    below = np.zeros(2)
    for role in roles:
        held = np.array([found[name]["held"].get(role, 0) / 2**20 for name in (FULL, QLORA)])
        right.bar((FULL, QLORA), held, bottom=below, label=role)
        below += held
    right.set(ylabel="MiB", title="memory of a step at its peak")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def main() -> None:
    """Do the next part, or show what has been found."""
    parser = argparse.ArgumentParser(description="Fine-tune a GPT of 100 million parameters in float32 and by QLoRA.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=100.0, help="after which a part ends, at its next look")
    parser.add_argument("--size", choices=SIZES, default="100m")
    parser.add_argument("--plot", type=Path, help="draw the curves to this file, once all is done")
    arguments = parser.parse_args()
    work = Work(arguments.folder, SIZES[arguments.size])
    if work.left():
        work.go_on(arguments.seconds)
    left = [f"{stage.name} of {stage.steps} steps" for stage in work.left()]
    if left:
        print(f"left: {', '.join(left)}")
        return
    print(table(work.found))
    if arguments.plot is not None:
        draw(work.found, arguments.plot)


if __name__ == "__main__":
    main()
