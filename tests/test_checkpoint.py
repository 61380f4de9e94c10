"""What is kept in files comes back as it was, or is refused; nothing is ever half written."""

import errno
import hashlib
import json
import os
import stat
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path

import pytest
import torch

import echospan
from echospan.checkpoint import (
    FORMAT,
    SNAPSHOTS,
    check_output,
    fingerprint,
    load,
    load_recipe,
    read_snapshot,
    save,
    write_snapshot,
    write_whole,
)
from echospan.errors import RunError
from echospan.evaluation import as_report, evaluate
from echospan.model import EchoModel
from echospan.recipes import Made, ModelConfig, Part, Recipe, TrainingConfig
from taken import snapshot

RECIPE = Recipe(
    model=ModelConfig(alphabet="abc", max_delay=2, hidden=4), training=TrainingConfig(steps=7)
)


@pytest.fixture
def model():
    return EchoModel(RECIPE.model)


@pytest.fixture
def run(model, tmp_path):
    return save(model, RECIPE.training, tmp_path / "run", {"history.jsonl": "one\n"})


def refusal(what, *args, **more):
    """The sentence with which a call is refused."""
    with pytest.raises(RunError) as refused:
        what(*args, **more)
    return str(refused.value)


def changed(run, **changes):
    """Change what config.json says."""
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def holds(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# A run folder


@pytest.mark.parametrize("conditioning", ["readout", "input"])
@pytest.mark.parametrize("core", ["gru", "lru"])
def test_a_model_comes_back_as_it_was_with_the_recipe_that_made_it(tmp_path, conditioning, core):
    recipe = replace(RECIPE, model=replace(RECIPE.model, conditioning=conditioning, core=core))
    made = EchoModel(recipe.model).train()
    assert save(made, recipe.training, tmp_path / "run", {}) == tmp_path / "run"
    again, told = load_recipe(str(tmp_path / "run"))
    assert told == recipe
    assert again.config == recipe.model
    assert not again.training
    assert made.training
    for (name, mine), (same, theirs) in zip(
        made.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name == same
        assert torch.equal(mine, theirs)
    assert not load(tmp_path / "run").training


MADE = Made(
    training=RECIPE.training,
    versions={"echospan": "1.0", "torch": "3.0"},
    threads=7,
    processes=2,
    machine="a loom",
    earlier=(Part(steps=3, versions={"torch": "2.0"}, threads=8, machine="another"),),
    repeatable=False,
)


def test_a_run_says_how_its_model_was_made_and_that_is_under_its_checksum_too(model, tmp_path):
    model.made = MADE
    run = save(model, RECIPE.training, tmp_path / "run", {})
    assert load(run).made == MADE
    told = json.loads((run / "config.json").read_text())["made"]
    whole = {k: v for k, v in asdict(MADE).items() if k != "training"}
    assert told == whole | {"earlier": list(whole["earlier"])}
    changed(run, made=told | {"repeatable": True})
    assert "(its checksum differs)" in refusal(load, run)


def test_a_model_that_nobody_trained_does_not_say_how_it_was_made(run):
    assert json.loads((run / "config.json").read_text())["made"] is None
    assert load(run).made is None


def test_weights_may_lie_in_memory_in_any_order(model, tmp_path):
    model.readouts.weight = torch.nn.Parameter(model.readouts.weight.T.contiguous().T)
    assert not model.readouts.weight.is_contiguous()
    again = load(save(model, RECIPE.training, tmp_path / "run", {}))
    assert torch.equal(again.readouts.weight, model.readouts.weight)
    assert fingerprint(again) == fingerprint(model)


def test_a_run_folder_says_what_it_is_in_json_that_people_can_read(run, model):
    text = (run / "config.json").read_text()
    told = json.loads(text)
    assert text == json.dumps(told, indent=2) + "\n"
    assert set(told) == {"format", "echospan", "model", "training", "made", "files", "sha256"}
    assert told["format"] == FORMAT == 4
    assert told["echospan"] == echospan.__version__
    assert told["model"] == asdict(RECIPE.model)
    assert told["training"] == asdict(RECIPE.training)
    assert len(told["sha256"]) == 64
    assert told["files"] == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in holds(run).items()
        if name != "config.json"
    }
    assert set(holds(run)) == {"model.safetensors", "config.json", "history.jsonl"}
    assert (run / "history.jsonl").read_text() == "one\n"


def test_others_on_the_machine_may_read_a_run_and_beside_it_nothing_is_left(run):
    assert mode(run) == 0o755
    assert [p.name for p in run.parent.iterdir()] == ["run"]


def test_folders_on_the_way_are_made(model, tmp_path):
    save(model, RECIPE.training, str(tmp_path / "a" / "b" / "run"), {})
    assert load(tmp_path / "a" / "b" / "run").max_delay == 2


def test_a_run_is_never_replaced_unless_that_was_asked_for(run, model):
    before = holds(run)
    said = refusal(save, model, RECIPE.training, run, {})
    assert said == f"{run} exists already; name another folder, or add overwrite=True"
    assert holds(run) == before
    save(model, RECIPE.training, run, {"note": "new"}, overwrite=True)
    assert set(holds(run)) == {"model.safetensors", "config.json", "note"}
    assert [p.name for p in run.parent.iterdir()] == ["run"]


def test_what_is_no_run_is_not_overwritten_even_where_that_was_asked_for(model, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis").write_text("all of it")
    for there in (home, home / "thesis"):
        said = refusal(save, model, RECIPE.training, there, {}, overwrite=True)
        assert said == (
            f"{there} exists and is not a run of echospan; "
            "it is not overwritten: name another folder"
        )
    assert (home / "thesis").read_text() == "all of it"


@pytest.mark.parametrize("name", ["resume.safetensors", "resume.before.safetensors"])
def test_a_run_that_is_unfinished_is_gone_on_with_or_overwritten(tmp_path, name):
    out = tmp_path / "run"
    out.mkdir()
    (out / name).write_bytes(b"")
    assert refusal(check_output, out) == (
        f"{out} holds a run that was not finished; name another folder, or add overwrite=True"
    )
    assert check_output(str(out), overwrite=True) == out
    assert (out / name).exists()


def test_checking_whether_a_run_may_be_written_leaves_no_trace(model, tmp_path):
    assert check_output(tmp_path / "new" / "run") == tmp_path / "new" / "run"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert refusal(save, model, RECIPE.training, tmp_path / "file" / "run", {}) == (
        f"nothing can be written to {tmp_path / 'file' / 'run'} (File exists); "
        "name a folder on a disk with room that you may write to"
    )


def test_an_empty_folder_is_used(model, tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    save(model, RECIPE.training, tmp_path / "run", {})
    assert load(tmp_path / "run").max_delay == 2
    assert mode(tmp_path / "run") == 0o700


def test_a_model_of_another_library_is_no_run_of_ours(model, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text('{"architectures": ["Other"], "format": 1}')
    before = holds(tmp_path)
    for overwrite in (False, True):
        assert "is not a run of echospan" in refusal(
            save, model, RECIPE.training, tmp_path, {}, overwrite
        )
    assert holds(tmp_path) == before


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 100])
def test_a_run_whose_settings_are_damaged_can_be_overwritten(model, tmp_path, damage):
    report = as_report(model, evaluate(model, trials=50), 0.9, {"stream": None})
    files = {"evaluation.json": json.dumps(report)}
    run = save(model, RECIPE.training, tmp_path / "run", files)
    (run / "config.json").write_bytes(damage)
    assert "exists already" in refusal(save, model, RECIPE.training, run, {})
    save(model, RECIPE.training, run, {}, overwrite=True)
    assert load(run).max_delay == 2
    assert (run / "config.json.replaced-1").read_bytes() == damage


def test_overwriting_a_run_leaves_all_that_is_not_of_it(model, run):
    (run / "thesis.txt").write_text("all of it")
    (run / "sub").mkdir()
    (run / "sub" / "notes").write_text("some")
    (run / "history.jsonl").write_text("changed by its reader\n")
    save(model, RECIPE.training, run, {}, overwrite=True)
    assert (run / "thesis.txt").read_text() == "all of it"
    assert (run / "sub" / "notes").read_text() == "some"
    assert (run / "history.jsonl.replaced-1").read_text() == "changed by its reader\n"
    assert {p.name for p in run.iterdir()} == {
        *("model.safetensors", "config.json", "thesis.txt", "sub", "history.jsonl.replaced-1")
    }


def test_overwriting_an_interrupted_run_removes_its_snapshots_and_no_file_of_that_name(model, run):
    for step in (1, 2):
        write_snapshot(run, snapshot(step))
    (run / SNAPSHOTS[1]).write_text("a resume of somebody's")
    save(model, RECIPE.training, run, {}, overwrite=True)
    assert {p.name for p in run.iterdir()} == {
        *("model.safetensors", "config.json", f"{SNAPSHOTS[1]}.replaced-1")
    }


def test_a_link_to_a_run_is_followed(model, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("absolute").symlink_to(run)
    Path("relative").symlink_to("run")
    for note, name in enumerate(("absolute", "relative", "run")):
        save(model, RECIPE.training, Path(name), {"note": str(note)}, overwrite=True)
        assert (run / "note").read_text() == str(note)
    assert Path("absolute").is_symlink()
    assert Path("relative").is_symlink()


def test_a_link_that_leads_nowhere_or_in_a_circle_is_refused(model, tmp_path):
    (tmp_path / "dead").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    for name, leads in (("dead", "nowhere"), ("circle", "circle")):
        for path in (tmp_path / name, tmp_path / name / "run"):
            assert refusal(save, model, RECIPE.training, path, {}, overwrite=True) == (
                f"{tmp_path / name} is a link to {leads}, and nothing is there; "
                "make what it leads to, remove the link, or name another place"
            )
    assert {p.name for p in tmp_path.iterdir()} == {"dead", "circle"}


class Disk:
    """Stands between a program and its disk: notes each step, and refuses one, or all from there.

    Of what is put on the disk it notes how much of it is there by then.
    """

    STEPS = ("fsync", "rename", "replace", "mkdir")

    def __init__(self, monkeypatch, refuse=-1, for_good=False, steps=STEPS):
        self.steps, self.places, self.synced = [], [], []
        self.refuse = range(refuse, 1000 if for_good else refuse + 1)
        for name in steps:
            monkeypatch.setattr(os, name, self.watched(name, getattr(os, name)))

    def watched(self, name, real):
        def step(*args, **more):
            at = Path(f"/proc/self/fd/{args[0]}").readlink() if name == "fsync" else Path(args[0])
            if at.is_dir() and name == "fsync":  # a file system may not know it: no failure counts
                return real(*args, **more)
            self.steps.append((name, at.name))
            self.places.append(at)
            if name == "fsync":
                self.synced.append((at.name, os.fstat(args[0]).st_size))
            if len(self.steps) - 1 in self.refuse:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **more)

        return step


def test_every_file_is_on_the_disk_before_the_run_appears(model, tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    run = save(model, RECIPE.training, tmp_path / "run", {"note": "abc"})
    names = ["model.safetensors", "note", "config.json"]
    assert disk.synced[:3] == [(name, (run / name).stat().st_size) for name in names]
    kinds = [kind for kind, _ in disk.steps]
    assert kinds[-8:] == [*["fsync"] * 4, "rename", *["replace"] * 3]
    assert disk.steps[-1] == ("replace", "config.json")


def test_what_is_half_made_lies_hidden_in_the_folder(model, tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    for _ in range(2):
        save(model, RECIPE.training, tmp_path / "run", {}, overwrite=True)
    made = {at.relative_to(tmp_path).parts[1:2] for at in disk.places} - {()}
    assert all(name.startswith(".echospan-") for (name,) in made)


def test_a_disk_that_refuses_any_step_leaves_the_old_run_or_the_new_one(
    model, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    save(model, RECIPE.training, run, {"note": "old"})
    sentences = []
    for refused in range(20):
        save(model, RECIPE.training, run, {"note": "old"}, overwrite=True)
        with monkeypatch.context() as patch:
            disk = Disk(patch, refused)
            try:
                save(model, RECIPE.training, run, {"note": "new"}, overwrite=True)
            except RunError as e:
                sentences.append(str(e))
        load(run)
        note = (run / "note").read_text()
        assert note == ("old" if refused <= 5 else "new"), disk.steps
        assert set(holds(run)) == {"model.safetensors", "config.json", "note"}
        if refused >= len(disk.steps):
            break
    # A folder, three files and their plan, and the folder's move; then each file's own move.
    refusals = [
        f"the run could not be written to {run} (No space left on device); "
        "make room or name another folder",
        f"the run in {run} is written but could not take its place (No space left on device); it "
        "is whole in .echospan-commit there, and takes its place when the folder is next used",
    ]
    assert sentences == [refusals[0]] * 6 + [refusals[1]] * 3


def test_a_disk_that_is_gone_for_good_has_a_whole_run(model, tmp_path, monkeypatch):
    run = save(model, RECIPE.training, tmp_path / "run", {"note": "old"})
    for refused in range(7):
        with monkeypatch.context() as patch:
            Disk(patch, refused, for_good=True, steps=(*Disk.STEPS, "unlink", "rmdir"))
            refusal(save, model, RECIPE.training, run, {"note": "new"}, overwrite=True)
        assert load(run).max_delay == 2
        save(model, RECIPE.training, run, {"note": "old"}, overwrite=True)
        assert set(holds(run)) == {"model.safetensors", "config.json", "note"}


def test_an_old_file_that_cannot_be_removed_does_not_spoil_the_new_run(
    model, tmp_path, monkeypatch
):
    run = save(model, RECIPE.training, tmp_path / "run", {"note": "old"})

    def refuse(name, real=os.unlink, **more):
        if Path(name).name == "note":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(name, **more)

    monkeypatch.setattr(os, "unlink", refuse)
    save(model, RECIPE.training, run, {}, overwrite=True)
    assert set(holds(run)) == {"model.safetensors", "config.json", "note"}
    assert list(json.loads((run / "config.json").read_text())["files"]) == ["model.safetensors"]


# Snapshots of a training under way


def test_a_snapshot_comes_back_as_it_was(tmp_path):
    write_snapshot(tmp_path / "run", snapshot(3))
    again = read_snapshot(tmp_path / "run")
    assert again.recipe == snapshot(3).recipe
    assert again.facts == snapshot(3).facts
    assert again.facts["step"] == 3
    assert set(again.tensors) == set(snapshot(3).tensors)
    assert all(torch.equal(t, again.tensors[name]) for name, t in snapshot(3).tensors.items())


def test_a_snapshot_cannot_be_changed_once_it_is_taken():
    with pytest.raises(FrozenInstanceError):
        snapshot(1).facts = {}


def test_the_newest_snapshot_counts_and_the_one_before_it_is_kept(tmp_path):
    for step in (1, 2, 3):
        write_snapshot(tmp_path, snapshot(step))
    assert set(holds(tmp_path)) == {"resume.safetensors", "resume.before.safetensors"}
    assert read_snapshot(tmp_path).facts["step"] == 3
    (tmp_path / SNAPSHOTS[0]).write_bytes(b"")
    assert read_snapshot(tmp_path).facts["step"] == 2
    (tmp_path / SNAPSHOTS[0]).unlink()
    assert read_snapshot(tmp_path).facts["step"] == 2


def test_a_disk_that_refuses_a_snapshot_leaves_those_that_were_there(tmp_path, monkeypatch):
    for step in (1, 2):
        write_snapshot(tmp_path, snapshot(step))
    sentences = []
    for refused in range(6):
        with monkeypatch.context() as patch:
            Disk(patch, refused)
            try:
                write_snapshot(tmp_path, snapshot(3))
            except RunError as e:
                sentences.append(str(e))
                kept = 2
            else:
                kept = 3
        assert read_snapshot(tmp_path).facts["step"] == kept
        assert set(holds(tmp_path)) <= set(SNAPSHOTS)
        for again in (1, 2):
            write_snapshot(tmp_path, snapshot(again))
    # The newest is put on the disk; the one before it moves, and it moves.
    path = tmp_path / SNAPSHOTS[0]
    assert sentences == 3 * [
        f"{path} could not be written (No space left on device); make room or name another place"
    ]
    (tmp_path / "file").write_text("")
    assert refusal(write_snapshot, tmp_path / "file", snapshot(1)) == (
        f"{tmp_path / 'file'} cannot be written (File exists); "
        "make room there or name another folder"
    )


# Single files


def test_a_file_is_written_whole_and_others_may_read_it(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    write_whole(tmp_path / "file", b"one")
    assert (tmp_path / "file").read_bytes() == b"one"
    assert mode(tmp_path / "file") == 0o644
    write_whole(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert [name for name, _ in disk.steps] == ["fsync", "replace"] * 2
    assert [size for _, size in disk.synced] == [3, 3]


def test_a_file_keeps_the_mode_that_it_had(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file").chmod(0o600)
    write_whole(tmp_path / "file", b"new")
    assert mode(tmp_path / "file") == 0o600


def test_many_files_later_none_is_left_open(tmp_path):
    def still_open():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = still_open()
    for _ in range(20):
        write_whole(tmp_path / "file", b"")
    assert still_open() == before


@pytest.mark.parametrize("step", range(2))
def test_a_disk_that_refuses_a_file_leaves_the_old_one(tmp_path, monkeypatch, step):
    (tmp_path / "file").write_bytes(b"old")
    with monkeypatch.context() as patch:
        Disk(patch, step)
        said = refusal(write_whole, tmp_path / "file", b"new")
    assert said == (
        f"{tmp_path / 'file'} could not be written (No space left on device); "
        "make room or name another place"
    )
    assert holds(tmp_path) == {"file": b"old"}
    with monkeypatch.context() as patch:
        Disk(patch, step, for_good=True, steps=(*Disk.STEPS, "unlink"))
        assert refusal(write_whole, tmp_path / "file", b"new") == said
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_file_for_a_folder_that_is_not_there_is_refused(tmp_path):
    assert refusal(write_whole, tmp_path / "none" / "file", b"") == (
        f"{tmp_path / 'none' / 'file'} could not be written (No such file or directory); "
        "make room or name another place"
    )
