"""Every recurrence as a plain loop: the definition that the fast paths are tested against."""

from collections.abc import Callable, Sequence

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


def scan(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """`x_t = a_t ⊙ x_{t−1} + b_t`, every one of them, time first.

    `b (time, …)`, `a (time, …)` or the same at every step, `x (…)`.
    """
    outputs = []
    for t in range(len(b)):
        x = (a[t] if a.dim() == b.dim() else a) * x + b[t]
        outputs.append(x)
    return torch.stack(outputs)


def min_gru(
    x: Tensor, h: Tensor, w_z: Tensor, b_z: Tensor, w_h: Tensor, b_h: Tensor
) -> tuple[Tensor, Tensor]:
    """Minimal GRU, one layer (Feng et al. 2024, arXiv:2410.01201).

        z = σ(W_z x + b_z)
        h = (1 − z) ⊙ h + z ⊙ (W_h x + b_h)

    `x (batch, time, features)`, `h (batch, hidden)`, weights `(hidden, features)`.
    Returns `(batch, time, hidden)` and the last `(batch, hidden)`.
    """
    outputs = []
    for x_t in x.unbind(1):
        z = torch.sigmoid(x_t @ w_z.T + b_z)
        h = (1 - z) * h + z * (x_t @ w_h.T + b_h)
        outputs.append(h)
    return torch.stack(outputs, 1), h


def min_lstm(
    x: Tensor,
    h: Tensor,
    w_f: Tensor,
    b_f: Tensor,
    w_i: Tensor,
    b_i: Tensor,
    w_h: Tensor,
    b_h: Tensor,
) -> tuple[Tensor, Tensor]:
    """Minimal LSTM (Feng et al. 2024, arXiv:2410.01201).

        f = σ(W_f x + b_f),  i = σ(W_i x + b_i)
        h = f/(f + i) ⊙ h + i/(f + i) ⊙ (W_h x + b_h)

    Shapes as in `min_gru`.
    """
    outputs = []
    for x_t in x.unbind(1):
        f, i = torch.sigmoid(x_t @ w_f.T + b_f), torch.sigmoid(x_t @ w_i.T + b_i)
        h = f / (f + i) * h + i / (f + i) * (x_t @ w_h.T + b_h)
        outputs.append(h)
    return torch.stack(outputs, 1), h


def lru(
    u: Tensor, x: Tensor, nu: Tensor, theta: Tensor, log_gamma: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """Linear recurrent unit, its state alone (Orvieto et al. 2023, arXiv:2303.06349).

        λ = exp(−e^ν + i·e^θ)
        x = λ ⊙ x + e^{log γ} ⊙ (B u)

    `u (batch, time, features)`, `x (batch, n)` complex, `nu`, `theta` and `log_gamma (n,)`,
    `b (n, features)` complex. Returns `(batch, time, n)` and the last `(batch, n)`, complex.
    """
    eigenvalues = torch.exp(torch.complex(-nu.exp(), theta.exp()))
    outputs = []
    for u_t in u.unbind(1):
        x = eigenvalues * x + log_gamma.exp() * (u_t.to(b.dtype) @ b.T)
        outputs.append(x)
    return torch.stack(outputs, 1), x


def s4d(
    u: Tensor, x: Tensor, log_step: Tensor, a: Tensor, c: Tensor, d: Tensor
) -> tuple[Tensor, Tensor]:
    """The state spaces of S4D, one a feature, without projections (arXiv:2206.11893).

        Ā = exp(ΔA),  B̄ = (Ā − 1)/A        zero-order hold with B = 1
        x = Ā x + B̄ u
        s = 2 Re(Σ_n C_n x_n) + D u

    `u (batch, time, hidden)`, `x (batch, hidden, n)` complex, `log_step` and `d (hidden,)`,
    `a` and `c (hidden, n)` complex. Returns `(batch, time, hidden)` and the last `x`.
    """
    a_bar = torch.exp(log_step.exp()[:, None] * a)
    b_bar = (a_bar - 1) / a
    outputs = []
    for u_t in u.unbind(1):
        x = a_bar * x + b_bar * u_t[..., None]
        outputs.append(2 * (c * x).sum(-1).real + d * u_t)
    return torch.stack(outputs, 1), x


def selective_scan(
    u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """The selective state space of Mamba (Gu and Dao 2023, arXiv:2312.00752).

        h = exp(Δ_t A) ⊙ h + Δ_t B_t u_t
        y = C_t h

    `u` and `delta (batch, time, features)`, `a (states, features)`, `b` and `c (batch, time,
    states)`, `h (batch, states, features)`. Returns `(batch, time, features)` and the last `h`.
    """
    outputs = []
    for t in range(u.shape[1]):
        step = delta[:, t, None]  # (batch, 1, features)
        h = torch.exp(step * a) * h + step * b[:, t, :, None] * u[:, t, None]
        outputs.append((c[:, t, :, None] * h).sum(1))
    return torch.stack(outputs, 1), h


def lmu(u: Tensor, m: Tensor, a_bar: Tensor, b_bar: Tensor) -> tuple[Tensor, Tensor]:
    """The memory of a Legendre memory unit (Voelker et al. 2019), for each channel of `u`.

        m = Ā m + B̄ u

    `u (batch, time, channels)`, `m (batch, order, channels)`, `a_bar (order, order)`,
    `b_bar (order,)`. Returns `(batch, time, order, channels)` and the last `m`.
    """
    outputs = []
    for u_t in u.unbind(1):
        m = a_bar @ m + b_bar[:, None] * u_t[:, None]
        outputs.append(m)
    return torch.stack(outputs, 1), m


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


def rnn(
    x: Tensor,
    h: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    f: Callable[[Tensor], Tensor] = torch.tanh,
) -> tuple[Tensor, Tensor]:
    """Elman's network (Elman 1990): `h = f(W x + b + U h + c)`, f tanh or ReLU.

    `x (batch, time, features)`, `h (batch, hidden)`, `w_ih (hidden, features)`,
    `w_hh (hidden, hidden)`, biases `(hidden,)`. Returns `(batch, time, hidden)` and the last.
    """
    outputs = []
    for x_t in x.unbind(1):
        h = f(x_t @ w_ih.T + b_ih + h @ w_hh.T + b_hh)
        outputs.append(h)
    return torch.stack(outputs, 1), h


def lstm(
    x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

        i, f, o = σ(W x + b + U h + c)      input, forget and output gate, each with its W, b, U, c
        g = tanh(W_g x + b_g + U_g h + c_g)
        c = f ⊙ c + i ⊙ g                   the cell
        h = o ⊙ tanh(c)

    `x (batch, time, features)`, `h` and cell `c (batch, hidden)`, `w_ih (4·hidden, features)`,
    `w_hh (4·hidden, hidden)`, biases `(4·hidden,)`; stacked in the order i, f, g, o. Returns
    `(batch, time, hidden)`, the last h and the last cell.
    """
    outputs = []
    for x_t in x.unbind(1):
        i, f, g, o = (x_t @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, 1), h, c


def reservoir(x: Tensor, h: Tensor, w_in: Tensor, w: Tensor, leak: float) -> tuple[Tensor, Tensor]:
    """Echo state network with leaky units (Jaeger 2001; Jaeger et al. 2007), W and W_in fixed.

        h = (1 − a) h + a tanh(W h + W_in x)

    `x (batch, time, features)`, `h (batch, hidden)`, `w_in (hidden, features)`,
    `w (hidden, hidden)`. Returns `(batch, time, hidden)` and the last `(batch, hidden)`.
    """
    outputs = []
    for x_t in x.unbind(1):
        h = (1 - leak) * h + leak * torch.tanh(h @ w.T + x_t @ w_in.T)
        outputs.append(h)
    return torch.stack(outputs, 1), h


def delay_line(x: Tensor, past: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    """The last W inputs side by side, the newest first, then zeros: `y = [x_t, …, x_{t−W+1}, 0]`.

    `x (batch, time, features)`, `past (batch, W−1, features)`, the inputs before `x`. Returns
    `(batch, time, hidden)` and the last W − 1 inputs.
    """
    last, outputs = list(past.unbind(1)), []
    for x_t in x.unbind(1):
        last.append(x_t)
        y = torch.cat(last[::-1], -1)
        outputs.append(torch.cat([y, y.new_zeros(len(y), hidden - y.shape[1])], -1))
        last.pop(0)
    return torch.stack(outputs, 1), torch.stack(last, 1) if last else past


def dilated_conv(
    x: Tensor, past: Tensor, weight: Tensor, bias: Tensor, dilation: int
) -> tuple[Tensor, Tensor]:
    """Dilated causal convolution over all channels (Bai et al. 2018, arXiv:1803.01271).

        y_t = b + Σ_i W_i x_{t−(k−1−i)·dilation}        i = 0 … k−1

    `x (batch, time, inputs)`, `past (batch, (k−1)·dilation, inputs)`,
    `weight (outputs, k, inputs)`, `bias (outputs,)`. Returns `(batch, time, outputs)` and the
    last (k−1)·dilation inputs.
    """
    last, outputs = list(past.unbind(1)), []
    for x_t in x.unbind(1):
        last.append(x_t)
        outputs.append(
            bias
            + sum(x_i @ w_i.T for w_i, x_i in zip(weight.unbind(1), last[::dilation], strict=True))
        )
        last.pop(0)
    return torch.stack(outputs, 1), torch.stack(last, 1)


def tcn(
    x: Tensor,
    past: Sequence[Tensor],
    widen: tuple[Tensor, Tensor],
    convs: Sequence[tuple[Tensor, Tensor]],
) -> tuple[Tensor, list[Tensor]]:
    """Temporal convolutional network (Bai et al. 2018), without weight norm and dropout.

        block n:  x ← ReLU(x + ReLU(conv(ReLU(conv(x)))))        dilation 2ⁿ, n = 0, 1, …

    and in block 0 the x that is added is W x + b, `widen`. `convs`: weight and bias of each
    `dilated_conv`, two a block; `past` and what is returned beside y: their left contexts.
    """
    contexts = []
    for n in range(len(convs) // 2):
        inner = x
        for (weight, bias), before in list(zip(convs, past, strict=True))[2 * n : 2 * n + 2]:
            inner, context = dilated_conv(inner, before, weight, bias, 2**n)
            inner = torch.relu(inner)
            contexts.append(context)
        x = torch.relu((x @ widen[0].T + widen[1] if n == 0 else x) + inner)
    return x, contexts


def turn(x: Tensor, angles: Tensor) -> Tensor:
    """Each pair (x_i, x_{i+n/2}) turned by its angle in the plane (Su et al. 2021)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    past: Sequence[tuple[Tensor, Tensor]],
    angles: Tensor,
    window: int,
) -> Tensor:
    """Causal softmax attention over the last `window` steps (Vaswani et al. 2017).

        y_t = Σ_d p_d v_{t−d}        p = softmax over d of q_t · turn(k_{t−d}, −d·angles) / √size

    with rotary positions (Su et al. 2021, arXiv:2104.09864). `q, k, v (batch, time, heads, size)`;
    `past`: key and value `(batch, heads, size)` of each step before. Returns the shape of q.
    """
    seen, outputs = list(past), []
    for q_t, k_t, v_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
        seen = [*seen, (k_t, v_t)][-window:]
        scores = torch.stack(
            [(q_t * turn(key, -d * angles)).sum(-1) for d, (key, _) in enumerate(reversed(seen))],
            -1,
        )
        p = torch.softmax(scores / q.shape[-1] ** 0.5, -1)
        values = torch.stack([value for _, value in reversed(seen)], -2)
        outputs.append((p.unsqueeze(-2) @ values).squeeze(-2))
    return torch.stack(outputs, 1)


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, s: Tensor, z: Tensor, keep: Tensor, angles: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Linear attention (Katharopoulos et al. 2020, arXiv:2006.16236) that turns and forgets.

        S ← γ turn(S) + φ(k) vᵀ
        z ← γ z + φ(k)                       φ = elu + 1
        y = Sᵀ φ(q) / (zᵀ φ(q) + 10⁻⁶)

    `q, k (batch, time, heads, key)`, `v (batch, time, heads, size)`, `s (batch, heads, key, size)`,
    `z (batch, heads, key)`, `keep (heads,)` γ, `angles (key/2,)`. Returns the shape of v, S and z.
    """
    q, k = torch.nn.functional.elu(q) + 1, torch.nn.functional.elu(k) + 1
    outputs = []
    for q_t, k_t, v_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
        s = keep[:, None, None] * turn(s.mT, angles).mT + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
        z = keep[:, None] * z + k_t
        y = (q_t.unsqueeze(-2) @ s).squeeze(-2)
        outputs.append(y / ((q_t * z).sum(-1, keepdim=True) + 1e-6))
    return torch.stack(outputs, 1), s, z


def delta_net(
    q: Tensor, k: Tensor, v: Tensor, rate: Tensor, s: Tensor, angles: Tensor
) -> tuple[Tensor, Tensor]:
    """Delta rule (Schlag et al. 2021, arXiv:2102.11174) on a memory that turns.

        S ← turn(S)
        S ← S + β k (v − Sᵀ k)ᵀ
        y = Sᵀ q

    `q, k (batch, time, heads, key)` of norm 1, `v (batch, time, heads, size)`,
    `rate (batch, time, heads)` β, `s (batch, heads, key, size)`, `angles (key/2,)`. Returns the
    shape of v, and S.
    """
    outputs = []
    for q_t, k_t, v_t, rate_t in zip(*(a.unbind(1) for a in (q, k, v, rate)), strict=True):
        s = turn(s.mT, angles).mT
        held = (k_t.unsqueeze(-2) @ s).squeeze(-2)
        s = s + k_t.unsqueeze(-1) * (rate_t.unsqueeze(-1) * (v_t - held)).unsqueeze(-2)
        outputs.append((q_t.unsqueeze(-2) @ s).squeeze(-2))
    return torch.stack(outputs, 1), s
