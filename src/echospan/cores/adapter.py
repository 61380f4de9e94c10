"""Any torch.nn.Module as a core: its width found, its state carried, its faults named."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.cores.calling import BATCH_FIRST, copied, fill, look, pack, unpack, walk
from echospan.cores.probing import Found, Probe, Refused, found_plain, left_alone, signature
from echospan.cores.protocol import State
from echospan.errors import CoreError
from echospan.validation import whole


class Adapted(nn.Module):
    """A module that is called as a core is: `core(x, state) -> (y, state)`."""

    carries = "state"
    """How it is carried from window to window: by a state, by what the module keeps on itself
    ("inside"), or by reading its last inputs again ("inputs")."""

    def __init__(self, module: nn.Module, found: Found) -> None:
        super().__init__()
        self.module = module
        self.call = found.call
        self.found = found
        self.input_size = found.features
        self.hidden_size = found.hidden
        self.batch_dim = 0
        self.zeros_are_empty = found.zeros_are_empty

    def extra_repr(self) -> str:
        """What was found out."""
        order = {(0, 1, 2): "batch first", (1, 0, 2): "time first", (0, 2, 1): "channels first"}
        return (
            f"{self.input_size} -> {self.hidden_size}, {order[self.call.order]}, "
            f"carried by {self.carries}"
        )


class Carried(Adapted):
    """A module that takes its state and returns it."""

    def __init__(self, module: nn.Module, found: Found) -> None:
        super().__init__(module, found)
        self.plain = found_plain(found)
        if self.plain:
            self.batch_dim = found.leaves[0].dim or 0
        self.shape: Any = None
        """How the module's own state is built, leaf by leaf, where it is packed for the caller."""

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """`(batch, time, input_size)` to `(batch, time, hidden_size)` and the state."""
        given: Any = state
        if state is not None:
            if not self.plain:
                if self.shape is None:
                    with torch.no_grad():
                        _, made = self.call(self.module, x[:, :1].detach())
                    _, self.shape = pack(self.found.leaves, made, len(x))
                given = unpack(state, self.shape)  # type: ignore[arg-type]
            if not self.found.keeps:
                given = _cloned(given)
        y, made = self.call(self.module, x, given)
        if not self.plain:
            made, self.shape = pack(self.found.leaves, made, len(x))
        return y, made


class Plain(Adapted):
    """A module that is called as it stands: `module(x, state) -> (y, state)`."""

    def __init__(self, module: nn.Module, found: Found) -> None:
        super().__init__(module, found)
        self.batch_dim = found.leaves[0].dim or 0

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """`(batch, time, input_size)` to `(batch, time, hidden_size)` and the state."""
        return self.module(x, state)  # type: ignore[no-any-return]


class Inside(Adapted):
    """A module that keeps its state on itself: put there before, and taken away after."""

    carries = "what it keeps on itself"

    def __init__(self, module: nn.Module, found: Found) -> None:
        super().__init__(module, found)
        self.shape: Any = None

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """`(batch, time, input_size)` to `(batch, time, hidden_size)` and the state."""
        module = getattr(self.module, "_orig_mod", self.module)
        places = [slot for slot, _ in self.found.inside]
        if state is not None and self.shape is None:
            with torch.no_grad():
                self(x[:, :1].detach())
        fresh = [copied(value) for _, value in self.found.inside]
        values = fresh if state is None else unpack(state, self.shape)  # type: ignore[arg-type]
        try:
            for slot, value in zip(places, _cloned(values), strict=True):
                fill(module, slot, value)
            y, _ = self.call(self.module, x)
            made, self.shape = pack(
                self.found.leaves, [look(module, slot) for slot in places], len(x)
            )
        finally:
            # The module is left as it came: nothing of this sequence stays on it.
            for slot, value in self.found.inside:
                fill(module, slot, copied(value))
        return y, tuple(t.clone() for t in made)


class Reading(Adapted):
    """A module without a state: its last `context` inputs are kept and read again.

    The state is these inputs `(batch, context, features)`, the newest last, and how many of them
    there are, `(batch, 1)`: zeros are the empty state. What the module depends on beyond them is
    lost (`whole` says whether that can be).
    """

    carries = "its last inputs"

    def __init__(self, module: nn.Module, found: Found) -> None:
        super().__init__(module, found)
        self.context = found.context
        self.whole = found.whole
        self.note = found.note

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """`(batch, time, input_size)` to `(batch, time, hidden_size)` and the state."""
        batch, time, _ = x.shape
        if not self.context:
            parts = [self.read(part) for part in x.split(self.found.longest or max(time, 1), 1)]
            return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)), None
        kept: Tensor | None = None
        if state is None:
            kept, count = None, x.new_zeros(batch, 1)
        else:
            kept, count = state  # type: ignore[assignment]
        longest = self.found.longest
        room = time if longest is None else longest - (self.context if kept is not None else 0)
        if time > room:
            parts, carried, start = [], state, 0
            while start < time:
                window = x[:, start : start + room]
                y, carried = self(window, carried)
                parts.append(y)
                start += room
                room = (longest or time) - self.context
            return torch.cat(parts, 1), carried
        if kept is None:
            y, past = self.read(x), x
        else:
            past = torch.cat([kept, x], 1)
            y = self.read_after(past, count, time)
        past = past[:, -self.context :]
        if past.shape[1] < self.context:
            past = F.pad(past, (0, 0, self.context - past.shape[1], 0))
        return y, (past, (count + time).clamp(max=self.context))

    def read_after(self, past: Tensor, count: Tensor, time: int) -> Tensor:
        """The last `time` outputs of each row, of whose kept inputs only `count (batch, 1)` are.

        Rows that hold fewer begin later: each is moved to the left, which a causal module does not
        notice but for the rest that then stands at the end.
        """
        counts = count.detach().long()  # (batch, 1)
        low, high = (int(c) for c in counts.aminmax())
        if low == high:
            return self.read(past[:, self.context - high :])[:, high:]
        steps = torch.arange(high + time, device=past.device)  # (high + time,)
        index = (self.context - counts + steps).clamp(max=past.shape[1] - 1)  # (batch, high + time)
        y = self.read(past.gather(1, index[..., None].expand(-1, -1, past.shape[2])))
        index = counts + steps[:time]  # (batch, time)
        return y.gather(1, index[..., None].expand(-1, -1, y.shape[2]))

    def read(self, x: Tensor) -> Tensor:
        """The module on whole sequences, lengthened where it takes only some lengths."""
        more = -x.shape[1] % self.found.multiple
        y, _ = self.call(self.module, F.pad(x, (0, 0, 0, more)) if more else x)
        return y[:, : x.shape[1]] if more else y


def _cloned(tree: Any) -> Any:
    return walk(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tree)


def as_core(
    module: nn.Module,
    features: int | None = None,
    hidden: int | None = None,
    *,
    context: int | None = None,
    judge: bool = True,
) -> Adapted:
    """The module as a core (`echospan.cores.Core`), the same object inside.

    It may take its input time-first or channels-first, return more than its output, take its state
    under any common name, keep it on itself, or have none: then its last `context` inputs are read
    again (default: as many as matter, 256 where more do). `features` is the width of its input
    where it does not say; `hidden` that of its output, to be checked. `judge=False` takes in what
    breaks a core's promises too, so that the checks can say which.

    A copy is tried; weights, buffers, mode and random states stay as they are. Raises CoreError,
    which says what was seen and what to write, for what cannot be a core.
    """
    if isinstance(module, type):
        raise CoreError(
            f"{module.__name__} is a class", f"give an instance of it, as {module.__name__}(…)"
        )
    features, hidden, context = (
        None if size is None else whole(name, size, 1)
        for name, size in (("features", features), ("hidden", hidden), ("context", context))
    )
    if not isinstance(module, nn.Module):
        raise CoreError(f"{module!r:.60} is no torch.nn.Module", "give an instance of one")
    if isinstance(module, Adapted) and features in (None, module.input_size):
        return module
    inner = getattr(module, "_orig_mod", module)  # what torch.compile was given
    with left_alone():
        try:
            found = Probe(inner, judge).find(features, hidden)
        except Refused as e:
            raise CoreError(e.fact, e.remedy) from None
    if found.inside:
        return Inside(module, found)
    if found.leaves:
        return (Plain if _is_plain(inner, found) else Carried)(module, found)
    if context is not None:
        found = replace(found, context=context, whole=found.whole and context >= found.context)
    if found.longest is not None and found.context >= found.longest:
        found = replace(found, context=found.longest // 2)
    return Reading(module, found)


def _is_plain(module: nn.Module, found: Found) -> bool:
    """Whether `module(x, state)` is all there is to it."""
    call = found.call
    second = next(iter(signature(module)[1].values()), None)
    return (
        second is not None
        and call.give in (1, (second.name,))
        and (second.default is None or bool(call.needs_state))
        and call.order == BATCH_FIRST
        and (call.sequence, call.state) == (0, (1,))
        and not (call.flags or call.start or call.cast)
        and found.keeps
        and found_plain(found)
    )
