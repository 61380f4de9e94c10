"""A model in plain JavaScript answers as it does in PyTorch, symbol by symbol."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from echospan.checkpoint import load
from echospan.cores import GRU
from echospan.errors import SettingError
from echospan.export import pack
from echospan.model import EchoModel
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.training import train

HERE = Path(__file__).parent
SCRIPT = HERE.parent / "src" / "echospan" / "web" / "static" / "model.js"
CORES = ("gru", "lstm", "min_gru", "lru", "rnn", "rnn_tanh")

needs_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="node, which runs the page's script here, is not installed"
)


def node(*args, given):
    done = subprocess.run(["node", *map(str, args)], input=given, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def in_javascript(model, ids):
    """Logits `(step, delay, symbol)`."""
    given = json.dumps({"packed": pack(model), "ids": ids}).encode()
    logits = np.frombuffer(node(HERE / "run_packed.js", SCRIPT, given=given), "<f4")
    return logits.reshape(len(ids), model.max_delay + 1, model.symbols)


@torch.no_grad()
def compare(model, count):
    ids = random.Random(0).choices(range(1, model.symbols), k=count)
    theirs = in_javascript(model, ids)
    ours = model(torch.tensor([ids]))[0][0].numpy()
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(ours).max()
    best = np.sort(ours, -1)
    sure = best[..., -1] - best[..., -2] > 1e-3
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(ours.argmax(-1)[sure], theirs.argmax(-1)[sure])


def trained(core, **more):
    config = ModelConfig(core=core, alphabet="abcdefgh", max_delay=3, hidden=24, **more)
    return train(Recipe(model=config, training=TrainingConfig(steps=150))).model.eval()


@needs_node
@pytest.mark.parametrize("core", CORES)
def test_ten_thousand_characters_are_answered_as_in_pytorch(core):
    compare(trained(core), 10_000)


@needs_node
def test_a_trained_run_answers_letter_for_letter(fixed_run):
    model = load(fixed_run)
    ids = random.Random(1).choices(range(1, 27), k=10_000)
    with torch.no_grad():
        answers = model(torch.tensor([ids]))[0][0].argmax(-1)
    assert in_javascript(model, ids).argmax(-1).tolist() == answers.tolist()


@needs_node
@pytest.mark.parametrize("core", ["gru", "lru"])
def test_a_model_that_is_told_the_delay_runs_once_for_each(core):
    compare(trained(core, conditioning="input"), 2_000)


@needs_node
@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("load({ ...packed, format: 2 })", "a model of format 2, not 1"),
        ('load({ ...packed, core: "toString" })', "no core toString runs in a page"),
        ("load(packed).step(4)", "no symbol 4; use 0 to 3"),
        ("load(packed).step(-1)", "no symbol -1"),
        ("load(packed).step()", "no symbol undefined"),
    ],
)
def test_what_the_script_cannot_run_it_refuses(does, says):
    packed = json.dumps(pack(EchoModel(ModelConfig(alphabet="abc", max_delay=1, hidden=2))))
    code = f"""{SCRIPT.read_text()}
        const packed = {packed};
        try {{ Echospan.{does}; console.log("ran"); }} catch (e) {{ console.log(e.message); }}
    """
    assert says in node("-", given=code.encode()).decode()


def test_a_core_of_two_layers_is_refused():
    config = ModelConfig(alphabet="abc", max_delay=1, hidden=4)
    with pytest.raises(SettingError, match="open it with echospan serve"):
        pack(EchoModel(config, GRU(4, 4, 2, batch_first=True)))


def test_what_is_packed_is_small_and_tells_what_it_is(fixed_run):
    packed = pack(load(fixed_run), "fixed", [1.0, 1.0, 1.0, 0.5, 0.25])
    assert packed["name"] == "fixed"
    assert packed["recall"] == [1.0, 1.0, 1.0, 0.5, 0.25]
    assert packed["alphabet"] == "abcdefghijklmnopqrstuvwxyz"
    assert (packed["maxDelay"], packed["delay"], packed["hidden"]) == (4, 4, 64)
    assert packed["core"] == "gru"
    assert packed["weights"]["readouts"]["shape"] == [5 * 27, 64]
    assert len(json.dumps(pack(EchoModel(ModelConfig())))) < 500_000


ALPHABET = SCRIPT.parent / "alphabet.js"


@needs_node
@pytest.mark.parametrize(
    ("characters", "expression", "value"),
    [
        ("🌍🎲ab", "a.length", 4),
        ("🌍🎲ab", 'a.encode("b🎲🌍a")', [4, 2, 1, 3]),
        ("🌍🎲ab", 'a.encode(["🎲", "a"])', [2, 3]),
        ("🌍🎲ab", "[0, 1, 2, 3].map((id) => a.draw(id))", ["·", "🌍", "🎲", "a"]),
        ("🌍🎲ab", 'a.has("\\ud83c")', False),
        ("🌍🎲ab", 'a.find("B")', "b"),
        ("🌍🎲ab", 'a.find("💻") ?? null', None),
        ("abSS", 'a.find("ß") ?? null', None),
        ("sıi̇", 'a.find("İ") ?? null', None),
        ("·a", "[a.draw(0), a.draw(1), a.encode('·')]", ["·", "·", [1]]),
        (" \n\x7fa\u0301\u2028", "a.characters.map(Echospan.visible)", "␣ ␊ 007f a ◌\u0301 2028"),
    ],
)
def test_an_alphabet_counts_characters_as_python_does(characters, expression, value):
    code = f"""{ALPHABET.read_text()}
        const a = new Echospan.Alphabet({json.dumps("".join(dict.fromkeys(characters)))});
        console.log(JSON.stringify({expression}));
    """
    expected = value.split(" ") if expression.endswith("visible)") else value
    assert json.loads(node("-", given=code.encode())) == expected


@needs_node
def test_a_character_that_is_no_symbol_is_no_other_symbol():
    code = f"""{ALPHABET.read_text()}
        const a = new Echospan.Alphabet("ab");
        try {{ a.encode("aAb"); }} catch (e) {{ console.log(e.name + ": " + e.message); }}
    """
    said = node("-", given=code.encode()).decode()
    assert said == 'RangeError: the character "A" is not in the alphabet\n'


SOCKET = SCRIPT.parent / "socket.js"


@needs_node
@pytest.mark.parametrize(
    ("page", "address"),
    [
        ("http://127.0.0.1:8737/", "ws://127.0.0.1:8737/socket"),
        ("http://127.0.0.1:8737/#game", "ws://127.0.0.1:8737/socket"),
        ("http://[::1]:8737/page.html?x=1#game", "ws://[::1]:8737/socket"),
        ("https://hub.example/", "wss://hub.example/socket"),
        ("https://hub.example/user/me/proxy/8737/", "wss://hub.example/user/me/proxy/8737/socket"),
        ("http://hub.example:81/echo/page.html", "ws://hub.example:81/echo/socket"),
    ],
)
def test_the_socket_is_beside_the_page(page, address):
    code = f"""
        globalThis.document = {{ baseURI: {json.dumps(page)} }};
        globalThis.addEventListener = () => {{}};
        globalThis.WebSocket = class {{ constructor(asked) {{ console.log(asked); }} }};
        {SOCKET.read_text()}
        Echospan.connect(() => {{}});
    """
    assert node("-", given=code.encode()).decode() == address + "\n"
