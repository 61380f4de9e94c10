"""The command that opens the page: serve."""

import contextlib
import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from echospan import shipping
from echospan.cli.places import NAME_ONE, printable, there
from echospan.errors import SettingError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve:
    """Open a page on which one types and sees what models hold in memory, side by side."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """The run folders; all read the same keys."""
    model: tuple[str, ...] = ()
    """Models that are shipped with the package, by name, shown beside the runs."""
    port: int = 8737
    """Where it listens; 0 picks a port that is free."""
    host: str = "127.0.0.1"
    """The address it listens on: this machine's own alone, unless another is named."""
    allow_host: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A name that the page may be opened under beside addresses and localhost, such as
    hub.example.org where a proxy stands before it. May be given several times."""


def serve(command: Serve) -> int:
    """Exit 0 once it is ended, by Ctrl-C (SIGINT) or SIGTERM."""
    folders = [there(run) for run in command.runs]
    folders += [shipping.folder(name) for name in command.model]
    if not folders:
        raise SettingError("no run folder is named", NAME_ONE)
    try:
        from echospan.web.guard import host_name
        from echospan.web.limits import Limits, raise_descriptors
        from echospan.web.server import Server, listen
    except ModuleNotFoundError as e:
        raise SettingError(
            f"{str(e.name).partition('.')[0]} is not installed", "pip install 'echospan[web]'"
        ) from None
    names = [host_name(name) for name in command.allow_host]
    import torch

    from echospan.checkpoint import load_run
    from echospan.web.served import Served

    torch.set_num_threads(1)  # these models are too small for two: the second one only waits
    runs = [load_run(folder) for folder in folders]
    models = [
        Served(name, run.model, run.recall) for name, run in zip(_names(folders), runs, strict=True)
    ]
    limits = Limits()
    raise_descriptors(limits)
    running = Server(models, limits, [command.host.lower(), *names])
    with listen(command.host, command.port) as listening:
        host = f"[{command.host}]" if ":" in command.host else command.host
        port = listening.getsockname()[1]
        if isinstance(sys.stdout, io.TextIOWrapper):  # names may be beyond the terminal's encoding
            sys.stdout.reconfigure(errors="backslashreplace")
        print(f"http://{host}:{port}/ shows {', '.join(m.name for m in models)}", flush=True)
        if running.limits.visitors < limits.visitors:
            print(
                f"open to {running.limits.visitors} visitors at a time: the system allows no more "
                "open files (ulimit -n)",
                file=sys.stderr,
            )
        print("Ctrl-C ends it", file=sys.stderr)
        with contextlib.suppress(KeyboardInterrupt):  # where signals have no handler: Windows
            running.run(listening)
    return 0


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' own names, where these differ; else as they were given."""
    names = [printable(run.resolve().name) for run in runs]
    return names if len(set(names)) == len(names) else [printable(run) for run in runs]
