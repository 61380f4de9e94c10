"""Does the interval of a span hold? Short profiles against a long evaluation of the same models.

    python -m benchmarks.coverage           # 10 seeds, profiles of 60 s, 1,000,000 answers a delay
    python -m benchmarks.coverage --quick   # 2 seeds of 2 s

Statistic: in how many seeds the profile's interval (95 %) holds the span that the long evaluation
finds in the same trained model, by the share of right answers at each delay. The GRU is kept small,
so that the edge of its span lies inside the delays that are asked.
"""

import argparse
import sys
import time

from echospan import evaluate, profile
from echospan.cores import make_core
from echospan.model import EchoModel


def long_span(model: EchoModel, trials: int, at: float, seed: int) -> int:
    """Largest D with the share of right answers at least `at` at every d ≤ D."""
    reached = -1
    for d in evaluate(model, trials=trials, seed=seed).delays:
        if d.recall < at:
            break
        reached = d.delay
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    seeds, seconds, trials = (2, 2.0, 20_000) if args.quick else (10, 60.0, 1_000_000)
    held = 0
    for seed in range(seeds):
        models: list[EchoModel] = []
        told = profile(
            lambda: make_core("gru", 27, 48),
            16,
            seconds=seconds,
            seeds=[seed],
            learning_rates=[7e-3],
            name="gru",
            on_model=lambda _, model, kept=models: kept.append(model),  # type: ignore[misc]
        )
        start = time.perf_counter()
        found = long_span(models[0], trials, told.at, 1_000_000 + seed)
        low, high = told.span_interval
        held += low <= found <= high
        print(
            f"seed {seed}: {told.verdict}; found {found} in {time.perf_counter() - start:.0f} s",
            flush=True,
        )
    print(f"the interval held in {held} of {seeds} seeds")
    sys.exit(0 if held >= 0.9 * seeds else 1)


if __name__ == "__main__":
    main()
