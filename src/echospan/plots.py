"""Pictures of a run, as SVG: recall by delay, and how training went."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from echospan.evaluation import Evaluation
from echospan.training import Progress

_STYLE: Any = {
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
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6, 3.5))
        axes = figure.subplots()
        delays = [d.delay for d in evaluation.delays]
        low, high = zip(*(d.interval for d in evaluation.delays), strict=True)
        axes.fill_between(delays, low, high, alpha=0.3, label="95 % interval")
        axes.plot(delays, [d.recall for d in evaluation.delays], "o-", label="recall")
        axes.axhline(target, color="C2", ls="--", label=f"target {target:.0%}")
        axes.axhline(chance, color="C7", ls=":", label=f"chance {chance:.1%}")
        axes.set(xlabel="delay (symbols)", ylabel="recall", ylim=(0, 1.03), title="Recall by delay")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        return _svg(figure)


def training_plot(history: Sequence[Progress]) -> str:
    """Recall at each delay against seconds of training."""
    with matplotlib.rc_context(_STYLE):
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
