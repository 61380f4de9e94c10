"""Training: every delay supervised at every step, stopped when recall has reached the target."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from echospan.cores import State, batch_dim, map_state
from echospan.errors import DeviceError, DivergenceError
from echospan.evaluation import Evaluation, evaluate
from echospan.model import EchoModel
from echospan.recipes import Recipe
from echospan.tasks import EchoTask


def find_device(name: str) -> torch.device:
    """The device of that name; DeviceError where this machine does not have it."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        there = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise DeviceError(
            f"there is no device {name!r} here", "use one of " + ", ".join(["cpu", *there])
        ) from None
    return device


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
    reached: bool
    """Whether the target has been reached, now or before."""
    used: float
    """Share of the budget that is spent."""


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


@contextlib.contextmanager
def interrupted_by(*signals: int) -> Iterator[list[int]]:
    """A list that the first of these signals makes true: what is under way is finished first.

    An exception may be raised anywhere, also where Python swallows it. A second signal is one.
    Where a signal is ignored, as under nohup, it stays so; only a main thread hears of any.
    """
    stop: list[int] = []
    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        heard = []
    before = {number: signal.getsignal(number) for number in heard}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(number: int, _: object) -> None:
        stop.append(number)
        restore()

    for number in heard:
        signal.signal(number, first)
    try:
        yield stop
    finally:
        restore()


def train(
    recipe: Recipe,
    on_progress: Callable[[Progress], None] | None = None,
    core: nn.Module | None = None,
    deadline: float = math.inf,
) -> TrainingResult:
    """Build and train a model; deterministic for a seed on one machine and thread count.

    `on_progress` is called after each evaluation. `core` takes the place of the one that the
    recipe names. Ctrl-C ends it and keeps what was reached. `deadline`, of `time.perf_counter`,
    ends it too, what evaluation takes included.
    """
    device = find_device(recipe.training.device)
    # The first optimiser of a process imports much of torch: an import, not training.
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    # Not the weights alone: a layer may draw while it is trained, as dropout does.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.training.seed)
        return _train(recipe, on_progress, core, device, deadline)


def _train(
    recipe: Recipe,
    on_progress: Callable[[Progress], None] | None,
    core: nn.Module | None,
    device: torch.device,
    deadline: float,
) -> TrainingResult:
    config = recipe.training
    start = time.perf_counter()
    model = EchoModel(recipe.model, core).to(device).train()
    task = EchoTask(len(model.alphabet), model.max_delay)
    generator = torch.Generator(device).manual_seed(config.seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(
        parameters,
        lr=config.learning_rate,
        betas=(0.9, 0.99),
        fused=all(p.is_floating_point() for p in parameters),  # it knows no complex numbers
    )
    history: list[Progress] = []
    state: State = None
    past = task.empty_past(config.batch, device)
    delays = torch.zeros(config.batch, dtype=torch.long, device=device)
    weights = torch.ones(model.max_delay + 1, device=device)
    evaluating, smooth_loss = 0.0, math.log(model.symbols)
    to_target: float | None = None
    step, check_at, last_step = 0, 20, config.steps
    polished_from = 0.5 * config.learning_rate
    a_step = config.batch * recipe.window
    if config.symbols:
        last_step = min(last_step, math.ceil(config.symbols / a_step))
    with interrupted_by(signal.SIGINT) as stop:
        while not stop:
            now = time.perf_counter()
            elapsed = now - start - evaluating
            late = (now - start) / max(deadline - start, 1e-9)
            left = 1 - max(elapsed / config.seconds, step / last_step, late)
            if left <= 0:
                break
            if to_target is not None:
                rate = polished_from * (last_step - step) / config.polish
            else:
                # The loss is the clock: one schedule for every size, delay and alphabet.
                rate = config.learning_rate * max(0.05, min(1.0, math.sqrt(smooth_loss / 0.2)))
                if left < config.fall:
                    rate *= left / config.fall
            for group in optimiser.param_groups:
                group["lr"] = rate
            keep = torch.rand(config.batch, generator=generator, device=device) < config.carry
            if not getattr(model.core, "zeros_are_empty", True):
                keep = keep[:1].expand_as(keep)  # nobody can empty one row of it: all begin anew
            if state is not None:
                state, past = _keep_rows(model.core, state, keep), past * keep[:, None]
            symbols, targets = task.batch(config.batch, recipe.window, generator, past)
            if model.by_input:
                # A row keeps its delay as long as its state; delays still missed are drawn most.
                fresh = torch.multinomial(weights, config.batch, True, generator=generator)
                delays = torch.where(keep, delays, fresh) if step else fresh
            y, state = model.hidden(symbols, state, delays)
            weight: Tensor = model.readouts.weight
            bias: Tensor = model.readouts.bias
            targets_asked = targets
            if model.by_input:
                index = delays[:, None, None].expand(*symbols.shape, 1)
                targets_asked = targets.gather(2, index)
            elif config.asked_at_once and config.asked_at_once <= model.max_delay:
                order = torch.randperm(model.max_delay + 1, generator=generator, device=device)
                some = order[: config.asked_at_once]
                weight, bias = model.readouts_at(some)
                targets_asked = targets[..., some]
            # Time first, as the core lays it out: no copy on the way to the matrix products.
            loss = ReadoutLoss.apply(  # type: ignore[no-untyped-call]
                y.transpose(0, 1).flatten(0, 1),
                weight,
                bias,
                targets_asked.transpose(0, 1).flatten(0, 1),
            )
            state, past = map_state(Tensor.detach, state), task.carry(symbols, past)
            optimiser.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            value = loss.item()
            if not (math.isfinite(value) and math.isfinite(norm.item())):
                raise DivergenceError(
                    f"at step {step + 1} the loss is {value:.3g}, its gradient's norm "
                    f"{norm.item():.3g}, at a learning rate of {rate:.2g}",
                    f"train with a smaller one, such as {rate / 3:.1g}",
                )
            optimiser.step()
            step += 1
            smooth_loss += 0.1 * (value - smooth_loss)
            if step in (check_at, last_step):
                before = time.perf_counter()
                # Where many delays are asked, looking costs more than learning: look less often.
                rest = 40 if model.max_delay <= 32 else 8
                check_at = step + max(10 if to_target is None else 200, step // rest)
                # A glance decides whether a look worth an interval is due.
                seen = evaluate(model, trials=2_000, seed=config.seed + 1_000_003)
                worst = min(seen.delays[d].recall for d in recipe.model.asked)
                now = time.perf_counter()
                # Within a deadline no look may cut short the end of training, where the rate falls.
                affordable = 8 * 25 * (now - before) < deadline - now
                if to_target is None and worst >= config.target and affordable:
                    seen = evaluate(model, trials=50_000, seed=config.seed + 1_000_003)
                seconds = before - start - evaluating
                if to_target is None and seen.reached(recipe.model.asked, config.target):
                    to_target = seconds
                    # A rate that has begun to fall falls on: a jump up undoes what was reached.
                    if config.fall:
                        polished_from = min(polished_from, rate)
                    last_step = min(last_step, step + config.polish)
                used = max(seconds / config.seconds, step / last_step)
                progress = Progress(step, seconds, value, seen, to_target is not None, used)
                weights = torch.tensor([1.02 - d.recall for d in seen.delays], device=device)
                history.append(progress)
                if on_progress:
                    on_progress(progress)
                looked = time.perf_counter() - before
                evaluating += looked
                if math.isfinite(deadline):
                    check_at = max(check_at, step + int(8 * looked * step / seconds))
                    if 8 * looked > deadline - time.perf_counter():
                        check_at = last_step
        interrupted = bool(stop)
    seconds = time.perf_counter() - start - evaluating
    model.eval()
    return TrainingResult(
        model=model.cpu(),
        seconds_to_target=to_target,
        seconds=seconds,
        steps=step,
        symbols=step * a_step,
        history=tuple(history),
        interrupted=interrupted,
    )


def _keep_rows(core: nn.Module, state: State, keep: Tensor) -> State:
    """The state with the rows that are not kept made empty; None where none is kept."""
    if not keep.any():
        return None
    if keep.all():
        return state
    rows = batch_dim(core)

    def masked(part: Tensor) -> Tensor:
        shape = [1] * part.dim()
        shape[rows] = len(keep)
        return part.masked_fill(~keep.view(shape), 0)

    return map_state(masked, state)
