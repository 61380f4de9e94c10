"""Commands on runs: train, evaluate, echo."""

import contextlib
import dataclasses
import json
import math
import operator
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import tyro

from echospan import shipping
from echospan.cli.places import NAME_ONE, apart, there
from echospan.errors import RunError, SettingError
from echospan.random_streams import Purpose, check_seed, python_random
from echospan.recipes import ModelConfig, Recipe, TrainingConfig, highest_target
from echospan.signals import interrupted_by, raised_by
from echospan.text import literal, percent, plain
from echospan.validation import share, whole

# torch takes over a second to import: only what needs it does so, inside.
if TYPE_CHECKING:
    from echospan.checkpoint import Snapshot
    from echospan.evaluation import Evaluation
    from echospan.model import EchoModel
    from echospan.storage.folder import ClaimedFolder
    from echospan.streaming import Stream
    from echospan.training import Progress, TrainingResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model, grade it, and leave a run folder."""

    model: ModelConfig
    training: TrainingConfig
    out: Path
    """The run folder to make."""
    overwrite: bool = False
    """Replace the run that is there."""
    resume: bool = False
    """Go on from the last snapshot of a run that was stopped, with the same settings."""
    snapshot_seconds: float = 20.0
    """How often a snapshot is kept while it trains; 0 for never."""
    stream: int = 100_000
    """Symbols of unbroken stream to count errors on; 0 for none."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure runs on fresh data: recall by delay, blanks, span, bits, stream errors."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """The run folders; several make one table, a line each."""
    model: tuple[str, ...] = ()
    """Models that are shipped, beside the runs: fixed, variable, bits."""
    trials: int = 20_000
    """Answers at every delay, at least."""
    stream: int = 0
    """Symbols of unbroken stream to count errors on; 0 for none."""
    seed: int = 1
    """Names the random stream."""
    target: float = 0.99
    """Exit 0 where every delay asked for, and the blanks, have this as their interval's lower end,
    1 otherwise."""
    device: str = "cpu"
    """Where it is measured: cpu, cuda, cuda:1, …"""
    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Echo:
    """Say each symbol again, `delay` symbols later; line ends go through where they stand."""

    run: tyro.conf.Positional[str | None] = None
    """The run folder; left out where --model names a model that is shipped."""
    text: tyro.conf.Positional[str | None] = None
    """What to read; standard input where it is left out."""
    model: str | None = None
    """One that is shipped, instead of a run folder: fixed, variable or bits."""
    delay: int | None = None
    """How many symbols later; the longest trained where it is left out."""
    other: Literal["fail", "skip", "keep"] = "fail"
    """Characters that are no symbols: fail, skip them, or keep them in the answer unechoed."""
    state: Path | None = None
    """A file to go on from, if it is there. The state is written to it after the answers, at least
    every 16,384 symbols and half a second, and in the end: however the command ends, the answers
    that were printed and are not in the file are no more than that."""


def _measure(
    model: "EchoModel",
    stream: int,
    trials: int,
    seed: int,
    window: int,
    deadline: float = math.inf,
) -> tuple["Evaluation", dict[str, Any]]:
    """Measure recall first; past `deadline` (`time.perf_counter`) the rest is left out."""
    from echospan import homework
    from echospan.evaluation import evaluate as measured
    from echospan.evaluation import length_recall, stream_errors

    stream, trials = whole("stream", stream), whole("trials", trials, 1)
    evaluation = measured(model, trials=trials, seed=seed)
    streamed = None
    if stream and time.perf_counter() < deadline:
        symbols, errors = stream_errors(model, stream, seed=seed)
        streamed = {"symbols": symbols, "errors": errors}
    lengths = length_recall(model, window, trials=trials, seed=seed, deadline=deadline)
    before = random.getstate()
    try:
        # The assignment's graders draw from Python's global generator.
        random.setstate(python_random(Purpose.GRADER, seed).getstate())
        grade = homework.grade(model)
    finally:
        random.setstate(before)
    return evaluation, {"stream": streamed, "lengths": lengths, "assignment_grader": grade}


_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_NEVER = 1e12
"""Seconds between snapshots where none is wanted but the one at the end."""

_MEASURING_SECONDS = 60.0
"""Seconds of measuring, or the training's budget where that is longer, after which the stream and
longer sequences are not begun any more: long delays take minutes."""


def train(command: Train) -> int:
    """Exit 0: the target is reached; 1: it is not. Under torchrun, the first process tells."""
    from echospan.parallel import joined, told_by_torchrun
    from echospan.training import train as trained

    whole("stream", command.stream)
    if not 0 <= command.snapshot_seconds < float("inf"):
        raise SettingError(
            f"--snapshot-seconds is {command.snapshot_seconds}", "use 0 for never, or more"
        )
    if command.resume and command.overwrite:
        raise SettingError(
            "--resume goes on with what is there, and --overwrite replaces it", "give one of them"
        )
    recipe = Recipe(model=command.model, training=command.training)
    with contextlib.ExitStack() as claimed:
        # Under torchrun only the first process writes, and so only it claims the folder.
        first = told_by_torchrun().first
        output = claimed.enter_context(_claimed(command, recipe)) if first else None
        # From here on a signal waits until what was trained is saved.
        with contextlib.ExitStack() as deferred:
            with joined(recipe.training.device) as group:
                stop = deferred.enter_context(interrupted_by(*_SIGNALS, patient=group.size > 1))
                watching = (
                    _watching(command.out.name, recipe) if first else contextlib.nullcontext()
                )
                with watching as on_progress:
                    result = trained(
                        recipe,
                        on_progress,
                        on_snapshot=output.write_snapshot if output else lambda _: None,
                        snapshot_seconds=command.snapshot_seconds or _NEVER,
                        resume=group.told(output.last if output else None),
                        group=group,
                    )
            if output is None:
                return 0
            output.write_trained(result)
        if stop and not result.interrupted:
            return output.not_measured()
        if result.interrupted and group.size > 1:
            # torchrun repeats the terminal's signal; what was reached is measured all the same.
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)
        result.model.to(group.device(recipe.training.device))
        try:
            with raised_by(*_SIGNALS):
                report, evaluation = _report(command, recipe, result)
        except KeyboardInterrupt:
            return output.not_measured()
        with interrupted_by(*_SIGNALS):
            output.write_measured(result, report, evaluation)
    _show(report, command.json)
    if result.interrupted:
        return 130
    return 0 if report["reached"] else 1


def _report(
    command: Train, recipe: Recipe, result: "TrainingResult"
) -> tuple[dict[str, Any], "Evaluation"]:
    """Measure what was trained; return what `evaluation.json` says of it, and recall."""
    from echospan.evaluation import as_report
    from echospan.memory import memory_checked

    limit = max(_MEASURING_SECONDS, recipe.training.seconds)
    deadline = time.perf_counter() + limit
    with _measuring(command.out.name):
        try:
            with memory_checked():
                evaluation, more = _measure(
                    result.model, command.stream, 50_000, 1, recipe.window, deadline
                )
        except SettingError as e:
            raise RunError(
                f"{command.out} is trained and saved, and cannot be measured ({e.fact})",
                "measure it with fewer --trials: echospan evaluate",
            ) from None
    if command.stream and more["stream"] is None:
        print(
            f"echospan: recall took {limit:.0f} seconds and more, so the stream is not measured; "
            f"measure it with echospan evaluate {command.out} --stream {command.stream}",
            file=sys.stderr,
        )
    report = {
        "run": str(command.out),
        "seed": recipe.training.seed,
        "seconds_to_target": result.seconds_to_target,
        "seconds": result.seconds,
        "steps": result.steps,
        "symbols": result.symbols,
        "settings": dataclasses.asdict(recipe),
    }
    return report | as_report(result.model, evaluation, recipe.training.target, more), evaluation


class _Output:
    """The run folder of a training, claimed by this process."""

    def __init__(
        self, run: "ClaimedFolder", command: Train, recipe: Recipe, last: "Snapshot | None"
    ) -> None:
        self.run, self.command, self.recipe, self.last = run, command, recipe, last
        self.first = last is None
        """Whether the next snapshot is the first one of this training."""
        self.refused = False
        """Whether the last snapshot could not be written."""
        self.trained: dict[str, str] = {}

    def write_snapshot(self, snapshot: "Snapshot") -> None:
        """Write a snapshot; where the disk refuses it, say so and go on with the training."""
        from echospan.checkpoint import write_snapshot

        try:
            write_snapshot(self.run, snapshot, self.first)
        except RunError as e:
            if not self.refused:
                print(f"echospan: {e.fact}; the training goes on, {self._left()}", file=sys.stderr)
            self.refused = True
            return
        if self.refused:
            print("echospan: snapshots are written again", file=sys.stderr)
        self.last, self.first, self.refused = snapshot, False, False

    def write_trained(self, result: "TrainingResult") -> None:
        """Write the run before it is measured; its last snapshot stays, to measure it from."""
        from echospan.checkpoint import write_run
        from echospan.plots import training_plot

        lines = (
            json.dumps(
                {
                    "step": p.step,
                    "seconds": p.seconds,
                    "loss": p.loss,
                    "recall": [d.recall for d in p.evaluation.delays],
                }
            )
            for p in result.history
        )
        self.trained = {
            "history.jsonl": "".join(line + "\n" for line in lines),
            "training.svg": training_plot(result.history),
        }
        try:
            write_run(
                self.run, result.model, self.recipe.training, self.trained, keep_snapshots=True
            )
        except RunError as e:
            goes_on = ", then go on with --resume" if self.last else ""
            raise RunError(f"{e.fact}: {self._left()}", f"make room{goes_on}") from None
        self._report_replaced()

    def write_measured(
        self, result: "TrainingResult", report: dict[str, Any], evaluation: "Evaluation"
    ) -> None:
        """Add what was measured; in the same move a training that ended loses its snapshots."""
        from echospan.checkpoint import write_run
        from echospan.plots import recall_plot

        chance, target = 1 / len(result.model.alphabet), self.recipe.training.target
        files = {
            "evaluation.json": json.dumps(report, indent=2) + "\n",
            "recall.svg": recall_plot(evaluation, chance, target),
            **self.trained,
        }
        try:
            write_run(
                self.run,
                result.model,
                self.recipe.training,
                files,
                keep_snapshots=result.interrupted,
            )
        except RunError as e:
            raise RunError(
                f"{e.fact}: it is there, trained and not measured",
                "make room, then measure it with --resume",
            ) from None
        self._report_replaced()

    def not_measured(self) -> int:
        """Say that a signal came before the run was measured; return the exit code."""
        print(
            f"echospan: {self.command.out} is trained and saved, and not measured; "
            f"go on with --resume, or use echospan evaluate {self.command.out}",
            file=sys.stderr,
        )
        return 130

    def _left(self) -> str:
        if self.last is None:
            return "no snapshot of it is there"
        return f"its snapshot of step {self.last.facts['step']} is there"

    def _report_replaced(self) -> None:
        for path in self.run.replaced:
            print(
                f"echospan: a file that is not of this run was in the way; it is now {path}",
                file=sys.stderr,
            )
        self.run.replaced.clear()


@contextlib.contextmanager
def _claimed(command: Train, recipe: Recipe) -> Iterator[_Output]:
    """Claim the run folder, and find the snapshot to go on from."""
    from echospan.checkpoint import claim_run
    from echospan.storage.atomic import follow
    from echospan.storage.run_folder import RunState, inspect

    replace = command.overwrite or command.resume
    empty = inspect(follow(command.out)) is RunState.EMPTY
    with claim_run(command.out, replace, "echospan train") as run:
        if empty:
            print(f"{command.out} is there and holds no run: it is used", file=sys.stderr)
        yield _Output(
            run, command, recipe, _last_snapshot(command, recipe) if command.resume else None
        )


def _last_snapshot(command: Train, recipe: Recipe) -> "Snapshot | None":
    """Return the snapshot to go on from, once it is sure that it is one of this recipe."""
    import torch

    from echospan.checkpoint import read_snapshot
    from echospan.storage.run_folder import RunState, inspect

    last = read_snapshot(command.out)
    if last is None:
        state = inspect(command.out)
        if state is RunState.FINISHED:
            raise SettingError(
                f"{command.out} is finished", "evaluate it, or train anew with --overwrite"
            )
        if state is RunState.DAMAGED:
            raise SettingError(
                f"{command.out} is damaged and has no snapshot to go on from",
                "train anew with --overwrite",
            )
        print(f"{command.out} holds nothing to go on from: it begins anew", file=sys.stderr)
        return None
    for mine, theirs in (
        (recipe.model, last.recipe.model),
        (recipe.training, last.recipe.training),
    ):
        for f in dataclasses.fields(mine):
            one, other = getattr(mine, f.name), getattr(theirs, f.name)
            if one != other:
                flag = "--" + f.name.replace("_", "-")
                raise SettingError(
                    f"{command.out} was begun with {flag} {other}, not {one}",
                    "go on with the same settings, or train anew with --overwrite",
                )
    part = last.facts["parts"][-1]
    for what, then, now in (
        ("threads", part["threads"], torch.get_num_threads()),
        ("torch", part["versions"].get("torch"), torch.__version__),
    ):
        if then != now:
            print(f"{what} {now} where it was {then}: the last bits may differ", file=sys.stderr)
    return last


@contextlib.contextmanager
def _measuring(name: str) -> Iterator[None]:
    """Show that a run is being measured: a running clock on a terminal, a line in a pipe."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"{name}: trained and saved, now measured", file=sys.stderr, flush=True)
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as clock:
        clock.add_task("trained and saved, now measured (Ctrl-C leaves that for later)")
        yield


@contextlib.contextmanager
def _watching(name: str, recipe: Recipe) -> Iterator[Callable[["Progress"], None]]:
    """A bar on a terminal; in a pipe a line for each half second of training."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    asked, console = recipe.model.asked, Console(stderr=True)
    shown = -1.0

    def state(p: "Progress") -> tuple[int, str]:
        recall = [p.evaluation.delays[d].recall for d in asked]
        worst = min(range(len(asked)), key=recall.__getitem__)
        at = f"recall {recall[worst]:.1%} at delay {asked[worst]}"
        blanks = p.evaluation.blank_accuracy
        if blanks is not None and blanks < recipe.training.target:
            at += f", blanks {blanks:.1%}"
        return sum(r >= recipe.training.target for r in recall), at

    def line(p: "Progress") -> None:
        nonlocal shown
        done, at = state(p)
        if p.seconds - shown >= 0.5 or p.reached:
            shown = p.seconds
            print(
                f"{name}: step {p.step}, {p.seconds:.2f} s, loss {p.loss:.4f}, "
                f"{done} of {len(asked)} delays at the target, lowest {at}",
                file=sys.stderr,
            )

    if not console.is_terminal:
        yield line
        return
    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} delays at the target · {task.fields[at]}"),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        task = bar.add_task(name, total=len(asked), at="")

        def draw(p: "Progress") -> None:
            done, at = state(p)
            bar.update(task, completed=done, at=f"lowest {at} · step {p.step}")

        yield draw


def evaluate(command: Evaluate) -> int:
    """Exit 0: every run reaches the target; 1: one does not."""
    from echospan.checkpoint import load_recipe
    from echospan.devices import find_device
    from echospan.evaluation import as_report

    device, target = find_device(command.device), share("target", command.target)
    check_seed(command.seed)
    folders = [(str(run), there(run)) for run in command.runs]
    folders += [(name, shipping.folder(name)) for name in command.model]
    if not folders:
        raise SettingError("no run folder is named", NAME_ONE)
    loaded = [(run, load_recipe(folder)) for run, folder in folders]
    reports = []
    for run, (model, recipe) in loaded:
        highest = highest_target(model.max_delay, whole("trials", command.trials, 1))
        if target > highest:
            print(
                f"echospan: {plain(run)} cannot reach {percent(target)}: its {command.trials} "
                f"answers, if all are right, show {percent(highest)}; use more --trials",
                file=sys.stderr,
            )
        evaluation, more = _measure(
            model.to(device), command.stream, command.trials, command.seed, recipe.window
        )
        reports.append(
            {"run": run, "seed": command.seed, "settings": dataclasses.asdict(recipe)}
            | as_report(model, evaluation, target, more)
        )
    if len(reports) == 1:
        _show(reports[0], command.json)
    elif command.json:
        print(json.dumps({"runs": reports}))
    else:
        _show_side_by_side(reports)
    return 0 if all(r["reached"] for r in reports) else 1


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=literal(report["run"]))
    for column in ("delay", "recall", "95 % interval", "bits"):
        table.add_column(column, justify="right")
    if report["stream"]:
        table.add_column("stream errors", justify="right")
    for d in report["delays"]:
        row = [
            str(d["delay"]),
            f"{d['recall']:.2%}",
            f"{d['low']:.2%} – {d['high']:.2%}",
            f"{d['bits']:.2f}",
        ]
        if report["stream"]:
            row.append(f"{report['stream']['errors'][d['delay']]}")
        table.add_row(*row)
    console = Console()
    console.print(table)
    blanks = report["blank_accuracy"]
    console.print(
        f"span {report['span']}, recalled bits {report['recalled_bits']:.1f}"
        + (f", blanks {blanks:.2%}" if blanks is not None else "")
        + (" (the target counts them)" if _blanks_alone_fall_short(report) else "")
        + (f", stream of {report['stream']['symbols']:,} symbols" if report["stream"] else "")
    )
    if report["assignment_grader"] is not None:
        console.print(f"the assignment's grader {report['assignment_grader']:.4f}")
    asked = _asked(report)
    lengths = ", ".join(
        f"{m['length']}: {min(m['recall'][d] for d in asked):.2%}" for m in report["lengths"]
    )
    console.print(f"lowest recall by length of the sequence {lengths}")
    target = f"target {percent(report['target'])} "
    if "steps" not in report:
        console.print(target + ("reached" if report["reached"] else "not reached"))
    else:
        at = report["seconds_to_target"]
        console.print(
            (target + f"reached in {at:.2f} s" if at else "target not reached")
            + f"; {report['seconds']:.2f} s, {report['steps']} steps in all"
        )
    if sentence := _short_beyond(report):
        console.print(sentence)


def _short_beyond(report: dict[str, Any]) -> str:
    """Return what counts where the target is reached, and not in longer sequences; '' elsewhere."""
    if not report["reached"] or report["reached_beyond"] is not False:
        return ""
    asked = _asked(report)
    low, length = min(
        (m["low"][d], m["length"]) for m in report["lengths"] if m["times"] > 1 for d in asked
    )
    return (
        f"the target counts the table above, sequences of {report['length']} symbols; in longer "
        f"ones it is not reached: recall's interval begins at {low:.2%} at {length} symbols"
    )


def _show_side_by_side(reports: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    columns = ["run", "delays", "recall", "at least", "span", "bits", "blanks"]
    grader = any(r["assignment_grader"] is not None for r in reports)
    for column in (*columns, *(["wrong/M"] if reports[0]["stream"] else [])):
        table.add_column(column, justify="right", no_wrap=True)
    if grader:
        table.add_column("grader", justify="right")
    for r in reports:
        delays = [r["delays"][d] for d in _asked(r)]
        worst = min(delays, key=operator.itemgetter("recall"))
        blanks = r["blank_accuracy"]
        row: list[Any] = [
            literal(r["run"]),
            str(delays[0]["delay"]) + (f"–{delays[-1]['delay']}" if len(delays) > 1 else ""),
            f"{worst['recall']:.2%}",
            f"{worst['low']:.2%}",
            str(r["span"]),
            f"{r['recalled_bits']:.1f}",
            "–" if blanks is None else f"{blanks:.2%}",
        ]
        if stream := r["stream"]:
            errors = max(stream["errors"][d["delay"]] for d in delays)
            row.append(f"{errors * 1_000_000 / stream['symbols']:.0f}")
        if grader:
            grade = r["assignment_grader"]
            row.append("–" if grade is None else f"{grade:.4f}")
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(
        "recall: lowest of the delays, on fresh data; at least: lower end of its 95 %\n"
        "interval; wrong/M: in a million symbols never reset; grader: the assignment's"
    )
    for r in reports:
        if sentence := _short_beyond(r):
            console.print(f"{plain(r['run'])}: {sentence}", markup=False, highlight=False)


def _blanks_alone_fall_short(report: dict[str, Any]) -> bool:
    """Return whether recall has reached the target of a report and the blanks have not."""
    lows = [report["delays"][d]["low"] for d in _asked(report)]
    return not report["reached"] and min(lows) >= report["target"]


def _asked(report: dict[str, Any]) -> tuple[int, ...]:
    return ModelConfig(**report["settings"]["model"]).asked


def echo(command: Echo) -> int:
    """Exit 0 once all that was read is answered; 130 or 143: a signal; 141: the reader is gone."""
    from echospan.checkpoint import load
    from echospan.streaming import Stream

    run, text = command.run, command.text
    if command.model is not None:
        if text is not None:
            raise SettingError(
                f"a run, {run}, and --model {command.model} are named", "name one of them"
            )
        folder, text = shipping.folder(command.model), run
    elif run is None:
        raise SettingError("no run folder is named", NAME_ONE)
    else:
        folder = there(run)
    if sys.stdout is None:
        raise SettingError("standard output is closed", "open it, or send it to a file")
    if command.state is not None:
        apart("--state", command.state, folder)
    stream = Stream(load(folder), command.delay)
    if text is not None:
        refused = _refused_at(text, stream.model.alphabet.characters, command.other)
        if refused is not None:
            stream.model.alphabet.encode(text[refused], refused)  # before anything is answered
    file = None if command.state is None else _StateFile(stream, command.state)
    with interrupted_by(signal.SIGINT, signal.SIGTERM) as stop:
        source = _arriving(sys.stdin, stop) if text is None else [text]
        try:
            _answer(stream, source, command.other, file, stop)
            if text is not None:
                _print("\n")
        except BrokenPipeError:
            _close_output()
            return 128 + signal.SIGPIPE
        finally:
            if file is not None:
                file.close()
    return 128 + stop[0] if stop else 0


class _StateFile:
    """The file of `echo --state`: written after the answers that it holds, at a stated interval.

    What is printed is always ahead of what is in the file, by at most `SYMBOLS` answers and, while
    input arrives or is waited for, by those of the last `SECONDS`.
    """

    SYMBOLS = 16_384
    """A hundred milliseconds of answers or more; a file takes some."""
    SECONDS = 0.5

    def __init__(self, stream: "Stream", path: Path) -> None:
        from echospan.checkpoint import fingerprint

        self.stream, self.path, self.model = stream, path, fingerprint(stream.model)
        if os.path.lexists(path) and not stream.restore(path):
            print(
                f"echospan: {path} was not closed: the state is that after {stream.position:,} "
                f"symbols; up to {self.SYMBOLS:,} that were answered after them are not in it",
                file=sys.stderr,
            )
        self.printed()
        self._write(ended=False)  # what cannot be written is refused before anything is read

    def room(self) -> int:
        """Return how many symbols may be answered before the file has to be written."""
        return self.SYMBOLS - (self.position - self.written)

    def printed(self) -> None:
        """Take note that all answers so far were printed."""
        self.state, self.position = self.stream.state, self.stream.position

    def commit(self) -> None:
        """Write the file where it is due."""
        due = not self.room() or time.monotonic() - self.at >= self.SECONDS
        if due and self.position != self.written:
            self._write(ended=False)

    def close(self) -> None:
        """Write what was printed; what was answered and not printed is not in the file."""
        self._write(ended=True)

    def _write(self, ended: bool) -> None:
        from echospan.checkpoint import write_whole

        self.stream.state, self.stream.position = self.state, self.position
        write_whole(self.path, self.stream.state_file(ended, self.model))
        self.written, self.at = self.position, time.monotonic()


def _answer(
    stream: "Stream",
    source: Iterable[str],
    other: str,
    file: _StateFile | None,
    stop: Sequence[int],
) -> None:
    """Print the answers to what arrives, up to a signal or a character that is refused."""
    alphabet, position = stream.model.alphabet, 0
    for text in source:
        while text and not stop:
            room = stream.CHUNK if file is None else min(stream.CHUNK, file.room())
            piece, text = text[:room], text[room:]
            refused = _refused_at(piece, alphabet.characters, other)
            answered = piece if refused is None else piece[:refused]
            _print(_echoed(stream, answered, other))
            if file is not None:
                file.printed()
                file.commit()
            if refused is not None:
                alphabet.encode(piece[refused], position + refused)  # raises
            position += len(piece)
        if file is not None:
            file.commit()
        if stop:
            return


def _refused_at(text: str, symbols: str, other: str) -> int | None:
    """Return the place of the first character that is neither a symbol nor let through."""
    if other != "fail":
        return None
    return next((i for i, c in enumerate(text) if c not in symbols and c not in "\r\n"), None)


def _echoed(stream: "Stream", text: str, other: str) -> str:
    """Return the answers to the symbols of a text, and what is let through in its place."""
    symbols = stream.model.alphabet.characters
    kept = [c for c in text if c in symbols or c in "\r\n" or other == "keep"]
    answers = iter(stream.push("".join(c for c in kept if c in symbols)))
    return "".join(next(answers) if c in symbols else c for c in kept)


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except UnicodeEncodeError as e:
        raise SettingError(
            f"standard output is {e.encoding}, which has no {text[e.start]!r}",
            "set PYTHONIOENCODING=utf-8",
        ) from None
    except OSError as e:
        _close_output()
        raise RunError(
            f"standard output cannot be written ({e.strerror})", "make room, or send it elsewhere"
        ) from None


def _close_output() -> None:
    """Leave nothing for Python to write at its end, where it would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _arriving(source: TextIO | None, stop: Sequence[int] = ()) -> Iterator[str]:
    """Yield text as it arrives, at once and never waiting for more; empty text while none does.

    Ends with the input, or with `stop`.
    """
    import codecs

    if source is None:
        raise SettingError("standard input is closed", "open it, or give the text as an argument")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while not stop:
        try:
            # A read that waits is not ended by a signal: wait where one is noticed.
            if not select.select([source], [], [], 0.2)[0]:
                yield ""
                continue
            data = os.read(source.fileno(), 65536)
        except (OSError, ValueError) as e:
            reason = getattr(e, "strerror", None) or e
            raise RunError(
                f"standard input cannot be read ({reason})", "give the text as an argument"
            ) from None
        if text := decoder.decode(data, final=not data):
            yield text
        if not data:
            return
