"""profile, check and selftest, as a person types them, with a layer of their own."""

import json
import os
import subprocess
import sys

import pytest

from echospan.checks import CORE_CHECKS
from echospan.cli import main
from echospan.profiling import Profile

LAYERS = """
import math
import torch


class Mine(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.rnn = torch.nn.GRU(width, width, batch_first=True)

    def forward(self, x, state=None):
        return self.rnn(x, state)


class Ahead(Mine):
    def forward(self, x, state=None):
        return self.rnn(x.flip(1))[0]


class Mixes(Mine):
    def forward(self, x, state=None):
        y, state = self.rnn(x, state)
        return y + y.mean(0), state


class Forgets(Mine):
    def forward(self, x, state=None):
        return self.rnn(x)


class NoNumber(Mine):
    def forward(self, x, state=None):
        return x * math.nan, state


class Writes(Mine):
    def forward(self, x, state=None):
        return self.rnn(x.add_(1), state)


class Raises(Mine):
    def forward(self, x, state=None):
        raise RuntimeError("out of luck")


class NotInTraining(Mine):
    def forward(self, x, state=None):
        if self.training:
            raise RuntimeError("only for show")
        return self.rnn(x, state)


class Chatty(Mine):
    def forward(self, x, state=None):
        print("here I am")
        return self.rnn(x, state)


class Explodes(Mine):
    def forward(self, x, state=None):
        y, state = self.rnn(x, state)
        return y * 1e30, state


class NeedsCuda(Mine):
    def forward(self, x, state=None):
        return self.rnn(x.cuda(), state)


fixed = torch.nn.GRU(16, 16, batch_first=True)
number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the researcher's module in it."""
    (tmp_path / "mylayers.py").write_text(LAYERS)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "other.py").write_text("from mylayers import Ahead as Mine\n")
    (tmp_path / "lacks.py").write_text("import torch\n\nx = torch.nn.GRUU\n")
    monkeypatch.chdir(tmp_path)
    for name in ("mylayers", "broken", "other", "lacks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def ended(*args):
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in args])
    return end.value.code


def test_profile_writes_a_table_a_figure_and_the_profiles(here, capsys):
    size = ("--max-delay", 2, "--symbols", 20_000, "--hidden", 32)
    assert ended("profile", "lmu", "mylayers:Mine", *size) == 0
    said = capsys.readouterr()
    assert "lmu" in said.out
    assert "Mine" in said.out
    assert "mean recall" in said.err
    figure = (here / "profile.svg").read_text()
    assert "chance" in figure
    assert "lmu (span 2)" in figure
    told = json.loads((here / "profile.json").read_text())
    assert [p["name"] for p in told] == ["lmu", "Mine"]
    assert Profile.from_json(json.dumps(told[0])).span == 2
    assert {p.name for p in here.iterdir()} <= {
        *("mylayers.py", "broken.py", "other.py", "lacks.py"),
        *("profile.svg", "profile.json", "__pycache__"),
    }


def test_profile_as_json_prints_one_object_and_equal_work_gives_equal_figures(here, capsys):
    told = []
    for out in ("a.png", "b.png"):
        args = ("--max-delay", 1, "--symbols", 5_000, "--state", 32, "--out", out, "--json")
        assert ended("profile", "lru", *args) == 0
        told.append(json.loads(capsys.readouterr().out)["profiles"][0])
    for t in told:
        for seed in t["seeds"]:
            del seed["seconds"], seed["microseconds"]
    assert told[0] == told[1]
    assert told[0]["state"] == 32
    assert (here / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["profile", "mylayers:Ahead"], "sees the future"),
        (["profile", "mylayers:Mixes"], "rows"),
        (["profile", "mylayers:NoNumber"], "NaN"),
        (["profile", "mylayers:Raises"], "out of luck"),
        (["profile", "mylayers:NeedsCuda"], "NeedsCuda needs a GPU"),
        (["profile", "mylayers:Min"], "did you mean Mine?"),
        (["profile", "mylayers:number"], "3 is no module and makes none"),
        (["profile", "nowhere:Layer"], "nowhere cannot be imported"),
        (["profile", "broken:Layer"], "broken raises ZeroDivisionError when it is imported"),
        (["profile", "lacks:Layer"], "lacks raises AttributeError when it is imported"),
        (["profile", "mylayers:number.x"], "mylayers has no number.x"),
        (["profile", "mylayers:NotInTraining"], "cannot be trained: it raises RuntimeError"),
        (["profile", "gru", "mylayers:Mine", "other:Mine"], "sees the future"),
        (["profile", "gru", "--at", "1.5"], "--at is 1.5"),
        (["profile", "gru", "--seeds", "1", "1"], "--seeds is [1, 1]"),
        (["profile", "gru", "--parameters", "0"], "the size asked for is 0 parameters"),
        (["profile", "gruu"], "did you mean gru?"),
        (["profile"], "no layer is named"),
        (["profile", "gru", "--seconds", "0"], "--seconds is 0.0"),
        (["profile", "gru", "--symbols", "0"], "--symbols is 0"),
        (["profile", "gru", "--hidden", "0"], "--hidden is 0"),
        (["profile", "lru", "--hidden", "7"], "half a complex number"),
        (["profile", "mylayers:fixed", "--features", "9"], "9"),
        (["profile", "mylayers:fixed", "--seeds", "0", "1"], "cannot begin anew for 2 seeds"),
        (["profile", "gru", "--parameters", "9", "--state", "9"], "both set the size"),
        (["profile", "gru", "--out", "x.txt"], "end it in .svg, .png or .pdf"),
        (["profile", "gru", "--out", "no/x.svg"], "no is no folder"),
        (["profile", "gru", "--out", "there.svg"], "there.svg exists already"),
        (["check", "gruu"], "did you mean gru?"),
        (["check"], "no layer is named"),
        (["chekc", "gru"], "did you mean check?"),
    ],
)
def test_bad_input_gets_one_sentence(here, capsys, args, sentence):
    (here / "there.svg").write_text("mine")
    before = {p.name for p in here.iterdir()} | {"__pycache__"}
    assert ended(*args) == 2
    said = capsys.readouterr()
    assert sentence in said.err.splitlines()[-1]
    assert "Traceback" not in said.err
    assert said.out == ""
    assert {p.name for p in here.iterdir()} | {"__pycache__"} == before
    assert (here / "there.svg").read_text() == "mine"


def test_what_a_layer_prints_is_kept_out_of_the_answer(here, capsys):
    args = ("--max-delay", 1, "--symbols", 3_000, "--hidden", 8, "--json")
    assert ended("profile", "mylayers:Chatty", *args) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["profiles"][0]["name"] == "Chatty"
    assert "here I am" in said.err


def test_one_layer_that_diverges_does_not_cost_the_others(here, capsys):
    args = ("--max-delay", 1, "--symbols", 3_000, "--hidden", 8, "--learning-rates", "1e-2")
    assert ended("profile", "lru", "mylayers:Explodes", *args) == 2
    said = capsys.readouterr()
    assert "learning rate" in said.err.splitlines()[-1]
    assert [p["name"] for p in json.loads((here / "profile.json").read_text())] == ["lru"]


def test_debug_shows_where_it_happened(here):
    done = subprocess.run(
        [sys.executable, "-m", "echospan", "profile", "broken:Layer", "--debug"],
        cwd=here,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_check_says_a_line_a_check_and_exits_by_them(here, capsys):
    assert ended("check", "gru", "mylayers:Mine") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(CORE_CHECKS)
    assert all(": ok " in line for line in lines)
    assert ended("check", "mylayers:Ahead") == 1
    said = capsys.readouterr().out
    assert "Ahead: FAIL causal: the output at step " in said
    assert ended("check", "mylayers:Writes", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["ok"]
    assert [r["name"] for r in told["layers"]["Writes"] if not r["passed"]] == ["input_unchanged"]


def test_selftest_is_content_with_the_instrument(capsys):
    assert ended("selftest") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"0 of {len(lines) - 1} known answers missed"
    assert ended("selftest", "--json") == 0
    assert json.loads(capsys.readouterr().out)["passed"]
