"""The README's Python runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from echospan.cli import main


def test_the_python_of_the_readme_runs(tmp_path):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert blocks
    folder = tmp_path / "runs" / "variable"
    with pytest.raises(SystemExit) as end:
        main(["train", "variable", "--out", str(folder), "--stream", "0", "--polish", "0"])
    assert end.value.code == 0
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("···abac\n")
