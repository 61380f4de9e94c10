"""What every core promises, one function a promise: `for check in CORE_CHECKS: check(make)`.

`make(features, hidden)` gives the core. A promise that is not kept raises CheckError, which says
what was seen and how to mend it.
"""

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from echospan.cores import as_core, copy_module
from echospan.cores.protocol import State, map_state, tensors
from echospan.errors import CheckError, CoreError, EchospanError, SettingError, first_line
from echospan.generators import preserved

MakeCore = Callable[[int, int], nn.Module]
"""(features, hidden) -> a module called as `core(x, state) -> (y, state)`."""

Check = Callable[[MakeCore], None]

FEATURES, HIDDEN = 4, 16
"""Sizes at which a core is checked: even, and a multiple of usual numbers of heads."""

BATCH, TIME = 3, 9


@contextmanager
def _seeded(seed: int = 0) -> Iterator[None]:
    with preserved():
        torch.manual_seed(seed)
        yield


def _made(make: MakeCore, seed: int = 0) -> nn.Module:
    with _seeded(seed):
        return make(FEATURES, HIDDEN).eval()


def _input(core: nn.Module, time: int = TIME, batch: int = BATCH, seed: int = 1) -> Tensor:
    """Random `(batch, time, features)` in the type and on the device of the core."""
    width = getattr(core, "input_size", FEATURES)
    like = next((p for p in (*core.parameters(), *core.buffers()) if p.is_floating_point()), None)
    x = torch.randn(batch, time, width, generator=torch.Generator().manual_seed(seed))
    return x if like is None else x.to(like)


def _core_and_input(make: MakeCore) -> tuple[nn.Module, Tensor]:
    """A core in float64, or in its own type where it insists on one, and input for it."""
    core = _made(make)
    try:
        exact = copy.deepcopy(core).double()
        x = _input(exact).double()
        with _seeded(), torch.no_grad():
            if exact(x.clone())[0].dtype == torch.float64:
                return exact, x
    except Exception:  # it makes constants of its own type
        pass
    return core, _input(core)


def _run(core: nn.Module, x: Tensor, state: State = None) -> tuple[Tensor, State]:
    """An answer, given copies, with the same random numbers each time."""
    given = map_state(torch.clone, state)
    with _seeded(), torch.no_grad():
        y, after = core(x.clone(), given)
    return y, after


def _moved(a: Tensor, b: Tensor) -> Tensor:
    """How far outputs `(batch, time, hidden)` differ at each step: `(time,)`, 0 for rounding."""
    if a.shape != b.shape:
        raise CheckError(
            f"the output has shape {tuple(b.shape)} where it was {tuple(a.shape)}",
            "return one output for each step",
        )
    rounding = {torch.float64: 1e-8, torch.float32: 1e-4}.get(a.dtype, 0.05)
    gap = (a.double() - b.double()).abs()
    gap = gap.masked_fill(gap <= rounding * max(1.0, float(a.abs().max())), 0)
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


def check_causal(make: MakeCore) -> None:
    """What is said at a step does not change with what is read after it."""
    core, x = _core_and_input(make)
    y, _ = _run(core, x)
    other = _input(core, seed=2).to(x)
    for step in range(1, TIME):
        changed = x.clone()
        changed[:, step] = other[:, step]
        seen = _first(_moved(y[:, :step], _run(core, changed)[0][:, :step]))
        if seen:
            raise CheckError(
                f"the output at step {seen[0]} changed by {seen[1]:.2g} when the input at step "
                f"{step} changed",
                "mask the future, pad on the left alone, read in one direction",
            )


def _pieces(make: MakeCore, cuts: list[int], how: str) -> None:
    core, x = _core_and_input(make)
    whole, _ = _run(core, x)
    said, state = [], None
    for piece in x.split(cuts, 1):
        y, state = _run(core, piece, state)
        said.append(y)
    seen = _first(_moved(whole, torch.cat(said, 1)))
    if seen:
        raise CheckError(
            f"the output at step {seen[0]} differs by {seen[1]:.2g} when the sequence is read "
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


def check_rows_independent(make: MakeCore) -> None:
    """A row says the same whatever stands beside it."""
    core, x = _core_and_input(make)
    y, _ = _run(core, x)
    changed = x.clone()
    changed[0] = _input(core, seed=2).to(x)[0]
    seen = _first(_moved(y[1:], _run(core, changed)[0][1:]))
    seen = seen or _first(_moved(y[:1], _run(core, x[:1])[0]))
    if seen:
        raise CheckError(
            f"the output at step {seen[0]} of a row changed by {seen[1]:.2g} when another row "
            "changed or was left out",
            "compute nothing across dimension 0 (no batch statistics)",
        )


def check_same_seed(make: MakeCore) -> None:
    """The same seed makes the same weights and buffers, and so the same output."""
    one, two = _made(make), _made(make)
    theirs = two.state_dict()
    for name, t in one.state_dict().items():
        if not torch.equal(t, theirs[name]):
            raise CheckError(
                f"{name} differs between two cores made after torch.manual_seed(0)",
                "draw with torch's generator alone",
            )
    seen = _first(_moved(_run(one, _input(one))[0], _run(two, _input(two))[0]))
    if seen:
        raise CheckError(
            f"two cores made after torch.manual_seed(0) differ by {seen[1]:.2g}",
            "draw with torch's generator alone",
        )


def _loss(core: nn.Module, x: Tensor) -> Tensor:
    """A scalar in which every output and every tensor of the state has a weight of its own."""
    with _seeded():
        head, state = core(x[:, :-2].clone())
        tail, state = core(x[:, -2:].clone(), state)
    total = x.new_zeros(())
    for number, t in enumerate((head, tail, *tensors(state))):
        if t.is_floating_point():
            at = torch.arange(t.numel(), device=t.device, dtype=t.dtype) + number
            total = total + (t.reshape(-1) * at.cos()).sum()
    return total


def check_every_parameter_learns(make: MakeCore) -> None:
    """Every parameter that asks for a gradient gets one: finite, and not zero all over."""
    core, x = _core_and_input(make)
    loss = _loss(core, x.requires_grad_())
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


def check_state_dict(make: MakeCore) -> None:
    """Another core that loads the state_dict says the same."""
    core = _made(make)
    other = _made(make, seed=1)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.1)
    try:
        other.load_state_dict(core.state_dict())
    except (RuntimeError, KeyError) as e:
        raise CheckError(
            f"its own state_dict does not load ({str(e).splitlines()[-1].strip()})",
            "make parameters and buffers in __init__, of sizes that do not change",
        ) from None
    x = _input(core)
    seen = _first(_moved(_run(core, x)[0], _run(other, x)[0]))
    if seen:
        raise CheckError(
            f"after load_state_dict the output differs by {seen[1]:.2g}",
            "keep everything that decides the output as parameter or buffer",
        )


def check_input_unchanged(make: MakeCore) -> None:
    """Neither the input nor the state that is given is written to."""
    core, x = _core_and_input(make)
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
    core, x = _core_and_input(make)
    whole, _ = _run(core, x)
    try:
        y, _ = _run(core, x[:, :1])
    except Exception as e:
        raise CheckError(
            f"a sequence of one step raises {type(e).__name__}: {str(e).splitlines()[0]}",
            "keep the time dimension (no squeeze())",
        ) from None
    seen = _first(_moved(whole[:, :1], y))
    if seen:
        raise CheckError(
            f"alone, the first step's output differs by {seen[1]:.2g}",
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
    """Gradients agree with finite differences, in float64 along a random direction a tensor."""
    core, x = _core_and_input(make)
    if x.dtype != torch.float64:
        raise CheckError("it does not compute in float64", "make its constants with dtype=x.dtype")
    x = x[:2, :6].clone().requires_grad_()
    named = [("the input", x), *((n, p) for n, p in core.named_parameters() if p.requires_grad)]
    loss = _loss(core, x)
    if not loss.requires_grad:
        return
    loss.backward()
    generator = torch.Generator().manual_seed(3)
    for name, t in named:
        way = torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t)
        ours = 0.0 if t.grad is None else float((t.grad * way).sum())
        fine = _slope(core, x, t, way, 1e-6)
        if _near(ours, fine, 1e-4):
            continue
        # Step sizes that disagree: part of it rounds as float32 does, and a longer one counts.
        longer = [_slope(core, x, t, way, eps) for eps in (1e-4, 1e-3)]
        rounds = any(not _near(fine, slope, 1e-4) for slope in longer)
        if rounds and any(_near(ours, slope, 1e-2) for slope in longer):
            continue
        raise CheckError(
            f"the gradient of {name} along a random direction is {ours:.6g}, finite differences "
            f"say {fine:.6g}",
            "mend the backward, and leave out detach() and in-place changes",
        )


@torch.no_grad()
def _slope(core: nn.Module, x: Tensor, t: Tensor, way: Tensor, eps: float) -> float:
    """How the loss changes as `t` moves along `way`: a central difference."""
    at = t.clone()
    ends = []
    for sign in (1, -1):
        t.copy_(at + sign * eps * way)
        ends.append(float(_loss(core, x)))
    t.copy_(at)
    return (ends[0] - ends[1]) / (2 * eps)


def _near(a: float, b: float, relative: float) -> bool:
    return abs(a - b) <= 1e-6 + relative * max(abs(a), abs(b))


def check_zeros_are_empty(make: MakeCore) -> None:
    """Zeros in place of the state are the empty state."""
    core, x = _core_and_input(make)
    whole, state = _run(core, x)
    if state is None:
        return
    zeros = map_state(torch.zeros_like, state)
    seen = _first(_moved(whole, _run(core, x, zeros)[0]))
    remedy = "let a state of zeros mean nothing read yet; else only whole batches are begun anew"
    if seen:
        raise CheckError(
            f"from a state of zeros the output at step {seen[0]} differs by {seen[1]:.2g}", remedy
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

    @property
    def ok(self) -> bool:
        """Passed, or failed as expected; one that was expected to fail and passes is not ok."""
        return self.passed == (self.expected is None)


def build(factory: Callable[..., nn.Module], features: int, hidden: int) -> nn.Module:
    """The module of a factory or class: called with (features, hidden), (hidden), or nothing."""
    if not callable(factory):
        raise CoreError(
            f"{factory!r:.60} is no module and makes none", "name a class, a function or a module"
        )
    name = getattr(factory, "__name__", repr(factory))
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    wanted = sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    )
    bare = getattr(factory, "__init__", None) is nn.Module.__init__
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        wanted = 0 if bare else 2
    if wanted > 2:
        raise CoreError(
            f"{name} wants {wanted} arguments",
            "give a function of (features, hidden), or an instance",
        )
    try:
        module = factory(*((), (hidden,), (features, hidden))[wanted])
    except EchospanError:
        raise
    except Exception as e:
        reason = first_line(e)
        raise CoreError(
            f"{name} raises {type(e).__name__} when it is made ({reason})",
            "give a function of (features, hidden), (hidden) or nothing, or an instance",
        ) from e
    if not isinstance(module, nn.Module):
        raise CoreError(f"{name} returns {type(module).__name__}", "return a torch.nn.Module")
    return module


def check(
    layer: nn.Module | Callable[..., nn.Module],
    *,
    features: int | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[CheckResult]:
    """Every check on a module, or on a factory of (features, hidden), (hidden) or nothing.

    `expected_failures` gives the reason for each check, by name, that is known to fail; it is
    strict: one that passes is not ok. Raises CoreError for what cannot be called as a core at all.
    """
    expected = dict(expected_failures or {})
    checks = [c for c in CORE_CHECKS if not (isinstance(layer, nn.Module) and c is check_same_seed)]
    unknown = sorted(set(expected) - {name_of(c) for c in checks})
    if unknown:
        raise SettingError(
            f"there is no check {unknown[0]!r} to fail",
            "name one of " + ", ".join(name_of(c) for c in checks),
        )

    def make(width: int, hidden: int) -> nn.Module:
        made: Any = copy_module(layer) if isinstance(layer, nn.Module) else None
        made = made if made is not None else build(layer, features or width, hidden)
        try:
            return as_core(made, features)
        except CoreError:
            return as_core(made, features, judge=False)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the layer's own
        _made(make)
        return [_result(one, make, expected.get(name_of(one))) for one in checks]


def _result(one: Check, make: MakeCore, reason: str | None) -> CheckResult:
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
    return CheckResult(name_of(one), passed, reason, seen, remedy)
