"""Every recurrence as a plain loop: the definition that the fast paths are tested against."""

import torch
from torch import Tensor


def gru(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> tuple[Tensor, Tensor]:
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), as `torch.nn.GRU` defines it.

        r = σ(W_r x + b_r + U_r h + c_r)        reset gate
        z = σ(W_z x + b_z + U_z h + c_z)        update gate
        n = tanh(W_n x + b_n + r ⊙ (U_n h + c_n))
        h = (1 − z) ⊙ n + z ⊙ h

    `x (batch, time, features)`, `h (batch, hidden)`, `w_ih (3·hidden, features)`,
    `w_hh (3·hidden, hidden)`, biases `(3·hidden,)`; gates stacked in the order r, z, n.
    Returns `(batch, time, hidden)` and the last `(batch, hidden)`.
    """
    outputs = []
    for x_t in x.unbind(1):
        xr, xz, xn = (x_t @ w_ih.T + b_ih).chunk(3, -1)
        hr, hz, hn = (h @ w_hh.T + b_hh).chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        h = (1 - z) * n + z * h
        outputs.append(h)
    return torch.stack(outputs, 1), h


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """Causal depthwise convolution: each channel's own last k inputs, weighted.

        y_t = b + Σ_i w_i ⊙ x_{t−(k−1)+i}        i = 0 … k−1

    `x (batch, time, channels)`, `weight (channels, k)`, `bias (channels,)`,
    `past (batch, k−1, channels)`, the inputs before `x`. Returns `(batch, time, channels)` and the
    last k−1 inputs.
    """
    last, outputs = list(past.unbind(1)), []
    for x_t in x.unbind(1):
        last.append(x_t)
        outputs.append(bias + sum(w_i * x_i for w_i, x_i in zip(weight.T, last, strict=True)))
        last.pop(0)
    return torch.stack(outputs, 1), torch.stack(last, 1) if last else past
