"""DeltaNet: a fast-weight memory that replaces what a key held (Schlag et al. 2021).

Trained in chunks, in which the states' updates are one triangular system (the WY form of Yang et
al. 2024, arXiv:2406.06484); from chunk to chunk goes one matrix a head.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.cores.rotary import turn
from echospan.errors import SettingError
from echospan.validation import sizes


class DeltaNet(nn.Module):
    """`S ← S + β k (v − Sᵀk)ᵀ`, read as `y = Sᵀq`; q, k of norm 1 and β = σ(…) are made of x.

    Beyond the papers, keys age: S is turned by an angle a step (rotary.py), for keys that know no
    position cannot be asked for by delay. The angles are spread evenly over half a turn, so that
    equal keys of up to `key_size` steps are orthogonal, and with them what they hold. Without the
    papers' short convolution and output norm. `heads` is about hidden/8 where left out; state
    `(batch, heads, key_size, hidden/heads)`.
    """

    batch_dim = 0
    angles: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        heads: int | None = None,
        key_size: int = 32,
        chunk: int = 16,
    ) -> None:
        super().__init__()
        input_size, hidden_size = sizes(input_size, hidden_size)
        if heads is None:
            heads = next(n for n in range(max(1, hidden_size // 8), 0, -1) if hidden_size % n == 0)
        if heads < 1 or hidden_size % heads:
            raise SettingError(
                f"{hidden_size} units do not divide into {heads} heads",
                f"use a divisor of {hidden_size}",
            )
        if key_size < 2 or key_size % 2:
            raise SettingError(f"the keys' size is {key_size}", "use an even number of 2 or more")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.heads, self.key_size, self.chunk = heads, key_size, chunk
        self.q = nn.Linear(input_size, heads * key_size)
        self.k = nn.Linear(input_size, heads * key_size)
        self.v = nn.Linear(input_size, hidden_size, bias=False)
        self.rate = nn.Linear(input_size, heads)
        half = key_size // 2
        angles = math.pi * (torch.arange(half) + 0.5) / half
        self.register_buffer("angles", angles, persistent=False)
        # At first keys and queries depend more on the step than on what was read in it.
        for layer in (self.q, self.k):
            nn.init.normal_(layer.weight, std=0.3)
            nn.init.normal_(layer.bias)
        nn.init.normal_(self.v.weight)
        nn.init.zeros_(self.rate.weight)
        nn.init.constant_(self.rate.bias, 2.0)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`(batch, time, input_size) -> (batch, time, hidden_size)` and the heads' matrices."""
        if state is None:
            size = self.hidden_size // self.heads
            state = x.new_zeros(len(x), self.heads, self.key_size, size)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q(x), self.k(x), self.v(x))
        )  # (batch, heads, time, size)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        rate = torch.sigmoid(self.rate(x)).transpose(1, 2).unsqueeze(-1)
        outputs = []
        for parts in zip(*(a.split(self.chunk, 2) for a in (q, k, v, rate)), strict=True):
            y, state = self._chunk(parts, state)
            outputs.append(y)
        return torch.cat(outputs, 2).transpose(1, 2).flatten(2), state

    def _chunk(self, parts: tuple[Tensor, ...], state: Tensor) -> tuple[Tensor, Tensor]:
        """One chunk. What step t writes, d_t, solves a triangular system with unit diagonal:

        d_t = β_t (v_t − Sᵀk_t − Σ_{s<t} (k_s·k_t) d_s),    S ← S + Σ_t k_t d_tᵀ
        """
        q, k, v, rate = parts
        time = q.shape[2]
        step = torch.arange(1, time + 1, dtype=q.dtype, device=q.device)
        # Turning queries and keys back is turning the state on.
        back = -step[:, None] * self.angles
        q, k = turn(q, back), turn(k, back)
        keys = k.transpose(-1, -2)
        wide = self.angles.dtype  # no solver knows half of it
        written = torch.linalg.solve_triangular(
            (rate * (k @ keys)).to(wide),
            (rate * (v - k @ state)).to(wide),
            upper=False,
            unitriangular=True,
        )
        y = q @ state + (q @ keys).tril() @ written
        state = state + keys @ written
        return y, turn(state.transpose(-1, -2), time * self.angles).transpose(-1, -2)
