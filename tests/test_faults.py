"""A write that fails at any step, for any reason, leaves what was there or what was to be there.

The faults are real where they can be: a disk that is full is a limit on the size of files. Where a
folder may not be written to, and at each step a program takes on its way, Python's audit events
tell what is about to be done, and refuse it, interrupt it or kill the process there.
"""

import contextlib
import errno
import os
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from echospan.benching import CellResult
from echospan.checkpoint import load, read_snapshot, save, write_snapshot
from echospan.errors import EchospanError, StoreError
from echospan.grids import Grid
from echospan.model import EchoModel
from echospan.recipes import ModelConfig, Recipe
from echospan.store import Store
from echospan.streaming import Stream
from taken import snapshot

STEPS = ("open", "os.mkdir", "os.rename", "os.chmod", "os.remove", "os.rmdir")
"""The audit events of what changes a folder."""


@dataclass
class Saboteur:
    """Counts the steps that touch a folder, and does something at one of them."""

    folder: Path
    at: int
    do: Callable[[], None]
    seen: int = 0


_at_work: list[Saboteur] = []
_hooked: list[bool] = []


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if not _at_work or event not in STEPS:
        return
    saboteur = _at_work[0]
    if not str(args[0]).startswith(str(saboteur.folder)):
        return
    if event == "open" and not (args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    saboteur.seen += 1
    if saboteur.seen == saboteur.at:
        saboteur.do()


@contextlib.contextmanager
def sabotage(folder: Path, at: int, do: Callable[[], None]) -> Iterator[Saboteur]:
    if not _hooked:
        sys.addaudithook(_hear)  # for good: there is no way to take one away
        _hooked.append(True)
    saboteur = Saboteur(folder, at, do)
    _at_work.append(saboteur)
    try:
        yield saboteur
    finally:
        _at_work.clear()


@contextlib.contextmanager
def a_disk_with_room_for(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refuse() -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def interrupt() -> None:
    raise KeyboardInterrupt


def die() -> None:
    os._exit(9)


RECIPE = Recipe(model=ModelConfig(alphabet="ab", hidden=4, max_delay=1))
CELLS = Grid(cores=("gru",), hidden=(4, 8), max_delay=(1,), symbols=(100,)).cells()


def a_model(mark: float) -> EchoModel:
    """One whose weights tell which it is."""
    torch.manual_seed(0)
    model = EchoModel(RECIPE.model).eval()
    torch.nn.init.constant_(model.readouts.bias, mark)
    return model


def write_run(folder: Path, mark: float) -> None:
    save(a_model(mark), RECIPE.training, folder / "run", {"note": f"{mark}"}, overwrite=True)


def read_run(folder: Path) -> object:
    bias = load(folder / "run").readouts.bias[0].item()
    assert (folder / "run" / "note").read_text() == f"{bias}"
    return bias


def write_a_snapshot(folder: Path, mark: float) -> None:
    taken = snapshot(2)
    write_snapshot(folder / "run", replace(taken, facts=taken.facts | {"seconds": mark}))


def read_a_snapshot(folder: Path) -> object:
    kept = read_snapshot(folder / "run")
    return None if kept is None else kept.facts["seconds"]


def write_state(folder: Path, mark: float) -> None:
    stream = Stream(a_model(0.0))
    stream.push_ids([1] * int(mark))
    stream.save(folder / "state")


def read_state(folder: Path) -> object:
    """How many symbols it had read."""
    kept = Stream(a_model(0.0))
    kept.restore(folder / "state")
    for mark in (1.0, 2.0):
        fresh = Stream(a_model(0.0))
        fresh.push_ids([1] * int(mark))
        if torch.equal(fresh.state, kept.state):
            return mark
    raise AssertionError("it remembers what it never read")


def write_result(folder: Path, mark: float) -> None:
    with Store(folder / "b.sqlite") as store:
        store.add(CellResult(CELLS[int(mark) - 1], None, "out of luck " * 2_000, 1, mark))


def read_results(folder: Path) -> object:
    with Store(folder / "b.sqlite", write=False) as store:
        return max(kept.seconds for kept in store.stored())


Write, Read = Callable[[Path, float], None], Callable[[Path], object]
FILES: dict[str, tuple[Write, Read]] = {
    "run": (write_run, read_run),
    "snapshot": (write_a_snapshot, read_a_snapshot),
    "state": (write_state, read_state),
}
"""What is written over and over, and what tells which of them is there."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "place"
    made.mkdir()
    return made


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.name != "resume.before.safetensors"}


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("fault", [refuse, interrupt])
def test_refused_or_interrupted_at_any_step_the_old_or_the_new_is_there_whole(
    what: str, fault: Callable[[], None], folder: Path
) -> None:
    write, read = FILES[what]
    write(folder, 1.0)
    written = names(folder)
    for step in range(1, 100):
        said = ""
        with sabotage(folder, step, fault) as saboteur:
            try:
                write(folder, 2.0)
            except (EchospanError, KeyboardInterrupt) as e:
                said = str(e)
        if saboteur.seen < step:
            break
        if fault is refuse and said:
            assert "Permission denied" in said
            assert "\n" not in said
        assert read(folder) in (1.0, 2.0)
        # Where cleaning up was what was refused, what it was to remove stays, hidden.
        left = {p.name for p in folder.iterdir()} - written
        assert all(name.startswith(".echospan-") for name in left)
    else:
        raise AssertionError("it never came to its end")
    assert step > 3
    assert read(folder) == 2.0


@pytest.mark.parametrize("what", FILES)
def test_killed_at_any_step_the_old_or_the_new_is_there_whole(what: str, folder: Path) -> None:
    write, read = FILES[what]
    write(folder, 1.0)
    for step in range(1, 100):
        child = os.fork()
        if not child:
            with sabotage(folder, step, die):
                write(folder, 2.0)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert read(folder) in (1.0, 2.0)
        if os.waitstatus_to_exitcode(status) == 0:
            break
    assert 3 < step < 99
    assert read(folder) == 2.0


@pytest.mark.parametrize("what", FILES)
def test_a_disk_that_is_full_at_any_byte_leaves_the_old_whole_and_nothing_else(
    what: str, folder: Path
) -> None:
    write, read = FILES[what]
    write(folder, 1.0)
    written = names(folder)
    longest = max(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    for size in range(0, longest, max(1, longest // 40)):
        with a_disk_with_room_for(size), pytest.raises(EchospanError, match="could not be written"):
            write(folder, 2.0)
        assert read(folder) == 1.0
        assert names(folder) == written
    write(folder, 2.0)
    assert read(folder) == 2.0


def test_a_store_on_a_disk_that_is_full_keeps_what_it_had(folder: Path) -> None:
    write_result(folder, 1.0)
    at_first = (folder / "b.sqlite").stat().st_size
    for size in range(0, at_first + 60_000, 4_096):
        with a_disk_with_room_for(size), contextlib.suppress(StoreError):
            write_result(folder, 2.0)
        if read_results(folder) == 2.0:
            break
    assert size > at_first // 2
    assert read_results(folder) == 2.0
