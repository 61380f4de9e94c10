"""Diagonal state-space model, one for each feature (Gu et al. 2022, arXiv:2206.11893: S4D-Lin).

In time the model is a convolution with a learned kernel; a chunk of it is one matrix product.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.cores.scan import scan
from echospan.errors import SettingError
from echospan.validation import sizes

CHUNK = 64
"""The longest stretch whose kernel is written out as a matrix."""


class S4D(nn.Module):
    """`x_t = Ā x_{t−1} + B̄ u_t`, `s_t = 2 Re(C x_t) + D u_t` for each feature u of `W_in` times the
    input, then `y = W_out GELU(s)`.

    `Ā = exp(ΔA)`, `B̄ = (Ā − 1)/A` (zero-order hold, B = 1), `states / 2` complex numbers a
    feature, which begin at `A_n = −1/2 + iπn` with Δ spread evenly in the logarithm over `step`:
    memories of 4 to 400 steps, five times shorter than the paper's, which blur single symbols.
    The state is `(batch, hidden_size, states / 2, 2)`.
    """

    batch_dim = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        states: int = 32,
        step: tuple[float, float] = (5e-3, 0.5),
    ) -> None:
        super().__init__()
        input_size, hidden_size = sizes(input_size, hidden_size)
        if states < 2 or states % 2:
            raise SettingError(
                f"{states} states are no whole number of complex pairs",
                "use an even number of 2 or more",
            )
        self.input_size, self.hidden_size = input_size, hidden_size
        n = states // 2
        low, high = math.log(step[0]), math.log(step[1])
        self.log_step = nn.Parameter(torch.rand(hidden_size) * (high - low) + low)
        self.log_decay = nn.Parameter(torch.full((hidden_size, n), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(n).expand(hidden_size, n).clone())
        self.c = nn.Parameter(torch.randn(hidden_size, n, 2) * math.sqrt(0.5))
        self.d = nn.Parameter(torch.randn(hidden_size))
        self.project_in = nn.Linear(input_size, hidden_size)
        self.project_out = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`x (batch, time, input_size)` to `y (batch, time, hidden_size)` and the last state."""
        batch, time, _ = x.shape
        hidden = self.hidden_size
        # Feature first: every product below is then one batch of matrix products.
        u = torch.addmm(
            self.project_in.bias[:, None], self.project_in.weight, x.permute(2, 1, 0).flatten(1)
        ).view(hidden, time, batch)
        a = torch.complex(-self.log_decay.exp(), self.frequency)
        a_bar = torch.exp(a * self.log_step.exp()[:, None])
        b_bar = (a_bar - 1) / a
        c = 2 * torch.view_as_complex(self.c)
        # Powers of Ā by running it on its own: (length + 1, hidden, n).
        length = min(time, CHUNK)
        one = torch.ones_like(a_bar)
        powers = torch.cat([one[None], scan(a_bar, one.new_zeros(length, *one.shape), one)])
        kernel = torch.einsum(
            "thnr,hnr->ht",
            torch.view_as_real(powers[:length]),
            torch.view_as_real((c * b_bar).conj().resolve_conj()),
        )
        kernel = torch.cat([kernel[:, :1] + self.d[:, None], kernel[:, 1:]], 1)
        within = F.pad(kernel.flip(1), (0, length - 1)).unfold(1, length, 1).flip(1)
        # As real numbers: what is stored of each step, and what is read of the state before.
        store = torch.view_as_real(powers[:length].flip(0) * b_bar)  # (length, hidden, n, 2)
        store = store.permute(1, 2, 3, 0).flatten(1, 2)  # (hidden, 2·n, length)
        read = torch.view_as_real((powers[1:] * c).conj().resolve_conj())
        read = read.transpose(0, 1).flatten(2)  # (hidden, length, 2·n)
        out, h = [], None
        if state is not None:
            h = state.permute(1, 2, 3, 0)  # (hidden, n, 2, batch)
        for part in u.split(CHUNK, 1):
            t = part.shape[1]
            s = within[:, :t, :t] @ part
            new = (store[:, :, length - t :] @ part).unflatten(1, (-1, 2))
            if h is not None:
                s = s + read[:, :t] @ h.flatten(1, 2)
                re, im = powers[t].real[..., None], powers[t].imag[..., None]
                new = new + torch.stack(
                    [re * h[:, :, 0] - im * h[:, :, 1], re * h[:, :, 1] + im * h[:, :, 0]], 2
                )
            h = new
            out.append(s)
        s = F.gelu(torch.cat(out, 1).flatten(1))
        y = F.linear(s.T, self.project_out.weight, self.project_out.bias)
        assert h is not None
        return y.view(time, batch, hidden).transpose(0, 1), h.permute(3, 0, 1, 2)
