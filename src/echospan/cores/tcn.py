"""Temporal convolutional network (Bai et al. 2018, arXiv:1803.01271) with its streaming state."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.errors import SettingError
from echospan.validation import sizes


class _Conv(nn.Module):
    """Dilated causal convolution, `y_t = b + Σ_i W_i x_{t−(k−1−i)·dilation}`, as one product."""

    def __init__(self, inputs: int, outputs: int, taps: int, dilation: int) -> None:
        super().__init__()
        self.taps, self.dilation = taps, dilation
        self.weight = nn.Parameter(torch.empty(outputs, taps * inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """`(batch, time, inputs) -> (batch, time, outputs)` and the last (k−1)·dilation inputs."""
        batch, time, inputs = x.shape
        if past is None:
            past = x.new_zeros(batch, (self.taps - 1) * self.dilation, inputs)
        seen = torch.cat([past, x], 1)
        shifted = [seen[:, i * self.dilation : i * self.dilation + time] for i in range(self.taps)]
        y = F.linear(torch.cat(shifted, -1), self.weight, self.bias)
        return y, seen[:, time:]


class TCN(nn.Module):
    """Residual blocks of two dilated causal convolutions each, the dilation doubling by block.

        block(x) = ReLU(x + ReLU(conv(ReLU(conv(x)))))        x through a linear map where it widens

    Without the paper's weight norm and dropout. It sees `receptive_field` steps, the newest
    included: 1 + 2·(taps − 1)·(2^blocks − 1). State: each convolution's left context.
    """

    batch_dim = 0

    def __init__(
        self, input_size: int, hidden_size: int, *, blocks: int = 4, taps: int = 2
    ) -> None:
        super().__init__()
        input_size, hidden_size = sizes(input_size, hidden_size)
        if blocks < 1 or taps < 2:
            raise SettingError(
                f"a TCN of {blocks} blocks of {taps} taps sees no past",
                "use 1 block or more of 2 taps or more",
            )
        self.input_size, self.hidden_size = input_size, hidden_size
        self.blocks, self.taps = blocks, taps
        self.widen = nn.Linear(input_size, hidden_size)
        self.convs = nn.ModuleList(
            _Conv(input_size if i == 0 else hidden_size, hidden_size, taps, 2 ** (i // 2))
            for i in range(2 * blocks)
        )

    @property
    def receptive_field(self) -> int:
        """Steps that an output can know of, its own included: its span is one less."""
        return 1 + 2 * (self.taps - 1) * ((1 << self.blocks) - 1)

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """`(batch, time, input_size) -> (batch, time, hidden_size)` and 2·blocks contexts."""
        past = iter(state if state is not None else [None] * len(self.convs))
        y, contexts = x, []
        for i in range(0, len(self.convs), 2):
            inner = y
            for conv in self.convs[i : i + 2]:
                inner, context = conv(inner, next(past))
                inner = F.relu(inner)
                contexts.append(context)
            y = F.relu((y if i else self.widen(y)) + inner)
        return y, tuple(contexts)
