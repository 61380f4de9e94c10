"""The assignment's two parts, ours beside the assignment's own classes and recipe, in one run.

    python -m benchmarks.homework             # 20 seeds, long streams of 5, the peer's first steps
    python -m benchmarks.homework --whole     # the peer trained to its end, and its time to target
    python -m benchmarks.homework --scripts   # the printed scripts whole, with both classes
    python -m benchmarks.homework --binary    # the notebook that the assignment refers to
    … --quick                                 # any of these in seconds, at a reduced size

Time to target: median seconds until the lower end of the 95 % interval is 99.2 %, of recall at
every delay asked for and of the blanks (fresh data, 50,000 answers a delay, evaluation and import
not counted), and how many seeds reached it and have 99 % by the lower end on another random stream,
which decided nothing. The peer is the assignment's printed classes and recipe (batch sizes, rates,
epochs); its full time is projected from its first steps, the two taking turns.

--scripts [--seeds 3] [--parts fixed variable] [--classes ours printed]: one line for each run of a
whole script: seconds, the grade that it prints, and whether its own assertions passed. Exit code 1
where one did not with our classes.

--binary [--seeds 3]: the echo of bits of 09-echo_data, on its own task: five series of 20,000 bits,
three steps. Its network (4 ReLU units, RMSprop, 5 epochs) is written anew. Beside it the recipe
`bits`, and a network of the notebook's size and number of steps, trained as ours are.
"""

import argparse
import contextlib
import io
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks import assignment
from echospan import RECIPES, Recipe, evaluate, homework, stream_errors, train
from echospan.evaluation import wilson

PRINTED = assignment.printed()


@dataclass(frozen=True)
class Peer:
    """The assignment's recipe: sizes, batches, epochs and rates of its printed solution."""

    max_delay: int
    varies: bool
    hidden: int
    length: int
    batch: int
    sequences: int
    epochs: int
    rate: float

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole recipe."""
        return -(-self.sequences // self.batch) * self.epochs

    def model(self) -> nn.Module:
        """Return the printed model."""
        if self.varies:
            return PRINTED["VariableDelayGRUMemory"](self.hidden, self.max_delay)
        return PRINTED["GRUMemory"](self.hidden)

    def epoch(self) -> Iterator[tuple[Tensor, list[Tensor], Tensor]]:
        """Yield the batches of an epoch: one-hot letters, delays where they vary, echoes."""
        name = "VariableDelayEchoDataset" if self.varies else "EchoDataset"
        data = PRINTED[name](self.max_delay, self.length, self.sequences)
        for read, *delays, echo in DataLoader(data, batch_size=self.batch):
            yield PRINTED["idx_to_onehot"](read), delays, echo


PEERS = {
    "fixed": Peer(4, False, 64, 15, 256, 100_000, 4, 3e-3),
    "variable": Peer(8, True, 96, 20, 384, 200_000, 8, 2e-3),
}


def peer_reached(model: nn.Module, peer: Peer, trials: int) -> bool:
    """Whether every delay asked for has its interval's lower end at 99 %, on fresh sequences."""
    model.eval()
    ok = True
    with torch.no_grad():
        for d in range(peer.max_delay + 1) if peer.varies else (peer.max_delay,):
            rows = -(-trials // (peer.length - d))
            read = torch.randint(1, 27, (rows, peer.length))
            delays = [torch.full((rows,), d)] if peer.varies else []
            answer = model(PRINTED["idx_to_onehot"](read), *delays).argmax(-1)
            right = int((answer[:, d:] == read[:, : peer.length - d]).sum())
            ok = ok and wilson(right, rows * (peer.length - d))[0] >= 0.99
    model.train()
    return ok


def train_peer(peer: Peer, steps: int, until_target: bool) -> tuple[float, float | None]:
    """Seconds that `steps` took without evaluation, and those until the target (None: never)."""
    random.seed(0)
    torch.manual_seed(0)
    start = time.perf_counter()
    model = peer.model()
    optimiser = torch.optim.Adam(model.parameters(), lr=peer.rate)
    decay = torch.optim.lr_scheduler.StepLR(optimiser, 3, 0.8 if peer.varies else 1.0)
    step, evaluating, to_target = 0, 0.0, None
    while step < steps:
        for read, delays, echo in peer.epoch():
            optimiser.zero_grad()
            loss = F.cross_entropy(model(read, *delays).view(-1, 27), echo.view(-1))
            loss.backward()
            optimiser.step()
            loss.item()
            step += 1
            if until_target and to_target is None and step % 50 == 0:
                before = time.perf_counter()
                if peer_reached(model, peer, 2_000) and peer_reached(model, peer, 50_000):
                    to_target = before - start - evaluating
                evaluating += time.perf_counter() - before
            if step >= steps:
                break
        else:
            decay.step()
    return time.perf_counter() - start - evaluating, to_target


def generator_rates(name: str, batch: int) -> tuple[float, float]:
    """Symbols a second through a DataLoader: ours and the assignment's, the best of five."""
    rates = []
    for source, size in ((vars(homework), batch * 400), (PRINTED, batch * 40)):
        seconds = []
        for _ in range(5):
            data = source[name](size=size)
            start = time.perf_counter()
            for _ in DataLoader(data, batch_size=batch):
                pass
            seconds.append(time.perf_counter() - start)
        rates.append(size * data.seq_length / min(seconds))
    return rates[0], rates[1]


def time_to_target(quick: bool, whole: bool) -> bool:
    """Print ours beside the peer's for both parts; return whether every seed kept the target."""
    seeds, long, symbols = (1, 1, 20_000) if quick else (20, 5, 1_000_000)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {seeds} seeds")
    fell_short = False
    for name, peer in PEERS.items():
        recipe = RECIPES[name]
        asked = recipe.model.asked
        bare = replace(recipe.training, polish=0, target=0.992)
        train(replace(recipe, training=replace(bare, steps=20)))  # warm-up
        ours: list[float] = []
        steps_of_peer: list[float] = []
        kept = 0
        for seed in range(seeds):
            result = train(replace(recipe, training=replace(bare, seed=seed)))
            sure = evaluate(result.model, trials=50_000, seed=10_000 + seed).reached(asked, 0.99)
            kept += result.reached and sure
            ours.append(result.seconds_to_target or float("inf"))
            if not whole and seed % 4 == 0:
                steps_of_peer.append(train_peer(peer, 30, until_target=False)[0] / 30)
        median = statistics.median(ours)
        print(
            f"{name}: target in {kept} of {seeds} seeds, median {median:.2f} s "
            f"(from {min(ours):.2f} to {max(ours):.2f})"
        )
        fell_short |= kept < seeds
        if whole:
            seconds, reached = train_peer(peer, peer.steps, until_target=True)
            print(f"  the assignment's recipe: {seconds:.1f} s, {seconds / median:.0f} times ours")
            print(
                f"  its own time to the same recall: {reached:.1f} s, {reached / median:.0f} times"
                if reached
                else "  it did not reach the same recall at every delay"
            )
        else:
            seconds = statistics.median(steps_of_peer) * peer.steps
            print(
                f"  the assignment's recipe, projected from 30 steps {len(steps_of_peer)} times: "
                f"{seconds:.1f} s, {seconds / median:.0f} times ours"
            )
        errors: list[int] = []
        wrong_blanks = blanks = 0
        grades: list[float] = []
        for seed in range(long):
            polish = 300 if quick else recipe.training.polish
            training = replace(recipe.training, polish=polish, seed=seed)
            model = train(replace(recipe, training=training)).model
            _, wrong = stream_errors(model, symbols, seed=20_000 + seed)
            errors.append(max(wrong[d] for d in asked))
            fresh = evaluate(
                model, trials=1_000, length=peer.max_delay + 1, seed=30_000 + seed
            )  # 1,000 fresh streams, each read to its first answer at the longest delay
            wrong_blanks += fresh.blanks - fresh.blanks_correct
            blanks += fresh.blanks
            random.seed(seed)
            grader = homework.test_variable_delay_model if peer.varies else homework.test_model
            grades.append(grader(model))
        print(
            f"  polished: errors at the worst delay asked for in {symbols:,} streamed symbols "
            f"{errors}, median {statistics.median(errors)}; wrong blanks {wrong_blanks} of "
            f"{blanks:,}; the assignment's grader {min(grades):.4f} at least"
        )
    for name, batch in (("EchoDataset", 256), ("VariableDelayEchoDataset", 384)):
        data, theirs = generator_rates(name, batch)
        print(
            f"{name} through DataLoader(batch_size={batch}): {data / 1e6:.1f} and "
            f"{theirs / 1e6:.2f} million symbols a second, {data / theirs:.0f} times"
        )
    return not fell_short


def scripts(seeds: int, parts: list[str], classes: list[str], quick: bool) -> bool:
    """Run the printed scripts and print a line for each run; return whether all of ours passed."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    passed = True
    for part in parts:
        for seed in range(seeds):
            for whose in classes:
                source = assignment.PARTS[part]
                if whose == "ours":
                    source = assignment.with_our_classes(source)
                if quick:
                    source = assignment.reduced(source, part)
                random.seed(seed)
                torch.manual_seed(seed)
                names: dict[str, Any] = {"__name__": "__main__"}
                start = time.perf_counter()
                try:
                    with contextlib.redirect_stdout(io.StringIO()):
                        assignment.run(source, names)
                    outcome = "tests passed"
                except AssertionError as e:
                    outcome = f"FAILED: {e}"
                    passed &= whose != "ours"
                print(
                    f"{part}, {whose} classes, seed {seed}: {names['duration']:.1f} s of training, "
                    f"{time.perf_counter() - start:.1f} s in all, grade {names['accuracy']:.4f}, "
                    f"{outcome}",
                    flush=True,
                )
    return passed


STEPS, SERIES, ROWS, WINDOW = 3, 20_000, 5, 20
"""The notebook's echo step, length of a series, series of a batch, and bits of a training step."""


class NotebookNetwork(nn.Module):
    """The notebook's network: four ReLU units read a bit, one logit answers."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, 4, nonlinearity="relu", batch_first=True)
        self.linear = nn.Linear(4, 1)

    def forward(self, bits: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(rows, time, 1)` of bits `(rows, time, 1)`, and the state."""
        y, state = self.rnn(bits, state)
        return self.linear(y), state


def series() -> tuple[Tensor, Tensor]:
    """Random bits `(rows, time)` and their echo, which begins with zeros as the notebook's does."""
    bits = torch.randint(0, 2, (ROWS, SERIES))
    return bits, F.pad(bits, (STEPS, 0))[:, :SERIES]


def notebook_accuracy(seed: int, epochs: int) -> float:
    """Train the notebook's network as it does; the share of right bits in fresh series."""
    torch.manual_seed(seed)
    model, state = NotebookNetwork(), torch.zeros(1, ROWS, 4)
    optimiser = torch.optim.RMSprop(model.parameters(), lr=0.001)
    for _ in range(epochs):
        for bits, echo in zip(*(part.split(WINDOW, 1) for part in series()), strict=True):
            optimiser.zero_grad()
            logits, state = model(bits[..., None].float(), state.detach())
            F.binary_cross_entropy_with_logits(logits, echo[..., None].float()).backward()
            optimiser.step()
    bits, echo = series()
    with torch.no_grad():
        logits, _ = model(bits[..., None].float(), state)
    return float(((logits[..., 0] > 0) == echo).float().mean())


def our_accuracy(recipe: Recipe) -> float:
    """Train by a recipe; the share of right bits in fresh series, blanks due before the echo."""
    model = train(recipe).model
    torch.manual_seed(recipe.training.seed)
    bits, echo = series()
    due = echo + 1  # ids: 0 is the blank, 1 and 2 are the bits
    due[:, :STEPS] = 0
    with torch.no_grad():
        logits, _ = model(bits + 1)
    return float((logits[:, :, STEPS].argmax(-1) == due).float().mean())


def binary(seeds: int, quick: bool) -> None:
    """Print the shares of right bits, in percent, a line for each network."""
    ours = RECIPES["bits"]
    training = replace(ours.training, polish=0) if quick else ours.training
    small = replace(ours.training, carry=0.999, polish=0, steps=1_000 if quick else 5_000)

    def line(name: str, shares: list[float]) -> None:
        print(f"{name}: " + ", ".join(f"{s:.2%}" for s in shares) + " of the bits", flush=True)

    line(
        "09-echo_data, its network of 4 ReLU units and recipe",
        [notebook_accuracy(seed, 1 if quick else 5) for seed in range(seeds)],
    )
    line(
        "recipe bits, 8 units, which also begins a series",
        [
            our_accuracy(replace(ours, training=replace(training, seed=seed)))
            for seed in range(seeds)
        ],
    )
    line(
        "4 units of a GRU and as many steps as the notebook, trained as ours",
        [
            our_accuracy(
                Recipe(model=replace(ours.model, hidden=4), training=replace(small, seed=seed))
            )
            for seed in range(seeds)
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--scripts", action="store_true")
    parser.add_argument("--binary", action="store_true")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--parts", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--classes", nargs="+", default=["ours", "printed"])
    args = parser.parse_args()
    seeds = args.seeds or (1 if args.quick else 3)
    if args.scripts:
        sys.exit(0 if scripts(seeds, args.parts, args.classes, args.quick) else 1)
    if args.binary:
        binary(seeds, args.quick)
        return
    sys.exit(0 if time_to_target(args.quick, args.whole) else 1)


if __name__ == "__main__":
    main()
