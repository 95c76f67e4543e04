"""The figures drawn with matplotlib, to a PNG, an SVG or whatever else the name of the file asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import compare
from .contestants import CONTESTANTS

#: colours that differ in lightness too, for those who see no hue (Okabe & Ito, 2008)
_COLOURS = {
    "pullback": "#0072B2",
    "pullback-undecorated": "#56B4E9",
    "torch": "#E69F00",
    "torch-fused": "#D55E00",
    "torch-compile": "#8C3A00",
    "jax": "#009E73",
}
_LIMIT = "#222222"


def formats() -> list[str]:
    """The endings of file names that `steps` and `widths` can write. Raises ImportError without matplotlib."""
    return sorted(_figure(1, 1)[0].canvas.get_supported_filetypes())


def steps(results: Sequence[dict[str, Any]], machine: Mapping[str, Any], file: Path) -> None:
    """Bars of speed relative to the best peer, a group for each workload, and where the machine's limit lies.

    `results` are those of `compare.relate`; a workload without a peer is left out.
    """
    names = [name for name in dict.fromkeys(r["workload"] for r in results) if compare.best_peer(results, name)]
    done = [result for result in results if "failure" not in result and result["workload"] in names]
    keys = [key for key in CONTESTANTS if any(result["contestant"] == key for result in done)]
    figure, axes = _figure(max(6.0, 1.6 + 0.24 * len(done)), 4.8)
    groups = [[key for key in keys if _find(done, name, key)] for name in names]
    for place, (name, group) in enumerate(zip(names, groups, strict=True)):
        width = 0.84 / len(keys)
        for index, key in enumerate(group):
            result = _find(done, name, key)
            x = place + (index - (len(group) - 1) / 2) * width
            axes.bar(x, result["speed"], width * 0.92, color=_COLOURS[key], zorder=2)
            if key == "pullback":
                axes.annotate(
                    f"{result['speed']:.2g}×", (x, result["speed"]), (0, -4), textcoords="offset points", rotation=90,
                    ha="center", va="top", fontsize=9, weight="bold", color="white", zorder=5,
                )  # fmt: skip
        _mark_limit(axes, place, _find(done, name, group[0]), len(group) * width / 2)
    _finish_steps(axes, names, keys, done, machine)
    _save(figure, file)


def _mark_limit(axes: Any, place: int, result: Mapping[str, Any], half: float) -> None:
    """A line across a group where a step at the peak rate would stand: the same for whichever contestant it is from."""
    height = result["speed"] / result["share"]
    axes.hlines(height, place - half, place + half, color=_LIMIT, linewidth=1.6, zorder=4)


def _finish_steps(
    axes: Any, names: Sequence[str], keys: Sequence[str], done: Sequence[Any], machine: Mapping[str, Any]
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    axes.axhline(1, color="#888888", linewidth=1, zorder=1)
    axes.set_yscale("log")
    lowest = min(result["speed"] for result in done)
    highest = max(result["speed"] / min(result["share"], 1) for result in done)
    axes.set_ylim(lowest / 1.4, highest * 1.5)
    axes.set_xlim(-0.6, len(names) - 0.4)
    _plain_numbers(axes, "{:g}×")
    axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 8 else 0)
    axes.set_ylabel("speed, the best peer = 1 (logarithmic)")
    axes.set_title(f"Training steps on {machine['processor']}, {machine['cores']} cores", loc="left", fontsize=11)
    handles: list[Any] = [Patch(color=_COLOURS[key], label=CONTESTANTS[key].title) for key in keys]
    handles.append(Line2D([], [], color=_LIMIT, linewidth=1.6, label="the processor's peak rate"))
    axes.legend(handles=handles, ncols=min(4, len(handles)), fontsize=8, frameon=False, loc="upper center",
                bbox_to_anchor=(0.5, -0.12 if len(names) <= 8 else -0.2))  # fmt: skip


def widths(results: Sequence[dict[str, Any]], machine: Mapping[str, Any], file: Path) -> None:
    """Time of a step against width, a line for each contestant, jumps between neighbours marked."""
    figure, axes = _figure(8, 4.6)
    for result in results:
        x = [int(width) for width in result["seconds"]]
        y = [taken * 1e6 for taken in result["seconds"].values()]
        key = result["contestant"]
        axes.plot(x, y, color=_COLOURS[key], linewidth=1.2, label=CONTESTANTS[key].title)
        jumps = [jump["width"] for jump in result["jumps"]]
        axes.plot(jumps, [result["seconds"][str(width)] * 1e6 for width in jumps], "o", color=_COLOURS[key],
                  markersize=4, markerfacecolor="white")  # fmt: skip
    axes.set_yscale("log")
    _plain_numbers(axes, "{:g}")
    axes.set_xlim(0)
    axes.set_xlabel("width of the hidden layers (a circle: a jump from the neighbour)")
    axes.set_ylabel("a training step, µs (logarithmic)")
    axes.set_title(f"Time against width on {machine['processor']}, {machine['cores']} cores", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, file)


def growth(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Memory beside parameters and inputs against depth, a line for each way of `budgets.growth`, and √n beside."""
    figure, axes = _figure(7, 4.6)
    for way, colour in zip(dict.fromkeys(row["way"] for row in rows), ("#D55E00", "#0072B2", "#009E73"), strict=True):
        points = [(row["layers"], (row["peak"] - row["state"]) / 1e6) for row in rows if row["way"] == way]
        axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, linewidth=1.4, label=way)
    first = next(row for row in rows if row["way"] == "least")
    depths = sorted({row["layers"] for row in rows})
    start = (first["peak"] - first["state"]) / 1e6
    roots = [start * (count / depths[0]) ** 0.5 for count in depths]
    axes.plot(depths, roots, ":", color=_LIMIT, linewidth=1.2, label="as √n from there")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_numbers(axes, "{:g}")
    axes.set_xticks(depths, [f"{count:,}" for count in depths], minor=False)
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.set_xlabel("layers")
    axes.set_ylabel("memory beside parameters and inputs, MB")
    axes.set_title("Memory of a training step against depth", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, file)


def _plain_numbers(axes: Any, text: str) -> None:
    """Numbers at 1, 2 and 5 of every power of ten of a logarithmic axis, written out."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda value, _: text.format(value))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _find(results: Sequence[dict[str, Any]], name: str, key: str) -> Any:
    found = (result for result in results if result["workload"] == name and result["contestant"] == key)
    return next(found, None)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of so many inches and its axes, drawn without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(axis="y", color="#dddddd", linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, file: Path) -> None:
    figure.savefig(file, dpi=160, bbox_inches="tight")
