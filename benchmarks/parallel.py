"""A wide core trained by one process, by two, and in bfloat16: symbols a second.

    python -m benchmarks.parallel

Each line is one training of so many steps, in a process or a torchrun of its own; seconds are those
that the training reports, without start and evaluation. Whether the processes compute the same is
not asked here: tests/test_parallel.py does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SETTINGS: dict[str, tuple[int, tuple[str, ...], str]] = {
    "one process, one thread": (1, (), "fp32"),
    "one process, two threads": (2, (), "fp32"),
    "two processes, one thread each": (1, TORCHRUN, "fp32"),
    "one process, one thread, bf16": (1, (), "bf16"),
    "one process, two threads, bf16": (2, (), "bf16"),
}


def symbols_a_second(core: str, hidden: int, steps: int, name: str) -> float:
    threads, launcher, precision = SETTINGS[name]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *(sys.executable, *launcher, "-m", "echospan", "train", "variable"),
                *("--core", core, "--hidden", str(hidden), "--steps", str(steps), "--batch", "64"),
                *("--window", "40", "--precision", precision, "--stream", "0", "--json"),
                *("--out", str(Path(folder) / "run")),
            ],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
        )
    if not done.stdout:
        raise SystemExit(done.stderr)
    told = json.loads(done.stdout)
    return float(told["symbols"] / told["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small core, to see that it runs")
    quick = parser.parse_args().quick
    cases = (
        [("gru", 32, 10)] if quick else [("gru", 128, 60), ("gru", 1024, 20), ("lstm", 1024, 20)]
    )
    table = Table(title=f"symbols a second, torch {torch.__version__}, {os.cpu_count()} cores")
    table.add_column("")
    for core, hidden, _ in cases:
        table.add_column(f"{core} {hidden}", justify="right")
    rows: list[list[float]] = []
    for name in SETTINGS:
        rows.append([symbols_a_second(core, hidden, steps, name) for core, hidden, steps in cases])
        shown = [f"{r:,.0f} ({r / first:.2f})" for r, first in zip(rows[-1], rows[0], strict=True)]
        table.add_row(name, *shown)
    Console().print(table)


if __name__ == "__main__":
    main()
