"""What a run folder holds, and the state that it is in."""

import enum
import json
import os
import stat
from pathlib import Path
from typing import Any

from echospan.storage.folder import COMMIT, LOCK, Layout, digest, is_empty, read_regular

MANIFEST = "config.json"

SNAPSHOTS = ("resume.safetensors", "resume.before.safetensors")
"""The newest snapshot of a training and the one before it."""

_NAMES = (MANIFEST, "model.safetensors", "evaluation.json", "history.jsonl")
"""Files whose names mean something in a run folder."""

_MARK = b'"echospan"'
"""The key under which every JSON file of ours, and the header of a snapshot, names our version."""


def _owned(folder: Path) -> dict[str, str] | None:
    """Return the files that the manifest lists with their digests, and the manifest itself."""
    data = read_regular(folder / MANIFEST, 10_000_000)
    try:
        config: Any = json.loads(data or b"")
    except (ValueError, RecursionError):
        return None
    if data is None or not isinstance(config, dict) or not isinstance(config.get("format"), int):
        return None
    if not all(isinstance(config.get(part), dict) for part in ("model", "training")):
        return None
    files = config.get("files")
    listed = files if isinstance(files, dict) else {}
    return {str(k): str(v) for k, v in listed.items()} | {MANIFEST: digest(data)}


RUN = Layout("run", MANIFEST, _owned)


class RunState(enum.Enum):
    """What a run folder holds; docs/run-folder.md says what each command does with it."""

    ABSENT = "absent"
    """Nothing is there."""
    EMPTY = "empty"
    """An empty folder, or one that a training claimed that has kept nothing."""
    UNFINISHED = "unfinished"
    """Snapshots, and no run yet."""
    RESUMABLE = "resumable"
    """A whole run, and a snapshot from which a training goes on or is measured."""
    FINISHED = "finished"
    """A whole run."""
    DAMAGED = "damaged"
    """A run whose manifest cannot be read."""
    FOREIGN = "foreign"
    """Anything else."""


def inspect(folder: Path) -> RunState:
    """Return the state of a folder. Reads the manifest alone, and changes nothing."""
    if not os.path.lexists(folder):
        return RunState.ABSENT
    if not folder.is_dir():
        return RunState.FOREIGN
    names = set(os.listdir(folder))
    snapshots = any(_is_regular(folder / name) for name in SNAPSHOTS)
    if MANIFEST in names or COMMIT in names:
        if COMMIT in names or RUN.owned(folder) is not None:
            return RunState.RESUMABLE if snapshots else RunState.FINISHED
        marked = any(_is_marked(folder / n) for n in (MANIFEST, "evaluation.json"))
        return RunState.DAMAGED if snapshots or marked else RunState.FOREIGN
    if snapshots:
        return RunState.UNFINISHED
    if LOCK in names or is_empty(folder):
        return RunState.EMPTY
    return RunState.FOREIGN


def names_of_run(folder: Path) -> set[str]:
    """Return the names that belong to the run in a folder; none where there is no run."""
    if inspect(folder) in (RunState.ABSENT, RunState.EMPTY, RunState.FOREIGN):
        return set()
    return {*(RUN.owned(folder) or ()), *SNAPSHOTS, *_NAMES}


def is_snapshot(path: Path) -> bool:
    """Return whether a file is a snapshot of ours, whole or not, by its first bytes."""
    return _is_marked(path, 4096)


def _is_marked(path: Path, first: int = 1_000_000) -> bool:
    if not _is_regular(path):
        return False
    try:
        with path.open("rb") as file:
            return _MARK in file.read(first)
    except OSError:
        return False


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
