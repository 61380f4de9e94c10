"""Training: every delay supervised at every step, stopped when recall has reached the target."""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from echospan.checkpoint import Snapshot
from echospan.cores import State, batch_dim, copy_module, map_state, tensors
from echospan.devices import find_device, standard_modes
from echospan.errors import (
    CoreError,
    DeviceError,
    DivergenceError,
    EchospanError,
    RunError,
    first_line,
    option,
)
from echospan.evaluation import DelayRecall, Evaluation, measure
from echospan.generators import Borrowed, drawing_from, may_draw, preserved
from echospan.memory import check_training_memory, memory_checked
from echospan.model import EchoModel
from echospan.parallel import ALONE, Group
from echospan.provenance import here, machine
from echospan.random_streams import Purpose, generator, layer_states, training_generator
from echospan.recipes import DECIDING, Made, Part, Recipe
from echospan.signals import interrupted_by
from echospan.snapshots import Facts, check_snapshot
from echospan.state_layout import state_layout
from echospan.tasks import EchoTask
from echospan.text import shown
from echospan.validation import function, kind, moment
from echospan.validation import number as a_number

_QUICK, _SURE = 8, 9
"""Parts of `Purpose.STOPPING`: the evaluation at every check, and the one that decides. Any two
would do; with these the trainings of the shipped models stop at the steps at which they were
stopped."""


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
        logits = torch.addmm(bias, h, weight.T).view(rows, delays, -1).to(bias.dtype)
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


class _Asked(nn.Module):
    """A model and the loss of what it answers: what one step differentiates."""

    def __init__(self, model: EchoModel, precision: str) -> None:
        super().__init__()
        self.model, self.bf16 = model, precision == "bf16"

    def forward(
        self, symbols: Tensor, state: State, delays: Tensor, targets: Tensor, some: Tensor | None
    ) -> tuple[Tensor, State]:
        """The mean loss at `targets (batch, time, delay)`, and the state to go on from.

        `delays (batch,)` is for `conditioning="input"`; `some (delay,)`, the read-outs asked where
        not all are.
        """
        model = self.model
        with torch.autocast(symbols.device.type, torch.bfloat16, enabled=self.bf16):
            y, state = model.hidden(symbols, state, delays)
            weight: Tensor = model.readouts.weight
            bias: Tensor = model.readouts.bias
            if some is not None:
                weight, bias = model.readouts_at(some)
            # Time first, as the core lays it out: no copy on the way to the matrix products.
            loss: Tensor = ReadoutLoss.apply(  # type: ignore[no-untyped-call]
                y.transpose(0, 1).flatten(0, 1),
                weight,
                bias,
                targets.transpose(0, 1).flatten(0, 1),
            )
        return loss, state


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


def train(
    recipe: Recipe,
    on_progress: Callable[[Progress], None] | None = None,
    core: nn.Module | None = None,
    deadline: float = math.inf,
    *,
    on_snapshot: Callable[[Snapshot], None] | None = None,
    snapshot_seconds: float = 20.0,
    resume: Snapshot | None = None,
    group: Group = ALONE,
) -> TrainingResult:
    """Build and train a model; deterministic for a seed on one machine and thread count.

    `on_progress` is called after each evaluation. `core` takes the place of the one that the
    recipe names. Ctrl-C or SIGTERM ends it and keeps what was reached. `deadline`, of
    `time.perf_counter`, ends it too, what evaluation takes included. `on_snapshot` is called every
    `snapshot_seconds` and at the end, also at such a signal, with all that decides how it goes on;
    with `resume` one goes on from there, and ends bit for bit where it would have ended. `group`:
    the processes that train it together; only the first of them calls `on_progress` and
    `on_snapshot`. Raises SettingError for a training that takes more memory than there is.
    """
    kind("recipe", recipe, Recipe, "a Recipe, such as echospan.RECIPES['fixed']")
    function("on_progress", on_progress, "its progress")
    function("on_snapshot", on_snapshot, "a snapshot")
    if resume is not None:
        kind("resume", resume, Snapshot, "the snapshot that on_snapshot was called with")
    deadline = moment("deadline", deadline)
    snapshot_seconds = a_number(
        "snapshot_seconds", snapshot_seconds, -1, math.inf, "use 0 for every step, or more"
    )
    device = find_device(group.device(recipe.training.device))
    # The first optimiser of a process imports much of torch: an import, not training.
    torch.optim.Adam([torch.zeros(1, requires_grad=True, device="cpu")])
    with standard_modes(device), memory_checked():
        check_training_memory(recipe, core, group.size)
        start = time.perf_counter()
        training = _Training(recipe, core, device, group)
        if resume is not None:
            training.restore(resume)
        return training.run(start, deadline, on_progress, on_snapshot, snapshot_seconds)


TRIAL_ROWS = 2
"""Rows of the steps that are tried before a training: as long as its own, and cheaper."""


def check_steps(model: EchoModel, recipe: Recipe) -> None:
    """Take two steps of a training on a copy, the second one from the state of the first.

    Raises:
        DeviceError: They fail in the precision asked for, and not in float32.
        CoreError: They fail in float32 too, or the model cannot be trained at all.
    """
    name = type(getattr(model.core, "module", model.core)).__name__
    if any(p.is_inference() for p in model.parameters()):
        raise CoreError(
            f"{name} was made within torch.inference_mode(), so it has no gradients",
            "make it outside, or train a copy: copy.deepcopy(core), outside",
        )
    config, device = recipe.training, model.readouts.weight.device
    task = EchoTask(len(model.alphabet), model.max_delay)
    delays = torch.zeros(TRIAL_ROWS, dtype=torch.long, device=device)

    def steps(precision: str) -> None:
        asked = _Asked(copy_module(model), precision)
        learning = [p for p in asked.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(learning) if learning else None
        state: State = None
        stream = generator(Purpose.TRIAL, config.seed)
        for _ in range(2 if config.carry else 1):
            symbols = task.draw(TRIAL_ROWS, recipe.window, stream).to(device)
            targets = task.targets(symbols)
            if model.by_input:
                targets = targets[..., :1]
            loss, state = asked(symbols, state, delays, targets, None)
            state = map_state(Tensor.detach, state)
            if optimiser is not None:
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    with preserved():
        try:
            steps(config.precision)
        except EchospanError:
            raise
        except Exception as failure:
            said = f"{type(failure).__name__}: {first_line(failure)}"
            try:
                steps("fp32")
            except Exception:
                raise CoreError(
                    f"{name} cannot be trained ({said})",
                    "try it yourself, in train() and with backward(), on sequences of "
                    f"{recipe.window} steps",
                ) from failure
            raise DeviceError(
                f"{machine(device)} cannot train {name} in {config.precision} ({said})",
                f"use {option('precision', 'fp32')}",
            ) from failure


class _Training:
    """A training under way: all that decides how it goes on."""

    def __init__(
        self, recipe: Recipe, core: nn.Module | None, device: torch.device, group: Group
    ) -> None:
        config = recipe.training
        self.recipe, self.config, self.device, self.group = recipe, config, device, group
        self.rows = group.rows(config.batch)
        self.own_core = core
        weights = training_generator(config.seed, torch.device("cpu"))
        with drawing_from(weights):
            model = EchoModel(recipe.model, core)
        self.model = model.to(device).train()
        trying = time.perf_counter()
        check_steps(self.model, recipe)
        self.aside = time.perf_counter() - trying
        self.asked = group.spread(_Asked(self.model, config.precision), device)
        self.layers = self._layers(weights)
        self.parts: tuple[Part, ...] = ()
        """Where it ran before this place."""
        self.place = here(device, group.size)
        self.clocked = False
        """Whether the clock has decided a learning rate."""
        self.task = EchoTask(len(self.model.alphabet), self.model.max_delay)
        self.generator = training_generator(config.seed, device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(
            self.parameters,
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            fused=all(p.is_floating_point() for p in self.parameters),  # it knows no complex ones
        )
        self.history: list[Progress] = []
        self.state: State = None
        self.past = self.task.empty_past(config.batch, device)
        self.delays = torch.zeros(config.batch, dtype=torch.long, device=device)
        self.weights = torch.ones(self.model.max_delay + 1, device=device)
        self.smooth_loss = math.log(self.model.symbols)
        self.loss = math.inf
        self.to_target: float | None = None
        self.rate = self.polished_from = 0.5 * config.learning_rate
        self.a_step = config.batch * recipe.window
        self.budget_steps = config.steps
        if config.symbols:
            self.budget_steps = min(config.steps, math.ceil(config.symbols / self.a_step))
        self.step, self.check_at, self.last_step = 0, 20, self.budget_steps
        self.polishing = False
        self.before = 0.0
        """Seconds of training before this process; `aside`: what was no training in it."""

    def _layers(self, weights: torch.Generator) -> Borrowed:
        """Return what layers draw from while they are trained, as dropout does."""
        seed, rank = self.config.seed, self.group.rank
        if rank:  # of other rows
            weights = training_generator(seed, torch.device("cpu"), rank)
        on_gpu = self.device.type == "cuda"
        gpu = training_generator(seed, self.device, rank) if on_gpu else None
        return Borrowed(weights, layer_states(seed, rank), gpu)

    def run(
        self,
        start: float,
        deadline: float,
        on_progress: Callable[[Progress], None] | None,
        on_snapshot: Callable[[Snapshot], None] | None,
        snapshot_seconds: float,
    ) -> TrainingResult:
        """Train until the budget, the target's polish, the deadline or a signal ends it."""
        kept_at, kept_step = start, self.step
        # The process's generators are one thread's at a time: only where a layer may need them.
        drawing = self.layers if may_draw(self.model.core) else contextlib.nullcontext()
        with interrupted_by(signal.SIGINT, signal.SIGTERM, patient=self.group.size > 1) as stop:
            while True:
                now = time.perf_counter()
                elapsed = self.before + now - start - self.aside
                late = (now - start) / max(deadline - start, 1e-9)
                clock, steps = max(elapsed / self.config.seconds, late), self.step / self.last_step
                left = 1 - max(clock, steps)
                due = self.step != kept_step and now - kept_at >= snapshot_seconds
                left, interrupted, due = self.group.agreed(left, bool(stop), due, self.device)
                if on_snapshot and due:
                    kept_at, kept_step = time.perf_counter(), self.step
                    self.keep(on_snapshot, elapsed)
                    self.aside += time.perf_counter() - kept_at
                if interrupted or left <= 0:
                    break
                falling = not self.polishing and left < self.config.fall
                self.clocked |= falling and clock > steps
                with drawing:
                    self.learn(left)
                if self.step in (self.check_at, self.last_step):
                    looking = time.perf_counter()
                    seconds = self.before + looking - start - self.aside
                    with drawing:
                        self.look(seconds, looking, deadline)
                    self.agree()
                    if on_progress and self.group.first:
                        on_progress(self.history[-1])
                    self.aside += time.perf_counter() - looking
        seconds = self.before + time.perf_counter() - start - self.aside
        if on_snapshot and self.step != kept_step:
            self.keep(on_snapshot, seconds)
        self.model.eval()
        by_clock = self.clocked or self.step < self.last_step or math.isfinite(deadline)
        *earlier, last = self.places()
        self.model.made = Made(
            training=self.config,
            versions=last.versions,
            threads=last.threads,
            processes=last.processes,
            machine=last.machine,
            earlier=tuple(earlier),
            repeatable=not by_clock and not earlier,
        )
        return TrainingResult(
            model=self.model.cpu(),
            seconds_to_target=self.to_target,
            seconds=seconds,
            steps=self.step,
            symbols=self.step * self.a_step,
            history=tuple(self.history),
            interrupted=interrupted,
        )

    def learn(self, left: float) -> None:
        """One step of the optimiser, with `left` of the budget left."""
        config, model, task, generator = self.config, self.model, self.task, self.generator
        if self.polishing:
            self.rate = self.polished_from * (self.last_step - self.step) / config.polish
        else:
            # The loss is the clock: one schedule for every size, delay and alphabet.
            clock = max(0.05, min(1.0, math.sqrt(self.smooth_loss / 0.2)))
            self.rate = config.learning_rate * clock
            if left < config.fall:
                self.rate *= left / config.fall
        for slot in self.optimiser.param_groups:
            slot["lr"] = self.rate
        drawn = torch.rand(
            config.batch, generator=generator, device=self.device, dtype=torch.float32
        )
        keep = drawn < config.carry
        if not getattr(model.core, "zeros_are_empty", True):
            keep = keep[:1].expand_as(keep)  # nobody can empty one row of it: all begin anew
        if self.state is not None:
            self.state = _keep_rows(model.core, self.state, keep[self.rows])
            self.past = self.past * keep[:, None]
        symbols, targets = task.batch(config.batch, self.recipe.window, generator, self.past)
        if model.by_input:
            # A row keeps its delay as long as its state; delays still missed are drawn most.
            fresh = torch.multinomial(self.weights, config.batch, True, generator=generator)
            self.delays = torch.where(keep, self.delays, fresh) if self.step else fresh
        some: Tensor | None = None
        if model.by_input:
            index = self.delays[:, None, None].expand(*symbols.shape, 1)
            targets = targets.gather(2, index)
        elif config.asked_at_once and config.asked_at_once <= model.max_delay:
            order = torch.randperm(model.max_delay + 1, generator=generator, device=self.device)
            some = order[: config.asked_at_once]
            targets = targets[..., some]
        mine = self.rows
        loss, state = self.asked(symbols[mine], self.state, self.delays[mine], targets[mine], some)
        self.state = map_state(Tensor.detach, state)
        self.past = task.carry(symbols, self.past)
        self.optimiser.zero_grad()
        with self.group.heard():
            loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.loss = self.group.mean(loss.item(), self.device)
        if not (math.isfinite(self.loss) and math.isfinite(norm.item())):
            raise DivergenceError(
                f"at step {self.step + 1} the loss is {self.loss:.3g}, its gradient's norm "
                f"{norm.item():.3g}, at a learning rate of {self.rate:.2g}",
                f"train with a smaller one, such as {self.rate / 3:.1g}",
            )
        self.optimiser.step()
        self.step += 1
        self.smooth_loss += 0.1 * (self.loss - self.smooth_loss)

    def look(self, seconds: float, looking: float, deadline: float) -> None:
        """See what is recalled after `seconds` of training; decides when to end and to look next.

        `looking` is when it began, of `time.perf_counter`.
        """
        config, model, asked = self.config, self.model, self.recipe.model.asked
        # Where many delays are asked, looking costs more than learning: look less often.
        rest = 40 if model.max_delay <= 32 else 8
        self.check_at = self.step + max(200 if self.polishing else 10, self.step // rest)
        # A short evaluation decides whether one that is worth an interval is due.
        seen = measure(model, generator(Purpose.STOPPING, config.seed, _QUICK), trials=2_000)
        worst = min(seen.delays[d].recall for d in asked)
        blanks = 1.0 if seen.blank_accuracy is None else seen.blank_accuracy
        undecided = self.to_target is None and worst >= config.target
        # Recall alone begins the polish; without one, only recall and blanks decide anything.
        undecided &= blanks >= config.target or (config.polish > 0 and not self.polishing)
        now = time.perf_counter()
        # Within a deadline no look may cut short the end of training, where the rate falls.
        affordable = 8 * 25 * (now - looking) < deadline - now
        if undecided and affordable:
            seen = measure(model, generator(Purpose.STOPPING, config.seed, _SURE), trials=DECIDING)
        if not self.polishing and seen.recalled(asked, config.target):
            self.polishing = True
            # A rate that has begun to fall falls on: a jump up undoes what was reached.
            if config.fall:
                self.polished_from = min(self.polished_from, self.rate)
            self.last_step = min(self.last_step, self.step + config.polish)
        if self.to_target is None and seen.reached(asked, config.target):
            self.to_target = seconds
        if self.polishing and self.to_target is None and self.step >= self.last_step:
            # Blanks are rarer than symbols and may come later: go on, within the budget.
            self.polishing, self.last_step = False, self.budget_steps
        used = max(seconds / config.seconds, self.step / self.last_step)
        reached = self.to_target is not None
        progress = Progress(self.step, seconds, self.loss, seen, reached, used)
        self.history.append(progress)
        self.miss()
        if math.isfinite(deadline):
            now = time.perf_counter()
            gap = int(8 * (now - looking) * self.step / seconds)
            self.check_at = max(self.check_at, self.step + gap)
            if 8 * (now - looking) > deadline - now:
                self.check_at = self.last_step

    def agree(self) -> None:
        """What process 0 saw and decided in its last look holds in all of them."""
        facts = {name: getattr(self, name) for name in _FACTS}
        facts, self.history[-1] = self.group.told((facts, self.history[-1]))
        for name, value in facts.items():
            setattr(self, name, value)
        self.miss()

    def miss(self) -> None:
        """Weigh each delay by what the last look missed of it."""
        seen = self.history[-1].evaluation
        self.weights = torch.tensor([1.02 - d.recall for d in seen.delays], device=self.device)

    def keep(self, on_snapshot: Callable[[Snapshot], None], seconds: float) -> None:
        """Hand over a snapshot; all processes take part, the first one has it.

        One with what is no number in it would take the place of the last good one: it is not kept.
        """
        kept = self.snapshot(seconds)
        if self.group.first and all(t.isfinite().all() for t in kept.tensors.values()):
            on_snapshot(kept)

    def places(self) -> tuple[Part, ...]:
        """Return where the training has run, up to this step."""
        now = here(self.device, self.group.size, self.step)
        # The number of threads may have been set while it ran.
        before = () if now.same_place(self.place) else (replace(self.place, steps=self.step),)
        return (*self.parts, *before, now)

    def snapshot(self, seconds: float) -> Snapshot:
        """Return all of it, as numbers; `seconds` of training have been spent."""
        named: dict[str, Tensor] = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for i, slots in self.optimiser.state_dict()["state"].items():
            named |= {f"optimiser.{i}.{k}": v for k, v in slots.items()}
        rows = batch_dim(self.model.core)
        for i, part in enumerate(tensors(self.state)):
            named[f"state.{i}"] = self.group.whole(part, rows)
        named |= {"past": self.past, "delays": self.delays, "weights": self.weights}
        named["generator"] = self.generator.get_state()
        drawn = {"random": self.layers.cpu}
        if self.layers.cuda is not None:
            drawn["random.device"] = self.layers.cuda
        for rank, theirs in enumerate(self.group.all(drawn)):
            named |= {f"{k}.{rank}": v for k, v in theirs.items()}
        named |= _as_tensors(self.history, self.model.max_delay + 1)
        facts = {name: getattr(self, name) for name in (*_FACTS, "clocked")}
        checked = Facts(seconds=seconds, parts=self.places(), **facts)
        kept = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in named.items()}
        return Snapshot(self.recipe, kept, checked.as_json())

    def restore(self, kept: Snapshot) -> None:
        """Go on from a snapshot.

        All of it is checked before anything is changed.

        Raises:
            RunError: Where it does not fit the model that the recipe builds.
        """
        for mine, theirs in (
            (self.recipe.model, kept.recipe.model),
            (self.config, kept.recipe.training),
        ):
            for name, value in asdict(mine).items():
                if (other := getattr(theirs, name)) != value:
                    raise RunError(
                        f"the snapshot is of a training with {name} {shown(other)}, not "
                        f"{shown(value)}",
                        "go on with the same settings, or train anew",
                    )
        try:
            facts = check_snapshot(self.recipe, kept.facts, kept.tensors, self.own_core)
        except ValueError as e:
            raise RunError(f"the snapshot does not fit its recipe ({e})", "train it anew") from None
        named = {name: t.to(self.device, copy=True) for name, t in kept.tensors.items()}

        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}

        self.model.load_state_dict(under("model."))
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in under("optimiser.").items():
            number, _, slot = name.partition(".")
            slots.setdefault(int(number), {})[slot] = tensor
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": slots})
        state = under("state.")
        if state:
            at = (slice(None),) * batch_dim(self.model.core) + (self.rows,)
            parts = [state[str(i)][at].clone() for i in range(len(state))]
            self.state = state_layout(self.model).build(parts)
        self.past, self.delays, self.weights = (named[n] for n in ("past", "delays", "weights"))
        self.generator.set_state(kept.tensors["generator"])
        rank = self.group.rank
        if f"random.{rank}" in kept.tensors:  # it may have had fewer processes
            self.layers.cpu = kept.tensors[f"random.{rank}"]
            self.layers.cuda = kept.tensors.get(f"random.device.{rank}")
        for name in (*_FACTS, "clocked"):
            setattr(self, name, getattr(facts, name))
        self.before = facts.seconds
        self.parts = facts.parts
        if self.parts[-1].same_place(self.place):
            self.parts = self.parts[:-1]
        self.history = _from_tensors(kept.tensors)


_FACTS = (
    *("step", "check_at", "last_step", "smooth_loss", "loss", "to_target", "rate"),
    *("polished_from", "polishing"),
)
"""The numbers of a training that are no tensors, and decide how it goes on."""


def _as_tensors(history: Sequence[Progress], delays: int) -> dict[str, Tensor]:
    """Return a history as tensors: a number for each evaluation, or each one and delay."""
    seen = [p.evaluation for p in history]
    numbers = {
        "step": torch.tensor([p.step for p in history], dtype=torch.int64),
        "seconds": torch.tensor([p.seconds for p in history], dtype=torch.float64),
        "loss": torch.tensor([p.loss for p in history], dtype=torch.float64),
        "reached": torch.tensor([p.reached for p in history], dtype=torch.int64),
        "used": torch.tensor([p.used for p in history], dtype=torch.float64),
        "blanks": torch.tensor([e.blanks for e in seen], dtype=torch.int64),
        "blanks_correct": torch.tensor([e.blanks_correct for e in seen], dtype=torch.int64),
    }
    for name, dtype in (
        ("trials", torch.int64),
        ("correct", torch.int64),
        ("gain", torch.float64),
    ):
        rows = [[getattr(d, name) for d in e.delays] for e in seen]
        numbers[name] = torch.tensor(rows, dtype=dtype).view(len(seen), delays)
    return {f"history.{name}": t for name, t in numbers.items()}


def _from_tensors(named: Mapping[str, Tensor]) -> list[Progress]:
    """Return the history that `_as_tensors` made tensors of."""
    columns = {
        name.removeprefix("history."): t.tolist()
        for name, t in named.items()
        if name.startswith("history.")
    }
    history = []
    for i, step in enumerate(columns["step"]):
        by_delay = zip(*(columns[name][i] for name in ("trials", "correct", "gain")), strict=True)
        delays = tuple(DelayRecall(d, *numbers) for d, numbers in enumerate(by_delay))
        blanks = columns["blanks"][i], columns["blanks_correct"][i]
        history.append(
            Progress(
                step=step,
                seconds=columns["seconds"][i],
                loss=columns["loss"][i],
                evaluation=Evaluation(delays, *blanks),
                reached=bool(columns["reached"][i]),
                used=columns["used"][i],
            )
        )
    return history


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
