"""Visitors: what each model remembers of whom, kept for a while after a connection is lost."""

import asyncio
import secrets
import time
from collections.abc import Callable

from echospan.cores import State
from echospan.web.limits import Limits


class Memory:
    """What one model holds of one visitor, and its last answer, should that be lost."""

    def __init__(self) -> None:
        self.state: State = None
        self.last = 0
        self.frame = ""


class Visit:
    """One visitor: a memory in each model. `busy` is held while a push of theirs is read."""

    def __init__(self, models: int) -> None:
        self.token = secrets.token_urlsafe(18)
        self.memories = [Memory() for _ in range(models)]
        self.busy = asyncio.Lock()
        self.leave: Callable[[], None] | None = None
        """Ends the connection that the visit is on; None where it has none."""
        self.left = 0.0

    @property
    def untouched(self) -> bool:
        """Whether nothing was ever sent: there is nothing to keep."""
        return not any(m.last for m in self.memories)


class Visits:
    """All visits by their tokens."""

    def __init__(self, models: int, limits: Limits) -> None:
        self.models, self.limits = models, limits
        self.here: dict[str, Visit] = {}
        self.kept: dict[str, Visit] = {}  # the one that left first stands first

    def enter(self, token: str | None, leave: Callable[[], None]) -> tuple[Visit, bool]:
        """The visit of a token, or a new one, and whether the token was known.

        A visit that is still on another connection leaves that one.
        """
        self.forget()
        visit = self.here.get(token or "") or self.kept.pop(token or "", None)
        known = visit is not None
        if visit is None:
            visit = Visit(self.models)
        elif visit.leave is not None:
            visit.leave()
        visit.leave = leave
        self.here[visit.token] = visit
        return visit, known

    def go(self, visit: Visit, leave: Callable[[], None]) -> None:
        """The connection that entered with this `leave` is no more."""
        if visit.leave is not leave:
            return  # it goes on elsewhere
        visit.leave, visit.left = None, time.monotonic()
        del self.here[visit.token]
        if not visit.untouched:
            self.kept[visit.token] = visit
        self.forget()

    def forget(self) -> None:
        """Drop whom there is no room for, and whoever left too long ago."""
        oldest = time.monotonic() - self.limits.seconds_kept
        for token, visit in list(self.kept.items()):
            if len(self.kept) <= self.limits.kept and visit.left >= oldest:
                break
            del self.kept[token]
