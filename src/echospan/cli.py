"""The commands: train, evaluate, echo. The only module that prints or exits."""

import dataclasses
import functools
import json
import operator
import os
import platform
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, cast

import tyro

from echospan.alphabet import BLANK_MARK
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
    """Measure a run on fresh data: recall by delay, blanks, span, bits, stream errors."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
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


def main(argv: list[str] | None = None) -> None:
    """Run one command; exits 0, 1, 2 or 130 as the documentation says."""
    args = sys.argv[1:] if argv is None else argv
    try:
        sys.exit(_run(_parse(args)))
    except EchospanError as e:
        print(f"echospan: {e}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # Who reads our answers has seen enough; nothing is left to say, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def _parse(args: list[str]) -> Train | Evaluate | Echo:
    trains: list[Any] = []
    by_input = "--conditioning=input" in args or ("--conditioning", "input") in pairwise(args)
    for name, recipe in RECIPES.items():
        if by_input and name == "variable":
            recipe = BY_INPUT  # its own defaults, shown by --help too
        default = Train(model=recipe.model, training=recipe.training, out=Path("runs", name))
        trains.append(Annotated[Train, tyro.conf.subcommand(name, default=default)])
    train: Any = functools.reduce(operator.or_, trains)
    commands: Any = {"evaluate": Evaluate, "echo": Echo}
    if args[:1] == ["train"]:
        flat = (tyro.conf.OmitArgPrefixes,)
        return cast(Train, tyro.cli(train, prog="echospan train", args=args[1:], config=flat))
    if args and args[0] in commands:
        parsed: Evaluate | Echo = tyro.cli(
            commands[args[0]], prog=f"echospan {args[0]}", args=args[1:]
        )
        return parsed
    usage = (
        "usage: echospan {train,evaluate,echo} …\n\n"
        f"  train {{{','.join(RECIPES)}}}   {Train.__doc__}\n"
        f"  evaluate RUN             {Evaluate.__doc__}\n"
        f"  echo RUN [TEXT]          {Echo.__doc__}\n\n"
        "echospan COMMAND --help lists the settings of a command."
    )
    if args and args[0] in ("-h", "--help"):
        print(usage)
        sys.exit(0)
    print(usage, file=sys.stderr)
    if args:
        raise SettingError(f"there is no command {args[0]!r}", "use train, evaluate or echo")
    sys.exit(2)


def _run(command: Train | Evaluate | Echo) -> int:
    if isinstance(command, Train):
        return _train(command)
    if isinstance(command, Evaluate):
        return _evaluate(command)
    return _echo(command)


def _measure(
    model: "EchoModel", stream: int, trials: int, seed: int, window: int
) -> tuple["Evaluation", dict[str, Any]]:
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
    return evaluation, {"stream": streamed, "lengths": lengths}


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
    result = train(recipe, _progress)
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


def _progress(progress: "Progress") -> None:
    recall = " ".join(f"{d.recall:.3f}" for d in progress.evaluation.delays)
    print(
        f"step {progress.step:5d}  {progress.seconds:6.2f} s  loss {progress.loss:.4f}  "
        f"recall by delay {recall}",
        file=sys.stderr,
    )


def _evaluate(command: Evaluate) -> int:
    from echospan.checkpoint import load_recipe
    from echospan.training import find_device

    device = find_device(command.device)
    model, recipe = load_recipe(command.run)
    evaluation, more = _measure(
        model.to(device), command.stream, command.trials, command.seed, recipe.window
    )
    report = {
        "run": str(command.run),
        "seed": command.seed,
        "settings": dataclasses.asdict(recipe),
    } | _report(model, evaluation, more, command.target)
    _show(report, command.json)
    return 0 if report["reached"] else 1


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
    lengths = ", ".join(f"{m['length']}: {min(m['recall']):.2%}" for m in report["lengths"])
    console.print(f"lowest recall by length of the sequence {lengths}")
    if "steps" in report:
        at = report["seconds_to_target"]
        console.print(
            (f"target {report['target']:.0%} reached in {at:.2f} s" if at else "target not reached")
            + f"; {report['seconds']:.2f} s, {report['steps']} steps in all"
        )


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
