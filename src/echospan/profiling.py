"""One layer, one budget: what it learns, stores and reads, how far back, and at what cost.

    profile = echospan.profile(MyLayer(64), max_delay=16, seconds=45)
    print(profile)
    profile.plot()

The layer is trained end to end with one read-out per delay; then it is asked. *Learns* is what that
model recalls; *reads* what a linear probe finds in its frozen output; *stores* what a small MLP
finds in output and state. They tell whether a core cannot keep, cannot be read, or was not trained
far enough.
"""

import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from echospan import json_fields
from echospan.cores import copy_module
from echospan.devices import standard_modes
from echospan.errors import (
    MAKER,
    CoreError,
    DivergenceError,
    EchospanError,
    SettingError,
    by_caller,
    first_line,
)
from echospan.evaluation import LENGTHS, evaluate_span, length_recall, measure, versions
from echospan.json_fields import integer, number, numbers, string
from echospan.layers import (
    DEFAULT_HIDDEN,
    Layer,
    carried_windows,
    default_hidden,
    name_of,
    sizes_of,
    takes_length,
    trusted,
)
from echospan.model import EchoModel
from echospan.probes import gradient, microseconds, probe, probed_span
from echospan.random_streams import Purpose, check_seed, generator
from echospan.recipes import ModelConfig, Recipe, TrainingConfig
from echospan.tasks import EchoTask
from echospan.text import shown
from echospan.training import Progress, TrainingResult, train
from echospan.validation import (
    function,
    kind,
    not_allowed,
    positive,
    several,
    share,
    text,
    whole,
)

RATES = {"attention": 3e-3, "tcn": 3e-3, "rnn": 3e-3, "lru": 5e-3, "gru": 7e-3}
"""Adam's rate for those of our cores that do not take 1e-2 well."""

PILOTS = (1e-2, 3e-3, 1e-3)
"""Rates that a layer of one's own is tried at, each for a short while, where none is given."""


@dataclass(frozen=True)
class DelayProfile:
    """Recall at one delay; the interval stays valid however often one looked."""

    delay: int
    trials: int
    correct: int
    low: float
    high: float
    bits: float

    @property
    def recall(self) -> float:
        """Share of correct answers where there was something to say."""
        return self.correct / self.trials


@dataclass(frozen=True)
class SeedProfile:
    """What one seed gave."""

    seed: int
    delays: tuple[DelayProfile, ...]
    span: int
    """Largest D whose recall is sure to be at the threshold at every d ≤ D; −1 for none."""
    span_at_most: int
    """Largest D that the trials do not rule out."""
    reads: int
    """Span of a linear probe on the frozen output."""
    stores: int
    """Span of a small MLP on the frozen output and state."""
    reads_recall: tuple[float, ...]
    stores_recall: tuple[float, ...]
    blank_accuracy: float | None
    lengths: tuple[tuple[int, tuple[float, ...]], ...]
    """Length of the sequence, 1 to 10 times the training window, and recall by delay."""
    gradient: tuple[float, ...]
    """|∂y_t/∂x_{t−d}| by d, as a share of the largest."""
    rising: bool
    """Whether recall was still rising when the budget ended: "not yet" is not "cannot"."""
    learning_rate: float
    steps: int
    symbols: int
    seconds: float = field(compare=False)
    microseconds: float | None = field(compare=False)
    """Of one streamed symbol, one at a time, the median; None where no state can be carried."""
    curve: tuple[tuple[int, float, int], ...] = ()
    """Symbols read, mean recall and span at some of the looks during training."""
    symbols_to_target: int | None = None
    """Read until recall at every delay was at the threshold, by the lower end of an interval."""
    seconds_to_target: float | None = field(default=None, compare=False)
    """Of training, until then; None where it was not reached."""

    @property
    def recalled_bits(self) -> float:
        """Sum over the delays: a lower bound on what the hidden state says of the past."""
        return sum(d.bits for d in self.delays)

    @property
    def gradient_horizon(self) -> int:
        """Largest delay at which the gradient is a hundredth of its largest or more."""
        return max((d for d, g in enumerate(self.gradient) if g >= 0.01), default=-1)


@dataclass(frozen=True)
class Profile:
    """What a layer remembers, over its seeds. Prints as a table; `plot()` draws recall by delay."""

    name: str
    symbols: int
    """Different symbols of the alphabet."""
    max_delay: int
    at: float
    """The recall that the spans ask for."""
    features: int
    hidden: int
    parameters: int
    """Numbers of the core that are trained."""
    state: int | None
    """Numbers carried from step to step, after twice the longest delay; None where no state can be
    carried."""
    seeds: tuple[SeedProfile, ...]
    settings: dict[str, Any]
    versions: dict[str, str]
    threads: int
    reread_inputs: int | None = None
    """Where no state can be carried: how many past inputs are read again at each step instead. They
    are kept outside the layer, and neither they nor the time that they take are counted. None for a
    layer that is carried by its state, or needs none."""
    note: str = ""
    """What a reader should know of how the layer is carried; empty for most."""

    def _middle(self, name: str) -> int:
        return int(statistics.median_low(getattr(s, name) for s in self.seeds))

    @property
    def span(self) -> int:
        """The median over the seeds (the lower one of two)."""
        return self._middle("span")

    @property
    def reads(self) -> int:
        """Span of the linear probe, the median over the seeds."""
        return self._middle("reads")

    @property
    def stores(self) -> int:
        """Span of the MLP probe, the median over the seeds."""
        return self._middle("stores")

    @property
    def span_interval(self) -> tuple[int, int]:
        """From the lowest seed's sure span to the highest that the trials of a seed allow."""
        return min(s.span for s in self.seeds), max(s.span_at_most for s in self.seeds)

    @property
    def rising(self) -> bool:
        """Whether recall was still rising in any seed when the budget ended."""
        return any(s.rising for s in self.seeds)

    @property
    def recall(self) -> tuple[float, ...]:
        """By delay, the mean over the seeds."""
        return tuple(
            statistics.fmean(s.delays[d].recall for s in self.seeds)
            for d in range(self.max_delay + 1)
        )

    @property
    def band(self) -> tuple[tuple[float, float], ...]:
        """By delay, from the lowest interval's end over the seeds to the highest."""
        return tuple(
            (min(s.delays[d].low for s in self.seeds), max(s.delays[d].high for s in self.seeds))
            for d in range(self.max_delay + 1)
        )

    @property
    def recalled_bits(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(s.recalled_bits for s in self.seeds)

    @property
    def bits_asked(self) -> float:
        """The hard limit that the question sets: (max_delay + 1) · log2 N."""
        return (self.max_delay + 1) * math.log2(self.symbols)

    @property
    def microseconds(self) -> float | None:
        """Of one streamed symbol, the median over the seeds; None where no state can be carried."""
        times = [s.microseconds for s in self.seeds if s.microseconds is not None]
        return statistics.median(times) if times else None

    @property
    def symbols_per_second(self) -> float:
        """Symbols read in training, a second."""
        return sum(s.symbols for s in self.seeds) / sum(s.seconds for s in self.seeds)

    @property
    def verdict(self) -> str:
        """One sentence: the span, how sure it is, whether it may yet grow, and the note."""
        low, high = self.span_interval
        between = f"between {low} and {high}"
        sure = f", 95 % {between}" if len(self.seeds) == 1 else f", its seeds' intervals {between}"
        sure = "" if low == high == self.span else sure
        end = " (all that was asked)" if self.span == self.max_delay else ""
        rising = ", recall still rising" if self.rising else ""
        return f"span {self.span}{end}{sure}{rising}" + (f"; {self.note}" if self.note else "")

    def to_json(self) -> str:
        """All of it, without loss."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Profile":
        """Return the profile that `to_json` wrote, every field checked for type and range.

        Raises SettingError, naming the field, for anything that `to_json` does not write: other
        fields, numbers out of their range or not finite, delays that are not 0 to `max_delay`.
        """
        try:
            return _profile(json_fields.document(text))
        except (ValueError, TypeError) as e:
            raise SettingError(
                f"this is no profile of echospan ({e})", "give what Profile.to_json wrote"
            ) from None

    def plot(self) -> Any:
        """A matplotlib figure: recall against delay, chance drawn, a band over the seeds."""
        from echospan.plots import profile_plot

        return profile_plot([self])

    def row(self) -> dict[str, str]:
        """The figures of a table's line, by their headings."""
        low, high = self.span_interval
        return {
            "core": self.name,
            "hidden": f"{self.hidden:,}",
            "params": f"{self.parameters:,}",
            "state": "–" if self.state is None else f"{self.state:,}",
            "span": f"{self.span}"
            + (f" ({low}–{high})" if (low, high) != (self.span,) * 2 else ""),
            "reads": str(self.reads),
            "stores": str(self.stores),
            "bits": f"{self.recalled_bits:.1f}",
            "/state": f"{self.recalled_bits / self.state:.2f}" if self.state else "–",
            "grad": str(statistics.median_low(s.gradient_horizon for s in self.seeds)),
            "k/s": f"{self.symbols_per_second / 1000:,.0f}",
            "µs": "–" if self.microseconds is None else f"{self.microseconds:.0f}",
            "": "rising" if self.rising else "",
        }

    @property
    def longest_recall(self) -> tuple[int, float] | None:
        """Symbols of the longest sequences that were measured in every seed, and the mean recall.

        They are up to ten times as long as those of training; None where time allowed for none.
        """
        common = set.intersection(*({n for n, _ in s.lengths} for s in self.seeds))
        if not common:
            return None
        longest = max(common)
        return longest, statistics.fmean(
            statistics.fmean(dict(s.lengths)[longest]) for s in self.seeds
        )

    def __str__(self) -> str:
        row = self.row()
        per_state = f" ({row['/state']} for each number of state)" if self.state else ""
        lines = [
            f"{self.name}: {self.verdict}",
            f"spans at {self.at:.4g} recall: learns {self.span}, reads {self.reads}, stores "
            f"{self.stores}, of delays 0 to {self.max_delay}",
            f"recalled bits: {self.recalled_bits:.1f} of {self.bits_asked:.1f}{per_state}",
            f"gradient: reaches back to delay {row['grad']}",
            f"mean recall: {statistics.fmean(self.recall):.1%}",
            f"size: hidden {row['hidden']}, {row['params']} numbers trained, "
            + ("no state carried" if self.state is None else f"{row['state']} carried"),
            f"cost: {row['k/s']} thousand symbols a second in training"
            + ("" if self.microseconds is None else f", {row['µs']} µs a streamed symbol"),
        ]
        if self.longest_recall:
            length, recall = self.longest_recall
            times = length / self.settings["window"]
            lines[4] += f"; {recall:.1%} in sequences {times:.0f} times as long as in training"
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        row = self.row()
        cells = "".join(f"<td>{escape(v)}</td>" for v in row.values())
        heads = "".join(f"<th>{escape(k)}</th>" for k in row)
        by_delay = "".join(
            f"<tr><td>{d}</td><td>{r:.2%}</td><td>{low:.2%} – {high:.2%}</td></tr>"
            for d, (r, (low, high)) in enumerate(zip(self.recall, self.band, strict=True))
        )
        return (
            f"<p>{escape(self.name)}: {escape(self.verdict)}</p>"
            f"<table><tr>{heads}</tr><tr>{cells}</tr></table>"
            f"<table><tr><th>delay</th><th>recall</th><th>interval</th></tr>{by_delay}</table>"
        )


def _profile(value: Any) -> Profile:
    """Return the profile of a JSON object; ValueError names the first field that does not fit."""
    fields = json_fields.members(
        value, _PROFILE_FIELDS - _LATER_PROFILE_FIELDS, _LATER_PROFILE_FIELDS
    )
    again, state = fields.get("reread_inputs"), fields["state"]
    if (state is None) != (again is not None):
        raise ValueError("one of state and reread_inputs is null, and not both or none")
    symbols = integer(fields["symbols"], "symbols", 2)
    max_delay = integer(fields["max_delay"], "max_delay", 0)
    seeds = []
    for i, seed in enumerate(json_fields.listed(fields["seeds"], "seeds", _MOST_SEEDS)):
        try:
            seeds.append(_seed_profile(seed, max_delay, symbols))
            if (seeds[-1].microseconds is None) != (state is None):
                raise ValueError("microseconds is null where state is not, or the reverse")
        except ValueError as e:
            raise ValueError(f"seeds[{i}]: {e}") from None
    if not seeds or len({seed.seed for seed in seeds}) < len(seeds):
        raise ValueError("its seeds are not one or more, each once")
    versions = _any_names(fields["versions"])
    return Profile(
        name=string(fields["name"], "name"),
        symbols=symbols,
        max_delay=max_delay,
        at=number(fields["at"], "at", 1e-9, 1 - 1e-9),
        features=integer(fields["features"], "features", 1),
        hidden=integer(fields["hidden"], "hidden", 1),
        parameters=integer(fields["parameters"], "parameters", 0),
        state=None if state is None else integer(state, "state", 0),
        reread_inputs=None if again is None else integer(again, "reread_inputs", 1),
        note=string(fields.get("note", ""), "note"),
        seeds=tuple(seeds),
        settings=_settings(fields["settings"]),
        versions={string(k, "versions"): string(v, "versions") for k, v in versions.items()},
        threads=integer(fields["threads"], "threads", 1),
    )


_MOST_SEEDS = 10_000
_MOST_SETTINGS = 100
_LONGEST_SECONDS = 1e12
_BITS_ROUNDING = 1e-3
"""The cross-entropy is a sum of float32 numbers: bits may exceed log2 N by its rounding."""


def _seed_profile(value: Any, max_delay: int, symbols: int) -> SeedProfile:
    fields = json_fields.members(value, _SEED_FIELDS - _LATER_FIELDS, _LATER_FIELDS)
    count = max_delay + 1
    most_bits = math.log2(symbols) + _BITS_ROUNDING
    delays = json_fields.listed(fields["delays"], "delays", count)
    if len(delays) < count:
        raise ValueError(f"delays has {len(delays):,} entries, and max_delay is {max_delay:,}")
    blanks, to_target = fields["blank_accuracy"], fields.get("seconds_to_target")
    symbols_to_target = fields.get("symbols_to_target")
    if (to_target is None) != (symbols_to_target is None):
        raise ValueError("one of seconds_to_target and symbols_to_target is missing")
    span = integer(fields["span"], "span", -1, max_delay)
    return SeedProfile(
        seed=integer(fields["seed"], "seed", -(2**63), 2**64 - 1),
        delays=tuple([_delay_profile(d, i, most_bits) for i, d in enumerate(delays)]),
        span=span,
        span_at_most=integer(fields["span_at_most"], "span_at_most", span, max_delay),
        reads=integer(fields["reads"], "reads", -1, max_delay),
        stores=integer(fields["stores"], "stores", -1, max_delay),
        reads_recall=numbers(fields["reads_recall"], "reads_recall", 0, 1, count),
        stores_recall=numbers(fields["stores_recall"], "stores_recall", 0, 1, count),
        blank_accuracy=None if blanks is None else number(blanks, "blank_accuracy", 0, 1),
        lengths=tuple(
            [
                (integer(length, "lengths", 1), numbers(recall, "lengths", 0, 1, count))
                for length, recall in _tuples(fields["lengths"], "lengths", 2)
            ]
        ),
        gradient=numbers(fields["gradient"], "gradient", 0, 1, count),
        rising=json_fields.flag(fields["rising"], "rising"),
        learning_rate=number(fields["learning_rate"], "learning_rate", 0, 1e9),
        steps=integer(fields["steps"], "steps", 0),
        symbols=integer(fields["symbols"], "symbols", 0),
        seconds=number(fields["seconds"], "seconds", 1e-9, _LONGEST_SECONDS),
        microseconds=None
        if fields["microseconds"] is None
        else number(fields["microseconds"], "microseconds", 1e-9, _LONGEST_SECONDS),
        curve=tuple(
            [
                (
                    integer(n, "curve", 0),
                    number(recall, "curve", 0, 1),
                    integer(span, "curve", -1, max_delay),
                )
                for n, recall, span in _tuples(fields.get("curve", []), "curve", 3)
            ]
        ),
        symbols_to_target=None
        if symbols_to_target is None
        else integer(symbols_to_target, "symbols_to_target", 0),
        seconds_to_target=None
        if to_target is None
        else number(to_target, "seconds_to_target", 0, _LONGEST_SECONDS),
    )


def _delay_profile(value: Any, delay: int, most_bits: float) -> DelayProfile:
    try:
        fields = json_fields.members(value, _DELAY_FIELDS)
        trials = integer(fields["trials"], "trials", 1)
        low = number(fields["low"], "low", 0, 1)
        return DelayProfile(
            delay=integer(fields["delay"], "delay", delay, delay),
            trials=trials,
            correct=integer(fields["correct"], "correct", 0, trials),
            low=low,
            high=number(fields["high"], "high", low, 1),
            bits=number(fields["bits"], "bits", 0, most_bits),
        )
    except ValueError as e:
        raise ValueError(f"delays[{delay}]: {e}") from None


def _tuples(value: Any, name: str, width: int) -> list[list[Any]]:
    items = json_fields.listed(value, name, 1_000)
    if not all(type(item) is list and len(item) == width for item in items):
        raise ValueError(f"{name} does not hold lists of {width}")
    return items


def _settings(value: Any) -> dict[str, Any]:
    """Return settings of any names; each is a text, a number, true, false, null or a list of them.

    They are not read but shown: their names may change from version to version.
    """
    settings = _any_names(value)
    for name, setting in settings.items():
        string(name, "settings")
        several = type(setting) is list
        for item in json_fields.listed(setting, "settings", 100) if several else [setting]:
            if type(item) is str:
                string(item, "settings")
            elif item is not None and type(item) is not bool:
                number(item, "settings", -1e18, 1e18)
    return settings


def _any_names(value: Any) -> dict[str, Any]:
    if type(value) is not dict or len(value) > _MOST_SETTINGS:
        raise ValueError(f"{shown(value)} is no object of at most {_MOST_SETTINGS} names")
    return value


_PROFILE_FIELDS = frozenset(Profile.__dataclass_fields__)
_SEED_FIELDS = frozenset(SeedProfile.__dataclass_fields__)
_DELAY_FIELDS = frozenset(DelayProfile.__dataclass_fields__)
_LATER_PROFILE_FIELDS = frozenset(("reread_inputs", "note"))
_LATER_FIELDS = frozenset(("curve", "symbols_to_target", "seconds_to_target"))
"""Fields that the profiles in docs/ do not all have."""


def combine(profiles: Sequence[Profile]) -> Profile:
    """Profiles of one layer at several seeds, as one.

    Raises SettingError where they do not ask the same of the same, or a seed comes twice.
    """
    profiles = [
        kind("profiles", p, Profile, "a list of what echospan.profile returns")
        for p in several("profiles", profiles, "profiles")
    ]
    first = profiles[0]
    seeds = [s.seed for p in profiles for s in p.seeds]
    if len(set(seeds)) < len(seeds):
        raise SettingError(
            f"the seeds {sorted(seeds)} are not all different", "combine each run once"
        )
    for other in profiles[1:]:
        if replace(other, seeds=first.seeds, versions=first.versions) != first:
            raise SettingError(
                f"the profiles of {first.name} and {other.name} differ in more than their seeds",
                "combine those of one layer, size and setting",
            )
    return replace(first, seeds=tuple(s for p in profiles for s in p.seeds))


def profile(
    layer: Layer,
    max_delay: int = 16,
    *,
    seconds: float = 45.0,
    symbols: int | None = None,
    hidden: int | None = None,
    features: int | None = None,
    seeds: Sequence[int] = (0,),
    learning_rates: Sequence[float] | None = None,
    alphabet: str = "letters",
    at: float = 0.99,
    name: str | None = None,
    batch: int = 32,
    on_progress: Callable[[str, Progress], None] | None = None,
    on_model: Callable[[int, EchoModel], None] | None = None,
) -> Profile:
    """Train and measure a layer within a budget.

    Several `learning_rates` are each tried a short while; the best one has the rest of the budget,
    and the figures come from fresh data.

    Args:
        layer: an `nn.Module` that maps `(batch, time, features)` to `(batch, time, hidden)`, with
            or without a state; or a class or factory of such, whose widths are set by the names of
            its arguments (`echospan.sizing.build`); or the name of one of `CORES`. A module serves
            one seed and is not changed: a copy is trained.
        max_delay: the longest delay that is asked, from 0.
        seconds: the time of each seed: training, probes and evaluation share it.
        symbols: symbols of training instead of seconds: the same work on every machine, and
            figures that repeat to the last digit.
        hidden: the width of the layer. Where it is left out, a class or factory keeps the default
            of its own argument; 128 where that has none and for `CORES`, but for the `delay_line`
            what holds all that is asked.
        features: the width of the input, where the layer does not say.
        seeds: each is trained and measured anew.
        learning_rates: Adam's rates to try; by default one for `CORES`, three for other layers.
        alphabet: letters, letters-digits, bits, or any string of distinct characters.
        at: the recall that the spans ask for, between 0 and 1.
        name: what the layer is called in the result; its own name where left out.
        batch: sequences of a training step.
        on_progress: called with the name and the progress of its training.
        on_model: called with each seed and its trained model.

    Raises:
        CoreError: the layer cannot be built or cannot be a core, or fails on the way.
        CheckError: it sees the future, mixes rows or loses its state.
        SettingError: a setting out of its range, as a budget of nothing, or a width that the layer
            cannot have.
        DivergenceError: its loss is no longer a number at any of the rates.
    """
    max_delay, batch = whole("max_delay", max_delay), whole("batch", batch, 1)
    seconds, at = positive("seconds", seconds), share("at", at)
    symbols, hidden, features = (
        None if value is None else whole(option_name, value, 1)
        for option_name, value in (("symbols", symbols), ("hidden", hidden), ("features", features))
    )
    seeds = [check_seed(seed, "seeds") for seed in several("seeds", seeds, "whole numbers")]
    if len(set(seeds)) < len(seeds):
        raise not_allowed("seeds", seeds, "give each once")
    if learning_rates is not None:
        learning_rates = [
            positive("learning_rates", rate)
            for rate in several("learning_rates", learning_rates, "numbers above 0")
        ]
    if name is not None:
        name = text("name", name, "gru")
    function("on_progress", on_progress, "a name and its progress")
    function("on_model", on_model, "a seed and its model")
    if isinstance(layer, nn.Module) and len(seeds) > 1:
        raise SettingError(
            f"one {type(layer).__name__} cannot begin anew for {len(seeds)} seeds",
            MAKER,
        )
    config = ModelConfig(
        alphabet=alphabet,
        max_delay=max_delay,
        hidden=DEFAULT_HIDDEN if hidden is None else hidden,
    )
    characters = config.alphabet
    if hidden is None:
        hidden = default_hidden(layer, len(characters) + 1, max_delay)
    told = name or name_of(layer)
    key = layer if isinstance(layer, str) else ""
    default = PILOTS if not key else (RATES.get(key, 1e-2),)
    rates = default if learning_rates is None else tuple(learning_rates)
    runs, facts = [], {}
    for seed in seeds:
        start = time.perf_counter()
        with standard_modes(), _explained(told):
            core = trusted(layer, len(characters) + 1, hidden, features, seed)
            facts = sizes_of(core, max_delay)
            seed_config = replace(config, hidden=core.hidden_size)
            if not isinstance(layer, str):
                takes_length(core, told, LENGTHS[-1] * Recipe(model=seed_config).window)
            runs.append(
                _one_seed(
                    core,
                    seed_config,
                    seed=seed,
                    start=start,
                    seconds=seconds,
                    symbols=symbols,
                    rates=rates,
                    batch=batch,
                    at=at,
                    on_progress=None if on_progress is None else _named(on_progress, told),
                    on_model=on_model,
                )
            )
    return Profile(
        name=told,
        symbols=len(characters),
        max_delay=max_delay,
        at=at,
        **facts,
        seeds=tuple(runs),
        settings={
            "seconds": None if symbols else seconds,
            "symbols": symbols,
            "learning_rates": list(rates),
            "batch": batch,
            "window": Recipe(model=config).window,
            "optimiser": "Adam, betas 0.9 and 0.99, gradient norm at most 1",
        },
        versions=versions(),
        threads=torch.get_num_threads(),
    )


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what a layer raises on the way into one sentence, its own error as the cause."""
    try:
        yield
    except EchospanError:
        raise
    except Exception as e:
        raise CoreError(
            f"{name} raised {type(e).__name__} while it was trained and measured ({first_line(e)})",
            f"run {by_caller('echospan.check', 'echospan check')} on it, and look at the error "
            f"that this one was raised from{by_caller('', ', with --debug')}",
        ) from e


def _named(told: Callable[[str, Progress], None], name: str) -> Callable[[Progress], None]:
    return lambda progress: told(name, progress)


def _one_seed(
    core: nn.Module,
    config: ModelConfig,
    *,
    seed: int,
    start: float,
    seconds: float,
    symbols: int | None,
    rates: tuple[float, ...],
    batch: int,
    at: float,
    on_progress: Callable[[Progress], None] | None,
    on_model: Callable[[int, EchoModel], None] | None,
) -> SeedProfile:
    deadline = math.inf if symbols else start + seconds
    # Evaluation, probes and what goes by the way take the rest.
    share = max(0.6, 1 - 100 / seconds)
    training = TrainingConfig(
        seconds=1e9 if symbols else share * seconds,
        symbols=symbols,
        steps=10**9,
        target=0.998,
        polish=200,
        batch=batch,
        carry=0.5 if carried_windows(core, Recipe(model=config).window) else 0.0,
        learning_rate=rates[0],
        fall=0.4,
        asked_at_once=16 if config.max_delay > 64 else None,
        seed=seed,
    )

    def run(training: TrainingConfig) -> TrainingResult:
        recipe = Recipe(model=config, training=training)
        # However long the looks on the way took, time is left for what comes after.
        until = start + max(0.75, share) * (deadline - start)
        result = train(recipe, on_progress, copy_module(core), until)
        if result.interrupted:
            raise KeyboardInterrupt
        return result

    if len(rates) > 1:
        few: dict[str, Any] = {
            "seconds": 0.06 * training.seconds,
            "symbols": math.ceil(0.06 * symbols) if symbols else None,
            "fall": 0.0,
        }
        tried = {}
        for rate in rates:
            try:
                tried[rate] = _bits(run(replace(training, **few, learning_rate=rate)), seed)
            except DivergenceError:
                tried[rate] = -1.0
        left = 1 - 0.06 * len(rates)
        training = replace(
            training,
            seconds=left * training.seconds,
            symbols=math.ceil(left * symbols) if symbols else None,
            learning_rate=max(rates, key=tried.__getitem__),
        )
    result = run(training)
    model = result.model
    task = EchoTask(len(model.alphabet), model.max_delay)
    now = time.perf_counter()
    # Of what is left a third may go into each of: the trained read-outs, the probes, the rest.
    seen = evaluate_span(model, at, seed=seed, deadline=now + (deadline - now) / 3)
    reads, stores = probe(model, task, seed, time.perf_counter() + (deadline - now) / 3)
    if on_model is not None:
        on_model(seed, model)
    lengths = length_recall(
        model, Recipe(model=config).window, trials=2_000, seed=seed, deadline=deadline
    )
    there = next((p for p in result.history if p.evaluation.span(at) == model.max_delay), None)
    a_step = result.symbols // max(1, result.steps)
    return SeedProfile(
        seed=seed,
        delays=tuple(
            DelayProfile(d.delay, d.trials, d.correct, low, high, d.bits)
            for d, (low, high) in zip(seen.delays, seen.intervals, strict=True)
        ),
        span=seen.span,
        span_at_most=seen.span_at_most,
        # What was learnt is a linear read-out too, and an MLP can be one: the best of them counts.
        reads=max(seen.span, probed_span(reads, at)),
        stores=max(seen.span, probed_span(reads, at), probed_span(stores, at)),
        reads_recall=tuple(c / reads[0] for c in reads[1]),
        stores_recall=tuple(c / stores[0] for c in stores[1]),
        blank_accuracy=seen.blank_accuracy,
        lengths=tuple((m["length"], tuple(m["recall"])) for m in lengths),
        gradient=gradient(model, task, seed),
        rising=_rising(result.history),
        learning_rate=training.learning_rate,
        steps=result.steps,
        symbols=result.symbols,
        seconds=result.seconds,
        microseconds=microseconds(model),
        curve=tuple(
            (p.step * a_step, _mean_recall(p), p.evaluation.span(at))
            for p in _thinned(result.history)
        ),
        symbols_to_target=there.step * a_step if there else None,
        seconds_to_target=there.seconds if there else None,
    )


def _thinned(history: Sequence[Progress], points: int = 40) -> Sequence[Progress]:
    """Some looks, the last one among them, evenly spread."""
    if len(history) <= points:
        return history
    return [history[(i + 1) * len(history) // points - 1] for i in range(points)]


def _bits(result: TrainingResult, seed: int) -> float:
    return measure(result.model, generator(Purpose.RATE, seed), trials=2_000).recalled_bits


def _rising(history: Sequence[Progress]) -> bool:
    """Whether mean recall gained a hundredth or more over the last quarter of the steps.

    The rate falls to zero there: a little of what looks like an end is the schedule's.
    """
    if len(history) < 2:
        return not history or not history[-1].reached
    last = history[-1]
    before = [p for p in history if p.step <= 0.75 * last.step] or list(history[:1])
    return _mean_recall(last) - _mean_recall(before[-1]) >= 0.01


def _mean_recall(progress: Progress) -> float:
    return statistics.fmean(d.recall for d in progress.evaluation.delays)
