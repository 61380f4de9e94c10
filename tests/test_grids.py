"""Grids and their cells: what is run, by which key it is known."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echospan.errors import SettingError
from echospan.grids import Cell, Grid, changed, read, shipped

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
        ("[[grid]]\nhidden = [3]", "grid 1 names no cores"),
        ('[[grid]]\ncores = "gru"\nhiden = [3]', "did you mean hidden?"),
        ('[[grid]]\ncores = "gru"\nhidden = "3"', "give it whole numbers"),
        ('[[grid]]\ncores = "gru"\nhidden = 2.5', "give it whole numbers"),
        ('[[grid]]\ncores = "gru"\nhidden = true', "give it whole numbers"),
        ('[[grid]]\ncores = "gru"\nbatch = [3]', "give it whole numbers"),
        ("[[grid]]\ncores = [3]", "give it text"),
        ('[[grid]]\ncores = "gru"\nseconds = "x"', "give it numbers"),
        ('[[grid]]\ncores = "gru"\nseconds = nan', "seconds holds nan"),
        ('[[grid]]\ncores = "gru"\nhidden = 0', "hidden holds 0"),
        ('[[grid]]\ncores = "gru"\nhidden = 4\nstate = 4', "hidden and state all set the size"),
        ('[[grid]]\ncores = "gru"\nsymbols = 4\nseconds = 4', "both set the budget"),
        ('[[grid]]\ncores = "gru"\nseeds = []', "seeds is empty"),
        ('[[grid]]\ncores = "gru"\nlearning_rates = 0.0', "learning_rates holds 0.0"),
        ('[[grid]]\ncores = "gru"\nalphabet = "aa"', "grid 1"),
        ('[[grid]]\ncores = "gru"\nat = 2.0', "at is 2.0"),
        ("[[grid]]\ncores = []", "has no cores"),
    ],
)
def test_a_file_that_is_no_grid_is_refused_in_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(SettingError, match=r"bad\.toml") as told:
        read(path)
    assert sentence in str(told.value)
    assert "\n" not in told.value.fact or "cannot be read" in sentence
