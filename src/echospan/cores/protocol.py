"""What a core is: the part of a model that remembers, and knows nothing of delays."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor, nn

State: TypeAlias = "Tensor | Sequence[State] | dict[str, State] | None"
"""What is carried from step to step: a tensor, a tuple or dict of them, or None for none."""


@runtime_checkable
class Core(Protocol):
    """`core(x, state) -> (y, state)`, batch-first, causal, float.

    `x (batch, time, input_size)`, `y (batch, time, hidden_size)`. `state` is None for the empty
    one, or what the last call returned: floating tensors in which dimension `batch_dim` counts the
    rows, and in which zeros are the empty state. `torch.nn.GRU(…, batch_first=True)` already is
    one, but for the name of its `batch_dim`, which is 1.
    """

    input_size: int
    hidden_size: int
    batch_dim: int

    def __call__(self, x: Tensor, state: State = None, /) -> tuple[Tensor, State]:
        """The hidden state after each symbol, and the state to go on from."""
        ...


def batch_dim(core: nn.Module) -> int:
    """The dimension of the tensors of its state that counts rows."""
    return int(getattr(core, "batch_dim", 1 if isinstance(core, nn.RNNBase) else 0))


def tensors(state: State) -> Iterator[Tensor]:
    """The tensors of a state, in order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for part in state.values():
            yield from tensors(part)
    elif state is not None:
        for part in state:
            yield from tensors(part)


def map_state(f: Callable[[Tensor], Tensor], state: State) -> State:
    """The state with `f` applied to each tensor of it."""
    if state is None or isinstance(state, Tensor):
        return state if state is None else f(state)
    if isinstance(state, dict):
        return {name: map_state(f, part) for name, part in state.items()}
    parts: list[State] = [map_state(f, part) for part in state]
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*parts)  # type: ignore[arg-type]
    return parts if isinstance(state, list) else tuple(parts)
