"""The commands; the only folder that prints or exits."""

import functools
import operator
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, cast

import tyro

from echospan import __version__, signals
from echospan.cli import benches, exports, layers, pages, runs
from echospan.cli.parsing import parse
from echospan.errors import AlphabetError, DivergenceError, EchospanError, SettingError, nearest
from echospan.recipes import BY_INPUT, RECIPES
from echospan.text import plain

COMMANDS: dict[str, tuple[type[Any], str, Callable[[Any], int]]] = {
    "train": (runs.Train, f"{{{','.join(RECIPES)}}}", runs.train),
    "evaluate": (runs.Evaluate, "RUN …", runs.evaluate),
    "echo": (runs.Echo, "RUN [TEXT]", runs.echo),
    "export": (exports.Export, "RUN -o PLACE", exports.export),
    "profile": (layers.Profile, "LAYER …", layers.profile),
    "check": (layers.Check, "LAYER …", layers.check),
    "selftest": (layers.SelfTest, "", layers.selftest),
    "bench": (benches.Bench, "[GRID …]", benches.bench),
    "results": (benches.Results, "STORE", benches.results),
    "report": (benches.Report, "STORE", benches.report),
    "serve": (pages.Serve, "RUN …", pages.serve),
}
"""By name: settings, what stands behind it, and what is done, which returns the exit code."""


_SEEN_BY_ALL = (AlphabetError, SettingError, DivergenceError)


def main(argv: list[str] | None = None) -> None:
    """Run one command; exits 0, 1, 2 or 130 as the documentation says.

    `--debug`, anywhere, shows the traceback of what was refused.
    """
    args = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    signals.raise_once_a_press()
    try:
        name, settings = _parse(args)
        sys.exit(COMMANDS[name][2](settings))
    except EchospanError as e:
        if debug:
            raise
        # Under torchrun every process sees what is wrong with the request: one says it.
        another = "TORCHELASTIC_RUN_ID" in os.environ and os.environ["RANK"] != "0"
        if not (another and isinstance(e, _SEEN_BY_ALL)):
            print(f"echospan: {plain(e.command_line(), 2_000)}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # Who reads our answers has seen enough; nothing is left to say, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def _parse(args: list[str]) -> tuple[str, Any]:
    name = args[0] if args else ""
    if name == "train":
        return name, _parse_train(args[1:])
    if name in COMMANDS:
        settings, shape, _ = COMMANDS[name]
        return name, parse(settings, args[1:], f"echospan {name}", shape)
    if name == "--version":
        print(f"echospan {__version__}")
        sys.exit(0)
    if args and name not in ("-h", "--help"):
        raise SettingError(
            f"there is no command {name!r}",
            nearest(name, COMMANDS) + f"use one of {', '.join(COMMANDS)}",
        )
    print(
        f"usage: echospan {{{','.join(COMMANDS)}}} …\n\n"
        + "".join(f"  {n + ' ' + shape:28}{c.__doc__}\n" for n, (c, shape, _) in COMMANDS.items())
        + "\nechospan COMMAND --help lists the settings of a command; echospan --version says "
        "which one this is.",
        file=sys.stdout if args else sys.stderr,
    )
    sys.exit(0 if args else 2)


def _parse_train(args: list[str]) -> runs.Train:
    name = args[0] if args else ""
    if name not in (*RECIPES, "-h", "--help"):
        raise SettingError(
            f"there is no recipe {name!r}" if name and name[0] != "-" else "no recipe is named",
            nearest(name, RECIPES) + f"use one of {', '.join(RECIPES)}",
        )
    trains: list[Any] = []
    by_input = "--conditioning=input" in args or ("--conditioning", "input") in pairwise(args)
    for recipe_name, recipe in RECIPES.items():
        if by_input and recipe_name == "variable":
            recipe = BY_INPUT  # its own defaults, shown by --help too
        out = Path("runs", recipe_name)
        default = runs.Train(model=recipe.model, training=recipe.training, out=out)
        trains.append(Annotated[runs.Train, tyro.conf.subcommand(recipe_name, default=default)])
    train: Any = functools.reduce(operator.or_, trains)
    return cast(runs.Train, parse(runs.Train, args, f"echospan train {name}", of=train))
