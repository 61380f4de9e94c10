"""Models are kept with a card, shared on the Hub, and had from there; here without a network."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import torch
from tests import fake_hub

from echospan import EchoModel, ModelConfig, Recipe, TrainingConfig, load, shipped, shipping, train
from echospan.checkpoint import fingerprint
from echospan.cli import _parse_train
from echospan.errors import RunError, SettingError
from echospan.recipes import BY_INPUT, RECIPES, command


@pytest.fixture(scope="module")
def model():
    """A small model of a strange alphabet, trained for a moment."""
    config = ModelConfig(alphabet="a\"'b", max_delay=2, hidden=8)
    return train(Recipe(model=config, training=TrainingConfig(steps=60, batch=4, seed=3))).model


def test_a_kept_model_is_a_run_folder_with_a_card(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "mine", license="mit")
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "evaluation.json",
        "model.safetensors",
        "README.md",
    }
    for again in (EchoModel.from_pretrained(folder), load(folder)):
        assert fingerprint(again) == fingerprint(model)
        assert again.made == model.made
        assert not again.training
    with pytest.raises(RunError, match="exists already"):
        model.save_pretrained(folder)
    model.save_pretrained(folder, overwrite=True)


def test_the_card_is_one_that_the_hub_reads_and_its_figures_are_the_evaluation_s(model, tmp_path):
    from huggingface_hub import ModelCard

    folder = model.save_pretrained(tmp_path / "mine", license="mit")
    told = json.loads((folder / "evaluation.json").read_text())
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "echospan"
    assert card.data.license == "mit"
    assert card.data.model_name == "mine"
    figures = {r.metric_name: r.metric_value for r in card.data.eval_results}
    assert figures == {
        f"recall at delay {d['delay']}": round(d["recall"], 6) for d in told["delays"]
    }
    for d in told["delays"]:
        assert f"| {d['delay']} | {d['recall']:.2%} |" in card.text
    assert "--seed 3" in card.text


@pytest.mark.parametrize("name", ["mine", *shipping.names()])
def test_what_a_card_shows_is_what_the_model_does(model, name, tmp_path, capsys):
    card = shipping.HERE / name / "README.md"
    if name == "mine":
        card = model.save_pretrained(tmp_path / name) / "README.md"
    (block,) = re.findall(r"```python\n(.*?)```", card.read_text(), re.S)
    exec(block, {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", block)


def test_a_model_that_another_program_made_says_so_and_does_so_when_it_is_had_again(tmp_path):
    model = EchoModel(ModelConfig(alphabet="abc", max_delay=1, hidden=4))
    folder = model.save_pretrained(tmp_path / "mine")
    assert "By a program of its own" in (folder / "README.md").read_text()
    assert load(folder).made is None


def test_a_training_that_the_clock_ended_promises_no_equal_weights(tmp_path):
    recipe = Recipe(
        model=ModelConfig(alphabet="abc", max_delay=1, hidden=4),
        training=TrainingConfig(target=0.999, seconds=0.05),
    )
    clocked = train(recipe).model
    assert not clocked.made.repeatable
    card = clocked.save_pretrained(tmp_path / "mine") / "README.md"
    assert "not the same weights" in card.read_text()


def test_a_core_of_one_s_own_is_not_kept_and_nothing_is_left(tmp_path):
    from echospan import as_core

    config = ModelConfig(alphabet="abc", max_delay=1, hidden=4)
    model = EchoModel(config, as_core(torch.nn.LSTM(4, 4, batch_first=True)))
    with pytest.raises(SettingError, match="is not the one that its settings name, gru"):
        model.save_pretrained(tmp_path / "mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda told: told | {"format": 99}, "has format 99, and this version"),
        (lambda told: told | {"made": told["made"] | {"threads": 64}}, "checksum differs"),
        (lambda told: {"model_type": "bert"}, "is not of echospan"),
        (lambda told: told | {"model": told["model"] | {"hidden": 2**38}}, "checksum differs"),
    ],
)
def test_a_folder_is_refused_as_load_refuses_it(model, tmp_path, damage, said):
    folder = model.save_pretrained(tmp_path / "mine")
    config = folder / "config.json"
    config.write_text(json.dumps(damage(json.loads(config.read_text()))))
    with pytest.raises(RunError, match=said):
        EchoModel.from_pretrained(folder)


def test_a_model_goes_to_the_hub_and_comes_back(model, tmp_path):
    model.save_pretrained(tmp_path / "mine")
    (tmp_path / "steps.py").write_text(
        """
import sys
import echospan
from echospan import EchoModel, EchospanError

mine, online = sys.argv[1], sys.argv[2] == "online"
model = EchoModel.from_pretrained(mine)
if online:
    print(model.push_to_hub("me/echo", token="hf_right", license="mit"))
print(EchoModel.from_pretrained("me/echo").echo("abba", 1))
for step in (
    lambda: EchoModel.from_pretrained("me/nothing"),
    lambda: EchoModel.from_pretrained("me/damaged"),
    lambda: model.push_to_hub("me/echo", token="hf_wrong"),
):
    try:
        step()
    except EchospanError as e:
        print(type(e).__name__, e.fact)
"""
    )

    def run(how, **environment):
        done = subprocess.run(
            [sys.executable, str(tmp_path / "steps.py"), str(tmp_path / "mine"), how],
            capture_output=True,
            text=True,
            env=os.environ | {"HF_HOME": str(tmp_path / "home")} | environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    with fake_hub.running() as hub:
        whole = {p.name: p.read_bytes() for p in (tmp_path / "mine").iterdir()}
        hub.repos["me/damaged"] = whole | {"model.safetensors": whole["model.safetensors"][:-1]}
        online = run("online", HF_ENDPOINT=hub.address, HF_HUB_OFFLINE="0")
        put = hub.repos["me/echo"]
    assert online[0] == f"{hub.address}/me/echo/commit/{'c' * 40}"
    assert online[1] == model.echo("abba", 1)
    assert online[2].startswith("RunError me/nothing cannot be had from the Hub")
    assert online[3].startswith("RunError me/damaged/model.safetensors is damaged")
    assert online[4].startswith("RunError me/echo cannot be put to the Hub")
    assert set(put) == set(whole)
    assert put["model.safetensors"] == whole["model.safetensors"]
    assert b'EchoModel.from_pretrained("me/echo")' in put["README.md"]
    offline = run("offline", HF_HUB_OFFLINE="1")  # from what was had before
    assert offline[0] == online[1]
    assert offline[1].startswith("RunError me/nothing cannot be had from the Hub")


def test_without_the_extra_a_sentence_says_how_to_have_it_and_folders_need_none(tmp_path):
    code = f"""
import sys
sys.modules["huggingface_hub"] = None
import echospan
model = echospan.shipped("bits")
model.save_pretrained({str(tmp_path / "mine")!r})
echospan.EchoModel.from_pretrained({str(tmp_path / "mine")!r})
for step in (model.push_to_hub, model.from_pretrained):
    try:
        step("me/echo")
    except echospan.EchospanError as e:
        print(e)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sentence = 'huggingface_hub is not installed; pip install "echospan[hub]"'
    assert done.stdout.splitlines() == [sentence, sentence]


def test_what_has_no_such_name_is_refused_before_anything_is_asked():
    for name in ("nothing", "a/b/c", "../a", "me/", "http://a/b"):
        with pytest.raises(RunError, match="there is no model"):
            EchoModel.from_pretrained(name)
        with pytest.raises(SettingError, match="is no name on the Hub"):
            shipped("bits").push_to_hub(name)


@pytest.mark.parametrize(
    "recipe",
    [
        *RECIPES.values(),
        BY_INPUT,
        Recipe(model=ModelConfig(alphabet="-é' \"$"), training=TrainingConfig(symbols=10**9)),
        Recipe(model=ModelConfig(delay=9, core="lru"), training=TrainingConfig(learning_rate=1e-9)),
    ],
)
def test_the_command_of_a_recipe_makes_that_recipe(recipe):
    words = shlex.split(command(recipe))
    assert words[:2] == ["echospan", "train"]
    parsed = _parse_train(words[2:])
    assert Recipe(model=parsed.model, training=parsed.training) == recipe
