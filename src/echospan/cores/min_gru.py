"""Minimal GRU: gates that see the input alone, one scan (Feng et al. 2024, arXiv:2410.01201)."""

import torch
from torch import Tensor, nn

from echospan.cores.scan import scan
from echospan.validation import sizes


class MinGRU(nn.Module):
    """`z = σ(W_z x + b_z)`, `h_t = (1 − z) ⊙ h_{t−1} + z ⊙ (W_h x + b_h)`, in `layers` layers.

    The plain form of the paper, in which zeros are the empty state, not the one in logarithms. Two
    layers, for one sees no more than a sum of fading copies of its input. Each unit begins with a
    gate of its own, even between 1/256 and 1, and so that its variance is that of the others. The
    state is `(batch, layers, hidden_size)`.
    """

    batch_dim = 0

    def __init__(self, input_size: int, hidden_size: int, *, layers: int = 2) -> None:
        super().__init__()
        input_size, hidden_size = sizes(input_size, hidden_size)
        self.input_size, self.hidden_size, self.layers = input_size, hidden_size, layers
        self.projections = nn.ModuleList()
        for features in [input_size] + [hidden_size] * (layers - 1):
            p = nn.Linear(features, 2 * hidden_size)
            z = 1 / 256 + torch.rand(hidden_size) * (254 / 256)
            with torch.no_grad():
                p.bias.copy_(torch.cat([torch.logit(z), torch.zeros_like(z)]))
                p.weight[:hidden_size].normal_(0, 0.1)
                p.weight[hidden_size:].normal_().div_(z.sqrt()[:, None])
                if len(self.projections):
                    p.weight.div_(hidden_size**0.5)
            self.projections.append(p)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`x (batch, time, input_size)` to `y (batch, time, hidden_size)` and the last state."""
        h, last = x.transpose(0, 1), []
        for layer, projection in enumerate(self.projections):
            k, v = projection(h).chunk(2, -1)
            z = torch.sigmoid(k)
            h = scan(1 - z, z * v, None if state is None else state[:, layer])
            last.append(h[-1])
        return h.transpose(0, 1), torch.stack(last, 1)
