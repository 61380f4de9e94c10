"""A pace that a visitor is held to: what comes faster is read later."""

import asyncio
import time


class Pace:
    """`rate` a second, and up to `burst` at once after a pause."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self.left, self.then = burst, time.monotonic()

    async def spend(self, cost: float) -> None:
        """Return once there is as much to spend."""
        now = time.monotonic()
        self.left = min(self.burst, self.left + (now - self.then) * self.rate) - cost
        self.then = now
        if self.left < 0:
            await asyncio.sleep(-self.left / self.rate)
