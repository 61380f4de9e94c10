"""Kills each command at every system call by which it writes, and looks what is left.

    python -m benchmarks.kill_points                       # all points of all commands
    python -m benchmarks.kill_points --every 10            # each tenth point
    python -m benchmarks.kill_points --only train resume

Statistic: the number of points, and at how many of them something was lost (a run, a snapshot or a
file that was there and is neither there nor replaced by its successor, or a training that ends in
other weights), or stuck (a command that the documentation names for that state refuses, or ends in
a traceback). Both must be 0; anything else ends with exit code 1.

The calls are counted by a library that is loaded before libc (`kill_points.c`, built here with cc):
opening to write, write, fsync, truncate, chmod, rename, unlink, mkdir, rmdir and their kin, of any
process, under the folder that the command works in. Linux alone.
"""

import argparse
import contextlib
import ctypes
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SHORT = [
    *("--steps", "3", "--hidden", "4", "--stream", "0", "--batch", "2"),
    *("--snapshot-seconds", "1e-9"),
]
TRAIN = ["train", "bits", *SHORT]


class Control(ctypes.Structure):
    """What kill_points.c reads and counts, in memory that all processes share."""

    _fields_ = [
        ("count", ctypes.c_long),
        ("kill_at", ctypes.c_long),
        ("interrupt_at", ctypes.c_long),
        ("under", ctypes.c_char * 4072),
    ]


def shared_control() -> Control:
    with Path(os.environ["KILL_POINTS"]).open("r+b") as file:
        return Control.from_buffer(mmap.mmap(file.fileno(), ctypes.sizeof(Control)))


@dataclass
class Ended:
    """How a command ended."""

    code: int
    errors: str


class Harness:
    """Runs commands in forked processes, one of them killed at a point."""

    def __init__(self, folder: Path) -> None:
        self.control, self.folder = shared_control(), folder
        self.work = folder / "work"

    def call(self, do: Callable[[], object], kill_at: int = 0, interrupt_at: int = 0) -> Ended:
        """Do something in a process of its own, with the calls under the work folder counted."""
        errors = self.folder / "errors"
        self.control.count, self.control.kill_at = 0, kill_at
        self.control.interrupt_at, self.control.under = interrupt_at, os.fsencode(self.work)
        child = os.fork()
        if not child:
            code = 70
            try:
                for number, path in ((0, "/dev/null"), (1, "/dev/null"), (2, errors)):
                    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
                    os.dup2(os.open(path, flags, 0o644), number)
                sys.stdin, sys.stdout, sys.stderr = (
                    os.fdopen(number, "r" if number == 0 else "w") for number in range(3)
                )
                os.chdir(self.work)
                do()
                code = 0
            except SystemExit as e:
                code = int(e.code or 0)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                with contextlib.suppress(BaseException):
                    sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        self.control.under = b""
        return Ended(os.waitstatus_to_exitcode(status), errors.read_text(errors="replace"))

    def command(self, *args: str, **at: int) -> Ended:
        from echospan import cli

        return self.call(lambda: cli.main(list(args)), **at)

    def restore(self, template: Path) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(template, self.work, symlinks=True)


class Scenario:
    """A command that is killed, and what must hold afterwards."""

    interrupt_at = 0

    def __init__(self, harness: Harness) -> None:
        self.harness, self.work = harness, harness.work
        self.template = harness.folder / f"template-{type(self).__name__}"
        self.template.mkdir()
        harness.restore(self.template)
        self.prepare()
        harness.restore(self.template)

    def prepare(self) -> None:
        """Fill the template."""

    def act(self, **at: int) -> Ended:
        """Run the command that is killed."""
        raise NotImplementedError

    def problems(self) -> Iterator[str]:
        """Yield `lost: …` and `stuck: …` of what a kill has left, and use the remedies."""
        raise NotImplementedError

    def keep_as_template(self) -> None:
        shutil.rmtree(self.template)
        shutil.copytree(self.work, self.template, symlinks=True)

    def refused(self, *args: str) -> Iterator[str]:
        """Check that a command is refused in one sentence."""
        ended = self.harness.command(*args)
        if ended.code != 2 or ended.errors.count("\n") != 1:
            yield f"stuck: {' '.join(args[:2])} ends with {ended.code}, {ended.errors!r}"

    def accepted(self, *args: str) -> Iterator[str]:
        """Check that a command does its work."""
        ended = self.harness.command(*args)
        if ended.code not in (0, 1) or "Traceback" in ended.errors:
            yield f"stuck: {' '.join(args)} ends with {ended.code}, {ended.errors!r}"

    def litter(self) -> Iterator[str]:
        for path in self.work.rglob(".echospan-*"):
            yield f"stuck: {path.name} is still there"


class Train(Scenario):
    """A training into a folder that is not there."""

    def prepare(self) -> None:
        self.harness.command(*TRAIN, "--out", "run")
        self.whole = self.weights()
        self.reached = -1

    def act(self, **at: int) -> Ended:
        return self.harness.command(*TRAIN, "--out", "run", **at)

    def weights(self) -> bytes | None:
        path = self.work / "run" / "model.safetensors"
        return path.read_bytes() if path.exists() else None

    def step(self) -> int:
        """How far the training is, by what was kept of it."""
        from echospan.checkpoint import read_snapshot
        from echospan.storage.run_folder import RunState, inspect

        run = self.work / "run"
        if inspect(run) is RunState.FINISHED or (run / ".echospan-commit").exists():
            return 1_000_000  # the move to a whole run is made, and need only be completed
        snapshot = read_snapshot(run)
        return -1 if snapshot is None else int(snapshot.facts["step"])

    def problems(self) -> Iterator[str]:
        from echospan.storage.run_folder import RunState, inspect

        run = self.work / "run"
        step, state = self.step(), inspect(run)
        if step < self.reached:
            yield f"lost: step {step}, where {self.reached} had been kept"
        self.reached = max(step, self.reached)
        if run.is_dir() and any(run.iterdir()):
            (run / "thesis.txt").write_text("all of it")
        there = state in (RunState.RESUMABLE, RunState.FINISHED)
        yield from (self.accepted if there else self.refused)(
            "evaluate", "run", "--trials", "10", "--target", "0.000001"
        )
        state = inspect(run)  # whoever read it may have completed its last move
        left = self.harness.folder / "left"
        shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(self.work, left, symlinks=True)
        if state not in (RunState.ABSENT, RunState.EMPTY):
            yield from self.refused(*TRAIN, "--out", "run")
        yield from self.accepted(*TRAIN, "--out", "run", "--overwrite")
        yield from self.ended("--overwrite")
        self.harness.restore(left)
        if state is RunState.FINISHED:
            yield from self.refused(*TRAIN, "--out", "run", "--resume")
        else:
            yield from self.accepted(*TRAIN, "--out", "run", "--resume")
        yield from self.ended("--resume")
        if (left / "run" / "thesis.txt").exists() and not (run / "thesis.txt").exists():
            yield "lost: a file of somebody's"

    def ended(self, how: str) -> Iterator[str]:
        """Check that a training has come to its end, and to which."""
        if self.weights() != self.whole:
            yield f"lost: with {how} it ends in other weights"
        run = self.work / "run"
        names = ("config.json", "evaluation.json", "history.jsonl")
        if not all((run / name).exists() for name in names):
            yield f"lost: with {how} it ends without a file of the run"
        if any(run.glob("resume*")) or any(run.glob("*.replaced-*")):
            yield f"stuck: with {how} more is left than a run"
        yield from self.litter()


class Resume(Train):
    """A training that goes on from a snapshot."""

    def prepare(self) -> None:
        super().prepare()
        # Killed in the middle of its calls, where it has two snapshots.
        self.harness.restore(self.template)
        at = 1
        while not (self.work / "run" / "resume.before.safetensors").exists():
            self.harness.restore(self.template)
            at += 4
            self.act(kill_at=at)
        self.keep_as_template()
        self.reached = self.step()

    def act(self, **at: int) -> Ended:
        return self.harness.command(*TRAIN, "--out", "run", "--resume", **at)


class Interrupt(Train):
    """A training that Ctrl-C ends and saves, as it stands, to be gone on with."""

    def prepare(self) -> None:
        super().prepare()
        self.harness.restore(self.template)
        while not (self.work / "run" / "config.json").exists():
            self.interrupt_at += 3
            self.harness.restore(self.template)
            self.act(interrupt_at=self.interrupt_at)
        self.reached = -1


class Overwrite(Train):
    """A training in the place of a finished run, with a file of somebody's beside it."""

    def prepare(self) -> None:
        super().prepare()
        shutil.rmtree(self.work / "run")
        self.harness.command(*TRAIN, "--out", "run", "--seed", "5")
        (self.work / "run" / "thesis.txt").write_text("all of it")
        self.old = self.weights()
        self.keep_as_template()

    def act(self, **at: int) -> Ended:
        return self.harness.command(*TRAIN, "--out", "run", "--overwrite", **at)

    def step(self) -> int:
        step = super().step()
        return -1 if self.weights() == self.old and step == 1_000_000 else step

    def problems(self) -> Iterator[str]:
        # A whole run, the old one or the new one, answers at each moment.
        yield from self.accepted("evaluate", "run", "--trials", "10", "--target", "0.000001")
        if self.weights() not in (self.old, self.whole):
            yield "lost: neither the old run nor the new one is there"
        if self.weights() == self.old and super().step() == 1_000_000:
            yield from self.accepted(*TRAIN, "--out", "run", "--overwrite")
            yield from self.ended("--overwrite")
            return
        yield from super().problems()


class Save(Scenario):
    """`save` over a run, from Python."""

    def prepare(self) -> None:
        self.save(1.0)
        (self.work / "run" / "thesis.txt").write_text("all of it")
        self.keep_as_template()

    def save(self, mark: float) -> None:
        import torch

        from echospan.checkpoint import save
        from echospan.model import EchoModel
        from echospan.recipes import ModelConfig, TrainingConfig

        torch.manual_seed(0)
        model = EchoModel(ModelConfig(alphabet="ab", hidden=4, max_delay=1))
        torch.nn.init.constant_(model.readouts.bias, mark)
        save(model, TrainingConfig(), self.work / "run", {"note": f"{mark}"}, overwrite=True)

    def act(self, **at: int) -> Ended:
        return self.harness.call(lambda: self.save(2.0), **at)

    def problems(self) -> Iterator[str]:
        from echospan.checkpoint import load

        mark = load(self.work / "run").readouts.bias[0].item()
        if (self.work / "run" / "note").read_text() != f"{mark}":
            yield "lost: half of one run and half of another"
        if self.harness.call(lambda: self.save(2.0)).code:
            yield "stuck: it cannot be saved again"
        if load(self.work / "run").readouts.bias[0].item() != 2.0:
            yield "lost: what was saved last"
        if not (self.work / "run" / "thesis.txt").exists():
            yield "lost: a file of somebody's"
        yield from self.litter()


class Export(Save):
    """`export` as ONNX over an export of another model."""

    def prepare(self) -> None:
        self.save(1.0)
        self.harness.command("export", "run", "-o", "out")
        self.old = self.described()
        (self.work / "out" / "thesis.txt").write_text("all of it")
        self.harness.call(lambda: self.save(2.0))
        self.keep_as_template()

    def act(self, **at: int) -> Ended:
        return self.harness.command("export", "run", "-o", "out", "--overwrite", **at)

    def described(self) -> list[bytes]:
        names = ("echo_full.onnx", "echo_step.onnx", "echo.json")
        return [(self.work / "out" / name).read_bytes() for name in names]

    def problems(self) -> Iterator[str]:
        out = self.work / "out"
        if (out / "echo.json").exists():
            before = self.described()
        else:  # the description is the last of three to take its place
            before = []
            if not (out / ".echospan-commit").exists():
                yield "lost: an export"
        yield from self.accepted("export", "run", "-o", "out", "--overwrite")
        if before and before not in (self.old, self.described()):
            yield "lost: half of one export and half of another"
        if not (out / "thesis.txt").exists():
            yield "lost: a file of somebody's"
        yield from self.litter()


class Html(Scenario):
    """`export --format html` over a page."""

    flags = ("export", "run", "--format", "html", "-o", "page.html", "--overwrite")

    def prepare(self) -> None:
        self.harness.command(*TRAIN, "--out", "run")
        self.harness.command(*self.flags)
        self.new = self.content()
        (self.work / "page.html").write_bytes(b"old")
        self.keep_as_template()

    def content(self) -> bytes:
        return (self.work / "page.html").read_bytes()

    def act(self, **at: int) -> Ended:
        return self.harness.command(*self.flags, **at)

    def problems(self) -> Iterator[str]:
        if self.content() not in (b"old", self.new):
            yield "lost: neither the old page nor the new one is there"
        yield from self.accepted(*self.flags)
        if self.content() != self.new:
            yield "lost: the page"
        yield from self.litter()


class State(Scenario):
    """`echo --state` that goes on from a state."""

    flags = ("echo", "run", "01", "--state", "kept")

    def prepare(self) -> None:
        self.harness.command(*TRAIN, "--out", "run")
        self.harness.command("echo", "run", "0110", "--state", "kept")
        self.states = [self.numbers()]
        self.keep_as_template()
        self.harness.command(*self.flags)
        self.states.append(self.numbers())

    def numbers(self) -> list[float]:
        """What the state holds: the file itself has its parts in any order."""
        from echospan.checkpoint import load
        from echospan.streaming import Stream

        stream = Stream(load(self.work / "run"))
        stream.restore(self.work / "kept")
        return [float(x) for x in stream.state.flatten()]

    def act(self, **at: int) -> Ended:
        return self.harness.command(*self.flags, **at)

    def problems(self) -> Iterator[str]:
        if self.numbers() not in self.states:
            yield "lost: neither the old state nor the new one is there"
        yield from self.accepted(*self.flags)
        yield from self.litter()


class Report(Scenario):
    """`report` with figures, over those of before."""

    flags = ("report", "store.sqlite", "page.html", "--figures", "figures", "--overwrite")

    def prepare(self) -> None:
        from benchmarks.report import fill

        fill(self.work / "store.sqlite", 4)
        self.harness.command(*self.flags)
        self.names = {p.name for p in (self.work / "figures").iterdir()}
        self.keep_as_template()

    def act(self, **at: int) -> Ended:
        return self.harness.command(*self.flags, **at)

    def problems(self) -> Iterator[str]:
        if not {p.name for p in (self.work / "figures").iterdir()} >= self.names:
            yield "lost: a figure"
        yield from self.accepted(*self.flags)
        yield from self.litter()


class Bench(Scenario):
    """`bench`, its own process killed: the same command goes on."""

    flags = (
        *("bench", "--cores", "gru", "--hidden", "4", "--max-delay", "1", "--symbols", "2000"),
        *("--alphabet", "bits", "--seeds", "0", "1", "--workers", "1", "--store", "store.sqlite"),
    )

    def prepare(self) -> None:
        self.most = 0

    def act(self, **at: int) -> Ended:
        return self.harness.command(*self.flags, **at)

    def rows(self) -> int:
        import sqlite3

        path = self.work / "store.sqlite"
        if not path.exists() or not path.stat().st_size:
            return 0
        db = sqlite3.connect(path)
        with contextlib.closing(db):
            try:
                return int(db.execute("SELECT count(*) FROM results").fetchone()[0])
            except sqlite3.OperationalError:  # its tables are not made yet
                return 0

    def problems(self) -> Iterator[str]:
        rows = self.rows()
        if rows < self.most:
            yield f"lost: {rows} results, where {self.most} had been stored"
        self.most = max(rows, self.most)
        yield from self.accepted(*self.flags)
        if self.rows() != 2:
            yield f"lost: {self.rows()} results in the end"


SCENARIOS: dict[str, type[Scenario]] = {
    "train": Train,
    "resume": Resume,
    "interrupt": Interrupt,
    "overwrite": Overwrite,
    "save": Save,
    "export": Export,
    "html": Html,
    "state": State,
    "report": Report,
    "bench": Bench,
}


def kill(name: str, harness: Harness, every: int) -> Counter[str]:
    """Kill one command at each of its points, or at one in `every`; count what came of it."""
    scenario = SCENARIOS[name](harness)
    scenario.act(interrupt_at=scenario.interrupt_at)
    points = harness.control.count
    counted = Counter(calls=points)
    first = scenario.interrupt_at + 1 if scenario.interrupt_at else 1
    for point in range(first, points + 1, every):
        harness.restore(scenario.template)
        ended = scenario.act(kill_at=point, interrupt_at=scenario.interrupt_at)
        counted["killed" if ended.code == -9 else "ended before"] += 1
        try:
            found = list(scenario.problems())
        except Exception as e:
            found = [f"stuck: {type(e).__name__}: {e}"]
        counted["lost"] += any(p.startswith("lost") for p in found)
        counted["stuck"] += any(p.startswith("stuck") for p in found)
        for problem in found:
            print(f"{name}, point {point} of {points}: {problem}", flush=True)
    return counted


def again_with_the_library() -> None:
    """Build the library, and begin this program anew with it before libc."""
    place = Path(tempfile.mkdtemp(prefix="kill-points-"))
    library, control = place / "kill_points.so", place / "control"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    control.write_bytes(bytes(ctypes.sizeof(Control)))
    env = os.environ | {"LD_PRELOAD": str(library), "KILL_POINTS": str(control)}
    env |= {"OMP_NUM_THREADS": "1"}
    code = subprocess.run([sys.executable, "-m", __spec__.name, *sys.argv[1:]], env=env).returncode
    shutil.rmtree(place)
    sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=list(SCENARIOS), choices=SCENARIOS)
    parser.add_argument("--quick", action="store_true", help="three commands, few of their points")
    args = parser.parse_args()
    if "KILL_POINTS" not in os.environ:
        again_with_the_library()
    if args.quick:
        args.every, args.only = 17, ["train", "save", "html"]

    from echospan import plots

    # Drawing takes most of the time and writes nothing.
    plots.recall_plot = plots.training_plot = lambda *_: "<svg/>"  # type: ignore[assignment]
    bad = total = 0
    with tempfile.TemporaryDirectory(prefix="kill-points-") as folder:
        harness = Harness(Path(folder).resolve())
        warm_up(harness)
        for name in args.only:
            counted = kill(name, harness, args.every)
            for template in harness.folder.glob("template-*"):
                shutil.rmtree(template)
            total += counted["killed"]
            bad += counted["lost"] + counted["stuck"]
            print(f"{name}: {json.dumps(counted)}", flush=True)
    print(f"{total} kills, {bad} of them lost something or left something stuck")
    sys.exit(1 if bad else 0)


def warm_up(harness: Harness) -> None:
    """Import here what each command needs, once for all the processes that are forked."""
    from echospan import cli

    harness.work.mkdir()
    with (
        contextlib.suppress(SystemExit),
        contextlib.chdir(harness.work),
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        cli.main([*TRAIN, "--out", "run"])


if __name__ == "__main__":
    main()
