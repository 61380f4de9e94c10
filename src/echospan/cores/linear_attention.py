"""Linear attention (Katharopoulos et al. 2020, arXiv:2006.16236): attention that is a recurrence.

Within a chunk every pair of steps is weighed at once; from chunk to chunk go two sums a head.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.cores.rotary import turn
from echospan.errors import SettingError
from echospan.validation import sizes


class LinearAttention(nn.Module):
    """`S ← γS + φ(k) vᵀ`, `z ← γz + φ(k)`, read as `y = Sᵀφ(q) / zᵀφ(q)`; φ = elu + 1.

    Beyond the paper, S is turned by an angle a step (rotary.py; the normaliser z is not, as Su et
    al. 2021 do), for a plain sum does not know the order of what it adds up; and each head forgets
    at a learnt rate γ (as in Sun et al. 2023, arXiv:2307.08621), from 4 to 128 steps at first, for
    a sum over an unending stream drowns its newest terms. The angles are spread evenly over half a
    turn. `heads` is about hidden/8 where left out; state `(batch, heads, key_size, hidden/heads)`
    and `(batch, heads, key_size)`.
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
        chunk: int = 64,
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
        self.log_rate = nn.Parameter(-torch.logspace(2, 7, heads, base=2).log())  # γ = exp(−rate)
        half = key_size // 2
        angles = math.pi * (torch.arange(half) + 0.5) / half
        self.register_buffer("angles", angles, persistent=False)
        # At first keys and queries depend more on the step than on what was read in it.
        for layer in (self.q, self.k):
            nn.init.normal_(layer.weight, std=0.3)
            nn.init.normal_(layer.bias)
        nn.init.normal_(self.v.weight)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`(batch, time, input_size) -> (batch, time, hidden_size)` and the sums S and z."""
        if state is None:
            size = self.hidden_size // self.heads
            s = x.new_zeros(len(x), self.heads, self.key_size, size)
            state = s, s.new_zeros(s.shape[:-1])
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q(x), self.k(x), self.v(x))
        )  # (batch, heads, time, size)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        outputs = []
        for parts in zip(*(a.split(self.chunk, 2) for a in (q, k, v)), strict=True):
            y, state = self._chunk(parts, state)
            outputs.append(y)
        return torch.cat(outputs, 2).transpose(1, 2).flatten(2), state

    def _chunk(
        self, parts: tuple[Tensor, ...], state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        (q, k, v), (s, z) = parts, state
        time = q.shape[2]
        step = torch.arange(1, time + 1, dtype=q.dtype, device=q.device)
        rate = -self.log_rate.exp()[:, None, None]
        behind = (step[:, None] - step).clamp(min=0)
        kept = torch.exp(rate * behind).tril()  # (heads, time, time): γ^(t−s), and 0 ahead
        start_kept = torch.exp(rate * step[:, None])  # (heads, time, 1)
        end_kept = torch.exp(rate * (time - step))  # (heads, 1, time)
        # Turning queries and keys back is turning the state on.
        back = -step[:, None] * self.angles
        turned_q, turned_k = turn(q, back), turn(k, back).transpose(-1, -2)
        k = k.transpose(-1, -2)
        y = (turned_q @ turned_k * kept) @ v + start_kept * (turned_q @ s)
        total = (q @ k * kept).sum(-1, keepdim=True) + start_kept * (q @ z.unsqueeze(-1))
        s = start_kept[:, -1:] * s + (turned_k * end_kept) @ v
        z = start_kept[:, -1] * z + (k * end_kept).sum(-1)
        s = turn(s.transpose(-1, -2), time * self.angles).transpose(-1, -2)
        return y / (total + 1e-6), (s, z)
