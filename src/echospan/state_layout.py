"""What the state of a model is made of: how many tensors, of which types and shapes.

A core says it by what it returns. Two steps are read: a size that differs between them grows with
what was read, as that of a cache of keys does, and may be any; all others are fixed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from echospan.cores import State, batch_dim, map_state, tensors
from echospan.model import EchoModel, evaluating
from echospan.storage.tensor_file import Spec


@dataclass(frozen=True)
class _Part:
    dtypes: frozenset[torch.dtype]
    shape: tuple[int | None, ...]

    def fits(self, spec: Spec) -> bool:
        return (
            spec.dtype in self.dtypes
            and len(spec.shape) == len(self.shape)
            and all(
                size >= 1 if fixed is None else size == fixed
                for size, fixed in zip(spec.shape, self.shape, strict=True)
            )
        )

    def __str__(self) -> str:
        types = " or ".join(sorted(str(t).removeprefix("torch.") for t in self.dtypes))
        return f"{types} [{', '.join('any' if n is None else str(n) for n in self.shape)}]"


@dataclass(frozen=True)
class StateLayout:
    """The tensors of a state, in order, and how they are put together."""

    template: State
    parts: tuple[_Part, ...]

    def difference(self, specs: Sequence[Spec]) -> str:
        """Return in words the first difference to tensors of these specs; empty where they fit."""
        if len(specs) != len(self.parts):
            return f"a state has {len(self.parts)} tensors, not {len(specs)}"
        for number, (part, spec) in enumerate(zip(self.parts, specs, strict=True)):
            if not part.fits(spec):
                return f"tensor {number} of the state is {spec}, not {part}"
        return ""

    def build(self, parts: Iterable[Tensor]) -> State:
        """Return a state made of these tensors."""
        rest = iter(parts)
        return map_state(lambda _: next(rest), self.template)


@torch.no_grad()
def state_layout(model: EchoModel, rows: int = 1, *, bf16: bool = False) -> StateLayout:
    """Return the layout of a model's state; the model reads two symbols for it.

    Args:
        model: The model; its mode and weights stay as they are.
        rows: The number of rows of the state.
        bf16: Whether the model runs in bfloat16, as in training with that precision.
    """
    device = model.readouts.weight.device
    # Two rows whatever is asked for: a size of theirs may be larger than memory.
    symbols = torch.ones(2, 1, dtype=torch.long, device=device)
    with evaluating(model), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        _, one = model.hidden(symbols, None, symbols[:, 0] * 0)
        first = list(tensors(one))
        specs = [Spec.of(t) for t in first]
        _, two = model.hidden(symbols, one, symbols[:, 0] * 0)
    at = batch_dim(model.core)
    parts = []
    for before, after in zip(specs, tensors(two), strict=True):
        shape: list[int | None] = [
            n if n == m else None for n, m in zip(before.shape, after.shape, strict=True)
        ]
        if at < len(shape):
            shape[at] = rows
        parts.append(_Part(frozenset({before.dtype, after.dtype}), tuple(shape)))
    return StateLayout(one, tuple(parts))
