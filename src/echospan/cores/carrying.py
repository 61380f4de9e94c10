"""How a module is carried from one window of its input to the next, found by trying.

Each way is tried behind the interface of a core, on a sequence in pieces: what comes out must be
what comes out of the whole.
"""

import functools
import inspect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from echospan.cores.adapted import Adapted, adapt, longest_taken
from echospan.cores.calling import (
    ABSENT,
    BATCH_FIRST,
    LAST,
    TESTED,
    ByClass,
    ByMethod,
    ByZeros,
    Call,
    Place,
    Plan,
    Slot,
)
from echospan.cores.copying import copy_module
from echospan.cores.discovery import STARTS, STATE, wants_arguments
from echospan.cores.probing import Refused, Trial, graph_leaves
from echospan.cores.protocol import State, map_state, tensors
from echospan.cores.state_tree import Unpackable, is_state, layout, leaves, rebuild, same
from echospan.errors import CoreError

FLAG_WORDS = ("state", "hidden", "cache", "carry", "memory", "past", "return", "output", "use")
"""Words in the names of switches that make a module return its state: they are tried first."""

TRIALS = 120
"""Pairs of what is returned and the argument that may take it, at most."""

LONGEST = 4097
"""The longest input on which limits of length are sought before a module is used."""


class Carrying:
    """Finds how one module is carried, given its call."""

    def __init__(self, trial: Trial, features: int, call: Call, time: int) -> None:
        self.trial, self.name = trial, trial.name
        self.x = trial.draw(3 if features != 3 else 5, time, features)
        self.y, _ = trial.run(call, self.x)
        self.some_lengths = time > 16
        """Whether it takes some lengths only, and so cannot go on from any step."""
        self.plan = Plan(features, self.y.shape[2], call, tested=time, lazy=trial.lazy)

    def find(self) -> Plan:
        """Return the plan.

        Raises:
            CoreError: The module keeps or takes a state, and goes on from it otherwise than the
                whole sequence does.
        """
        if plan := self.on_itself():
            return plan
        if self.some_lengths:
            return self.reading("")
        plan, note = self.returned()
        if plan is not None:
            return plan
        if isinstance(self.plan.call.begin, ByZeros):
            raise wants_arguments(self.trial)
        return self.reading(note)

    # --- trying a plan

    def core(self, plan: Plan) -> Adapted:
        """Return the trial's module behind the interface of a core, as if it were new."""
        self.trial.forget()
        return adapt(self.trial.module, plan, is_plain(self.trial, plan))

    def follows(self, plan: Plan) -> float:
        """Return how far the output in pieces, carried as planned, differs from the whole.

        A state is a value: going on from it twice gives the same twice, and does not change it.
        """
        core, state = self.core(plan), None
        parts: list[Tensor] = []
        for piece in self.x.split([4, 1, self.x.shape[1] - 5], 1):
            before = map_state(torch.clone, state)
            y, after = self.call(core, piece, map_state(torch.clone, before))
            if state is not None:
                again, _ = self.call(core, piece, state)
                if not _equal(state, before) or self.trial.gap(y, again):
                    return float("inf")
            parts.append(y)
            state = after
        return self.trial.gap(self.y, torch.cat(parts, 1))

    def call(self, core: Adapted, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return output and state of a core on the trial's module."""
        self.trial.forget()
        torch.manual_seed(0)
        return core.window(x.clone(), state)

    def accepted(self, plan: Plan) -> tuple[Plan | None, float]:
        """Return the plan with all that is known of its state, if it follows; and how far not."""
        for candidate in (plan, replace(plan, unchanged=False)):
            try:
                gap = self.follows(candidate)
            except (CoreError, Refused):
                raise
            except Exception:
                gap = float("inf")
            if not gap:
                return self.with_emptiness(candidate), 0.0
            if gap < float("inf"):
                break
        return None, gap

    def with_emptiness(self, plan: Plan) -> Plan:
        """Return the plan, with whether a state of zeros is the empty one."""
        core = self.core(plan)
        _, state = self.call(core, self.x)
        _, earlier = self.call(core, self.x[:, :3])
        try:
            zeros = map_state(torch.zeros_like, state)
            empty = self.trial.gap(self.y, self.call(core, self.x, zeros)[0]) == 0
        except Exception:  # zeros are no state of it
            empty = False
        # What the rows share cannot be emptied for one of them; what grows would never end.
        shared = any(leaf.dim is None and not leaf.constant for leaf in plan.leaves)
        grows = _shapes(state) != _shapes(earlier)
        return replace(plan, zeros_are_empty=empty and not shared and not grows)

    # --- a state on the module itself

    def on_itself(self) -> Plan | None:
        """Return the plan of a module that goes on from where it was; None for another.

        Raises:
            CoreError: Its output depends on what it read before, but not as a core's does.
        """
        trial, call = self.trial, self.plan.call
        trial.run(call, self.x)
        differs = bool(trial.gap(self.y, trial.go_on(call, self.x)[0]))
        places = self.influential() if trial.changed else []
        if not places and not differs:
            return None
        cure = "return the state and take it back: forward(x, state=None) -> (y, state)"
        if not trial.judge and not places:
            return None
        if not places:
            raise CoreError(
                f"{self.name} answers the same input differently the second time, and what it "
                "keeps is not among its attributes",
                cure,
            )
        start = self.at_start(places)
        if self.some_lengths:
            return self.reading("", start)
        try:
            laid = layout(*self.states(lambda: list(trial.values(places).values())))
            plan, gap = self.accepted(replace(self.plan, leaves=laid, inside=start))
        except (Unpackable, Refused) as e:
            return self.reading(f"what it keeps on itself cannot be carried: {e}", start)
        if plan is not None:
            limit = self.limit_of_state(plan)
            return self.reading(limit, plan.inside) if limit else plan
        if not trial.judge:
            return None
        raise CoreError(
            f"{self.name} keeps its state on itself, but going on from it the output differs "
            f"by {gap:.2g} from that of the whole sequence",
            cure,
        )

    def at_start(self, places: Sequence[Slot]) -> tuple[tuple[Slot, Any], ...]:
        """Return what a new module keeps in some places."""
        self.trial.forget()
        return tuple(self.trial.values(places).items())

    def states(self, state: Any = None, call: Call | None = None) -> tuple[list[Any], list[int]]:
        """Return the states after inputs that differ in rows, numbers and length.

        `state()` is read after each call; without it, what the call returns.
        """
        found, rows = [], []
        other = self.trial.other(self.x)
        for x in (self.x, self.x[:-1], other[:, :-2], self.x[:, :1]):
            _, after = self.trial.run(call or self.plan.call, x)
            found.append(after if state is None else state())
            rows.append(len(x))
        return found, rows

    def influential(self) -> list[Slot]:
        """Return the attributes by which a call influences the output of the next one.

        An attribute that a call sets and the next one does not read (the last attention weights, a
        hidden state made anew each time) is none; nor is one that depends on shapes alone (a mask).
        """
        trial, call, x = self.trial, self.plan.call, self.x
        other = trial.other(x)
        trial.run(call, other)
        after_other = trial.values(trial.changed)
        trial.run(call, x)
        trial.go_on(call, x)
        after_two = trial.values(trial.changed)
        trial.run(call, x)
        after = trial.values(trial.changed)
        moving = sorted(
            slot
            for slot, value in after.items()
            if not (same(value, after_other.get(slot)) and same(value, after_two.get(slot)))
        )
        if not moving:
            return []
        y, following = self.next_call(after, moving)
        feeds: dict[Slot, set[Slot]] = {slot: set() for slot in moving}
        reaching = self.in_graph(after, moving)
        for slot in moving:
            start = trial.fresh.get(slot, ABSENT)
            for altered in (start, *(rebuild(change, after[slot]) for change in ALTERATIONS)):
                if slot in reaching:
                    break
                try:
                    changed, later = self.next_call(after | {slot: altered}, moving)
                except Exception:  # it reads it, and cannot use it
                    reaching.add(slot)
                    break
                if not torch.equal(y, changed):
                    reaching.add(slot)
                feeds[slot] |= {s for s in moving if not same(following[s], later[s])}
        while more := {s for s in moving if s not in reaching and feeds[s] & reaching}:
            reaching |= more
        return [slot for slot in moving if slot in reaching]

    def next_call(
        self, values: dict[Slot, Any], places: Sequence[Slot]
    ) -> tuple[Tensor, dict[Slot, Any]]:
        """Return the output of a module that keeps these values, and what it keeps afterwards."""
        self.trial.forget()
        self.trial.put(values)
        y, _ = self.trial.go_on(self.plan.call, self.trial.other(self.x))
        return y, self.trial.values(places)

    def in_graph(self, values: dict[Slot, Any], places: Sequence[Slot]) -> set[Slot]:
        """Return the slots whose tensors are in the autograd graph of the next output.

        So a state is found that does not move the output yet, as that of neurons below their
        threshold.
        """
        marks: dict[Slot, list[Tensor]] = {slot: [] for slot in places}
        self.trial.forget()
        with torch.enable_grad():
            given = {s: rebuild(functools.partial(_marked, marks[s]), values[s]) for s in places}
            self.trial.put_as_they_are(values | given)
            y, _ = self.trial.go_on(self.plan.call, self.trial.other(self.x))
            origins = graph_leaves(y)
        self.trial.forget()
        return {s for s in places if any(t is mark for t in origins for mark in marks[s])}

    # --- a state that is returned

    def returned(self) -> tuple[Plan | None, str]:
        """Return the plan of a module that returns its state, or None and the reason.

        Raises:
            CoreError: It takes a state by its name, and ignores or spoils it.
        """
        pieces = self.x.split([4, 1, self.x.shape[1] - 5], 1)
        try:
            apart = [self.trial.run(self.plan.call, piece)[0] for piece in pieces]
            forgets = not self.trial.gap(self.y, torch.cat(apart, 1))
        except Refused:  # it takes some lengths only
            forgets = False
        note, broken = "", None
        for call, plainly in itertools.islice(self.ways(), TRIALS):
            gap = self.one_step(call)
            plan = None if gap else self.carried_by(call, forgets)
            if plan is not None:
                limit = self.limit_of_state(plan)
                return (None, limit) if limit else (plan, "")
            names = call.give if isinstance(call.give, tuple) else ()
            named = bool(names) and all(STATE.fullmatch(name) for name in names)
            if not named or note or call.last is not None or gap == float("inf"):
                continue
            note = f"{self.name} takes {' and '.join(names)} and returns a state"
            if gap:
                broken = call if plainly and self.of_fixed_size(call) else None
                note += (
                    f", but going on from it the output differs by {gap:.2g} from that of the "
                    "whole sequence"
                )
            else:
                note += " that cannot be carried"
        if broken is None:
            return None, note
        if not self.trial.judge:
            return self.laid_out(broken), note
        raise CoreError(note, "use the state that is given and return the one after the last step")

    def one_step(self, call: Call) -> float:
        """Return how far one step from a returned state differs from the whole; inf on errors."""
        try:
            _, state = self.trial.run(call, self.x[:, :4])
            y, _ = self.trial.go_on(call, self.x[:, 4:5], state)
        except Exception:  # it takes no such state
            return float("inf")
        return self.trial.gap(self.y[:, 4:5], y)

    def of_fixed_size(self, call: Call) -> bool:
        """Return whether what is returned has one shape for any length, as only a state has."""
        try:
            self.laid_out(call)
            long, short = (self.trial.run(call, x)[1] for x in (self.x, self.x[:, :4]))
        except (Unpackable, Refused):
            return False
        return _shapes(long) == _shapes(short)

    def laid_out(self, call: Call) -> Plan:
        """Return the plan that carries a returned state; Unpackable or Refused if it cannot be."""
        laid = layout(*self.states(call=call))
        if all(leaf.constant for leaf in laid):
            raise Unpackable("it does not change")
        plan = replace(self.plan, call=call, leaves=laid)
        return replace(plan, plain=self.is_plain_state(plan))

    def carried_by(self, call: Call, forgets: bool) -> Plan | None:
        """Return the plan that carries a returned state, if it does all that it must.

        A module whose output `forgets` the last step anyway has to be shown to read its state.
        """
        try:
            plan = self.laid_out(call)
        except (Unpackable, Refused):
            return None
        packed = replace(plan, plain=False)
        for candidate in (plan, packed, replace(packed, one_by_one=True)):
            try:
                accepted, _ = self.accepted(candidate)
                if accepted is not None and self.in_training(accepted):
                    return accepted if not forgets or self.matters(accepted) else None
            except Exception:  # whatever it raises, the module is not carried so
                continue
        return None

    def in_training(self, plan: Plan) -> bool:
        """Return whether the module returns its state in train() too, if it runs there at all."""
        self.trial.module.train()
        try:
            self.trial.run(self.plan.call, self.x)
            core = self.core(plan)
            _, state = self.call(core, self.x)
            self.call(core, self.x, state)
        except Refused:
            return True  # then it cannot be trained anyhow
        except Exception:  # the state is another
            return False
        finally:
            self.trial.module.eval()
        return True

    def is_plain_state(self, plan: Plan) -> bool:
        """Return whether the state may be given to a caller as the module returns it."""
        state = self.trial.run(plan.call, self.x)[1]
        return (
            not plan.call.in_place
            and len({leaf.dim for leaf in plan.leaves}) == 1
            and all(leaf.plain for leaf in plan.leaves)
            and all(t.dim() > 1 for t in leaves(state))
            and _is_public(state)
        )

    def matters(self, plan: Plan) -> bool:
        """Return whether a state that is given influences the output, at once or by its graph."""
        core = self.core(plan)
        _, state = self.call(core, self.x)
        y, _ = self.call(core, self.x, state)
        for change in (torch.zeros_like, *ALTERATIONS):
            try:
                changed, _ = self.call(core, self.x, map_state(change, state))
            except Exception:  # it reads it, and cannot use it
                return True
            if not torch.equal(y, changed):
                return True
        marks: list[Tensor] = []
        with torch.enable_grad():
            y, _ = self.call(core, self.x, map_state(functools.partial(_marked, marks), state))
            return any(t is mark for t in graph_leaves(y) for mark in marks)

    def ways(self) -> Iterator[tuple[Call, bool]]:
        """Yield calls that may carry a state, and whether they need no switch."""
        arguments = self.trial.arguments
        taking = [
            name
            for name, p in arguments.items()
            if not isinstance(p.default, bool) and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        none = (None, inspect.Parameter.empty)
        taking.sort(key=lambda n: (STATE.fullmatch(n) is None, arguments[n].default not in none))
        for flags in self.switches():
            call = replace(self.plan.call, flags=flags)
            try:
                parts = self.trial.outputs(call, self.x)
            except Refused:
                continue
            rest = [p for p, v in parts.items() if p != call.sequence and v is not None]
            if not rest:  # the last output may be the state
                for name, last in itertools.product(taking, LAST):
                    yield replace(call, last=last, give=(name,)), not flags
            for piece in [tuple(rest)] if len(rest) == 1 else [tuple(rest), *((p,) for p in rest)]:
                if piece:
                    for give in self.gives(piece, parts, taking):
                        yield replace(call, state=piece, give=give), not flags
            for name in taking:
                for begin in self.empties(name):
                    filled = replace(call, begin=begin, give=(name,), in_place=True, state=())
                    if self.fills(filled):
                        yield filled, False

    def gives(
        self, piece: tuple[Place, ...], parts: dict[Place, Any], taking: list[str]
    ) -> Iterator[tuple[str, ...] | int | None]:
        """Yield the ways by which a returned state may be given back."""
        if len(piece) > 1 and len(taking) >= len(piece):
            named = tuple(str(place) for place in piece)
            if set(named) <= set(taking):
                yield named
            yield tuple(taking[: len(piece)])
            in_order = [name for name in self.trial.arguments if name in taking]
            yield tuple(in_order[: len(piece)])
        value = parts[piece[0]]
        if len(piece) == 1 and isinstance(value, dict) and set(value) <= set(taking):
            yield None
        for name in sorted(taking, key=lambda name: name not in piece):
            yield (name,)
        yield 1

    def switches(self) -> Iterator[dict[str, Any]]:
        """Yield arguments that may make the module return its state."""
        off = [name for name, p in self.trial.arguments.items() if p.default is False]
        unset = [name for name, p in self.trial.arguments.items() if p.default is None]
        worded = [name for name in (*off, *unset) if any(w in name.split("_") for w in FLAG_WORDS)]
        switches = [n for n in worded if n in off or n.split("_")[0] in ("use", "return", "output")]
        yield {}
        for name in [*switches, *(name for name in off if name not in switches)][:6]:
            yield {name: True}
        if len(switches) > 1:
            yield dict.fromkeys(switches, True)

    def empties(self, name: str) -> Iterator[ByClass | ByMethod]:
        """Yield what may make an empty state that the module fills in place."""
        annotation = self.trial.arguments[name].annotation
        if isinstance(annotation, type) and annotation not in (Tensor, annotation.__base__):
            yield ByClass(annotation)
        yield ByClass(dict)
        yield ByClass(list)
        for method in STARTS:
            if callable(getattr(self.trial.module, method, None)):
                yield ByMethod(method)

    def fills(self, call: Call) -> bool:
        """Return whether the module puts tensors into the state that it is given."""
        try:
            _, state = self.trial.run(call, self.x)
        except Exception:  # it takes no such state
            return False
        return any(isinstance(leaf, Tensor) for leaf in leaves(state))

    def limit_of_state(self, plan: Plan) -> str:
        """Return after how many steps a state ends, in words; nothing for one that does not.

        A state that counts steps, or grows, may end where a table of positions does.
        """
        core = self.core(plan)
        counts = any(
            not leaf.constant and (leaf.dim is None or not leaf.dtype.is_floating_point)
            for leaf in plan.leaves
        )
        long, short = (self.call(core, x)[1] for x in (self.x, self.x[:, :3]))
        if not counts and _shapes(long) == _shapes(short):
            return ""

        def ends(limit: int) -> bool:
            state: State = None
            try:
                for piece in self.trial.draw(1, limit + 1, plan.features).split(256, 1):
                    _, state = self.call(core, piece, state)
            except Exception:  # whatever it raises, it does not go on
                return True
            return False

        limits = self.limits()
        if not limits or not ends(limits[-1]):
            return ""
        limit = next(limit for limit in limits if ends(limit))
        return f"its state cannot be carried for more than {limit} steps"

    # --- no state

    def limits(self) -> list[int]:
        """Return the lengths at which a table of the module, or a number on it, may end."""
        numbers = {n for v in self.trial.fresh.values() for n in leaves(v) if type(n) is int}
        return sorted(n for n in numbers | self.trial.sizes() if 16 < n < LONGEST)

    def takes(self, time: int) -> bool:
        """Return whether the module takes sequences of this length."""
        try:
            x = self.trial.draw(1, time, self.plan.features)
            return self.trial.run(self.plan.call, x)[0].shape[1] == time
        except (Refused, CoreError):
            return False

    def lengths(self) -> tuple[int | None, int]:
        """Return the longest sequence that the module takes, and what its lengths divide by."""
        tried = self.x.shape[1]
        divisors = [m for m in range(1, tried + 1) if tried % m == 0] if tried > 16 else [1]
        divisors += [2**n for n in range(9)]
        multiple = next(
            (m for m in sorted(set(divisors)) if self.takes(m) and self.takes(3 * m)), None
        )
        if multiple is None:  # one length, and no other
            return (tried, tried) if tried > 16 else (None, 1)
        top = -(-TESTED // multiple)
        if not self.takes(top * multiple):
            return multiple * longest_taken(lambda n: self.takes(n * multiple), 1, top), multiple
        limits = [limit // multiple for limit in self.limits() if limit // multiple >= top]
        if not limits or self.takes((limits[-1] + 1) * multiple):
            return None, multiple
        low = top
        for at in limits:
            if self.takes((at + 1) * multiple):
                low = at + 1
            elif not self.takes(at * multiple):
                low = longest_taken(lambda n: self.takes(n * multiple), low, at)
                break
            else:
                low = at
                break
        return low * multiple, multiple

    def reading(self, note: str, inside: tuple[tuple[Slot, Any], ...] = ()) -> Plan:
        """Return the plan of a module whose last inputs are read again.

        What it keeps on itself is set to `inside` before each call.
        """
        longest, multiple = self.lengths()
        tested = -(-min(TESTED, longest or TESTED) // multiple) * multiple
        plan = replace(self.plan, longest=longest, multiple=multiple, tested=tested, inside=inside)
        try:
            reach = self.reach(plan, tested)
        except Exception:  # without a gradient it is not known
            reach = tested
        plan = replace(plan, context=reach - 1, whole=reach < tested)
        if not self.some_lengths and reach < tested and self.follows(plan):
            # The gradient does not tell all, as that of a threshold.
            plan = replace(plan, context=tested - 1, whole=False)
        return reading_again(plan, plan.context, note)

    def reach(self, plan: Plan, time: int) -> int:
        """Return over how many inputs, the present one included, the gradient is not zero.

        In float64, where 257 steps of forgetting do not yet underflow: a zero is one of structure.
        """
        self.trial.forget()
        x = self.trial.draw(4, time, plan.features)
        try:
            return self._reach(plan, copy_module(self.trial.module).double(), x.double())
        except Exception:  # a part of it insists on another type
            self.trial.forget()
            return self._reach(plan, copy_module(self.trial.module), x)

    def _reach(self, plan: Plan, module: Any, x: Tensor) -> int:
        x, time, reach = x.requires_grad_(), x.shape[1], 1
        with torch.enable_grad():
            y, _ = plan.call(module, x)
            weights = torch.linspace(0.5, 1.5, y.shape[2], device=y.device, dtype=y.dtype)
            for back in (0, 1, 2, 4, 8, 16, 32, 64):  # block by block, some steps reach further
                at = time - 1 - back
                if at < 0:
                    break
                scalar = (y[:, at] * weights).sum()
                (slope,) = torch.autograd.grad(scalar, x, retain_graph=True)
                felt = (slope != 0).any(2).any(0)  # (time,)
                if felt.any():
                    first = int(felt.nonzero()[0])
                    reach = max(reach, at + 1 - first if first else time)
        return reach


def reading_again(plan: Plan, context: int, reason: str = "") -> Plan:
    """Return the plan of a module whose last `context` inputs are read again, and a note of it."""
    if plan.longest is not None and context >= plan.longest:
        # Half of what it takes at once, so that the other half is left for new inputs.
        context = plan.longest // 2
    plan = replace(plan, context=context, whole=plan.whole and context >= plan.context)
    if not context:
        return plan
    note = f"its last {context} inputs are read again for each step"
    if reason:
        note += f" ({reason})"
    return replace(plan, note=note if plan.whole else note + "; what it read before them is lost")


def is_plain(trial: Trial, plan: Plan) -> bool:
    """Return whether `module(x, state)` is all there is to it."""
    call = plan.call
    second = next(iter(trial.arguments.values()), None)
    return (
        plan.plain
        and second is not None
        and call.give in (1, (second.name,))
        and (second.default is None or bool(call.required))
        and call.order == BATCH_FIRST
        and (call.sequence, call.state) == (0, (1,))
        and not (call.flags or call.begin or call.like or call.keyword)
        and plan.unchanged
        and not plan.one_by_one
    )


def _is_public(state: Any) -> bool:
    """Return whether a state consists of what the interface of a core allows."""
    if isinstance(state, Tensor):
        return True
    if type(state) in (tuple, list) or (isinstance(state, tuple) and hasattr(state, "_fields")):
        return all(_is_public(part) for part in state)
    return type(state) is dict and all(_is_public(part) for part in state.values())


def _marked(marks: list[Tensor], value: Any) -> Any:
    """Return a floating tensor as a copy of a leaf, which is noted, of an autograd graph."""
    if not is_state(value) or not value.is_floating_point():
        return value
    marks.append(value.detach().clone().requires_grad_())
    return marks[-1].clone()  # the module may write into it


def _shapes(state: Any) -> list[torch.Size]:
    return [t.shape for t in leaves(state) if isinstance(t, Tensor)]


def _equal(a: State, b: State) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def _shifted(value: Any) -> Any:
    return _altered(value, 3, 1)


def _enlarged(value: Any) -> Any:
    return _altered(value, 1000, 1000)


def _altered(value: Any, times: int, plus: int) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, Tensor):
        if not is_state(value):
            return value
        return ~value if value.dtype == torch.bool else times * value + plus
    return value + plus


ALTERATIONS = (_shifted, _enlarged)
"""Changes of a state by which its influence is tried: a threshold may need a large one."""
