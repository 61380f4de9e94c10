"""What a core is: the part of a model that remembers, and knows nothing of delays."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Core(Protocol):
    """`core(x, state) -> (y, state)`, batch-first, causal, float.

    `x (batch, time, input_size)`, `y (batch, time, hidden_size)`, `state (layers, batch,
    hidden_size)` or None for the empty one. `torch.nn.GRU(…, batch_first=True)` already is one.
    """

    input_size: int
    hidden_size: int

    def __call__(self, x: Tensor, state: Tensor | None = None, /) -> tuple[Tensor, Tensor]:
        """The hidden state after each symbol, and the state to go on from."""
        ...
