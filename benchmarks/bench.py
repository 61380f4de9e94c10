"""How much faster two workers are than one, and whether ten kills change anything.

    python -m benchmarks.bench            # efficiency: three runs each of 8 equal cells
    python -m benchmarks.bench --kills 10 # kill -9 at ten random moments, then compare the stores
    python -m benchmarks.bench --shared   # two containers and a jumping clock: every cell once
    python -m benchmarks.bench --quick

Statistic: median wall time of `echospan.bench` over equal cells, with workers that are warm (each
has run a cell before the clock starts), of one worker divided by that of two, the two taken in
turns; each run's figures must equal the first run's to the last digit. Peer in the same run: the
same cells one after another in this process, on two threads. The kills: the command line itself,
killed with its results half there and begun again, beside one that nothing disturbed.

Shared: two command lines on one store, each in a pid namespace of its own (`unshare`), each with a
wall clock of its own (a library that `cc` makes) that is set a day ahead and a day back, by turns,
every second while they run. Statistic: cells that both began, of all; the store must hold every
cell once, with the figures of a store that nobody shared. The machine's own clock is not touched.
"""

import argparse
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from echospan.benching import bench
from echospan.grids import Cell, Grid
from echospan.profiling import Profile, profile
from echospan.store import Store


def timed(cells: list[Cell], warm: list[Cell], workers: int) -> tuple[float, dict[str, Profile]]:
    """Seconds from the first cell begun on warm workers to the last one ended, and the profiles.

    Profiles are equal where all is that does not depend on the clock.
    """
    keys, told, start = {c.key for c in warm}, {}, 0.0
    for result in bench([*warm[:workers], *cells], workers=workers):
        assert result.profile is not None, result.error
        if result.cell.key in keys:
            start = start or time.perf_counter()
            continue
        told[result.cell.key] = result.profile
    return time.perf_counter() - start, told


def efficiency(count: int, symbols: int, runs: int, hidden: int = 64, delay: int = 8) -> float:
    def grid(seeds: range) -> list[Cell]:
        one = Grid(
            cores=("gru",),
            hidden=(hidden,),
            max_delay=(delay,),
            seeds=(*seeds,),
            symbols=(symbols,),
        )
        return one.cells()

    cells, warm = grid(range(count)), grid(range(900, 902))
    took: dict[int, list[float]] = {1: [], 2: []}
    first: dict[str, Profile] = {}
    for _ in range(runs):
        for workers in took:
            seconds, told = timed(cells, warm, workers)
            first = first or told
            assert told == first
            took[workers].append(seconds)
    start = time.perf_counter()
    for cell in cells:
        profile("gru", delay, hidden=hidden, symbols=symbols, seeds=[cell.seed])
    here = time.perf_counter() - start
    one, two = (statistics.median(took[w]) for w in (1, 2))
    print(
        f"{count} cells of {symbols:,} symbols: one worker {one:.1f} s, two {two:.1f} s, "
        f"ratio {one / two:.2f}; here, on {torch.get_num_threads()} threads, {here:.1f} s"
    )
    return one / two


def kills(count: int) -> bool:
    """Whether a bench killed `count` times ends at the figures of one that was not."""
    flags = [*("--cores", "gru", "lru", "--hidden", "16", "--max-delay", "4")]
    flags += ["--symbols", "100000", "--seeds", *map(str, range(12))]
    moments = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        stores = Path(folder, "whole.sqlite"), Path(folder, "killed.sqlite")
        commands = [
            [sys.executable, "-m", "echospan", "bench", *flags, "--store", str(store)]
            for store in stores
        ]
        subprocess.run(commands[0], check=True, capture_output=True)
        killed = 0
        while killed < count:
            process = subprocess.Popen(
                commands[1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(moments.uniform(2.5, 6.5))  # about 3 s go into the start
            process.kill()
            process.wait()
            killed += 1
            with Store(stores[1], write=True) as store:
                print(f"kill {killed}: {len(store)} of 24 cells stored", flush=True)
                if len(store) == 24:
                    break
        subprocess.run(commands[1], check=True, capture_output=True)
        told = []
        for path in stores:
            with Store(path, write=False) as store:
                told.append({s.cell.key: s.profile for s in store.stored()})
    same = told[0] == told[1] and len(told[1]) == 24
    print(f"{killed} kills: the stores hold {'the same' if same else 'DIFFERENT'} figures")
    return same


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long offset(void) {
  long seconds = 0;
  FILE *f = fopen(getenv("CLOCK_OFFSET"), "r");
  if (f) { if (fscanf(f, "%ld", &seconds) != 1) seconds = 0; fclose(f); }
  return seconds;
}
int clock_gettime(clockid_t id, struct timespec *t) {
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(id, t);
  if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += offset();
  return failed;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
  int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
  int failed = real(t, zone);
  if (!failed) t->tv_sec += offset();
  return failed;
}
time_t time(time_t *t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}
"""
"""A wall clock that is off by as many seconds as the file CLOCK_OFFSET says."""

DAY = 86_400


def clock(folder: Path) -> Path:
    """Return a library to be preloaded, made of CLOCK."""
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(CLOCK)
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def container() -> list[str] | None:
    """Return the words before a command that give it process ids of its own, where permitted."""
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    for more in ([], ["--map-root-user"]) if shutil.which("unshare") else ():
        if subprocess.run([*words, *more, "true"], capture_output=True).returncode == 0:
            return [*words, *more]
    return None


def shared(count: int, symbols: int) -> bool:
    """Whether two benches in two containers, with clocks that jump, run each of `count` cells
    once."""
    flags = ["--cores", "gru", "lru", "--hidden", "16", "--max-delay", "4", "--workers", "1"]
    flags += ["--symbols", str(symbols), "--seeds", *map(str, range(count // 2))]
    before, chance = container(), random.Random(0)
    if before is None:
        sys.exit("this machine permits no pid namespaces")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = clock(folder)
        stores = folder / "alone.sqlite", folder / "shared.sqlite"
        command = [sys.executable, "-m", "echospan", "bench", *flags, "--store"]
        subprocess.run([*command, str(stores[0])], check=True, capture_output=True)
        offsets = [folder / f"offset {i}" for i in range(2)]
        benches = []
        for offset in offsets:
            offset.write_text("0")
            environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}
            benches.append(
                subprocess.Popen(
                    [*before, *command, str(stores[1])],
                    env=os.environ | environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        jumps = 0
        while any(bench.poll() is None for bench in benches):
            time.sleep(1.0)
            chance.choice(offsets).write_text(str(chance.choice([-DAY, 0, DAY])))
            jumps += 1
        ended = [bench.communicate()[1] for bench in benches]
        ran = [int(re.search(r"(\d+) of them run", said)[1]) for said in ended]  # type: ignore[index]
        results = []
        for path in stores:
            with Store(path, write=False) as store:
                results.append({s.cell.key: s.profile for s in store.stored()})
                dates = {s.ended[:10] for s in store.stored()}
    same = results[0] == results[1] and len(results[1]) == count
    print(
        f"{count} cells in two containers, {jumps} jumps of the clock (results are dated on "
        f"{', '.join(sorted(dates))}): {ran[0]} and {ran[1]} run, {sum(ran) - count} of them "
        f"twice; the store holds {len(results[1])}, {'the same' if same else 'OTHER'} figures as "
        "one that nobody shared"
    )
    return same and sum(ran) == count and all(bench.returncode == 0 for bench in benches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.shared:
        done = shared(4, 20_000) if args.quick else shared(24, 100_000)
        sys.exit(0 if done else 1)
    if args.kills is not None:
        sys.exit(0 if kills(args.kills) else 1)
    if args.quick:
        efficiency(2, 2_000, 1, hidden=16, delay=2)
        return
    sys.exit(0 if efficiency(8, 400_000, 3) >= 1.7 else 1)


if __name__ == "__main__":
    main()
