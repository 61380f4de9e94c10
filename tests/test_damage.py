"""Files that are damaged, foreign or meant to harm are refused in a sentence; nothing is run."""

import json
import os
import pickle
import random
import resource
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch
from benchmarks.damage import damaged, subjects
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echospan import cli
from echospan.checkpoint import load
from echospan.cores import CORES
from echospan.errors import EchospanError, RunError
from echospan.model import EchoModel
from echospan.recipes import ModelConfig
from echospan.streaming import Stream


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run, a snapshot, a stream's state and a store, each with what reads all of it."""
    return subjects(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("name", ["run", "snapshot", "state", "store"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**64))
def test_what_is_hurt_anywhere_is_refused_in_a_sentence_or_unharmed(whole, name, seed):
    files, read = whole[name]
    chance = random.Random(seed)
    path = chance.choice(files)
    good, expected = path.read_bytes(), read(path.parent)
    path.write_bytes(damaged(good, chance))
    try:
        said, got = "", None
        try:
            got = read(path.parent)
        except EchospanError as e:
            said = str(e)
        assert got == expected if not said else "\n" not in said
    finally:
        for old in path.parent.iterdir():
            if old not in files:
                old.unlink()
        path.write_bytes(good)


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the run that may be harmed."""
    files, _ = whole["run"]
    for path in files:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


class Bomb:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch bombed",)


def _config(run, **changes):
    path = run / "config.json"
    told = json.loads(path.read_text())
    told["model"] |= changes
    path.write_text(json.dumps(told))


def _weights(run, change):
    path = run / "model.safetensors"
    named = safetensors.torch.load_file(path)
    change(named)
    safetensors.torch.save_file(named, path)


def _linked(run):
    (run / "real").write_bytes((run / "model.safetensors").read_bytes())
    (run / "model.safetensors").unlink()
    (run / "model.safetensors").symlink_to("real")


def _device(run):
    (run / "config.json").unlink()
    (run / "config.json").symlink_to("/dev/zero")


def _pipe(run):
    (run / "config.json").unlink()
    os.mkfifo(run / "config.json")


HARMS = {
    "a terabyte of units": lambda run: _config(run, hidden=2**38),
    "a terabyte of delays": lambda run: _config(run, max_delay=2**38),
    "an alphabet in another order": lambda run: _config(run, alphabet="acb"),
    "another core": lambda run: _config(run, core="lstm"),
    "a setting that is not known": lambda run: _config(run, os="rm"),
    "a core that leads away": lambda run: _config(run, core="../../other"),
    "text for a number": lambda run: _config(run, hidden="8"),
    "weights of another shape": lambda run: _weights(
        run, lambda named: named.update({"readouts.weight": torch.zeros(3, 3)})
    ),
    "weights that are left out": lambda run: _weights(run, lambda named: named.popitem()),
    "a link": _linked,
    "a device without an end": _device,
    "a pipe that nobody writes to": _pipe,
    "a pickle in disguise": lambda run: (run / "model.safetensors").write_bytes(
        pickle.dumps(Bomb())
    ),
    "a pickle for settings": lambda run: (run / "config.json").write_bytes(pickle.dumps(Bomb())),
    "brackets without an end": lambda run: (run / "config.json").write_text("[" * 500_000),
    "a list": lambda run: (run / "config.json").write_text("[1]"),
    "a header that claims a terabyte": lambda run: (run / "model.safetensors").write_bytes(
        (2**40).to_bytes(8, "little") + b"{}"
    ),
    "a file of holes": lambda run: os.truncate(run / "config.json", 2**36),
    "nothing": lambda run: (run / "model.safetensors").write_bytes(b""),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_run_that_means_harm_is_refused_at_once(run, harm, capsys, monkeypatch):
    monkeypatch.chdir(run)
    HARMS[harm](run)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with pytest.raises(SystemExit) as end:
        cli.main(["echo", str(run), "abc"])
    assert end.value.code == 2
    assert time.perf_counter() - start < 5  # of a machine that is busy; the promise is one
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert not (run / "bombed").exists()


def test_weights_that_are_no_numbers_are_refused_though_their_checksum_is_right(tmp_path):
    from echospan.checkpoint import save
    from echospan.recipes import TrainingConfig

    model = EchoModel(ModelConfig(alphabet="abc", max_delay=1, hidden=4))
    with torch.no_grad():
        model.readouts.bias[0] = torch.nan
    save(model, TrainingConfig(), tmp_path / "run", {})
    with pytest.raises(RunError, match="holds nan or infinity"):
        load(tmp_path / "run")


@pytest.mark.parametrize("core", CORES)
def test_every_core_is_saved_and_loaded_and_its_stream_is_taken_up_exactly(core, tmp_path):
    from echospan.checkpoint import save
    from echospan.recipes import TrainingConfig

    torch.manual_seed(0)
    model = EchoModel(ModelConfig(alphabet="abc", max_delay=2, hidden=16, core=core))
    save(model, TrainingConfig(), tmp_path / "run", {})
    text = "abcabccabacb" * 8
    undisturbed = Stream(load(tmp_path / "run"), 1).push(text)
    said = ""
    for start in range(0, len(text), 31):
        stream = Stream(load(tmp_path / "run"), 1)
        if start:
            stream.restore(tmp_path / "state")
        said += stream.push(text[start : start + 31])
        stream.save(tmp_path / "state")
    assert said == undisturbed


def test_a_state_is_refused_by_another_model_and_the_stream_goes_on(whole, tmp_path):
    files, _ = whole["state"]
    torch.manual_seed(1)
    model = EchoModel(ModelConfig(alphabet="abc", max_delay=2, hidden=8))
    stream = Stream(model, 1)
    one = stream.push("abca")
    with pytest.raises(RunError, match="is of another model"):
        stream.restore(files[0])
    assert one + stream.push("cabb") == Stream(model, 1).push("abcacabb")


def test_a_stream_is_stopped_and_taken_up_again_on_the_command_line(whole, tmp_path):
    run = whole["run"][0][0].parent
    text = "abcabccabacbabcabccabacb"

    def say(part, *args):
        return subprocess.run(
            [sys.executable, "-m", "echospan", "echo", str(run), "--delay", "1", *args],
            input=part,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    state = ("--state", str(tmp_path / "state"))
    assert say(text[:7], *state) + say(text[7:], *state) == say(text)
