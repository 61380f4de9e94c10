"""Pace of a connection: what it sends too fast is read later."""

import math
import time

from echospan.web.limits import Limits


class Bucket:
    """A token bucket: `rate` per second, up to `burst` at once after a pause.

    It may go into debt, no further than `debt`, so that nobody waits longer than it takes to pay.
    """

    def __init__(self, rate: float, burst: float, debt: float = math.inf) -> None:
        self.rate, self.burst, self.debt = rate, burst, debt
        self.level, self.filled = burst, time.monotonic()

    def _fill(self) -> None:
        now = time.monotonic()
        self.level = min(self.burst, self.level + (now - self.filled) * self.rate)
        self.filled = now

    def spend(self, cost: float) -> float:
        """Take `cost`, in debt if need be, and return the seconds until the debt is paid."""
        self._fill()
        self.level = max(-self.debt, self.level - cost)
        return max(0.0, -self.level / self.rate)

    def cover(self, cost: float) -> bool:
        """Take `cost` if the bucket holds as much; return whether it did."""
        self._fill()
        if self.level < cost:
            return False
        self.level -= cost
        return True


class Pace:
    """What one connection may cost.

    A connection that types is never slowed by others: only what exceeds its quiet allowance is
    also taken from `total`, the bucket that all connections share. So thousands of connections that
    send as fast as they may do not add up to more than the server can do.
    """

    def __init__(self, limits: Limits, total: Bucket) -> None:
        self._own = Bucket(limits.rate, limits.burst)
        self._quiet = Bucket(limits.quiet_rate, limits.quiet_burst)
        self._total = total

    def spend(self, cost: float) -> float:
        """Take `cost` and return the seconds to wait before more is read."""
        wait = self._own.spend(cost)
        if not self._quiet.cover(cost):
            wait = max(wait, self._total.spend(cost))
        return wait
