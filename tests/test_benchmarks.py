"""Each benchmark still runs, in its quick form, and the page of results is what is stored."""

import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("module", "args", "said"),
    [
        ("gru", [], "ratio"),
        ("homework", ["--quick"], "target in 1 of 1 seeds"),
        ("homework", ["--binary", "--quick"], "100.00% of the bits"),
        ("homework", ["--scripts", "--quick", "--parts", "fixed"], "grade"),
        ("random_streams", ["--quick"], "0 collisions found"),
        ("shipped", ["--only", "bits"], "bits: the same"),
        ("span", ["--quick"], "lru"),
        ("coverage", ["--quick"], "of 2 seeds"),
        ("results", ["--check"], ""),
        ("report", ["--quick"], "200 results"),
        ("damage", ["--count", "10"], "refused"),
        ("long", ["--quick"], "20 trainings"),
        ("bench", ["--quick"], "ratio"),
        ("onnx", ["--quick"], "| lru |"),
        ("serve", ["--quick"], "0 wrong echoes"),
        ("browser", ["--quick"], " KB"),
    ],
)
def test_a_benchmark_runs(module, args, said):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *args],
        cwd=HOME,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout
