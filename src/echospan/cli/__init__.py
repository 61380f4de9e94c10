"""The commands; the only folder that prints or exits."""

import difflib
import functools
import operator
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, cast

import tyro

from echospan.cli import benches, layers, pages, runs
from echospan.errors import EchospanError, SettingError
from echospan.recipes import BY_INPUT, RECIPES

COMMANDS: dict[str, tuple[type[Any], str, Callable[[Any], int]]] = {
    "train": (runs.Train, f"{{{','.join(RECIPES)}}}", runs.train),
    "evaluate": (runs.Evaluate, "RUN …", runs.evaluate),
    "echo": (runs.Echo, "RUN [TEXT]", runs.echo),
    "profile": (layers.Profile, "LAYER …", layers.profile),
    "check": (layers.Check, "LAYER …", layers.check),
    "selftest": (layers.SelfTest, "", layers.selftest),
    "bench": (benches.Bench, "[GRID …]", benches.bench),
    "results": (benches.Results, "STORE", benches.results),
    "report": (benches.Report, "STORE", benches.report),
    "serve": (pages.Serve, "RUN …", pages.serve),
}
"""By name: settings, what stands behind it, and what is done, which returns the exit code."""


def main(argv: list[str] | None = None) -> None:
    """Run one command; exits 0, 1, 2 or 130 as the documentation says.

    `--debug`, anywhere, shows the traceback of what was refused.
    """
    args = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    try:
        name, settings = _parse(args)
        sys.exit(COMMANDS[name][2](settings))
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


def _parse(args: list[str]) -> tuple[str, Any]:
    name = args[0] if args else ""
    if name == "train":
        return name, _parse_train(args[1:])
    if name in COMMANDS:
        return name, tyro.cli(COMMANDS[name][0], prog=f"echospan {name}", args=args[1:])
    usage = (
        f"usage: echospan {{{','.join(COMMANDS)}}} …\n\n"
        + "".join(f"  {n + ' ' + shape:28}{c.__doc__}\n" for n, (c, shape, _) in COMMANDS.items())
        + "\nechospan COMMAND --help lists the settings of a command."
    )
    if name in ("-h", "--help"):
        print(usage)
        sys.exit(0)
    print(usage, file=sys.stderr)
    if args:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        raise SettingError(
            f"there is no command {name!r}",
            (f"did you mean {near[0]}? " if near else "") + f"use one of {', '.join(COMMANDS)}",
        )
    sys.exit(2)


def _parse_train(args: list[str]) -> runs.Train:
    trains: list[Any] = []
    by_input = "--conditioning=input" in args or ("--conditioning", "input") in pairwise(args)
    for name, recipe in RECIPES.items():
        if by_input and name == "variable":
            recipe = BY_INPUT  # its own defaults, shown by --help too
        default = runs.Train(model=recipe.model, training=recipe.training, out=Path("runs", name))
        trains.append(Annotated[runs.Train, tyro.conf.subcommand(name, default=default)])
    train: Any = functools.reduce(operator.or_, trains)
    flat = (tyro.conf.OmitArgPrefixes,)
    return cast(runs.Train, tyro.cli(train, prog="echospan train", args=args, config=flat))
