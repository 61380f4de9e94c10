"""The commands, as a person types them; bad input gets one sentence and exit code 2."""

import json
import subprocess
import sys

import pytest

from echospan.cli import main


def run(*args):
    return subprocess.run(
        [sys.executable, "-m", "echospan", *map(str, args)], capture_output=True, text=True
    )


def test_help_needs_no_torch():
    code = """
import sys
from echospan.cli import main
try:
    main(['--help'])
except SystemExit:
    assert 'torch' not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_a_run_folder_holds_what_it_promises(fixed_run):
    names = {p.name for p in fixed_run.iterdir()}
    assert names == {
        "model.safetensors",
        "config.json",
        "evaluation.json",
        "history.jsonl",
        "recall.svg",
        "training.svg",
    }
    report = json.loads((fixed_run / "evaluation.json").read_text())
    assert report["reached"]
    assert report["seconds_to_target"] > 0
    assert len(report["delays"]) == 5


def test_evaluate_prints_one_json_object(fixed_run):
    done = run("evaluate", fixed_run, "--trials", 2000, "--target", 0.9, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["span"] == 4


def test_echo_answers_a_text_and_a_stream(fixed_run):
    assert run("echo", fixed_run, "abacaba").stdout == "····aba\n"
    done = subprocess.run(
        f"yes abc | {sys.executable} -m echospan echo {fixed_run} --delay 3 | head -c 50",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("···\nabc\nabc\n")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["echo", "RUN", "aBc"], "the character 'B' at position 1 is not in the alphabet; write"),
        (["echo", "RUN", "a1"], "the character '1' at position 1"),
        (["echo", "RUN", "abc", "--delay", "9"], "delay 9 is outside 0..4"),
        (["echo", "/nowhere", "abc"], "there is no run folder"),
        (["train", "fixed", "--out", "RUN"], "exists already"),
        (["train", "fixed", "--out", "/new", "--hidden", "0"], "--hidden is 0"),
        (["train", "fixed", "--out", "/new", "--batch", "-1"], "--batch is -1"),
        (["train", "fixed", "--out", "/new", "--alphabet", "aa"], "has 'a' twice"),
        (["train", "fixed", "--out", "/proc/x/y"], "nothing can be written"),
        (["forget"], "there is no command 'forget'"),
    ],
)
def test_bad_input_gets_one_sentence(fixed_run, capsys, args, sentence):
    with pytest.raises(SystemExit) as end:
        main([str(fixed_run) if a == "RUN" else a for a in args])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.out == ""


def test_other_characters_may_be_skipped_or_kept(fixed_run, capsys):
    for other, said in (("skip", "····ab\n"), ("keep", "·-···a-b\n")):
        with pytest.raises(SystemExit):
            main(["echo", str(fixed_run), "a-bcde-f", "--other", other])
        assert capsys.readouterr().out == said


def test_damaged_and_foreign_runs_are_refused(fixed_run, tmp_path, capsys):
    import shutil

    for name, damage in (
        ("model.safetensors", lambda b: b[:-1]),
        ("model.safetensors", lambda b: b[:2000] + bytes([b[2000] ^ 1]) + b[2001:]),
        ("config.json", lambda b: b"{}"),
        ("config.json", lambda b: b[:20]),
        ("config.json", lambda b: b.replace(b'"format": 1', b'"format": 99')),
        ("config.json", lambda b: b.replace(b'"hidden": 64', b'"hidden": 65')),
    ):
        folder = tmp_path / "damaged"
        shutil.copytree(fixed_run, folder)
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
        with pytest.raises(SystemExit) as end:
            main(["echo", str(folder), "abc"])
        assert end.value.code == 2
        assert str(folder) in capsys.readouterr().err
        shutil.rmtree(folder)
