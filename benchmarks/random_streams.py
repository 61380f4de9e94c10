"""Do two purposes ever draw the same random symbols?

    python -m benchmarks.random_streams           # 2,000 seeds, about two minutes on one core
    python -m benchmarks.random_streams --quick   # 60 seeds

For every purpose and seed the first letters of its stream are drawn, as evaluation and training
draw them, and every window of 13 letters is looked up among those of all other streams. The seeds
are neighbours (0 to 31, the distances at which seeds of different uses used to lie), powers of two,
both ends of the range, and random ones. Two windows of unrelated streams are equal with probability
26**-13; the number of equal windows to expect from that is printed beside the number found.

A second part evaluates every model that it trains: for each pair of a training's seed and an
evaluation's seed, the windows that the model was trained on are looked up among those that it was
measured on.

Exit code 1 where any window is shared.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from echospan.evaluation import evaluate, evaluate_span, length_recall, stream_errors
from echospan.model import EchoModel
from echospan.random_streams import SEEDS, Purpose, generator
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.training import train

LETTERS, WINDOW = 26, 13
DISTANCES = (11, 13, 17, 32, 1_000, 7_919, 10_000, 20_000, 30_000, 1_000_003)


def some_seeds(count: int) -> list[int]:
    """Seeds that lie near each other, at round places, at the ends, and anywhere."""
    near = [*range(32), *(d + i for d in DISTANCES for i in range(3))]
    ends = [2**n for n in range(5, 32)] + [SEEDS - 1 - i for i in range(8)]
    chosen = dict.fromkeys(near + ends if count > 60 else near[:8] + ends[-8:])
    draws = torch.Generator().manual_seed(0)
    while len(chosen) < count:
        chosen[int(torch.randint(SEEDS, (), generator=draws))] = None
    return list(chosen)[:count]


def windows(symbols: Tensor) -> np.ndarray:
    """Every window of symbols `(rows, time)` as one number: `(rows · (time − WINDOW + 1),)`."""
    powers = (LETTERS + 1) ** torch.arange(WINDOW)  # 27**13 is below 2**63
    return (symbols.unfold(1, WINDOW, 1) * powers).sum(-1).flatten().numpy()


def shared_by_streams(seeds: list[int], letters: int) -> tuple[int, int]:
    """Windows drawn from all purposes, and how many of them stand in two streams."""
    drawn = [
        np.unique(windows(torch.randint(1, LETTERS + 1, (1, letters), generator=stream)))
        for purpose in Purpose
        for stream in (generator(purpose, seed) for seed in seeds)
    ]
    every = np.concatenate(drawn)
    return len(every), len(every) - len(np.unique(every))


@contextmanager
def recorded(training: bool | None = None) -> Iterator[list[Tensor]]:
    """Everything that a model reads, `(rows, time)` each; in one mode only where it is given."""
    read: list[Tensor] = []
    hidden = EchoModel.hidden

    def recording(self: EchoModel, symbols: Tensor, *more: object) -> object:
        if training in (None, self.training):
            read.append(symbols)
        return hidden(self, symbols, *more)  # type: ignore[arg-type]

    EchoModel.hidden = recording  # type: ignore[method-assign,assignment]
    try:
        yield read
    finally:
        EchoModel.hidden = hidden  # type: ignore[method-assign]


def seen(read: list[Tensor]) -> set[int]:
    """Every window of what was read, across the rows of a batch too, as it was drawn."""
    drawn = [symbols.reshape(1, -1) for symbols in read if symbols.numel() >= WINDOW]
    return {w for symbols in drawn for w in windows(symbols).tolist()}


def shared_by_trainings(seeds: list[int]) -> tuple[int, int, int]:
    """Windows trained on or stopped by, windows reported on, and how many are both."""
    trained: set[int] = set()
    reported: set[int] = set()
    for seed in seeds:
        recipe = Recipe(
            model=ModelConfig(hidden=8), training=TrainingConfig(steps=40, batch=16, seed=seed)
        )
        with recorded() as read:
            model = train(recipe).model
        trained |= seen(read)
        with recorded() as read:
            evaluate(model, trials=5_000, seed=seed)
            evaluate_span(model, trials=5_000, seed=seed)
            stream_errors(model, 5_000, seed=seed)
            length_recall(model, recipe.window, trials=5_000, seed=seed)
        reported |= seen(read)
    return len(trained), len(reported), len(trained & reported)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    seeds = some_seeds(60 if args.quick else 2_000)
    streams = len(seeds) * len(Purpose)
    count, shared = shared_by_streams(seeds, 200 if args.quick else 500)
    print(
        f"{len(Purpose)} purposes, {len(seeds)} seeds, {len(seeds) ** 2:,} pairs of seeds for each "
        f"of {len(Purpose) * (len(Purpose) - 1) // 2} pairs of purposes: {streams:,} streams, "
        f"{count:,} windows of {WINDOW} letters, {shared} collisions found, "
        f"{count**2 / 2 / LETTERS**WINDOW:.1g} to expect by chance",
        flush=True,
    )
    some = seeds[:8] if args.quick else [*seeds[:60], SEEDS - 1]
    trained, reported, both = shared_by_trainings(some)
    print(
        f"{len(some)} trainings, {len(some) ** 2:,} pairs of a training's and an evaluation's seed:"
        f" {trained:,} windows trained on, {reported:,} reported on, {both} collisions found, "
        f"{trained * reported / LETTERS**WINDOW:.1g} to expect by chance"
    )
    sys.exit(1 if shared or both else 0)


if __name__ == "__main__":
    main()
