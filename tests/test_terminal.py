"""On a terminal: bars where messages go, answers where answers go; Ctrl-C keeps what is there."""

import json

import pytest

from benched import LAYERS
from echospan import cli
from echospan.benching import CellResult, Moment
from echospan.cli.benches import Bench, _Progress
from echospan.grids import Grid
from echospan.store import Store

STOPS = """
import os, signal
import torch


class Stops(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.rnn = torch.nn.GRU(width, width, batch_first=True)

    def forward(self, x, state=None):
        if len(x) == 32:
            os.kill(os.getpid(), signal.SIGINT)
        return self.rnn(x, state)
"""

SMALL = ("--max-delay", "1", "--hidden", "8", "--alphabet", "abc")


@pytest.fixture
def terminal(monkeypatch, tmp_path):
    """A folder to work in, at what rich takes for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def ended(*args):
    with pytest.raises(SystemExit) as end:
        cli.main([str(a) for a in args])
    return end.value.code


def test_a_training_draws_a_bar(terminal, capsys):
    args = ("--batch", "8", "--target", "0.9", "--polish", "0", "--stream", "0", "--json")
    assert ended("train", "variable", *SMALL, *args, "--out", "run") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["reached"]
    assert "2/2 delays at the target" in said.err


def test_profiles_draw_a_bar_each(terminal, capsys):
    assert ended("profile", "gru", *SMALL, "--symbols", 3_000, "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["profiles"][0]["name"] == "gru"
    assert "span so far" in said.err


def test_ctrl_c_keeps_the_profiles_that_have_ended(terminal, capsys):
    (terminal / "stops.py").write_text(STOPS)
    assert ended("profile", "gru", "stops:Stops", *SMALL, "--symbols", 3_000) == 130
    assert "gru" in capsys.readouterr().out
    assert [p["name"] for p in json.loads((terminal / "profile.json").read_text())] == ["gru"]


def test_a_bench_draws_a_table_of_what_runs(terminal, capsys):
    one, other = Grid(cores=("gru", "lru"), hidden=(8,), symbols=(3_000,)).cells()
    with Store("s.sqlite") as store:
        progress = _Progress([one, other], 2, Bench(cores=("gru", "lru")), store)
        with progress.watching() as (heard, ends):
            heard(Moment(one, 2, 0.5, 0.75, 1))
            heard(Moment(other, 1, lost="its worker was lost"))
            rows = [[*column.cells] for column in progress.table().columns]
            ends(CellResult(one, None, "out of luck", 1, 0.1))
    assert rows[0] == [f"{one.name}, try 2"]
    assert (rows[2], rows[3]) == (["75.0%"], ["1"])
    said = capsys.readouterr().err
    assert f"{other.name}: begun again, its worker was lost" in said
    assert f"{one.name}: failed, out of luck" in said


def test_a_bench_that_fails_says_so_among_its_rows(terminal, capsys):
    (terminal / "termlayers.py").write_text(LAYERS)
    args = ("--symbols", "3e3", "--store", "s.sqlite", "--workers", "1")
    assert ended("bench", "--cores", "termlayers:Raises", *SMALL, *args) == 1
    said = capsys.readouterr()
    assert "failed, RuntimeError: out of luck" in said.out
    assert "1 of 1 cells, 1 failed" in said.err
