"""A training that is stopped, by whatever, goes on and ends where it would have ended."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import safetensors.torch
import torch

from echospan import cli
from echospan.checkpoint import SNAPSHOTS, load, read_snapshot, write_snapshot
from echospan.errors import DivergenceError, RunError
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.training import train

SETTINGS = (
    *("train", "variable", "--max-delay", "2", "--hidden", "16", "--alphabet", "abc", "--batch"),
    *("8", "--target", "0.995", "--polish", "200", "--stream", "0"),
)


def ended(*args):
    with pytest.raises(SystemExit) as end:
        cli.main([str(a) for a in args])
    return end.value.code


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert ended(*SETTINGS, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, whole):
    """The folder of the same run, killed once it had kept two snapshots."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    process = begin(out)
    while process.poll() is None and not all((out / name).exists() for name in SNAPSHOTS):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (out / "config.json").exists()
    return out


def begin(out, *more):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "echospan", *SETTINGS, "--out", str(out)),
            *("--snapshot-seconds", "0.05", *more),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )


@pytest.mark.parametrize("core", ["gru", "lstm", "attention", "lru", "mamba"])
@pytest.mark.parametrize("conditioning", ["readout", "input"])
def test_from_each_snapshot_a_training_ends_bit_for_bit_where_it_would_have(core, conditioning):
    recipe = Recipe(
        model=ModelConfig(
            alphabet="abc", max_delay=2, hidden=8, core=core, conditioning=conditioning
        ),
        training=TrainingConfig(steps=60, batch=4, polish=10, target=0.9),
    )
    kept = []
    undisturbed = train(recipe, on_snapshot=kept.append, snapshot_seconds=0)
    unwatched = train(recipe)
    assert len(kept) == undisturbed.steps
    for snapshot in (None, kept[0], kept[len(kept) // 2], kept[-1]):
        again = train(recipe, resume=snapshot) if snapshot else unwatched
        assert again.steps == undisturbed.steps
        for mine, theirs in zip(
            again.model.state_dict().values(), undisturbed.model.state_dict().values(), strict=True
        ):
            assert torch.equal(mine, theirs)
        assert [p.evaluation for p in again.history] == [p.evaluation for p in undisturbed.history]


def test_killed_again_and_again_it_ends_at_the_same_weights(whole, tmp_path):
    out, kills = tmp_path / "run", 0
    while not (out / "config.json").exists():
        before = read_snapshot(out).facts["step"] if (out / SNAPSHOTS[0]).exists() else 0
        process = begin(out, "--resume")
        while process.poll() is None:
            kept = read_snapshot(out) if all((out / n).exists() for n in SNAPSHOTS) else None
            if kills < 3 and kept is not None and kept.facts["step"] > before + 20:
                process.kill()
                kills += 1
                break
            time.sleep(0.02)
        process.communicate()
    assert kills == 3
    assert weights(out) == weights(whole)
    assert not any((out / name).exists() for name in SNAPSHOTS)
    told = [json.loads((r / "evaluation.json").read_text()) for r in (out, whole)]
    assert told[0]["delays"] == told[1]["delays"]
    assert told[0]["steps"] == told[1]["steps"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_there_is_a_run_as_it_stands_and_it_goes_on(whole, tmp_path, number):
    out = tmp_path / "run"
    process = begin(out)
    while process.poll() is None and not (out / SNAPSHOTS[0]).exists():
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 130
    load(out)
    assert weights(out) != weights(whole)
    process = begin(out, "--resume")
    process.communicate()
    assert process.returncode == 0
    assert weights(out) == weights(whole)


def snapshots_in(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name in SNAPSHOTS}


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((), "holds a run that was not finished; go on with --resume"),
        (("--resume", "--hidden", "17"), "was begun with --hidden 16, not 17"),
        (("--resume", "--seed", "1"), "was begun with --seed 0, not 1"),
        (("--resume", "--snapshot-seconds", "-1"), "--snapshot-seconds is -1"),
    ],
)
def test_what_cannot_go_on_is_refused_and_left_whole(stopped, capsys, args, sentence):
    before = snapshots_in(stopped)
    assert ended(*SETTINGS, "--out", stopped, *args) == 2
    assert sentence in capsys.readouterr().err
    assert snapshots_in(stopped) == before


def test_a_finished_run_has_nothing_to_resume(whole, capsys):
    assert ended(*SETTINGS, "--out", whole, "--resume") == 2
    assert "is finished; evaluate it" in capsys.readouterr().err


def test_where_nothing_is_kept_it_begins_anew_and_says_so(tmp_path, whole, capsys):
    assert ended(*SETTINGS, "--out", tmp_path / "run", "--resume") == 0
    assert "holds nothing to go on from: it begins anew" in capsys.readouterr().err
    assert weights(tmp_path / "run") == weights(whole)


def test_the_newest_whole_snapshot_counts(stopped, tmp_path):
    for name in SNAPSHOTS:
        (tmp_path / name).write_bytes((stopped / name).read_bytes())
    newest, before = (tmp_path / name for name in SNAPSHOTS)
    step = read_snapshot(tmp_path).facts["step"]
    newest.write_bytes(newest.read_bytes()[:-1])
    assert 0 < read_snapshot(tmp_path).facts["step"] < step
    before.unlink()
    with pytest.raises(RunError, match="is not a whole snapshot"):
        read_snapshot(tmp_path)


def test_a_number_changed_in_a_snapshot_is_seen(stopped, tmp_path):
    path = tmp_path / SNAPSHOTS[0]
    with safetensors.safe_open(stopped / SNAPSHOTS[0], "pt") as f:
        told = f.metadata()
    named = safetensors.torch.load_file(stopped / SNAPSHOTS[0])
    named["model.embedding.weight"][0, 0] += 1e-3
    safetensors.torch.save_file(named, path, told)
    with pytest.raises(RunError, match="its checksum differs"):
        read_snapshot(tmp_path)
    del told["sha256"]
    safetensors.torch.save_file(named, path, told)
    with pytest.raises(RunError, match="is not a whole snapshot"):
        read_snapshot(tmp_path)


class Bursts(torch.nn.GRU):
    """In its fifth step its answers are no numbers."""

    steps = 0

    def forward(self, x, state=None):
        self.steps += len(x) == 32
        y, state = super().forward(x, state)
        return (y / 0 if self.steps == 5 else y), state


def test_a_loss_that_is_no_number_ends_it_and_the_last_good_snapshot_stays(tmp_path):
    recipe = Recipe(model=ModelConfig(alphabet="ab", max_delay=1))
    with pytest.raises(DivergenceError, match=r"at step 5 the loss is nan, .*rate of 0\.01; train"):
        train(
            recipe,
            core=Bursts(3, 8, batch_first=True),
            on_snapshot=partial(write_snapshot, tmp_path),
            snapshot_seconds=0,
        )
    assert read_snapshot(tmp_path, Bursts(3, 8, batch_first=True)).facts["step"] == 4
    with pytest.raises(RunError, match="does not have 128 columns"):
        read_snapshot(tmp_path)  # the recipe's own core is another one


def test_weights_that_are_no_numbers_take_no_snapshots_place(tmp_path, capsys):
    folder = tmp_path / "run"
    steps = ["--snapshot-seconds", "1e-9", "--learning-rate", "1e38", "--stream", "0"]
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "fixed", "--out", str(folder), *steps])
    assert end.value.code == 2
    assert "at step 2 the loss is" in capsys.readouterr().err
    assert read_snapshot(folder) is None
