"""The examples run as they stand, in an empty folder."""

import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(set(HOME.glob("*.py")) - {HOME / "onnx_echo.py"})  # test_export.py runs that one


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, tmp_path):
    done = subprocess.run(
        [sys.executable, example], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "span" in done.stdout
