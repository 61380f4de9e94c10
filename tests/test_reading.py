"""What is read from files is verified once, as bytes in hand, before anything is made of it."""

import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from benchmarks.hostile import (
    CLAIMS,
    KINDS,
    cases,
    fitting,
    make_run,
    run_case,
    sign,
    whole_files,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import echospan
from echospan import shipping
from echospan.checkpoint import (
    SNAPSHOTS,
    fingerprint,
    load,
    load_recipe,
    load_run,
    read_snapshot,
    save,
    sealed,
    unsealed,
    write_snapshot,
)
from echospan.cores import CORES
from echospan.errors import RunError, SettingError
from echospan.evaluation import as_report, evaluate
from echospan.model import EchoModel
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.run_format import FORMAT, manifest
from echospan.storage.reading import Changed, open_regular, read_regular, settled
from echospan.training import train
from echospan.unfilled import Unfilled
from taken import all_snapshots, snapshot

AGAIN = "train it anew with echospan train"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    make_run(folder)
    return folder / "run"


@pytest.fixture
def run(whole, tmp_path):
    """A copy of a run with all its files, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def aged(*paths):
    """Let files look as if they were written long ago: a reader gives those just written time."""
    for path in paths:
        os.utime(path, (1, 1))


def refusal(call, *args, **more):
    """Return the sentence with which a call is refused."""
    places = [Path(a) for a in args if isinstance(a, str | Path)]
    for path in places:
        if path.exists():
            aged(path, path.parent, *path.glob("*"))
    with pytest.raises(RunError) as refused:
        call(*args, **more)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def config_of(run):
    return json.loads((run / "config.json").read_text())


def signed(run, **changes):
    """Change config.json as an author who computes its checksum anew."""
    sign(run, config_of(run) | changes)


def with_model(run, **changes):
    signed(run, model=config_of(run)["model"] | changes)


def values_of(path):
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


# One checksum over the whole of a run


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "evaluation.json", "history.jsonl"]
)
def test_no_byte_of_a_run_may_change(run, name):
    path = run / name
    data = path.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 30)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        if name == "config.json" and values_of(path) == json.loads(data):
            load(run)  # white space: all that it says is the same
        else:
            assert str(path) in refusal(load, run)
    path.write_bytes(data)
    assert load(run).max_delay == 2


@pytest.mark.parametrize("part", ["model", "training", "made"])
def test_each_setting_is_under_the_checksum(run, part):
    config = config_of(run)
    for name, value in config[part].items():
        other = {**config, part: config[part] | {name: [value]}}
        (run / "config.json").write_text(json.dumps(other))
        assert refusal(load, run) == f"{run}/config.json is damaged (its checksum differs); {AGAIN}"


@pytest.mark.parametrize("name", ["model.safetensors", "evaluation.json", "history.jsonl"])
def test_a_file_of_another_run_is_refused(run, tmp_path, name):
    other = echospan.shipped("bits").save_pretrained(tmp_path / "other")
    (other / "history.jsonl").write_text("")
    shutil.copy(other / name, run / name)
    message = refusal(load, run)
    assert message.startswith(f"{run / name} ")
    assert message.endswith(AGAIN)


@pytest.mark.parametrize("name", ["model.safetensors", "evaluation.json", "history.jsonl"])
def test_a_file_that_the_run_lists_must_be_there(run, name):
    (run / name).unlink()
    assert refusal(load, run) == f"{run} has no {name}; name a folder that echospan train made"


def test_what_is_for_people_may_be_edited(run):
    (run / "README.md").write_text("My own words.")
    (run / "recall.svg").write_text("<svg/>")
    assert load(run).max_delay == 2


def test_settings_in_another_order_and_layout_are_the_same_settings(run):
    config = config_of(run)
    config["model"] = dict(reversed(config["model"].items()))
    (run / "config.json").write_text(json.dumps(config))
    assert load(run).max_delay == 2


def test_a_setting_that_is_missing_has_its_default(run):
    config = config_of(run)
    for name in ("fall", "precision"):
        del config["training"][name]
    signed(run, training=config["training"])
    assert load_recipe(run)[1].training.precision == "fp32"


# One format


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        (1, "make it anew, or read it with the echospan that wrote it"),
        (2, "make it anew, or read it with the echospan that wrote it"),
        (3, "make it anew, or read it with the echospan that wrote it"),
        (5, "install a newer echospan"),
        (10**400, "install a newer echospan"),
    ],
    ids=lambda value: str(value)[:5],
)
def test_another_format_is_refused_and_both_are_named(run, tmp_path, found, remedy):
    shown = found if found < 100 else "a number of 1,329 bits"
    sentence = f"has format {shown}, and this version of echospan reads format 4; {remedy}"
    signed(run, format=found)
    assert refusal(load, run) == f"{run}/config.json {sentence}"
    path = tmp_path / "state"
    path.write_bytes(sealed({"format": found}, {}))
    assert refusal(unsealed, path, "state", "x") == f"{path} {sentence}"


@pytest.mark.parametrize("found", [None, "4", 4.0, True, [4], {}])
def test_what_has_no_format_is_not_of_echospan(run, found):
    signed(run, format=found)
    assert refusal(load, run) == f"{run}/config.json is not of echospan; name one that it made"


WEIGHTS = {
    "bits": "995b50a18433c205d6e5b9b9a5ba3f2f",
    "fixed": "784b6ebe007961dc",
    "variable": "5c918fc3270c590e",
}
"""SHA-256 over names and numbers of the weights, as they were before format 4."""


@pytest.mark.parametrize("name", shipping.names())
def test_the_shipped_models_have_the_new_format_and_the_weights_that_they_had(name):
    assert config_of(shipping.folder(name))["format"] == FORMAT
    digest = hashlib.sha256()
    for key, tensor in sorted(echospan.shipped(name).state_dict().items()):
        digest.update(key.encode() + tensor.numpy().tobytes())
    assert digest.hexdigest().startswith(WEIGHTS[name][:16])


# What the settings may be


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"conditioning": "both"}, "conditioning is 'both'; use one of readout, input"),
        ({"hidden": 0}, "hidden is 0; use a whole number of 1 or more"),
        ({"hidden": 8.0}, "hidden is 8.0; use a whole number of 1 or more"),
        ({"hidden": "8"}, "hidden is '8'; use a whole number of 1 or more"),
        ({"hidden": True}, "hidden is True; use a whole number of 1 or more"),
        ({"max_delay": None}, "max_delay is None; use a whole number of 0 or more"),
        ({"delay": -1}, "delay is -1; use a whole number of 0 or more"),
        ({"colour": "red"}, "'colour' is no name of a field"),
        ({"core": 7}, "core is 7; use a text, such as gru"),
    ],
    ids=str,
)
def test_settings_of_wrong_types_and_ranges_are_refused(run, changes, reason):
    with_model(run, **changes)
    message = refusal(load, run)
    assert message == f"{run}/config.json does not describe a model ({reason}); {AGAIN}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"steps": 2.5}, "steps is 2.5"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"seconds": -1}, "seconds is -1"),
        ({"batch": [4]}, "batch is [4]"),
    ],
    ids=str,
)
def test_settings_of_training_are_checked_too(run, changes, reason):
    signed(run, training=config_of(run)["training"] | changes)
    assert f"does not describe a model ({reason}" in refusal(load, run)


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 0},
        {"threads": "1"},
        {"versions": ["2.13"]},
        {"versions": {"torch": 2}},
        {"machine": "x" * 1000},
        {"repeatable": 1},
        {"earlier": None},
        {"earlier": [{}]},
        {"processes": 1.0},
        {"more": 1},
    ],
    ids=str,
)
def test_what_it_says_of_its_origin_is_checked(run, changes):
    signed(run, made=config_of(run)["made"] | changes)
    assert "does not describe a model" in refusal(load, run)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, '{"format": 4, "x": ' + "9" * 5000 + "}", '{"a": NaN}', "\0"],
    ids=["nothing", "a bracket", "brackets", "digits", "nan", "nul"],
)
def test_settings_that_are_no_json_are_refused(run, text):
    (run / "config.json").write_text(text)
    message = refusal(load, run)
    assert message.startswith(f"{run}/config.json is not valid JSON (")
    assert message.endswith(f"); {AGAIN}")
    (run / "config.json").write_bytes(b"\xff\xfe")
    assert "is not valid JSON" in refusal(load, run)


# What the weights may be


def reweighted(run, change):
    """Change the weights as an author who computes the checksums anew."""
    named = safetensors.torch.load_file(run / "model.safetensors")
    change(named)
    safetensors.torch.save_file(named, run / "model.safetensors")
    sign(run)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda named: named.update({"readouts.weight": torch.zeros(3, 3)}),
            "does not fit config.json (readouts.weight is [3, 3], not [12, 8])",
        ),
        (
            lambda named: named.update({"readouts.weight": torch.zeros(12, 8, dtype=torch.int8)}),
            "does not fit config.json (readouts.weight is int8 [12, 8], not of floating point)",
        ),
        (
            lambda named: named.update({"readouts.bias": torch.ones(12, dtype=torch.bool)}),
            "does not fit config.json (readouts.bias is bool [12], not float32 [12])",
        ),
        (
            lambda named: named.update({"readouts.bias": named["readouts.bias"].double()}),
            "does not fit config.json (readouts.bias is float64 [12], not float32 [12])",
        ),
        (
            lambda named: named.pop("core.bias_hh_l0"),
            "does not fit config.json (core.bias_hh_l0 is missing)",
        ),
        (
            lambda named: named.update({"more": torch.zeros(9)}),
            "does not fit config.json (more is not a part of it)",
        ),
        (
            lambda named: named["embedding.weight"].fill_(torch.nan),
            "holds nan or infinity",
        ),
        (
            lambda named: named["readouts.bias"].fill_(-torch.inf),
            "holds nan or infinity",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_weights_that_the_model_does_not_have_are_refused(run, change, reason):
    reweighted(run, change)
    assert refusal(load, run) == f"{run}/model.safetensors {reason}; {AGAIN}"


def test_weights_that_are_cut_or_of_another_program_are_refused(run):
    path = run / "model.safetensors"
    whole = path.read_bytes()
    for other in (whole[:-1], whole + b"\0", whole[:4], b"", b"PK\x03\x04" * 100, whole[:200]):
        path.write_bytes(other)
        sign(run)
        message = refusal(load, run)
        assert message.startswith(f"{path} is damaged (")
        assert message.endswith(f"); {AGAIN}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("core", ["gru", "attention"])
def test_a_model_of_another_precision_comes_back_as_it_was(tmp_path, dtype, core):
    model = EchoModel(ModelConfig(alphabet="abc", max_delay=2, hidden=8, core=core)).to(dtype)
    again = load(save(model, TrainingConfig(), tmp_path / "run", {}))
    assert fingerprint(again) == fingerprint(model)
    assert {t.dtype for t in (*again.parameters(), *again.buffers())} == {dtype}


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("conditioning", ["readout", "input"])
def test_every_core_is_loaded_without_a_random_number_and_answers_as_it_did(
    tmp_path, core, conditioning
):
    config = ModelConfig(
        alphabet="abc", max_delay=2, hidden=48, core=core, conditioning=conditioning
    )
    model = EchoModel(config).eval()
    folder = save(model, TrainingConfig(), tmp_path / "run", {})
    before = torch.get_rng_state()
    again = load(folder)
    assert torch.equal(torch.get_rng_state(), before)
    symbols = torch.randint(0, 4, (2, 20))
    with torch.no_grad():
        assert torch.equal(again(symbols)[0], model(symbols)[0])
    assert [p.requires_grad for p in again.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    again(symbols)[0].sum().backward()


# What it says that it recalls


def reevaluated(run, change):
    """Change the evaluation as an author who computes the checksums anew."""
    evaluation = json.loads((run / "evaluation.json").read_text())
    changed = change(evaluation)
    text = changed if isinstance(changed, str) else json.dumps(evaluation)
    (run / "evaluation.json").write_text(text)
    sign(run)


def test_recall_comes_with_the_model(run, tmp_path):
    rows = json.loads((run / "evaluation.json").read_text())["delays"]
    assert load_run(run).recall == tuple(row["recall"] for row in rows)
    without = save(load(run), TrainingConfig(), tmp_path / "without", {})
    assert load_run(without).recall is None
    (without / "evaluation.json").write_text("not a part of the run")
    assert load_run(without).recall is None


WRONG_EVALUATIONS = {
    "700 %": lambda e: e["delays"][0].update(recall=7.0),
    "below 0": lambda e: e["delays"][1].update(recall=-0.1),
    "not what was counted": lambda e: e["delays"][0].update(recall=0.123),
    "more right than asked": lambda e: e["delays"][0].update(correct=10**9),
    "text": lambda e: e["delays"][0].update(recall="1"),
    "true": lambda e: e["delays"][0].update(recall=True),
    "of two delays": lambda e: e["delays"].pop(),
    "of 3,000 delays": lambda e: e.update(delays=e["delays"] * 1_000),
    "another delay": lambda e: e["delays"][0].update(delay=2),
    "no delays": lambda e: e.pop("delays"),
    "NaN": lambda e: e["delays"][0].update(bits=float("nan")),
    "Infinity": lambda e: e.update(seconds=float("inf")),
    "1e999": lambda e: json.dumps(e).replace('"threads": 1', '"threads": 1e999'),
    "10**400": lambda e: e.update(threads=10**400),
    "5,000 digits": lambda e: json.dumps(e).replace('"threads": 1', '"threads": ' + "9" * 5000),
    "brackets": lambda e: "[" * 200_000,
    "a list": lambda e: "[1]",
    "nothing": lambda e: "",
    "errors of another model": lambda e: e.update(stream={"symbols": 100, "errors": [1]}),
    "more errors than symbols": lambda e: e.update(stream={"symbols": 1, "errors": [0, 0, 2]}),
}


@pytest.mark.parametrize("what", WRONG_EVALUATIONS)
def test_an_evaluation_that_cannot_be_of_this_model_is_refused(run, what):
    assert '"threads": 1' in (run / "evaluation.json").read_text()
    reevaluated(run, WRONG_EVALUATIONS[what])
    message = refusal(load, run)
    assert message.startswith(f"{run}/evaluation.json is not an evaluation of this model (")
    assert message.endswith(f"); {AGAIN}")


def test_an_evaluation_of_ten_megabytes_is_refused(run):
    reevaluated(run, lambda e: json.dumps(e) + " " * 10_000_000)
    assert "bytes, more than the 10,000,000 that are read" in refusal(load, run)


def test_an_evaluation_that_would_be_refused_is_not_saved(tmp_path):
    model = echospan.shipped("bits")
    report = as_report(model, evaluate(model, trials=100), 0.9, {"stream": None})
    for change in (
        {"delays": report["delays"][:2]},
        {"recalled_bits": float("nan")},
        {"target": 7},
        {"span": 9},
    ):
        with pytest.raises(SettingError, match="the evaluation is not one of this model"):
            model.save_pretrained(tmp_path / "mine", evaluation=report | change)
    with pytest.raises(SettingError, match="it lacks span"):
        model.save_pretrained(
            tmp_path / "mine", evaluation={k: v for k, v in report.items() if k != "span"}
        )
    with pytest.raises(RunError, match="the evaluation is not one of this model"):
        save(model, TrainingConfig(), tmp_path / "mine", {"evaluation.json": "{}"})
    assert not (tmp_path / "mine").exists()
    model.save_pretrained(tmp_path / "mine", evaluation=report)


# What is not a run


def test_what_is_missing_is_refused(tmp_path):
    assert refusal(load, tmp_path / "none") == (
        f"there is no run folder {tmp_path / 'none'}; "
        "make one with echospan train --out, or take a model that is shipped"
    )
    remedy = "name a folder that echospan train made"
    assert refusal(load, tmp_path) == f"{tmp_path} has no config.json; {remedy}"


@pytest.mark.parametrize(
    "call", [load, echospan.EchoModel.from_pretrained, lambda p: read_snapshot(Path(p))]
)
@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\ud800", "/dev/null", "a/" * 3000], ids=ascii)
def test_what_cannot_be_a_folder_is_refused_in_a_sentence(call, name):
    message, result = "", None
    try:
        result = call(name)
    except echospan.EchospanError as e:
        message = str(e)
    assert result is None  # a folder that is not there has no snapshot
    assert "\n" not in message


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "evaluation.json"])
def test_a_link_a_folder_or_a_pipe_in_place_of_a_file_is_refused(run, tmp_path, name):
    path = run / name
    path.replace(tmp_path / "real")
    message = f"{path} is not a regular file; name a folder that echospan train made"
    path.symlink_to(tmp_path / "real")
    assert refusal(load, run) == message
    path.unlink()
    path.mkdir()
    assert refusal(load, run) == message
    path.rmdir()
    os.mkfifo(path)
    assert refusal(load, run) == message


def test_a_link_to_a_run_is_that_run(run, tmp_path):
    (tmp_path / "link").symlink_to(run)
    assert fingerprint(load(tmp_path / "link")) == fingerprint(load(run))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["", "config.json", "model.safetensors"])
def test_what_may_not_be_read_is_refused(run, name):
    (run / name).chmod(0)
    assert "cannot be read (Permission denied)" in refusal(load, run)
    (run / name).chmod(0o755)


def test_settings_of_more_than_a_megabyte_are_refused(run):
    path = run / "config.json"
    data = path.read_bytes()
    path.write_bytes(data + b" " * (1_000_000 - len(data)))
    assert load(run).max_delay == 2
    path.write_bytes(data + b" " * (1_000_001 - len(data)))
    assert refusal(load, run) == (
        f"{path} has 1,000,001 bytes, more than the 1,000,000 that are read; "
        "name a folder that echospan train made"
    )


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_run_that_is_unfinished_is_no_model_yet(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert refusal(load, tmp_path) == (
        f"{tmp_path} holds a run that was not finished; go on with echospan train --resume"
    )


# What changes while it is read


def test_a_run_that_is_replaced_again_and_again_is_always_the_old_or_the_new_one(tmp_path):
    config = ModelConfig(alphabet="abc", max_delay=2, hidden=48)
    models = [EchoModel(config) for _ in range(2)]
    wanted = {fingerprint(m) for m in models}
    run = save(models[0], TrainingConfig(), tmp_path / "run", {"history.jsonl": "0\n"})
    done = threading.Event()

    def replace_it():
        number = 0
        while not done.is_set():
            number += 1
            files = {"history.jsonl": f"{number}\n" * 5000}
            save(models[number % 2], TrainingConfig(), run, files, overwrite=True)

    writer = threading.Thread(target=replace_it)
    writer.start()
    try:
        loaded = {fingerprint(load(run)) for _ in range(60)}
    finally:
        done.set()
        writer.join()
    assert loaded == wanted


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "evaluation.json"])
def test_a_file_that_never_comes_to_rest_is_not_called_damaged(run, name):
    path, done = run / name, threading.Event()
    data = path.read_bytes()

    def write_it():
        while not done.is_set():
            path.write_bytes(data[: len(data) // 2])
            time.sleep(0.002)

    path.write_bytes(data[: len(data) // 2])
    writer = threading.Thread(target=write_it)
    writer.start()
    try:
        with pytest.raises(RunError) as refused:
            load(run)
    finally:
        done.set()
        writer.join()
    assert str(refused.value) == (
        f"{run} changed while it was read; try again once nothing writes to it"
    )


@pytest.mark.parametrize("whole_again", [False, True])
def test_a_run_that_is_cut_while_it_is_read_ends_no_process(run, monkeypatch, whole_again):
    from echospan.storage.tensor_file import TensorFile

    path, read = run / "model.safetensors", TensorFile.read
    data, attempts = path.read_bytes(), []

    def cut(self):
        attempts.append(1)
        if len(attempts) == 1:
            os.truncate(path, len(data) - 100)
        try:
            return read(self)
        finally:
            if whole_again and len(attempts) == 1:
                path.write_bytes(data)

    monkeypatch.setattr(TensorFile, "read", cut)
    if whole_again:
        assert load(run).max_delay == 2
        assert len(attempts) == 2
    else:
        assert refusal(load, run).startswith(f"{path} is damaged (")  # and now it is


def test_a_file_that_grows_or_shrinks_while_it_is_read_has_changed(tmp_path):
    path = tmp_path / "file"
    for change in (lambda: os.truncate(path, 3), lambda: path.write_bytes(bytes(20))):
        path.write_bytes(bytes(10))
        with open_regular(path, 100) as file:
            change()
            with pytest.raises(Changed):
                (file.read(10), file.check_unchanged())
    assert read_regular(path, 100) == bytes(20)


def test_a_failure_counts_once_nothing_changes_any_more(tmp_path):
    path, calls = tmp_path / "file", []

    def read():
        calls.append(1)
        if len(calls) < 4:
            path.write_text("x" * len(calls))
        raise RunError(f"it is damaged ({len(calls)})", "mend it")

    with pytest.raises(RunError, match=r"it is damaged \(([5-9])\)"):
        settled(read, [path])
    aged(path)
    calls[:] = [1] * 9
    with pytest.raises(RunError, match=r"it is damaged \(10\)"):
        settled(read, [path])


# Claims that cost


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_costs_neither_memory_nor_time(whole, claim):
    torch.set_num_threads(1)
    files = {f"run/{p.name}": p.read_bytes() for p in whole.iterdir()}
    kind = replace(KINDS["run"], change=CLAIMS[claim])
    _, outcome = run_case(kind, files, 0)
    assert outcome == ("accepted" if claim.endswith("fits") else "refused")


@pytest.mark.parametrize("kind", ["run", "snapshot", "state"])
def test_an_author_who_computes_checksums_gets_a_sentence(kind):
    torch.set_num_threads(1)
    outcomes = [(seed, what, outcome) for seed, what, outcome in cases(kind, 40, first=5_000)]
    failures = [case for case in outcomes if case[2] not in ("refused", "accepted")]
    assert not failures
    assert len({outcome for _, _, outcome in outcomes}) == 2


# Snapshots


def test_the_newest_whole_snapshot_counts(tmp_path):
    for step in (1, 2):
        write_snapshot(tmp_path, snapshot(step))
    (tmp_path / SNAPSHOTS[0]).write_bytes(b"")
    assert read_snapshot(tmp_path).facts["step"] == 1
    (tmp_path / SNAPSHOTS[0]).unlink()
    assert read_snapshot(tmp_path).facts["step"] == 1


def test_where_there_is_no_snapshot_none_is_returned(tmp_path):
    assert read_snapshot(tmp_path) is None
    assert read_snapshot(tmp_path / "nowhere") is None


def test_a_training_that_ends_while_its_snapshot_is_read_leaves_none(tmp_path, monkeypatch):
    from echospan import checkpoint

    for step in (1, 2):
        write_snapshot(tmp_path, snapshot(step))
    read = checkpoint._snapshot

    def ended(path, core):
        path.unlink()
        return read(path, core)

    monkeypatch.setattr(checkpoint, "_snapshot", ended)
    assert read_snapshot(tmp_path) is None


def test_where_all_are_damaged_the_newest_is_named(tmp_path):
    for name in SNAPSHOTS:
        (tmp_path / name).write_bytes(b"")
    message = refusal(read_snapshot, tmp_path)
    assert message.startswith(f"{tmp_path / SNAPSHOTS[0]} is not a whole snapshot (")
    assert message.endswith("); train it anew with echospan train --overwrite")


def forged(path, change_facts=None, change_tensors=None):
    """Write a snapshot as an author who computes the checksum anew."""
    taken = snapshot(21)
    write_snapshot(path, taken)
    facts, tensors = unsealed(path / SNAPSHOTS[0], "", "")
    if change_facts:
        change_facts(facts)
    if change_tensors:
        change_tensors(tensors)
    del facts["format"], facts["echospan"]
    (path / SNAPSHOTS[0]).write_bytes(sealed(facts, tensors))


WRONG_FACTS = {
    "step is -5": {"step": -5},
    "step is 23": {"step": 23},
    "step is 21.0": {"step": 21.0},
    "step is True": {"step": True},
    "last_step is 10000": {"last_step": 10_000},
    "check_at is 'x'": {"check_at": "x"},
    "smooth_loss is None": {"smooth_loss": None},
    "loss is None": {"loss": None},
    "rate is -0.1": {"rate": -0.1},
    "to_target is -1": {"to_target": -1},
    "seconds is []": {"seconds": []},
    "clocked is 0": {"clocked": 0},
    "parts is empty": {"parts": []},
    "machine is missing": {"parts": [{"steps": 1}]},
    "'more' is no name of a field": {"more": 1},
}


@pytest.mark.parametrize("reason", WRONG_FACTS)
def test_facts_of_a_snapshot_are_checked(tmp_path, reason):
    forged(tmp_path, lambda facts: facts["facts"].update(WRONG_FACTS[reason]))
    path = tmp_path / SNAPSHOTS[0]
    message = refusal(read_snapshot, tmp_path)
    assert message.startswith(f"{path} is not a whole snapshot ({reason}")


@pytest.mark.parametrize("name", sorted(snapshot(3).facts))
def test_no_fact_of_a_snapshot_may_be_missing(tmp_path, name):
    forged(tmp_path, lambda facts: facts["facts"].pop(name))
    assert f"is not a whole snapshot ({name} is missing)" in refusal(read_snapshot, tmp_path)


@pytest.mark.parametrize("name", sorted(snapshot(21).tensors))
def test_each_tensor_of_a_snapshot_is_checked(tmp_path, name):
    """Missing, of another type, of another shape, and with numbers that cannot be."""
    tensor = snapshot(21).tensors[name]
    others = [None, tensor.to(torch.int16), tensor[None], torch.zeros(0, dtype=tensor.dtype)]
    if tensor.dim():
        others.append(torch.cat([tensor, tensor]))
    if tensor.is_floating_point():
        others.append(torch.full_like(tensor, torch.nan))
    if name in ("past", "delays"):
        others += [torch.full_like(tensor, 99), torch.full_like(tensor, -1)]
    if name.endswith("exp_avg_sq") or name == "weights":
        others.append(torch.full_like(tensor, -1))
    if name.endswith(".step") and name.startswith("optimiser"):
        others += [torch.full_like(tensor, n) for n in (0, 22, 1.5)]
    for other in others:
        change = {name: other}
        forged(
            tmp_path,
            None,
            lambda t, change=change: t.update(change) if change[name] is not None else t.pop(name),
        )
        message = refusal(read_snapshot, tmp_path)
        assert "is not a whole snapshot (" in message


def test_a_tensor_that_no_snapshot_has_is_refused(tmp_path):
    forged(tmp_path, None, lambda t: t.update(more=torch.zeros(2)))
    assert "is not a whole snapshot (more is not a part of it)" in refusal(read_snapshot, tmp_path)


def test_a_generator_beyond_its_end_is_refused(tmp_path):
    """PyTorch takes such a state, and reads memory beyond it."""

    def beyond(tensors):
        state = tensors["generator"].clone()
        state[8:12].view(torch.int32)[0] = 624
        state[16:24].view(torch.int64)[0] = 624
        torch.Generator().set_state(state)
        tensors["generator"] = state

    forged(tmp_path, None, beyond)
    assert "(generator is not the state of a generator)" in refusal(read_snapshot, tmp_path)


def test_a_snapshot_is_checked_where_it_was_not_read_from_a_file_too():
    taken = snapshot(5)
    moment = next(n for n in taken.tensors if n.endswith("exp_avg_sq"))
    for wrong in (
        replace(taken, facts=taken.facts | {"step": -5}),
        replace(taken, facts={}),
        replace(taken, tensors={}),
        replace(taken, tensors=taken.tensors | {moment: torch.zeros(1)}),
    ):
        with pytest.raises(RunError, match="the snapshot does not fit its recipe"):
            train(taken.recipe, resume=wrong)
    other = replace(taken.recipe, training=replace(taken.recipe.training, learning_rate=0.5))
    with pytest.raises(RunError, match=r"a training with learning_rate 0\.01, not 0\.5"):
        train(other, resume=taken)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("conditioning", ["readout", "input"])
def test_a_snapshot_of_every_core_is_written_and_read(tmp_path, core, conditioning):
    recipe = Recipe(
        model=ModelConfig(
            alphabet="abc", max_delay=2, hidden=48, core=core, conditioning=conditioning
        ),
        training=TrainingConfig(steps=3, batch=4),
    )
    for taken in all_snapshots(recipe):
        write_snapshot(tmp_path, taken)
        again = read_snapshot(tmp_path)
        assert again.facts == taken.facts
        assert train(recipe, resume=again).steps == 3


def test_a_snapshot_in_bfloat16_and_one_before_the_first_step_are_whole(tmp_path):
    from echospan.training import _Training, find_device

    for precision in ("fp32", "bf16"):
        recipe = Recipe(
            model=ModelConfig(alphabet="abc", max_delay=2, hidden=8, core="lstm"),
            training=TrainingConfig(steps=3, batch=4, precision=precision),
        )
        first = _Training(recipe, None, find_device("cpu"), echospan.parallel.ALONE).snapshot(0.0)
        for taken in (first, *all_snapshots(recipe)):
            write_snapshot(tmp_path, taken)
            assert read_snapshot(tmp_path).facts == taken.facts
            assert train(recipe, resume=taken).steps == 3


# Files of tensors and facts

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
    facts=st.dictionaries(
        st.text(max_size=5).filter(lambda k: k not in ("format", "echospan")),
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers()),
    ),
    names=st.sets(st.sampled_from(sorted(NUMBERS))),
)
def test_what_is_sealed_is_unsealed(tmp_path, facts, names):
    path = tmp_path / "file"
    path.write_bytes(sealed(facts, {name: NUMBERS[name] for name in names}))
    again, numbers = unsealed(path, "state", "begin anew")
    assert again == {"format": FORMAT, "echospan": echospan.__version__, **facts}
    assert set(numbers) == names
    for name in names:
        assert numbers[name].dtype == NUMBERS[name].dtype
        assert torch.equal(numbers[name], NUMBERS[name])


def test_one_tensor_of_two_names_is_sealed_twice(tmp_path):
    shared = torch.arange(4.0)
    (tmp_path / "file").write_bytes(sealed({}, {"a": shared, "b": shared, "c": shared[1:]}))
    _, numbers = unsealed(tmp_path / "file", "state", "")
    assert torch.equal(numbers["a"], numbers["b"])
    assert numbers["c"].tolist() == [1, 2, 3]


def test_numbers_that_were_unsealed_outlive_their_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(sealed({}, {"a": torch.arange(1000)}))
    _, numbers = unsealed(path, "state", "")
    path.write_bytes(b"")
    numbers["a"] += 1
    assert torch.equal(numbers["a"], torch.arange(1, 1001))


def test_a_sealed_file_that_was_changed_is_damaged(tmp_path):
    path = tmp_path / "file"
    whole = sealed({"n": 1}, {"a": torch.arange(4), "b": torch.ones(2, 2)})
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        message = refusal(unsealed, path, "state", "begin anew")
        assert message.startswith(f"{path} ")
    path.write_bytes(whole)
    assert unsealed(path, "state", "")[0]["n"] == 1


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (None, "it was not written by echospan"),
        ({"echospan": "{}"}, "it was not written by echospan"),
        ({"echospan": "{", "sha256": ""}, "Expecting property name"),
        ({"echospan": "[1]", "sha256": ""}, "its facts are no object"),
        ({"echospan": "[" * 50_000, "sha256": ""}, "it is nested too deeply"),
        ({"echospan": '{"format": 4}', "sha256": ""}, "echospan is None"),
        ({"echospan": '{"format": 4, "echospan": "1"}', "sha256": ""}, "its checksum differs"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_another_program_wrote_is_refused(tmp_path, metadata, reason):
    path = tmp_path / "file"
    safetensors.torch.save_file({"a": torch.ones(1)}, path, metadata)
    message = refusal(unsealed, path, "state of a stream", "begin anew")
    assert message.startswith(f"{path} is ")
    assert f"({reason}" in message
    assert message.endswith("; begin anew")


# A process that loads


def test_loading_ends_in_a_sentence_where_memory_ends(tmp_path):
    """Weights of 400 MB, most of them holes, in a process that may have 200 MB more."""
    make_run(tmp_path)
    fitting("rnn", 8)(tmp_path, random.Random(0))
    run, wide = tmp_path / "run", 10_000
    with Unfilled():
        model = EchoModel(ModelConfig(alphabet="ab", core="rnn", hidden=wide, max_delay=0))
    header, end = {}, 0
    for name, tensor in model.state_dict().items():
        place = [end, end := end + 4 * tensor.numel()]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": place}
    text = json.dumps(header).encode()
    with (run / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    config = config_of(run)
    config["model"]["hidden"] = wide
    config["files"] = {"model.safetensors": "0" * 64}
    (run / "config.json").write_bytes(manifest(config))
    code = f"""
import resource, echospan
from pathlib import Path
echospan.shipped("bits")
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 200_000_000,) * 2)
try:
    echospan.load({str(run)!r})
except echospan.EchospanError as e:
    print(e)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == (
        f"there is not enough memory to read {run}/model.safetensors; "
        "read it on a machine that has more\n"
    ), done.stderr


def test_the_kinds_of_hostile_files_are_whole_before_they_are_changed(tmp_path):
    for kind in KINDS.values():
        assert whole_files(kind)
