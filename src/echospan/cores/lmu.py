"""Legendre memory unit: a window of the past as Legendre coefficients (Voelker et al. 2019).

Voelker, Kajić and Eliasmith, "Legendre Memory Units", NeurIPS 2019; without the recurrent
non-linearity, and so parallel in time, as in Chilkuri and Eliasmith 2021, arXiv:2102.11417.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from echospan.errors import SettingError
from echospan.validation import sizes

CHUNK = 64

LARGEST_ORDER = 512
"""Of a memory whose order is left out: the table of its responses grows with the square of it, and
takes 150 MB at this one while it is made."""
"""Steps answered by one matrix product; 64 wastes little where 36 steps are asked."""


def legendre(order: int, theta: float) -> tuple[Tensor, Tensor]:
    """Discrete `A (order, order)` and `B (order,)` of a window of `theta` steps, float64.

    Continuous: `A_ij = (2i + 1)/θ · (−1 if i < j else (−1)^{i−j+1})`, `B_i = (2i + 1)(−1)^i/θ`;
    made discrete by a zero-order hold of one step.
    """
    i = torch.arange(order, dtype=torch.double)
    sign = 1 - 2 * ((i[:, None] - i + 1) % 2)
    a = torch.where(i[:, None] < i, -1.0, sign) * (2 * i[:, None] + 1) / theta
    b = (2 * i + 1) * (1 - 2 * (i % 2)) / theta
    # The exponential of [[A, B], [0, 0]] holds the step of the state and of a held input.
    held = torch.zeros(order + 1, order + 1, dtype=torch.double)
    held[:order, :order], held[:order, order] = a, b
    step = torch.linalg.matrix_exp(held)
    return step[:order, :order], step[:order, order]


@lru_cache(maxsize=16)
def _response(order: int, theta: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """All memories of a chunk from what there was and what is read.

    `(CHUNK, order, order + CHUNK)`; the first t steps need the first order + t columns alone.
    """
    with torch.inference_mode(False):  # it is kept: a stream may ask first, a training next
        a, b = legendre(order, theta)
        response = torch.zeros(CHUNK, order, order + CHUNK, dtype=torch.double)
        last = torch.eye(order, order + CHUNK, dtype=torch.double)
        for t in range(CHUNK):
            response[t] = a @ last
            response[t, :, order + t] = b
            last = response[t]
        return response.to(device, dtype)


class LMU(nn.Module):
    """`m_t = Ā m_{t−1} + B̄ u_t` for each of several channels of `u_t = W x_t`; Ā, B̄ are fixed.

    `order` Legendre coefficients hold each channel's last `theta` steps; the output is the
    memories themselves, `hidden_size / order` channels of them. Where left out, `order` is the
    largest divisor of `hidden_size` up to a quarter of it and 512, and `theta` is 2/π times
    `order`: what a polynomial of that degree can tell apart in the middle of the window, where its
    roots are sparsest. With `theta` at `order` the far delays blur. The state is
    `(batch, order, channels)`.
    """

    batch_dim = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        order: int | None = None,
        theta: float | None = None,
    ) -> None:
        super().__init__()
        input_size, hidden_size = sizes(input_size, hidden_size)
        if order is None:
            most = min(max(1, hidden_size // 4), LARGEST_ORDER)
            order = max(d for d in range(1, most + 1) if hidden_size % d == 0)
        if order < 1 or hidden_size % order:
            raise SettingError(
                f"an LMU of {hidden_size} units is no whole number of memories of order {order}",
                "use an order that divides the units",
            )
        self.input_size, self.hidden_size = input_size, hidden_size
        self.order = order
        self.theta = 2 / math.pi * order if theta is None else theta
        self.weight = nn.Parameter(torch.randn(hidden_size // order, input_size))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`x (batch, time, input_size)` to `y (batch, time, hidden_size)` and the last state."""
        batch, channels, order = len(x), len(self.weight), self.order
        u = x.transpose(0, 1) @ self.weight.T  # (time, batch, channels)
        if state is None:
            state = u.new_zeros(batch, order, channels)
        m = state.transpose(0, 1)
        response, chunks = _response(order, self.theta, u.dtype, u.device), []
        for part in u.split(CHUNK):
            t = len(part)
            known = torch.cat([m, part]).flatten(1)  # (order + t, batch·channels)
            all_m = response[:t, :, : order + t].flatten(0, 1) @ known
            all_m = all_m.view(t, order, batch, channels)
            m = all_m[-1]
            chunks.append(all_m)
        y = torch.cat(chunks).transpose(1, 2).flatten(2)  # (time, batch, order·channels)
        return y.transpose(0, 1), m.transpose(0, 1)
