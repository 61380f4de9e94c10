"""One training on several processes, and in bfloat16."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from echospan.checkpoint import load, read_snapshot, write_snapshot
from echospan.cores import CORES
from echospan.errors import SettingError
from echospan.parallel import Group
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.training import train
from trained_together import CASES, STEPS, Conditioning, a_few_steps

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LIKE_A_USER = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made of a few steps of every core."""
    out = tmp_path_factory.mktemp("together")
    script = Path(__file__).with_name("trained_together.py")
    subprocess.run([*TORCHRUN, str(script), str(out)], check=True, env=LIKE_A_USER, timeout=300)
    return out


@pytest.mark.parametrize(("core", "conditioning"), CASES)
def test_two_processes_with_half_the_batch_take_the_same_steps_as_one(
    core: str, conditioning: Conditioning, together: Path
) -> None:
    theirs = torch.load(together / f"{core}.{conditioning}.pt")
    result = a_few_steps(core, conditioning)
    mine = result.model.state_dict()
    assert result.steps == STEPS
    assert theirs.pop("loss").item() == pytest.approx(result.history[-1].loss, rel=1e-5)
    for name, weight in mine.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("core", ["gru", "attention"])
def test_a_snapshot_of_two_processes_holds_all_rows_and_one_process_goes_on_from_it(
    core: str, together: Path
) -> None:
    snapshot = read_snapshot(together / core)
    assert snapshot is not None
    assert 0 < snapshot.facts["step"] < STEPS
    resumed = train(snapshot.recipe, resume=snapshot).model.state_dict()
    undisturbed = a_few_steps(core, "readout").model.state_dict()
    for name, weight in undisturbed.items():
        torch.testing.assert_close(resumed[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def numbered(rank: int, parent: int) -> psutil.Process:
    """The process of that rank among those that torchrun began."""
    children = psutil.Process(parent).children()
    return next(child for child in children if child.environ().get("RANK") == str(rank))


def test_a_process_that_dies_ends_the_others_with_the_reason_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
    command = [*TORCHRUN, "-m", "echospan", "train", "bits", "--out", str(tmp_path / "run")]
    command += ["--stream", "0", "--target", "0.9998", "--snapshot-seconds", "0.001"]
    command += ["--batch", "4"]
    endless = subprocess.Popen(
        [*command, "--steps", "1000000"],
        env=LIKE_A_USER,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert endless.stderr is not None
    assert any(line.startswith("run: step") for line in endless.stderr)
    numbered(1, endless.pid).kill()
    said, complaint = endless.communicate(timeout=30)
    assert endless.returncode != 0
    assert said == ""
    assert "echospan: process 0 of 2 lost another one of this training" in complaint
    assert "go on from the last snapshot with --resume" in complaint

    snapshot = read_snapshot(tmp_path / "run")
    assert snapshot is not None
    step = snapshot.facts["step"]
    # The same command goes on for ever: the one that is tried has its end put near.
    shorter = replace(snapshot.recipe.training, steps=step + 5)
    write_snapshot(
        tmp_path / "run",
        replace(
            snapshot,
            recipe=replace(snapshot.recipe, training=shorter),
            facts=snapshot.facts | {"last_step": step + 5},
        ),
    )
    again = subprocess.run(
        [*command, "--steps", str(step + 5), "--resume"],
        env=LIKE_A_USER,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert f"{step + 5} steps in all" in again.stdout, again.stderr
    assert load(tmp_path / "run").max_delay == 3


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(SettingError, match=r"batch is 32, which 3 processes.*multiple of 3"):
        Group(rank=1, size=3).rows(32)


def test_one_gpu_for_several_processes_is_refused() -> None:
    group = Group(rank=1, size=2, local=1)
    assert group.device("cuda") == "cuda:1"
    with pytest.raises(SettingError, match="device is cuda:0, one for 2 processes; use cpu or"):
        group.device("cuda:0")


@pytest.mark.parametrize("core", CORES)
def test_every_core_trains_in_bfloat16_and_keeps_its_weights_in_float32(core: str) -> None:
    recipe = Recipe(
        model=ModelConfig(alphabet="bits", core=core, hidden=16, max_delay=3),
        training=TrainingConfig(steps=12, batch=8, precision="bf16"),
    )
    result = train(recipe)
    assert {t.dtype for t in result.model.state_dict().values() if t.is_floating_point()} == {
        torch.float32
    }
    in_full = train(replace(recipe, training=replace(recipe.training, precision="fp32")))
    assert result.history[-1].loss != in_full.history[-1].loss
    assert result.history[-1].loss == pytest.approx(in_full.history[-1].loss, rel=0.03)


def test_bfloat16_reaches_the_target() -> None:
    recipe = Recipe(
        model=ModelConfig(alphabet="bits", hidden=32, max_delay=3),
        training=TrainingConfig(precision="bf16", steps=2_000),
    )
    assert train(recipe).reached
