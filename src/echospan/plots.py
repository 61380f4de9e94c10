"""Pictures of a run, as SVG: recall by delay, and how training went."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from echospan.evaluation import Evaluation
from echospan.text import percent
from echospan.training import Progress

if TYPE_CHECKING:
    from echospan.profiling import Profile

# Okabe and Ito's colours, which the colour-blind can tell apart; then other lines.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
LINES = ("-", "--", "-.", ":")

STYLE: Any = {
    "svg.hashsalt": "echospan",
    "svg.fonttype": "none",
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return out.getvalue()


def recall_plot(evaluation: Evaluation, chance: float, target: float) -> str:
    """Recall with its interval against delay, chance and target drawn."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.5))
        axes = figure.subplots()
        delays = [d.delay for d in evaluation.delays]
        low, high = zip(*(d.interval for d in evaluation.delays), strict=True)
        axes.fill_between(delays, low, high, alpha=0.3, label="95 % interval")
        axes.plot(delays, [d.recall for d in evaluation.delays], "o-", label="recall")
        axes.axhline(target, color="C2", ls="--", label=f"target {percent(target)}")
        axes.axhline(chance, color="C7", ls=":", label=f"chance {chance:.1%}")
        axes.set(xlabel="delay (symbols)", ylabel="recall", ylim=(0, 1.03), title="Recall by delay")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        return _svg(figure)


def training_plot(history: Sequence[Progress]) -> str:
    """Recall at each delay against seconds of training."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.5))
        axes = figure.subplots()
        seconds = [p.seconds for p in history]
        for d in range(len(history[0].evaluation.delays) if history else 0):
            recall = [p.evaluation.delays[d].recall for p in history]
            axes.plot(seconds, recall, label=f"delay {d}")
        axes.set(xlabel="seconds of training", ylabel="recall", ylim=(0, 1.03), title="Training")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        if history:
            axes.legend(fontsize="small", ncols=2)
        return _svg(figure)


def profile_plot(profiles: Sequence["Profile"]) -> Figure:
    """Recall against delay: a line and a band for each, the chance level drawn."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        for i, p in enumerate(profiles):
            delays = range(p.max_delay + 1)
            low, high = zip(*p.band, strict=True)
            style: Any = {
                "color": COLOURS[i % len(COLOURS)],
                "ls": LINES[i // len(COLOURS) % 4],
            }
            axes.fill_between(delays, low, high, alpha=0.15, color=style["color"], lw=0)
            axes.plot(delays, p.recall, label=f"{p.name} (span {p.span})", **style)
        axes.axhline(profiles[0].at, color="0.3", lw=0.8, ls=(0, (6, 3)))
        axes.axhline(1 / profiles[0].symbols, color="0.3", lw=0.8, ls=":")
        axes.text(0, 1 / profiles[0].symbols + 0.01, "chance", fontsize="small", color="0.3")
        axes.set(xlabel="delay (symbols)", ylabel="recall", ylim=(0, 1.03))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
        return figure


def picture(figure: Figure, kind: str) -> bytes:
    """The figure as an svg, png or pdf file, the same bytes for the same figure."""
    out = io.BytesIO()
    dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format=kind, metadata=dated.get(kind), dpi=150)
    return out.getvalue()
