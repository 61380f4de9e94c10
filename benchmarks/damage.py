"""What becomes of files that are damaged: run folders, snapshots, stream states, stores.

    python -m benchmarks.damage                # 2,000 damages of each
    python -m benchmarks.damage --count 50

Statistic: how many of the damaged files were refused in one sentence, and how many were loaded and
are provably unharmed (equal to the whole one in everything that is read); anything else, another
exception or a changed number, is a failure and ends with exit code 1. Damage: a bit or byte
changed, a stretch overwritten, cut off, taken out or doubled, in one file, at random places.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import fill
from echospan.checkpoint import (
    SNAPSHOTS,
    Snapshot,
    fingerprint,
    load_recipe,
    read_snapshot,
    save,
    sealed,
    write_snapshot,
)
from echospan.errors import EchospanError
from echospan.model import EchoModel
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.store import Store
from echospan.streaming import Stream
from echospan.training import train


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The data, hurt in one place; never the same data."""
    at = chance.randrange(len(data))
    # Headers are short and say the most: they are hit as often as all the rest.
    at = chance.randrange(min(len(data), 4096)) if chance.random() < 0.5 else at
    length = chance.choice([1, 1, 4, 64, 1000])
    hurt = bytearray(data)
    match chance.randrange(5):
        case 0:
            hurt[at] ^= 1 << chance.randrange(8)
        case 1:
            hurt[at : at + length] = chance.randbytes(min(length, len(data) - at))
        case 2:
            del hurt[at:]
        case 3:
            del hurt[at : at + length]
        case _:
            hurt[at:at] = hurt[at : at + length]
    return bytes(hurt) if bytes(hurt) != data else damaged(data, chance)


def subjects(folder: Path) -> dict[str, tuple[list[Path], Callable[[Path], Any]]]:
    """By name: the files that are hurt, and what reads all that they hold."""
    recipe = Recipe(
        model=ModelConfig(alphabet="abc", max_delay=2, hidden=8),
        training=TrainingConfig(steps=40, batch=4),
    )
    kept: list[Snapshot] = []
    model = train(recipe, on_snapshot=kept.append, snapshot_seconds=0).model
    run, stopped = folder / "run", folder / "stopped"
    save(model, recipe.training, run, {})
    write_snapshot(stopped, kept[-1])
    state, store = folder / "state", folder / "store"
    state.mkdir()
    store.mkdir()
    stream = Stream(model)
    stream.push("abacab")
    stream.save(state / "kept")
    fill(store / "kept.sqlite", 8)

    def read_run(at: Path) -> Any:
        loaded, told = load_recipe(at)
        return fingerprint(loaded), told

    def read_stopped(at: Path) -> Any:
        snapshot = read_snapshot(at)
        assert snapshot is not None
        again = sealed({"facts": snapshot.facts}, snapshot.tensors)
        return snapshot.recipe, again

    def read_state(at: Path) -> Any:
        taken = Stream(EchoModel(recipe.model))
        taken.model.load_state_dict(model.state_dict())
        taken.restore(at / "kept")
        return taken.push("cabbac")

    def read_store(at: Path) -> Any:
        with Store(at / "kept.sqlite", write=False) as opened:
            stored = [
                (s.cell, s.profile, s.profile and s.profile.to_json(), s.error, s.ended)
                for s in opened.stored()
            ]
            return stored, opened.rows()

    return {
        "run": ([run / "config.json", run / "model.safetensors"], read_run),
        "snapshot": ([stopped / SNAPSHOTS[0]], read_stopped),
        "state": ([state / "kept"], read_state),
        "store": ([store / "kept.sqlite"], read_store),
    }


def hurt(name: str, count: int, seed: int = 0) -> Counter[str]:
    """How many of `count` damaged ones were refused, unharmed, or neither."""
    told: Counter[str] = Counter()
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        files, read = subjects(Path(folder))[name]
        whole = read(files[0].parent)
        data = {path: path.read_bytes() for path in files}
        for _ in range(count):
            path = chance.choice(files)
            path.write_bytes(damaged(data[path], chance))
            start = time.perf_counter()
            try:
                outcome = "unharmed" if read(path.parent) == whole else "CHANGED"
            except EchospanError as e:
                outcome = "refused" if "\n" not in str(e) else "MORE THAN A SENTENCE"
            except Exception as e:
                outcome = f"TRACEBACK {type(e).__name__}: {e}"
            if time.perf_counter() - start > 1:
                outcome = "SLOW"
            told[outcome] += 1
            for old in path.parent.iterdir():
                if old not in data:  # what SQLite keeps beside a store
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            path.write_bytes(data[path])
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=["run", "snapshot", "state", "store"])
    args = parser.parse_args()
    bad = 0
    for name in args.only:
        told = hurt(name, args.count, args.seed)
        bad += sum(n for outcome, n in told.items() if outcome not in ("refused", "unharmed"))
        print(f"{name}: {json.dumps(told)}", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
