"""How long 10,000 results take to be listed and to become a page.

    python -m benchmarks.report           # 10,000 results: under 2 s and under 20 s
    python -m benchmarks.report --quick   # 200 results: a page under 2 MB

Statistic: one run each, seconds: of `echospan.results`, and of reading the store and making a
page.
The results are made up, each with the fields and sizes of a real one.
"""

import argparse
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from echospan.benching import CellResult
from echospan.cores import CORES
from echospan.evaluation import wilson
from echospan.grids import Cell
from echospan.profiling import DelayProfile, Profile, SeedProfile
from echospan.report import page
from echospan.store import Store, results


def made_up(cell: Cell, span: int, chance: random.Random) -> Profile:
    """A profile of that span that nobody measured."""
    delays = []
    for d in range(cell.max_delay + 1):
        right = 0.9995 if d <= span else max(1 / 26, 0.97 ** (d - span))
        correct = round(8_000 * right) - chance.randrange(4)
        low, high = wilson(correct, 8_000)
        delays.append(DelayProfile(d, 8_000, correct, low, high, 4.7 * right))
    recall = tuple(d.recall for d in delays)
    symbols, hidden = cell.symbols or 0, cell.hidden or 128
    seconds = symbols / chance.uniform(5e4, 2e5)
    seed = SeedProfile(
        seed=cell.seed,
        delays=tuple(delays),
        span=span,
        span_at_most=min(cell.max_delay, span + chance.randrange(2)),
        reads=span,
        stores=span,
        reads_recall=recall,
        stores_recall=recall,
        blank_accuracy=0.9999,
        lengths=tuple((n * 36, recall) for n in (1, 2, 5, 10)),
        gradient=tuple(0.8**d for d in range(cell.max_delay + 1)),
        rising=span < cell.max_delay,
        learning_rate=0.01,
        steps=symbols // 1152,
        symbols=symbols,
        seconds=seconds,
        microseconds=chance.uniform(40, 300),
        curve=tuple((i * symbols // 40, i / 40, i * span // 40) for i in range(1, 41)),
        symbols_to_target=symbols // 2 if span == cell.max_delay else None,
        seconds_to_target=seconds / 2 if span == cell.max_delay else None,
    )
    return Profile(
        name=cell.core,
        symbols=26,
        max_delay=cell.max_delay,
        at=cell.at,
        features=27,
        hidden=hidden,
        parameters=hidden * (hidden + 30),
        state=hidden,
        seeds=(seed,),
        settings={"symbols": symbols, "batch": 32, "optimiser": "Adam"},
        versions={"echospan": cell.echospan, "torch": cell.torch, "python": "3.11"},
        threads=1,
    )


def fill(path: Path, count: int) -> None:
    """A store of that many results: all cores, many sizes and budgets, five seeds of each."""
    chance = random.Random(0)
    told = []
    one = Cell(core="gru", symbols=1)
    for i in range(count):
        core = [*CORES][i // 5 % len(CORES)]
        size = i // (5 * len(CORES))
        cell = replace(
            one,
            core=core,
            hidden=16 * (1 + size % 8),
            symbols=100_000 * (1 + size // 8),
            seed=i % 5,
        )
        span = min(16, max(-1, int(chance.gauss(4 + size % 8 * 2, 1))))
        told.append(CellResult(cell, made_up(cell, span, chance), None, 1, 10.0))
    with Store(path) as store:
        store.add_all(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="write the page there")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    count = 200 if args.quick else args.count
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.sqlite")
        fill(path, count)
        start = time.perf_counter()
        listed = len(results(path))
        listing = time.perf_counter() - start
        start = time.perf_counter()
        with Store(path, write=False) as store:
            stored = list(store.stored())
        reading = time.perf_counter() - start
        made = page(stored, "Made up").encode()
        whole = time.perf_counter() - start
    assert listed == len(stored) == count
    print(
        f"{count:,} results: listed in {listing:.2f} s; read in {reading:.2f} s, read and made a "
        f"page of {len(made) / 1e6:.2f} MB in {whole:.2f} s"
    )
    if args.keep:
        args.keep.write_bytes(made)
    sys.exit(0 if listing < 2 and whole < 20 and (count > 200 or len(made) < 2e6) else 1)


if __name__ == "__main__":
    main()
