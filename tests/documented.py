"""Pages that are executed: their blocks, and what is said when they are run."""

import os
import re
import subprocess
import sys
from pathlib import Path


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def commands(block):
    """Each command of a console block, and what is printed below it."""
    for part in ("\n" + block).split("\n$ ")[1:]:
        command, _, said = part.partition("\n")
        yield command, said


def say(command, folder, *, code=0):
    """What a command says in a folder, as a shell with our programs in its path runs it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command.replace(".venv/bin/", "")],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path, "COLUMNS": "120"},
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def shape(text):
    """The words of a table, its figures and lines left out."""
    return re.findall(r"[^\W\d]+", text)


def promised(block):
    """What a block of Python says that it prints: the comment behind each print."""
    return re.findall(r"print\(.*\)  # (.*)", block)
