"""The models that come with the package answer before any training."""

import json

import pytest
from benchmarks.shipped import recipe_of

from echospan import RECIPES, EchoModel, load, shipped, shipping
from echospan.cli import main
from echospan.errors import SettingError


def say(capsys, *args):
    with pytest.raises(SystemExit) as end:
        main(list(args))
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def test_they_are_there_and_right():
    assert shipping.names() == ("bits", "fixed", "variable")
    text = "thequickbrownfoxjumpsoverthelazydog"
    for delay in range(9):
        assert shipped("variable").echo(text, delay) == ("·" * delay + text)[: len(text)]
    assert shipped("fixed").echo(text) == "····" + text[:-4]
    assert shipped("bits").echo("0110100110010110") == "···0110100110010"
    assert EchoModel.from_pretrained("bits").made == shipped("bits").made


def test_what_they_recall_and_how_they_were_made_lies_beside_them():
    for name in shipping.names():
        told = json.loads((shipping.folder(name) / "evaluation.json").read_text())
        model = shipped(name)
        assert told["reached"]
        assert told["stream"]["symbols"] == 1_000_000
        assert all(told["stream"]["errors"][d] <= 10 for d in model.config.asked)
        assert told["blank_accuracy"] >= 0.99
        assert model.made.repeatable
        assert model.made.threads == 1
        assert set(model.made.versions) == {"echospan", "torch", "python"}
        assert (shipping.folder(name) / "model.safetensors").stat().st_size < 500_000


def test_a_recipe_is_the_one_that_made_the_shipped_model_of_its_name():
    """So that `echospan train bits` makes it; `python -m benchmarks.shipped` does, bit for bit."""
    assert set(RECIPES) == set(shipping.names())
    for name, recipe in RECIPES.items():
        assert recipe_of(shipped(name)) == recipe


def test_one_echoes_on_the_command_line(capsys):
    echo = ("echo", "--model", "variable", "--delay", "3")
    assert say(capsys, *echo, "abacaba") == (0, "···abac\n", "")
    assert say(capsys, "echo", "abacaba", "--model", "fixed") == (0, "····aba\n", "")


def test_one_is_evaluated_beside_a_run(capsys, fixed_run):
    args = ("evaluate", str(fixed_run), "--model", "bits", "--trials", "1000", "--target", "0.9")
    code, out, _ = say(capsys, *args, "--json")
    assert code == 0
    assert [r["run"] for r in json.loads(out)["runs"]] == [str(fixed_run), "bits"]


def test_a_run_folder_of_that_name_is_another_and_neither_is_guessed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = say(capsys, "echo", "variable", "abc")
    assert (code, out) == (2, "")
    assert "take the model of that name that is shipped with --model variable" in err
    shipped("bits").save_pretrained("variable")
    assert say(capsys, "echo", "variable", "0101") == (0, "···0\n", "")
    assert say(capsys, "echo", "--model", "variable", "abc", "--delay", "0") == (0, "abc\n", "")
    assert load("variable").max_delay == EchoModel.from_pretrained("variable").max_delay == 3
    assert shipped("variable").max_delay == 8


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["echo", "--model", "bit"], "no model 'bit' is shipped; did you mean bits?"),
        (["echo", "run", "abc", "--model", "bits"], "a run, run, and --model bits are named"),
        (["echo"], "no run folder is named; name one, such as runs/variable, or a model"),
        (["evaluate"], "no run folder is named; name one, such as runs/variable, or a model"),
        (["evaluate", "--model", "../bits"], "no model '../bits' is shipped"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(capsys, args, sentence):
    code, out, err = say(capsys, *args)
    assert (code, out) == (2, "")
    assert sentence in err


def test_a_name_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(SettingError, match="did you mean variable"):
        shipped("variabel")


def test_a_run_and_a_shipped_model_of_one_name_are_both_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shipped("bits").save_pretrained("bits")
    _, out, _ = say(capsys, "evaluate", "bits", "--model", "bits", "--trials", "2000", "--json")
    assert [run["run"] for run in json.loads(out)["runs"]] == ["bits", "bits"]
