"""What is built, how it is trained, and the recipes that have a name. Imports no torch."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from echospan.alphabet import NAMED, alphabet
from echospan.errors import SettingError, option
from echospan.random_streams import check_seed
from echospan.validation import choice, fraction, kind, positive, share, text, whole

DECIDING = 50_000
"""Answers at every delay by which a training's target is decided, and by which it is reported."""


def sequences(max_delay: int, trials: int, length: int | None = None) -> tuple[int, int]:
    """Return how many sequences an evaluation reads, and of how many symbols each.

    Args:
        max_delay: The longest delay.
        trials: The least number of answers at every delay.
        length: Symbols of a sequence; default: twice the longest delay and 5 more.
    """
    steps = 2 * max_delay + 5 if length is None else length
    return -(-trials // (steps - max_delay)), steps


def highest_target(max_delay: int, trials: int) -> float:
    """Return the highest target that an evaluation can show, if all of its answers are right.

    That is the lower end of Wilson's 95 % interval of the answers at the longest delay, or of the
    blanks, of which short delays have few.
    """
    rows, steps = sequences(max_delay, trials)
    fewest = rows * (steps - max_delay)
    if max_delay:
        fewest = min(fewest, rows * max_delay * (max_delay + 1) // 2)
    return fewest / (fewest + 1.959964**2)


_Conditioning = Literal["readout", "input"]
_Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All that builds a model."""

    alphabet: str = NAMED["letters"]
    """Its symbols: letters, digits, letters-digits, bits, or any string of distinct characters."""
    core: str = "gru"
    """The part that remembers, one of those that echospan.CORES names."""
    hidden: int = 128
    """Width of what the read-outs see; a second layer was no better and took twice the time."""
    max_delay: int = 8
    """The longest delay it answers at; it answers at 0, 1, … up to this one."""
    delay: int | None = None
    """The one delay that the target is asked of; each of them where it is left out."""
    conditioning: _Conditioning = "readout"
    """readout: one linear read-out per delay; input: the delay is fed in beside each symbol."""

    def __post_init__(self) -> None:
        """Refuse sizes that build nothing."""
        max_delay = whole("max_delay", self.max_delay)
        checked: dict[str, object] = {
            "alphabet": alphabet(self.alphabet).characters,
            "core": text("core", self.core, "gru"),
            "hidden": whole("hidden", self.hidden, 1),
            "max_delay": max_delay,
            "conditioning": choice("conditioning", self.conditioning, get_args(_Conditioning)),
        }
        if self.delay is not None:
            checked["delay"] = delay = whole("delay", self.delay)
            checked["max_delay"] = max(delay, max_delay)
        _set(self, checked)

    @property
    def asked(self) -> tuple[int, ...]:
        """The delays that the target is asked of."""
        return tuple(range(self.max_delay + 1)) if self.delay is None else (self.delay,)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained: Adam, one recipe for all cores."""

    target: float = 0.99
    """Stop once the lower end of the 95 % interval is this, of recall at every delay asked for and
    of the blanks before the echo begins."""
    seconds: float = 600.0
    """Stop after this many seconds of training: the assignment allows ten minutes."""
    steps: int = 100_000
    """Stop after this many optimiser steps."""
    symbols: int | None = None
    """Stop after this many symbols, the same work on every machine; no limit where left out."""
    fall: float = 0.0
    """Share of the budget (seconds, steps or symbols, whichever ends first) in whose course the
    rate falls to zero: what a model reaches in a fixed time is reached with a rate that falls."""
    asked_at_once: int | None = None
    """Delays whose loss is taken in one step, drawn anew each time; all where left out. Many long
    delays cost more to ask than to remember."""
    polish: int = 0
    """Go on this many steps after recall has reached the target, the rate falling to zero: long
    streams need more than the target. Where blanks still fall short at the end, training goes on.
    Steps, not seconds, so that a seed decides the model on any machine's clock."""
    batch: int = 32
    """Sequences a step; small ones gave more progress per second on two cores."""
    window: int | None = None
    """Symbols of a sequence in one step; twice the longest delay and 4 more where left out."""
    carry: float = 0.5
    """Share of the rows that go on from the last window's hidden state: half of them made long
    streams sound and training faster."""
    learning_rate: float = 1e-2
    """Adam's rate at the start; it falls with the root of the loss once that is below 0.2 nats."""
    seed: int = 0
    """Decides weights and data; the same seed, machine and thread count give the same model."""
    device: str = "cpu"
    """Where it is trained: cpu, cuda, cuda:1, …; small models are fastest on the CPU."""
    precision: _Precision = "fp32"
    """bf16: products in bfloat16, weights and loss in float32; it pays for wide cores, on GPUs and
    on CPUs that have it."""

    def __post_init__(self) -> None:
        """Refuse a training that cannot run."""
        checked: dict[str, object] = {
            "target": share("target", self.target),
            "steps": whole("steps", self.steps, 1),
            "batch": whole("batch", self.batch, 1),
            "polish": whole("polish", self.polish),
            "seed": check_seed(self.seed),
            "device": text("device", self.device, "cpu"),
            "precision": choice("precision", self.precision, get_args(_Precision)),
        }
        for name in ("window", "symbols", "asked_at_once"):
            if getattr(self, name) is not None:
                checked[name] = whole(name, getattr(self, name), 1)
        checked |= {n: positive(n, getattr(self, n)) for n in ("seconds", "learning_rate")}
        checked |= {n: fraction(n, getattr(self, n)) for n in ("carry", "fall")}
        _refuse_unreachable(self.target, highest_target(0, DECIDING))
        _set(self, checked)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One model and its training."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        """Refuse what is no settings."""
        kind("model", self.model, ModelConfig, "an echospan.ModelConfig")
        kind("training", self.training, TrainingConfig, "an echospan.TrainingConfig")
        _refuse_unreachable(self.training.target, highest_target(self.model.max_delay, DECIDING))

    @property
    def window(self) -> int:
        """Symbols of a sequence in one training step."""
        return self.training.window or 2 * self.model.max_delay + 4


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of a training that ran in one place."""

    steps: int
    """The step at which it ended, counted from the beginning of the training."""
    versions: Mapping[str, str]
    """Of echospan, torch and python."""
    threads: int
    """Threads of PyTorch in each process."""
    processes: int = 1
    """Processes that trained together."""
    machine: str = ""
    """The processor, or the graphics card."""

    def same_place(self, other: "Part") -> bool:
        """Return whether all but the number of steps is equal."""
        return replace(self, steps=other.steps) == other


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a trained model came to be.

    Versions, threads, processes and machine are those of the last stretch of its training, which
    is all of it unless the training was resumed in another place.
    """

    training: TrainingConfig
    versions: Mapping[str, str]
    """Of echospan, torch and python."""
    threads: int
    """Threads of PyTorch in each process."""
    processes: int = 1
    """Processes that trained together."""
    machine: str = ""
    """The processor, or the graphics card."""
    earlier: tuple[Part, ...] = ()
    """The stretches before the last one, where they ran with other versions, threads, processes or
    on another machine."""
    repeatable: bool = False
    """Whether all of this again gives the same weights, bit for bit. It does not where the clock
    decided anything: the end of the training, its learning rate, or a signal; nor where the
    training ran in several places."""


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _refuse_unreachable(target: float, highest: float) -> None:
    if target > highest:
        raise SettingError(
            f"{option('target')} is {target}, which the {DECIDING:,} answers that decide cannot "
            "show even if all are right",
            f"use {math.floor(1e4 * highest) / 1e4} or less",
        )


def _set(settings: Any, checked: Mapping[str, object]) -> None:
    """Give a frozen dataclass its checked values, each in its plain type."""
    for name, value in checked.items():
        object.__setattr__(settings, name, value)


RECIPES = {
    "fixed": Recipe(
        model=ModelConfig(delay=4, max_delay=4, hidden=64),
        training=TrainingConfig(polish=3000, learning_rate=2e-2),
    ),
    "variable": Recipe(training=TrainingConfig(polish=2500, learning_rate=1.4e-2)),
    "bits": Recipe(
        # The notebook has 4 hidden units and never begins a new series. Such a network echoes a
        # long series and cannot begin one: 8 units and a new series every tenth window can.
        model=ModelConfig(alphabet="bits", delay=3, max_delay=3, hidden=8),
        training=TrainingConfig(batch=5, window=20, carry=0.9, polish=3000),
    ),
}
"""The assignment's two parts, and the binary echo of the notebook that it refers to."""

BY_INPUT = Recipe(
    model=ModelConfig(conditioning="input", hidden=192),
    training=TrainingConfig(window=30, learning_rate=6e-3),
)
"""`variable` with the delay fed in: one delay a row teaches less, so wider, longer, slower."""


def command(recipe: Recipe) -> str:
    """The `echospan train …` of a recipe, with its seed: the nearest named one, and flags."""
    starts = {f"train {name}": named for name, named in RECIPES.items()}
    starts["train variable --conditioning input"] = BY_INPUT
    told = {start: _flags(named, recipe) for start, named in starts.items()}
    start = min(told, key=lambda start: len(told[start]))
    flags = told[start] | {"seed": recipe.training.seed}
    words = []
    for name, value in flags.items():
        flag, said = _flag(name), str(value)
        words += [f"{flag}={said}"] if said.startswith("-") else [flag, said]
    return " ".join(["echospan", start, *map(shlex.quote, words)])


def _flags(named: Recipe, recipe: Recipe) -> dict[str, object]:
    one, other = (asdict(r.model) | asdict(r.training) for r in (named, recipe))
    return {name: value for name, value in other.items() if value != one[name]}
