"""A wide core trained by one process, by two, and in bfloat16: symbols a second.

    python -m benchmarks.parallel

Each line is one training of so many steps, in a process or a torchrun of its own; seconds are those
of training, without start and evaluation. Whether the processes compute the same is
not asked here: tests/test_parallel.py does.
"""

import argparse
import os
import subprocess
import sys
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

from echospan.parallel import joined
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.training import train

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
    done = subprocess.run(
        [
            *(sys.executable, *launcher, "-m", "benchmarks.parallel", "--core", core),
            *("--hidden", str(hidden), "--steps", str(steps), "--precision", precision),
        ],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    if not done.stdout:
        raise SystemExit(done.stderr)
    return float(done.stdout)


def train_one(core: str, hidden: int, steps: int, precision: Literal["fp32", "bf16"]) -> None:
    """What each of these processes does; the first of a group tells."""
    recipe = Recipe(
        model=ModelConfig(core=core, hidden=hidden),
        training=TrainingConfig(steps=steps, batch=64, window=40, precision=precision),
    )
    with joined("cpu") as group:
        result = train(recipe, group=group)
    if group.first:
        print(result.symbols / result.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small core, to see that it runs")
    parser.add_argument("--core", help="train one of these alone, in this process")
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--precision")
    args = parser.parse_args()
    if args.core:
        train_one(args.core, args.hidden, args.steps, args.precision)
        return
    quick = args.quick
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
