"""Of a trained model: what its frozen states hold, how far its gradient reaches, what it costs."""

import copy
import statistics
import time
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.cores import batch_dim, tensors
from echospan.evaluation import leading_span, wilson
from echospan.model import EchoModel
from echospan.random_streams import Purpose, seeded
from echospan.random_streams import generator as stream_of
from echospan.sizing import reread_inputs
from echospan.streaming import Stream
from echospan.tasks import EchoTask
from echospan.training import ReadoutLoss

PROBE_STEPS, PROBE_RATE = 500, 2e-3
"""Steps that a probe is fitted in, 256 moments each, and Adam's rate, which falls to zero."""

PROBED = 16_384
"""Moments that a probe is measured on."""

WIDEST_STATE = 4096
"""Numbers of state that the MLP probe takes in beside the output; of a wider one, or one that
grows, none."""


Look = tuple[Tensor, Tensor, Tensor]
"""Outputs `(rows, hidden)`, states `(rows, numbers)` and answers `(rows, delay)` of one moment."""


def _by_row(t: Tensor, dim: int, rows: int, dtype: torch.dtype) -> Tensor:
    """A tensor of a state as `(rows, numbers)`; what all rows share, as a counter, is repeated."""
    t = torch.view_as_real(t) if t.is_complex() else t
    if t.dim() <= dim or t.shape[dim] != rows:
        return t.reshape(1, -1).expand(rows, -1).to(dtype)
    return t.movedim(dim, 0).reshape(rows, -1).to(dtype)


def looks_into(
    model: EchoModel, task: EchoTask, generator: torch.Generator, rows: int = 256
) -> Iterator[Look]:
    """Fresh looks at every third step of sequences like those in which recall is measured."""
    length, dtype = 2 * task.max_delay + 4, model.readouts.weight.dtype
    dim = batch_dim(model.core)
    with torch.no_grad():
        one, two = (
            [t.shape for t in tensors(model.hidden(torch.ones(1, n, dtype=torch.long))[1])]
            for n in (1, 2)
        )
    # Inputs that are read again are kept outside the layer, and are no state of it.
    shown = one == two and reread_inputs(model.core) is None
    while True:
        past, state, read, time = task.empty_past(rows), None, 0, task.max_delay + 1
        while read + time <= length:
            with torch.no_grad():
                symbols, targets = task.batch(rows, time, generator, past)
                past = task.carry(symbols, past)
                y, state = model.hidden(symbols, state)
                parts = [_by_row(t, dim, rows, dtype) for t in tensors(state)]
                if not shown or sum(p.shape[1] for p in parts) > WIDEST_STATE:
                    parts = []
            yield (
                y[:, -1].to(dtype),
                torch.cat([y.new_zeros(rows, 0, dtype=dtype), *parts], 1),
                targets[:, -1],
            )
            read, time = read + time, 3


class _Probe(nn.Module):
    """Linear read-outs and, beside them, an MLP on what was seen that begins by adding nothing."""

    def __init__(self, model: EchoModel, seen: Tensor | None) -> None:
        super().__init__()
        self.linear = copy.deepcopy(model.readouts)
        self.mlp: nn.Sequential | None = None
        if seen is not None:
            spread = seen.std(0)
            self.mean = seen.mean(0)
            # What was still at first may move later: it must not arrive a million times too large.
            self.scale = 1 / spread.clamp(min=float(spread.mean()) / 10 + 1e-12)
            dtype = self.linear.weight.dtype
            last = nn.Linear(256, self.linear.out_features, dtype=dtype)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.mlp = nn.Sequential(nn.Linear(seen.shape[1], 256, dtype=dtype), nn.ReLU(), last)

    def parts(self, y: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Input, weight and bias of the one linear map that gives the logits."""
        if self.mlp is None:
            return y, self.linear.weight, self.linear.bias
        inner = self.mlp[:2]((torch.cat([y, state], 1) - self.mean) * self.scale)
        last = cast(nn.Linear, self.mlp[2])
        return (
            torch.cat([y, inner], 1),
            torch.cat([self.linear.weight, last.weight], 1),
            self.linear.bias + last.bias,
        )


Found = tuple[int, tuple[int, ...]]
"""Trials at each delay, and the right answers of a probe by delay."""


def probe(model: EchoModel, task: EchoTask, seed: int, deadline: float) -> tuple[Found, Found]:
    """Of a linear probe on the output, and of an MLP on output and state.

    Both begin as the trained read-outs and see nothing twice, so neither can learn by heart.
    """
    model.eval()
    looks = looks_into(model, task, stream_of(Purpose.PROBE_FITTING, seed))
    start = time.perf_counter()
    first = [torch.cat(next(looks)[:2], 1) for _ in range(4)]
    with seeded(Purpose.PROBE_WEIGHTS, seed):
        probes = [_Probe(model, None), _Probe(model, torch.cat(first))]
    optimisers = [torch.optim.Adam(p.parameters(), lr=PROBE_RATE) for p in probes]
    for step in range(PROBE_STEPS):
        # A fifth of the time is for what follows.
        used = (time.perf_counter() - start) / (0.8 * max(deadline - start, 1e-9))
        left = 1 - max(step / PROBE_STEPS, used)
        if left <= 0:
            break
        y, state, answers = next(looks)
        for one, optimiser in zip(probes, optimisers, strict=True):
            optimiser.param_groups[0]["lr"] = PROBE_RATE * left
            h, weight, bias = one.parts(y, state)
            loss = ReadoutLoss.apply(h, weight, bias, answers)  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    trials, right = 0, [torch.zeros(task.max_delay + 1, dtype=torch.long) for _ in probes]
    looks = looks_into(model, task, stream_of(Purpose.PROBE_RECALL, seed))
    with torch.no_grad():
        while trials < PROBED and (trials < 2_000 or time.perf_counter() < deadline):
            y, state, answers = next(looks)
            trials += len(y)
            for one, count in zip(probes, right, strict=True):
                said = F.linear(*one.parts(y, state)).view(len(y), -1, model.symbols).argmax(-1)
                count += (said == answers).sum(0)
    linear, mlp = ((trials, tuple(count.tolist())) for count in right)
    return linear, mlp


def probed_span(found: Found, at: float) -> int:
    """Return the span of a probe, by the lower ends of the intervals of its recall."""
    trials, correct = found
    return leading_span((wilson(n, trials)[0] for n in correct), at)


def gradient(model: EchoModel, task: EchoTask, seed: int) -> tuple[float, ...]:
    """|∂(v · y_t)/∂x_{t−d}| by d, v random, over 16 sequences; the largest is 1."""
    generator = stream_of(Purpose.GRADIENT, seed)
    time = 2 * task.max_delay + 2
    x = model.embedding(task.draw(16, time, generator)).detach().requires_grad_()
    y, _ = model.core(x)
    v = torch.randn(y.shape[-1], generator=generator, dtype=torch.float32).to(y)
    if not y.requires_grad:
        return (0.0,) * (task.max_delay + 1)
    (grad,) = torch.autograd.grad((y[:, -1] @ v).sum(), x, allow_unused=True)
    if grad is None:
        return (0.0,) * (task.max_delay + 1)
    norms = grad.nan_to_num().float().norm(dim=2).mean(0).flip(0)[: task.max_delay + 1]
    return tuple((norms / norms.max().clamp(min=1e-30)).tolist())


def microseconds(model: EchoModel) -> float | None:
    """Return the median time of one streamed symbol.

    None where the core has no state to be carried: reading its past again is no cost of the layer.
    """
    if reread_inputs(model.core) is not None:
        return None
    stream, took = Stream(model, model.max_delay), []
    for i in range(60):
        start = time.perf_counter()
        stream.push_ids([1 + i % len(model.alphabet)])
        took.append(time.perf_counter() - start)
    return statistics.median(took[10:]) * 1e6
