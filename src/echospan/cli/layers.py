"""Commands on layers: profile, check, selftest."""

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from echospan.alphabet import NAMED
from echospan.cli.flags import Whole
from echospan.cli.places import free
from echospan.errors import EchospanError, SettingError

if TYPE_CHECKING:
    from echospan.training import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Train layers and say what each remembers, how sure that is, and what it costs."""

    layers: tyro.conf.Positional[tuple[str, ...]]
    """Names of our cores, or package.module:factory of yours (a class will do)."""
    max_delay: int = 16
    """The longest delay that is asked."""
    seconds: float = 45.0
    """All of a layer's time, for each seed: training, probes and evaluation share it."""
    symbols: Whole | None = None
    """Symbols of training instead of seconds: the same work, and figures, everywhere."""
    hidden: int | None = None
    """Width of each layer; the layer's own default where left out, or 128 (delay_line: what is
    asked)."""
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
    """Its symbols: letters, digits, letters-digits, bits, or any string of distinct characters."""
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


def _named_layers(layers: tuple[str, ...]) -> dict[str, Any]:
    """By the short name where only one layer has it, by the whole one otherwise."""
    if not layers:
        raise SettingError("no layer is named", "name some, such as gru or mylayers:Mine")
    whole = list(dict.fromkeys(layers))
    short = [layer.rpartition(":")[2] for layer in whole]
    from echospan.layers import find

    with contextlib.redirect_stdout(sys.stderr):  # what a layer's module prints is no answer
        return {
            name if short.count(name) == 1 else layer: find(layer)
            for name, layer in zip(short, whole, strict=True)
        }


def profile(command: Profile) -> int:
    """Exit 0: every layer has a profile; 2: one was refused, failed or diverged.

    What has been measured is printed and written in either case.
    """
    layers = _named_layers(command.layers)
    if command.parameters is not None and command.state is not None:
        raise SettingError(
            "--parameters and --state both set the size", "give one of them, and --hidden to none"
        )
    if command.out.suffix not in (".svg", ".png", ".pdf"):
        raise SettingError(f"--out is {command.out}", "end it in .svg, .png or .pdf")
    saved = command.out.with_suffix(".json")
    for path in (command.out, saved):
        free(path, command.overwrite)

    from echospan.checkpoint import write_whole
    from echospan.plots import picture, profile_plot

    profiles: list[Any] = []
    failed: list[EchospanError] = []
    interrupted = False
    try:
        with contextlib.redirect_stdout(sys.stderr):
            # All are tried before the first is trained: a refusal comes at once.
            measures = [_measurer(name, layer, command) for name, layer in layers.items()]
            widths = {name: width for name, (width, _) in zip(layers, measures, strict=True)}
            with _watching_layers(widths, command) as watch:
                for _, measure in measures:
                    try:
                        profiles.append(measure(on_progress=watch))
                    except EchospanError as e:
                        if not profiles and isinstance(e, SettingError):
                            raise  # what was asked of all of them
                        failed.append(e)  # the others are measured all the same
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
    return 130 if interrupted else _said_of(failed, bool(profiles))


def _said_of(failed: list[EchospanError], others: bool) -> int:
    """Print what failed, and return the exit code; the last error is raised where all failed."""
    last = [] if others else failed[-1:]
    for error in failed[: len(failed) - len(last)]:
        print(f"echospan: {error.command_line()}", file=sys.stderr)
    for refused in last:
        raise refused
    return 2 if failed else 0


def _measurer(name: str, layer: Any, command: Profile) -> tuple[int, Callable[..., Any]]:
    """The width of a layer, and what profiles it, once it is known to be sound."""
    from echospan.alphabet import alphabet
    from echospan.devices import standard_modes
    from echospan.layers import default_hidden, fit_hidden, trusted
    from echospan.profiling import profile as measured

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
    symbols = len(alphabet(command.alphabet)) + 1
    width = default_hidden(layer, symbols, command.max_delay) if hidden is None else hidden
    with standard_modes():
        core = trusted(layer, symbols, width, command.features, 0)
    return core.hidden_size, functools.partial(
        measured,
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
        "hidden": "hidden: width of the output",
        "": "rising: recall had not stopped growing",
    }
    for p in profiles:
        if p.note:
            console.print(f"{p.name}: {p.note}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        "; ".join(text for heading, text in legend.items() if heading in headings)
        + f". {budget} for each layer and seed, seeds {' '.join(map(str, command.seeds))}, Adam "
        f"at {rates}. Figure: {command.out}, all figures: {command.out.with_suffix('.json')}"
    )


@contextlib.contextmanager
def _watching_layers(
    widths: dict[str, int], command: Profile
) -> Iterator[Callable[[str, "Progress"], None]]:
    """A bar for each layer on a terminal; in a pipe a line every few seconds of training.

    `widths`: that which each layer has, by its name.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console, shown = Console(stderr=True), dict.fromkeys(widths, 0.0)

    def state(p: "Progress") -> str:
        recall = [d.recall for d in p.evaluation.delays]
        mean, span = sum(recall) / len(recall), p.evaluation.span(command.at)
        return f"mean recall {mean:.1%}, span so far {span}"

    def line(name: str, p: "Progress") -> None:
        if p.reached or p.used >= 1 or not shown[name] <= p.seconds < shown[name] + 3:
            shown[name] = p.seconds
            print(
                f"{name}, hidden {widths[name]}: {p.seconds:.1f} s, step {p.step}, {state(p)}",
                file=sys.stderr,
            )

    if not console.is_terminal:
        yield line
        return
    with Bar(
        TextColumn("{task.description:24}"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        console=console,
    ) as bar:
        tasks = {
            name: bar.add_task(f"{name}, hidden {width}", total=1.0, told="")
            for name, width in widths.items()
        }

        def draw(name: str, p: "Progress") -> None:
            bar.update(tasks[name], completed=p.used, told=state(p))

        yield draw


def check(command: Check) -> int:
    """Exit 0: every promise is kept; 1: one is not; 2: a layer was refused.

    The results of the others are printed in either case.
    """
    from echospan.checks import check as checked
    from echospan.cores import CORES
    from echospan.output import muted

    layers = _named_layers(command.layers)
    reports: dict[str, Any] = {}
    failed: list[EchospanError] = []
    for name, layer in layers.items():
        try:
            with muted():
                reports[name] = checked(
                    CORES[layer] if isinstance(layer, str) else layer, features=command.features
                )
        except EchospanError as e:
            failed.append(e)
    good = all(r.ok for results in reports.values() for r in results)
    if command.json and reports:
        told = {n: [dataclasses.asdict(r) for r in results] for n, results in reports.items()}
        print(json.dumps({"ok": good and not failed, "layers": told}))
    elif not command.json:
        for name, results in reports.items():
            for r in results:
                line = f"{name}: {'ok  ' if r.ok else 'FAIL'} {r.name.replace('_', ' ')}"
                more = f": {r.seen}; {r.remedy}" if r.seen else f" ({r.note})" if r.note else ""
                print(line + more)
    return _said_of(failed, bool(reports)) or (0 if good else 1)


def selftest(command: SelfTest) -> int:
    """Exit 0: every known answer is met; 1: one is missed."""
    from echospan.selftest import selftest as tested

    result = tested(command.seed)
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
