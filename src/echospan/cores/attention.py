"""Causal softmax attention with rotary positions (Vaswani et al. 2017; Su et al. 2021).

In the arrangement of today's language models: norm first, attention and MLP each with a residual.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.cores.rotary import turn
from echospan.errors import SettingError
from echospan.validation import sizes

_PASS = 256  # steps attended to at once: a longer input goes piece by piece, in bounded memory


class _Block(nn.Module):
    """`x += attention(norm(x))`, `x += mlp(norm(x))`, over the last `window` steps."""

    angles: Tensor

    def __init__(self, hidden: int, heads: int, window: int, base: float) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm_attention, self.norm_mlp = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 2 * hidden), nn.Linear(2 * hidden, hidden)
        size = hidden // heads
        angles = base ** -(torch.arange(0, size, 2) / size)
        self.register_buffer("angles", angles, persistent=False)
        # At first each head prefers some places over others, whatever was read there.
        self.qkv.weight.data[: 2 * hidden] *= 0.3
        nn.init.normal_(self.qkv.bias[: 2 * hidden], std=2.0)

    def forward(self, x: Tensor, cache: Tensor | None) -> tuple[Tensor, Tensor]:
        """`(batch, time, hidden)` and the cache `(batch, window−1, 2·hidden + 1)` of what was seen.

        Of each of the last window − 1 steps it holds key, value and a 1; a 0 there is no step.
        """
        batch, time, hidden = x.shape
        past = self.window - 1
        q, k, v = self.qkv(self.norm_attention(x)).chunk(3, -1)
        seen = torch.cat([k, v, k.new_ones(batch, time, 1)], -1)
        mask = None
        if cache is not None or time > self.window:
            if cache is not None:
                seen = torch.cat([cache, seen], 1)
            place = torch.arange(seen.shape[1], device=x.device)
            behind = place[-time:, None] - place
            near = (behind >= 0) & (behind < self.window)
            mask = (near & (seen[:, None, :, -1] > 0)).unsqueeze(1)  # (batch, 1, time, seen)
        # Counted from the first new step: a cached key stands at a place below zero.
        place = torch.arange(time - seen.shape[1], time, dtype=x.dtype, device=x.device)
        angle = place[:, None] * self.angles
        k, v = seen[..., :hidden], seen[..., hidden:-1]
        q, k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2) for a in (q, k, v))
        y = F.scaled_dot_product_attention(
            turn(q, angle[-time:]), turn(k, angle), v, mask, is_causal=mask is None
        )  # (batch, heads, time, size)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(self.norm_mlp(x))))
        seen = F.pad(seen, (0, 0, max(0, past - seen.shape[1]), 0))
        return x, seen[:, seen.shape[1] - past :]


class Attention(nn.Module):
    """Blocks of causal attention and MLP, each over the last `window` steps; then a norm.

    Positions are relative and the cache is bounded: a stream of any length gives what one pass over
    it gives. Every head reads one place at a time, so it takes about as many as there are delays to
    read them side by side: hidden/8 where left out. Frequencies fall from 1 towards 1/`base`; a
    small one tells near places apart. It sees `receptive_field` steps. State: a cache a block.
    """

    batch_dim = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        blocks: int = 1,
        heads: int | None = None,
        window: int = 64,
        base: float = 100.0,
    ) -> None:
        super().__init__()
        input_size, hidden_size = sizes(input_size, hidden_size)
        if heads is None:
            fits = range(max(1, hidden_size // 8), 0, -1)
            heads = next((n for n in fits if hidden_size % (2 * n) == 0), 1)
        if heads < 1 or hidden_size % (2 * heads):
            raise SettingError(
                f"{hidden_size} units do not divide into {heads} heads of even size",
                "use a width that is a multiple of twice the heads",
            )
        if blocks < 1 or window < 1:
            raise SettingError(
                f"{blocks} blocks over {window} steps attend to nothing", "use 1 or more of each"
            )
        self.input_size, self.hidden_size, self.window = input_size, hidden_size, window
        self.widen = nn.Linear(input_size, hidden_size)
        self.blocks = nn.ModuleList(_Block(hidden_size, heads, window, base) for _ in range(blocks))
        self.norm = nn.LayerNorm(hidden_size)

    @property
    def receptive_field(self) -> int:
        """Steps that an output can know of, its own included: its span is one less."""
        return 1 + len(self.blocks) * (self.window - 1)

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """`(batch, time, input_size) -> (batch, time, hidden_size)` and a cache a block."""
        outputs = []
        for part in x.split(_PASS, 1):
            y, caches = self.widen(part), []
            for block, cache in zip(self.blocks, state or [None] * len(self.blocks), strict=True):
                y, cache = block(y, cache)
                caches.append(cache)
            outputs.append(self.norm(y))
            state = tuple(caches)
        assert state is not None
        return torch.cat(outputs, 1), state
