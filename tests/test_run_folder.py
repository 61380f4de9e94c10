"""What each command answers in each state of a run folder: the table of docs/run-folder.md.

The states are made of one tiny training and its snapshots.
"""

import contextlib
import functools
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from echospan import cli
from echospan.checkpoint import (
    SNAPSHOTS,
    Snapshot,
    load,
    read_snapshot,
    write_run,
    write_snapshot,
)
from echospan.cli import runs
from echospan.errors import RunError
from echospan.recipes import RECIPES, Recipe
from echospan.storage.folder import COMMIT, LOCK, claim
from echospan.storage.run_folder import RunState, inspect
from echospan.training import TrainingResult, train

SETTINGS = ["--steps", "3", "--hidden", "4", "--batch", "2", "--stream", "0"]
TRAIN = ["train", "bits", *SETTINGS, "--out", "run", "--snapshot-seconds", "1e-9"]
RUN = Path("run")


@functools.cache
def tiny() -> tuple[Recipe, list[Snapshot], TrainingResult]:
    """The training that the commands make, its snapshots and what it ends in."""
    bits = RECIPES["bits"]
    recipe = Recipe(
        model=replace(bits.model, hidden=4), training=replace(bits.training, steps=3, batch=2)
    )
    snapshots: list[Snapshot] = []
    result = train(recipe, on_snapshot=snapshots.append, snapshot_seconds=0)
    return recipe, snapshots, result


# The states


def absent() -> None:
    pass


EVALUATION = json.dumps(
    {
        "delays": [
            {
                "delay": d,
                "trials": 4,
                "correct": 2,
                "recall": 0.5,
                "low": 0.2,
                "high": 0.8,
                "bits": 0,
            }
            for d in range(4)
        ]
    }
)
"""As a run of delays 0 to 3 has it."""


def empty() -> None:
    RUN.mkdir()


def claimed_only() -> None:
    """Killed in its first snapshot, or before."""
    RUN.mkdir()
    (RUN / LOCK).touch()
    (RUN / ".echospan-0123456789abcdef.part").write_bytes(b"half")


def unfinished() -> None:
    for snapshot in tiny()[1][:2]:
        write_snapshot(RUN, snapshot)


def interrupted() -> None:
    """A run as it stands, and where it goes on from."""
    unfinished()
    written(keep_snapshots=True, **{"evaluation.json": EVALUATION})


def trained() -> None:
    """A run that is not measured yet."""
    for snapshot in tiny()[1]:
        write_snapshot(RUN, snapshot)
    written(keep_snapshots=True)


def finished() -> None:
    RUN.mkdir()
    written(keep_snapshots=False, **{"evaluation.json": EVALUATION})


def in_a_move() -> None:
    """Killed while a finished run was being replaced."""
    finished()
    child = os.fork()
    if not child:
        os.replace = lambda *_: os._exit(9)  # type: ignore[assignment]
        written(keep_snapshots=False)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (RUN / COMMIT).exists()


def damaged() -> None:
    finished()
    config = RUN / "config.json"
    config.write_bytes(config.read_bytes()[:100])


def damaged_snapshot() -> None:
    unfinished()
    for name in SNAPSHOTS:
        (RUN / name).write_bytes(b"half")


def foreign() -> None:
    RUN.mkdir()
    (RUN / "thesis").write_text("all of it")


def a_file() -> None:
    RUN.write_text("all of it")


def written(keep_snapshots: bool, **files: str) -> None:
    recipe, _, result = tiny()
    with claim(RUN, "a test", lambda _: None) as run:
        files = {"history.jsonl": "", **files}
        write_run(run, result.model, recipe.training, files, keep_snapshots=keep_snapshots)


STATES: dict[Callable[[], None], RunState] = {
    absent: RunState.ABSENT,
    empty: RunState.EMPTY,
    claimed_only: RunState.EMPTY,
    unfinished: RunState.UNFINISHED,
    interrupted: RunState.RESUMABLE,
    trained: RunState.RESUMABLE,
    finished: RunState.FINISHED,
    in_a_move: RunState.FINISHED,
    damaged: RunState.DAMAGED,
    damaged_snapshot: RunState.UNFINISHED,
    foreign: RunState.FOREIGN,
    a_file: RunState.FOREIGN,
}

# The answers

DONE = "it does its work"
IN_THE_WAY = "run exists already; name another folder with --out, or add --overwrite"
GO_ON = "run holds a run that was not finished; go on with --resume, name another folder"
NOT_OURS = "run exists and is not a run of echospan; it is not overwritten: name another folder"
NOT_THERE = "there is no run folder run"
NO_MANIFEST = "run has no config.json; name a folder that echospan train made"
NOT_YET = "run holds a run that was not finished; go on with echospan train --resume"
NOTHING_YET = "run holds a training that has saved nothing yet"

ANSWERS: dict[Callable[[], None], tuple[str, str, str, str]] = {
    # train, train --resume, train --overwrite, and the commands that read a run
    absent: (DONE, DONE, DONE, NOT_THERE),
    empty: (DONE, DONE, DONE, NO_MANIFEST),
    claimed_only: (DONE, DONE, DONE, NOTHING_YET),
    unfinished: (GO_ON, DONE, DONE, NOT_YET),
    interrupted: (GO_ON, DONE, DONE, DONE),
    trained: (GO_ON, DONE, DONE, DONE),
    finished: (IN_THE_WAY, "run is finished; evaluate it, or train anew", DONE, DONE),
    in_a_move: (IN_THE_WAY, "run is finished; evaluate it, or train anew", DONE, DONE),
    damaged: (
        IN_THE_WAY,
        "run is damaged and has no snapshot to go on from; train anew with --overwrite",
        DONE,
        "run/config.json is not valid JSON",
    ),
    damaged_snapshot: (GO_ON, "run/resume.safetensors is not a whole snapshot", DONE, NOT_YET),
    foreign: (NOT_OURS, NOT_OURS, NOT_OURS, NO_MANIFEST),
    a_file: (NOT_OURS, NOT_OURS, NOT_OURS, NOT_THERE),
}

READERS = (
    ("evaluate", "run", "--trials", "10"),
    ("echo", "run", "01"),
    ("export", "run", "--format", "html", "-o", "page.html"),
    ("serve", "run"),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("echospan.plots.training_plot", lambda _: "<svg/>")  # half of the time
    monkeypatch.setattr("echospan.plots.recall_plot", lambda *_: "<svg/>")
    return tmp_path


def ended(*args: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(list(args))
    return int(end.value.code or 0)


def everything() -> dict[str, bytes]:
    return {
        str(p): p.read_bytes()
        for p in Path().rglob("*")
        if p.is_file() and not p.name.startswith(".echospan-")
    }


def name_of(state: Callable[[], None]) -> str:
    return state.__name__


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_each_state_is_recognised(state: Callable[[], None]) -> None:
    state()
    assert inspect(RUN) is STATES[state]


@pytest.mark.parametrize("state", STATES, ids=name_of)
@pytest.mark.parametrize("command", range(3), ids=["train", "--resume", "--overwrite"])
def test_what_training_answers_in_each_state(
    state: Callable[[], None], command: int, capsys: pytest.CaptureFixture[str]
) -> None:
    state()
    if RUN.is_dir() and state is not empty:  # which it would not be any more
        (RUN / "notes").write_text("somebody's")
    before = everything()
    code = ended(*TRAIN, *((), ("--resume",), ("--overwrite",))[command])
    said = capsys.readouterr()
    if ANSWERS[state][command] is not DONE:
        assert code == 2
        assert said.out == ""
        assert said.err.startswith(f"echospan: {ANSWERS[state][command]}")
        assert said.err.count("\n") == 1
        if state is not in_a_move:  # which is completed by whoever comes
            assert everything() == before
        return
    assert code in (0, 1)
    assert inspect(RUN) is RunState.FINISHED
    whole = tiny()[2].model.state_dict()
    assert all(t.equal(whole[name]) for name, t in load(RUN).state_dict().items())
    names = {p.name for p in RUN.iterdir() if ".replaced-" not in p.name}
    assert names - {"notes"} == {
        *("model.safetensors", "config.json", "evaluation.json", "history.jsonl"),
        *("recall.svg", "training.svg"),
    }
    kept = before.get("run/notes")
    assert kept is None or (RUN / "notes").read_bytes() == kept
    assert [p.name for p in Path().iterdir()] == ["run"]


@pytest.mark.parametrize("state", STATES, ids=name_of)
@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
def test_what_reading_answers_in_each_state(
    state: Callable[[], None], command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    state()
    answer = ANSWERS[state][3]
    if answer is DONE:
        if command[0] != "serve":  # which serves until it is ended: test_serve.py
            assert ended(*command) in (0, 1)
        assert load(RUN).max_delay == 3
        return
    before = everything()
    assert ended(*command) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"echospan: {answer}")
    assert said.err.count("\n") == 1
    with pytest.raises(RunError, match=re.escape(answer)):
        load(RUN)
    assert everything() == before


@pytest.mark.parametrize("state", [claimed_only, unfinished, trained, finished], ids=name_of)
def test_while_a_training_runs_no_other_begins_and_readers_read_what_is_there(
    state: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    state()
    with claim(RUN, "echospan train", lambda _: None):
        before = everything()
        for more in ((), ("--resume",), ("--overwrite",)):
            assert ended(*TRAIN, *more) == 2
            assert "echospan: run is in use by echospan train (process" in capsys.readouterr().err
        answer = ANSWERS[state][3]
        assert ended(*READERS[0]) in ((0, 1) if answer is DONE else (2,))
        assert answer is DONE or answer in capsys.readouterr().err
        assert everything() == before


def test_a_table_of_the_documentation_has_a_row_for_each_state() -> None:
    text = (Path(__file__).parents[1] / "docs" / "run-folder.md").read_text()
    rows = re.findall(r"^\| \*\*([\w ]+)\*\* \|", text, re.M)
    assert len(rows) == len(set(rows)) == len(STATES)


# What is trained is saved, whatever comes then


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_measuring_can_be_interrupted_and_taken_up(number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "echospan", *TRAIN, "--stream", "2000000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any(line == "run: trained and saved, now measured\n" for line in process.stderr)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == (
        "echospan: run is trained and saved, and not measured; "
        "go on with --resume, or use echospan evaluate run\n"
    )
    assert inspect(RUN) is RunState.RESUMABLE
    assert not (RUN / "evaluation.json").exists()
    assert ended("evaluate", "run", "--trials", "10") in (0, 1)
    assert ended(*TRAIN, "--resume") in (0, 1)
    assert json.loads((RUN / "evaluation.json").read_text())["steps"] == 3
    assert inspect(RUN) is RunState.FINISHED


def test_a_signal_that_comes_while_it_is_saved_waits_until_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def drawn(_: object) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return "<svg/>"

    monkeypatch.setattr("echospan.plots.training_plot", drawn)
    assert ended(*TRAIN) == 130
    assert "run is trained and saved, and not measured" in capsys.readouterr().err
    assert load(RUN).max_delay == 3


def test_measuring_that_takes_too_long_leaves_out_the_stream_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "_MEASURING_SECONDS", 0.0)
    settings = [*TRAIN, "--seconds", "1e-9", "--stream", "1000000000"]
    assert ended(*settings, "--json") == 1
    said = capsys.readouterr()
    assert "the stream is not measured; measure it with echospan evaluate run" in said.err
    report = json.loads(said.out)
    assert report["stream"] is None
    assert len(report["lengths"]) == 1


def test_memory_that_runs_out_while_it_is_measured_leaves_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(runs, "_measure", out_of_memory)
    assert ended(*TRAIN) == 2
    assert (
        "echospan: run is trained and saved, and cannot be measured (the memory ran out "
        "(MemoryError)); measure it with fewer --trials: echospan evaluate"
    ) in capsys.readouterr().err
    assert load(RUN).max_delay == 3


# A disk that is full


@contextlib.contextmanager
def a_full_disk() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_does_not_end_a_training_and_its_end_says_what_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with a_full_disk():
        assert ended(*TRAIN) == 2
    begun, *_, sentence = capsys.readouterr().err.splitlines()
    assert begun == (
        "echospan: run/resume.safetensors could not be written (File too large); the training "
        "goes on, no snapshot of it is there"
    )
    assert sentence == (
        "echospan: the run could not be written to run (File too large): no snapshot of it is "
        "there; make room"
    )
    assert list(Path().iterdir()) == []
    unfinished()
    with a_full_disk():
        assert ended(*TRAIN, "--resume") == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence == (
        "echospan: the run could not be written to run (File too large): its snapshot of step 2 is "
        "there; make room, then go on with --resume"
    )
    snapshot = read_snapshot(RUN)
    assert snapshot is not None
    assert snapshot.facts["step"] == 2
    assert ended(*TRAIN, "--resume") in (0, 1)


def test_snapshots_are_written_again_once_there_is_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from echospan import checkpoint

    real, calls = checkpoint.write_snapshot, []

    def write(*args: object) -> None:
        calls.append(args)
        with a_full_disk() if len(calls) < 3 else contextlib.nullcontext():
            real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "write_snapshot", write)
    assert ended(*TRAIN) in (0, 1)
    said = capsys.readouterr().err
    assert said.count("could not be written") == 1
    assert said.count("snapshots are written again") == 1


def test_a_disk_that_fills_while_a_run_is_measured_leaves_it_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = runs._report

    def then_full(*args: object) -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
        return measure(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "_report", then_full)
    try:
        assert ended(*TRAIN) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "echospan: the run could not be written to run (File too large): it is there, trained and "
        "not measured; make room, then measure it with --resume"
    )
    monkeypatch.setattr(runs, "_report", measure)
    assert inspect(RUN) is RunState.RESUMABLE
    assert ended(*TRAIN, "--resume") in (0, 1)


# Links, and files of others


@pytest.mark.parametrize("target", ["real", "sub/../real", "{}/real"])
def test_a_run_that_is_named_by_a_link_is_written_where_it_leads(here: Path, target: str) -> None:
    Path("real").mkdir()
    Path("sub").mkdir()
    RUN.symlink_to(target.format(here))
    assert ended(*TRAIN) in (0, 1)
    assert ended(*TRAIN, "--overwrite") in (0, 1)
    assert RUN.is_symlink()
    assert inspect(Path("real")) is RunState.FINISHED
    assert {p.name for p in Path().iterdir()} == {"real", "sub", "run"}


def test_the_first_snapshot_of_a_training_replaces_those_of_another() -> None:
    unfinished()
    write_snapshot(RUN, tiny()[1][2], first=True)
    assert [p.name for p in RUN.iterdir()] == [SNAPSHOTS[0]]
