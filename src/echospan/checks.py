"""What every core promises, one function a promise: `for check in CORE_CHECKS: check(make)`.

`make(features, hidden)` returns the core. A promise that is not kept raises CheckError, which says
what was observed and how to correct it.
"""

import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from echospan.cores import as_core, copy_module
from echospan.cores.protocol import State, map_state, tensors
from echospan.devices import standard_modes
from echospan.errors import CheckError, CoreError, SettingError, first_line
from echospan.generators import preserved
from echospan.sizing import build, check_storage, initialised, note_of, reread_inputs

MakeCore = Callable[[int, int], nn.Module]
"""(features, hidden) -> a module called as `core(x, state) -> (y, state)`."""

Check = Callable[[MakeCore], None]

FEATURES, HIDDEN = 4, 16
"""Sizes at which a core is checked: even, and a multiple of usual numbers of heads."""

BATCH, TIME = 3, 9

ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-4}
"""How far equal outputs may differ, as a share of the largest, by the type that computed them."""

COARSE_ROUNDING = 0.05
"""The same for types of 16 bits and fewer."""

QUIETEST = 1e-3
"""Outputs below this count as this large where rounding is allowed for: they may be what is left
of the difference of larger numbers."""

LEARNING_RATE = 1e-2
"""Of the two steps of Adam that `check_one_step` takes: each moves every weight by this much."""


@contextmanager
def _seeded(seed: int = 0) -> Iterator[None]:
    with preserved():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        yield


def _made(make: MakeCore, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(FEATURES, HIDDEN).eval()


def _like(core: nn.Module) -> Tensor | None:
    """The first tensor of a core that computes: its type and device are those of the input."""
    numbers = (t for t in (*core.parameters(), *core.buffers()))
    return next((t for t in numbers if t.is_floating_point() or t.is_complex()), None)


def _input(core: nn.Module, time: int = TIME, batch: int = BATCH, seed: int = 1) -> Tensor:
    """Random `(batch, time, features)` in the type and on the device of the core."""
    width = getattr(core, "input_size", FEATURES)
    like = _like(core)
    generator = torch.Generator("cpu").manual_seed(seed)
    x = torch.randn(batch, time, width, generator=generator, device="cpu", dtype=torch.float32)
    return x if like is None else x.to(like.device, like.dtype.to_real())


class _Types(TorchDispatchMode):
    """Records the floating types of all that is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation as it is."""
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex()):
                self.types.add(t.dtype.to_real())
        return out


def _coarsest(core: nn.Module, x: Tensor) -> torch.dtype:
    """The type of the fewest digits in which a core computes any part of its answer to `x`."""
    recorded = _Types()
    try:
        with recorded:
            _run(core, x)
        types = recorded.types
    except Exception:  # a layer that no dispatch mode can follow, as compiled ones
        types = set()
    return max(types | {_run(core, x)[0].dtype}, key=lambda t: torch.finfo(t).eps)


def _rounding(core: nn.Module, x: Tensor) -> float:
    return ROUNDING.get(_coarsest(core, x), COARSE_ROUNDING)


def _doubled(core: nn.Module) -> nn.Module:
    """A copy in float64 and complex128."""

    def double(t: Tensor) -> Tensor:
        return t.to(torch.complex128) if t.is_complex() else t.double() if _floating(t) else t

    return copy_module(core)._apply(double)  # type: ignore[no-any-return]


def _floating(t: Tensor) -> bool:
    return t.is_floating_point()


def _core_and_input(make: MakeCore) -> tuple[nn.Module, Tensor, float]:
    """A core in float64, or in its own type where it insists on one; input; its rounding."""
    core = _made(make)
    try:
        exact = _doubled(core)
        x = _input(exact).double()
        with _seeded(), torch.no_grad():
            if exact(x.clone())[0].dtype == torch.float64:
                return exact, x, _rounding(exact, x)
    except Exception:  # it makes constants of its own type
        pass
    x = _input(core)
    return core, x, _rounding(core, x)


def _run(core: nn.Module, x: Tensor, state: State = None) -> tuple[Tensor, State]:
    """An answer, given copies, with the same random numbers each time."""
    given = map_state(torch.clone, state)
    with _seeded(), torch.no_grad():
        y, after = core(x.clone(), given)
    return y, after


def _run_in_training(core: nn.Module, x: Tensor) -> Tensor:
    """The output in train() of a copy: what training moves (statistics) stays as it was."""
    return _run(copy_module(core).train(), x)[0]


def _moved(a: Tensor, b: Tensor, rounding: float) -> Tensor:
    """How far outputs `(batch, time, hidden)` differ at each step: `(time,)`, 0 for rounding."""
    if a.shape != b.shape:
        raise CheckError(
            f"the output has shape {tuple(b.shape)} where it was {tuple(a.shape)}",
            "return one output for each step",
        )
    a, b = a.double(), b.double()
    # NaN in both places is no difference, in one of them the largest there is.
    gap = (a - b).abs().masked_fill(a.isnan() & b.isnan(), 0).nan_to_num(math.inf)
    largest = max(QUIETEST, float(a.abs().nan_to_num(0).max())) if a.numel() else 1.0
    gap = gap.masked_fill(gap <= rounding * largest, 0)
    return gap.amax((0, 2)) if gap.numel() else gap.new_zeros(a.shape[1])


def _first(moved: Tensor) -> tuple[int, float] | None:
    """The first step that moved, and how far."""
    at = moved.ne(0).nonzero()
    return (int(at[0]), float(moved[at[0]])) if len(at) else None


def check_shape_dtype_device(make: MakeCore) -> None:
    """`(batch, time, features)` gives `(batch, time, hidden)` of its own type, where it is."""
    core = _made(make)
    x = _input(core)
    y, _ = _run(core, x)
    want = (BATCH, TIME, getattr(core, "hidden_size", HIDDEN))
    if tuple(y.shape) != want:
        raise CheckError(
            f"the output has shape {tuple(y.shape)}, not {want}", "return (batch, time, hidden)"
        )
    if (y.dtype, y.device) != (x.dtype, x.device):
        raise CheckError(
            f"the output is {y.dtype} on {y.device}, the input {x.dtype} on {x.device}",
            "make every tensor with dtype=x.dtype, device=x.device",
        )


def check_causal(make: MakeCore, *, in_training: bool = True) -> None:
    """The output at a step does not change with what is read after it, in eval() and in train()."""
    core, x, rounding = _core_and_input(make)
    other = _input(core, seed=2).to(x)
    for training, run in _modes(core, x, rounding, in_training):
        y = run(core, x)
        for step in (1, TIME // 2, TIME - 1) if training else range(1, TIME):
            changed = x.clone()
            changed[:, step] = other[:, step]
            moved = _first(_moved(y[:, :step], run(core, changed)[:, :step], rounding))
            if moved:
                raise CheckError(
                    f"the output at step {moved[0]} changed by {moved[1]:.2g} when the input at "
                    f"step {step} changed{training}",
                    "mask the future, pad on the left alone, read in one direction"
                    + (", compute no statistics over time" if training else ""),
                )


_Run = Callable[[nn.Module, Tensor], Tensor]


def _modes(
    core: nn.Module, x: Tensor, rounding: float, in_training: bool
) -> Iterator[tuple[str, _Run]]:
    """For eval() and train(): what a message adds, and the function that gives the output."""
    yield "", lambda core, x: _run(core, x)[0]
    if not in_training:
        return
    once, again = _run_in_training(core, x), _run_in_training(core, x)
    if not _first(_moved(once, again, rounding)):  # nothing else can be compared
        yield " in train()", _run_in_training


def _pieces(make: MakeCore, cuts: list[int], how: str) -> None:
    core, x, rounding = _core_and_input(make)
    whole, _ = _run(core, x)
    parts, state = [], None
    for piece in x.split(cuts, 1):
        y, state = _run(core, piece, state)
        parts.append(y)
    moved = _first(_moved(whole, torch.cat(parts, 1), rounding))
    if moved:
        raise CheckError(
            f"the output at step {moved[0]} differs by {moved[1]:.2g} when the sequence is read "
            f"{how}, the state carried",
            "return the state after the last step, and begin from the state that is given",
        )


def check_step_by_step(make: MakeCore) -> None:
    """Read one by one, the state carried, a sequence gives what it gives as a whole."""
    _pieces(make, [1] * TIME, "step by step")


def check_chunks(make: MakeCore) -> None:
    """Cut anywhere, the state carried, a sequence gives what it gives as a whole."""
    for cut in (2, 5, TIME - 1):
        _pieces(make, [cut, TIME - cut], f"in {cut} and {TIME - cut} steps")


def check_rows_independent(make: MakeCore, *, in_training: bool = True) -> None:
    """The output of a row does not depend on the rows beside it, in eval() and in train()."""
    core, x, rounding = _core_and_input(make)
    changed = x.clone()
    changed[0] = _input(core, seed=2).to(x)[0]
    for training, run in _modes(core, x, rounding, in_training):
        y = run(core, x)
        moved = _first(_moved(y[1:], run(core, changed)[1:], rounding))
        if not training:  # where random numbers are drawn, fewer rows draw others
            moved = moved or _first(_moved(y[:1], run(core, x[:1]), rounding))
        if moved:
            raise CheckError(
                f"the output at step {moved[0]} of a row changed by {moved[1]:.2g} when another "
                f"row changed{training or ' or was left out'}",
                "compute nothing across dimension 0 (no batch statistics)",
            )


def check_same_seed(make: MakeCore) -> None:
    """The same seed makes the same weights and buffers, and so the same output."""
    one, two = _made(make), _made(make)
    theirs = two.state_dict()
    for name, t in one.state_dict().items():
        if isinstance(t, Tensor) and not torch.equal(t, theirs[name]):
            raise CheckError(
                f"{name} differs between two cores made after torch.manual_seed(0)",
                "draw with torch's generator alone",
            )
    x = _input(one)
    moved = _first(_moved(_run(one, x)[0], _run(two, _input(two))[0], _rounding(one, x)))
    if moved:
        raise CheckError(
            f"two cores made after torch.manual_seed(0) differ by {moved[1]:.2g}",
            "draw with torch's generator alone",
        )


def _parts(core: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, of two pieces, and the state after them: flat, in float64."""
    with _seeded():
        head, state = core(x[:, :-2].clone())
        tail, state = core(x[:, -2:].clone(), state)
    parts = (torch.view_as_real(t) if t.is_complex() else t for t in (head, tail, *tensors(state)))
    return [t.reshape(-1).double() for t in parts if t.is_floating_point()]


def _scales(core: nn.Module, x: Tensor) -> list[float]:
    """What makes each of `_parts` count alike, however small its numbers."""
    with torch.no_grad():
        sizes = [float(t.square().mean()) ** 0.5 if t.numel() else 0.0 for t in _parts(core, x)]
    return [1 / size if size > 0 and math.isfinite(size) else 1.0 for size in sizes]


def _loss(core: nn.Module, x: Tensor, scales: list[float]) -> Tensor:
    """A scalar in which every number of the output and of the state has a weight of its own."""
    total = x.new_zeros((), dtype=torch.float64)
    for number, (t, scale) in enumerate(zip(_parts(core, x), scales, strict=True)):
        at = torch.arange(len(t), device=t.device, dtype=torch.float64) + number
        total = total + scale * (t * at.cos()).sum()
    return total


def check_every_parameter_learns(make: MakeCore) -> None:
    """Every parameter that asks for a gradient gets one: finite, and not zero all over."""
    core, x, _ = _core_and_input(make)
    loss = _loss(core, x.requires_grad_(), _scales(core, x))
    named = [(name, p) for name, p in core.named_parameters() if p.requires_grad]
    if not loss.requires_grad:
        raise CheckError("the output has no gradient at all", "leave out detach() and no_grad()")
    loss.backward()
    for name, p in named:
        grad = p.grad
        what = (
            "none"
            if grad is None
            else "one that is not finite"
            if not grad.isfinite().all()
            else "only zeros"
            if not grad.any()
            else None
        )
        if what:
            raise CheckError(
                f"the parameter {name} gets {what} as its gradient",
                "use it, or make it a buffer or requires_grad=False",
            )


def _load(core: nn.Module, other: nn.Module, when: str = "") -> None:
    """Give `core` the state_dict of another."""
    try:
        core.load_state_dict(other.state_dict())
    except Exception as e:
        raise CheckError(
            f"its own state_dict does not load{when} ({str(e).splitlines()[-1].strip()})",
            "make parameters and buffers in __init__, of sizes that do not change",
        ) from None


def check_state_dict(make: MakeCore) -> None:
    """Another core that loads the state_dict gives the same output."""
    core = _made(make)
    other = _made(make, seed=1)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.1)
    _load(other, core)
    x = _input(core)
    moved = _first(_moved(_run(core, x)[0], _run(other, x)[0], _rounding(core, x)))
    if moved:
        raise CheckError(
            f"after load_state_dict the output differs by {moved[1]:.2g}",
            "keep everything that decides the output as parameter or buffer",
        )


def check_train_and_eval(make: MakeCore) -> None:
    """Switching to train() and back to eval(), with no step between, changes nothing."""
    core = _made(make)
    x = _input(core)
    before, weights = _run(core, x)[0], _numbers(core)
    moved = _first(_moved(before, _run(core.train().eval(), x)[0], _rounding(core, x)))
    if moved:
        raise CheckError(
            f"after train() and eval() the output differs by {moved[1]:.2g}",
            "let train() and eval() change no weights and no cache of them",
        )
    for name, t in _numbers(core).items():
        if not torch.equal(t, weights[name]):
            raise CheckError(
                f"{name} is another after train() and eval()",
                "let train() and eval() change no weights and no cache of them",
            )


def _numbers(core: nn.Module) -> dict[str, Tensor]:
    """A copy of the tensors of its state_dict."""
    return {n: t.clone() for n, t in core.state_dict().items() if isinstance(t, Tensor)}


def check_one_step(make: MakeCore) -> None:
    """Two steps of Adam change the output, and a copy that loads their weights agrees.

    What fails here computes with other weights than those that are trained and saved: a
    second name for their storage, a cache made at construction or in eval(), a graph that is kept.
    """
    core = _made(make)
    x = _input(core)
    rounding = _rounding(core, x)
    learning = [p for p in core.parameters() if p.requires_grad]
    if not learning:
        return
    before, scales = _answer(core, x), _scales(core, x)
    copy, fresh = copy_module(core), _made(make, seed=1)
    optimiser = torch.optim.Adam(learning, lr=LEARNING_RATE)
    core.train()
    for step in ("first", "second"):
        try:
            loss = _loss(core, x, scales)
            if not loss.requires_grad:
                return  # check_every_parameter_learns says so
            optimiser.zero_grad()
            loss.backward()
        except Exception as e:
            raise CheckError(
                f"the {step} training step raises {type(e).__name__}: {first_line(e)}",
                "compute all that depends on a weight anew in each forward",
            ) from None
        optimiser.step()
    core.eval()
    after = _answer(core, x)
    stale = "compute with the parameters themselves: keep no second name for them and no cache"
    if not any(_first(_moved(a, b, 0.0)) for a, b in zip(before, after, strict=True)):
        raise CheckError("two steps of training change no output", stale)
    for other in (copy, fresh):
        _load(other, core, " after two steps of training")
        if gap := _gap(_answer(other, x), after, rounding):
            raise CheckError(
                f"another core that loads the weights of two steps of training differs by "
                f"{gap:.2g}",
                stale,
            )


def _answer(core: nn.Module, x: Tensor) -> list[Tensor]:
    """The output and each tensor of the state, as `(1, 1, numbers)`."""
    y, state = _run(core, x)
    parts = (torch.view_as_real(t) if t.is_complex() else t for t in (y, *tensors(state)))
    return [t.reshape(1, 1, -1).clone() for t in parts]


def _gap(some: list[Tensor], others: list[Tensor], rounding: float) -> float:
    """The largest difference, 0 for rounding."""
    gaps = (_first(_moved(a, b, rounding)) for a, b in zip(some, others, strict=True))
    return max((gap[1] for gap in gaps if gap), default=0.0)


def check_input_unchanged(make: MakeCore) -> None:
    """Neither the input nor the state that is given is written to."""
    core, x, _ = _core_and_input(make)
    with _seeded(), torch.no_grad():
        given = x.clone()
        _, state = core(given)
        kept = map_state(torch.clone, state)
        core(x.clone(), state)
    if not torch.equal(given, x):
        raise CheckError("the input is changed in place", "begin with x = x.clone()")
    for before, after in zip(tensors(kept), tensors(state), strict=True):
        if not torch.equal(before, after):
            raise CheckError(
                "the state that is given is changed in place", "make a new state: h = h + … "
            )


def check_length_one(make: MakeCore) -> None:
    """A sequence of one step gives what the first step of a longer one gives."""
    core, x, rounding = _core_and_input(make)
    whole, _ = _run(core, x)
    try:
        y, _ = _run(core, x[:, :1])
    except Exception as e:
        raise CheckError(
            f"a sequence of one step raises {type(e).__name__}: {str(e).splitlines()[0]}",
            "keep the time dimension (no squeeze())",
        ) from None
    moved = _first(_moved(whole[:, :1], y, rounding))
    if moved:
        raise CheckError(
            f"alone, the first step's output differs by {moved[1]:.2g}",
            "let nothing depend on the length of the sequence",
        )


def check_long_run(make: MakeCore) -> None:
    """After 10,000 steps everything is still finite."""
    core = _made(make)
    state: State = None
    with torch.no_grad():
        for window in range(40):
            x = _input(core, 250, 2, seed=window)
            y, state = core(x, state)
            bad = not y.isfinite().all() or any(not t.isfinite().all() for t in tensors(state))
            if bad or float(y.abs().max()) > 1e30:
                raise CheckError(
                    f"within {250 * (window + 1):,} steps the output or the state is no longer "
                    "finite",
                    "keep the recurrence's eigenvalues within the unit circle, or normalise",
                )


def check_gradients(make: MakeCore) -> None:
    """Gradients agree with finite differences, along a random direction of each tensor.

    In float64, where the core computes in it; in whatever type it insists on otherwise, and then as
    closely as the rounding of that type allows.
    """
    core, x, _ = _core_and_input(make)
    x = x[:2, :6].clone().requires_grad_()
    named = [("the input", x), *((n, p) for n, p in core.named_parameters() if p.requires_grad)]
    slopes = _Slopes(core, x)
    loss = _loss(core, x, slopes.scales)
    if not loss.requires_grad:
        return
    loss.backward()
    generator = torch.Generator("cpu").manual_seed(3)
    for name, t in named:
        kind = torch.complex128 if t.is_complex() else torch.float64
        way = torch.randn(t.shape, generator=generator, dtype=kind, device="cpu").to(t)
        ours = 0.0 if t.grad is None else float((t.grad.conj() * way).sum().real)
        slope, error = slopes.along(t, way, ours)
        if abs(ours - slope) > slopes.tolerance * max(abs(ours), abs(slope)) + 3 * error:
            raise CheckError(
                f"the gradient of {name} along a random direction is {ours:.6g}, finite "
                f"differences say {slope:.6g} ± {error:.1g}",
                "mend the backward, and leave out detach() and in-place changes",
            )


class _Slopes:
    """Central differences of the loss, each with its error.

    Too long a step bends (its error shows in that of a step of twice the length), too short a one
    drowns in rounding (its error is that of the loss by the length). The loss rounds as the
    coarsest type does that any part of the core computes in; what is coarser still, as a quotient
    of near numbers, is measured (Moré and Wild 2011, "Estimating computational noise": differences
    of sixth order of a smooth function at short distances are noise alone).
    """

    LENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

    USUAL, LONG = 1e-4, 1e-2
    """Lengths that mostly do, in float64 and in coarser types."""

    SURE = 1e-4
    """An error below this share of the slope is small enough; no other length is tried."""

    STRAIGHT = 0.02
    """Steps so long that other numbers are computed with count where two of them agree within
    this."""

    def __init__(self, core: nn.Module, x: Tensor) -> None:
        self.core, self.x, self.scales = core, x, _scales(core, x)
        eps = torch.finfo(_coarsest(core, x.detach())).eps
        self.exact = eps < 1e-12
        self.tolerance = 1e-4 if self.exact else 1e-3
        """What is allowed beside the error, as a share of the slope."""
        with torch.no_grad():
            numbers = sum(len(t) for t in _parts(core, x))
        # A few roundings on the way to each number, of about 1, independent of one another.
        self.noise = max(4 * eps * math.sqrt(numbers), self._measured())

    @torch.no_grad()
    def _loss_at(self, t: Tensor, way: Tensor, *places: float) -> list[float]:
        """The loss with `t` moved along `way`, which is undone."""
        origin = t.clone()
        losses = []
        for place in places:
            t.copy_(origin + place * way)
            losses.append(float(_loss(self.core, self.x, self.scales)))
        t.copy_(origin)
        return losses

    def _measured(self) -> float:
        way = torch.ones_like(self.x)
        table = np.array(self._loss_at(self.x, way, *(1e-6 * k for k in range(13))))
        # (6!)² / 12! turns the mean square of sixth differences into that of the noise.
        scale = math.factorial(6) ** 2 / math.factorial(12)
        return float(np.sqrt(scale * np.mean(np.diff(table, 6) ** 2)))

    def _along(self, t: Tensor, way: Tensor, length: float) -> tuple[float, float, float]:
        """The slope by a step of this length; its error by bending, and by rounding."""
        try:
            a, b, c, d = self._loss_at(t, way, length, -length, 2 * length, -2 * length)
        except Exception:  # numbers so large that the layer refuses them
            return math.nan, math.nan, math.nan
        slope, longer = (a - b) / (2 * length), (c - d) / (4 * length)
        return slope, abs(slope - longer), self.noise / length

    def along(self, t: Tensor, way: Tensor, expected: float) -> tuple[float, float]:
        """The slope along `way`, by the step that tells it best, and its error.

        `expected`: what it should be; without any finite slope it is returned, with no error.
        """
        slope, bend, rounding = self._along(t, way, self.USUAL if self.exact else self.LONG)
        best = slope, bend + rounding
        if best[1] <= self.SURE * max(abs(slope), abs(expected)):
            return best
        for length in self.LENGTHS:
            slope, bend, rounding = self._along(t, way, length)
            if not bend <= 10 * rounding or (length > 0.1 and bend > self.STRAIGHT * abs(slope)):
                break  # a longer step bends more
            if not best[1] <= bend + rounding:  # the best may be no number yet
                best = slope, bend + rounding
        return best if math.isfinite(best[1]) else (expected, 0.0)


def check_zeros_are_empty(make: MakeCore) -> None:
    """Zeros in place of the state are the empty state."""
    core, x, rounding = _core_and_input(make)
    whole, state = _run(core, x)
    if state is None:
        return
    zeros = map_state(torch.zeros_like, state)
    moved = _first(_moved(whole, _run(core, x, zeros)[0], rounding))
    remedy = "let a state of zeros mean nothing read yet; else only whole batches are begun anew"
    if moved:
        raise CheckError(
            f"from a state of zeros the output at step {moved[0]} differs by {moved[1]:.2g}", remedy
        )
    if not getattr(core, "zeros_are_empty", True):
        raise CheckError("part of the state is shared by all rows of a batch", remedy)


CORE_CHECKS: tuple[Check, ...] = (
    check_shape_dtype_device,
    check_causal,
    check_step_by_step,
    check_chunks,
    check_rows_independent,
    check_same_seed,
    check_every_parameter_learns,
    check_state_dict,
    check_train_and_eval,
    check_one_step,
    check_input_unchanged,
    check_length_one,
    check_long_run,
    check_gradients,
    check_zeros_are_empty,
)
"""Every promise, in the order in which they are best read."""


def name_of(check: Check) -> str:
    """`causal` for `check_causal`."""
    return check.__name__.removeprefix("check_")


@dataclass(frozen=True)
class CheckResult:
    """One line of a report."""

    name: str
    passed: bool
    expected: str | None
    """Why it was expected to fail; None where it was not."""
    seen: str
    """What was seen, where it is not as it should be."""
    remedy: str
    note: str = ""
    """What a passed check does not tell of this layer."""

    @property
    def ok(self) -> bool:
        """Passed, or failed as expected; one that was expected to fail and passes is not ok."""
        return self.passed == (self.expected is None)


def check(
    layer: nn.Module | Callable[..., nn.Module],
    *,
    features: int | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[CheckResult]:
    """Run every check on a layer.

    Args:
        layer: a module, which is not changed, or a class or factory (see `echospan.sizing.build`);
            its required widths are set to `FEATURES` and `HIDDEN`, the others keep their default.
        features: the width of its input, where it does not say.
        expected_failures: the reason for each check, by name, that is known to fail. It is strict:
            a check that passes although it stands here is not ok.

    Returns:
        A result for each check; that of `same_seed` is left out for a module.

    Raises:
        CoreError: the layer cannot be built, or cannot be called as a core at all.
        SettingError: `expected_failures` names a check that there is not.
    """
    expected = dict(expected_failures or {})
    checks = [c for c in CORE_CHECKS if not (isinstance(layer, nn.Module) and c is check_same_seed)]
    unknown = sorted(set(expected) - {name_of(c) for c in checks})
    if unknown:
        raise SettingError(
            f"there is no check {unknown[0]!r} to fail",
            "name one of " + ", ".join(name_of(c) for c in checks),
        )

    def judged(module: nn.Module) -> nn.Module:
        try:
            return initialised(as_core(module, features))  # type: ignore[no-any-return]
        except CoreError:
            return initialised(as_core(module, features, judge=False))  # type: ignore[no-any-return]

    def make(width: int, hidden: int) -> nn.Module:
        if isinstance(layer, nn.Module):
            return judged(copy_module(check_storage(layer)))
        return build(layer, features, default=(width, hidden), accepts=judged)  # type: ignore[no-any-return]

    where = torch.device("cpu")
    if isinstance(layer, nn.Module):
        where = next((t.device for t in check_storage(layer).parameters()), where)
    with warnings.catch_warnings(), standard_modes(where):
        warnings.simplefilter("ignore")  # the layer's own
        core = _made(make)
        note = note_of(core) if reread_inputs(core) is not None else ""
        return [_result(one, make, expected.get(name_of(one)), note) for one in checks]


_CARRIED = (check_step_by_step, check_chunks)
"""Checks that say little of a layer whose past inputs are read again."""


def _result(one: Check, make: MakeCore, reason: str | None, note: str) -> CheckResult:
    seen, remedy = "", ""
    try:
        one(make)
    except CheckError as e:
        seen, remedy = e.fact, e.remedy
    except Exception as e:
        seen, remedy = f"{type(e).__name__}: {first_line(e)}", "it should raise nothing"
    passed = not seen
    if passed and reason is not None:
        seen = f"it passes, and was expected to fail ({reason})"
        remedy = "take it out of expected_failures"
    note = note if passed and one in _CARRIED else ""
    return CheckResult(name_of(one), passed, reason, seen, remedy, note)
