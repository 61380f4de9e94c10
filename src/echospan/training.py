"""Training: every delay supervised at every step, stopped when recall has reached the target."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.evaluation import Evaluation, evaluate
from echospan.model import EchoModel
from echospan.recipes import Recipe
from echospan.tasks import EchoTask


class ReadoutLoss(torch.autograd.Function):
    """Mean cross-entropy of linear read-outs, with their gradients made in the same pass.

    `h (rows, hidden)`, `weight (delays·symbols, hidden)`, `bias (delays·symbols,)`,
    `targets (rows, delays)`. The logits are overwritten by their own gradient: at these sizes the
    read-outs' memory traffic costs as much as the recurrence.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        """The loss; the gradients are made here and kept."""
        rows, delays = targets.shape
        logits = torch.addmm(bias, h, weight.T).view(rows, delays, -1)
        p = torch.log_softmax(logits, -1)
        index = targets.unsqueeze(-1)
        loss = -p.gather(-1, index).mean()
        p.exp_().scatter_add_(-1, index, p.new_full((1, 1, 1), -1.0).expand_as(index))
        grad = p.mul_(1 / (rows * delays)).view(rows, -1)
        ctx.save_for_backward(grad @ weight, grad.T @ h, grad.sum(0))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """The kept gradients, scaled."""
        h, weight, bias = ctx.saved_tensors
        return h * grad, weight * grad, bias * grad, None


@dataclass(frozen=True)
class Progress:
    """What was reached after `step` steps and `seconds` of training, evaluation not counted."""

    step: int
    seconds: float
    loss: float
    evaluation: Evaluation


@dataclass(frozen=True)
class TrainingResult:
    """The model in `eval()` and how it came to be."""

    model: EchoModel
    seconds_to_target: float | None
    seconds: float
    steps: int
    symbols: int
    history: tuple[Progress, ...]
    interrupted: bool

    @property
    def reached(self) -> bool:
        """Whether the target was reached at every delay asked for."""
        return self.seconds_to_target is not None


def train(recipe: Recipe, on_progress: Callable[[Progress], None] | None = None) -> TrainingResult:
    """Build and train a model; deterministic for a seed on one machine and thread count.

    `on_progress` is called after each evaluation. Ctrl-C ends it and keeps what was reached.
    """
    config = recipe.training
    # The first optimiser of a process imports much of torch: an import, not training.
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        start = time.perf_counter()
        model = EchoModel(recipe.model)
    model.train()
    task = EchoTask(len(model.alphabet), model.max_delay)
    generator = torch.Generator().manual_seed(config.seed)
    delay_draw = random.Random(config.seed)
    parameters = list(model.parameters())
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    history: list[Progress] = []
    state: Tensor | None = None
    past = task.empty_past(config.batch)
    evaluating = 0.0
    to_target: float | None = None
    check_every, step, interrupted = 20, 0, False
    worst = 0.0
    try:
        while True:
            elapsed = time.perf_counter() - start - evaluating
            if to_target is not None:
                left = 1 - (elapsed - to_target) / config.polish if config.polish else 0.0
                if left <= 0:
                    break
                # From the rate reached, down to zero over the polish.
                rate = config.learning_rate * 0.5 * left
            else:
                if elapsed >= config.seconds or step >= config.steps:
                    break
                rate = config.learning_rate * max(0.05, min(1.0, 2 - 2 * step / config.decay_steps))
            for group in optimiser.param_groups:
                group["lr"] = rate
            if to_target is None or not config.carry or recipe.model.conditioning == "input":
                state, past = None, task.empty_past(config.batch)
            elif state is not None:
                keep = torch.rand(config.batch, generator=generator) < config.carry
                state, past = state * keep[:, None], past * keep[:, None]
            symbols, targets = task.batch(config.batch, config.window, generator, past)
            if model.by_input:
                # Weigh the draw towards long delays: the short ones come along by themselves.
                weights = [1 + d for d in range(model.max_delay + 1)]
                drawn = delay_draw.choices(range(model.max_delay + 1), weights, k=config.batch)
                delays = torch.tensor(drawn)
                logits, _ = model.answer(symbols, delays)
                wanted = targets.gather(2, delays[:, None, None].expand(*symbols.shape, 1))
                loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
            else:
                y, state = model.hidden(symbols, state)
                # Time first, as the core lays it out: no copy on the way to the matrix products.
                loss = ReadoutLoss.apply(  # type: ignore[no-untyped-call]
                    y.transpose(0, 1).flatten(0, 1),
                    model.readouts.weight,
                    model.readouts.bias,
                    targets.transpose(0, 1).flatten(0, 1),
                )
                state, past = state.detach(), task.carry(symbols, past)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            step += 1
            if to_target is None and step % check_every == 0:
                before = time.perf_counter()
                # A glance decides whether a look worth an interval is due.
                seen = evaluate(model, trials=2_000, seed=config.seed + 1_000_003)
                worst = min(seen.delays[d].recall for d in recipe.model.asked)
                if worst >= config.target:
                    seen = evaluate(model, trials=50_000, seed=config.seed + 1_000_003)
                progress = Progress(step, before - start - evaluating, loss.item(), seen)
                if seen.reached(recipe.model.asked, config.target):
                    to_target = progress.seconds
                history.append(progress)
                if on_progress:
                    on_progress(progress)
                evaluating += time.perf_counter() - before
    except KeyboardInterrupt:
        interrupted = True
    seconds = time.perf_counter() - start - evaluating
    model.eval()
    return TrainingResult(
        model=model,
        seconds_to_target=to_target,
        seconds=seconds,
        steps=step,
        symbols=step * config.batch * config.window,
        history=tuple(history),
        interrupted=interrupted,
    )
