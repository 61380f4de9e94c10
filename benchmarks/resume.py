"""Kills a training at random moments, goes on each time, and compares its end with one left alone.

    python -m benchmarks.resume              # 20 trainings, each killed once or more
    python -m benchmarks.resume --count 2

Statistic: in how many of the trainings the weights (the file, byte for byte), the steps and what
was recalled at the end equal those of an undisturbed run of the same seed. Each is killed (SIGKILL)
at a moment drawn from the whole course of the undisturbed one, and again at another in half of the
cases. The cost of snapshots is told as the share of a training that was spent on them, at the
default of one in 20 seconds.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from echospan.checkpoint import Snapshot, write_snapshot
from echospan.recipes import RECIPES
from echospan.training import train

SETTINGS = ["train", "fixed", "--stream", "0", "--polish", "1500", "--snapshot-seconds", "0.25"]


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "echospan", *SETTINGS, "--out", str(out), *more]


def end(out: Path) -> tuple[bytes, int, object]:
    told = json.loads((out / "evaluation.json").read_text())
    return (out / "model.safetensors").read_bytes(), told["steps"], told["delays"]


def cost() -> float:
    """Share of a training of ten seconds that one snapshot takes, written to disk, times a half."""
    spent: list[float] = []
    with tempfile.TemporaryDirectory() as folder:

        def keep(snapshot: Snapshot) -> None:
            start = time.perf_counter()
            write_snapshot(Path(folder), snapshot)
            spent.append(time.perf_counter() - start)

        train(RECIPES["variable"], on_snapshot=keep, snapshot_seconds=0.5)
    return max(spent) / 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    moments, same, kills = random.Random(0), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(command(Path(folder, "whole")), check=True, **quiet)
        took = time.perf_counter() - start
        whole = end(Path(folder, "whole"))
        for number in range(args.count):
            out = Path(folder, f"killed-{number}")
            for _ in range(1 + number % 2):
                process = subprocess.Popen(command(out, "--resume"), **quiet)
                try:
                    process.wait(moments.uniform(2.0, took))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    kills += 1
            if not (out / "config.json").exists():
                subprocess.run(command(out, "--resume"), check=True, **quiet)
            same += end(out) == whole
            print(f"{number + 1}: {same} the same after {kills} kills", flush=True)
    print(f"{same} of {args.count} end where the undisturbed one ends, {kills} kills")
    print(f"a snapshot in 20 seconds costs {cost():.2%} of the time")
    sys.exit(0 if same == args.count else 1)


if __name__ == "__main__":
    main()
