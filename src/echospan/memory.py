"""How much memory a training takes at least, and how much there is: compared before it begins."""

import contextlib
import os
import resource
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import torch
from torch import nn

from echospan.errors import SettingError, first_line, option
from echospan.model import EchoModel
from echospan.recipes import Recipe
from echospan.unfilled import Unfilled

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""What torch says in a RuntimeError where the system gives it no more memory."""

_COPIES = 4
"""Numbers that Adam needs for each weight: itself, its gradient and two moments."""


_SIZES = f"{option('hidden')}, {option('batch')}, {option('window')} or {option('max_delay')}"


def training_memory(
    recipe: Recipe, core: nn.Module | None = None, processes: int = 1
) -> Iterator[int]:
    """Yield bytes that a training takes at least, of what grows with its settings.

    The first figure takes no time: targets, hidden states and logits of one step or, where that is
    more, of the evaluation of one sequence. The second adds weights, gradients and the optimiser's
    moments, counted on a model without storage. Caches, copies and what a core computes inside come
    on top.

    Args:
        recipe: The training.
        core: The core that takes the place of the one that the recipe names.
        processes: The number of processes that share the rows of a batch.

    Raises SettingError where PyTorch cannot even name the sizes.
    """
    config, training = recipe.model, recipe.training
    by_input = config.conditioning == "input"
    symbols, delays = len(config.alphabet) + 1, config.max_delay + 1
    hidden = config.hidden if core is None else int(getattr(core, "hidden_size", 1))
    asked = 1 if by_input else min(training.asked_at_once or delays, delays)
    rows = delays if by_input else 1
    number, label = 4 * 2, 8  # float32 with its gradient or its logarithm; int64
    drawn = training.batch * recipe.window * label * delays  # each process draws the whole batch
    rows_here = max(1, training.batch // processes)
    step = drawn + rows_here * recipe.window * number * (hidden + asked * symbols)
    length = 2 * config.max_delay + 5  # of a sequence that `evaluate` asks
    evaluation = length * (label * delays + number * (rows * hidden + delays * symbols))
    yield max(step, evaluation)
    try:
        # Nothing is drawn: what draws without storage is imported first, for a second.
        with torch.device("meta"), Unfilled():
            model = EchoModel(config, core)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as e:
        raise SettingError(
            f"PyTorch has no model with {option('hidden')} {_short(config.hidden)} and "
            f"{option('max_delay')} {_short(config.max_delay)} ({first_line(e)})",
            "use smaller ones",
        ) from e
    parameters = list(model.parameters())
    trained = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    fixed = sum(p.numel() * p.element_size() for p in parameters if not p.requires_grad)
    fixed += sum(b.numel() * b.element_size() for b in model.buffers())
    yield max(step, evaluation) + trained * _COPIES + fixed


def available_memory(device: str = "cpu") -> int:
    """Return bytes that this process may still take on a device, as far as the system tells.

    On the CPU the least of what is free without swapping, what the control groups of a container
    leave, and what `ulimit -v` leaves.
    """
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for line in _text(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    limits += _group_limits(_text(Path("/proc/self/cgroup")), Path("/sys/fs/cgroup"))
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        pages = (_text(Path("/proc/self/statm")).split() or ["0"])[0]
        limits.append(max(0, most - int(pages) * os.sysconf("SC_PAGE_SIZE")))
    return min(limits)


def _group_limits(groups: str, root: Path) -> Iterator[int]:
    """Yield what each control group of this process leaves, of either version.

    Args:
        groups: What /proc/self/cgroup says.
        root: Where the groups are mounted.
    """
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "memory" if controllers else root
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
        group = base / path.strip("/")
        # A container sees its own group as the root; elsewhere a group above may have the limit.
        for folder in (group, *group.parents):
            limit, used = _text(folder / names[0]).strip(), _text(folder / names[1]).strip()
            if limit.isdigit() and used.isdigit():
                stat = dict(
                    part.split(maxsplit=1)
                    for part in _text(folder / "memory.stat").splitlines()
                    if part.count(" ") == 1
                )
                yield max(0, int(limit) - int(used) + int(stat.get(names[2], 0)))
            if folder == base:
                break


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def check_training_memory(
    recipe: Recipe,
    core: nn.Module | None = None,
    processes: int = 1,
    available: int | None = None,
) -> None:
    """Raise SettingError for a training that takes more memory than there is.

    Args:
        recipe: The training.
        core: The core that takes the place of the one that the recipe names.
        processes: The number of processes that share the rows of a batch.
        available: Bytes; what the system tells where it is left out.
    """
    free = available_memory(recipe.training.device) if available is None else available
    for needed in training_memory(recipe, core, processes):
        if needed > free:
            raise SettingError(
                f"this training takes at least {_gigabytes(needed)} of memory, and "
                f"{_gigabytes(free)} are free",
                f"use a smaller {_SIZES}",
            ) from MemoryError()


@contextlib.contextmanager
def memory_checked() -> Iterator[None]:
    """Raise SettingError in one sentence where the system gives no more memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as e:
        if isinstance(e, RuntimeError) and not any(t in str(e) for t in _OUT_OF_MEMORY):
            raise
        raise SettingError(
            f"the memory ran out ({first_line(e) or 'MemoryError'})",
            f"use a smaller {_SIZES}",
        ) from e


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number < 10**15 else f"{Decimal(number) / 10**9:.1e} GB"


def _short(number: int) -> str:
    return f"{number:,}" if number < 10**15 else f"{Decimal(number):.1e}"
