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
from echospan.errors import SettingError
from echospan.model import EchoModel, check_delay, evaluating
from echospan.random_streams import Purpose, check_seed, generator
from echospan.recipes import sequences
from echospan.tasks import EchoTask
from echospan.text import shown
from echospan.validation import fraction, is_whole, moment, not_allowed, several, whole


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
    """Recall at the delays that were asked, every delay from 0 up where not told otherwise."""

    delays: tuple[DelayRecall, ...]
    blanks: int
    blanks_correct: int

    @property
    def blank_accuracy(self) -> float | None:
        """Share of correct blanks; None where no blank was due."""
        return self.blanks_correct / self.blanks if self.blanks else None

    @property
    def blank_interval(self) -> tuple[float, float]:
        """Return Wilson's 95 % interval of blank accuracy; (0, 1) where no blank was due."""
        return wilson(self.blanks_correct, self.blanks)

    @property
    def recalled_bits(self) -> float:
        """Sum over the delays: a lower bound on what the hidden state says of the past."""
        return sum(d.bits for d in self.delays)

    def at(self, delay: int) -> DelayRecall:
        """Return recall at one delay.

        Raises:
            SettingError: If that delay was not asked in this evaluation.
        """
        for d in self.delays:
            if is_whole(delay) and d.delay == delay:
                return d
        asked = ", ".join(str(d.delay) for d in self.delays)
        raise SettingError(
            f"delay {shown(delay)} was not asked in this evaluation",
            f"it has {asked or 'none'}; ask for more with evaluate(model, asked=…)",
        )

    def span(self, at: float = 0.99) -> int:
        """Return the largest D such that recall is surely at least `at` at every d ≤ D.

        Args:
            at: The least lower end of recall's 95 % interval, from 0 to 1; default 0.99.

        Returns:
            D, or −1 where delay 0 falls short already.

        Raises:
            SettingError: If not every delay from 0 up was asked: then there is no span to tell.
        """
        at = fraction("at", at)
        asked = [d.delay for d in self.delays]
        if sorted(asked) != list(range(len(asked))):
            raise SettingError(
                f"an evaluation of the delays {', '.join(map(str, asked))} alone has no span, "
                "which is over every delay from 0 up",
                "evaluate without asked=, or look at one delay with Evaluation.at",
            )
        return leading_span((self.at(d).interval[0] for d in range(len(asked))), at)

    def recalled(self, asked: Sequence[int], target: float) -> bool:
        """Return whether recall has reached the target, whatever the blanks.

        Args:
            asked: The delays whose recall counts.
            target: The least lower end of recall's 95 % interval, between 0 and 1.

        Raises:
            SettingError: If one of these delays was not asked in this evaluation.
        """
        target = fraction("target", target)
        return all(self.at(d).interval[0] >= target for d in several("asked", asked, "delays"))

    def reached(self, asked: Sequence[int], target: float) -> bool:
        """Return whether recall and blanks have both reached the target.

        Args:
            asked: The delays whose recall counts.
            target: The least lower end of a 95 % interval, between 0 and 1: of recall at each
                delay asked for, and of blank accuracy where blanks were due.
        """
        return self.recalled(asked, target) and (
            not self.blanks or self.blank_interval[0] >= target
        )


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
        return leading_span((interval[end] for interval in self.intervals), self.at)


def evaluate_span(
    model: EchoModel,
    at: float = 0.99,
    *,
    trials: int = 64_000,
    seed: int = 1,
    deadline: float = math.inf,
) -> SpanEvaluation:
    """Measure the span, with most trials at its edge.

    A first round asks every delay. Each further round, twice as long, asks only the delays that may
    still move the span. The intervals are valid at every round and hold together, over all delays,
    at 95 %: as if the answers were independent, which those of one sequence are not quite.

    Args:
        model: The model to measure, in `eval()` meanwhile.
        at: The least recall at every delay of the span, from 0 to 1; default 0.99.
        trials: The most answers at each delay, 1 or more; default 64,000.
        seed: Names the random streams, of `Purpose.SPAN`; default 1.
        deadline: A time of `time.perf_counter()` after which no further round begins.

    Raises:
        SettingError: For an argument out of its range.
    """
    check_model(model)
    at, trials, seed = fraction("at", at), whole("trials", trials, 1), check_seed(seed)
    deadline = moment("deadline", deadline)
    n = model.max_delay + 1
    confidence = 1 - 0.05 / n
    delays: list[DelayRecall] = [DelayRecall(d, 0, 0, 0.0) for d in range(n)]
    asked, look, size, spent, blanks = list(range(n)), 0, min(2_000, trials), 0, None
    while asked and size > 0 and (look == 0 or time.perf_counter() < deadline):
        stream = generator(Purpose.SPAN, seed, look)
        seen = measure(model, stream, trials=size, asked=asked)
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


def evaluate(
    model: EchoModel,
    *,
    trials: int = 20_000,
    length: int | None = None,
    seed: int = 1,
    asked: Sequence[int] | None = None,
) -> Evaluation:
    """Measure recall by delay on fresh random symbols, from the empty state.

    No training of any seed reads these symbols, and none of its decisions depends on them: they
    come from streams of their own (`echospan.random_streams`).

    Args:
        model: The model to measure, in `eval()` meanwhile.
        trials: The least number of answers at every delay, 1 or more; default 20,000.
        length: Symbols of a sequence, more than the longest delay; default: twice the longest
            delay and 5 more.
        seed: Names the random stream, from 0 to 2**32 − 1; default 1.
        asked: The delays to ask, each once; default: every one from 0 to the longest. Where some
            are left out, the result holds the others alone and has no span.

    Returns:
        Recall at each delay that was asked, and the blanks.

    Raises:
        SettingError: For an argument out of its range.
        DelayError: For a delay that the model was not trained on.
    """
    check_model(model)
    trials = whole("trials", trials, 1)
    if length is not None:
        length = whole("length", length, model.max_delay + 1)
    if asked is not None:
        asked = [check_delay(d, model.max_delay) for d in several("asked", asked, "delays")]
        if len(set(asked)) < len(asked):
            raise not_allowed("asked", asked, "give each delay once")
    stream = generator(Purpose.RECALL, seed)
    return measure(model, stream, trials=trials, length=length, asked=asked)


def check_model(model: object) -> None:
    """Raise SettingError for what cannot be measured as a model is."""
    parts = ("alphabet", "max_delay", "readouts")
    if not (isinstance(model, torch.nn.Module) and all(hasattr(model, part) for part in parts)):
        raise not_allowed("model", model, "give an echospan.EchoModel, as echospan.load returns")


@torch.no_grad()
def measure(
    model: EchoModel,
    stream: torch.Generator,
    *,
    trials: int,
    length: int | None = None,
    asked: Sequence[int] | None = None,
) -> Evaluation:
    """Measure recall as `evaluate` does, on symbols drawn from `stream`, a generator on the CPU."""
    task = EchoTask(len(model.alphabet), model.max_delay)
    rows, steps = sequences(model.max_delay, trials, length)
    device = model.readouts.weight.device
    which = list(range(model.max_delay + 1)) if asked is None else list(asked)
    few, n = which != list(range(model.max_delay + 1)), len(which)
    of_delay = torch.tensor(which, device=device)
    due = torch.arange(steps, device=device)[:, None] >= of_delay
    correct = torch.zeros(n, dtype=torch.long, device=device)
    nats = torch.zeros(n, dtype=torch.double, device=device)
    blanks_correct = 0
    chunk = max(1, 5_000_000 // (steps * n * (task.symbols + 1)))
    with evaluating(model):
        for start in range(0, rows, chunk):
            symbols = task.draw(min(chunk, rows - start), steps, stream).to(device)
            targets = task.targets(symbols)
            if few:
                logits, targets = model.ask(symbols, of_delay), targets[..., of_delay]
            else:
                logits, _ = model(symbols)
            right = logits.argmax(-1) == targets
            correct += (right & due).sum((0, 1))
            blanks_correct += int((right & ~due).sum())
            loss = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none")
            nats += (loss.view_as(targets) * due).double().sum((0, 1))
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
    seed: int = 1,
    deadline: float = math.inf,
) -> list[dict[str, Any]]:
    """Measure recall by delay in sequences of 1, 2, 5 and 10 times the training length.

    Args:
        model: The model to measure, in `eval()` meanwhile.
        window: Symbols of a sequence in training, 1 or more.
        trials: The least number of answers at every delay and length; default 20,000.
        seed: Names the random streams, of `Purpose.LENGTHS`; default 1.
        deadline: A time of `time.perf_counter()` after which no longer length is begun.

    Returns:
        For each length `{times, length, recall, low}`: how many times the training length, symbols
        of a sequence (no fewer than a delay needs), recall by delay, and the lower end of its
        95 % interval by delay.
    """
    check_model(model)
    window, trials = whole("window", window, 1), whole("trials", trials, 1)
    seed, deadline = check_seed(seed), moment("deadline", deadline)
    measured: list[dict[str, Any]] = []
    for times in LENGTHS:
        if measured and time.perf_counter() > deadline:
            break
        length = max(times * window, model.max_delay + 1)
        stream = generator(Purpose.LENGTHS, seed, times)
        delays = measure(model, stream, trials=trials, length=length).delays
        recall, low = [d.recall for d in delays], [d.interval[0] for d in delays]
        measured.append({"times": times, "length": length, "recall": recall, "low": low})
    return measured


@torch.no_grad()
def stream_errors(
    model: EchoModel, symbols: int, *, streams: int = 100, seed: int = 1
) -> tuple[int, list[int]]:
    """Count wrong answers by delay in unbroken streams, the hidden state never reset.

    Args:
        model: The model to measure, in `eval()` meanwhile.
        symbols: How many symbols are answered in all, 1 or more; rounded up to a multiple of
            `streams`. The first `max_delay` answers of each stream are not counted.
        streams: How many streams run side by side, 1 or more; default 100.
        seed: Names the random stream, from 0 to 2**32 − 1; default 1.

    Returns:
        The number of symbols answered, and the errors at each delay.

    Raises:
        SettingError: For an argument out of its range.
    """
    check_model(model)
    symbols, streams = whole("symbols", symbols, 1), whole("streams", streams, 1)
    task = EchoTask(len(model.alphabet), model.max_delay)
    device = model.readouts.weight.device
    stream = generator(Purpose.STREAM, seed)
    streams = min(streams, symbols)
    left = math.ceil(symbols / streams)
    answered = left * streams
    state, past, first = None, task.empty_past(streams, device), True
    errors = torch.zeros(model.max_delay + 1, dtype=torch.long, device=device)
    with evaluating(model):
        while left > 0 or first:
            steps = model.max_delay if first else min(left, 50)
            if steps:
                read = task.draw(streams, steps, stream).to(device)
                targets = task.targets(read, past)
                logits, state = model(read, state)
                past = task.carry(read, past)
                if not first:
                    errors += (logits.argmax(-1) != targets).sum((0, 1))
            left, first = left - (0 if first else steps), False
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
    """Return what `evaluation.json` and `--json` say of a model.

    Args:
        model: The model that was measured.
        evaluation: What `evaluate` returned for it, of every delay.
        target: The share that recall and blanks should reach.
        more: What else was measured; `lengths`, as `length_recall` returns them, also decide
            `reached_beyond`.

    Returns:
        Among others `reached`: whether the delays asked for, in sequences of `length` symbols, and
        the blanks have reached the target; and `reached_beyond`: whether the same delays reach it
        in every longer sequence, which decides nothing; None where none was measured.
    """
    asked = model.config.asked
    longer = [m for m in more.get("lengths") or () if m["times"] > 1]
    return {
        "target": target,
        "reached": evaluation.reached(asked, target),
        "length": sequences(model.max_delay, 1)[1],
        "reached_beyond": all(m["low"][d] >= target for m in longer for d in asked)
        if longer
        else None,
        "delays": [d.as_dict() for d in evaluation.delays],
        "blank_accuracy": evaluation.blank_accuracy,
        "span": evaluation.span(target),
        "recalled_bits": evaluation.recalled_bits,
        **more,
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }
