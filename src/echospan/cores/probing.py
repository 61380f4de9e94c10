"""What a module is, found out by trying a copy of it: width, layout, causality, state.

Nothing is kept of the trials: weights, buffers, mode and every random state stay as they were.
"""

import copy
import inspect
import random
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from echospan.cores.calling import (
    BATCH_FIRST,
    CHANNEL_FIRST,
    TIME_FIRST,
    Call,
    Leaf,
    Opaque,
    Slot,
    copied,
    fill,
    items,
    leaves,
    look,
    module_device,
    module_dtype,
    pack,
    same,
    slots,
    unpack,
    walk,
)
from echospan.cores.protocol import map_state
from echospan.errors import CoreError, option
from echospan.generators import preserved

WIDTHS = (
    *("input_size", "in_features", "d_input", "input_dim", "in_dim", "d_in", "in_channels"),
    *("num_inputs", "n_inputs", "num_features", "d_model", "dim", "embed_dim", "embedding_dim"),
    *("model_dim", "emb_dim", "n_embd", "hidden_dim", "hidden_size", "width", "features"),
    *("channels", "units", "size", "d"),
)
"""Where modules say how wide their input is, the surest first."""

STATE = re.compile(
    r"(h|c|hx|cx|h_?0|c_?0|h_?n|z_?0|s|(.*_)?(state|hidden|cache|memory|mem|carry|past)s?(_.*)?"
    r"|past.*|prev.*|inference_params|mems)"
)
"""Names by which modules take their state."""

FLAG = re.compile(r"(return|output|use|with|get)_(.*_)?(state|hidden|cache|carry|memory|past)s?")
"""Names of switches that make a module return its state."""

STARTS = (
    *("initial_state", "init_state", "init_hidden", "initHidden", "get_initial_state"),
    *("zero_state", "empty_state", "default_state", "initial_hidden", "init_cache"),
)
"""Methods that make the first state of so many rows."""

RESETS = ("reset_state", "reset_states", "reset_hidden", "reset_memory", "reset_cache", "reset")
"""Methods that make a module forget what it keeps on itself."""

NAMES = ("last_hidden_state", "output", "outputs", "out", "y", "hidden_states", "hidden", "logits")
"""What the sequence is called in a dict or dataclass."""


@contextmanager
def left_alone() -> Iterator[None]:
    """Random states as they were, no graph, no warnings."""
    with preserved(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_line(e: BaseException) -> str:
    """What an error said, in short."""
    lines = str(e).strip().splitlines()
    text = lines[0].strip() if lines else ""
    return f"{type(e).__name__}: {text[:160]}" if text else type(e).__name__


def signature(module: nn.Module) -> tuple[str, dict[str, inspect.Parameter]]:
    """The name of the first argument of `forward`, and the others."""
    try:
        first, *others = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return "x", {}
    return first.name, {p.name: p for p in others}


class Refused(Exception):
    """One way of calling that does not do: the fact, the remedy, and how near it came."""

    def __init__(self, near: int, fact: str, remedy: str) -> None:
        super().__init__(fact)
        self.near, self.fact, self.remedy = near, fact, remedy


@dataclass(frozen=True)
class Found:
    """What was found out."""

    features: int
    hidden: int
    call: Call
    leaves: tuple[Leaf, ...] = ()
    """Of the state, where the module takes and returns one, or keeps one on itself."""
    inside: tuple[tuple[Slot, Any], ...] = ()
    """Where a module keeps its state on itself, and what stands there at the beginning."""
    context: int = 0
    """Inputs before the present one that its output depends on, where it has no state."""
    whole: bool = True
    """Whether it depends on no more than `context` inputs."""
    longest: int | None = None
    """The longest sequence that it takes at once."""
    multiple: int = 1
    """The lengths that it takes are multiples of this."""
    zeros_are_empty: bool = True
    keeps: bool = True
    """Whether the module leaves a state that it was given as it was."""
    note: str = ""
    """What else should be known of how it is carried."""


def copy_module(module: nn.Module) -> nn.Module:
    """A copy, of what it keeps on itself too; CoreError where it cannot be copied."""
    memo: dict[int, Any] = {}
    for _, value in slots(module):
        for leaf in leaves(value):
            if isinstance(leaf, Tensor) and not leaf.is_leaf:
                memo[id(leaf)] = leaf.detach().clone()
    try:
        return copy.deepcopy(module, memo)
    except Exception as e:
        raise CoreError(
            f"{type(module).__name__} cannot be copied ({first_line(e)})",
            "it is tried on a copy: keep on it what copy.deepcopy can copy",
        ) from None


class Probe:
    """Tries a copy of one module; without `judge` it takes in what breaks a core's promises too."""

    def __init__(self, module: nn.Module, judge: bool = True) -> None:
        self.judge = judge
        self.name = type(module).__name__
        self.module = copy_module(module).eval()
        for reset in RESETS:
            with_none = getattr(self.module, reset, None)
            if callable(with_none):
                try:
                    with_none()
                    break
                except Exception:
                    continue
        self.fresh = {slot: copied(value) for slot, value in slots(self.module)}
        self.changed: set[Slot] = set()
        self.first, self.arguments = signature(module)
        self.device, self.dtype = module_device(module), module_dtype(module)
        # Types of 16 bits round at 1e-2, and what is compared is a sum of many.
        eps = torch.finfo(self.dtype).eps
        self.tolerance = 16 * eps if eps > 1e-4 else max(200 * eps, 1e-9)

    def draw(self, rows: int, time: int, features: int, seed: int = 0) -> Tensor:
        """Random input `(rows, time, features)`, the same each time, in the module's type."""
        generator = torch.Generator().manual_seed(1000 * time + features + 1_000_000 * seed)
        x = torch.randn(rows, time, features, generator=generator)
        return x.to(self.device, self.dtype)

    def other(self, x: Tensor) -> Tensor:
        """Input of that shape with no number in common."""
        rows, time, features = x.shape
        return self.draw(rows, time, features, seed=1)

    def run(self, call: Call, x: Tensor, state: Any = None, seed: int = 0) -> tuple[Tensor, Any]:
        """The module's answer as if it had never been called."""
        self.forget()
        return self.go_on(call, x, state, seed)

    def forget(self) -> None:
        """Put back what the module keeps on itself."""
        for slot in self.changed:
            fill(self.module, slot, copied(self.fresh[slot]))

    def go_on(self, call: Call, x: Tensor, state: Any = None, seed: int = 0) -> tuple[Tensor, Any]:
        """The module's answer after all that it was asked."""
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        given = x.clone()
        y, out = call(self.module, given, state)
        if self.judge and not torch.equal(given, x):
            raise Refused(
                9,
                f"{self.name} changes its input in place",
                "begin its forward with x = x.clone()",
            )
        for slot, value in slots(self.module):
            if slot not in self.changed and not same(value, self.fresh.get(slot)):
                self.changed.add(slot)
        return y, out

    def gap(self, a: Tensor, b: Tensor) -> float:
        """The largest difference, 0 where it is no more than rounding."""
        if a.shape != b.shape:
            return float("inf")
        if not a.numel():
            return 0.0
        a, b = a.double(), b.double()
        gap = float((a - b).abs().max())
        scale = max(1e-3, float(a.abs().max()))
        return 0.0 if gap <= self.tolerance * scale else gap

    # --- width and layout

    def widths(self) -> tuple[list[int], list[int]]:
        """Widths that the module says it takes, and others that it might."""
        said: list[int] = []
        parts = list(self.module.modules())
        homes: list[Any] = [self.module]
        for key in ("config", "cfg", "args"):
            homes += [getattr(part, key) for part in parts[:3] if hasattr(part, key)]
        for home in homes:
            for name in WIDTHS:
                value = getattr(home, name, None)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    said.append(value)
        for part in parts[1:]:
            for name in ("input_size", "in_features", "in_channels", "embed_dim", "d_model", "dim"):
                value = getattr(part, name, None)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    said.append(value)
            shape = getattr(part, "normalized_shape", None)
            if isinstance(shape, tuple) and shape:
                said.append(int(shape[-1]))
        guesses = sorted({size for p in self.module.parameters() for size in p.shape})
        unsaid = [size for size in guesses if size not in said]
        return list(dict.fromkeys(said)), unsaid[:24]

    def orders(self) -> tuple[tuple[int, int, int], ...]:
        """Layouts to try, the likeliest first."""
        hints = [getattr(part, "batch_first", None) for part in list(self.module.modules())[:4]]
        said = next((hint for hint in hints if hint is not None), None)
        if said is False:
            return TIME_FIRST, BATCH_FIRST, CHANNEL_FIRST
        return BATCH_FIRST, TIME_FIRST, CHANNEL_FIRST

    def starts(self) -> list[Call]:
        """What to try beside `x` where `forward` wants more."""
        required = tuple(
            name
            for name, p in self.arguments.items()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        )
        if not required:
            return [Call()]
        if not all(STATE.fullmatch(name) for name in required):
            names = ", ".join([self.first, *required])
            raise CoreError(
                f"the forward of {self.name} wants {1 + len(required)} inputs ({names})",
                "wrap it in a module whose forward(x) gives it all of them, causally",
            )
        calls = [Call(needs_state=required)]
        for start in STARTS:
            if callable(getattr(self.module, start, None)):
                give = required if len(required) == 1 else None
                calls.append(Call(start=start, needs_state=required, give=give or required))
        return calls

    def find(self, features: int | None, hidden: int | None) -> Found:
        """All of it; CoreError says in one sentence what was seen and what to write."""
        starts = self.starts()
        said, guesses = ([features], []) if features is not None else self.widths()
        worst: Refused | None = None
        for sizes, sure in ((said, True), (guesses, False)):
            fitting = []
            for size in sizes:
                for order in self.orders():
                    for start in starts:
                        try:
                            call = self.fit(replace(start, order=order), size, hidden)
                        except Refused as e:
                            if e.near >= 8:
                                raise CoreError(e.fact, e.remedy) from None
                            if worst is None or e.near > worst.near:
                                worst = e
                            continue
                        fitting.append((size, call))
                        break
                    if fitting and fitting[-1][0] == size:
                        break
                if fitting and sure:
                    break
                # A refusal for what it does, not for its width, is the answer.
                if worst is not None and worst.near >= 3 and sure:
                    break
            if len(fitting) == 1:
                return self.find_state(*fitting[0], hidden)
            if len(fitting) > 1:
                raise CoreError(
                    f"{self.name} does not say how wide its input is, and takes "
                    + " and ".join(str(size) for size, _ in fitting[:4]),
                    f"give the width of its input as {option('features')}",
                )
            if worst is not None and worst.near >= 3:
                break
        if worst is None or (features is None and worst.near < 2 and not said):
            heard = f" (it said: {worst.fact})" if worst is not None and worst.near else ""
            raise CoreError(
                f"the width of the input of {self.name} cannot be found{heard}",
                f"give the width of its input as {option('features')}",
            )
        if features is not None and worst.near < 3:
            for size in chain(*self.widths()):
                for order in self.orders() if size != features else ():
                    for start in starts:
                        try:
                            self.fit(replace(start, order=order), size, None)
                        except Refused:
                            continue
                        raise CoreError(
                            f"{self.name} takes input of width {size}, not {features}",
                            f"make it for width {features}, or say features={size}",
                        )
        raise CoreError(worst.fact, worst.remedy) from worst

    def fit(self, call: Call, features: int, hidden: int | None) -> Call:
        """The call, with the place of its sequence, if the module does as a core must with it."""
        rows, time = (3 if features != 3 else 5), self.length(call, features)
        x = self.draw(rows, time, features)
        call, y = self.locate(call, x, hidden)
        if not self.judge:
            return call
        if not y.isfinite().all():
            raise Refused(
                8,
                f"{self.name} returns NaN or infinite values",
                "mend that first (it was given numbers of about 1)",
            )
        for other in (1, 2):
            again, _ = self.run(call, x, seed=other)
            if self.gap(y, again):
                raise Refused(
                    8,
                    f"{self.name} in eval() answers the same input differently each time",
                    "switch its random parts off in eval(), or return the state that it keeps",
                )
        self.check_rows(call, x, y)
        self.check_causal(call, x, y)
        return call

    def length(self, call: Call, features: int) -> int:
        """A length to try that is no other size, and that the module takes."""
        time, error = (11 if features == 7 else 7), None
        for length in (time, 64 if features != 64 else 128, 256):
            try:
                self.forget()
                self.raw(call, self.draw(2, length, features))
                return length
            except Exception as e:
                error = error or e
        assert error is not None
        raise self.said(error, (2, time, features)) from None

    def raw(self, call: Call, x: Tensor) -> dict[int | str | None, Any]:
        """What the module returns, part by part."""
        args, kwargs = call.arguments(self.module, x.shape[0], None)
        out = items(self.module(x.permute(call.order).clone().contiguous(), *args, **kwargs))
        for slot, value in slots(self.module):
            if not same(value, self.fresh.get(slot)):
                self.changed.add(slot)
        return out

    def said(self, e: Exception, shape: tuple[int, ...]) -> Refused:
        """What is made of an error that the module raised."""
        text = first_line(e)
        if re.search(r"scalar types?:? .*(Long|Int)|indices|must be.*(Long|int)", text):
            return Refused(
                2,
                f"{self.name} takes whole numbers, not the vectors that a core is given",
                "leave its nn.Embedding outside and give the layer after it",
            )
        if re.search(r"cuda|triton|\bGPU\b|nvidia", text, re.IGNORECASE):
            return Refused(
                2, f"{self.name} needs a GPU ({text})", "move it to one with .to('cuda') first"
            )
        return Refused(
            1,
            f"{self.name} raised {text} for an input of {shape}",
            "it must take (batch, time, features): wrap it, or say features=… if that is wrong",
        )

    def locate(self, call: Call, x: Tensor, hidden: int | None) -> tuple[Call, Tensor]:
        """The call with the place of the sequence in what comes back."""
        self.forget()
        try:
            parts = self.raw(call, x)
        except Exception as e:
            raise self.said(e, tuple(x.shape)) from None
        rows, time, _ = x.shape
        fitting: list[int | str | None] = []
        for place, part in parts.items():
            if isinstance(part, Tensor) and part.dim() == 3:
                shape = part.permute(call.order).shape
                if shape[:2] == (rows, time) and hidden in (None, shape[2]):
                    fitting.append(place)
        fitting.sort(key=lambda p: NAMES.index(p) if p in NAMES else len(NAMES))
        if not fitting:
            shapes = [
                tuple(p.permute(call.order).shape if p.dim() == 3 else p.shape)
                for p in parts.values()
                if isinstance(p, Tensor)
            ]
            seen = " and ".join(str(shape) for shape in shapes) or "no tensor"
            width = "hidden" if hidden is None else hidden
            raise Refused(
                2,
                f"{self.name} returns {seen} for an input of {tuple(x.shape)}",
                f"return (batch, time, {width}), one output for each step",
            )
        call = replace(call, sequence=fitting[0])
        y = parts[fitting[0]]
        if not y.is_floating_point():
            raise Refused(
                8,
                f"{self.name} returns {y.dtype}",
                "return floating-point numbers (.real, .float())",
            )
        y, _ = self.run(call, x)
        return call, y

    def check_rows(self, call: Call, x: Tensor, y: Tensor) -> None:
        """A row says the same whatever stands beside it."""
        # Other numbers altogether: many layers normalise away a shift or a scale.
        changed = x.clone()
        changed[0] = self.other(x)[0]
        gap = self.gap(y[1:], self.run(call, changed)[0][1:])
        if not gap:
            gap = self.gap(y[:2], self.run(call, x[:2])[0])
        if gap and self.gap(self.run(call, x)[0], self.go_on(call, x)[0]):
            raise Refused(
                8,
                f"{self.name} keeps its state on itself, and begins from what it was used for",
                "give a new one, or give it a method reset() that forgets",
            )
        if gap:
            raise Refused(
                5 if call.order == self.orders()[0] else 3,
                f"{self.name} mixes the rows of a batch (one row's output changed by {gap:.2g} "
                "when another row's input changed)",
                "its input must be (batch, time, features), each row by itself",
            )

    def check_causal(self, call: Call, x: Tensor, y: Tensor) -> None:
        """What is said at a step does not depend on later ones, nor on how many there are."""
        time = x.shape[1]
        near = 6 if call.order == self.orders()[0] else 4
        others = self.other(x)
        remedy = "mask the future (a causal mask, padding on the left alone) or wrap it so"
        for step in range(1, time) if time <= 16 else (time // 3, time // 2, time - 1):
            changed = x.clone()
            changed[:, step] = others[:, step]
            other, _ = self.run(call, changed)
            if self.gap(y[:, :step], other[:, :step]):
                moved = (y[:, :step] - other[:, :step]).double().abs().amax((0, 2))
                at = int((moved > self.tolerance * max(1e-3, float(moved.max()))).nonzero()[0])
                raise Refused(
                    near,
                    f"{self.name} sees the future (the output at step {at} changed by "
                    f"{float(moved[at]):.2g} when the input at step {step} changed)",
                    remedy,
                )
        try:
            short, _ = self.run(call, x[:, : time // 2])
        except Refused:
            raise
        except Exception:
            return
        if gap := self.gap(y[:, : time // 2], short):
            raise Refused(
                near,
                f"{self.name} sees the future (the first {time // 2} outputs changed by {gap:.2g} "
                f"when the sequence ended there)",
                remedy,
            )

    # --- state

    def find_state(self, features: int, call: Call, hidden: int | None) -> Found:
        """How the module is carried from one window to the next."""
        call = replace(call, cast=self.dtype != torch.get_default_dtype())
        time = self.length(call, features)
        x = self.draw(3 if features != 3 else 5, time, features)
        whole, _ = self.run(call, x)
        found = Found(features, whole.shape[2], call)
        if time > 16:  # only some lengths will do: no way to go on from any step
            return self.reading(found)
        second, _ = self.go_on(call, x)
        if self.gap(whole, second) and self.judge:
            return self.inside(found, x, whole)
        broken: Found | None = None
        note = ""
        for way, plainly in self.ways(call, x):
            try:
                candidate = self.laid_out(replace(found, call=way), x)
            except Exception:
                continue
            if candidate is None:
                continue
            try:
                gap = self.streams(candidate, x, whole)
            except Exception:
                continue
            if not gap:
                return self.emptiness(candidate, x, whole)
            give = candidate.call.give
            if isinstance(give, tuple) and not note:
                note = (
                    f"{self.name} takes {' and '.join(give)} and returns a state, but going on "
                    f"from it the output differs by {gap:.2g} from that of the whole sequence"
                )
                broken = candidate if plainly else None
        if broken is not None and not self.judge:
            return broken
        if broken is not None:
            cure = "use the state that is given and return the one after the last step"
            raise CoreError(note, cure)
        return replace(self.reading(found), note=note)

    def ways(self, call: Call, x: Tensor) -> Iterator[tuple[Call, bool]]:
        """Calls that may carry a state, and whether the module says that they do."""
        switches = [
            name
            for name, p in self.arguments.items()
            if p.default is False and FLAG.fullmatch(name)
        ]
        takes = [
            name
            for name, p in self.arguments.items()
            if STATE.fullmatch(name) and not isinstance(p.default, bool)
        ]
        for chosen in ([], *([name] for name in switches), switches if switches[1:] else None):
            if chosen is None:
                continue
            flagged = replace(call, flags=dict.fromkeys(chosen, True), needs_state=call.needs_state)
            try:
                flagged, _ = self.locate(flagged, x, None)
                self.forget()
                parts = self.raw(flagged, x)
            except Exception:
                continue
            rest = [p for p, v in parts.items() if p != flagged.sequence and v is not None]
            if not rest:
                continue
            pieces = [tuple(rest)] if len(rest) == 1 else [tuple(rest), *((p,) for p in rest)]
            plainly = not chosen
            if len(rest) > 1 and len(takes) >= len(rest):
                yield replace(flagged, state=tuple(rest), give=tuple(takes[: len(rest)])), plainly
            for piece in pieces:
                value = parts[piece[0]]
                if (
                    len(piece) == 1
                    and isinstance(value, dict)
                    and set(value) <= set(self.arguments)
                ):
                    yield replace(flagged, state=piece, give=None), plainly
                for name in takes:
                    yield replace(flagged, state=piece, give=(name,)), plainly
                second = next(iter(self.arguments), None)
                if second not in takes:
                    yield replace(flagged, state=piece, give=1), False

    def laid_out(self, found: Found, x: Tensor) -> Found | None:
        """With the rows' dimension of every tensor of the state; None where there is none."""
        first = leaves(self.run(found.call, x)[1])
        fewer = leaves(self.run(found.call, x[:-1])[1])
        laid = tuple(_leaf(a, b, len(x)) for a, b in zip(first, fewer, strict=True))
        if not any(leaf.dim is not None for leaf in laid):
            return None
        return replace(found, leaves=laid)

    def streams(self, found: Found, x: Tensor, whole: Tensor) -> float:
        """How far the pieces, the state carried, differ from the whole."""
        parts: list[Tensor] = []
        state: Any = None
        for piece in x.split([4, 1, x.shape[1] - 5], 1):
            y, state = self.run(found.call, piece, state)
            parts.append(y)
            if found_plain(found):
                state = map_state(lambda t: t, state)
            else:
                state = unpack(*pack(found.leaves, state, len(x)))
        return self.gap(whole, torch.cat(parts, 1))

    def emptiness(self, found: Found, x: Tensor, whole: Tensor) -> Found:
        """Whether zeros are the empty state, and whether a state that is given stays as it was."""
        _, state = self.run(found.call, x)
        before = copied(state)
        try:
            self.run(found.call, x, state)
            kept = same(before, copied(state))
            zeros = walk(_zero, before)
            empty = self.gap(whole, self.run(found.call, x, zeros)[0]) == 0
        except Exception:
            kept, empty = False, False
        # What the rows share cannot be emptied for one of them; what grows would never end.
        empty = empty and all(leaf.dim is not None for leaf in found.leaves)
        _, earlier = self.run(found.call, x[:, : x.shape[1] // 2])
        empty = empty and _shapes(earlier) == _shapes(before)
        return replace(found, zeros_are_empty=empty, keeps=kept)

    def inside(self, found: Found, x: Tensor, whole: Tensor) -> Found:
        """A module that goes on from where it was: its state is what it changes on itself."""
        cure = "return the state and take it back: forward(x, state=None) -> (y, state)"
        if not self.changed:
            raise CoreError(
                f"{self.name} answers the same input differently the second time, and what it "
                "keeps is not among its attributes",
                cure,
            )
        self.forget()
        parts = [self.go_on(found.call, piece)[0] for piece in x.split((4, 1, x.shape[1] - 5), 1)]
        if gap := self.gap(whole, torch.cat(parts, 1)):
            raise CoreError(
                f"{self.name} keeps its state on itself, but going on from it the output differs "
                f"by {gap:.2g} from that of the whole sequence",
                cure,
            )
        places = sorted(self.changed)
        kept = []
        for rows in (x, x[:-1]):
            self.run(found.call, rows)
            kept.append([look(self.module, slot) for slot in places])
        first, fewer = (leaves(k) for k in kept)
        laid = tuple(_leaf(a, b, len(x)) for a, b in zip(first, fewer, strict=True))
        self.forget()
        for slot, value in zip(places, walk(_zero, kept[0]), strict=True):
            fill(self.module, slot, value)
        try:
            # Wider batches than before, from zeros: what a fresh module says.
            empty = self.gap(whole, self.go_on(found.call, x)[0]) == 0
        except Exception:
            empty = False
        empty = empty and all(leaf.dim is not None for leaf in laid)
        fresh = tuple((slot, copied(self.fresh[slot])) for slot in places)
        return replace(found, leaves=laid, inside=fresh, zeros_are_empty=empty)

    # --- no state

    PROBED = 257
    """The longest sequence on which it is tried how far back the output depends on the input."""

    def lengths(self, call: Call, features: int) -> tuple[int | None, int]:
        """The longest sequence that the module takes, up to PROBED, and what lengths divide by."""

        def takes(time: int) -> bool:
            try:
                return bool(self.run(call, self.draw(1, time, features))[0].shape[1] == time)
            except Exception:
                return False

        multiple = next(
            (m for m in (1, 2, 4, 8, 16, 32, 64, 128, 256) if takes(m) and takes(3 * m)), 1
        )
        top = -(-self.PROBED // multiple)
        if takes(top * multiple):
            return None, multiple
        low, high = 1, top
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if takes(middle * multiple) else (low, middle)
        return low * multiple, multiple

    def reading(self, found: Found) -> Found:
        """How many inputs before the present one still matter to a module without a state."""
        longest, multiple = self.lengths(found.call, found.features)
        found = replace(found, longest=longest, multiple=multiple)
        time = -(-min(self.PROBED, longest or self.PROBED) // multiple) * multiple
        try:
            reach = self.reach(found, time)
        except Exception:
            reach = time  # no gradient, no knowledge
        return replace(found, context=reach - 1, whole=reach < time)

    def reach(self, found: Found, time: int) -> int:
        """Over how many inputs, the present one included, the gradient of an output is not zero.

        In float64, where 257 steps of forgetting do not yet underflow: a zero is one of structure.
        """
        x = self.draw(4, time, found.features).double().requires_grad_()
        self.forget()
        module = copy.deepcopy(self.module).double()
        with torch.enable_grad():
            y, _ = found.call(module, x)
            weights = torch.linspace(0.5, 1.5, y.shape[2], device=y.device, dtype=y.dtype)
            reach = 1
            for back in (0, 1, 2, 4, 8, 16, 32, 64):  # block by block, some steps see further
                at = time - 1 - back
                if at < 0:
                    break
                heard = (y[:, at] * weights).sum()
                (slope,) = torch.autograd.grad(heard, x, retain_graph=True)
                felt = (slope != 0).any(2).any(0)  # (time,)
                if felt.any():
                    first = int(felt.nonzero()[0])
                    reach = max(reach, at + 1 - first if first else time)
        return reach


def found_plain(found: Found) -> bool:
    """Whether the state may be given out as the module made it."""
    dims = {leaf.dim for leaf in found.leaves}
    return len(dims) == 1 and all(leaf.plain for leaf in found.leaves)


def _leaf(a: Any, b: Any, rows: int) -> Leaf:
    """How a tensor is laid out, from what it is with `rows` rows and with one fewer."""
    if not isinstance(a, Tensor):
        return Leaf(type(a), torch.float32, None)
    if a.dim() != b.dim():
        raise Opaque("a state whose shape depends on the rows")
    differ = [d for d in range(a.dim()) if a.shape[d] != b.shape[d]]
    if not differ:
        return Leaf(None, a.dtype, None)
    (dim,) = differ
    if a.shape[dim] * (rows - 1) != b.shape[dim] * rows:
        raise Opaque("a state whose size is no multiple of the rows")
    return Leaf(None, a.dtype, dim, a.shape[dim] // rows)


def _shapes(tree: Any) -> list[torch.Size]:
    shapes: list[torch.Size] = []
    walk(lambda leaf: shapes.append(leaf.shape) if isinstance(leaf, Tensor) else None, tree)
    return shapes


def _zero(leaf: Any) -> Any:
    return torch.zeros_like(leaf) if isinstance(leaf, Tensor) else type(leaf)(0)
