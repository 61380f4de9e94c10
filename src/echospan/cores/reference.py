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


def causal_convolution(x: Tensor, past: Tensor, kernel: Tensor, offset: Tensor) -> Tensor:
    """A filter for each feature: `y_t = offset + Σ_k kernel_k ⊙ x_{t − width + 1 + k}`.

    `x (batch, time, features)`, `past (batch, width − 1, features)` read just before it, `kernel
    (width, features)`. Returns `(batch, time, features)`.
    """
    read = torch.cat([past, x], 1)
    outputs = []
    for t in range(x.shape[1]):
        outputs.append(offset + (read[:, t : t + len(kernel)] * kernel).sum(1))
    return torch.stack(outputs, 1)


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
