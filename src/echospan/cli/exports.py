"""Commands that take a run elsewhere: export."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from echospan.cli.places import apart, free, one_folder, printable
from echospan.errors import ExportError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write a model for programs without PyTorch, once it is sure to answer there as it does here.

    onnx: a folder with the graph of whole sequences, that of one step, and what they mean.
    html: the page of `echospan serve` as one file that needs no server, the model inside.
    """

    run: tyro.conf.Positional[Path | None] = None
    """The run folder; left out where --model names a model that is shipped."""
    model: str | None = None
    """One that is shipped, instead of a run folder: fixed, variable or bits."""
    format: Literal["onnx", "html"] = "onnx"
    """What is written."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """Where to."""
    overwrite: bool = False
    """Replace the export that is there."""
    json: bool = False
    """Print one JSON object."""


def export(command: Export) -> int:
    """Exit 0: it is written; 1: what was made did not answer as its model, and nothing is."""
    name, folder = one_folder(command.run, command.model)
    apart("--out", command.out, folder)
    if command.format == "onnx":
        return _onnx(command, folder)
    return _html(command, name, folder)


def _html(command: Export, name: str, folder: Path) -> int:
    from echospan.checkpoint import load_run, write_whole
    from echospan.export import pack
    from echospan.web.single_file import single_file

    free(command.out, command.overwrite)
    run = load_run(folder)
    page = single_file(pack(run.model, name, run.recall)).encode()
    write_whole(command.out, page)
    if command.json:
        print(json.dumps({"out": str(command.out), "bytes": len(page)}))
    else:
        print(f"{printable(command.out)}: {len(page) / 1000:.0f} kB; open it in a browser")
    return 0


def _onnx(command: Export, folder: Path) -> int:
    from echospan.checkpoint import load
    from echospan.export import check_export, export_onnx

    check_export(command.out, command.overwrite)
    try:
        parity = export_onnx(load(folder), command.out, overwrite=command.overwrite)
    except ExportError as e:
        print(f"echospan: {e.command_line()}", file=sys.stderr)
        return 1
    if command.json:
        print(json.dumps({"out": str(command.out), "parity": dataclasses.asdict(parity)}))
        return 0
    print(
        f"{command.out}: {', '.join(sorted(p.name for p in command.out.iterdir()))}\n"
        f"beside PyTorch, largest difference of logits and states: {parity.drawn:.1e} in "
        f"{parity.draws} drawn inputs, {parity.chained:.1e} in {parity.steps:,} chained steps"
    )
    return 0
