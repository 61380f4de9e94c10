"""The span that each core reaches in a fixed time on this machine, side by side.

    python -m benchmarks.span                                           # 60 s a core, seed 0
    python -m benchmarks.span --seconds 600 --seeds 0 1 2 --only gru lmu
    python -m benchmarks.span --quick                                   # one core, 3 s

Statistic: the largest D such that recall is at least 99 % at every d ≤ D, by the lower end of an
interval that holds at 95 % over all delays together, on data that decided nothing; the time holds
training, probes and evaluation. Each core has the width, delays and batch at which it went furthest
in a few trials; the delays asked grow with the time. `--save FILE` appends each profile as a line
of JSON, from which `python -m benchmarks.results` makes docs/results.md.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from echospan.cores import LMU, LRU, make_core
from echospan.profiling import profile


@dataclass(frozen=True)
class Entry:
    """A core at the size at which it is raced."""

    make: Callable[[], nn.Module]
    short: int
    """The longest delay asked in less than five minutes."""
    long: int
    """The longest delay asked in five minutes or more."""
    batch: int
    rate: float
    make_short: Callable[[], nn.Module] | None = None
    """For the shorter delay, where another size goes further in that time."""


def lmu(order: int, channels: int) -> nn.Module:
    """An LMU whose window of 2/π · order steps holds the delays that are asked."""
    return LMU(27, order * channels, order=order)


ENTRIES = {
    "gru": Entry(partial(make_core, "gru", 27, 384), 24, 40, 32, 5e-3),
    "lstm": Entry(partial(make_core, "lstm", 27, 256), 24, 40, 32, 1e-2),
    "rnn": Entry(partial(make_core, "rnn", 27, 384), 24, 40, 32, 3e-3),
    "lru": Entry(lambda: LRU(27, 1024), 64, 96, 16, 5e-3),
    "s4d": Entry(partial(make_core, "s4d", 27, 256), 32, 64, 16, 1e-2),
    "lmu": Entry(partial(lmu, 320, 8), 64, 192, 8, 1e-2, partial(lmu, 110, 8)),
    "mamba": Entry(partial(make_core, "mamba", 27, 128), 16, 16, 32, 1e-2),
    "min_gru": Entry(partial(make_core, "min_gru", 27, 256), 16, 16, 32, 1e-2),
    "delta_net": Entry(partial(make_core, "delta_net", 27, 128), 16, 24, 32, 1e-2),
    "linear_attention": Entry(partial(make_core, "linear_attention", 27, 128), 16, 24, 32, 1e-2),
    "attention": Entry(partial(make_core, "attention", 27, 256), 16, 32, 32, 3e-3),
    "tcn": Entry(partial(make_core, "tcn", 27, 128), 16, 30, 32, 3e-3),
    "reservoir": Entry(partial(make_core, "reservoir", 27, 512), 16, 24, 32, 1e-2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=ENTRIES, default=list(ENTRIES))
    parser.add_argument("--save", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.only = 3.0, ["lru"]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.seconds:g} s each")
    for name in args.only:
        entry = ENTRIES[name]
        short = args.seconds < 300
        for seed in args.seeds:
            told = profile(
                (short and entry.make_short) or entry.make,
                entry.short if short else entry.long,
                seconds=args.seconds,
                batch=entry.batch,
                learning_rates=[entry.rate],
                seeds=[seed],
                name=name,
            )
            print(f"{name:17}hidden {told.hidden:5} seed {seed}  {told.verdict}", flush=True)
            if args.save:
                args.save.parent.mkdir(parents=True, exist_ok=True)
                with args.save.open("a") as f:
                    f.write(told.to_json() + "\n")


if __name__ == "__main__":
    main()
