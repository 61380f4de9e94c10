"""The commands: train, evaluate, echo. The only module that prints or exits."""

import contextlib
import dataclasses
import difflib
import functools
import importlib
import json
import operator
import os
import platform
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, cast

import tyro

from echospan.alphabet import BLANK_MARK, NAMED
from echospan.errors import EchospanError, SettingError
from echospan.recipes import BY_INPUT, RECIPES, ModelConfig, Recipe, TrainingConfig

# torch takes over a second to import: only the commands that need it do so, inside.
if TYPE_CHECKING:
    from echospan.evaluation import Evaluation
    from echospan.model import EchoModel
    from echospan.training import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model, grade it, and leave a run folder."""

    model: ModelConfig
    training: TrainingConfig
    out: Path
    """The run folder to make."""
    overwrite: bool = False
    """Replace the run that is there."""
    stream: int = 100_000
    """Symbols of unbroken stream to count errors on; 0 for none."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure runs on fresh data: recall by delay, blanks, span, bits, stream errors."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run folders; several make one table, a line each."""
    trials: int = 20_000
    """Answers at every delay, at least."""
    stream: int = 0
    """Symbols of unbroken stream to count errors on; 0 for none."""
    seed: int = 1
    """Names the random stream."""
    target: float = 0.99
    """Exit 0 where every delay asked for has this as its interval's lower end, 1 otherwise."""
    device: str = "cpu"
    """Where it is measured: cpu, cuda, cuda:1, …"""
    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Echo:
    """Say each symbol again, `delay` symbols later; line ends go through where they stand."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    text: tyro.conf.Positional[str | None] = None
    """What to read; standard input where it is left out."""
    delay: int | None = None
    """How many symbols later; the longest trained where it is left out."""
    other: Literal["fail", "skip", "keep"] = "fail"
    """Characters that are no symbols: fail, skip them, or keep them in the answer unechoed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Train layers and say what each remembers, how sure that is, and what it costs."""

    layers: tyro.conf.Positional[tuple[str, ...]]
    """Names of our cores, or package.module:factory of yours (a class will do)."""
    max_delay: int = 16
    """The longest delay that is asked."""
    seconds: float = 45.0
    """All of a layer's time, for each seed: training, probes and evaluation share it."""
    symbols: int | None = None
    """Symbols of training instead of seconds: the same work, and figures, everywhere."""
    hidden: int | None = None
    """Units of each layer, where it lets itself be told; 128, and for delay_line what is asked."""
    parameters: int | None = None
    """Numbers trained in each layer, within 2 %, instead of --hidden: a fair race."""
    state: int | None = None
    """Numbers carried from step to step, within 2 %, instead of --hidden: a fair race."""
    features: int | None = None
    """Width of a layer's input, where it does not say."""
    seeds: tuple[int, ...] = (0,)
    """Each is trained and measured anew."""
    learning_rates: tuple[float, ...] | None = None
    """Adam's rates to try a short while each; the best goes on with the rest of the budget."""
    alphabet: str = NAMED["letters"]
    """Its symbols: letters, letters-digits, bits, or any string of distinct characters."""
    at: float = 0.99
    """The recall that a span asks for."""
    out: Path = Path("profile.svg")
    """The figure (.svg, .png or .pdf); the profiles go beside it as .json."""
    overwrite: bool = False
    """Replace the files that are there."""
    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Check what every core promises, a line a check."""

    layers: tyro.conf.Positional[tuple[str, ...]]
    """Names of our cores, or package.module:factory of yours (a class will do)."""
    features: int | None = None
    """Width of a layer's input, where it does not say."""
    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTest:
    """Measure the instrument on things whose memory is known exactly."""

    seed: int = 0
    """Decides the random streams."""
    json: bool = False
    """Print one JSON object."""


Command = Train | Evaluate | Echo | Profile | Check | SelfTest

COMMANDS: dict[str, type[Command]] = {
    "evaluate": Evaluate,
    "echo": Echo,
    "profile": Profile,
    "check": Check,
    "selftest": SelfTest,
}
"""Those whose flags have one set of defaults; train has one for each recipe."""


def main(argv: list[str] | None = None) -> None:
    """Run one command; exits 0, 1, 2 or 130 as the documentation says.

    `--debug`, anywhere, shows the traceback of what was refused.
    """
    args = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    try:
        sys.exit(_run(_parse(args)))
    except EchospanError as e:
        if debug:
            raise
        print(f"echospan: {e}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # Who reads our answers has seen enough; nothing is left to say, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def _parse(args: list[str]) -> Command:
    if args[:1] == ["train"]:
        return _parse_train(args[1:])
    if args and args[0] in COMMANDS:
        parsed: Command = tyro.cli(COMMANDS[args[0]], prog=f"echospan {args[0]}", args=args[1:])
        return parsed
    names = ("train", *COMMANDS)
    told = {
        f"train {{{','.join(RECIPES)}}}": Train,
        "evaluate RUN …": Evaluate,
        "echo RUN [TEXT]": Echo,
        "profile LAYER …": Profile,
        "check LAYER …": Check,
        "selftest": SelfTest,
    }
    usage = (
        f"usage: echospan {{{','.join(names)}}} …\n\n"
        + "".join(f"  {shape:28}{command.__doc__}\n" for shape, command in told.items())
        + "\nechospan COMMAND --help lists the settings of a command."
    )
    if args and args[0] in ("-h", "--help"):
        print(usage)
        sys.exit(0)
    print(usage, file=sys.stderr)
    if args:
        near = difflib.get_close_matches(args[0], names, 1)
        raise SettingError(
            f"there is no command {args[0]!r}",
            (f"did you mean {near[0]}? " if near else "") + f"use one of {', '.join(names)}",
        )
    sys.exit(2)


def _parse_train(args: list[str]) -> Train:
    trains: list[Any] = []
    by_input = "--conditioning=input" in args or ("--conditioning", "input") in pairwise(args)
    for name, recipe in RECIPES.items():
        if by_input and name == "variable":
            recipe = BY_INPUT  # its own defaults, shown by --help too
        default = Train(model=recipe.model, training=recipe.training, out=Path("runs", name))
        trains.append(Annotated[Train, tyro.conf.subcommand(name, default=default)])
    train: Any = functools.reduce(operator.or_, trains)
    flat = (tyro.conf.OmitArgPrefixes,)
    return cast(Train, tyro.cli(train, prog="echospan train", args=args, config=flat))


def _run(command: Command) -> int:
    match command:
        case Train():
            return _train(command)
        case Evaluate():
            return _evaluate(command)
        case Echo():
            return _echo(command)
        case Profile():
            return _profile(command)
        case Check():
            return _check(command)
        case SelfTest():
            return _selftest(command)


def _found(layer: str) -> Any:
    """The name of one of our cores, or the object that `package.module:name` names."""
    from echospan.cores import CORES

    if ":" not in layer:
        if layer not in CORES:
            near = difflib.get_close_matches(layer, CORES, 1)
            raise SettingError(
                f"there is no core {layer!r}",
                (f"did you mean {near[0]}? " if near else "")
                + f"use one of {', '.join(CORES)}, or package.module:factory of your own",
            )
        return layer
    module, _, name = layer.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # and there it stays: a layer may import more later
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as e:
        raise SettingError(
            f"{module} cannot be imported ({e})", "run where it lies, or install it"
        ) from e
    except (Exception, SystemExit) as e:
        raise SettingError(
            f"{module} raises {type(e).__name__} when it is imported ({e})", "mend it first"
        ) from e
    for part in name.split("."):
        there = sorted(n for n in dir(found) if n[:1] != "_" and callable(getattr(found, n, None)))
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, there, 1)
            raise SettingError(
                f"{module} has no {name}",
                f"did you mean {near[0]}?" if near else f"it has {', '.join(there[:12]) or 'none'}",
            )
        found = getattr(found, part)
    return found


def _named_layers(layers: tuple[str, ...]) -> dict[str, Any]:
    """By the short name where only one layer has it, by the whole one otherwise."""
    if not layers:
        raise SettingError("no layer is named", "name some, such as gru or mylayers:Mine")
    whole = list(dict.fromkeys(layers))
    short = [layer.rpartition(":")[2] for layer in whole]
    with contextlib.redirect_stdout(sys.stderr):  # what a layer's module prints is no answer
        return {
            name if short.count(name) == 1 else layer: _found(layer)
            for name, layer in zip(short, whole, strict=True)
        }


def _profile(command: Profile) -> int:
    layers = _named_layers(command.layers)
    if command.parameters is not None and command.state is not None:
        raise SettingError(
            "--parameters and --state both set the size", "give one of them, and --hidden to none"
        )
    if command.out.suffix not in (".svg", ".png", ".pdf"):
        raise SettingError(f"--out is {command.out}", "end it in .svg, .png or .pdf")
    saved = command.out.with_suffix(".json")
    for path in (command.out, saved):
        _free(path, command.overwrite)

    from echospan.checkpoint import write_whole
    from echospan.errors import DivergenceError
    from echospan.plots import picture, profile_plot

    profiles: list[Any] = []
    failed: list[EchospanError] = []
    interrupted = False
    try:
        with (
            contextlib.redirect_stdout(sys.stderr),
            _watching_layers([*layers], command) as on_progress,
        ):
            # All are looked at before the first is trained: a refusal comes at once.
            measures = [_measurer(name, layer, command) for name, layer in layers.items()]
            for measure in measures:
                try:
                    profiles.append(measure(on_progress=on_progress))
                except EchospanError as e:
                    if not profiles and not isinstance(e, DivergenceError):
                        raise
                    failed.append(e)  # what was measured before it is kept
    except KeyboardInterrupt:
        interrupted = True
    if profiles:
        told = "[\n" + ",\n".join(p.to_json() for p in profiles) + "\n]\n"
        write_whole(saved, told.encode())
        write_whole(command.out, picture(profile_plot(profiles), command.out.suffix[1:]))
        if command.json:
            print(json.dumps({"profiles": json.loads(told), "figure": str(command.out)}))
        else:
            _show_profiles(profiles, command)
    for error in failed:
        print(f"echospan: {error}", file=sys.stderr)
    return 130 if interrupted else 2 if failed else 0


def _free(path: Path, overwrite: bool) -> None:
    """Whether a file may be written there, found out before the work and not after it."""
    if path.is_dir() or (path.exists() and not overwrite):
        raise SettingError(f"{path} exists already", "name another with --out, or --overwrite")
    if not path.resolve().parent.is_dir():
        raise SettingError(f"{path.parent} is no folder", "make it, or name another")
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as e:
        raise SettingError(
            f"nothing can be written to {path.resolve().parent} ({e.strerror})", "name another"
        ) from None


def _measurer(name: str, layer: Any, command: Profile) -> Callable[..., Any]:
    """What profiles a layer, once its size is found and its promises are looked at."""
    from echospan.alphabet import alphabet
    from echospan.layers import fit_hidden, trusted
    from echospan.profiling import profile

    hidden = command.hidden
    if command.parameters is not None or command.state is not None:
        hidden = fit_hidden(
            layer,
            parameters=command.parameters,
            state=command.state,
            max_delay=command.max_delay,
            features=command.features,
            alphabet=command.alphabet,
        )
    trusted(layer, len(alphabet(command.alphabet)) + 1, hidden or 128, command.features, 0)
    return functools.partial(
        profile,
        layer,
        command.max_delay,
        seconds=command.seconds,
        symbols=command.symbols,
        hidden=hidden,
        features=command.features,
        seeds=command.seeds,
        learning_rates=command.learning_rates,
        alphabet=command.alphabet,
        at=command.at,
        name=name,
    )


def _show_profiles(profiles: list[Any], command: Profile) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    narrow = console.width < 100  # what the file of the profiles holds may be left out here
    headings = [
        h for h in profiles[0].row() if not (narrow and h in ("/state", "grad", "k/s", "µs"))
    ]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in headings:
        side: Literal["left", "right"] = "left" if heading in ("core", "") else "right"
        table.add_column(heading, justify=side, no_wrap=True)
    for p in profiles:
        row = p.row()
        table.add_row(*(row[h] for h in headings))
    console.print(table)
    budget = f"{command.symbols:,} symbols" if command.symbols else f"{command.seconds:g} s"
    rates = ", ".join(f"{p.seeds[0].learning_rate:g} {p.name}" for p in profiles)
    legend = {
        "span": f"span: learnt end to end, at {command.at:.0%} recall, delays 0 to "
        f"{command.max_delay}",
        "reads": "reads, stores: found by a linear and an MLP probe",
        "bits": f"bits: recalled, of {profiles[0].bits_asked:.1f}",
        "/state": "/state: for each number carried",
        "grad": "grad: how far the gradient reaches",
        "k/s": "k/s: thousand symbols a second in training",
        "µs": "µs: of one streamed symbol",
        "": "rising: recall had not stopped growing",
    }
    console.print(
        "; ".join(text for heading, text in legend.items() if heading in headings)
        + f". {budget} for each layer and seed, seeds {' '.join(map(str, command.seeds))}, Adam "
        f"at {rates}. Figure: {command.out}, all figures: {command.out.with_suffix('.json')}"
    )


@contextlib.contextmanager
def _watching_layers(
    names: list[str], command: Profile
) -> Iterator[Callable[[str, "Progress"], None]]:
    """A bar for each layer on a terminal; in a pipe a line every few seconds of training."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console, shown = Console(stderr=True), dict.fromkeys(names, 0.0)

    def state(p: "Progress") -> str:
        recall = [d.recall for d in p.evaluation.delays]
        span = next((d for d, r in enumerate(recall) if r < command.at), len(recall)) - 1
        return f"mean recall {sum(recall) / len(recall):.1%}, span so far {span}"

    def line(name: str, p: "Progress") -> None:
        if p.reached or p.used >= 1 or not shown[name] <= p.seconds < shown[name] + 3:
            shown[name] = p.seconds
            print(f"{name}: {p.seconds:.1f} s, step {p.step}, {state(p)}", file=sys.stderr)

    if not console.is_terminal:
        yield line
        return
    with Bar(
        TextColumn("{task.description:12}"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        console=console,
    ) as bar:
        tasks = {name: bar.add_task(name, total=1.0, told="") for name in names}

        def draw(name: str, p: "Progress") -> None:
            bar.update(tasks[name], completed=p.used, told=state(p))

        yield draw


def _check(command: Check) -> int:
    from echospan.checks import check
    from echospan.cores import CORES

    with contextlib.redirect_stdout(sys.stderr):
        reports = {
            name: check(
                CORES[layer] if isinstance(layer, str) else layer, features=command.features
            )
            for name, layer in _named_layers(command.layers).items()
        }
    good = all(r.ok for results in reports.values() for r in results)
    if command.json:
        told = {n: [dataclasses.asdict(r) for r in results] for n, results in reports.items()}
        print(json.dumps({"ok": good, "layers": told}))
        return 0 if good else 1
    for name, results in reports.items():
        for r in results:
            said = f"{name}: {'ok  ' if r.ok else 'FAIL'} {r.name.replace('_', ' ')}"
            print(said + (f": {r.seen}; {r.remedy}" if r.seen else ""))
    return 0 if good else 1


def _selftest(command: SelfTest) -> int:
    from echospan.selftest import selftest

    result = selftest(command.seed)
    if command.json:
        print(json.dumps(result.as_dict()))
        return 0 if result.passed else 1
    for a in result.answers:
        print(
            f"{'ok  ' if a.passed else 'FAIL'} {a.name}: {a.measured:.6g}, known {a.expected:.6g} "
            f"± {a.allowed:.2g}"
        )
    print(f"{len(result.failed)} of {len(result.answers)} known answers missed")
    return 0 if result.passed else 1


def _measure(
    model: "EchoModel", stream: int, trials: int, seed: int, window: int
) -> tuple["Evaluation", dict[str, Any]]:
    from echospan import homework
    from echospan.evaluation import evaluate, length_recall, stream_errors

    for flag, value, least in (("--stream", stream, 0), ("--trials", trials, 1)):
        if value < least:
            raise SettingError(f"{flag} is {value}", f"use a whole number of {least} or more")
    evaluation = evaluate(model, trials=trials, seed=seed)
    streamed = None
    if stream:
        symbols, errors = stream_errors(model, stream, seed=seed + 1)
        streamed = {"symbols": symbols, "errors": errors}
    lengths = length_recall(model, window, trials=trials, seed=seed + 2)
    random.seed(seed)  # the assignment's graders draw from Python's own generator
    return evaluation, {
        "stream": streamed,
        "lengths": lengths,
        "assignment_grader": homework.grade(model),
    }


def _report(
    model: "EchoModel", evaluation: "Evaluation", more: dict[str, Any], target: float
) -> dict[str, Any]:
    import torch

    from echospan import __version__

    return {
        "target": target,
        "reached": evaluation.reached(model.config.asked, target),
        "delays": [d.as_dict() for d in evaluation.delays],
        "blank_accuracy": evaluation.blank_accuracy,
        "span": evaluation.span(target),
        "recalled_bits": evaluation.recalled_bits,
        **more,
        "versions": {
            "echospan": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
    }


def _train(command: Train) -> int:
    from echospan.checkpoint import check_output, save
    from echospan.plots import recall_plot, training_plot
    from echospan.training import train

    if command.stream < 0:
        raise SettingError(f"--stream is {command.stream}", "use a whole number of 0 or more")
    check_output(command.out, command.overwrite)
    recipe = Recipe(model=command.model, training=command.training)
    with _watching(command.out.name, recipe) as on_progress:
        result = train(recipe, on_progress)
    model = result.model.to(recipe.training.device)
    evaluation, more = _measure(model, command.stream, 50_000, 1, recipe.window)
    target = recipe.training.target
    report = {
        "run": str(command.out),
        "seed": recipe.training.seed,
        "seconds_to_target": result.seconds_to_target,
        "seconds": result.seconds,
        "steps": result.steps,
        "symbols": result.symbols,
        "settings": dataclasses.asdict(recipe),
    } | _report(result.model, evaluation, more, target)
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
    files = {
        "evaluation.json": json.dumps(report, indent=2) + "\n",
        "history.jsonl": "".join(line + "\n" for line in lines),
        "recall.svg": recall_plot(evaluation, 1 / len(result.model.alphabet), target),
        "training.svg": training_plot(result.history),
    }
    save(result.model, recipe.training, command.out, files, command.overwrite)
    _show(report, command.json)
    if result.interrupted:
        return 130
    return 0 if report["reached"] else 1


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


def _evaluate(command: Evaluate) -> int:
    from echospan.checkpoint import load_recipe
    from echospan.training import find_device

    device = find_device(command.device)
    if not command.runs:
        raise SettingError("no run folder is named", "name one or more, such as runs/variable")
    loaded = [load_recipe(run) for run in command.runs]
    reports = []
    for run, (model, recipe) in zip(command.runs, loaded, strict=True):
        evaluation, more = _measure(
            model.to(device), command.stream, command.trials, command.seed, recipe.window
        )
        reports.append(
            {"run": str(run), "seed": command.seed, "settings": dataclasses.asdict(recipe)}
            | _report(model, evaluation, more, command.target)
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

    table = Table(title=report["run"])
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
        + (f", stream of {report['stream']['symbols']:,} symbols" if report["stream"] else "")
    )
    if report["assignment_grader"] is not None:
        console.print(f"the assignment's grader {report['assignment_grader']:.4f}")
    lengths = ", ".join(f"{m['length']}: {min(m['recall']):.2%}" for m in report["lengths"])
    console.print(f"lowest recall by length of the sequence {lengths}")
    if "steps" in report:
        at = report["seconds_to_target"]
        console.print(
            (f"target {report['target']:.0%} reached in {at:.2f} s" if at else "target not reached")
            + f"; {report['seconds']:.2f} s, {report['steps']} steps in all"
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
        row = [
            r["run"],
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


def _asked(report: dict[str, Any]) -> tuple[int, ...]:
    return ModelConfig(**report["settings"]["model"]).asked


def _echo(command: Echo) -> int:
    from echospan.checkpoint import load
    from echospan.streaming import Stream

    model = load(command.run)
    stream = Stream(model, command.delay)
    position = 0
    source = [command.text] if command.text is not None else _arriving(sys.stdin)
    for text in source:
        said = []
        kept = _let_by(text, model.alphabet.characters, command.other)
        ids = model.alphabet.encode("".join(c for c, symbol in kept if symbol), position)
        answers = iter(model.alphabet.decode(stream.push_ids(ids), BLANK_MARK))
        for c, symbol in kept:
            said.append(next(answers) if symbol else c)
        position += len(text)
        sys.stdout.write("".join(said))
        sys.stdout.flush()
    if command.text is not None:
        print()
    return 0


def _let_by(text: str, symbols: str, other: str) -> list[tuple[str, bool]]:
    """Each character of the answer's place, and whether it is a symbol to be echoed."""
    kept = []
    for c in text:
        if c in symbols or (other == "fail" and c not in "\r\n"):
            kept.append((c, True))
        elif c in "\r\n" or other == "keep":
            kept.append((c, False))
    return kept


def _arriving(source: TextIO) -> Iterator[str]:
    """Text as it arrives: what is there is taken at once, never waited for."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while data := os.read(source.fileno(), 65536):
        if text := decoder.decode(data):
            yield text
