"""What is muted reaches no terminal, whoever writes it, and what comes after does."""

import ctypes
import os
import subprocess
import sys

import pytest

from echospan.output import muted


def test_python_c_and_children_are_muted_alike_and_heard_again_after(capfd):
    print("before", flush=True)
    with muted():
        print("python")
        print("python", file=sys.stderr)
        os.write(1, b"a file\n")
        os.write(2, b"a file\n")
        ctypes.CDLL(None).puts(b"a library")
        subprocess.run(["sh", "-c", "echo a child; echo a child >&2"], check=True)
    print("after")
    print("after", file=sys.stderr)
    assert capfd.readouterr() == ("before\nafter\n", "after\n")


def test_an_error_passes_and_the_terminal_is_back(capfd):
    with pytest.raises(ZeroDivisionError), muted():
        print(1 / 0)
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_a_process_without_standard_files_can_be_muted():
    code = "import os; os.close(1); os.close(2); from echospan.output import muted\nwith muted(): 1"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
