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
import math
import operator
import shlex
import stat
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from echospan import __version__
from echospan.alphabet import NAMED, alphabet
from echospan.errors import EchospanError, SettingError, by_caller, nearest, option
from echospan.json_fields import document, members
from echospan.random_streams import check_seed
from echospan.text import plain, shown

MOST_CELLS = 100_000
"""Cells of one bench. They are all in memory, and a bench of so many takes weeks."""

MOST_SEARCHES = 1_000
"""Widths that a grid searches for (`parameters`, `state`); a search builds up to a hundred layers
before the first cell is run."""

MOST_NUMBERS = 2**24
"""The largest `parameters` and `state`: the search for a width builds layers of four times that."""

MAX_DELAY = 2**15 - 1
"""The largest `max_delay`: a result takes some 300 bytes a delay, and a row of a store has room for
16 MiB."""

LONGEST_ALPHABET = 10_000
"""Characters of an alphabet; it is part of each cell, its key and its result."""

GRID_BYTES = 2**20
"""The largest grid file. Parsers of TOML take a time that grows with the square of some inputs."""

_LARGEST = 2**53 - 1
"""The largest whole number: JSON and SQLite hold all up to it exactly."""


@lru_cache
def _torch() -> str:
    return metadata.version("torch").partition("+")[0]


_BOUNDS: dict[str, tuple[float, float]] = {
    "hidden": (1, _LARGEST),
    "parameters": (1, MOST_NUMBERS),
    "state": (1, MOST_NUMBERS),
    "max_delay": (0, MAX_DELAY),
    "symbols": (1, _LARGEST),
    "seconds": (1e-9, 1e9),
    "learning_rates": (5e-324, sys.float_info.max),
    "batch": (1, _LARGEST),
    "at": (1e-9, 1 - 1e-9),
    "features": (1, _LARGEST),
}
"""The smallest and the largest value of each setting that is a number."""

_FRACTIONS = ("seconds", "learning_rates", "at")
"""Settings that are no whole numbers."""

_RANGES = {
    "seconds": "use numbers above 0",
    "learning_rates": "use numbers above 0, such as 1e-2",
    "at": "use a share between 0 and 1, such as 0.99",
}


def _number(name: str, value: Any) -> int | float:
    """Return the value of a setting, checked; a whole number may be a float, such as 2e6.

    Raises SettingError for another type, or a number out of range.
    """
    if name in ("seed", "seeds"):
        return check_seed(value, name)
    low, high = _BOUNDS[name]
    whole = name not in _FRACTIONS
    number: int | float | None = None
    if not isinstance(value, bool | str):
        try:
            number = operator.index(value)
        except TypeError:
            if isinstance(value, float) and (not whole or value.is_integer()):
                number = value
    if number is None:
        raise SettingError(
            f"{option(name)} is {shown(value)}", f"give it {'whole ' if whole else ''}numbers"
        )
    if not low <= number <= high:  # NaN is in no range
        most = "2^53" if high == _LARGEST else f"{high:,}"
        raise SettingError(
            f"{option(name)} is {shown(value)}",
            _RANGES.get(name, f"use whole numbers from {low} to {most}"),
        )
    return int(number) if whole else float(number)


def _characters(value: Any) -> str:
    """Return the characters of an alphabet, named or given; at most `LONGEST_ALPHABET`."""
    if not isinstance(value, str):
        raise SettingError(f"{option('alphabet')} is {shown(value)}", "give it text")
    if len(value) > LONGEST_ALPHABET:
        raise SettingError(
            f"{option('alphabet')} has {len(value):,} characters",
            f"a bench takes at most {LONGEST_ALPHABET:,}",
        )
    return alphabet(value).characters


def _core(value: Any) -> str:
    if not isinstance(value, str):
        raise SettingError(f"{option('cores')} is {shown(value)}", "give it text")
    if len(value) > 1_000:
        raise SettingError(
            f"{option('cores')} holds a name of {len(value):,} characters", "use 1,000 at most"
        )
    return value


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a bench: all that decides its result.

    Raises SettingError for a setting that has another type or is out of its range.
    """

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
        """Check every setting; equal cells are written equally: 45 seconds are 45.0."""
        values: dict[str, Any] = {"core": _core(self.core), "alphabet": _characters(self.alphabet)}
        for name in ("hidden", "symbols", "seconds", "features"):
            value = getattr(self, name)
            values[name] = None if value is None else _number(name, value)
        for name in ("max_delay", "seed", "batch", "at"):
            values[name] = _number(name, getattr(self, name))
        if self.learning_rates is not None:
            values["learning_rates"] = _several("learning_rates", self.learning_rates)
        for name in ("source", "echospan", "torch"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) > 100:
                raise SettingError(
                    f"{name} is {shown(value)}", "give it text, 100 characters at most"
                )
        if (self.symbols is None) == (self.seconds is None):
            raise SettingError(
                "a cell has one budget", f"give {option('symbols')} or {option('seconds')}"
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits that are the same for equal cells, always and everywhere."""
        return self.key_without()

    def key_without(self, *names: str) -> str:
        """As `key`, and the same for cells that differ in nothing but these."""
        settings = {name: value for name, value in self._settings().items() if name not in names}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _DEFAULTS}

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
        return json.dumps(self._settings(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Cell":
        """Return the cell that `to_json` wrote, whatever version of ours wrote it.

        Raises SettingError for anything else.
        """
        try:
            return cls(**members(document(text), _DEFAULTS.keys()))
        except ValueError as e:  # a SettingError is one
            raise SettingError(
                f"this is no cell of a bench ({e})", "give what Cell.to_json wrote"
            ) from None


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
        """Refuse what makes no cell, or too many of them, before the first one is made."""
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None and f.default is None:
                continue
            if str(f.type).startswith("tuple"):
                value = _several(f.name, value)
            elif f.name == "alphabet":
                value = _characters(value)
            else:
                value = _number(f.name, value)
            object.__setattr__(self, f.name, value)
        sizes = [n for n in ("hidden", "parameters", "state") if getattr(self, n) is not None]
        if len(sizes) > 1:
            raise SettingError(
                f"{' and '.join(map(option, sizes))} set the size", "give one of them"
            )
        if self.symbols is not None and self.seconds is not None:
            raise SettingError(
                f"{option('symbols')} and {option('seconds')} set the budget", "give one of them"
            )
        _few_enough(self.count)
        wanted = self.parameters or self.state or ()
        if (searches := len(self.cores) * len(self.max_delay) * len(wanted)) > MOST_SEARCHES:
            raise SettingError(
                f"the grid searches for {searches:,} widths",
                f"give at most {MOST_SEARCHES:,} combinations of {option('cores')}, "
                f"{option('max_delay')} and {option('parameters')} or {option('state')}",
            )

    @property
    def count(self) -> int:
        """The number of combinations, from which `cells` leaves out the doubles."""
        sizes = self.hidden or self.parameters or self.state or (0,)
        budgets = self.seconds or self.symbols or (0,)
        return math.prod(map(len, (self.cores, sizes, self.max_delay, budgets, self.seeds)))

    def cells(self) -> list[Cell]:
        """Its cells, without the doubles; SettingError for a core that is not there or fits not.

        Short ones first of each kind: what goes wrong goes wrong early.
        """
        budgets: Sequence[tuple[str, float]] = (
            [("seconds", s) for s in sorted(self.seconds)]
            if self.seconds is not None
            else [("symbols", n) for n in sorted(self.symbols or (2_000_000,))]
        )
        sources = {core: fingerprint(core) for core in self.cores}
        widths = {
            (core, delay): self._widths(core, delay)
            for delay in sorted(self.max_delay)
            for core in self.cores
        }
        cells = []
        for (name, amount), (core, delay) in itertools.product(budgets, widths):
            for hidden in widths[core, delay]:
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
                        source=sources[core],
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


def _several(name: str, value: Any) -> tuple[Any, ...]:
    """Return the values of a setting that has several, checked; one alone may stand for itself."""
    if hasattr(value, "tolist"):  # an array of NumPy, or a number
        value = value.tolist()
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
    values = value if several else (value,)
    try:
        count = len(values)
    except OverflowError:  # a range
        count = sys.maxsize
    if not count:
        raise SettingError(f"{option(name)} is empty", "give one or more")
    _few_enough(count)
    if name == "learning_rates" and count > 10:
        raise SettingError(f"the grid tries {count} learning rates", "give one to ten")
    return tuple([_core(v) if name == "cores" else _number(name, v) for v in values])


def _few_enough(count: int) -> None:
    if count > MOST_CELLS:
        number = f"{count:,}" if count < 10**30 else "more than 10^30"
        raise SettingError(
            f"the grid has {number} cells",
            f"a bench takes at most {MOST_CELLS:,}: "
            + by_caller(
                "split it into several grids, such as one for each seed",
                "run it in parts, such as a few --seeds at a time, with the same --store",
            ),
        )


def cells_of(grids: Iterable[Grid]) -> list[Cell]:
    """Return the cells of several grids, each once; SettingError for more than `MOST_CELLS`."""
    grids = list(grids)
    _few_enough(sum(grid.count for grid in grids))
    return list(dict.fromkeys(cell for grid in grids for cell in grid.cells()))


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
    """Return the grids of a TOML file; SettingError, naming the place, for anything that is none.

    A file has at most `GRID_BYTES` bytes, and its grids at most `MOST_CELLS` cells together.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is no regular file")
        with path.open("rb") as f:
            data = f.read(GRID_BYTES + 1)
        if len(data) > GRID_BYTES:
            raise ValueError(f"it has more than {GRID_BYTES:,} bytes")
        tables: Any = tomllib.loads(data.decode())
    except RecursionError:
        raise SettingError(
            f"{path} cannot be read (it is nested too deeply)", "give a grid in TOML"
        ) from None
    except (OSError, ValueError) as e:  # of TOML, of UTF-8, of a number of too many digits
        raise SettingError(
            f"{path} cannot be read ({plain(e, 200)})", "give a grid in TOML"
        ) from None
    grids = tables.pop("grid", None)
    if tables or not isinstance(grids, list) or not all(isinstance(t, dict) for t in grids):
        raise SettingError(
            f"{path} holds {plain(', '.join(tables), 200) if tables else 'no grid'}",
            "write each grid under a line [[grid]]",
        )
    found: list[Grid] = []
    cells = 0
    for i, table in enumerate(grids):
        try:
            found.append(_grid(table))
            cells += found[-1].count
            _few_enough(cells)
        except EchospanError as e:
            raise SettingError(f"{path}, grid {i + 1}: {e.fact}", e.remedy) from None
    return found


def _grid(table: dict[str, Any]) -> Grid:
    for name in table:
        if name not in Grid.__dataclass_fields__:
            names = Grid.__dataclass_fields__
            raise SettingError(
                f"it has a setting {shown(name)}",
                (nearest(name, names) if len(name) < 100 else "").rstrip()
                or f"use {', '.join(names)}",
            )
    if "cores" not in table:
        raise SettingError("it names no cores", 'write cores = ["gru", …] in it')
    return Grid(**table)


def changed(grid: Grid, settings: dict[str, Any]) -> Grid:
    """The grid with some settings replaced; a size or budget takes the place of any other."""
    for group in (("hidden", "parameters", "state"), ("symbols", "seconds")):
        if any(name in settings for name in group):
            settings = dict.fromkeys(group, None) | settings
    return replace(grid, **settings)
