"""The bench: hundreds of runs that survive what happens to machines and people."""

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from benchmarks.bench import DAY, clock, container
from benchmarks.report import made_up

import echospan
from benched import LAYERS, command, figures
from echospan import cli
from echospan.benching import TRIES, CellResult, bench
from echospan.errors import SettingError, StoreError
from echospan.grids import Cell, Grid
from echospan.store import COLUMNS, Store, differences
from echospan.text import plain

SMALL = ("--hidden", 8, "--max-delay", 1, "--symbols", 3_000, "--alphabet", "abc")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the researcher's module in it."""
    (tmp_path / "benchlayers.py").write_text(LAYERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "benchlayers", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The results of a small grid that nothing disturbed."""
    path = tmp_path_factory.mktemp("bench") / "undisturbed.sqlite"
    args = ("--cores", "gru", "lru", "--seeds", 0, 1, 2, *SMALL, "--store", path)
    assert ended("bench", *args) == 0
    return path


def ended(*args):
    with pytest.raises(SystemExit) as end:
        cli.main([str(a) for a in args])
    return end.value.code


def grid(*cores, seeds=(0,)):
    return Grid(
        cores=cores, hidden=(8,), max_delay=(1,), symbols=(3_000,), alphabet="abc", seeds=seeds
    ).cells()


def test_what_is_there_is_not_run_again(store, capsys):
    before = figures(store), store.stat().st_mtime_ns
    args = ("--cores", "gru", "lru", "--seeds", 0, 1, 2, *SMALL, "--store", store)
    assert ended("bench", *args) == 0
    said = capsys.readouterr()
    assert "6 of 6 cells, 0 of them run" in said.err
    assert "gru" in said.out
    assert figures(store) == before[0]
    assert len(before[0]) == 6


def test_a_program_reads_a_line_of_json_for_each_cell_whether_run_now_or_before(
    store, tmp_path, capsys
):
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(store.read_bytes())
    args = ("--cores", "gru", "lru", "--seeds", 0, *SMALL, "--store", copy, "--json")
    assert ended("bench", *args, "--max-delay", 0, 1) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(told) == 4
    assert {(t["cell"]["core"], t["cell"]["max_delay"]) for t in told} == {
        *(("gru", 0), ("gru", 1), ("lru", 0), ("lru", 1)),
    }
    assert all(t["profile"]["seeds"][0]["symbols"] >= 3_000 for t in told)


def test_results_come_one_by_one_as_they_end_and_equal_those_of_a_profile():
    (cell,) = grid("gru")
    (result,) = bench([cell])
    alone = echospan.profile(
        "gru", 1, hidden=8, symbols=3_000, alphabet="abc", name="gru", seeds=[0]
    )
    assert result.tries == 1
    assert result.profile.seeds[0].curve
    assert [d.trials for d in result.profile.seeds[0].delays] == [
        d.trials for d in alone.seeds[0].delays
    ]


def test_killed_at_any_moment_it_goes_on_and_ends_at_the_same_figures(store, tmp_path):
    again = tmp_path / "killed.sqlite"
    args = ("bench", "--cores", "gru", "lru", "--seeds", 0, 1, 2, *SMALL, "--store", again)
    moments, kills = random.Random(0), 0
    for _ in range(3):
        process = command(*args)
        try:
            process.wait(timeout=moments.uniform(4, 9))
        except Exception:
            process.kill()
            kills += 1
        process.communicate()
    process = command(*args)
    process.communicate()
    assert process.returncode == 0
    assert kills > 0
    assert figures(again) == figures(store)


def test_two_benches_share_a_store_while_someone_reads(store, tmp_path):
    """In two containers, one a day ahead of the other, where this machine permits it."""
    shared = tmp_path / "shared.sqlite"
    args = ("bench", "--cores", "gru", "lru", "--seeds", 0, 1, 2, *SMALL, "--store", shared)
    benches = []
    for days in (-1, 1):
        offset, environment = tmp_path / f"{days}", {}
        if sys.platform == "linux" and shutil.which("cc"):
            offset.write_text(str(days * DAY))
            environment = {"LD_PRELOAD": str(clock(tmp_path)), "CLOCK_OFFSET": str(offset)}
        benches.append(
            command(*args, "--workers", 1, before=container() or (), env=os.environ | environment)
        )
    seen = []
    while any(b.poll() is None for b in benches):
        if shared.exists():
            # The file is there a moment before it is a store.
            refused = contextlib.nullcontext() if seen else contextlib.suppress(StoreError)
            with refused, Store(shared, write=False) as reader:
                seen.append(len(list(reader.stored())))
    said = [b.communicate() for b in benches]
    assert [b.returncode for b in benches] == [0, 0], said
    assert seen == sorted(seen)
    assert figures(shared) == figures(store)
    ran = [err.splitlines()[-1].split("cells, ")[1].split(" of")[0] for _, err in said]
    assert sum(map(int, ran)) == 6  # no cell was run twice


@pytest.mark.parametrize("engine", ["loky", "dask", "ray"])
def test_a_worker_that_is_killed_changes_nothing(here, engine):
    if engine != "loky":
        pytest.importorskip({"dask": "distributed"}.get(engine, engine))
    lost = []
    cells = grid("benchlayers:DiesOnce", "gru", seeds=(0,))
    told = {
        r.cell.core: r
        for r in bench(
            cells, engine=engine, workers=2, on_progress=lambda m: m.lost and lost.append(m)
        )
    }
    assert (here / "died").exists()
    once, gru = told["benchlayers:DiesOnce"], told["gru"]
    assert (once.error, gru.error) == (None, None)
    if engine != "dask":  # which tries again by itself
        assert once.tries == 2
        assert [m.cell.core for m in lost] == ["benchlayers:DiesOnce"]
    (undisturbed,) = bench(grid("benchlayers:DiesOnce"))
    assert once.profile.seeds == undisturbed.profile.seeds
    assert gru.profile.seeds == next(bench(grid("gru"))).profile.seeds


def test_a_cell_that_always_kills_its_worker_fails_after_three_tries_and_alone(here, capsys):
    args = ("--cores", "benchlayers:Dies", "gru", *SMALL, "--store", "s.sqlite", "--workers", 2)
    assert ended("bench", *args) == 1
    said = capsys.readouterr()
    assert "begun again, its worker was lost" in said.err
    rows = {r["core"]: r for r in _rows("s.sqlite")}
    assert rows["benchlayers:Dies"]["tries"] == TRIES
    assert rows["benchlayers:Dies"]["error"] == (
        "its worker was lost (TerminatedWorkerError: A worker process managed by the executor was "
        f"unexpectedly terminated), {TRIES} times"
    )
    assert "Dies 8, delays 0 to 1, seed 0: failed, its worker" in said.out
    assert rows["gru"]["status"] == "done"


def test_what_fails_is_stored_with_its_reason_and_run_again_on_request(here, capsys):
    layers = [f"benchlayers:{name}" for name in ("Raises", "Hungry", "Leaves")]
    args = ("--cores", *layers, *SMALL, "--store", "s.sqlite")
    assert ended("bench", *args) == 1
    rows = {r["core"].partition(":")[2]: r for r in _rows("s.sqlite")}
    sentence = "raised RuntimeError while it was trained and measured (out of luck); run"
    assert sentence in rows["Raises"]["error"]
    assert rows["Leaves"]["error"] == "SystemExit: 7"
    assert rows["Hungry"]["error"].startswith("its memory ran out (no more)")
    assert rows["Hungry"]["error"].endswith(f", {TRIES} times")
    assert (here / "hungry").read_text() == "x" * TRIES
    assert rows["Raises"]["tries"] == 1
    capsys.readouterr()
    assert ended("bench", *args) == 1
    assert "0 of them run" in capsys.readouterr().err
    (here / "mended").touch()
    assert (
        ended("bench", "--cores", layers[0], *SMALL, "--store", "s.sqlite", "--retry-failed") == 0
    )
    (row,) = [r for r in _rows("s.sqlite") if r["core"] == layers[0]]
    assert (row["status"], row["error"]) == ("done", None)


def until(true, process, patience=60.0):
    """Wait until something is true; the process must not end before."""
    end = time.monotonic() + patience
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_store_that_is_removed_while_a_bench_runs_ends_it_and_its_results_are_kept(here):
    process = command(
        *("bench", "--cores", "gru", "benchlayers:Stuck", *SMALL, "--store", "s.sqlite"),
        *("--workers", 1),
    )
    until((here / "begun").exists, process)
    (here / "s.sqlite").unlink()
    _, message = process.communicate(timeout=30)
    assert process.returncode == 2
    (copy,) = here.glob("s-recovered-*.sqlite")
    assert message.splitlines()[-1] == (
        "echospan: s.sqlite was removed, moved or replaced while it was open; what it held is in "
        f"{copy}: move that back, and run the command again"
    )
    assert [r["core"] for r in _rows(copy)] == ["gru"]
    assert not list(here.glob("*-bench-*"))


def test_a_reader_of_standard_output_that_leaves_ends_no_bench(here):
    args = ("bench", "--cores", "gru", "--seeds", 0, 1, 2, *SMALL, "--store", "s.sqlite", "--json")
    process = command(*args, "--workers", 1)
    assert json.loads(process.stdout.readline())["cell"]["core"] == "gru"
    process.stdout.close()
    with process.stderr as messages:
        lines = messages.read().splitlines()
    assert process.wait() == 0
    assert "nobody reads standard output any more: the bench goes on" in lines
    assert lines[-1].startswith("3 of 3 cells, 3 of them run")
    assert len(_rows("s.sqlite")) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device is full here")
def test_a_standard_output_that_is_full_is_named_at_the_end(here):
    args = ("bench", "--cores", "gru", *SMALL, "--store", "s.sqlite", "--json")
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "echospan", *map(str, args)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == (
        "echospan: standard output could not be written (No space left on device); the results are "
        "in s.sqlite: the same command prints them"
    )
    assert len(_rows("s.sqlite")) == 1


def test_a_bench_says_that_it_waits_for_another_one_and_runs_what_that_leaves(here):
    with Store("s.sqlite") as other, other.session():
        assert other.claim(grid("gru")[0])
        process = command("bench", "--cores", "gru", *SMALL, "--store", "s.sqlite")
        line = process.stderr.readline()
    assert line == "waiting for 1 cells that another bench has claimed\n"
    process.communicate()
    assert process.returncode == 0
    assert len(_rows("s.sqlite")) == 1


@pytest.mark.skipif(not Path("/proc/net/udp").exists(), reason="no list of ports here")
def test_a_flood_of_datagrams_ends_no_bench_and_delays_no_result(here):
    """Whatever anybody sends to the ports of this machine while a bench runs."""
    progress = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:

        def flood(moment):
            progress.append(moment)
            ports = {
                int(line.split()[1].partition(":")[2], 16)
                for line in Path("/proc/net/udp").read_text().splitlines()[1:]
            }
            for port in ports:
                for data in (b"[" * 4_000, b'["x", Infinity, 1, 1]', b"1" + b"0" * 400, b"x" * 40):
                    with contextlib.suppress(OSError):
                        stranger.sendto(data, ("127.0.0.1", port))

        (result,) = bench(grid("gru"), on_progress=flood)
    assert result.profile is not None
    assert progress[-1].used > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_with_all_that_ended_stored(here, number):
    process = command(
        *("bench", "--cores", "gru", "benchlayers:Stuck", *SMALL, "--store", "s.sqlite"),
        *("--seeds", 0, 1, "--workers", 2),
    )
    while process.poll() is None and not (here / "begun").exists():
        time.sleep(0.02)
    while process.poll() is None and len(_rows("s.sqlite")) < 2:
        time.sleep(0.02)
    process.send_signal(number)
    # It holds its standard output as long as any worker of it lives.
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert [r["core"] for r in _rows("s.sqlite")] == ["gru", "gru"]


def test_on_a_terminal_the_answers_still_go_where_they_are_sent(here):
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "echospan", "bench", "--cores", "benchlayers:Chatty"),
            *(*map(str, SMALL), "--store", "s.sqlite", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    )
    seen, drained = (
        [],
        threading.Thread(
            target=lambda: [seen.append(part) for part in iter(lambda: _read(master), b"")]
        ),
    )
    drained.start()
    out, _ = process.communicate()
    os.close(slave)
    drained.join()
    (line,) = out.splitlines()
    assert json.loads(line)["cell"]["core"] == "benchlayers:Chatty"
    assert b"1 of 1 cells, 1 of them run" in b"".join(seen)


def _read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # nobody holds its other end any more
        return b""


def test_no_worker_outlives_a_bench_that_was_killed(here):
    process = command(
        "bench", "--cores", "benchlayers:Slow", *SMALL, "--store", "s.sqlite", "--workers", 1
    )
    while process.poll() is None and not (here / "begun").exists():
        time.sleep(0.02)
    process.kill()
    # They hold its standard output: it ends when the last of them does.
    process.communicate(timeout=20)


def test_the_same_figures_come_from_a_pool_and_from_a_cluster(store):
    pytest.importorskip("distributed")
    by_key = figures(store)
    cells = grid("gru", "lru", seeds=(0, 1))
    for result in bench(cells, engine="dask", workers=2):
        assert result.profile == by_key[result.cell.key]


def test_the_same_figures_come_from_ray(store):
    pytest.importorskip("ray")
    by_key = figures(store)
    for result in bench(grid("gru", "lru", seeds=(0, 1)), engine="ray", workers=2):
        assert result.profile == by_key[result.cell.key]


def _rows(path):
    with Store(path, write=False) as opened:
        return opened.rows()


def test_results_are_listed_filtered_and_written_for_other_programs(store, tmp_path, capsys):
    assert ended("results", store) == 0
    assert len([x for x in capsys.readouterr().out.splitlines() if "0–1" in x]) == 2
    assert ended("results", store, "--each", "--cores", "lru") == 0
    assert len([x for x in capsys.readouterr().out.splitlines() if "0–1" in x]) == 3
    assert ended("results", store, "--seeds", 1, "--json") == 0
    told = json.loads(capsys.readouterr().out)["results"]
    assert {(r["core"], r["seed"]) for r in told} == {("gru", 1), ("lru", 1)}
    out = tmp_path / "rows.csv", tmp_path / "whole.jsonl"
    assert ended("results", store, "--csv", out[0], "--jsonl", out[1]) == 0
    with out[0].open() as f:
        read = list(csv.DictReader(f))
    assert tuple(read[0]) == COLUMNS
    whole = [json.loads(line) for line in out[1].read_text().splitlines()]
    assert [r["key"] for r in read] == [w["key"] for w in whole]
    assert echospan.Profile.from_json(json.dumps(whole[0]["profile"])).name == "gru"
    assert ended("results", store, "--csv", out[0]) == 2
    assert "exists already" in capsys.readouterr().err


def forged(path, name, error):
    """A store with a result and a failure of a core of that name."""
    cells = [Cell(core=name, symbols=100_000, seed=seed) for seed in range(2)]
    with Store(path) as store:
        store.add(CellResult(cells[0], made_up(cells[0], 3, random.Random(0)), None, 1, 1.0))
        store.add(CellResult(cells[1], None, error, 1, 1.0))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@sum", "'@sum"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        (" =1", "' =1"),
        ("a;=1", "a;'=1"),
        ("\uff1d1", "'\uff1d1"),
        ("lru", "lru"),
        ("a-b", "a-b"),
    ],
)
def test_a_spreadsheet_finds_no_formula_in_rows(tmp_path, name, text):
    forged(tmp_path / "s.sqlite", name, name)
    assert ended("results", tmp_path / "s.sqlite", "--csv", tmp_path / "rows.csv") == 0
    with (tmp_path / "rows.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert {row["core"] for row in rows} == {text}
    assert {row["error"] for row in rows} == {"", text}
    assert rows[1]["span"] == "3"  # a number stays one, also below 0


@pytest.mark.parametrize(
    "name", ["a[/b]", "[red]x[/red]", ":boom:", "\x1b[31mx\x1b]0;t\x07", "\u202e"]
)
def test_no_name_of_a_store_acts_on_rich_or_a_terminal(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "160")
    forged(tmp_path / "s.sqlite", name, f"no {name}")
    for more in ((), ("--each",), ("--compare", name, name)):
        assert ended("results", tmp_path / "s.sqlite", *more) in (0, 2)
        printed = capsys.readouterr()
        assert "\x1b" not in printed.out + printed.err
        assert "\u202e" not in printed.out + printed.err
        if not more:
            assert printed.out.count(plain(name)) == 3


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_two_outputs_are_never_one_file(store, tmp_path, monkeypatch, capsys, link):
    monkeypatch.chdir(tmp_path)
    if link == "symlink_to":
        Path("b").symlink_to("a")
    elif link:
        Path("a").touch()
        Path("b").hardlink_to("a")
    one, other = ("a", f"{tmp_path}/./a") if link is None else ("a", "b")
    assert ended("results", store, "--csv", one, "--jsonl", other, "--overwrite") == 2
    assert "--csv and --jsonl are one file" in capsys.readouterr().err
    assert ended("report", store, "p/span.svg", "--figures", "p", "--overwrite") == 2
    assert "the page and the figure span.svg are one file" in capsys.readouterr().err


def test_two_cores_are_compared_seed_by_seed(store, capsys):
    rows = {(r["core"], r["seed"]): r["bits"] for r in _rows(store)}
    assert ended("results", store, "--compare", "gru", "lru", "--json") == 0
    span, bits = json.loads(capsys.readouterr().out)["differences"]
    assert (span["of"], bits["of"], bits["pairs"]) == ("span", "bits", 3)
    mean = sum(rows["gru", s] - rows["lru", s] for s in range(3)) / 3
    assert bits["mean"] == pytest.approx(mean)
    assert bits["low"] < mean < bits["high"]
    assert ended("results", store, "--compare", "gru", "lru") == 0
    assert "3 pairs" in capsys.readouterr().out
    assert ended("results", store, "--compare", "gru", "lmu") == 2
    assert "there is no result of lmu; compare two of gru, lru" in capsys.readouterr().err


def _row(core, hidden, seed=0, **more):
    told = {"status": "done", "race": f"r{seed}", "parameters": 0, "state": hidden, "span": hidden}
    return {"core": core, "hidden": hidden, "bits": 1.0, **told, **more}


def test_only_equal_sizes_are_compared_and_a_choice_is_asked_for():
    ones = [_row("gru", 8, parameters=100), _row("gru", 16, parameters=900)]
    others = [_row("lru", 30, parameters=101), _row("lru", 16, parameters=50)]
    span, _ = differences([*ones, *others], "gru", "lru")
    assert (span["pairs"], span["mean"]) == (2, ((8 - 30) + (16 - 16)) / 2)
    (one, _) = differences([ones[0], others[0]], "gru", "lru")
    assert (one["pairs"], one["low"]) == (1, None)
    with pytest.raises(SettingError, match="share no seed, setting and size"):
        differences([ones[0], _row("lru", 99)], "gru", "lru")
    with pytest.raises(SettingError, match="several to be compared with"):
        differences([ones[0], others[0], _row("lru", 31, parameters=100)], "gru", "lru")


def test_a_file_of_results_is_never_written_over_by_what_is_made_of_it(store, capsys):
    whole = store.read_bytes()
    for args in (("results", store, "--csv", store), ("report", store, store)):
        assert ended(*args, "--overwrite") == 2
        assert "is the file of results itself" in capsys.readouterr().err
    assert store.read_bytes() == whole


def test_a_layer_that_changed_since_the_bench_began_is_not_measured_under_its_name(here):
    (cell,) = grid("benchlayers:Mine")
    (here / "benchlayers.py").write_text(LAYERS + "# changed\n")
    (result,) = bench([cell])
    assert "is not the one that the bench began with" in result.error


def test_results_are_a_list_of_dicts_that_have_the_same_keys(store):
    rows = echospan.results(store)
    assert type(rows) is list
    assert {tuple(row) for row in rows} == {COLUMNS}
    assert [row["core"] for row in rows] == ["gru"] * 3 + ["lru"] * 3


def test_a_report_is_one_page_and_its_plots_are_files(store, tmp_path, capsys):
    out = tmp_path / "report.html"
    assert ended("report", store, out, "--figures", tmp_path / "figures") == 0
    assert "gru" in out.read_text()
    written = sorted(p.suffix for p in (tmp_path / "figures").iterdir())
    assert written.count(".svg") == written.count(".png") > 2
    assert ended("report", store, out) == 2
    assert "exists already" in capsys.readouterr().err


def _newer(path):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")


def _foreign(path):
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (x)")


def _cut(path):
    path.write_bytes(path.read_bytes()[:5000])


def _scribbled(path):
    data = bytearray(path.read_bytes())
    for i in range(4096, len(data), 64):
        data[i : i + 16] = b"\xff" * 16
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda p: p.unlink(), "there is no file of results"),
        (lambda p: (p.unlink(), p.mkdir()), "is a folder"),
        (lambda p: p.write_text("hello"), "is no file of results"),
        (lambda p: p.write_bytes(b""), "is no file of results"),
        (_foreign, "is no file of results"),
        (_newer, "has format 99, and this echospan reads format 3"),
        (_cut, "cannot be read"),
        (_scribbled, "is damaged"),
    ],
)
def test_a_file_that_is_no_whole_store_is_refused_in_a_sentence(
    store, tmp_path, capsys, harm, sentence
):
    path = tmp_path / "harmed.sqlite"
    path.write_bytes(store.read_bytes())
    harm(path)
    for name in ("results", "report"):
        assert ended(name, path) == 2
        said = capsys.readouterr()
        assert sentence in said.err
        assert len(said.err.splitlines()) == 1
        assert said.out == ""


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "no grid is named; name architectures, length, quick, size"),
        (["qick"], "there is no grid 'qick'"),
        (["--cores", "gruu"], "did you mean gru?"),
        (["--cores", "nowhere:Layer"], "nowhere cannot be imported"),
        (["--cores", "benchlayers:Min"], "did you mean Mine?"),
        (["--cores", "gru", "--hidden", "0"], "--hidden is 0"),
        (["--cores", "gru", "--hidden", "8", "--state", "8"], "set the size"),
        (["--cores", "gru", "--seeds", "1" + "0" * 30], "--seeds is 1000"),
        (["--cores", "gru", "--features", "0"], "--features is 0"),
        (["--cores", "gru", "--store", "s" * 300], "is no path"),
        (["g" * 300], "there is no grid"),
        (["--cores", "gru", "--workers", "0"], "--workers is 0"),
        (["--cores", "gru", "--address", "tcp://x:1"], "loky runs on this machine alone"),
        (["--cores", "delay_line", "--parameters", "100"], "has no parameters at any width"),
        (["--cores", "gru", "--store", "no/s.sqlite"], "no is no folder"),
        (["--cores", "gru", "--store", "benchlayers.py"], "is no file of results"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_nothing(here, capsys, args, sentence):
    before = {p.name for p in here.iterdir()} | {"__pycache__"}
    assert ended("bench", *args) == 2
    said = capsys.readouterr()
    assert sentence in said.err.splitlines()[-1]
    assert said.out == ""
    assert {p.name for p in here.iterdir()} <= before


@pytest.mark.parametrize("number", ["1e999", "2.5", "many"])
def test_a_number_that_is_none_is_named_with_its_flag(here, capsys, number):
    assert ended("bench", "--cores", "gru", "--hidden", number) == 2
    said = capsys.readouterr().err
    assert number in said
    assert "--hidden" in said
    assert "Traceback" not in said


def test_an_engine_that_is_not_there_is_named():
    with pytest.raises(SettingError, match="use one of loky, dask, ray"):
        bench([], engine="spark")
