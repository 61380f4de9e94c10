"""The README is run as printed: each command and each piece of Python, what they say compared."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.documented import blocks, commands, promised, say, shape

from echospan.cli import main

HOME = Path(__file__).parents[1]
README = (HOME / "README.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder after `make train`, its training without the polish."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("fixed", "variable"):
        out = str(folder / "runs" / name)
        with pytest.raises(SystemExit) as end:
            main(["train", name, "--out", out, "--stream", "0", "--polish", "100"])
        assert end.value.code == 0
    return folder


def test_make_has_the_two_commands_and_their_table_is_the_printed_one(folder):
    (printed,) = [b for b in blocks(README, "console") if "$ make train" in b]
    made = subprocess.run(["make", "-n", "train"], cwd=HOME, capture_output=True, text=True)
    (table,) = [line for line in made.stdout.splitlines() if "echospan evaluate" in line]
    assert shape(printed.split("$ make train\n")[1]) == shape(
        say(table.replace("1000000", "20000"), folder)
    )
    assert "`make test`" in README
    assert subprocess.run(["make", "-n", "test"], cwd=HOME, capture_output=True).returncode == 0


def printed_commands():
    for block in blocks(README, "console"):
        for command, said in commands(block):
            if not command.startswith(("make", "git", "cd", "python -m benchmarks")):
                yield pytest.param(command, said, id=command[:40])


@pytest.mark.parametrize(("command", "said"), list(printed_commands()))
def test_a_command_says_what_is_printed_below_it(folder, command, said):
    assert say(command, folder).split() == said.split()


@pytest.mark.parametrize("block", blocks(README, "python"))
def test_the_python_runs_and_prints_what_its_comments_say(folder, block):
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = promised(block)
    assert told
    assert done.stdout.split() == " ".join(told).split()


def test_each_benchmark_that_is_named_is_there():
    named = set(re.findall(r"python -m (benchmarks\.\w+)", README))
    assert named
    for module in named:
        assert (HOME / (module.replace(".", "/") + ".py")).is_file()


def test_each_picture_and_page_that_is_linked_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    for link in links:
        assert (HOME / link).exists(), link
