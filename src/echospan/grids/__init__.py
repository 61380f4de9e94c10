"""Grids: which cells a bench runs. A cell is one core at one size, delay, budget and seed.

    [[grid]]
    cores = ["gru", "lru", "mylayers:Mine"]
    hidden = [32, 64, 128]
    seeds = [0, 1, 2]
    symbols = [2_000_000]

is a grid in TOML; every setting of `Grid` may stand in it, and several `[[grid]]` make one bench.
The grids that are shipped lie beside this file.
"""

import hashlib
import itertools
import json
import shlex
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from echospan import __version__
from echospan.alphabet import NAMED, alphabet
from echospan.errors import EchospanError, SettingError, nearest


@lru_cache
def _torch() -> str:
    return metadata.version("torch").partition("+")[0]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a bench: all that decides its result."""

    core: str
    """The name of one of ours, or `package.module:factory`."""
    hidden: int | None = None
    """Units; the core's own default where left out."""
    max_delay: int = 16
    seed: int = 0
    symbols: int | None = None
    """Symbols of training: the same figures on every machine of one kind."""
    seconds: float | None = None
    """All of a cell's time instead; exactly one of the two is given."""
    learning_rates: tuple[float, ...] | None = None
    batch: int = 32
    alphabet: str = NAMED["letters"]
    at: float = 0.99
    features: int | None = None
    """Width of a layer's input, where it does not say."""
    source: str = ""
    """Of a layer of one's own: a fingerprint of the file it stands in (not of what it imports)."""
    echospan: str = __version__
    torch: str = field(default_factory=_torch)

    def __post_init__(self) -> None:
        """Equal cells are written equally: 45 seconds are 45.0."""
        if self.seconds is not None:
            object.__setattr__(self, "seconds", float(self.seconds))
        if self.learning_rates is not None:
            object.__setattr__(self, "learning_rates", tuple(map(float, self.learning_rates)))

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that are the same for equal cells, always and everywhere."""
        return self.key_without()

    def key_without(self, *names: str) -> str:
        """As `key`, and the same for cells that differ in nothing but these."""
        told = {name: value for name, value in asdict(self).items() if name not in names}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """What a person calls it."""
        size = "" if self.hidden is None else f" {self.hidden}"
        budget = f"{self.symbols:,} symbols" if self.symbols else f"{self.seconds:g} s"
        return f"{self.core}{size}, delays 0 to {self.max_delay}, {budget}, seed {self.seed}"

    @property
    def command(self) -> str:
        """What runs it again, and it alone."""
        words: list[Any] = ["echospan", "bench", "--cores", self.core]
        for flag in ("hidden", "max_delay", "symbols", "seconds", "features"):
            value = getattr(self, flag)
            if value is not None:
                words += ["--" + flag.replace("_", "-"), value]
        if self.learning_rates is not None:
            words += ["--learning-rates", *self.learning_rates]
        for flag in ("batch", "alphabet", "at"):
            if getattr(self, flag) != _DEFAULTS[flag]:
                words += [f"--{flag}", getattr(self, flag)]
        return shlex.join(str(w) for w in [*words, "--seeds", self.seed])

    def to_json(self) -> str:
        """All of it, without loss."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Cell":
        """What `to_json` wrote, whatever version of ours wrote it."""
        told = json.loads(text)
        if told["learning_rates"] is not None:
            told["learning_rates"] = tuple(told["learning_rates"])
        return cls(**told)


_DEFAULTS = {f.name: f.default for f in fields(Cell)}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every combination of these is a cell."""

    cores: tuple[str, ...]
    """Names of our cores, or package.module:factory of yours (a class will do)."""
    hidden: tuple[int, ...] | None = None
    """Units of each layer; 128, and for delay_line what is asked, where left out."""
    parameters: tuple[int, ...] | None = None
    """Numbers trained in each layer, within 2 %, instead of hidden: a fair race."""
    state: tuple[int, ...] | None = None
    """Numbers carried from step to step, within 2 %, instead of hidden: a fair race."""
    max_delay: tuple[int, ...] = (16,)
    """The longest delays that are asked."""
    symbols: tuple[int, ...] | None = None
    """Symbols of training, 2,000,000 where left out: the same work, and figures, everywhere."""
    seconds: tuple[float, ...] | None = None
    """All of a cell's time, on one thread, instead of symbols."""
    seeds: tuple[int, ...] = (0,)
    """Each is trained and measured anew."""
    learning_rates: tuple[float, ...] | None = None
    """Adam's rates to try a short while each; the best goes on with the rest of the budget."""
    batch: int = 32
    """Sequences a training step."""
    alphabet: str = NAMED["letters"]
    """Its symbols: letters, digits, letters-digits, bits, or any string of distinct characters."""
    at: float = 0.99
    """The recall that a span asks for."""
    features: int | None = None
    """Width of a layer's input, where it does not say."""

    def __post_init__(self) -> None:
        """Refuse what makes no cell, before the first one is run."""
        if not self.cores:
            raise SettingError("the grid has no cores", "name some, such as gru or mylayers:Mine")
        sizes = [n for n in ("hidden", "parameters", "state") if getattr(self, n) is not None]
        if len(sizes) > 1:
            raise SettingError(f"{' and '.join(sizes)} all set the size", "give one of them")
        if self.symbols is not None and self.seconds is not None:
            raise SettingError("symbols and seconds both set the budget", "give one of them")
        for name in ("hidden", "parameters", "state", "symbols", "max_delay", "seeds", "seconds"):
            values = getattr(self, name)
            if values is None:
                continue
            least = 0 if name in ("max_delay", "seeds") else 1 if name != "seconds" else 1e-9
            if not values:
                raise SettingError(f"the grid's {name} is empty", "give one or more")
            for value in values:
                if not least <= value < 2**53:  # what JSON and SQLite tell exactly
                    said = "numbers above 0" if name == "seconds" else f"{least} to 2^53"
                    raise SettingError(f"the grid's {name} holds {value}", f"use {said}")
        if self.learning_rates is not None and not 1 <= len(self.learning_rates) <= 10:
            raise SettingError(
                f"the grid tries {len(self.learning_rates)} learning rates", "give one to ten"
            )
        if self.features is not None and self.features < 1:
            raise SettingError(f"the grid's features is {self.features}", "use 1 or more")
        for rate in self.learning_rates or ():
            if not 0 < rate < float("inf"):
                raise SettingError(
                    f"the grid's learning_rates holds {rate}", "use numbers above 0, such as 1e-2"
                )
        if self.batch < 1:
            raise SettingError(f"the grid's batch is {self.batch}", "use 1 or more")
        if not 0 < self.at < 1:
            raise SettingError(
                f"the grid's at is {self.at}", "use a share between 0 and 1, such as 0.99"
            )
        object.__setattr__(self, "alphabet", alphabet(self.alphabet).characters)

    def cells(self) -> list[Cell]:
        """Its cells, without the doubles; SettingError for a core that is not there or fits not.

        Short ones first of each kind: what goes wrong goes wrong early.
        """
        budgets: Sequence[tuple[str, float]] = (
            [("seconds", s) for s in sorted(self.seconds)]
            if self.seconds is not None
            else [("symbols", n) for n in sorted(self.symbols or (2_000_000,))]
        )
        cells = []
        for (name, amount), delay, core in itertools.product(
            budgets, sorted(self.max_delay), self.cores
        ):
            known = fingerprint(core)
            for hidden in self._widths(core, delay):
                cells += [
                    Cell(
                        core=core,
                        hidden=hidden,
                        max_delay=delay,
                        seed=seed,
                        learning_rates=self.learning_rates,
                        batch=self.batch,
                        alphabet=self.alphabet,
                        at=self.at,
                        features=self.features,
                        source=known,
                        **{name: amount},  # type: ignore[arg-type]
                    )
                    for seed in self.seeds
                ]
        return list(dict.fromkeys(cells))

    def _widths(self, core: str, delay: int) -> Sequence[int | None]:
        wanted = self.parameters or self.state
        if wanted is None:
            return self.hidden or (None,)
        from echospan.layers import find, fit_hidden

        what = "parameters" if self.parameters else "state"
        return [
            fit_hidden(
                find(core),
                max_delay=delay,
                features=self.features,
                alphabet=self.alphabet,
                **{what: n},
            )
            for n in wanted
        ]


def fingerprint(core: str) -> str:
    """'' for one of ours; for a layer of one's own, sixteen digits of the file it stands in.

    Raises SettingError for a core that is not there.
    """
    from echospan.layers import find

    find(core)
    module, colon, _ = core.partition(":")
    if not colon:
        return ""
    origin = Path(getattr(sys.modules[module], "__file__", None) or "")
    return hashlib.sha256(origin.read_bytes()).hexdigest()[:16] if origin.is_file() else ""


def shipped() -> dict[str, Path]:
    """The grids that come with Echospan, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


def read(path: Path) -> list[Grid]:
    """The grids of a TOML file; SettingError, naming the place, for anything that is none."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise SettingError(f"{path} cannot be read ({e})", "give a grid in TOML") from None
    tables = told.pop("grid", None)
    if told or not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise SettingError(
            f"{path} holds {', '.join(told) or 'no grid'}", "write each grid under a line [[grid]]"
        )
    return [_grid(table, f"{path}, grid {i + 1}") for i, table in enumerate(tables)]


def _grid(table: dict[str, Any], where: str) -> Grid:
    kinds = {f.name: str(f.type) for f in fields(Grid)}
    settings: dict[str, Any] = {}
    for name, value in table.items():
        if name not in kinds:
            raise SettingError(
                f"{where} has a setting {name!r}",
                nearest(name, kinds).rstrip() or f"use {', '.join(kinds)}",
            )
        many, kind = kinds[name].startswith("tuple"), kinds[name]
        values = value if isinstance(value, list) else [value]
        wanted: Any = str if "str" in kind else (int, float) if "float" in kind else int
        if wanted is int:  # 2e6 is a whole number too
            values = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
        fits = all(isinstance(v, wanted) and not isinstance(v, bool) for v in values)
        if not fits or (isinstance(value, list) and not many):
            said = "text" if wanted is str else "numbers" if "float" in kind else "whole numbers"
            raise SettingError(f"{where} has {name} = {value!r}", f"give it {said}")
        settings[name] = tuple(values) if many else values[0]
    if "cores" not in settings:
        raise SettingError(f"{where} names no cores", 'write cores = ["gru", …] in it')
    try:
        return Grid(**settings)
    except EchospanError as e:
        raise SettingError(f"{where}: {e.fact}", e.remedy) from None


def changed(grid: Grid, settings: dict[str, Any]) -> Grid:
    """The grid with some settings replaced; a size or budget takes the place of any other."""
    for group in (("hidden", "parameters", "state"), ("symbols", "seconds")):
        if any(name in settings for name in group):
            settings = dict.fromkeys(group, None) | settings
    return replace(grid, **settings)
