"""Modules behind the interface of a core: `core(x, state) -> (y, state)`."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echospan.cores.calling import (
    BATCH_FIRST,
    CHANNEL_FIRST,
    TIME_FIRST,
    Plan,
    read_slot,
    write_slots,
)
from echospan.cores.copying import uncompiled
from echospan.cores.protocol import State, tensors
from echospan.cores.state_tree import cloned, leaves, pack, rebuild, unpack

ORDERS = {BATCH_FIRST: "batch first", TIME_FIRST: "time first", CHANNEL_FIRST: "channels first"}


class Adapted(nn.Module):
    """A module that is called as a core is: `core(x, state) -> (y, state)`.

    Attributes:
        module: The module itself.
        input_size: Features of its input.
        hidden_size: Features of its output.
        carries: How it is carried from one window of its input to the next: "state", "what it
            keeps on itself" or "its last inputs".
        rereads: Whether it is carried by reading its last inputs again. Then neither the size of
            the state nor the time of a streamed step is the module's own.
        note: One sentence on how it is carried, where figures need it; empty elsewhere.
        batch_dim: The dimension of the tensors of its state that counts rows.
        zeros_are_empty: Whether a state of zeros means that nothing was read yet.
        longest: The longest input that the module takes at once; longer ones are cut.
    """

    carries = "state"

    def __init__(self, module: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.module = module
        self.plan = plan
        self.call = plan.call
        self.input_size = plan.features
        self.hidden_size = plan.hidden
        self.batch_dim = 0
        self.zeros_are_empty = plan.zeros_are_empty
        self.longest = plan.longest
        self.note = plan.note
        self.rereads = False
        # As buffers they follow the module to another device or dtype.
        for at, value in enumerate(leaves([value for _, value in plan.inside])):
            if isinstance(value, Tensor):
                self.register_buffer(f"start_{at}", value, persistent=False)

    def extra_repr(self) -> str:
        """Return widths, layout and how the module is carried."""
        return (
            f"{self.input_size} -> {self.hidden_size}, {ORDERS[self.call.order]}, "
            f"carried by {self.carries}"
        )

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return the output `(batch, time, hidden_size)` and the state after it.

        Args:
            x: The input `(batch, time, input_size)`.
            state: What the last call returned; None to begin anew.
        """
        time = x.shape[1]
        if time <= self.room(state, time):
            try:
                return self.window(x, state)
            except Exception:
                if torch.compiler.is_compiling() or not self.find_longest(x, state):
                    raise
        parts, start = [], 0
        while start < time:
            end = start + self.room(state, time)
            y, state = self.window(x[:, start:end], state)
            parts.append(y)
            start = end
        return torch.cat(parts, 1), state

    def window(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return output and state for an input that the module takes at once."""
        raise NotImplementedError

    def room(self, state: State, time: int) -> int:
        """Return how many of `time` steps are read at once, after the state."""
        return time if self.longest is None else min(time, self.longest)

    def find_longest(self, x: Tensor, state: State) -> bool:
        """Find the longest input that the module takes; return whether `x` was too long for it."""
        low, length = self.plan.tested, self.length(x, state)
        if length <= low or self.longest is not None:
            return False
        row = F.pad(x[:1].detach(), (0, 0, 0, length - x.shape[1]))

        def takes(time: int) -> bool:
            try:
                with torch.no_grad():
                    self.read(row[:, :time])
            except Exception:
                return False
            return True

        if not takes(low) or takes(length):
            return False
        self.longest = longest_taken(takes, low, length)
        return True

    def start(self) -> list[Any]:
        """Return what the module keeps on itself when it is new."""
        at = itertools.count()
        own = self._buffers
        return rebuild(  # type: ignore[no-any-return]
            lambda value: v.clone() if (v := own.get(f"start_{next(at)}")) is not None else value,
            [value for _, value in self.plan.inside],
        )

    @contextlib.contextmanager
    def keeping(self, values: list[Any]) -> Iterator[Callable[[], list[Any]]]:
        """Set what the module keeps on itself, for one call; yield what reads it after the call."""
        module = uncompiled(self.module)
        places = [slot for slot, _ in self.plan.inside]
        write_slots(module, dict(zip(places, values, strict=True)))
        try:
            yield lambda: [read_slot(module, slot) for slot in places]
        finally:
            # Nothing of this sequence stays on the module.
            write_slots(module, dict(zip(places, self.start(), strict=True)))

    def length(self, x: Tensor, state: State) -> int:
        """Return how many steps the module reads for `x`."""
        return x.shape[1]

    def read(self, x: Tensor) -> Tensor:
        """Return the outputs for a whole sequence."""
        if not self.plan.inside:
            return self.call(self.module, x)[0]
        with self.keeping(self.start()):
            return self.call(self.module, x)[0]


def longest_taken(takes: Callable[[int], bool], low: int, high: int) -> int:
    """Return the longest length that is taken, from `low`, which is, to `high`, which is not."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(middle) else (low, middle)
    return low


class Plain(Adapted):
    """A module that is called as it is: `module(x, state) -> (y, state)`."""

    def __init__(self, module: nn.Module, plan: Plan) -> None:
        super().__init__(module, plan)
        self.batch_dim = plan.leaves[0].dim or 0

    def window(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return what the module returns."""
        return self.module(x, state)  # type: ignore[no-any-return]


class Carried(Adapted):
    """A module that takes its state and returns it."""

    def __init__(self, module: nn.Module, plan: Plan) -> None:
        super().__init__(module, plan)
        if plan.plain:
            self.batch_dim = plan.leaves[0].dim or 0
        self.skeleton: Any = None
        """The module's own state with the tensors left out."""

    def window(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return output and state; the module gets its state as it returned it."""
        given: Any = state
        if state is not None:
            if self.plan.one_by_one and x.shape[1] > 1:
                return self.by_steps(x, state)
            if not self.plan.plain:
                if self.skeleton is None:
                    with torch.no_grad():
                        self.window(x[:, :1].detach(), None)
                given = unpack(state, self.skeleton)  # type: ignore[arg-type]
            if not self.plan.unchanged:
                given = cloned(given)
        y, after = self.call(self.module, x, given)
        if self.plan.plain:
            return y, after
        packed, self.skeleton = pack(self.plan.leaves, after, len(x))
        return y, packed

    def by_steps(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return output and state, read one step at a time."""
        parts = []
        for step in x.split(1, 1):
            y, state = self.window(step, state)
            parts.append(y)
        return torch.cat(parts, 1), state


class Inside(Adapted):
    """A module that keeps its state on itself: set before each call, and taken away after it."""

    carries = "what it keeps on itself"

    def __init__(self, module: nn.Module, plan: Plan) -> None:
        super().__init__(module, plan)
        self.skeleton: Any = None

    def window(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return output and state."""
        if state is None:
            values = self.start()
        else:
            if self.skeleton is None:
                with torch.no_grad():
                    self.window(x[:, :1].detach(), None)
            values = cloned(unpack(state, self.skeleton))  # type: ignore[arg-type]
        with self.keeping(values) as kept:
            y, _ = self.call(self.module, x)
            packed, self.skeleton = pack(self.plan.leaves, kept(), len(x))
        return y, tuple(t.clone() for t in packed)


class Reading(Adapted):
    """A module that is not carried by a state: its last `context` inputs are read again.

    The state is these inputs `(batch, context, features)`, the newest last, and how many of them
    there are, `(batch, 1)`: zeros are the empty state. What the module depends on beyond them is
    lost; `whole` tells whether it may depend on more.
    """

    carries = "its last inputs"

    def __init__(self, module: nn.Module, plan: Plan) -> None:
        super().__init__(module, plan)
        self.context = plan.context
        self.whole = plan.whole
        self.rereads = plan.context > 0

    def room(self, state: State, time: int) -> int:
        """Return how many of `time` steps are read at once, after the inputs in the state."""
        if self.longest is None:
            return time
        return min(time, self.longest - (self.context if state is not None else 0))

    def length(self, x: Tensor, state: State) -> int:
        """Return how many steps the module reads for `x`, the inputs in the state included."""
        return x.shape[1] + (self.context if state is not None else 0)

    def window(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return output and state."""
        batch, time, _ = x.shape
        if not self.context:
            return self.read(x), None
        if state is None:
            y, past, count = self.read(x), x, x.new_zeros(batch, 1, dtype=torch.float32)
        else:
            last, count = tensors(state)
            past = torch.cat([last, x], 1)
            y = self.read_after(past, count, time)
        past = past[:, -self.context :]
        if past.shape[1] < self.context:
            past = F.pad(past, (0, 0, self.context - past.shape[1], 0))
        return y, (past, (count + time).clamp(max=self.context))

    def read_after(self, past: Tensor, count: Tensor, time: int) -> Tensor:
        """Return the last `time` outputs, where each row has `count (batch, 1)` inputs before them.

        Rows that have fewer begin later: each is moved to the left, which a causal module does not
        notice but for the rest that is then at the end.
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
        """Return the outputs for a whole sequence, lengthened where only some lengths are taken."""
        more = -x.shape[1] % self.plan.multiple
        y = super().read(F.pad(x, (0, 0, 0, more)) if more else x)
        return y[:, : x.shape[1]] if more else y


def adapt(module: nn.Module, plan: Plan, call_as_it_is: bool = False) -> Adapted:
    """Return the module behind the interface that its plan asks for."""
    if plan.leaves and plan.inside:
        return Inside(module, plan)
    if plan.leaves:
        return (Plain if call_as_it_is else Carried)(module, plan)
    return Reading(module, plan)
