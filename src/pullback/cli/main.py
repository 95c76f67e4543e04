"""The commands: `pullback train`, `train digits`, `sample`, `plan`, `doctor` and `info`."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .. import debug
from ..checkup.doctor import examine_script
from ..data import Corpus, TextError, read_python_topics, read_text
from ..errors import SnapshotError, SnapshotLockError, StateDictError
from ..memory.table import terminal_width
from ..runtime import jit, threads
from ..train import Loop, NonFiniteLossError, Progress, models
from ..train.digits import DigitsSettings, DigitsTraining, load_digits
from ..train.gpt import GPTConfiguration
from ..train.text import TextSettings, TextTraining, check_whole, load_text_model, sample_text
from ..train.weights import check_writable
from . import planning, reductions
from .output import EXIT_FAILED, EXIT_INTERRUPTED, Reporter, fail, interruptible

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True)
train_app = typer.Typer(rich_markup_mode=None)
app.add_typer(train_app, name="train")

Threads = Annotated[int | None, typer.Option(help="Threads to run on.", show_default="the cores available")]
SnapshotDirectory = Annotated[
    Path | None,
    typer.Option(
        "--snapshots",
        metavar="DIR",
        help="For snapshots: a run that was killed goes on from the newest.",
    ),
]
SnapshotEvery = Annotated[int, typer.Option("--snapshot-every", help="Steps between snapshots.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same run, bit for bit, on the same machine.")]


def main() -> None:
    """Run the command and exit with its status: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted."""
    try:
        app(prog_name="pullback")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def version() -> str:
    """The version of the installed package."""
    try:
        return importlib.metadata.version("pullback")
    except importlib.metadata.PackageNotFoundError:
        return "from a source tree that is not installed"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pullback {version()}")
        raise typer.Exit


@app.callback()
def pullback(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train neural networks on this machine's processor."""


@train_app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A text in UTF-8.", show_default="the help texts of Python")
    ] = None,
    steps: Annotated[int, typer.Option(help="Training steps.")] = TextSettings.steps,
    batch_size: Annotated[int, typer.Option(help="Windows of text a step.")] = TextSettings.batch_size,
    window: Annotated[
        int, typer.Option("--context", metavar="INTEGER", help="Characters the model sees at once.")
    ] = GPTConfiguration.context,
    layers: Annotated[int, typer.Option(help="Blocks of the model.")] = GPTConfiguration.layers,
    width: Annotated[int, typer.Option(help="Width of the residual stream.")] = GPTConfiguration.width,
    heads: Annotated[int, typer.Option(help="Attention heads; they divide the width.")] = GPTConfiguration.heads,
    learning_rate: Annotated[float, typer.Option(help="The largest learning rate.")] = TextSettings.learning_rate,
    dropout: Annotated[float, typer.Option(help="Share of activations dropped.")] = GPTConfiguration.dropout,
    seed: Seed = TextSettings.seed,
    out: Annotated[Path, typer.Option(help="Where to write the weights.")] = Path("pullback-text.safetensors"),
    threads: Threads = None,
    sample_length: Annotated[int, typer.Option(help="Characters to print at the end.")] = 500,
    eval_every: Annotated[int, typer.Option(help="Steps between evaluations.")] = TextSettings.evaluate_every,
    snapshots: SnapshotDirectory = None,
    snapshot_every: SnapshotEvery = 100,
) -> None:
    """Train a character-level GPT on a text, print a sample, and write the weights (`pullback train digits`: a
    classifier of digits)."""
    if context.invoked_subcommand is not None:
        _refuse_options_of_text(context)
        return
    with _refusing(ValueError):
        settings = TextSettings(steps, batch_size, learning_rate, eval_every, seed)
        check_whole("sample_length", sample_length, 0)
        check_whole("snapshot_every", snapshot_every, 1)
        # the vocabulary is known once the text is read; one character stands in until then
        GPTConfiguration(1, window, layers, width, heads, dropout)
    _prepare(threads, out)
    with _refusing(TextError):
        text = read_python_topics() if data is None else read_text(data)
        try:
            corpus = Corpus.of(text, window)
        except TextError as error:
            raise TextError(f"{data or 'the help texts of Python'}: {error}") from None
    configuration = GPTConfiguration(len(corpus.vocabulary), window, layers, width, heads, dropout)
    reporter = Reporter("characters")
    training = TextTraining(corpus, configuration, settings, _saving(reporter, lambda step: training.save(out, step)))
    print(
        f"{len(text):,} characters, {len(corpus.vocabulary)} different; {training.parameters:,} parameters; "
        f"the first step compiles",
        flush=True,
    )
    with _resuming(training, snapshots, snapshot_every):
        _run(training.loop, reporter, out, lambda step: training.save(out, step))
    if reporter.last is None:
        _nothing_left(training, out)
        return
    last = reporter.last
    print(
        f"validation loss {last.validation_loss:.3f} nats a character after {last.step} steps in {last.seconds:.0f} s\n"
        f"weights in {out}"
    )
    if sample_length:
        print(f"a sample:\n{training.sample(sample_length)}")


@train_app.command()
def digits(
    steps: Annotated[int, typer.Option(help="Training steps.")] = DigitsSettings.steps,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = DigitsSettings.batch_size,
    learning_rate: Annotated[float, typer.Option(help="The largest learning rate.")] = DigitsSettings.learning_rate,
    dropout: Annotated[float, typer.Option(help="Share of activations dropped.")] = DigitsSettings.dropout,
    seed: Seed = DigitsSettings.seed,
    out: Annotated[Path, typer.Option(help="Where to write the weights.")] = Path("pullback-digits.safetensors"),
    threads: Threads = None,
    eval_every: Annotated[int, typer.Option(help="Steps between evaluations.")] = DigitsSettings.evaluate_every,
    snapshots: SnapshotDirectory = None,
    snapshot_every: SnapshotEvery = 100,
) -> None:
    """Train a classifier of handwritten digits and print its accuracy on the fifth of them that it never saw."""
    with _refusing(ValueError):
        settings = DigitsSettings(steps, batch_size, learning_rate, dropout, eval_every, seed)
        check_whole("snapshot_every", snapshot_every, 1)
    _prepare(threads, out)
    try:
        train_part, test_part = load_digits()
    except ImportError:
        fail("the digits come with scikit-learn, which is not installed: pip install 'pullback[digits]'")
    reporter = Reporter("images")
    training = DigitsTraining(train_part, test_part, settings, _saving(reporter, lambda step: training.save(out, step)))
    with _resuming(training, snapshots, snapshot_every):
        _run(training.loop, reporter, out, lambda step: training.save(out, step))
    if reporter.last is None:
        _nothing_left(training, out)
        return
    _, accuracy = training.evaluate()
    print(
        f"test accuracy {accuracy:.2%} on {len(test_part.labels)} digits after {reporter.last.step} steps in "
        f"{reporter.last.seconds:.1f} s\nweights in {out}"
    )


@app.command()
def sample(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="A file that `pullback train` wrote.")],
    length: Annotated[int, typer.Option(help="Characters to print.")] = 500,
    prompt: Annotated[str, typer.Option(help="The text to go on from.", show_default="a new line")] = "",
    temperature: Annotated[
        float, typer.Option(help="0 takes the likeliest character; 1 draws as the model says.")
    ] = 0.8,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    threads: Threads = None,
) -> None:
    """Print text that a trained model makes up."""
    with _refusing(ValueError):
        check_whole("length", length, 1)
        check_whole("seed", seed, 0)
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature must be a finite number of at least 0, got {temperature}")
    _set_threads(threads)
    with _refusing(StateDictError, TextError):
        model, vocabulary = load_text_model(weights)
        print(prompt + sample_text(model, vocabulary, prompt, length, seed, temperature))


@app.command()
def plan(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"One of {', '.join(models.SIZES)}; or your own module:function, which gives a step and a tuple "
            "of its arguments.",
        ),
    ],
    batch: Annotated[int, typer.Option(help="Rows of a batch.")] = 1,
    tokens: Annotated[int, typer.Option(help="Tokens of a row.")] = 1024,
    optimizer: Annotated[str, typer.Option(help=f"One of {', '.join(models.OPTIMIZERS)}.")] = "adamw",
    dtype: Annotated[str, typer.Option(help="Of all parameters: float32 or bfloat16.")] = "float32",
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Compute each block again: gradient_checkpointing_enable().")
    ] = False,
    quantize: Annotated[
        str | None, typer.Option(help="Weights of linear layers as codes: nf4, fp4 or int8. Needs --lora-r.")
    ] = None,
    lora_r: Annotated[int, typer.Option(help="Train adapters of this rank beside all linear layers of blocks.")] = 0,
    memory: Annotated[
        str | None, typer.Option(help='Tell whether that much is enough, such as "24GiB"; or "least": how little is.')
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the plan, with what --memory makes of it, to .html or .json."),
    ] = None,
) -> None:
    """Print what a training step would hold in memory, exactly, without running it or allocating anything.

    Exits with 1 where `--memory` is not enough."""
    with _refusing(ValueError, OSError, ImportError):
        planning.check_path(save)
        if memory is not None:
            planning.budget_of(memory)
        if ":" not in model:
            _check_adapters(quantize, lora_r)
            training = _training(model, batch, tokens, optimizer, dtype)._replace(
                checkpoint=checkpoint, quantize=quantize, lora_r=lora_r
            )
            reduced = reductions.of_training(training)
            found, replan = training.plan(), training.plan
        else:
            _refuse_options_of_models(context)
            with planning.running(model):
                own = planning.load(model)
                found, replan = own.plan(), own.plan
                reduced = reductions.of_own(own, found)
    print(found, flush=True)
    with _refusing(ValueError), planning.running(model):
        print(f"\n{reductions.table(found, reduced(found))}", flush=True)
    answer = planning.Answer(True, "", found)
    if memory is not None:
        with _refusing(ValueError), planning.running(model):
            answer = planning.fits(found, memory, lambda budget: replan(memory=budget))
        print("\n" + textwrap.fill(answer.words, terminal_width(), break_on_hyphens=False))
    if save is not None:
        with _refusing(OSError):
            answer.plan.save(save)
        print(f"\n{'the plan with that' if answer.plan is not found else 'the plan'} is written to {save}")
    if not answer.enough:
        raise typer.Exit(EXIT_FAILED)


def _training(model: str, batch: int, tokens: int, optimizer: str, dtype: str) -> planning.Training:
    for name, value, known in (
        ("model", model, models.SIZES), ("optimizer", optimizer, models.OPTIMIZERS), ("dtype", dtype, planning.DTYPES),
    ):  # fmt: skip
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    check_whole("batch", batch, 1)
    check_whole("tokens", tokens, 1)
    models.check_tokens(model, tokens)
    return planning.Training(model, optimizer, batch, tokens, dtype)


def _check_adapters(quantize: str | None, rank: int) -> None:
    check_whole("lora-r", rank, 0)
    if quantize not in (None, "nf4", "fp4", "int8"):
        raise ValueError(f"quantize must be nf4, fp4 or int8, got {quantize!r}")
    if quantize is not None and not rank:
        raise ValueError(
            "--quantize keeps weights as codes, which are not trained: give the rank of adapters, --lora-r"
        )


def _refuse_options_of_models(context: typer.Context) -> None:
    for name in ("batch", "tokens", "optimizer", "dtype", "checkpoint", "quantize", "lora_r"):
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            name = name.replace("_", "-")
            raise ValueError(f"--{name} is for named models; your own function gives the step with its arguments")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def doctor(
    context: typer.Context,
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="A Python script that trains.", exists=True)],
    steps: Annotated[int, typer.Option(help="Steps to watch.", min=2)] = 20,
) -> None:
    """Run the first steps of a script and go through the checklist for training; further arguments are the script's.

    Exits with 1 where something is wrong.
    """
    report = examine_script(script, context.args, steps)
    print(report)
    if not report.ok:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def info() -> None:
    """Print what Pullback finds on this machine."""
    with _refusing(ValueError):
        target = jit.host_target()
        rows = {
            "Pullback": version(),
            "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            "NumPy": importlib.metadata.version("numpy"),
            "llvmlite": importlib.metadata.version("llvmlite"),
            "processor": f"{target.cpu}, vectors of {8 * target.vector_bytes} bits"
            + (", bfloat16 products" if target.has_bf16 else ""),
            "data caches": ", ".join(f"{size / 1024:,.0f} KiB" for size in (target.l1, target.l2, target.l3)),
            "threads": str(_threads_in_use()),
            "backend": str(debug.get("backend")),
            "cache directory": str(debug.get("cache_dir") or "off"),
        }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


def _threads_in_use() -> int:
    return threads.get_num_threads()


@contextmanager
def _refusing(*errors: type[Exception]) -> Iterator[None]:
    """Turn these errors, which are the user's to mend, into one message and exit status 2."""
    try:
        yield
    except errors as error:
        fail(_in_words_of_options(str(error)))


def _in_words_of_options(message: str) -> str:
    """`batch_size must be …` as the option is called: `--batch-size must be …`."""
    name, separator, rest = message.partition(" must be ")
    name = {"evaluate_every": "eval_every"}.get(name, name)
    return f"--{name.replace('_', '-')}{separator}{rest}" if separator and name.isidentifier() else message


def _refuse_options_of_text(context: typer.Context) -> None:
    """Options before the name of another training would be read and have no effect."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = {"window": "context"}.get(name, name).replace("_", "-")
            fail(f"--{option} stands before {context.invoked_subcommand!r}, where it has no effect; put it after")


def _set_threads(count: int | None) -> None:
    if count is not None:
        with _refusing(ValueError):
            check_whole("threads", count, 1)
            threads.set_num_threads(count)


def _prepare(count: int | None, out: Path) -> None:
    """What must be right before any time is spent."""
    _set_threads(count)
    with _refusing(OSError):
        check_writable(out)


def _saving(reporter: Reporter, save: Callable[[int], None]) -> Callable[[Progress], None]:
    """Report every step, and keep the weights of each evaluation, so that a run that dies leaves something."""

    def on_progress(progress: Progress) -> None:
        reporter(progress)
        if progress.evaluated:
            save(progress.step)

    return on_progress


@contextmanager
def _resuming(training: TextTraining | DigitsTraining, directory: Path | None, every: int) -> Iterator[None]:
    """Go on from the newest of the snapshots in a directory, if one is given, and take more of them."""
    if directory is None:
        yield
        return
    loop = training.loop
    with _refusing(SnapshotError, SnapshotLockError):
        kept = training.snapshots(directory, every)
        loop.done = last = kept.begin()
    if loop.done:
        print(f"going on after step {loop.done} of {loop.steps}, from {directory}", flush=True)

    def after(step: int) -> None:
        nonlocal last
        last = step
        kept.after(step)

    loop.after_step = after
    try:
        yield
    finally:
        try:
            if loop.stopped and last > loop.done:  # it goes on from here
                kept.after(last, force=True)
            kept.close()
        except SnapshotError as error:
            fail(str(error), EXIT_FAILED)


def _run(loop: Loop, reporter: Reporter, out: Path, save: Callable[[int], None]) -> None:
    """Train to the end; exits where that fails or is interrupted, with the last good weights in `out`."""
    try:
        with interruptible(loop.stop), reporter:
            loop.run()
            if loop.stopped and reporter.last is not None:
                save(reporter.last.step)
    except (NonFiniteLossError, StateDictError) as error:
        fail(f"training stopped: {error}; {_kept(reporter, loop, out)}", EXIT_FAILED)
    except SnapshotError as error:
        fail(f"training stopped: {error}; {_kept(reporter, loop, out)}", EXIT_FAILED)
    except OSError as error:
        fail(f"the weights could not be written to {out}: {error.strerror or error}", EXIT_FAILED)
    if loop.stopped:
        last = reporter.last
        fail(
            "interrupted before the first step; nothing was written"
            if last is None
            else f"interrupted after step {last.step} of {last.steps}; its weights are in {out}",
            EXIT_INTERRUPTED,
        )


def _kept(reporter: Reporter, loop: Loop, out: Path) -> str:
    every = loop.evaluate_every
    step = 0 if reporter.last is None else reporter.last.step // every * every
    return f"the weights of step {step} are kept in {out}" if step else f"{out} was not written"


def _nothing_left(training: TextTraining | DigitsTraining, out: Path) -> None:
    """Say that the run was at its end already, and write its weights."""
    training.save(out, training.loop.steps)
    print(f"all {training.loop.steps} steps were done before; weights in {out}")
