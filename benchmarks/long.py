"""Long runs: a stream of millions of symbols, and trainings one after another in one process.

    python -m benchmarks.long              # 10,000,000 symbols one by one; 1,000 trainings
    python -m benchmarks.long --quick

Statistic: resident memory after the first 100,000 symbols and at the end, symbols a second in the
first and in the last tenth, wrong answers by tenth; resident memory after 100 trainings and at the
end. Exit 1 where memory grows by more than 5 MB, or the last tenth has less than nine tenths of the
first one's speed. The peer is the stream itself: its first tenth.
"""

import argparse
import gc
import random
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import torch

from echospan.model import EchoModel
from echospan.recipes import RECIPES, ModelConfig, Recipe, TrainingConfig
from echospan.streaming import Stream
from echospan.training import train


def resident() -> float:
    """MB of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def stream(model: EchoModel, symbols: int) -> bool:
    """One symbol in, one out; each answer is compared."""
    chance, delay = random.Random(0), model.max_delay
    at_work, past = Stream(model, delay), deque([0] * (delay + 1), delay + 1)
    settled, rates, wrong = 0.0, [], []
    for tenth in range(10):
        errors, start = 0, time.perf_counter()
        for i in range(symbols // 10):
            symbol = chance.randrange(1, model.symbols)
            past.append(symbol)
            errors += at_work.push_ids([symbol]) != [past[0]]
            if tenth == 0 and i == min(100_000, symbols // 20):
                settled = resident()
        rates.append(symbols / 10 / (time.perf_counter() - start))
        wrong.append(errors)
        print(f"tenth {tenth + 1}: {rates[-1]:,.0f} symbols a second, {errors} wrong", flush=True)
    grown = resident() - settled
    print(
        f"{symbols:,} symbols: memory {settled:.1f} MB and {grown:+.1f} MB, the last tenth "
        f"{rates[-1] / rates[0]:.2f} times as fast as the first, wrong by tenth {wrong}"
    )
    return grown < 5 and rates[-1] > 0.9 * rates[0]


def trainings(count: int) -> bool:
    """One model after another, each forgotten."""
    seen: list[float] = []
    things: list[int] = []
    for number in range(count):
        train(
            Recipe(
                model=ModelConfig(alphabet="abc", max_delay=2, hidden=16),
                training=TrainingConfig(steps=40, seed=number, batch=8),
            )
        )
        if (number + 1) % (count // 10) == 0:
            things.append(len(gc.get_objects()))
            seen.append(resident())
    print(
        f"{count:,} trainings: memory after each tenth "
        + ", ".join(f"{mb:.1f}" for mb in seen)
        + f" MB; objects that Python knows {things[-1] - things[0]:+,} from the first to the last"
    )
    # The allocator settles in the first half; what leaks goes on.
    return seen[-1] - seen[4] < 2 and things[-1] - things[0] < count // 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=10_000_000)
    parser.add_argument("--trainings", type=int, default=1_000)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.symbols, args.trainings = 10_000, 20
    torch.set_num_threads(1)
    recipe = RECIPES["fixed"]
    if args.quick:
        recipe = replace(recipe, training=replace(recipe.training, polish=0))
    model = train(recipe).model
    good = [stream(model, args.symbols), trainings(args.trainings)]
    sys.exit(0 if all(good) or args.quick else 1)


if __name__ == "__main__":
    main()
