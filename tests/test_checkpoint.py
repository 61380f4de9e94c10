"""What is kept in files comes back as it was, or is refused; nothing is ever half written."""

import errno
import hashlib
import json
import os
import stat
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import echospan
from echospan import checkpoint
from echospan.checkpoint import (
    FORMAT,
    SNAPSHOTS,
    Snapshot,
    check_output,
    fingerprint,
    load,
    load_recipe,
    measured_recall,
    read_snapshot,
    save,
    sealed,
    unsealed,
    write_snapshot,
    write_whole,
)
from echospan.errors import RunError
from echospan.model import EchoModel
from echospan.recipes import Made, ModelConfig, Recipe, TrainingConfig

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
    machine="a loom",
    repeatable=True,
)


def test_a_run_says_how_its_model_was_made_and_that_is_under_its_checksum_too(model, tmp_path):
    model.made = MADE
    run = save(model, RECIPE.training, tmp_path / "run", {})
    assert load(run).made == MADE
    told = json.loads((run / "config.json").read_text())["made"]
    assert told == {k: v for k, v in asdict(MADE).items() if k != "training"}
    changed(run, made=told | {"repeatable": False})
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
    assert set(told) == {"format", "echospan", "model", "training", "made", "sha256", "files"}
    assert told["format"] == FORMAT == 3
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
    evaluation = {"evaluation.json": '{"versions": {"echospan": "1"}}'}
    run = save(model, RECIPE.training, tmp_path / "run", evaluation)
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


# What is refused


def test_what_is_not_there_is_refused(run, tmp_path):
    assert refusal(load, tmp_path / "none") == (
        f"there is no run folder {tmp_path / 'none'}; "
        "make one with echospan train --out, or take a model that is shipped"
    )
    remedy = "name a folder that echospan train made"
    for name in ("model.safetensors", "config.json"):
        (run / name).unlink()
        assert refusal(load, run) == f"{run} has no {name}; {remedy}"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_link_or_a_folder_in_place_of_a_file_is_refused(run, tmp_path, name):
    (run / name).replace(tmp_path / "real")
    said = f"{run / name} is no file of its own; name a folder that echospan train made"
    (run / name).symlink_to(tmp_path / "real")
    assert refusal(load, run) == said
    (run / name).unlink()
    (run / name).mkdir()
    assert refusal(load, run) == said


def test_settings_of_more_than_a_megabyte_are_refused(run):
    path = run / "config.json"
    whole = path.read_bytes()
    path.write_bytes(whole + b" " * (1_000_000 - len(whole)))
    assert load(run).max_delay == 2
    path.write_bytes(whole + b" " * (1_000_001 - len(whole)))
    assert refusal(load, run) == (
        f"{path} is too large to be ours; name a folder that echospan train made"
    )


@pytest.mark.parametrize("text", ["[1]", "{}", '{"format": "2"}', '{"format": true}', "7"])
def test_settings_of_another_program_are_refused(run, text):
    (run / "config.json").write_text(text)
    assert refusal(load, run) == (f"{run}/config.json is not of echospan; name a folder it made")


def test_settings_that_are_no_json_are_refused(run):
    (run / "config.json").write_text("{")
    said = refusal(load, run)
    assert said.startswith(f"{run}/config.json cannot be read (Expecting property name")
    assert said.endswith("); train it anew with echospan train")


def test_a_run_of_a_newer_echospan_is_refused(run):
    changed(run, format=FORMAT + 1)
    assert refusal(load, run) == (
        f"{run} has format {FORMAT + 1}, newer than {FORMAT}; install a newer echospan"
    )


def test_settings_that_do_not_fit_the_weights_are_refused_before_anything_is_built(run):
    config = json.loads((run / "config.json").read_text())
    shape = "the read-outs are [12, 4], not"
    again = "train it anew with echospan train"
    for change, seen in (
        ({"max_delay": 3}, f"{shape} [16, 4]"),
        ({"hidden": 2**40}, f"{shape} [12, {2**40}]"),
        ({"alphabet": "abcd"}, f"{shape} [15, 4]"),
        ({"conditioning": "input"}, f"{shape} [4, 4]"),
        ({"hidden": 0}, "hidden is 0; use a whole number of 1 or more"),
        ({"delay": -1}, "delay is -1; use a whole number of 0 or more"),
    ):
        changed(run, model=config["model"] | change)
        assert refusal(load, run) == f"{run}/config.json does not fit its model ({seen}); {again}"
    for left_out in ("model", "training"):
        (run / "config.json").write_text(
            json.dumps({k: v for k, v in config.items() if k != left_out})
        )
        assert refusal(load, run) == (
            f"{run}/config.json does not fit its model ('{left_out}'); {again}"
        )


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("training", {"steps": 8}),
        ("training", {"seed": 1}),
        ("model", {"core": "lstm"}),
        ("model", {"alphabet": "acb"}),
        ("model", {"delay": 1}),
    ],
)
def test_settings_that_were_changed_afterwards_are_seen(run, part, change):
    config = json.loads((run / "config.json").read_text())
    changed(run, **{part: config[part] | change})
    assert refusal(load, run) == (
        f"{run}/model.safetensors is damaged (its checksum differs); "
        "train it anew with echospan train"
    )


def test_settings_in_another_order_are_the_same_settings(run):
    config = json.loads((run / "config.json").read_text())
    changed(run, model=dict(reversed(config["model"].items())))
    assert load(run).max_delay == 2


def test_a_run_that_was_made_before_there_was_some_setting_is_still_read(run):
    config = json.loads((run / "config.json").read_text())
    del config["model"]["delay"], config["training"]["fall"]
    text = json.dumps([config["model"], config["training"], config["made"]], sort_keys=True)
    weights = safetensors.torch.load_file(run / "model.safetensors")
    (run / "config.json").write_text(
        json.dumps(config | {"sha256": checkpoint._digest(text, weights)})
    )
    assert load_recipe(run)[1] == RECIPE


def test_weights_that_are_changed_cut_or_foreign_are_refused(run):
    path = run / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "(its checksum differs)" in refusal(load, run)
    for other in (whole[:-1], b"", b"PK\x03\x04" * 100):
        path.write_bytes(other)
        said = refusal(load, run)
        assert said.startswith(f"{path} is damaged (")
        assert said.endswith("); train it anew with echospan train")
    safetensors.torch.save_file({"other": torch.ones(1)}, path)
    assert "damaged" in refusal(load, run)


@pytest.mark.parametrize("what", [torch.nan, torch.inf])
def test_a_weight_that_is_no_number_is_refused(model, tmp_path, what):
    with torch.no_grad():
        model.embedding.weight[0, 0] = what
    run = save(model, RECIPE.training, tmp_path / "run", {})
    assert refusal(load, run) == (
        f"{run}/model.safetensors holds what is no number; train it anew with echospan train"
    )


def test_a_run_of_the_first_format_is_checked_by_its_weights_alone(run):
    digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    changed(run, format=1, sha256=digest)
    assert load(run).max_delay == 2
    changed(run, sha256="0" * 64)
    assert "(its checksum differs)" in refusal(load, run)
    changed(run, format=2, sha256=digest)
    assert "(its checksum differs)" in refusal(load, run)


@pytest.mark.parametrize(("says", "known"), [({"echospan": "0.0.9"}, "0.0.9"), ({}, "?")])
def test_a_run_of_the_second_format_says_only_which_echospan_made_it(run, says, known):
    config = json.loads((run / "config.json").read_text())
    del config["made"], config["echospan"]
    text = json.dumps([config["model"], config["training"]], sort_keys=True)
    weights = safetensors.torch.load_file(run / "model.safetensors")
    told = config | says | {"format": 2, "sha256": checkpoint._digest(text, weights)}
    (run / "config.json").write_text(json.dumps(told))
    assert load(run).made == Made(training=RECIPE.training, versions={"echospan": known})


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_run_that_is_unfinished_is_no_model_yet(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert refusal(load, tmp_path) == (
        f"{tmp_path} holds a run that was not finished; go on with echospan train --resume"
    )


# Snapshots of a training under way


def snapshot(step):
    tensors = {"weight": torch.full((2, 3), float(step)), "past": torch.tensor([step])}
    return Snapshot(RECIPE, tensors, {"step": step})


def test_a_snapshot_comes_back_and_says_what_it_was_made_with(tmp_path):
    write_snapshot(tmp_path / "run", snapshot(3))
    again = read_snapshot(tmp_path / "run")
    assert again.recipe == RECIPE
    assert set(again.tensors) == {"weight", "past"}
    assert torch.equal(again.tensors["weight"], torch.full((2, 3), 3.0))
    assert torch.equal(again.tensors["past"], torch.tensor([3]))
    assert again.facts == {
        "step": 3,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


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


def test_where_none_was_kept_there_is_none(tmp_path):
    assert read_snapshot(tmp_path) is None
    assert read_snapshot(tmp_path / "nowhere") is None


def test_a_training_that_ends_while_its_snapshot_is_read_leaves_none(tmp_path, monkeypatch):
    for step in (1, 2):
        write_snapshot(tmp_path, snapshot(step))
    regular = checkpoint._regular

    def ended(path, *most):
        path.unlink()
        return regular(path, *most)

    monkeypatch.setattr(checkpoint, "_regular", ended)
    assert read_snapshot(tmp_path) is None


def test_where_all_are_damaged_the_newest_is_named(tmp_path):
    for name in SNAPSHOTS:
        (tmp_path / name).write_bytes(b"")
    said = refusal(read_snapshot, tmp_path)
    assert said.startswith(f"{tmp_path / SNAPSHOTS[0]} is no whole snapshot (")
    assert said.endswith("); train it anew with echospan train --overwrite")


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({}, "'model'"),
        ({"model": {"hidden": 0}, "training": {}, "facts": {}}, "hidden is 0; use a whole"),
        ({"model": {"os": "rm"}, "training": {}, "facts": {}}, "ModelConfig.__init__() got an"),
        ({"model": {}, "training": {"fall": 2}, "facts": {}}, "fall is 2"),
        ({"model": {}, "training": {}, "facts": [1]}, "cannot convert"),
        ({"model": {}, "training": {}, "facts": "ab"}, "dictionary update sequence"),
    ],
)
def test_a_snapshot_of_what_cannot_be_is_refused(tmp_path, told, reason):
    path = tmp_path / SNAPSHOTS[0]
    path.write_bytes(sealed(told, {}))
    said = refusal(read_snapshot, tmp_path)
    assert said.startswith(f"{path} is no whole snapshot ({reason}")
    assert said.endswith("); train it anew with echospan train --overwrite")


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


def test_a_link_to_a_file_is_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("sub/file").write_bytes(b"old")
    Path("relative").symlink_to("sub/file")
    Path("absolute").symlink_to(tmp_path / "sub" / "file")
    Path("twice").symlink_to("relative")
    for name in ("relative", "absolute", "twice"):
        write_whole(name, name.encode())
        assert Path(name).is_symlink()
        assert Path("sub/file").read_bytes() == name.encode()
    assert [p.name for p in Path("sub").iterdir()] == ["file"]


def test_a_link_that_leads_nowhere_and_what_is_no_file_are_not_replaced(tmp_path):
    (tmp_path / "dead").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        ("dead", "is a link to nowhere, and nothing is there"),
        ("folder", "is a folder, a pipe or a device and not a file"),
        ("pipe", "is a folder, a pipe or a device and not a file"),
    ):
        assert reason in refusal(write_whole, tmp_path / name, b"")
    assert refusal(write_whole, "a\0b", b"").startswith("'a\\x00b' is no path (")
    assert "File name too long" in refusal(write_whole, tmp_path / ("a" * 300), b"")
    assert (tmp_path / "dead").is_symlink()
    assert (tmp_path / "pipe").is_fifo()


NUMBERS = {
    "whole": torch.arange(6).view(2, 3),
    "turned": torch.arange(6.0).view(2, 3).T,
    "complex": torch.tensor([1 + 2j]),
    "none": torch.zeros(0, 3),
    "one": torch.tensor(True),
    "half": torch.tensor([1.5], dtype=torch.bfloat16),
    "learnt": torch.ones(2, requires_grad=True),
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    told=st.dictionaries(
        st.text(max_size=5).filter(lambda k: k not in ("format", "echospan")),
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers()),
    ),
    names=st.sets(st.sampled_from(sorted(NUMBERS))),
)
def test_what_is_sealed_is_unsealed(tmp_path, told, names):
    write_whole(tmp_path / "file", sealed(told, {name: NUMBERS[name] for name in names}))
    again, numbers = unsealed(tmp_path / "file", "state", "begin anew")
    assert again == {"format": FORMAT, "echospan": echospan.__version__, **told}
    assert set(numbers) == names
    for name in names:
        assert numbers[name].dtype == NUMBERS[name].dtype
        assert torch.equal(numbers[name], NUMBERS[name])


def test_numbers_that_were_unsealed_outlive_their_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(sealed({}, {"a": torch.arange(1000)}))
    _, numbers = unsealed(path, "state", "")
    path.write_bytes(b"")
    numbers["a"] += 1
    assert torch.equal(numbers["a"], torch.arange(1, 1001))


def resealed(path, told, numbers, checksum=True, kept=None):
    """As `sealed` writes it, with whatever inside."""
    text = told if isinstance(told, str) else json.dumps(told)
    kept = {"echospan": text} if kept is None else kept
    if checksum:
        kept["sha256"] = checkpoint._digest(text, numbers)
    path.write_bytes(safetensors.torch.save(numbers, kept))


def test_a_sealed_file_that_was_changed_is_damaged(tmp_path):
    path, numbers = tmp_path / "file", {"a": torch.arange(4), "b": torch.ones(2, 2)}
    told = {"format": 2}
    resealed(path, told, numbers)
    whole = path.read_bytes()
    assert unsealed(path, "state", "begin anew")[0] == told
    kept = {"echospan": json.dumps(told), "sha256": checkpoint._digest(json.dumps(told), numbers)}
    for other in (
        {"a": torch.arange(4) + 1, "b": numbers["b"]},  # another number
        {"a": torch.arange(4).view(2, 2), "b": numbers["b"]},  # another shape
        {"a": torch.arange(4).view(torch.float64), "b": numbers["b"]},  # another type
        {"a": numbers["a"], "c": numbers["b"]},  # another name
        {"a": numbers["a"]},  # one left out
    ):
        resealed(path, told, other, checksum=False, kept=dict(kept))
        assert refusal(unsealed, path, "state", "begin anew") == (
            f"{path} is damaged (its checksum differs); begin anew"
        )
    resealed(path, told, numbers, False, kept | {"echospan": json.dumps(told | {"more": 1})})
    assert refusal(unsealed, path, "state", "x") == f"{path} is damaged (its checksum differs); x"
    path.write_bytes(whole)
    assert unsealed(path, "state", "")[0] == told


def test_a_sealed_file_of_a_newer_echospan_says_so_whatever_else_is_in_it(tmp_path):
    resealed(tmp_path / "file", {"format": FORMAT + 1}, {}, checksum=False)
    assert refusal(unsealed, tmp_path / "file", "state", "begin anew") == (
        f"{tmp_path / 'file'} has format {FORMAT + 1}, newer than {FORMAT}; "
        "install a newer echospan"
    )
    resealed(tmp_path / "file", {"format": 1}, {})
    assert unsealed(tmp_path / "file", "state", "") == ({"format": 1}, {})


@pytest.mark.parametrize(
    ("told", "checksum", "reason"),
    [
        ("{", True, "Expecting property name"),
        ("{}", True, "'format'"),
        ("[1]", True, "list indices must be"),
        ('{"format": "2"}', True, "'>' not supported"),
        ('{"format": 2}', False, "'sha256'"),
    ],
)
def test_what_another_program_wrote_is_no_whole_one_of_ours(tmp_path, told, checksum, reason):
    path = tmp_path / "file"
    resealed(path, told, {"a": torch.ones(1)}, checksum)
    said = refusal(unsealed, path, "state of a stream", "begin anew")
    assert said.startswith(f"{path} is no whole state of a stream ({reason}")
    assert said.endswith("); begin anew")
    assert "\n" not in said


def test_numbers_without_a_word_with_them_are_refused(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "file")
    assert refusal(unsealed, tmp_path / "file", "state", "begin anew") == (
        f"{tmp_path / 'file'} is no whole state ('echospan'); begin anew"
    )
    assert refusal(unsealed, tmp_path / "none", "state", "begin anew") == (
        f"{tmp_path} has no none; name a folder that echospan train made"
    )


# What a run says it recalls


def test_recall_is_read_from_a_runs_evaluation(run):
    told = {"delays": [{"recall": 1, "bits": 2.0}, {"recall": 0.5}]}
    (run / "evaluation.json").write_text(json.dumps(told) + " " * 9_000_000)
    assert measured_recall(str(run)) == [1.0, 0.5]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"delays": 1}', '{"delays": [{}]}', '{"delays": [{"recall": "x"}]}'),
        '{"delays": []}' + " " * 10_000_000,
    ],
    ids=len,
)
def test_where_an_evaluation_cannot_be_read_there_is_none(run, text):
    assert measured_recall(run) is None
    (run / "evaluation.json").write_text(text)
    assert measured_recall(run) is None


# The fingerprint of a model


def test_equal_models_have_equal_fingerprints_and_others_other_ones(model):
    assert len(fingerprint(model)) == 64
    same = EchoModel(RECIPE.model)
    same.load_state_dict(model.state_dict())
    assert fingerprint(same) == fingerprint(model)
    other = EchoModel(replace(RECIPE.model, delay=1))
    other.load_state_dict(model.state_dict())
    assert fingerprint(other) != fingerprint(model)
    with torch.no_grad():
        same.readouts.bias[0] += 1
    assert fingerprint(same) != fingerprint(model)
