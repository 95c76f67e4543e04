"""A plan as a page for a browser, drawn with Plotly, which is written into the page: nothing is fetched to show it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from .lives import ROLES, Held
from .sizes import format_bytes
from .table import place, text

if TYPE_CHECKING:
    from .plan import Plan

_COLORS = dict(zip(ROLES, ("#4c78a8", "#f58518", "#72b7b2", "#54a24b", "#e45756", "#b279a2"), strict=True))
#: in the order in which the timeline piles them up: what is always there at the bottom
_PILE = ("parameters", "optimizer", "inputs", "gradients", "activations", "temporaries")
#: buffers that are listed as living at the peak, and drawn in the arena
_LISTED, _DRAWN = 25, 1000
_MIB = 1 << 20

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2em auto; padding: 0 1em; }}
h1 {{ font-size: 1.5em; }} h2 {{ font-size: 1.15em; margin: 1.6em 0 0; }} p {{ margin: .3em 0; color: #555; }}
pre {{ font: 13px/1.35 ui-monospace, monospace; overflow-x: auto; background: #f6f6f6; padding: 1em; }}
</style>
</head>
<body>
<h1>{title}</h1>
<pre>{summary}</pre>
<h2>Memory over the schedule</h2>
<p>What is held at each step, by what it is held for. The dashed line is what is allocated throughout: the peak.
{budget}</p>
{timeline}
<h2>What lives at the peak</h2>
<p>The largest buffers at step {step}, with the line of your code that made them.</p>
{peak}
<h2>The arena</h2>
<p>Where each buffer of the arena lies, and when: the schedule from left to right, addresses upwards.</p>
{arena}
</body>
</html>
"""


def drawing_library() -> Any:
    """Plotly's module of figures. Raises ImportError where it is not installed."""
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise ImportError(
            "the page of a plan is drawn with Plotly, which is not installed: pip install 'pullback[plots]'. A name "
            "that ends in .json needs nothing."
        ) from error
    return go


def page(plan: Plan) -> str:
    """The whole page. Raises ImportError where Plotly is not installed."""
    go = drawing_library()
    title = f"Plan of {plan.name}: {format_bytes(plan.peak_bytes)} at the peak"
    budget = ""
    if isinstance(plan.budget, int):
        missed = f"missed by {format_bytes(plan.over_budget_bytes)}" if plan.over_budget_bytes else "kept to"
        budget = f" The full line is the budget of {format_bytes(plan.budget)}, which is {missed}."
    figures = _timeline(plan, go), _at_peak(plan, go), _arena(plan, go)
    for figure in figures:
        figure.update_layout(template="plotly_white", margin=dict(l=70, r=20, t=20, b=50), legend_traceorder="normal")
    # the library stands before the first figure and serves all
    names = ("timeline", "peak", "arena")
    drawn = {
        name: figure.to_html(
            full_html=False, include_plotlyjs=number == 0, include_mathjax=False, div_id=name,
            config={"displaylogo": False, "responsive": True},
        )
        for number, (name, figure) in enumerate(zip(names, figures, strict=True))
    }  # fmt: skip
    return _PAGE.format(
        title=html.escape(title), summary=html.escape(text(plan, 100)), step=plan.peak_step, budget=budget, **drawn
    )


def _timeline(plan: Plan, go: Any) -> Any:
    figure = go.Figure()
    steps = list(range(plan.steps + 1))
    for role in _PILE:
        held = [*(plan.timeline[role] / _MIB), plan.timeline[role][-1] / _MIB]
        figure.add_scatter(
            x=steps, y=held, name=role, stackgroup="held", line=dict(shape="hv", width=0), fillcolor=_COLORS[role],
            hovertemplate="%{y:.2f} MiB",
        )  # fmt: skip
    figure.add_hline(y=plan.peak_bytes / _MIB, line=dict(dash="dash", color="#222", width=1))
    if isinstance(plan.budget, int):
        figure.add_hline(
            y=plan.budget / _MIB, line=dict(color="#c00" if plan.over_budget_bytes else "#393", width=1),
            annotation_text="budget",
        )  # fmt: skip
    figure.add_vline(x=plan.peak_step + 0.5, line=dict(dash="dot", color="#222", width=1))
    figure.update_layout(height=380, hovermode="x unified", xaxis_title="step of the schedule", yaxis_title="MiB")
    figure.update_yaxes(rangemode="tozero")
    return figure


def _at_peak(plan: Plan, go: Any) -> Any:
    alive = plan.at(plan.peak_step)
    figure = go.Figure()
    listed, rest = alive[:_LISTED], alive[_LISTED:]
    for role in ROLES:
        numbers = [n for n, held in enumerate(listed) if held.role == role]
        figure.add_bar(
            x=[listed[n].nbytes / _MIB for n in numbers], y=numbers, name=role, orientation="h",
            marker_color=_COLORS[role], hovertext=[_words(listed[n]) for n in numbers], hoverinfo="text",
        )  # fmt: skip
    labels = [f"{held.what}  {_file(held)}".strip() for held in listed]
    if rest:
        nbytes = sum(held.nbytes for held in rest) + plan.gap_bytes
        labels.append(f"{len(rest)} others and gaps")
        figure.add_bar(
            x=[nbytes / _MIB], y=[len(listed)], name="others", orientation="h", marker_color="#bbb",
            hovertext=format_bytes(nbytes), hoverinfo="text",
        )  # fmt: skip
    figure.update_layout(height=60 + 22 * len(labels), barmode="overlay", xaxis_title="MiB")
    figure.update_yaxes(
        tickvals=list(range(len(labels))), ticktext=[html.escape(label) for label in labels], autorange="reversed",
        automargin=True,
    )  # fmt: skip
    return figure


def _arena(plan: Plan, go: Any) -> Any:
    placed = sorted((b for b in plan.buffers if b.offset is not None), key=lambda held: -held.nbytes)[:_DRAWN]
    figure = go.Figure()
    for role in ROLES:
        own = [held for held in placed if held.role == role]
        if own:
            figure.add_bar(
                x=[(held.first + held.last + 1) / 2 for held in own],
                width=[held.last + 1 - held.first for held in own],
                base=[(held.offset or 0) / _MIB for held in own], y=[held.nbytes / _MIB for held in own], name=role,
                marker=dict(color=_COLORS[role], line=dict(color="white", width=0.5)),
                hovertext=[_words(held) for held in own], hoverinfo="text",
            )  # fmt: skip
    figure.update_layout(height=460, barmode="overlay", xaxis_title="step of the schedule", yaxis_title="MiB")
    figure.update_xaxes(range=[0, plan.steps])
    return figure


def _file(held: Held) -> str:
    return place(held.source).rpartition("/")[2]


def _words(held: Held) -> str:
    return html.escape(
        f"{held.what}: {format_bytes(held.nbytes)}, {held.role}, steps {held.first} to {held.last} {place(held.source)}"
    )
