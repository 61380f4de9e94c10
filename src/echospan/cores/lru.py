"""Linear recurrent unit: a complex diagonal recurrence (Orvieto et al. 2023, arXiv:2303.06349)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.cores.scan import scan
from echospan.errors import SettingError
from echospan.validation import sizes


class LRU(nn.Module):
    """`x_t = λ ⊙ x_{t−1} + γ ⊙ (B u_t)` with |λ| < 1 by construction, `λ = exp(−e^ν + i·e^θ)`.

    λ begins uniform on the ring `slowest_decay`…`fastest_decay` of the unit disc, γ such that each
    state has the variance of its input. The output is the state itself, the real and imaginary
    parts of `hidden_size / 2` complex numbers: read-outs are linear, so the paper's projection
    `Re(C x)` would be theirs. The state is `(batch, hidden_size / 2, 2)`.
    """

    batch_dim = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        radius: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        super().__init__()
        input_size, hidden_size = sizes(input_size, hidden_size)
        if hidden_size % 2:
            raise SettingError(
                f"an LRU of {hidden_size} units would end in half a complex number",
                f"use an even number, such as {hidden_size + 1}",
            )
        self.input_size, self.hidden_size = input_size, hidden_size
        n = hidden_size // 2
        low, high = radius
        squared = torch.rand(n) * (high**2 - low**2) + low**2  # |λ|², uniform in the ring's area
        self.log_decay = nn.Parameter(torch.log(-0.5 * torch.log(squared)))
        self.log_phase = nn.Parameter(torch.log(math.pi * (1 - torch.rand(n))))
        self.log_scale = nn.Parameter(0.5 * torch.log1p(-squared))
        self.weight = nn.Parameter(torch.randn(hidden_size, input_size) / math.sqrt(2))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`x (batch, time, input_size)` to `y (batch, time, hidden_size)` and the last state."""
        decay = self.log_decay.exp()
        eigenvalues = torch.polar(torch.exp(-decay), self.log_phase.exp())
        n = self.hidden_size // 2
        weight = (self.weight.view(n, 2, -1) * self.log_scale.exp()[:, None, None]).flatten(0, 1)
        u = F.linear(x.transpose(0, 1), weight)  # (time, batch, 2·n)
        x0 = None if state is None else torch.view_as_complex(state.contiguous())
        h = scan(eigenvalues, torch.view_as_complex(u.unflatten(-1, (n, 2))), x0)
        y = torch.view_as_real(h)
        return y.flatten(-2).transpose(0, 1), y[-1]
