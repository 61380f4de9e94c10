"""All results of a bench as one page that needs nothing beside it, and as figures for a paper."""

import io
import math
import re
import statistics
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import islice
from typing import Any

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from echospan.grids import Cell
from echospan.plots import COLOURS, LINES, STYLE
from echospan.profiling import Profile
from echospan.store import Stored, by_setting
from echospan.text import plain

MOST_POINTS = 400
"""Points of a panel; what is drawn of a larger bench is spread evenly over it."""

_INK = "#010203"
"""Stands for the colour of the page's text until the picture is in the page."""

_MARKERS = "os^Dv<>PpX*hd"
_LONGEST = 40
_MOST_NAMED = 64
"""Names of a legend; a figure of more is wider than a file of PNG can be."""

_SVG = "http://www.w3.org/2000/svg"


@dataclass(frozen=True)
class Setting:
    """A cell and those that differ from it in nothing but their seed."""

    cells: tuple[Cell, ...]
    profile: Profile

    @property
    def cell(self) -> Cell:
        """The first of them."""
        return self.cells[0]

    @property
    def command(self) -> str:
        """What runs all of them again."""
        words = self.cell.command.rpartition(" ")[0]
        return " ".join([words, *(str(c.seed) for c in self.cells)])

    @property
    def symbols(self) -> float:
        """Read in training, the mean over the seeds."""
        return statistics.fmean(s.symbols for s in self.profile.seeds)

    def to_target(self, clock: str) -> float | None:
        """Median `seconds` or `symbols` until the target (the later of two).

        None where half the seeds or more missed it: the lower of two would hide one that did.
        """
        values = [getattr(s, f"{clock}_to_target") for s in self.profile.seeds]
        middle = sorted(v if v is not None else math.inf for v in values)[len(values) // 2]
        return None if math.isinf(middle) else middle

    @property
    def reached(self) -> str:
        """How many seeds were at the target, where some were and some were not; else nothing."""
        there = sum(s.symbols_to_target is not None for s in self.profile.seeds)
        return f" ({there} of {len(self.cells)})" if 0 < there < len(self.cells) else ""

    @property
    def description(self) -> str:
        """Core, width, delays and budget, for people."""
        p, budget = self.profile, _budget(self.cell)
        return f"{_short_name(p.name)}, hidden {p.hidden}, delays 0 to {p.max_delay}, {budget}"


@dataclass
class Plot:
    """A figure, what stands under it, and what its points say, by the gid of their line."""

    name: str
    title: str
    caption: str
    figure: Figure
    says: dict[str, list[str]] = field(default_factory=dict)

    def points(
        self, axes: Axes, x: Sequence[float], y: Sequence[float], says: Sequence[str], **style: Any
    ) -> None:
        """A line, or markers alone, each point of which says something."""
        gid = f"points-{len(self.says)}"
        axes.plot(x, y, gid=gid, **style)
        self.says[gid] = list(says)


def _budget(cell: Cell) -> str:
    return f"{cell.seconds:g} s" if cell.seconds else f"{cell.symbols:,} symbols"


def settings(stored: Iterable[Stored]) -> list[Setting]:
    """Finished cells, those of one setting together, by core and size."""
    made = [Setting(cells, profile) for cells, profile in by_setting(stored)]
    return sorted(made, key=lambda s: (s.profile.name, s.profile.max_delay, s.profile.hidden))


def _style(cores: Sequence[str], core: str) -> dict[str, Any]:
    i = cores.index(core)
    colour, marker = COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)]
    if colour == "#000000":
        colour = _ink()
    return {"color": colour, "marker": marker, "markersize": 4, "ls": ""}


def _ink() -> str:
    return str(matplotlib.rcParams["text.color"])


def _line(cores: Sequence[str], core: str) -> dict[str, Any]:
    i = cores.index(core)
    return _style(cores, core) | {"ls": LINES[i // len(COLOURS) % len(LINES)], "lw": 1.3}


def _log(*axes: Any) -> None:
    """Logarithmic axes whose ticks read 200, 5k, 2M, within a decade too."""
    for axis in axes:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        low, high = axis.get_view_interval()
        subs = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)
        wide = high >= 10 * low
        # Within a decade LogLocator sets as many ticks as a straight axis has, and they overlap.
        axis.set_major_locator(LogLocator(subs=subs, numticks=9) if wide else MaxNLocator(4))
        axis.set_major_formatter(FuncFormatter(_short))
        axis.set_minor_formatter(NullFormatter())


def _short(value: float, _: int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _legend(
    figure: Figure, cores: Sequence[str], lines: bool, shown: Sequence[str] | None = None
) -> None:
    """Names those `shown`, all where left out; the figure is widened by what that takes."""
    names = cores if shown is None else shown
    style = _line if lines else _style
    named = names if len(names) <= _MOST_NAMED else names[: _MOST_NAMED - 1]
    handles = [Line2D([], [], **style(cores, c)) for c in named]
    labels = [_label(c) for c in named]
    if len(named) < len(names):
        handles.append(Line2D([], [], ls=""))
        labels.append(f"and {len(names) - len(named):,} more")
    columns = math.ceil(len(named) / max(1, int(5.3 * figure.get_figheight())))
    figure.set_figwidth(figure.get_figwidth() + columns * (0.5 + _inches(named)))
    figure.legend(
        handles, labels, loc="outside right upper", fontsize="small", frameon=False, ncols=columns
    )


def _label(name: str) -> str:
    """Return a name for a figure: printable, no mathematics, the end of one that is too long."""
    name = plain(name)
    short = name if len(name) <= _LONGEST else "…" + name[1 - _LONGEST :]
    return short.replace("$", r"\$")


def _short_name(name: str) -> str:
    return plain(name, 100)


def _inches(names: Iterable[str]) -> float:
    return 0.08 * min(_LONGEST, max(map(len, names), default=0))


def _every(most: int, lengths: Iterable[int]) -> int:
    """Which points of some lines are drawn, so that there are about `most` of them in all."""
    return max(1, math.ceil(sum(lengths) / most))


def _thinned(n: int, what: str) -> str:
    return f" One {what} in {n} is drawn." if n > 1 else ""


def _of(shown: Sequence[Setting], chosen: Sequence[Setting]) -> str:
    left = len(shown) < len(chosen)
    return f" Drawn are {len(shown):,} of {len(chosen):,} settings." if left else ""


def _some(values: Sequence[Setting]) -> list[Setting]:
    n = len(values)
    if n <= MOST_POINTS:
        return list(values)
    return [values[i * n // MOST_POINTS] for i in range(MOST_POINTS)]


def _cores(chosen: Iterable[Setting]) -> list[str]:
    return sorted({s.profile.name for s in chosen})


def _best(chosen: Sequence[Setting]) -> list[Setting]:
    """Of each core the setting that goes furthest: by span, then by bits."""
    best: dict[str, Setting] = {}
    for s in chosen:
        other = best.get(s.profile.name)
        mine = (s.profile.span, s.profile.recalled_bits)
        if other is None or mine > (other.profile.span, other.profile.recalled_bits):
            best[s.profile.name] = s
    return [best[name] for name in sorted(best)]


def races(chosen: Sequence[Setting]) -> Iterator[tuple[str, list[Setting]]]:
    """Yield panels of settings that can be raced: each core once, at equal width, state or
    parameters.

    Sizes count as equal within 2 %; of equal delays and budgets the panel that holds most cores
    comes first.
    """
    rounds: dict[tuple[Any, ...], list[Setting]] = {}
    for s in chosen:
        c = s.cell
        rounds.setdefault((c.max_delay, _budget(c), c.alphabet, c.at, c.batch), []).append(s)
    for (delay, budget, *_), left in rounds.items():
        while left:
            what, size = _largest_race(left)
            near: dict[str, Setting] = {}
            for s in left:
                theirs = getattr(s.profile, what)
                if theirs is not None and abs(theirs - size) <= _EQUAL * size:
                    near.setdefault(s.profile.name, s)
            raced = {id(s) for s in near.values()}
            left = [s for s in left if id(s) not in raced]
            yield f"{what} {size:,}, delays 0 to {delay}, {budget}", [*near.values()]


def _largest_race(settings: Sequence[Setting]) -> tuple[str, int]:
    """Return the kind of size, and the size, that most cores have; the smallest of several."""
    most, found = 0, ("", 0)
    for what in _SIZES:
        ordered = sorted(
            (size, s.profile.name)
            for s in settings
            if (size := getattr(s.profile, what)) is not None  # a state that cannot be carried
        )
        names: Counter[str] = Counter()
        low = high = 0  # the cores from low to high have that size
        for size, _ in ordered:
            while high < len(ordered) and ordered[high][0] - size <= _EQUAL * size:
                names[ordered[high][1]] += 1
                high += 1
            while size - ordered[low][0] > _EQUAL * size:
                names[ordered[low][1]] -= 1
                if not names[ordered[low][1]]:
                    del names[ordered[low][1]]
                low += 1
            if len(names) > most:
                most, found = len(names), (what, size)
    return found


_EQUAL = 0.02
"""The relative difference up to which two sizes are equal."""

_SIZES = ("hidden", "state", "parameters")
_MOST_PANELS = 9
# A page of 200 cells is to stay below 2 MB, and a point with what it says takes some 200 bytes.
_MOST_DELAYS, _MOST_LOOKS = 3_000, 1_600
_MOST_RACED = 2_000


def _grid(count: int, width: float = 4.2, height: float = 3.1) -> tuple[Figure, list[Axes]]:
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for left in axes[count:]:
        left.set_visible(False)
    return figure, list(axes[:count])


def _recall(chosen: Sequence[Setting]) -> Plot:
    def by_race(s: Setting) -> Any:
        return s.profile.max_delay, s.cell.symbols or 0, s.cell.seconds or 0, s.profile.hidden

    raced = sorted(chosen, key=by_race)[:_MOST_RACED]
    # Few panels of long delays can be read; many would show one delay in twenty.
    most = 3 if max(s.cell.max_delay for s in raced) > 64 else _MOST_PANELS
    drawn = list(islice(races(raced), most))
    figure, axes = _grid(len(drawn))
    left = len(chosen) - sum(len(some) for _, some in drawn)
    every = _every(_MOST_DELAYS, (s.profile.max_delay + 1 for _, some in drawn for s in some))
    plot = Plot(
        "recall",
        "Recall against delay",
        "Mean over the seeds; the band spans their 95 % intervals. Dotted: chance; dashed: the "
        "recall that the spans ask for."
        + (f" {left:,} settings of other sizes and delays are left out." if left else "")
        + _thinned(every, "delay"),
        figure,
    )
    cores = _cores(chosen)
    for ax, (title, some) in zip(axes, drawn, strict=True):
        for s in some:
            p, style = s.profile, _line(cores, s.profile.name)
            if p.max_delay > 32:
                style["markersize"] = 2
            delays = sorted({*range(0, p.max_delay, every), p.max_delay})
            all_recall, all_bands = p.recall, p.band  # each is worked out anew when asked
            recall, band = [all_recall[d] for d in delays], [all_bands[d] for d in delays]
            low, high = zip(*band, strict=True)
            ax.fill_between(delays, low, high, color=style["color"], alpha=0.15, lw=0)
            says = [
                f"{_short_name(p.name)}, delay {d}: {r:.2%} ({lo:.2%} to {hi:.2%})"
                for d, r, (lo, hi) in zip(delays, recall, band, strict=True)
            ]
            plot.points(ax, delays, recall, says, **style)
        ax.axhline(1 / some[0].profile.symbols, color=_ink(), lw=0.8, ls=":")
        ax.axhline(some[0].profile.at, color=_ink(), lw=0.8, ls=(0, (6, 3)))
        ax.set(xlabel="delay (symbols)", ylim=(0, 1.04))
        ax.set_title(title, fontsize="small")
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("recall")
    _legend(figure, cores, lines=True, shown=_cores(s for _, some in drawn for s in some))
    return plot


def _growth(chosen: Sequence[Setting], name: str) -> Plot:
    """Span or bits against parameters, state and symbols seen."""
    figure, axes = _grid(3)
    shown = _some(chosen)
    spoken = {"span": "Span", "bits": "Recalled bits"}[name]
    plot = Plot(
        name,
        f"{spoken} against parameters, state and symbols seen",
        (
            "Median over the seeds of a setting, from the lowest to the highest end of intervals."
            if name == "span"
            else "Mean over the seeds of a setting, from their lowest to their highest."
        )
        + (
            " What has none of it stands at 1."
            if not all(s.profile.parameters and s.profile.state != 0 for s in shown)
            else ""
        )
        + (
            " Layers whose state cannot be carried are left out of the panel of states."
            if any(s.profile.state is None for s in shown)
            else ""
        )
        + _of(shown, chosen),
        figure,
    )
    cores = _cores(chosen)
    sizes: dict[str, Callable[[Setting], float | None]] = {
        "parameters": lambda s: s.profile.parameters,
        "state (numbers)": lambda s: s.profile.state,
        "symbols seen in training": lambda s: s.symbols,
    }
    for ax, (axis, size) in zip(axes, sizes.items(), strict=True):
        for core in cores:
            sized = [(s, n) for s in shown if s.profile.name == core and (n := size(s)) is not None]
            x = [max(1.0, n) for _, n in sized]
            y, low, high, says = [], [], [], []
            for s, _ in sized:
                p = s.profile
                bits = [seed.recalled_bits for seed in p.seeds]
                middle, ends = (
                    (float(p.span), p.span_interval)
                    if name == "span"
                    else (p.recalled_bits, (min(bits), max(bits)))
                )
                y.append(middle)
                low.append(float(ends[0]))
                high.append(float(ends[1]))
                says.append(
                    f"{s.description}: {name} {middle:.4g} ({ends[0]:.4g} to {ends[1]:.4g})"
                )
            style = _style(cores, core)
            # One broken line is one element of the page; as many lines would be as many.
            bars = [
                [(a, lo), (a, hi), (a, math.nan)] for a, lo, hi in zip(x, low, high, strict=True)
            ]
            path = np.array(bars).reshape(-1, 2).T
            ax.plot(*path, color=style["color"], lw=0.8, alpha=0.6)
            plot.points(ax, x, y, says, **style)
        ax.set_xlabel(axis)
        _log(ax.xaxis)
    axes[0].set_ylabel("span (symbols)" if name == "span" else "recalled bits")
    _legend(figure, cores, lines=False, shown=_cores(shown))
    return plot


def _target(chosen: Sequence[Setting]) -> Plot:
    shown = _some(chosen)
    cores = _cores(shown)
    figure, axes = _grid(2, height=max(2.4, 0.28 * len(cores) + 1.2))
    figure.set_figwidth(figure.get_figwidth() + _inches(cores))
    plot = Plot(
        "target",
        "Time to target",
        "Training until recall at every delay that was asked is at the threshold: the median over "
        "the seeds. Hollow: half of them or more were not there within the budget; drawn where "
        "that ended." + _of(shown, chosen),
        figure,
    )
    for ax, clock in zip(axes, ("seconds", "symbols"), strict=True):
        for reached in (True, False):
            x, y, says = [], [], []
            for s in shown:
                value = s.to_target(clock)
                if (value is not None) != reached:
                    continue
                ended = statistics.median(getattr(seed, clock) for seed in s.profile.seeds)
                x.append(max(1e-2, ended if value is None else value))
                y.append(cores.index(s.profile.name))
                amount = ended if value is None else value
                figure_text = f"{amount:,.0f}" if clock == "symbols" else f"{amount:,.2f}"
                reached_text = f"not in {figure_text}" if value is None else figure_text
                says.append(f"{s.description}: {reached_text} {clock}{s.reached}")
            face = {} if reached else {"mfc": "none"}
            plot.points(ax, x, y, says, ls="", marker="o", markersize=5, color=COLOURS[0], **face)
        ax.set(xlabel=f"{clock} of training", ylim=(len(cores) - 0.5, -0.5))
        _log(ax.xaxis)
        ax.set_yticks(range(len(cores)), [_label(c) for c in cores] if ax is axes[0] else [])
    return plot


def _lengths(chosen: Sequence[Setting]) -> Plot | None:
    best = [s for s in _best(chosen) if all(seed.lengths for seed in s.profile.seeds)]
    if not best:
        return None
    figure, (ax,) = _grid(1, width=5.4, height=3.6)
    plot = Plot(
        "lengths",
        "Beyond the training length",
        "Lowest recall over the delays in sequences of one to ten training windows; of each core "
        "the setting with the longest span, the mean over its seeds.",
        figure,
    )
    cores = _cores(chosen)
    for s in best:
        seeds = s.profile.seeds
        count = min(len(seed.lengths) for seed in seeds)
        x = [seeds[0].lengths[i][0] / seeds[0].lengths[0][0] for i in range(count)]
        y = [statistics.fmean(min(seed.lengths[i][1]) for seed in seeds) for i in range(count)]
        says = [
            f"{s.description}: {r:.2%} at {n:g} times the window" for n, r in zip(x, y, strict=True)
        ]
        plot.points(ax, x, y, says, **_line(cores, s.profile.name))
    ax.set(xlabel="length (training windows)", ylim=(0, 1.04), ylabel="lowest recall")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    _legend(figure, cores, lines=True, shown=_cores(best))
    return plot


def _cost(chosen: Sequence[Setting]) -> Plot:
    figure, (ax,) = _grid(1, width=5.4, height=3.6)
    shown = _some(chosen)
    plot = Plot(
        "cost",
        "Cost",
        "Right and low is dear to stream and slow to train. On one thread where a bench made it."
        + (
            " Layers whose state cannot be carried have no cost of streaming and are left out."
            if any(s.profile.microseconds is None for s in shown)
            else ""
        )
        + _of(shown, chosen),
        figure,
    )
    cores = _cores(chosen)
    for core in cores:
        timed = [
            (s.profile, s.profile.microseconds)
            for s in shown
            if s.profile.name == core and s.profile.microseconds is not None
        ]
        says = [
            f"{_short_name(p.name)}, hidden {p.hidden}: {microseconds:.0f} µs a streamed symbol, "
            f"{p.symbols_per_second:,.0f} symbols a second in training"
            for p, microseconds in timed
        ]
        x, y = [us for _, us in timed], [max(1.0, p.symbols_per_second) for p, _ in timed]
        plot.points(ax, x, y, says, **_style(cores, core))
    ax.set(xlabel="µs for one streamed symbol", ylabel="symbols a second in training")
    _log(ax.xaxis, ax.yaxis)
    _legend(figure, cores, lines=False, shown=_cores(shown))
    return plot


def _curves(chosen: Sequence[Setting]) -> Plot | None:
    best = [s for s in _best(chosen) if s.profile.seeds[0].curve]
    if not best:
        return None
    figure, axes = _grid(2)
    every = _every(_MOST_LOOKS, (2 * len(s.profile.seeds[0].curve) for s in best))
    plot = Plot(
        "training",
        "While they learn",
        "Of each core the setting with the longest span, its first seed, as seen on the way."
        + _thinned(every, "look"),
        figure,
    )
    cores = _cores(chosen)
    for s in best:
        p, curve = s.profile, s.profile.seeds[0].curve
        curve = curve[(len(curve) - 1) % every :: every]
        x = [max(1, symbols) for symbols, _, _ in curve]
        style = _line(cores, p.name) | {"markersize": 3}
        name = f"{_short_name(p.name)}, hidden {p.hidden}"
        says = [f"{name}: mean recall {r:.2%} after {n:,} symbols" for n, r, _ in curve]
        plot.points(axes[0], x, [r for _, r, _ in curve], says, **style)
        says = [f"{name}: span {span} after {n:,} symbols" for n, _, span in curve]
        plot.points(axes[1], x, [span for _, _, span in curve], says, **style)
    for ax in axes:
        ax.set_xlabel("symbols seen in training")
        _log(ax.xaxis)
    axes[0].set(ylabel="mean recall", ylim=(0, 1.04))
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[1].set_ylabel("span (symbols)")
    _legend(figure, cores, lines=True, shown=_cores(best))
    return plot


def plots(stored: Sequence[Stored], ink: str = "black") -> list[Plot]:
    """Every plot for which there are data; none where no cell has ended well."""
    chosen = settings(stored)
    if not chosen:
        return []
    with matplotlib.rc_context(_inked(ink)):
        drawn = [
            _recall(chosen),
            _growth(chosen, "span"),
            _growth(chosen, "bits"),
            _target(chosen),
            _lengths(chosen),
            _cost(chosen),
            _curves(chosen),
        ]
    return [plot for plot in drawn if plot is not None]


def figures(stored: Sequence[Stored]) -> dict[str, Figure]:
    """The same plots by name, black on white, for files."""
    return {plot.name: plot.figure for plot in plots(stored)}


def _inked(ink: str) -> Any:
    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    plain = {"axes.spines.top": False, "axes.spines.right": False}
    return STYLE | dict.fromkeys(names, ink) | plain


def svg(plot: Plot) -> str:
    """The figure as an element of the page: its own ids, its points with what they say."""
    out = io.BytesIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": f"echospan-{plot.name}"}):
        plot.figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ET.fromstring(out.getvalue())
    for meta in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(meta)
    by_id = {e.get("id"): e for e in root.iter() if e.get("id")}
    for e in root.iter():
        # In attributes alone: what a point says, and a name, stay as they are.
        for name, value in e.attrib.items():
            if name == "id":
                value = f"{plot.name}-{value}"
            elif name in ("d", "transform", "x", "y", "points"):
                value = re.sub(r"(\.\d\d)\d+", r"\1", value)
                value = re.sub(r"\s*([A-Zz])\s*", r"\1", value) if name == "d" else value
            else:
                value = re.sub(r"^#(?=\D)|(?<=url\(#)", lambda m: f"{m[0]}{plot.name}-", value)
            e.set(name, value.replace(_INK, "currentColor"))
    for gid, says in plot.says.items():
        uses = list(by_id[gid].iter(f"{{{_SVG}}}use")) if gid in by_id else []
        for use, text in zip(uses, says, strict=True):
            by_id[gid].set("style", use.attrib.pop("style", ""))
            ET.SubElement(use, f"{{{_SVG}}}title").text = plain(text)
    root.set("role", "img")
    root.set("aria-label", plot.title)
    root.attrib.pop("height")
    # No larger than it was drawn for, in points; a narrow page scrolls it.
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.set("style", f"max-width: {1.35 * width:.0f}px; min-width: {min(900, width):.0f}px")
    return re.sub(r">\s+<", "><", ET.tostring(root, encoding="unicode"))


NAMES = ("recall", "span", "bits", "target", "lengths", "cost", "training")
"""The names of all plots; some are left out where there are no data for them."""

_UNDRAWN = {
    "lengths": "There is no plot beyond the training length: no result has such sequences.",
    "training": "There are no learning curves: no result tells how it was on the way.",
}


def page(stored: Sequence[Stored], title: str = "What they remember") -> str:
    """The whole report: one HTML file that asks nothing of any network."""
    chosen = settings(stored)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_printable
    )
    template = environment.from_string(
        resources.files("echospan").joinpath("report.html").read_text(encoding="utf-8")
    )
    seen = [s.profile for s in stored if s.profile is not None]
    drawn = plots(stored, _INK)
    names = {plot.name for plot in drawn} or _UNDRAWN
    return template.render(
        title=title,
        plots=[(plot, svg(plot)) for plot in drawn],
        undrawn=[why for name, why in _UNDRAWN.items() if name not in names],
        rows=[_row(s) for s in chosen],
        notes=sorted({f"{p.name}: {p.note}" for p in seen if p.note}),
        failed=[s for s in stored if s.profile is None],
        cells=len(stored),
        thresholds=sorted({f"{p.at:.0%}" for p in seen}),
        versions=sorted({", ".join(f"{k} {v}" for k, v in p.versions.items()) for p in seen}),
        threads=sorted({p.threads for p in seen}),
        optimisers=sorted(
            {str(p.settings["optimiser"]) for p in seen if "optimiser" in p.settings}
        ),
    )


def _printable(value: Any) -> Any:
    """Return text that can be shown and encoded; what is markup already is left as it is."""
    markup = isinstance(value, Markup) or not isinstance(value, str)
    return value if markup else plain(value, _LONGEST_TEXT)


_LONGEST_TEXT = 100_000
"""Characters of a text of the page; a command with the longest alphabet of a bench has room."""


def _row(s: Setting) -> dict[str, Any]:
    """What stands in a line of the table: (what is sorted by, what is shown) by column."""
    p = s.profile
    low, high = p.span_interval
    bits = [seed.recalled_bits for seed in p.seeds]
    spread = f" ({min(bits):.1f}–{max(bits):.1f})" if len(bits) > 1 else ""
    seconds, budget = s.to_target("seconds"), s.cell.seconds or s.cell.symbols or 0
    blanks = [b for seed in p.seeds if (b := seed.blank_accuracy) is not None]
    return {
        "command": s.command,
        "cells": {
            "core": (p.name, p.name),
            "hidden": (p.hidden, f"{p.hidden:,}"),
            "parameters": (p.parameters, f"{p.parameters:,}"),
            "state": (-1, "–") if p.state is None else (p.state, f"{p.state:,}"),
            "delays": (p.max_delay, f"0–{p.max_delay}"),
            "budget": (budget, _budget(s.cell)),
            "seeds": (len(p.seeds), str(len(p.seeds))),
            "span": (
                p.span,
                f"{p.span}" + (f" ({low}–{high})" if (low, high) != (p.span,) * 2 else ""),
            ),
            "reads": (p.reads, str(p.reads)),
            "stores": (p.stores, str(p.stores)),
            "bits": (p.recalled_bits, f"{p.recalled_bits:.1f}{spread}"),
            "blanks": (
                statistics.fmean(blanks) if blanks else -1,
                f"{statistics.fmean(blanks):.2%}" if blanks else "–",
            ),
            "rising": (int(p.rising), "rising" if p.rising else ""),
            "target": (
                math.inf if seconds is None else seconds,
                ("–" if seconds is None else f"{seconds:.1f} s") + s.reached,
            ),
            "symbols/s": (p.symbols_per_second, f"{p.symbols_per_second:,.0f}"),
            "µs": (-1, "–")
            if p.microseconds is None
            else (p.microseconds, f"{p.microseconds:.0f}"),
        },
    }
