"""Grids and their cells: what is run, by which key it is known."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echospan.errors import SettingError
from echospan.grids import MOST_CELLS, Cell, Grid, cells_of, changed, read, shipped

CELLS = st.builds(
    Cell,
    core=st.sampled_from(["gru", "lru", "mine:Layer"]),
    hidden=st.none() | st.integers(1, 512),
    max_delay=st.integers(0, 64),
    seed=st.integers(0, 9),
    symbols=st.integers(1, 10**9),
    learning_rates=st.none() | st.tuples(st.floats(1e-6, 1)),
    alphabet=st.sampled_from(["ab", "abc"]),
    source=st.sampled_from(["", "f00"]),
)


def test_every_combination_is_a_cell_once():
    grid = Grid(cores=("gru", "lru", "gru"), hidden=(8, 16), max_delay=(2, 4), seeds=(0, 1, 1))
    cells = grid.cells()
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 2
    assert {c.symbols for c in cells} == {2_000_000}
    assert [c.max_delay for c in cells] == sorted(c.max_delay for c in cells)


@given(CELLS, CELLS)
def test_cells_have_one_key_exactly_where_they_are_equal(one, other):
    assert (one.key == other.key) == (one == other)
    assert Cell.from_json(one.to_json()) == one


@given(CELLS)
def test_the_key_says_nothing_of_what_is_left_out(cell):
    other = Cell.from_json(cell.to_json().replace(f'"seed": {cell.seed}', '"seed": 77'))
    assert cell.key_without("seed") == other.key_without("seed")
    assert cell.key != other.key


def test_a_key_is_the_same_in_every_process_and_our_version_is_in_it():
    script = (
        "from echospan.grids import Cell; "
        "print(Cell(core='gru', symbols=5).key, Cell(core='gru', symbols=5, echospan='9').key)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    here = Cell(core="gru", symbols=5), Cell(core="gru", symbols=5, echospan="9")
    assert told.split() == [c.key for c in here]
    assert here[0].key != here[1].key


def test_a_layer_that_was_changed_is_another_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "import torch\n\n\ndef make(hidden):\n    return torch.nn.GRU(hidden, hidden)\n"
    (tmp_path / "changes.py").write_text(text)
    (before,) = Grid(cores=("changes:make",)).cells()
    (tmp_path / "changes.py").write_text(text + "# and more\n")
    (after,) = Grid(cores=("changes:make",)).cells()
    assert before.key != after.key
    monkeypatch.delitem(sys.modules, "changes")


def test_equal_seconds_are_equal_however_they_are_written():
    assert Cell(core="gru", seconds=45).key == Cell(core="gru", seconds=45.0).key


def test_a_fair_race_finds_the_widths():
    gru, lstm = Grid(cores=("gru", "lstm"), state=(64,)).cells()
    assert (gru.hidden, lstm.hidden) == (64, 32)


def test_the_command_of_a_cell_makes_that_cell(capsys):
    from echospan.cli import COMMANDS, _parse
    from echospan.cli.benches import _cells

    cell = Cell(
        core="lru",
        hidden=16,
        max_delay=3,
        seed=4,
        symbols=7_000,
        learning_rates=(0.01, 3e-3),
        alphabet="ab 'c",
        at=0.9,
    )
    timed = Cell(core="lru", seconds=0.1234567)
    import shlex

    for one in (cell, timed):
        words = shlex.split(one.command)
        name, parsed = _parse(words[1:])
        assert name in COMMANDS
        assert _cells(parsed) == [one]


def test_every_shipped_grid_can_be_run():
    told = {name: sum(len(g.cells()) for g in read(path)) for name, path in shipped().items()}
    assert set(told) == {"quick", "size", "architectures", "length"}
    assert all(told.values())


def test_a_file_may_hold_several_grids_and_a_flag_replaces_a_setting(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[grid]]\ncores = ["gru"]\nhidden = [8]\nsymbols = 2e3\n\n'
        '[[grid]]\ncores = ["lru"]\nparameters = [500]\nseconds = [1.5]\nat = 0.9\n'
    )
    one, two = read(path)
    assert (one.symbols, two.seconds, two.at) == ((2_000,), (1.5,), 0.9)
    assert changed(two, {"hidden": (4,), "symbols": (9,)}) == Grid(
        cores=("lru",), hidden=(4,), symbols=(9,), at=0.9
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[grid]\n", "cannot be read"),
        ("cores = 3", "holds cores"),
        ("", "holds no grid"),
        ("grid = 3", "holds no grid"),
        ("[[grid]]\nhidden = [3]", "grid 1: it names no cores"),
        ('[[grid]]\ncores = "gru"\nhiden = [3]', "did you mean hidden?"),
        ('[[grid]]\ncores = "gru"\nhidden = "3"', "give it whole numbers"),
        ('[[grid]]\ncores = "gru"\nhidden = 2.5', "give it whole numbers"),
        ('[[grid]]\ncores = "gru"\nhidden = true', "give it whole numbers"),
        ('[[grid]]\ncores = "gru"\nbatch = [3]', "give it whole numbers"),
        ("[[grid]]\ncores = [3]", "give it text"),
        ('[[grid]]\ncores = "gru"\nseconds = "x"', "give it numbers"),
        ('[[grid]]\ncores = "gru"\nseconds = nan', "seconds is nan"),
        ('[[grid]]\ncores = "gru"\nhidden = 0', "hidden is 0"),
        ('[[grid]]\ncores = "gru"\nhidden = 4\nstate = 4', "hidden and state set the size"),
        ('[[grid]]\ncores = "gru"\nsymbols = 4\nseconds = 4', "symbols and seconds set the budget"),
        ('[[grid]]\ncores = "gru"\nseeds = []', "seeds is empty"),
        ('[[grid]]\ncores = "gru"\nlearning_rates = 0.0', "learning_rates is 0.0"),
        ('[[grid]]\ncores = "gru"\nalphabet = "aa"', "grid 1"),
        ('[[grid]]\ncores = "gru"\nat = 2.0', "at is 2.0"),
        ("[[grid]]\ncores = []", "cores is empty"),
    ],
)
def test_a_file_that_is_no_grid_is_refused_in_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(SettingError, match=r"bad\.toml") as told:
        read(path)
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)


BIG = "9" * 400
MANY = ", ".join(map(str, range(3_000)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a = " + "[" * 5_000, "nested too deeply"),
        ("[[grid]]\ncores = " + "{a=" * 5_000, "nested too deeply"),
        (f"[[grid]]\nhidden = {'9' * 10_000}", "cannot be read"),
        (f"[[grid]]\ncores = 'gru'\nhidden = 0x{'f' * 10_000}", "hidden is a number of"),
        (f"[[grid]]\ncores = 'gru'\nhidden = [[0x{'f' * 10_000}]]", "hidden is a list"),
        (f"[[grid]]\ncores = 'gru'\nhidden = {BIG}", "hidden is a number of"),
        ("[[grid]]\ncores = 'gru'\nhidden = 1e308", "hidden is 1e+308"),
        ("[[grid]]\ncores = 'gru'\nhidden = inf", "hidden is inf"),
        ("[[grid]]\ncores = 'gru'\nhidden = {a = 1}", "hidden is {'a': 1}"),
        ("[[grid]]\ncores = 'gru'\nhidden = 2026-01-01", "hidden is datetime.date"),
        ("[[grid]]\ncores = [['gru']]", "cores is ['gru']"),
        ("[[grid]]\ncores = {gru = 1}", "cores is {'gru': 1}"),
        (f"[[grid]]\ncores = 'gru'\nparameters = {10**15}", "parameters is 1000000000000000"),
        (f"[[grid]]\ncores = 'gru'\nstate = [8, {10**15}]", "state is 1000000000000000"),
        (f"[[grid]]\ncores = 'gru'\nmax_delay = {10**9}", "max_delay is 1000000000"),
        (
            f"[[grid]]\ncores = 'gru'\nhidden = [1, {MANY[3:]}]\nmax_delay = [{MANY}]\n"
            f"seeds = [{MANY}]",
            "the grid has 27,000,000,000 cells; a bench takes at most 100,000",
        ),
        (f"[[grid]]\ncores = 'gru'\nseeds = [{MANY}]\n" * 50, "the grid has 102,000 cells"),
        (f"[[grid]]\ncores = ['{'x' * 3_000}']", "a name of 3,000 characters"),
        ("[[grid]]\ncores = 'gru'\n'" + "x" * 9_000 + "' = 1", "it has a setting 'xxx"),
        ('[[grid]]\ncores = "gru"\n"\\u001b" = 1', "it has a setting '\\x1b'"),
        ("#" * 2**20 + "\n", "it has more than 1,048,576 bytes"),
        ("[[grid]]\ncores = '\xff'".encode("latin-1"), "cannot be read"),
        (b"\x00", "cannot be read"),
    ],
)
def test_a_hostile_file_is_refused_before_any_work(tmp_path, text, sentence):
    path = tmp_path / "bad.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingError, match=r"bad\.toml") as refused:
        read(path)
    assert sentence in str(refused.value)
    assert len(str(refused.value)) < 1_000
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/", "nowhere.toml"])
def test_what_is_no_file_is_no_grid(path):
    with pytest.raises(SettingError, match="cannot be read"):
        read(Path(path))


def test_a_pipe_is_no_grid(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(SettingError, match="no regular file"):
        read(tmp_path / "pipe.toml")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"seeds": range(10**9)}, "the grid has 1,000,000,000 cells"),
        ({"seeds": range(10**40)}, "cells; a bench takes at most 100,000"),
        ({"hidden": range(1, 401), "seeds": range(400)}, "the grid has 160,000 cells"),
        ({"hidden": 10**5_000}, "hidden is a number of"),
        ({"hidden": "8"}, "hidden is '8'"),
        ({"hidden": b"abc"}, "hidden is b'abc'"),
        ({"hidden": (None,)}, "hidden is None"),
        ({"max_delay": None}, "max_delay is None"),
        ({"seeds": (True,)}, "seeds is True"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"at": "0.9"}, "at is '0.9'"),
        ({"alphabet": ("a", "b")}, "alphabet is ('a', 'b')"),
        ({"cores": {"gru"}}, "cores is {'gru'}"),
        ({"learning_rates": [1e-2, "fast"]}, "learning_rates is 'fast'"),
        ({"parameters": 10**15}, "parameters is"),
        ({"parameters": range(1, 2_000)}, "the grid searches for 1,999 widths"),
    ],
)
def test_in_python_the_same_is_refused_with_the_name_of_the_argument(settings, sentence):
    with pytest.raises(SettingError) as refused:
        Grid(**{"cores": ("gru",)} | settings)
    assert sentence in str(refused.value)
    assert len(str(refused.value)) < 300


def test_one_value_stands_for_itself_and_numbers_may_come_from_numpy():
    grid = Grid(
        cores="gru", hidden=np.arange(8, 10), seeds=range(2), symbols=2e3, at=np.float64(0.9)
    )
    assert grid == Grid(cores=("gru",), hidden=(8, 9), seeds=(0, 1), symbols=(2_000,), at=0.9)
    assert [c.key for c in grid.cells()] == [
        Cell(core="gru", hidden=h, seed=s, symbols=2_000, at=0.9).key
        for h in (8, 9)
        for s in (0, 1)
    ]


def test_the_largest_grid_is_made_and_one_more_is_not():
    grid = Grid(cores="gru", hidden=range(1, 101), seeds=range(1_000))
    assert grid.count == MOST_CELLS
    with pytest.raises(SettingError, match="the grid has 100,001 cells"):
        cells_of([grid, Grid(cores="gru")])


def test_no_layer_is_built_that_would_fill_the_memory_where_a_state_grows_slowly():
    with pytest.raises(SettingError, match="comes no nearer to 1,048,576 state"):
        Grid(cores="lstm", state=2**20).cells()


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": "8"},
        {"hidden": 0},
        {"max_delay": -1},
        {"seed": 2**60},
        {"symbols": None},
        {"seconds": 1.0},
        {"learning_rates": []},
        {"learning_rates": [None]},
        {"batch": 0},
        {"alphabet": "aa"},
        {"at": 1.0},
        {"core": 3},
        {"source": 3},
        {"torch": "x" * 200},
        {"more": 1},
    ],
)
def test_what_is_no_cell_is_refused(changes):
    document = json.loads(Cell(core="gru", symbols=1).to_json()) | changes
    with pytest.raises(SettingError, match="this is no cell of a bench"):
        Cell.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 100_000, '{"core": NaN}'])
def test_what_is_no_object_of_json_is_no_cell(text):
    with pytest.raises(SettingError, match="this is no cell of a bench"):
        Cell.from_json(text)
