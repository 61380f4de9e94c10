"""Commands on grids of runs: bench, results, report."""

import contextlib
import csv
import dataclasses
import functools
import io
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from echospan.cli.flags import Whole
from echospan.cli.places import free
from echospan.errors import SettingError, nearest

if TYPE_CHECKING:
    from echospan.benching import CellResult, Moment
    from echospan.grids import Cell
    from echospan.store import Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Profile every combination of a grid, on all cores or a cluster; goes on where it stopped."""

    grids: tyro.conf.Positional[tuple[str, ...]] = ()
    """quick, size, architectures or length, or files in TOML; the flags below replace settings."""
    cores: tuple[str, ...] | None = None
    """Names of our cores, or package.module:factory of yours (a class will do)."""
    hidden: tuple[Whole, ...] | None = None
    """Units of each layer."""
    parameters: tuple[Whole, ...] | None = None
    """Numbers trained in each layer, within 2 %, instead of --hidden: a fair race."""
    state: tuple[Whole, ...] | None = None
    """Numbers carried from step to step, within 2 %, instead of --hidden: a fair race."""
    max_delay: tuple[int, ...] | None = None
    """The longest delays that are asked; 16 where left out."""
    symbols: tuple[Whole, ...] | None = None
    """Symbols of training, 2e6 where left out: the same work, and figures, everywhere."""
    seconds: tuple[float, ...] | None = None
    """All of a cell's time, on one thread, instead of --symbols."""
    seeds: tuple[int, ...] | None = None
    """Each is trained and measured anew; 0 where left out."""
    learning_rates: tuple[float, ...] | None = None
    """Adam's rates to try a short while each; the best goes on with the rest of the budget."""
    batch: int | None = None
    """Sequences a training step; 32 where left out."""
    alphabet: str | None = None
    """letters, digits, letters-digits, bits, or any string of distinct characters."""
    at: float | None = None
    """The recall that a span asks for; 0.99 where left out."""
    features: int | None = None
    """Width of a layer's input, where it does not say."""
    store: Path = Path("results.sqlite")
    """The file of results; made where it is not there. Several benches may share it."""
    workers: int | None = None
    """Cells at once, a thread each; as many as there are cores where left out."""
    engine: Literal["loky", "dask", "ray"] = "loky"
    """loky: processes on this machine. dask, ray: a cluster, or one begun here."""
    address: str | None = None
    """Of the cluster that is there: tcp://host:8786 (dask), ray://host:10001 (ray)."""
    retry_failed: bool = False
    """Run those that failed once more."""
    json: bool = False
    """Print each result of the grid as a line of JSON, and nothing else."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """List, filter, compare and export the results of a bench."""

    store: tyro.conf.Positional[Path]
    """The file that echospan bench made."""
    cores: tuple[str, ...] | None = None
    """Only these."""
    hidden: tuple[int, ...] | None = None
    """Only these."""
    max_delay: tuple[int, ...] | None = None
    """Only these."""
    seeds: tuple[int, ...] | None = None
    """Only these."""
    status: Literal["done", "failed"] | None = None
    """Only those that ended so."""
    each: bool = False
    """A line for each cell, not one for all seeds of a setting."""
    compare: tuple[str, str] | None = None
    """Two cores: how they differ, seed by seed, where all else is equal."""
    csv: Path | None = None
    """Write the rows there, with all columns."""
    jsonl: Path | None = None
    """Write the results there, whole, a line of JSON each."""
    overwrite: bool = False
    """Replace the files that are there."""
    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Make one page of all results, which needs nothing beside it."""

    store: tyro.conf.Positional[Path]
    """The file that echospan bench made."""
    out: tyro.conf.Positional[Path] = dataclasses.field(default=Path("report.html"))
    """The page."""
    figures: Path | None = None
    """A folder for the plots, as SVG and PNG files."""
    title: str = "What they remember"
    """Stands over the page."""
    overwrite: bool = False
    """Replace the files that are there."""


_FLAGS = (
    *("cores", "hidden", "parameters", "state", "max_delay", "symbols", "seconds", "seeds"),
    *("learning_rates", "batch", "alphabet", "at", "features"),
)


def _cells(command: Bench) -> list["Cell"]:
    from echospan.grids import Grid, cells_of, changed, read, shipped

    flags = {n: getattr(command, n) for n in _FLAGS if getattr(command, n) is not None}
    if not command.grids:
        if "cores" not in flags:
            raise SettingError(
                "no grid is named",
                f"name {', '.join(shipped())}, a file in TOML, or cores with --cores gru lru",
            )
        grids = [Grid(**flags)]
    else:
        there, grids = shipped(), []
        for name in command.grids:
            path = there.get(name, Path(name))
            try:
                known = path.exists()
            except (OSError, ValueError):  # a name that no file can have
                known = False
            if not known:
                raise SettingError(
                    f"there is no grid {name!r}",
                    nearest(name, there) + f"name {', '.join(there)}, or a file in TOML",
                )
            grids += [changed(grid, flags) for grid in read(path)]
    with contextlib.redirect_stdout(sys.stderr):  # what a layer's module prints is no answer
        return cells_of(grids)


def bench(command: Bench) -> int:
    """Exit 0: every cell has a profile; 1: some failed."""
    from echospan.engines import look
    from echospan.store import Store

    if command.workers is not None and command.workers < 1:
        raise SettingError(f"--workers is {command.workers}", "use 1 or more")
    if command.address is not None and command.engine == "loky":
        raise SettingError(
            f"--address is {command.address}, and loky runs on this machine alone",
            "use --engine dask or --engine ray with it",
        )
    look(command.engine)  # before a file is made
    cells = _cells(command)
    with Store(command.store) as store:
        left = store.missing(cells, again=command.retry_failed)
        told = _Told(cells, len(left), command, store)
        if command.json:
            told.print_stored(told.keys - {c.key for c in left})
        stopped = _run(command, store, left, told) if left else 0
        rows = [r for r in store.rows() if r["key"] in told.keys]
        if not command.json:
            _show(rows, each=False)
        failed = told.sum_up(rows, stopped)
    return 128 + stopped if stopped else 1 if failed else 0


def _run(command: Bench, store: "Store", left: list["Cell"], told: "_Told") -> int:
    """Run what is left until all of it has ended, here or in another bench; a signal's number."""
    from echospan.benching import bench as run
    from echospan.signals import interrupted_by

    with (
        interrupted_by(signal.SIGINT, signal.SIGTERM) as stop,
        store.alive(),
        told.watching() as (on_progress, on_result),
    ):
        while left and not stop:
            for result in run(
                left,
                engine=command.engine,
                workers=command.workers,
                address=command.address,
                mine=functools.partial(store.claim, again=command.retry_failed),
                stop=lambda: bool(stop),
                on_progress=on_progress,
            ):
                store.add(result)
                on_result(result)
            # What another bench has claimed is waited for: it may yet fail to end it.
            before, left = left, store.missing(left)
            if command.json:
                ended = {c.key for c in before} - {c.key for c in left}
                told.print_stored(ended - told.printed)
            if left and not stop:
                time.sleep(0.5)
    return stop[0] if stop else 0


class _Told:
    """What a person, a pipe or a program hears of a bench."""

    def __init__(self, cells: list["Cell"], left: int, command: Bench, store: "Store") -> None:
        self.keys = {cell.key for cell in cells}
        self.command, self.store = command, store
        self.total, self.before = len(cells), len(cells) - left
        self.began, self.ended, self.failed = time.perf_counter(), 0, 0
        self.running: dict[str, Moment] = {}
        self.printed: set[str] = set()

    def print_stored(self, keys: set[str]) -> None:
        from echospan.store import as_json

        self.printed |= keys
        for stored in self.store.stored(keys):
            print(as_json(stored), flush=True)

    def state(self) -> str:
        done = self.before + self.ended
        said = f"{done} of {self.total} cells"
        if self.failed:
            said += f", {self.failed} failed"
        if self.ended and done < self.total:
            # Those that run are half done, more or less.
            share = self.ended + len(self.running) / 2
            rest = (self.total - self.before - share) / share
            minutes, seconds = divmod(int(rest * (time.perf_counter() - self.began)), 60)
            said += f", about {f'{minutes} min ' if minutes else ''}{seconds} s to go"
        return said

    def sum_up(self, rows: list[dict[str, Any]], stopped: int) -> int:
        """Say how it ended; the number of cells that failed."""
        seconds = time.perf_counter() - self.began
        failed: int = sum(r["status"] == "failed" for r in rows)
        said = (
            f"{len(rows)} of {self.total} cells"
            + (f", {failed} failed" if failed else "")
            + f", {self.ended} of them run in {seconds:.1f} s: {self.command.store}"
        )
        print(said + ("; the same command goes on" if stopped else ""), file=sys.stderr)
        return failed

    def heard(self, moment: "Moment") -> None:
        self.running[moment.cell.key] = moment
        if moment.lost:
            del self.running[moment.cell.key]

    def over(self, result: "CellResult") -> str:
        self.running.pop(result.cell.key, None)
        self.ended += 1
        if result.profile is None:
            self.failed += 1
            return f"{result.cell.name}: failed, {result.error}"
        return f"{result.cell.name}: {result.profile.verdict}"

    @contextlib.contextmanager
    def watching(
        self,
    ) -> Iterator[tuple[Callable[["Moment"], None], Callable[["CellResult"], None]]]:
        """A live table on a terminal; in a pipe a line for each cell that begins, ends, is lost."""
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)

        def finish(result: "CellResult") -> str:
            said = self.over(result)
            if self.command.json:
                self.print_stored({result.cell.key})
            return said

        if not console.is_terminal:

            def line(moment: "Moment") -> None:
                self.heard(moment)
                if moment.lost:
                    print(f"{moment.cell.name}: begun again, {moment.lost}", file=sys.stderr)

            def end(result: "CellResult") -> None:
                said = finish(result)
                print(f"{said} ({self.state()})", file=sys.stderr, flush=True)

            yield line, end
            return
        # The answers are standard output's: they are no part of the picture.
        with Live(
            get_renderable=self.table, console=console, refresh_per_second=4, redirect_stdout=False
        ) as live:

            def say(text: str) -> None:
                live.console.print(text, markup=False, highlight=False, soft_wrap=True)

            def draw(moment: "Moment") -> None:
                self.heard(moment)
                if moment.lost:
                    say(f"{moment.cell.name}: begun again, {moment.lost}")

            def add(result: "CellResult") -> None:
                said = finish(result)
                if result.profile is None:
                    say(said)

            yield draw, add

    def table(self) -> Any:
        """The cells that run now, and how many there are in all."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table(box=None, padding=(0, 1, 0, 0), title=self.state(), title_justify="left")
        for heading in ("running", "", "recall", "span so far"):
            table.add_column(heading, justify="left" if heading in ("running", "") else "right")
        for moment in list(self.running.values()):
            table.add_row(
                moment.cell.name + (f", try {moment.tries}" if moment.tries > 1 else ""),
                ProgressBar(total=1.0, completed=moment.used, width=20),
                f"{moment.recall:.1%}",
                str(moment.span) if moment.span >= 0 else "–",
            )
        return table


def results(command: Results) -> int:
    """Exit 0, also where nothing fits the filters."""
    from echospan.checkpoint import write_whole
    from echospan.store import COLUMNS, Store, as_json, differences

    for path in (command.csv, command.jsonl):
        if path is not None:
            _beside(command.store, path)
            free(path, command.overwrite)
    with Store(command.store, write=False) as store:
        rows = _chosen(store.rows(), command)
        compared = differences(rows, *command.compare) if command.compare else []
        if command.jsonl is not None:
            lines = (as_json(s) + "\n" for s in store.stored([r["key"] for r in rows]))
            write_whole(command.jsonl, "".join(lines).encode())
    if command.csv is not None:
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(command.csv, out.getvalue().encode())
    if command.compare is not None:
        if command.json:
            print(json.dumps({"differences": compared}))
        else:
            for d in compared:
                print(
                    f"{d['of']}: {command.compare[0]} {d['mean']:+.2f} beside {command.compare[1]}"
                    f" ({_interval(d)}{d['pairs']} pairs, {d['more']} more, {d['less']} less)"
                )
    elif command.json:
        print(json.dumps({"store": str(command.store), "results": rows}))
    else:
        _show(rows, each=command.each)
    return 0


def _interval(d: dict[str, Any]) -> str:
    return "" if d["low"] is None else f"95 % {d['low']:+.2f} to {d['high']:+.2f}; "


def _beside(store: Path, path: Path) -> None:
    """Refuse to write over what is read."""
    if store.exists() and path.exists() and path.samefile(store):
        raise SettingError(f"{path} is the file of results itself", "name another")


def _chosen(rows: list[dict[str, Any]], command: Results) -> list[dict[str, Any]]:
    wanted = {
        "core": command.cores,
        "hidden": command.hidden,
        "max_delay": command.max_delay,
        "seed": command.seeds,
        "status": command.status and (command.status,),
    }
    return [r for r in rows if all(v is None or r[n] in v for n, v in wanted.items())]


def _show(rows: list[dict[str, Any]], *, each: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from echospan.store import combined

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    headings = ("core", "hidden", "params", "state", "delays", "seeds", "span", "bits", "µs", "")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("core", "") else "right")
    done = [r for r in rows if r["status"] == "done"]
    for group in [[r] for r in done] if each else combined(done):
        first = group[0]
        spans = sorted(r["span"] for r in group)
        low, high = min(spans), max(r["span_at_most"] for r in group)
        span = spans[(len(spans) - 1) // 2]
        bits = sum(r["bits"] for r in group) / len(group)
        table.add_row(
            first["core"],
            str(first["hidden"]),
            f"{first['parameters']:,}",
            "–" if first["state"] is None else f"{first['state']:,}",
            f"0–{first['max_delay']}",
            str(first["seed"]) if each else str(len(group)),
            f"{span}" + (f" ({low}–{high})" if (low, high) != (span, span) else ""),
            f"{bits:.1f}",
            "–"
            if first["microseconds"] is None
            else f"{sorted(r['microseconds'] for r in group)[(len(group) - 1) // 2]:.0f}",
            "rising" if any(r["rising"] for r in group) else "",
        )
    console = Console()
    if done:
        console.print(table)
    if any(r["state"] is None for r in done):
        console.print(
            "–: no state can be carried, and past inputs are read again at each step, at a cost "
            "that is not counted"
        )
    for r in rows:
        if r["status"] == "failed":
            size = "" if r["hidden"] is None else f" {r['hidden']}"
            console.print(
                f"{r['core']}{size}, delays 0 to {r['max_delay']}, seed {r['seed']}: failed, "
                f"{r['error']}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def report(command: Report) -> int:
    """Exit 0 once all files are written."""
    from echospan.checkpoint import write_whole
    from echospan.plots import picture
    from echospan.report import figures, page
    from echospan.store import Store

    _beside(command.store, command.out)
    free(command.out, command.overwrite)
    if command.figures is not None and command.figures.exists() and not command.figures.is_dir():
        raise SettingError(f"{command.figures} is no folder", "name another with --figures")
    with Store(command.store, write=False) as store:
        stored = list(store.stored())
    if not stored:
        raise SettingError(f"{command.store} holds no results", "run echospan bench first")
    if command.figures is not None:
        drawn = figures(stored)
        command.figures.mkdir(parents=True, exist_ok=True)
        paths = {
            command.figures / f"{name}.{kind}": (figure, kind)
            for name, figure in drawn.items()
            for kind in ("svg", "png")
        }
        for path in paths:
            free(path, command.overwrite)
        for path, (figure, kind) in paths.items():
            write_whole(path, picture(figure, kind))
    write_whole(command.out, page(stored, command.title).encode())
    print(f"{command.out}: {len(stored)} results", file=sys.stderr)
    return 0
