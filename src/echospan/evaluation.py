"""Recall, blanks, span, bits and stream errors, by their definitions; functions of a model."""

import itertools
import math
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from scipy.special import betaln, xlog1py, xlogy
from scipy.stats import norm
from torch.nn import functional as F

from echospan import __version__
from echospan.model import EchoModel
from echospan.tasks import EchoTask


@lru_cache
def _z(confidence: float) -> float:
    return float(norm.ppf(0.5 + confidence / 2))


def wilson(correct: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); (0, 1) where nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    z, p = _z(confidence), correct / trials
    centre = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@dataclass(frozen=True)
class DelayRecall:
    """Recall at one delay."""

    delay: int
    trials: int
    correct: int
    gain: float
    """log2 N − cross-entropy in bits; below 0 where a guess at random would have been better."""

    @property
    def recall(self) -> float:
        """Share of correct answers where there was something to say."""
        return self.correct / self.trials if self.trials else 0.0

    @property
    def bits(self) -> float:
        """max(0, gain): what the answer tells of the symbol, at least."""
        return max(0.0, self.gain)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of recall."""
        return wilson(self.correct, self.trials)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        low, high = self.interval
        return {
            "delay": self.delay,
            "trials": self.trials,
            "correct": self.correct,
            "recall": self.recall,
            "low": low,
            "high": high,
            "bits": self.bits,
        }


LENGTHS = (1, 2, 5, 10)
"""Multiples of the training length at which `length_recall` measures."""


def leading_span(lows: Iterable[float], at: float) -> int:
    """Return the span of lower ends of intervals by delay, from delay 0 up.

    Args:
        lows: The lower end of the interval of recall at delay 0, 1, …
        at: The least that each of them must be.

    Returns:
        The largest D such that every delay up to D reaches `at`; −1 where delay 0 does not.
    """
    return sum(1 for _ in itertools.takewhile(lambda low: low >= at, lows)) - 1


@dataclass(frozen=True)
class Evaluation:
    """Recall at every delay from 0 up, and the blanks."""

    delays: tuple[DelayRecall, ...]
    blanks: int
    blanks_correct: int

    @property
    def blank_accuracy(self) -> float | None:
        """Share of correct blanks; None where no blank was due."""
        return self.blanks_correct / self.blanks if self.blanks else None

    @property
    def recalled_bits(self) -> float:
        """Sum over the delays: a lower bound on what the hidden state says of the past."""
        return sum(d.bits for d in self.delays)

    def span(self, at: float = 0.99) -> int:
        """Largest D with the interval's lower end at least `at` at every d ≤ D; −1 for none."""
        reached = -1
        for d in self.delays:
            if d.interval[0] < at:
                break
            reached = d.delay
        return reached

    def reached(self, asked: tuple[int, ...], target: float) -> bool:
        """Whether the interval's lower end is at least `target` at every delay asked for."""
        return all(self.delays[d].interval[0] >= target for d in asked)


def always_valid(correct: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """An interval of a share that stays valid however often one looks and whenever one stops.

    The shares that a uniform mixture of all of them does not outbet by 1/(1 − confidence)
    (Robbins 1970, "Statistical methods related to the law of the iterated logarithm").
    """
    if trials == 0:
        return 0.0, 1.0
    k, n = correct, trials
    mixture = float(betaln(1 + k, 1 + n - k)) + math.log(1 - confidence)

    def inside(p: float) -> bool:
        return float(xlogy(k, p) + xlog1py(n - k, -p)) >= mixture

    def edge(within: float, beyond: float) -> float:
        for _ in range(60):
            middle = (within + beyond) / 2
            within, beyond = (middle, beyond) if inside(middle) else (within, middle)
        return within

    return edge(k / n, 0.0), edge(k / n, 1.0)


@dataclass(frozen=True)
class SpanEvaluation:
    """Recall by delay where trials went to the edge of the span; intervals hold all at once."""

    delays: tuple[DelayRecall, ...]
    intervals: tuple[tuple[float, float], ...]
    blank_accuracy: float | None
    at: float

    @property
    def span(self) -> int:
        """Largest D with recall surely at least `at` at every d ≤ D; −1 for none."""
        return self._reach(0)

    @property
    def span_at_most(self) -> int:
        """Largest D that is not ruled out."""
        return self._reach(1)

    def _reach(self, end: int) -> int:
        reached = -1
        for d, interval in enumerate(self.intervals):
            if interval[end] < self.at:
                break
            reached = d
        return reached


def evaluate_span(
    model: EchoModel,
    at: float = 0.99,
    *,
    trials: int = 64_000,
    seed: int = 1,
    deadline: float = math.inf,
) -> SpanEvaluation:
    """The span, with trials spent where its edge is until that is decided.

    A first look asks every delay; each further one, twice as long, only the delays that may still
    move the span, up to `trials` answers at each or the `deadline` (of `time.perf_counter`). The
    intervals are always valid and, over all delays together, hold at 95 %: as if the answers were
    independent, which those of one sequence are not quite.
    """
    n = model.max_delay + 1
    confidence = 1 - 0.05 / n
    delays: list[DelayRecall] = [DelayRecall(d, 0, 0, 0.0) for d in range(n)]
    asked, look, size, spent, blanks = list(range(n)), 0, min(2_000, trials), 0, None
    while asked and size > 0 and (look == 0 or time.perf_counter() < deadline):
        seen = evaluate(model, trials=size, seed=seed + 7919 * look, asked=asked)
        blanks = blanks or seen
        for new in seen.delays:
            old = delays[new.delay]
            total = old.trials + new.trials
            gain = (old.gain * old.trials + new.gain * new.trials) / total
            delays[new.delay] = DelayRecall(new.delay, total, old.correct + new.correct, gain)
        intervals = tuple(always_valid(d.correct, d.trials, confidence) for d in delays)
        asked = []
        for d, (low, high) in enumerate(intervals):
            if high < at:
                break
            if low < at:
                asked.append(d)
        spent += size
        look, size = look + 1, min(2 * size, trials - spent)
    assert blanks is not None
    return SpanEvaluation(tuple(delays), intervals, blanks.blank_accuracy, at)


@torch.no_grad()
def evaluate(
    model: EchoModel,
    *,
    trials: int = 20_000,
    length: int | None = None,
    seed: int = 1,
    asked: Sequence[int] | None = None,
) -> Evaluation:
    """Recall on fresh random symbols, from the empty state, with the model in `eval()`.

    At least `trials` answers at every delay, from sequences of `length` symbols (default: twice
    the longest delay and 5 more). `seed` names the stream; what stops a training uses another one.
    `asked`: the delays to ask, where not all are wanted; they alone are answered and in the result.
    """
    task = EchoTask(len(model.alphabet), model.max_delay)
    steps = max(length or 2 * model.max_delay + 5, model.max_delay + 1)
    rows = math.ceil(trials / (steps - model.max_delay))
    device = model.readouts.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    was_training = model.training
    model.eval()
    which = list(range(model.max_delay + 1)) if asked is None else list(asked)
    few, n = len(which) <= model.max_delay, len(which)
    of_delay = torch.tensor(which, device=device)
    due = torch.arange(steps, device=device)[:, None] >= of_delay
    correct = torch.zeros(n, dtype=torch.long, device=device)
    nats = torch.zeros(n, dtype=torch.double, device=device)
    blanks_correct = 0
    chunk = max(1, 5_000_000 // (steps * n * (task.symbols + 1)))
    for start in range(0, rows, chunk):
        symbols, targets = task.batch(min(chunk, rows - start), steps, generator)
        if few:
            logits, targets = model.ask(symbols, of_delay), targets[..., of_delay]
        else:
            logits, _ = model(symbols)
        right = logits.argmax(-1) == targets
        correct += (right & due).sum((0, 1))
        blanks_correct += int((right & ~due).sum())
        loss = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none")
        nats += (loss.view_as(targets) * due).double().sum((0, 1))
    model.train(was_training)
    delays = []
    for i, d in enumerate(which):
        answers = rows * (steps - d)
        gain = math.log2(task.symbols) - float(nats[i]) / answers / math.log(2)
        delays.append(DelayRecall(d, answers, int(correct[i]), gain))
    return Evaluation(tuple(delays), rows * sum(which), blanks_correct)


def length_recall(
    model: EchoModel,
    window: int,
    *,
    trials: int = 20_000,
    seed: int = 3,
    deadline: float = math.inf,
) -> list[dict[str, Any]]:
    """Recall by delay in sequences of 1, 2, 5 and 10 times the training length `window`.

    The longer ones are left out once the `deadline`, of `time.perf_counter`, is past.
    """
    told: list[dict[str, Any]] = []
    for times in LENGTHS:
        if told and time.perf_counter() > deadline:
            break
        seen = evaluate(model, trials=trials, length=times * window, seed=seed)
        recall = [d.recall for d in seen.delays]
        told.append({"times": times, "length": times * window, "recall": recall})
    return told


@torch.no_grad()
def stream_errors(
    model: EchoModel, symbols: int, *, streams: int = 100, seed: int = 2
) -> tuple[int, list[int]]:
    """Wrong answers by delay in `streams` unbroken streams, `symbols` symbols in all.

    The hidden state is never reset; the first `max_delay` answers of each stream are not counted.
    Returns the number of symbols answered and the errors at each delay.
    """
    task = EchoTask(len(model.alphabet), model.max_delay)
    device = model.readouts.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    was_training = model.training
    model.eval()
    streams = min(streams, symbols)
    left = math.ceil(symbols / streams)
    answered = left * streams
    state, past, first = None, task.empty_past(streams, device), True
    errors = torch.zeros(model.max_delay + 1, dtype=torch.long, device=device)
    while left > 0 or first:
        steps = model.max_delay if first else min(left, 50)
        if steps:
            read, targets = task.batch(streams, steps, generator, past)
            logits, state = model(read, state)
            past = task.carry(read, past)
            if not first:
                errors += (logits.argmax(-1) != targets).sum((0, 1))
        left, first = left - (0 if first else steps), False
    model.train(was_training)
    return answered, errors.tolist()


def versions() -> dict[str, str]:
    """Of what a figure or a model was made with."""
    return {
        "echospan": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def as_report(
    model: EchoModel, evaluation: Evaluation, target: float, more: dict[str, Any]
) -> dict[str, Any]:
    """What `evaluation.json` and `--json` say of a model, `more` among it."""
    return {
        "target": target,
        "reached": evaluation.reached(model.config.asked, target),
        "delays": [d.as_dict() for d in evaluation.delays],
        "blank_accuracy": evaluation.blank_accuracy,
        "span": evaluation.span(target),
        "recalled_bits": evaluation.recalled_bits,
        **more,
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }
