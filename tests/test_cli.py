"""The commands, as a person types them; bad input gets one sentence and exit code 2."""

import dataclasses
import json
import resource
import signal
import subprocess
import sys

import pytest

import echospan
from echospan.checkpoint import load, save
from echospan.cli import main, runs
from echospan.errors import RunError
from echospan.evaluation import DelayRecall, Evaluation, as_report
from echospan.recipes import RECIPES, ModelConfig, Recipe


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
    assert not {'torch', 'huggingface_hub'} & set(sys.modules)
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
        (["train", "fixed", "--out", "/new", "--delay", "-1"], "--delay is -1"),
        (["train", "fixed", "--out", "/new", "--window", "0"], "--window is 0"),
        (["train", "fixed", "--out", "NEW", "--device", "cuda:99"], "there is no device 'cuda:99'"),
        (["train", "fixed", "--out", "NEW", "--device", "gpu"], "there is no device 'gpu'"),
        (["evaluate", "RUN", "--trials", "0"], "--trials is 0"),
        (["evaluate", "RUN", "--device", "cuda:99"], "there is no device 'cuda:99'"),
        (["forget"], "there is no command 'forget'"),
    ],
)
def test_bad_input_gets_one_sentence(fixed_run, tmp_path, capsys, args, sentence):
    stands_for = {"RUN": str(fixed_run), "NEW": str(tmp_path / "new")}
    with pytest.raises(SystemExit) as end:
        main([stands_for.get(a, a) for a in args])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


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
        ("config.json", lambda b: b.replace(b'"format": 4', b'"format": 99')),
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


def test_ctrl_c_keeps_what_was_reached(tmp_path):
    folder = tmp_path / "run"
    command = ["train", "variable", "--out", folder, "--target", 0.9999, "--stream", 0]
    training = subprocess.Popen(
        [sys.executable, "-m", "echospan", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with training:
        first = training.stderr.readline()
        training.send_signal(signal.SIGINT)
        out, _ = training.communicate(timeout=60)
    assert first.startswith("run: step")
    assert training.returncode == 130
    assert "target not reached" in out
    assert not json.loads((folder / "evaluation.json").read_text())["reached"]


def test_a_disk_that_refuses_leaves_nothing_behind_and_the_old_run_whole(fixed_run, tmp_path):
    recipe = RECIPES["fixed"]
    model = load(fixed_run)
    folder = tmp_path / "run"
    save(model, recipe.training, folder, {"note": "old"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RunError, match="could not be written"):
            save(model, recipe.training, folder, {"note": "new"}, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert (folder / "note").read_text() == "old"
    assert load(folder).echo("abacaba") == "····aba"


def test_no_text_no_answer_and_any_delay_below(fixed_run, capsys):
    for args, said in ((["", "--delay", "0"], "\n"), (["abc", "--delay", "0"], "abc\n")):
        with pytest.raises(SystemExit) as end:
            main(["echo", str(fixed_run), *args])
        assert end.value.code == 0
        assert capsys.readouterr().out == said


def test_another_delay_and_alphabet_are_a_flag_each(tmp_path):
    folder = tmp_path / "run"
    done = run(
        *("train", "fixed", "--delay", 6, "--alphabet", "letters-digits", "--out", folder),
        *("--polish", 0, "--stream", 0, "--json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["settings"]["model"]["delay"] == 6
    assert report["delays"][6]["low"] > 0.98
    assert run("echo", folder, "0a1b2c3d").stdout == "······0a\n"


def test_the_delay_fed_in_has_settings_of_its_own(capsys):
    with pytest.raises(SystemExit):
        main(["train", "variable", "--conditioning", "input", "--help"])
    assert "192" in capsys.readouterr().out


def test_of_several_processes_one_says_what_is_wrong_and_who_is_alone_says_it(monkeypatch, capsys):
    def said():
        with pytest.raises(SystemExit) as end:
            main(["forget"])
        assert end.value.code == 2
        return capsys.readouterr().err

    monkeypatch.setenv("RANK", "1")  # as other launchers set it too
    assert "there is no command 'forget'" in said()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert said() == ""
    monkeypatch.setenv("RANK", "0")
    assert "there is no command 'forget'" in said()


def test_the_version_needs_no_torch():
    code = (
        "import sys\n"
        "from echospan.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"echospan {echospan.__version__}\n")


@pytest.mark.parametrize(
    "words",
    ["--model fixed bits", "--model fixed --model bits", "--model=fixed --trials 99 --model=bits"],
)
def test_several_models_that_are_shipped_are_measured_side_by_side(words, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", *words.split(), "--trials", "99", "--json"])
    out, err = capsys.readouterr()
    assert [run["run"] for run in json.loads(out)["runs"]] == ["fixed", "bits"]
    for name, line in zip(("fixed", "bits"), err.splitlines(), strict=True):
        assert line.startswith(f"echospan: {name} cannot reach 99%: its 99 answers, if all are ")


def test_a_shipped_model_is_exported_by_its_name(tmp_path, capsys):
    page = tmp_path / "bits.html"
    with pytest.raises(SystemExit) as end:
        main(["export", "--model", "bits", "--format", "html", "-o", str(page), "--json"])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == page.stat().st_size


def report(low, **more):
    """What is said of a model whose recall is right in short sequences, and `low` in longer."""
    model = echospan.EchoModel(ModelConfig(alphabet="abc", max_delay=1, hidden=4))
    delays = tuple(DelayRecall(d, 1000, 1000, 1.5) for d in range(2))
    lengths = [
        {"times": times, "length": 6 * times, "recall": [0.9, 0.9], "low": [0.999, share]}
        for times, share in ((1, 0.999), (2, low), (5, low - 0.1), (10, low))
    ]
    settings = dataclasses.asdict(Recipe(model=model.config))
    more = {"stream": None, "assignment_grader": None, "lengths": lengths, **more}
    told = as_report(model, Evaluation(delays, 1000, 1000), 0.99, more)
    return {"run": "a[/b]", "settings": settings} | told


@pytest.mark.parametrize(
    "training", [{}, {"seconds_to_target": 0.5, "seconds": 1.0, "steps": 40}], ids=["", "train"]
)
def test_it_says_which_recall_counts_where_longer_sequences_fall_short(training, capsys):
    counts = (
        "the target counts the table above, sequences of 7 symbols; in longer ones it is not "
        "reached: recall's interval begins at 70.00% at 30 symbols"
    )
    runs._show(report(0.8, **training), as_json=False)
    said = capsys.readouterr().out
    assert "a[/b]" in said  # and no markup of it
    assert "target 99% reached" in said
    assert counts in " ".join(said.split())
    runs._show(report(1.0 + 0.1, **training), as_json=False)
    assert "the target counts" not in capsys.readouterr().out
    runs._show_side_by_side([report(0.8), report(1.1)])
    assert " ".join(capsys.readouterr().out.split()).count(f"a[/b]: {counts}") == 1
