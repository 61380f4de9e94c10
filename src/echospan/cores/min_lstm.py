"""Minimal LSTM: gates that see the input alone, one scan (Feng et al. 2024, arXiv:2410.01201)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.cores.scan import scan
from echospan.validation import sizes


class MinLSTM(nn.Module):
    """`h_t = f/(f + i) ⊙ h_{t−1} + i/(f + i) ⊙ (W_h x + b_h)`, `f = σ(W_f x + b_f)`, i alike.

    The plain form of the paper, in which zeros are the empty state, not the one in logarithms, in
    `layers` layers. Each unit begins with an `i/(f + i)` of its own, even between 1/256 and 1, and
    so that its variance is that of the others. The state is `(batch, layers, hidden_size)`.
    """

    batch_dim = 0

    def __init__(self, input_size: int, hidden_size: int, *, layers: int = 2) -> None:
        super().__init__()
        input_size, hidden_size = sizes(input_size, hidden_size)
        self.input_size, self.hidden_size, self.layers = input_size, hidden_size, layers
        self.projections = nn.ModuleList()
        for features in [input_size] + [hidden_size] * (layers - 1):
            p = nn.Linear(features, 3 * hidden_size)  # f, i, h
            z = 1 / 256 + torch.rand(hidden_size) * (254 / 256)
            with torch.no_grad():
                gate = torch.logit(z)
                p.bias.copy_(torch.cat([-gate, gate, torch.zeros_like(z)]))
                p.weight[: 2 * hidden_size].normal_(0, 0.1)
                p.weight[2 * hidden_size :].normal_().div_(z.sqrt()[:, None])
                if len(self.projections):
                    p.weight.div_(hidden_size**0.5)
            self.projections.append(p)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`x (batch, time, input_size)` to `y (batch, time, hidden_size)` and the last state."""
        h, last = x.transpose(0, 1), []
        for layer, projection in enumerate(self.projections):
            f, i, v = projection(h).chunk(3, -1)
            # f/(f + i) is the sigmoid of log f − log i: no quotient that could be 0/0.
            keep = torch.sigmoid(F.logsigmoid(f) - F.logsigmoid(i))
            h = scan(keep, (1 - keep) * v, None if state is None else state[:, layer])
            last.append(h[-1])
        return h.transpose(0, 1), torch.stack(last, 1)
