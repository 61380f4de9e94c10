"""Commands on grids of runs: bench, results, report."""

import contextlib
import csv
import dataclasses
import errno
import functools
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from echospan.cli.flags import Whole
from echospan.cli.places import free
from echospan.errors import SettingError, nearest, option
from echospan.text import literal, plain, shown

if TYPE_CHECKING:
    from echospan.benching import CellResult, Moment
    from echospan.grids import Cell
    from echospan.store import Store, Stored


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
                    f"there is no grid {shown(name)}",
                    nearest(name[:100], there) + f"name {', '.join(there)}, or a file in TOML",
                )
            grids += [changed(grid, flags) for grid in read(path)]
    with contextlib.redirect_stdout(sys.stderr):  # what a layer's module prints is no answer
        return cells_of(grids)


def bench(command: Bench) -> int:
    """Run the cells that have no result, and show all results of the grid.

    Returns 0 if every cell has a profile, 1 if some failed, 128 and the number of a signal that
    ended it. A reader of standard output that leaves ends the printing and not the bench.
    """
    from echospan.engines import look
    from echospan.store import Store

    if command.workers is not None and command.workers < 1:
        raise SettingError(f"{option('workers')} is {command.workers}", "use 1 or more")
    if command.address is not None and command.engine == "loky":
        raise SettingError(
            f"{option('address')} is {plain(command.address)}, and loky runs on this machine alone",
            f"use {option('engine', 'dask')} or {option('engine', 'ray')} with it",
        )
    look(command.engine)  # before a file is made
    cells = _cells(command)
    with Store(command.store) as store:
        left = store.missing(cells, again=command.retry_failed)
        progress = _Progress(cells, len(left), command, store)
        if command.json:
            progress.print_stored(progress.keys - {c.key for c in left})
        stopped = _run(command, store, left, progress) if left else 0
        stored = store.verify(cells)
        if not command.json:
            progress.print_out(lambda: _show(stored, each=False))
        failed = progress.sum_up(stored, stopped)
    if progress.unwritten is not None:
        raise SettingError(
            f"standard output could not be written ({progress.unwritten.strerror})",
            f"the results are in {command.store}: the same command prints them",
        )
    return 128 + stopped if stopped else 1 if failed else 0


def _run(command: Bench, store: "Store", left: list["Cell"], progress: "_Progress") -> int:
    """Run what is left until all of it has ended, here or in another bench; a signal's number."""
    from echospan.benching import bench as run
    from echospan.signals import interrupted_by

    with (
        interrupted_by(signal.SIGINT, signal.SIGTERM) as stop,
        store.session(),
        progress.watching() as (on_progress, on_result),
    ):
        checked = waiting = time.monotonic()

        def stopped() -> bool:
            nonlocal checked
            if time.monotonic() - checked >= _CHECK:
                store.check()
                checked = time.monotonic()
            return bool(stop)

        while left and not stop:
            for result in run(
                left,
                engine=command.engine,
                workers=command.workers,
                address=command.address,
                mine=functools.partial(store.claim, again=command.retry_failed),
                stop=stopped,
                on_progress=on_progress,
            ):
                store.add(result)
                on_result(result)
                waiting = time.monotonic()
            # What another bench has claimed is waited for: it may yet fail to end it.
            before, left = left, store.missing(left)
            if command.json:
                ended = {c.key for c in before} - {c.key for c in left}
                progress.print_stored(ended - progress.printed)
            if left and not stopped():
                if time.monotonic() >= waiting:
                    progress.print_waiting(len(left))
                    waiting = time.monotonic() + _WAITING
                time.sleep(0.5)
    return stop[0] if stop else 0


_CHECK = 1.0
"""Seconds after which a bench looks whether its file is still there."""

_WAITING = 60.0
"""Seconds after which a bench says again that it waits for cells of another one."""


class _Progress:
    """What a bench prints on the way, and at its end."""

    def __init__(self, cells: list["Cell"], left: int, command: Bench, store: "Store") -> None:
        self.keys = {cell.key for cell in cells}
        self.command, self.store = command, store
        self.total, self.before = len(cells), len(cells) - left
        self.began, self.ended, self.failed = time.perf_counter(), 0, 0
        self.running: dict[str, Moment] = {}
        self.printed: set[str] = set()
        self.reader_left = False
        self.unwritten: OSError | None = None
        """Why standard output could not be written, other than that its reader has left."""

    def print_out(self, write: Callable[[], None]) -> None:
        """Print to standard output, as long as that can be written."""
        if self.reader_left or self.unwritten is not None:
            return
        try:
            if sys.stdout is None:  # it was closed when the program began
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            write()
            sys.stdout.flush()
        except OSError as e:
            # What is buffered goes nowhere, also at the end of the program.
            with contextlib.suppress(OSError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(e, BrokenPipeError):
                self.reader_left = True
                self.print_line("nobody reads standard output any more: the bench goes on")
            else:
                self.unwritten = e

    def print_line(self, line: str) -> None:
        """Print a message to standard error; one that cannot be written ends no bench."""
        if sys.stderr is not None:
            with contextlib.suppress(OSError):
                print(plain(line), file=sys.stderr, flush=True)

    def print_stored(self, keys: set[str]) -> None:
        from echospan.store import as_json

        self.printed |= keys
        if not self.reader_left:
            for stored in self.store.stored(keys):
                self.print_out(functools.partial(print, as_json(stored)))

    def print_waiting(self, left: int) -> None:
        self.print_line(f"waiting for {left} cells that another bench has claimed")

    def state(self) -> str:
        done = self.before + self.ended
        line = f"{done} of {self.total} cells"
        if self.failed:
            line += f", {self.failed} failed"
        if self.ended and done < self.total:
            # Those that run are half done, more or less.
            share = self.ended + len(self.running) / 2
            rest = (self.total - self.before - share) / share
            minutes, seconds = divmod(int(rest * (time.perf_counter() - self.began)), 60)
            line += f", about {f'{minutes} min ' if minutes else ''}{seconds} s to go"
        return line

    def sum_up(self, stored: list["Stored"], stopped: int) -> int:
        """Print how it ended; return the number of cells that failed."""
        seconds = time.perf_counter() - self.began
        failed = sum(s.profile is None for s in stored)
        line = (
            f"{len(stored)} of {self.total} cells"
            + (f", {failed} failed" if failed else "")
            + f", {self.ended} of them run in {seconds:.1f} s: {self.command.store}"
        )
        self.print_line(line + ("; the same command goes on" if stopped else ""))
        return failed

    def update(self, moment: "Moment") -> str | None:
        """Take the progress of a cell; return a line for it if its worker was lost."""
        if not moment.lost:
            self.running[moment.cell.key] = moment
            return None
        self.running.pop(moment.cell.key, None)
        return f"{moment.cell.name}: begun again, {moment.lost}"

    def finish(self, result: "CellResult") -> str:
        """Take the result of a cell, print it if JSON is asked for; return a line for it."""
        self.running.pop(result.cell.key, None)
        self.ended += 1
        if self.command.json:
            self.print_stored({result.cell.key})
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
        if not console.is_terminal:

            def line(moment: "Moment") -> None:
                if lost := self.update(moment):
                    self.print_line(lost)

            def end(result: "CellResult") -> None:
                self.print_line(f"{self.finish(result)} ({self.state()})")

            yield line, end
            return
        # The answers are standard output's: they are no part of the picture.
        with Live(
            get_renderable=self.table, console=console, refresh_per_second=4, redirect_stdout=False
        ) as live:

            def draw(moment: "Moment") -> None:
                if lost := self.update(moment):
                    live.console.print(literal(lost), soft_wrap=True)

            def add(result: "CellResult") -> None:
                line = self.finish(result)
                if result.profile is None:
                    live.console.print(literal(line), soft_wrap=True)

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
                literal(moment.cell.name + (f", try {moment.tries}" if moment.tries > 1 else "")),
                ProgressBar(total=1.0, completed=moment.used, width=20),
                f"{moment.recall:.1%}",
                str(moment.span) if moment.span >= 0 else "–",
            )
        return table


def results(command: Results) -> int:
    """Exit 0, also where nothing fits the filters."""
    from echospan.checkpoint import write_whole
    from echospan.store import COLUMNS, Store, as_json, differences

    _distinct(command.store, [(option("csv"), command.csv), (option("jsonl"), command.jsonl)])
    for path in (command.csv, command.jsonl):
        if path is not None:
            free(path, command.overwrite)
    with Store(command.store, write=False) as store:
        stored = _chosen(store.stored(), command)
    rows = [s.row for s in stored]
    compared = differences(rows, *command.compare) if command.compare else []
    files: dict[Path, str] = {}
    if command.jsonl is not None:
        files[command.jsonl] = "".join(as_json(s) + "\n" for s in stored)
    if command.csv is not None:
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _spreadsheet(v) for name, v in row.items()} for row in rows)
        files[command.csv] = out.getvalue()
    for path, text in files.items():
        write_whole(path, text.encode())
    if command.compare is not None:
        if command.json:
            print(json.dumps({"differences": compared}))
        else:
            for d in compared:
                print(
                    f"{d['of']}: {plain(command.compare[0])} {d['mean']:+.2f} beside "
                    f"{plain(command.compare[1])} "
                    f"({_interval(d)}{d['pairs']} pairs, {d['more']} more, {d['less']} less)"
                )
    elif command.json:
        print(json.dumps({"store": str(command.store), "results": rows}))
    else:
        _show(stored, each=command.each)
    return 0


def _interval(d: dict[str, Any]) -> str:
    return "" if d["low"] is None else f"95 % {d['low']:+.2f} to {d['high']:+.2f}; "


_FORMULA = re.compile(r"(^|[;|])(\s*[=+\-@＝＋－＠])")
"""The beginning of a formula in a cell, also where a program splits cells at semicolons."""


def _spreadsheet(value: Any) -> Any:
    """Return a value for CSV; text becomes text to a spreadsheet too, which runs formulas."""
    return _FORMULA.sub(r"\1'\2", plain(value, 20_000)) if isinstance(value, str) else value


def _distinct(store: Path, outputs: Iterable[tuple[str, Path | None]]) -> None:
    """Refuse outputs that would replace the file of results, what SQLite has beside it, or each
    other, by whatever path or link.

    Args:
        store: The file of results.
        outputs: What is written: its name in a message, and its path, None where left out.
    """
    beside = [store.with_name(store.name + end) for end in ("-journal", "-wal", "-shm")]
    written: list[tuple[str, Path]] = []
    for name, path in outputs:
        if path is None:
            continue
        if any(_same(path, other) for other in (store, *beside)):
            raise SettingError(f"{path} is the file of results itself", "name another")
        for other_name, other in written:
            if _same(path, other):
                raise SettingError(
                    f"{other_name} and {name} are one file, {path}",
                    "give each output a file of its own",
                )
        written.append((name, path))


def _same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        if one.samefile(other):
            return True
    return os.path.realpath(one) == os.path.realpath(other)


def _chosen(stored: list["Stored"], command: Results) -> list["Stored"]:
    return [
        s
        for s in stored
        if (command.cores is None or s.cell.core in command.cores)
        and (command.hidden is None or s.hidden in command.hidden)
        and (command.max_delay is None or s.cell.max_delay in command.max_delay)
        and (command.seeds is None or s.cell.seed in command.seeds)
        and (command.status is None or s.status == command.status)
    ]


def _show(stored: list["Stored"], *, each: bool) -> None:
    """Print a table of profiles, a line for all seeds of a setting or for each; then failures."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from echospan.store import by_setting

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    headings = ("core", "hidden", "params", "state", "delays", "seeds", "span", "bits", "µs", "")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("core", "") else "right")
    groups = [[s] for s in stored] if each else [stored]
    profiles = [profile for group in groups for _, profile in by_setting(group)]
    for profile in profiles:
        row = profile.row() | {
            "hidden": str(profile.hidden),
            "delays": f"0–{profile.max_delay}",
            "seeds": str(profile.seeds[0].seed if each else len(profile.seeds)),
        }
        table.add_row(*(literal(row[heading]) for heading in headings))
    console = Console()
    if profiles:
        console.print(table)
    if any(profile.state is None for profile in profiles):
        console.print(
            "–: no state can be carried, and past inputs are read again at each step, at a cost "
            "that is not counted"
        )
    for s in stored:
        if s.profile is None:
            size = "" if s.hidden is None else f" {s.hidden}"
            line = (
                f"{s.cell.core}{size}, delays 0 to {s.cell.max_delay}, seed {s.cell.seed}: failed, "
                f"{s.error}"
            )
            console.print(literal(line), soft_wrap=True)


_KINDS = ("svg", "png")
"""The kinds of files that figures are written as."""


def report(command: Report) -> int:
    """Exit 0 once all files are written."""
    from echospan.checkpoint import write_whole
    from echospan.plots import picture
    from echospan.report import NAMES, figures, page
    from echospan.store import Store

    folder = command.figures
    pictures = [] if folder is None else [folder / f"{n}.{k}" for n in NAMES for k in _KINDS]
    _distinct(
        command.store,
        [("the page", command.out), *((f"the figure {path.name}", path) for path in pictures)],
    )
    free(command.out, command.overwrite)
    if folder is not None and folder.exists():
        if not folder.is_dir():
            raise SettingError(f"{folder} is no folder", f"name another with {option('figures')}")
        for path in pictures:
            free(path, command.overwrite)
    with Store(command.store, write=False) as store:
        stored = store.stored()
    if not stored:
        raise SettingError(f"{command.store} holds no results", "run echospan bench first")
    files = {command.out: page(stored, command.title).encode()}
    if folder is not None:
        for name, figure in figures(stored).items():
            files |= {folder / f"{name}.{kind}": picture(figure, kind) for kind in _KINDS}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise SettingError(
                f"{folder} cannot be made ({e.strerror})", f"name another with {option('figures')}"
            ) from None
    for path, data in files.items():
        write_whole(path, data)
    print(plain(f"{command.out}: {len(stored)} results"), file=sys.stderr)
    return 0
