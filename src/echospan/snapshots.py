"""Snapshots of a training: all that it takes to go on from a step, checked before it is used.

A snapshot holds tensors and facts. What it must hold follows from its recipe: the tensors of the
model that the recipe builds, two moments of the optimiser for each parameter, the state that its
core carries, the positions of the random generators, and a history of evaluations.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from echospan.json_fields import flag, integer, listed, members, number
from echospan.model import EchoModel
from echospan.recipes import Part, Recipe
from echospan.run_format import parse_part
from echospan.state_layout import state_layout
from echospan.storage.tensor_file import Spec
from echospan.unfilled import Unfilled

_STATE = Spec.of(torch.Generator().get_state())
"""Of a generator on the CPU."""

_CUDA_STATE = Spec(torch.uint8, (16,))
"""Of a generator on a GPU: a seed and an offset."""

_HISTORY = {
    "step": torch.int64,
    "seconds": torch.float64,
    "loss": torch.float64,
    "reached": torch.int64,
    "used": torch.float64,
    "blanks": torch.int64,
    "blanks_correct": torch.int64,
}
"""A number for each evaluation."""

_DELAYS = {"trials": torch.int64, "correct": torch.int64, "gain": torch.float64}
"""A number for each evaluation and delay."""

_MOMENTS = ("exp_avg", "exp_avg_sq")


class _Take(Protocol):
    def __call__(self, name: str, *wanted: Spec) -> None: ...


@dataclass(frozen=True)
class Facts:
    """What is no tensor in a snapshot."""

    step: int
    """Steps that were done."""
    check_at: int
    """The step of the next evaluation."""
    last_step: int
    """The step at which the training ends."""
    smooth_loss: float
    """The running mean of the loss, which sets the learning rate."""
    loss: float
    """The loss of the last step; infinite before the first one."""
    to_target: float | None
    """Seconds of training until the target was reached."""
    rate: float
    """The learning rate of the last step."""
    polished_from: float
    """The learning rate from which it falls after the target."""
    polishing: bool
    """Whether it falls from there by now."""
    seconds: float
    """Seconds of training."""
    clocked: bool
    """Whether the clock has decided a learning rate."""
    parts: tuple[Part, ...]
    """Where it ran, from the beginning to this step."""

    def as_json(self) -> dict[str, Any]:
        """Return the facts for JSON, which has no infinity."""
        loss = self.loss if math.isfinite(self.loss) else None
        return asdict(self) | {"loss": loss, "parts": [asdict(part) for part in self.parts]}

    @classmethod
    def parse(cls, facts: Any, recipe: Recipe) -> "Facts":
        """Return validated facts; ValueError for what cannot be facts of such a training.

        Args:
            facts: As `as_json` returns them.
            recipe: Of the training.
        """
        said = members(facts, cls.__dataclass_fields__.keys())
        steps = recipe.training.steps
        last_step = integer(said["last_step"], "last_step", 0, steps)
        step = integer(said["step"], "step", 0, last_step)
        loss = said["loss"]
        parts = listed(said["parts"], "parts", 1_000)
        if not parts:
            raise ValueError("parts is empty")
        return cls(
            step=step,
            check_at=integer(said["check_at"], "check_at", 0, 2**53),
            last_step=last_step,
            smooth_loss=number(said["smooth_loss"], "smooth_loss", 0, 1e30),
            loss=math.inf if loss is None and not step else number(loss, "loss", 0, 1e30),
            to_target=_seconds(said["to_target"], "to_target"),
            rate=number(said["rate"], "rate", 0, 1e30),
            polished_from=number(said["polished_from"], "polished_from", 0, 1e30),
            polishing=flag(said["polishing"], "polishing"),
            seconds=number(said["seconds"], "seconds", 0, 1e12),
            clocked=flag(said["clocked"], "clocked"),
            parts=tuple(parse_part(part) for part in parts),
        )


def _seconds(value: Any, name: str) -> float | None:
    return None if value is None else number(value, name, 0, 1e12)


def check_specs(
    recipe: Recipe, facts: Facts, specs: Mapping[str, Spec], core: nn.Module | None = None
) -> None:
    """Raise ValueError where tensors of these types and shapes are not all that a snapshot holds.

    Nothing of the size of a claim is made for it: sizes are compared one by one.

    Args:
        recipe: Of the training.
        facts: Of the snapshot.
        specs: Types and shapes of its tensors by name.
        core: The core, where the training has one of its own instead of the recipe's.
    """
    batch, delays = recipe.training.batch, recipe.model.max_delay + 1
    rest = dict(specs)

    def take(name: str, *wanted: Spec) -> None:
        found = rest.pop(name, None)
        if found not in wanted:
            given = "missing" if found is None else str(found)
            raise ValueError(f"{name} is {given}, not {' or '.join(map(str, wanted))}")

    take("delays", Spec(torch.int64, (batch,)))
    take("past", Spec(torch.int64, (batch, recipe.model.max_delay)))
    take("weights", *(Spec(t, (delays,)) for t in (torch.float32, torch.float64)))
    hidden = specs.get("model.readouts.weight", Spec(torch.float32, ())).shape[-1:]
    if core is None and hidden != (recipe.model.hidden,):
        raise ValueError(f"model.readouts.weight does not have {recipe.model.hidden} columns")
    with torch.inference_mode(False), torch.device("cpu"):
        with Unfilled(sum(spec.numel for spec in specs.values())):
            model = EchoModel(recipe.model, core)
        for name, tensor in model.state_dict().items():
            take(f"model.{name}", Spec.of(tensor))
        _take_optimiser(model, facts, core is not None, rest, take)
        layout = state_layout(model, batch, bf16=recipe.training.precision == "bf16")
    state = [rest.pop(n) for n in sorted((n for n in rest if _is_part(n)), key=_number)]
    # Before the first step no row has a state yet.
    if (state or facts.step) and (difference := layout.difference(state)):
        raise ValueError(difference)
    _take_generators(recipe, rest, take)
    evaluations = rest.get("history.step", Spec(torch.int64, ())).numel
    for name, dtype in _HISTORY.items():
        take(f"history.{name}", Spec(dtype, (evaluations,)))
    for name, dtype in _DELAYS.items():
        take(f"history.{name}", Spec(dtype, (evaluations, delays)))
    if rest:
        raise ValueError(f"{min(rest)[:60]} is not a part of it")


def _is_part(name: str) -> bool:
    return name.startswith("state.") and name[6:].isdecimal() and len(name) < 16


def _number(name: str) -> int:
    return int(name.rpartition(".")[2])


def _take_optimiser(
    model: EchoModel, facts: Facts, own_core: bool, rest: dict[str, Spec], take: _Take
) -> None:
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for number_, (name, parameter) in enumerate(trained):
        at = f"optimiser.{number_}."
        # A layer of the caller's own may have parameters that no gradient has reached yet.
        needed = facts.step > 0 and not (own_core and name.startswith("core."))
        if needed or f"{at}step" in rest:
            take(f"{at}step", *(Spec(t, ()) for t in (torch.float32, torch.float64)))
            for moment in _MOMENTS:
                take(at + moment, Spec.of(parameter))


def _take_generators(recipe: Recipe, rest: dict[str, Spec], take: _Take) -> None:
    on_gpu = recipe.training.device.startswith("cuda")
    take("generator", _CUDA_STATE if on_gpu else _STATE)
    processes = max(1, sum(name.startswith("random.") for name in rest) // (1 + on_gpu))
    for rank in range(processes):
        take(f"random.{rank}", _STATE)
        if on_gpu:
            take(f"random.device.{rank}", _CUDA_STATE)


def check_values(recipe: Recipe, facts: Facts, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a tensor holds what no training writes; `check_specs` has passed."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name} holds nan or infinity")
        kind = name.rpartition(".")[2]
        if name.startswith("optimiser."):
            if kind == "exp_avg_sq" and not tensor.is_complex() and (tensor < 0).any():
                raise ValueError(f"{name} holds a negative number")
            if kind == "step" and not (1 <= tensor <= facts.step and tensor == tensor.round()):
                raise ValueError(f"{name} is {float(tensor)}, not a step from 1 to {facts.step}")
        if name == "generator" or name.startswith("random."):
            _check_generator(name, tensor)
    _within(tensors, "delays", 0, recipe.model.max_delay)
    _within(tensors, "past", 0, len(recipe.model.alphabet))
    _within(tensors, "weights", 0, 1e6)
    if not tensors["weights"].sum() > 0:
        raise ValueError("weights are all 0")
    _within(tensors, "history.step", 0, facts.step)
    _within(tensors, "history.reached", 0, 1)
    for name in ("seconds", "loss", "used", "blanks"):
        _within(tensors, f"history.{name}", 0, 1e18)
    _within(tensors, "history.blanks_correct", 0, tensors["history.blanks"])
    _within(tensors, "history.trials", 1, 2**53)
    _within(tensors, "history.correct", 0, tensors["history.trials"])
    if tensors["history.step"].numel() == 0 and facts.step >= facts.check_at:
        raise ValueError(f"history is empty after {facts.step} steps")


def _within(tensors: Mapping[str, Tensor], name: str, low: float, high: float | Tensor) -> None:
    tensor = tensors[name]
    if not ((tensor >= low) & (tensor <= high)).all():
        raise ValueError(f"{name} holds a number out of its range")


_WORDS = 624
"""Numbers of the state of mt19937, PyTorch's generator on the CPU."""


def _check_generator(name: str, state: Tensor) -> None:
    """Raise ValueError for a position beyond the end of a generator's state.

    PyTorch checks two counters each on its own: where they contradict each other, it would read
    memory beyond the state.
    """
    if state.numel() != _STATE.numel:
        return  # of a GPU: a seed and an offset, both free
    fresh = torch.Generator().get_state()
    left, position = (_counter(s, at) for s, at in ((state, 8), (state, 16)))
    if (_counter(fresh, 8), _counter(fresh, 16)) != (1, 0):
        return  # another PyTorch, with another layout
    if (left, position) != (1, 0) and not (left >= 1 and left + position == _WORDS + 1):
        raise ValueError(f"{name} is not the state of a generator")


def _counter(state: Tensor, at: int) -> int:
    return int.from_bytes(bytes(state[at : at + 4].tolist()), "little")


def check_snapshot(
    recipe: Recipe, facts: Any, tensors: Mapping[str, Tensor], core: nn.Module | None = None
) -> Facts:
    """Return the validated facts of a snapshot; ValueError where anything in it does not fit."""
    checked = Facts.parse(facts, recipe)
    check_specs(recipe, checked, {name: Spec.of(t) for name, t in tensors.items()}, core)
    check_values(recipe, checked, tensors)
    return checked
