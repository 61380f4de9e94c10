"""The instrument measured on things whose memory is known exactly.

Nothing here is trained: each model's answers, or each system's capacity, follow from how it is
built, so that what is wrong is the instrument. The models find a symbol's past by their own slices,
never by those of `tasks.py`, or a fault there would be in question and answer alike.
"""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.alphabet import Alphabet
from echospan.capacity import Capacity, controllability_rank, memory_capacity
from echospan.devices import standard_modes
from echospan.evaluation import evaluate, stream_errors, wilson
from echospan.model import EchoModel
from echospan.random_streams import Purpose, check_seed, generator
from echospan.validation import whole

_SURE = 0.99999
"""Confidence of the intervals here: a few hundred shares are compared, and none should be out."""

_LETTERS = "abcd"
_MAX_DELAY = 16
_FIRM = 60.0
"""A logit so far above the others that what is left to them is rounding."""


@dataclass(frozen=True)
class KnownAnswer:
    """One figure that the instrument should give, and the one that it gave."""

    name: str
    fact: str
    """What is known, and why."""
    expected: float
    measured: float
    allowed: float
    """How far the measured figure may be off: its own interval, or a fixed error."""

    @property
    def passed(self) -> bool:
        """Whether the measured figure is within the error allowed."""
        return abs(self.measured - self.expected) <= self.allowed

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class SelfTest:
    """All known answers, the same for the same seed."""

    answers: tuple[KnownAnswer, ...]
    seed: int
    seconds: float = field(compare=False)

    @property
    def passed(self) -> bool:
        """Whether every answer is within its error."""
        return not self.failed

    @property
    def failed(self) -> tuple[KnownAnswer, ...]:
        """The answers that are not."""
        return tuple(a for a in self.answers if not a.passed)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "passed": self.passed,
            "seed": self.seed,
            "seconds": self.seconds,
            "answers": [a.as_dict() for a in self.answers],
        }


class KnownModel(nn.Module):
    """What `evaluate` and `stream_errors` ask of a model, around `say`, which needs no training.

    Its state are the last `reach` symbols read, `(batch, reach)`, oldest first, blank at first.
    """

    def __init__(self, reach: int, max_delay: int = _MAX_DELAY, letters: str = _LETTERS) -> None:
        super().__init__()
        self.alphabet = Alphabet(letters)
        self.max_delay = max_delay
        self.reach = reach
        self.readouts = nn.Linear(1, 1)  # evaluation asks it for the device

    def forward(self, symbols: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits `(batch, time, delay, symbol)` to `symbols (batch, time)`, and the state."""
        if state is None:
            state = symbols.new_zeros(len(symbols), self.reach)
        read = torch.cat([state, symbols], 1)  # (batch, reach + time)
        return self.say(read), read[:, read.shape[1] - self.reach :]

    def say(self, read: Tensor) -> Tensor:
        """Logits `(batch, time, delay, symbol)` from `read (batch, reach + time)`."""
        raise NotImplementedError

    def ago(self, read: Tensor, delay: int) -> Tensor:
        """The symbol `(batch, time)` read `delay` steps before each step, delay ≤ reach."""
        return read[:, self.reach - delay : read.shape[1] - delay]

    def certain(self, seen: Tensor) -> Tensor:
        """Logits `(…, symbol)` that leave no doubt about `seen (…)`."""
        return F.one_hot(seen, len(self.alphabet) + 1) * _FIRM

    def guess(self, seen: Tensor) -> Tensor:
        """Logits `(…, symbol)` that say "any letter alike" whatever was seen."""
        letters = seen.new_zeros(*seen.shape, len(self.alphabet) + 1, dtype=torch.float)
        letters[..., 0] = -_FIRM
        return letters


class DelayLine(KnownModel):
    """Holds the last `holds` symbols, the newest included, and guesses beyond: span `holds` − 1.

    With `holds` = max delay + 1 it is the oracle.
    """

    def __init__(self, holds: int, **sizes: Any) -> None:
        super().__init__(holds - 1, **sizes)
        self.holds = holds

    def say(self, read: Tensor) -> Tensor:
        """Certain below `holds`, a guess from there."""
        held = range(min(self.holds, self.max_delay + 1))
        known = [self.certain(self.ago(read, d)) for d in held]
        guesses = [self.guess(self.ago(read, 0))] * (self.max_delay + 1 - len(known))
        return torch.stack(known + guesses, 2)


class Convolution(KnownModel):
    """Causal convolutions of kernel 2 whose every channel is one letter at one lag.

    Two a level, dilation 2^level (the stack of Bai et al. 2018, arXiv:1803.01271): receptive field
    1 + 2·(2^levels − 1) steps, all of which its linear read-outs can name. No level: no memory.
    """

    def __init__(self, levels: int, **sizes: Any) -> None:
        super().__init__(2 * (2**levels - 1), **sizes)
        n, lags = len(self.alphabet), [0]
        self.layers = nn.ModuleList()
        for dilation in [2 ** (i // 2) for i in range(2 * levels)]:
            reached = sorted({*lags, *(lag + dilation for lag in lags)})
            layer = nn.Conv1d(len(lags) * n, len(reached) * n, 2, dilation=dilation, bias=False)
            nn.init.zeros_(layer.weight)
            for out, lag in enumerate(reached):
                tap, source = (1, lag) if lag in lags else (0, lag - dilation)
                at = lags.index(source)
                block = layer.weight.data[out * n : (out + 1) * n, at * n : (at + 1) * n, tap]
                nn.init.eye_(block)
            self.layers.append(layer)
            lags = reached
        delays = self.max_delay + 1
        self.readouts = nn.Linear(len(lags) * n, delays * (n + 1))
        nn.init.zeros_(self.readouts.weight)
        weight = self.readouts.weight.data.view(delays, n + 1, len(lags), n)
        # Blank where no letter of that lag speaks up; never blank where the lag is out of reach.
        bias = torch.zeros(delays, n + 1)
        bias[:, 0] = -_FIRM
        for lag in range(min(len(lags), delays)):
            weight[lag, 1:, lag] = _FIRM * torch.eye(n)
            bias[lag, 0] = _FIRM / 2
        self.readouts.bias.data = bias.flatten()

    def say(self, read: Tensor) -> Tensor:
        """Through the layers, which take the `reach` oldest steps away, to the read-outs."""
        letters = F.one_hot(read, len(self.alphabet) + 1)[..., 1:]
        y = letters.mT.to(self.readouts.weight.dtype)  # (batch, letter, reach + time)
        for layer in self.layers:
            y = layer(y)
        logits: Tensor = self.readouts(y.mT)
        return logits.view(
            *logits.shape[:2], self.max_delay + 1, -1
        )  # (batch, time, delay, symbol)


class Forgetful(KnownModel):
    """Right with probability `recalls[d]` at delay d, else any wrong letter; blanks it knows.

    It says how sure it is: that probability on its answer, the rest shared by the other letters.
    """

    def __init__(self, recalls: Iterable[float], seed: int, **sizes: Any) -> None:
        chances = torch.tensor(list(recalls), dtype=torch.double)
        super().__init__(len(chances) - 1, len(chances) - 1, **sizes)
        self.recalls = chances
        self.generator = generator(Purpose.SELFTEST, seed)

    def say(self, read: Tensor) -> Tensor:
        """A draw for each answer."""
        n = len(self.alphabet)
        seen = torch.stack([self.ago(read, d) for d in range(self.max_delay + 1)], 2)
        wrong_by = torch.randint(1, n, seen.shape, generator=self.generator)
        keeps = torch.rand(seen.shape, generator=self.generator) < self.recalls
        said = torch.where(keeps, seen, (seen - 1 + wrong_by) % n + 1)
        sure = self.recalls[:, None].expand(*seen.shape, n + 1)
        other = ((1 - sure) / (n - 1)).clamp(min=math.exp(-_FIRM))
        letters = torch.where(F.one_hot(said, n + 1) > 0, sure, other).log()
        letters[..., 0] = -_FIRM
        return torch.where((seen > 0)[..., None], letters, self.certain(seen))

    def bits(self) -> list[tuple[float, float]]:
        """At each delay, log2 N − cross-entropy in bits, and the deviation of one answer's."""
        n, known = len(self.alphabet), []
        for p in self.recalls.tolist():
            right, wrong = math.log2(p), math.log2(max(1 - p, 1e-30) / (n - 1))
            entropy = -p * right - (1 - p) * wrong
            known.append((math.log2(n) - entropy, math.sqrt(p * (1 - p)) * (right - wrong)))
        return known


class LinearCore(nn.Module):
    """x_t = a x_{t−1} + b u_t, in float64: a linear reservoir of one input.

    `a (nodes, nodes)`, `b (nodes,)`. Most known answers about memory capacity are about these.
    """

    a: Tensor
    b: Tensor
    input_size = 1
    batch_dim = 0

    def __init__(self, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.register_buffer("a", a.double())
        self.register_buffer("b", b.double())
        self.hidden_size = len(b)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Input `(batch, time, 1)` to states `(batch, time, nodes)` and the last of them."""
        h = x.new_zeros(len(x), self.hidden_size) if state is None else state
        states = []
        for driven in (x * self.b).unbind(1):
            h = torch.addmm(driven, h, self.a.T)
            states.append(h)
        return torch.stack(states, 1), h


def ring(nodes: int, weight: float) -> LinearCore:
    """Node i feeds node i + 1 with `weight`, the last the first, which reads the input.

    Capacity at lag i + m·nodes, 0 ≤ i < nodes: weight^(2·m·nodes) · (1 − weight^(2·nodes)).
    """
    first = torch.zeros(nodes)
    first[0] = 1
    return LinearCore(weight * torch.eye(nodes, dtype=torch.double).roll(1, 0), first)


def delay_line(nodes: int) -> LinearCore:
    """A ring of weight 1, cut open: capacity 1 at lags 0 to `nodes` − 1, then 0."""
    core = ring(nodes, 1.0)
    core.a[0] = 0
    return core


def leaky_integrator(keeps: float) -> LinearCore:
    """One node, x_t = keeps · x_{t−1} + u_t: capacity (1 − keeps²) · keeps^(2d) at lag d."""
    return LinearCore(torch.tensor([[keeps]], dtype=torch.double), torch.ones(1))


class Momentary(nn.Module):
    """Nonlinear functions of the input just read: no capacity at any lag from 1 up."""

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Input `(batch, time, 1)` to `(batch, time, 4)`."""
        return torch.cat([x.square(), x.tanh(), (3 * x).sin(), x.abs().sqrt()], -1), None


def selftest(seed: int = 0, trials: int = 20_000) -> SelfTest:
    """Measure everything here, with `trials` answers at each delay of each model."""
    seed, trials = check_seed(seed), whole("trials", trials, 1)
    start = time.perf_counter()
    with standard_modes():
        answers = tuple(known_answers(seed, trials))
    return SelfTest(answers, seed, time.perf_counter() - start)


def known_answers(seed: int = 0, trials: int = 20_000) -> Iterator[KnownAnswer]:
    """The known answers one by one, as they are measured."""
    reach = 1 + 2 * (2**3 - 1)
    holders: list[tuple[str, KnownModel, int]] = [
        ("oracle", DelayLine(_MAX_DELAY + 1), _MAX_DELAY + 1),
        ("delay line of 9", DelayLine(9), 9),
        (f"convolution over {reach} steps", Convolution(3), reach),
        ("net without memory", Convolution(0), 1),
    ]
    for name, model, holds in holders:
        yield from _holder(name, model, holds, seed, trials)
    yield from _forgetful(Forgetful((1, 0.95, 0.9, 0.7, 0.5, 0.3), seed), seed, trials)
    yield from _capacities(seed)


def _holder(
    name: str, model: KnownModel, holds: int, seed: int, trials: int
) -> Iterator[KnownAnswer]:
    """A model that is certain of the last `holds` symbols and guesses beyond."""
    n, delays = len(model.alphabet), model.max_delay + 1
    result = evaluate(cast(EchoModel, model), trials=trials, seed=seed)
    fact = f"it holds {holds}, the newest is delay 0"
    yield KnownAnswer(f"{name}: span", fact, holds - 1, result.span(), 0)
    held = [_share(1.0, d.correct, d.trials) for d in result.delays[:holds]]
    yield _worst(f"{name}: recall at delays 0..{holds - 1}", "what it holds it says", held)
    if holds < delays:
        guessed = [_share(1 / n, d.correct, d.trials) for d in result.delays[holds:]]
        what = f"{name}: recall at delays {holds}..{delays - 1}"
        yield _worst(what, f"a guess among {n} letters", guessed)
    bits = [(math.log2(n) * (d.delay < holds), d.bits, 1e-4) for d in result.delays]
    yield _worst(f"{name}: bits", f"log2 {n} where it holds, 0 where it guesses", bits)
    # Of the d blanks due at delay d it knows those of the delays it holds.
    blank = holds * (holds - 1) / (delays * (delays - 1))
    measured = -1.0 if result.blank_accuracy is None else result.blank_accuracy
    yield KnownAnswer(f"{name}: blanks", "blank where it holds none", blank, measured, 1e-12)
    answered, errors = stream_errors(cast(EchoModel, model), trials, seed=seed)
    shares = [_share(0.0 if d < holds else 1 - 1 / n, e, answered) for d, e in enumerate(errors)]
    yield _worst(f"{name}: errors in a stream", "as its recall, with no end", shares)


def _forgetful(model: Forgetful, seed: int, trials: int) -> Iterator[KnownAnswer]:
    """A model that is right with a known probability."""
    result = evaluate(cast(EchoModel, model), trials=trials, seed=seed)
    wanted = model.recalls.tolist()
    shares = [_share(p, d.correct, d.trials) for p, d in zip(wanted, result.delays, strict=True)]
    yield _worst("forgetful: recall", "right with a probability that was set", shares)
    off = math.sqrt(2) * float(torch.erfinv(torch.tensor(_SURE, dtype=torch.double)))
    bits = [
        (known, d.bits, off * deviation / math.sqrt(d.trials) + 1e-4)
        for (known, deviation), d in zip(model.bits(), result.delays, strict=True)
    ]
    yield _worst("forgetful: bits", "log2 N less the entropy of what it says", bits)
    span = sum(p >= 0.99 for p in wanted) - 1
    yield KnownAnswer("forgetful: span", "from where it forgets", span, result.span(), 0)
    known = "it knows every blank"
    measured = -1.0 if result.blank_accuracy is None else result.blank_accuracy
    yield KnownAnswer("forgetful: blanks", known, 1.0, measured, 1e-12)
    answered, errors = stream_errors(cast(EchoModel, model), trials, seed=seed)
    shares = [_share(1 - p, e, answered) for p, e in zip(wanted, errors, strict=True)]
    yield _worst("forgetful: errors in a stream", "wrong with the rest", shares)


def _capacities(seed: int) -> Iterator[KnownAnswer]:
    """Linear memory capacity of systems with a closed form."""
    for weight in (0.5, 0.9):
        core = ring(20, weight)
        c = memory_capacity(core, 40, steps=100_000, seed=seed)
        fact = "19 + weight^40 over lags 1..40 (Jaeger 2001)"
        name = f"ring of 20, weight {weight}"
        yield KnownAnswer(f"{name}: capacity", fact, 19 + weight**40, c.total, 0.05)
        rank = controllability_rank(core.a, core.b)
        yield KnownAnswer(f"{name}: rank", "every node is reached", 20, rank, 0)
    keeps = 0.9
    lags = [(1 - keeps**2) * keeps ** (2 * d) for d in range(21)]
    yield from _by_lag("leaky integrator of 0.9", leaky_integrator(keeps), lags, seed)
    yield from _by_lag("linear delay line of 9", delay_line(9), [1.0] * 9 + [0.0] * 12, seed)
    c = memory_capacity(Momentary(), 20, confidence=_SURE, seed=seed)
    yield _total("nonlinear net without memory", "it sees one step", 0.0, c)


def _by_lag(name: str, core: LinearCore, lags: list[float], seed: int) -> Iterator[KnownAnswer]:
    c = memory_capacity(core, len(lags) - 1, steps=100_000, confidence=_SURE, seed=seed)
    each = [
        (known, value, max(high - value, value - low))  # one end may be cut off at 0 or 1
        for known, value, low, high in zip(lags, c.values, c.low, c.high, strict=True)
    ]
    yield _worst(f"{name}: capacity by lag", "its closed form", each)
    yield _total(name, "the sum of its closed form", sum(lags[1:]), c)


def _total(name: str, fact: str, known: float, c: Capacity) -> KnownAnswer:
    allowed = max(c.total_high - c.total, c.total - c.total_low)
    return KnownAnswer(f"{name}: capacity", fact, known, c.total, allowed)


def _share(known: float, right: int, trials: int) -> tuple[float, float, float]:
    """What is known of a share, what was measured, and how far its Wilson interval lets it off."""
    low, high = wilson(right, trials, _SURE)
    share = right / trials if trials else math.nan
    return known, share, high - share if known > share else share - low


def _worst(name: str, fact: str, each: list[tuple[float, float, float]]) -> KnownAnswer:
    """Of several figures, `(known, measured, allowed)`, the one that is furthest out."""

    def out(figure: tuple[float, float, float]) -> float:
        off, allowed = abs(figure[1] - figure[0]), figure[2]
        return off / allowed if allowed > 0 else math.inf if off else 0.0

    known, measured, allowed = max(each, key=out)
    return KnownAnswer(name, fact, known, measured, allowed)
