"""Claims of folders, files written whole, moves that are completed, litter of killed writers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from echospan.errors import RunError
from echospan.storage import atomic, lock
from echospan.storage.atomic import write_whole
from echospan.storage.folder import (
    COMMIT,
    LOCK,
    PLAN,
    ClaimedFolder,
    FolderInUseError,
    Layout,
    claim,
    complete,
    digest,
    read_regular,
)

PART = ".echospan-0123456789abcdef.part"


def owned(folder: Path) -> dict[str, str] | None:
    """A layout whose manifest is a list of digests by name."""
    data = read_regular(folder / "list")
    return None if data is None else json.loads(data) | {"list": digest(data)}


LAYOUT = Layout("list", "list", owned)


def write(folder: ClaimedFolder, **files: str) -> None:
    contents = {name: text.encode() for name, text in files.items()}
    listed = json.dumps({name: digest(data) for name, data in contents.items()})
    folder.commit(LAYOUT, contents | {"list": listed.encode()})


def anything(_: Path) -> None:
    """A check that allows any folder."""


def holds(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir() if p.name != "list"}


def elsewhere(code: str, *before: str) -> subprocess.Popen[str]:
    """Begin a process; its code says `ready` and then waits for its standard input to end."""
    lines = textwrap.dedent(code)
    return subprocess.Popen(
        [*before, sys.executable, "-c", lines],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


HOLD = """
    import sys
    from echospan.storage.folder import claim
    with claim({folder!r}, "echospan train", lambda _: None):
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder `run`."""
    process = elsewhere(HOLD.format(folder=str(tmp_path / "run")))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


# Claims


def test_a_folder_that_another_process_holds_is_refused_with_who_holds_it(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    with (
        pytest.raises(FolderInUseError, match=r"echospan train \(process \d+ on .*, since 20") as e,
        claim(tmp_path / "run", "another", anything),
    ):
        pass
    assert f"process {holder.pid} " in str(e.value)
    holder.communicate()
    assert not (tmp_path / "run").exists()  # it was made for the claim, and nothing was kept in it


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_claim_ends_with_its_process_however_it_ends(
    holder: subprocess.Popen[str], tmp_path: Path, number: int
) -> None:
    holder.send_signal(number)
    holder.wait()
    with claim(tmp_path / "run", "another", anything) as run:
        write(run, note="new")
    assert holds(tmp_path / "run") == {"note": "new"}


def test_a_process_that_stands_still_holds_what_it_has_claimed(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(FolderInUseError), claim(tmp_path / "run", "another", anything):
        pass


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode != 0,
    reason="a namespace of process ids takes rights that are not here",
)
def test_a_process_of_another_container_is_refused_too(tmp_path: Path) -> None:
    apart = ["unshare", "--pid", "--fork"]
    for first, second in ((apart, []), ([], apart), (apart, apart)):
        process = elsewhere(HOLD.format(folder=str(tmp_path / "run")), *first)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        other = elsewhere(HOLD.format(folder=str(tmp_path / "run")), *second)
        out, _ = other.communicate()
        assert (out, other.returncode) == ("", 1)
        process.communicate()


def test_of_many_processes_one_at_a_time_has_the_folder(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from echospan.storage.folder import FolderInUseError, claim
        folder, total = Path({folder!r}), Path({total!r})
        for _ in range(30):
            while True:
                try:
                    with claim(folder, "a test", lambda _: None):
                        total.write_text(str(int(total.read_text()) + 1))
                    break
                except FolderInUseError:
                    pass
    """
    total = tmp_path / "total"
    total.write_text("0")
    processes = [
        elsewhere(code.format(folder=str(tmp_path / "run"), total=str(total))) for _ in range(4)
    ]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert total.read_text() == "120"
    assert list(tmp_path.glob("run/*")) == []


def test_what_comes_into_a_claimed_folder_stays(tmp_path: Path) -> None:
    with claim(tmp_path / "run", "a test", anything) as run:
        (tmp_path / "run" / "thesis").write_text("all of it")
        (tmp_path / "run" / "sub").mkdir()
        write(run, note="1", more="2")
        (tmp_path / "run" / "more").write_text("changed")
        write(run, note="3")
    assert (tmp_path / "run" / "sub").is_dir()
    (tmp_path / "run" / "sub").rmdir()
    assert holds(tmp_path / "run") == {
        "thesis": "all of it",
        "note": "3",
        "more.replaced-1": "changed",
    }
    assert run.replaced == [tmp_path / "run" / "more.replaced-1"]


def test_a_folder_that_the_check_refuses_is_left_as_it_is(tmp_path: Path) -> None:
    def check(folder: Path) -> None:
        raise RunError(f"{folder} is not ours", "name another")

    (tmp_path / "run").mkdir()
    with pytest.raises(RunError, match="is not ours"), claim(tmp_path / "run", "a test", check):
        pass
    assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(RunError, match="is not ours"), claim(tmp_path / "new", "a test", check):
        pass
    assert not (tmp_path / "new").exists()


def test_a_folder_is_claimed_by_any_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with (
        claim(tmp_path / "link", "a test", anything),
        pytest.raises(FolderInUseError),
        claim(tmp_path / "run" / ".." / "run", "a test", anything),
    ):
        pass
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"purpose": 1}', "x" * 5000])
def test_a_lock_that_says_nothing_of_its_holder_still_locks(
    holder: subprocess.Popen[str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "run" / LOCK).write_text(text)
    with (
        pytest.raises(FolderInUseError, match="is in use by another process; wait"),
        claim(tmp_path / "run", "another", anything),
    ):
        pass


# Moves that a killed process has left


def left_at(folder: Path, point: str) -> None:
    """Kill a process that replaces old by new, at one of its calls on a name."""
    child = os.fork()
    if not child:
        for name in ("rename", "replace", "unlink", "rmdir"):
            real = getattr(os, name)

            def step(*args: object, name: str = name, real: object = real) -> object:
                if f"{name} {Path(str(args[0])).name}" == point:
                    os._exit(9)
                return real(*args)  # type: ignore[operator]

            setattr(os, name, step)
        with claim(folder, "a test", anything) as run:
            write(run, a="new", b="new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


MOVES = [
    ("unlink list", "the manifest that was there"),
    ("replace a", "the first file"),
    ("replace b", "the second one"),
    ("replace list", "the manifest"),
    ("unlink gone", "what has no successor"),
    (f"unlink {PLAN}", "the plan"),
    (f"rmdir {COMMIT}", "the folder of the move"),
]


@pytest.mark.parametrize("point", [point for point, _ in MOVES])
@pytest.mark.parametrize("by", ["a reader", "a writer"])
def test_a_move_is_completed_by_whoever_comes_next(tmp_path: Path, point: str, by: str) -> None:
    run = tmp_path / "run"
    with claim(run, "a test", anything) as claimed:
        write(claimed, a="old", b="old", gone="old")
    (run / "thesis").write_text("all of it")
    left_at(run, point)
    assert (run / COMMIT).exists()
    if by == "a reader":
        complete(run)
    else:
        with claim(run, "a test", anything):
            pass
    assert holds(run) == {"a": "new", "b": "new", "thesis": "all of it"}
    assert owned(run) == {"a": digest(b"new"), "b": digest(b"new")} | {
        "list": digest((run / "list").read_bytes())
    }


def test_what_came_into_the_way_of_a_move_that_was_left_stays(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with claim(run, "a test", anything) as claimed:
        write(claimed, a="old", b="old", gone="old")
    left_at(run, "replace a")
    (run / "b").write_text("somebody's")
    (run / "list").write_text("somebody's list")
    complete(run)
    assert holds(run) == {
        "a": "new",
        "b": "new",
        "b.replaced-1": "somebody's",
        "list.replaced-1": "somebody's list",
    }


def test_a_reader_waits_for_a_writer_that_is_alive(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("echospan.storage.folder._PATIENCE", 0.05)
    (tmp_path / "run" / COMMIT).mkdir()
    with pytest.raises(FolderInUseError):
        complete(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / COMMIT)
    complete(tmp_path / "run")


@pytest.mark.parametrize(
    "plan",
    [
        b"",
        b"[]",
        b"{",
        b'{"manifest": "list", "replaces": {}, "removes": {"../thesis": "x"}}',
        b'{"manifest": "/list", "replaces": {}, "removes": {}}',
        b'{"manifest": "list", "replaces": [], "removes": {}}',
        b"[" * 100_000,
    ],
    ids=len,
)
def test_a_plan_that_is_none_of_ours_moves_nothing(tmp_path: Path, plan: bytes) -> None:
    run = tmp_path / "run"
    (run / COMMIT).mkdir(parents=True)
    (run / COMMIT / PLAN).write_bytes(plan)
    (run / COMMIT / "a").write_text("new")
    (run / "a").write_text("old")
    (tmp_path / "thesis").write_text("all of it")
    complete(run)
    assert (run / "a").read_text() == "old"
    assert (tmp_path / "thesis").exists()
    assert {p.name for p in run.iterdir()} == {"a", f"{COMMIT}.replaced-1"}


def test_a_move_takes_only_files_and_never_leaves_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / COMMIT).mkdir(parents=True)
    (run / COMMIT / PLAN).write_text('{"manifest": "list", "replaces": {}, "removes": {}}')
    (run / COMMIT / "a").write_text("new")
    (run / COMMIT / ".profile").write_text("hidden")
    (run / COMMIT / "link").symlink_to("/etc/passwd")
    (tmp_path / "thesis").write_text("all of it")
    (run / "a").symlink_to(tmp_path / "thesis")
    complete(run)
    assert (run / "a").read_text() == "new"
    assert not (run / "a").is_symlink()
    assert (tmp_path / "thesis").read_text() == "all of it"
    assert {p.name for p in run.iterdir()} == {"a", "a.replaced-1", f"{COMMIT}.replaced-1"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / COMMIT).symlink_to(run)
    complete(tmp_path / "other")
    assert (tmp_path / "other" / f"{COMMIT}.replaced-1").is_symlink()


# Litter


def test_what_killed_writers_left_goes_and_what_a_live_one_writes_stays(tmp_path: Path) -> None:
    write_part = f"""
        import os, sys
        from pathlib import Path
        from echospan.storage.atomic import temporary_file
        with temporary_file(Path({str(tmp_path)!r})) as (descriptor, path):
            os.write(descriptor, b"half")
            print(path.name, flush=True)
            sys.stdin.read()
    """
    dead, alive = elsewhere(write_part), elsewhere(write_part)
    assert dead.stdout is not None
    assert alive.stdout is not None
    left, live = dead.stdout.readline().strip(), alive.stdout.readline().strip()
    dead.kill()
    dead.communicate()
    assert {p.name for p in tmp_path.iterdir()} == {left, live}
    write_whole(tmp_path / "file", b"whole")
    assert {p.name for p in tmp_path.iterdir()} == {"file", live}
    alive.communicate()
    assert {p.name for p in tmp_path.iterdir()} == {"file"}


def test_only_what_has_the_name_and_is_a_file_is_litter(tmp_path: Path) -> None:
    others = (".echospan-notes", f"{PART}.txt", f"x{PART}", PART.replace("f", "g"), PART.upper())
    for name in others:
        (tmp_path / name).write_text("somebody's")
    (tmp_path / PART.replace("0", "1")).mkdir()
    (tmp_path / PART.replace("0", "2")).symlink_to("file")
    os.mkfifo(tmp_path / PART.replace("0", "3"))
    before = {p.name for p in tmp_path.iterdir()}
    (tmp_path / PART).write_text("ours")
    write_whole(tmp_path / "file", b"")
    assert {p.name for p in tmp_path.iterdir()} == before | {"file"}


def test_a_claimed_folder_loses_the_folders_of_moves_that_were_never_made(tmp_path: Path) -> None:
    (tmp_path / "run" / PART).mkdir(parents=True)
    (tmp_path / "run" / PART / "model").write_text("half")
    with claim(tmp_path / "run", "a test", anything) as run:
        write(run, note="new")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"note", "list"}


def test_a_file_that_is_taken_for_litter_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def try_lock(descriptor: int) -> bool:
        calls.append(descriptor)
        if len(calls) == 1:  # another writer was faster
            (part,) = tmp_path.glob(".echospan-*")
            part.unlink()
        return lock.try_lock(descriptor)

    monkeypatch.setattr(atomic, "try_lock", try_lock)
    write_whole(tmp_path / "file", b"whole")
    assert len(calls) == 2
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"whole"}


def test_where_nothing_can_be_locked_files_are_written_and_litter_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    (tmp_path / PART).write_text("perhaps somebody's")
    write_whole(tmp_path / "file", b"whole")
    assert {p.name for p in tmp_path.iterdir()} == {"file", PART}
    with (
        pytest.raises(RunError, match=r"cannot lock files \(it has no flock\)"),
        claim(tmp_path / "run", "a test", anything),
    ):
        pass
    assert not (tmp_path / "run").exists()
