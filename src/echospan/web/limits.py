"""Limits of the page's server: what one connection may cost, and how many there may be."""

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has no limit of this kind
    resource = None  # type: ignore[assignment]

RESERVE = 64
"""File descriptors kept free beside those open at the start: threads, files, accepted sockets
that are about to be closed."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one server. Beyond each, a connection waits, or is closed with a reason."""

    frame: int = 16_384
    """Bytes of a WebSocket message."""
    fragments: int = 256
    """Frames that one message may come in. Empty ones add no bytes."""
    symbols: int = 512
    """Symbols of a message; a long text comes in several."""
    answers: int = 16_384
    """Answers to a message, symbols times delays: a model of many delays takes fewer symbols."""
    request: int = 32_768
    """Bytes of an HTTP request, all headers together."""

    visitors: int = 2_000
    """Connections whose WebSocket is open."""
    unfinished: int = 512
    """Room that visitors leave for other connections: request incomplete, refused or closing."""
    young: float = 1.0
    """Seconds that such a connection has before it may be dropped for the room of a new one."""
    kept: int = 500
    """Sessions without a connection; the oldest is dropped."""
    seconds_kept: float = 600.0
    """Seconds that a session without a connection is kept."""

    rate: float = 20_000.0
    """Cost per second that a connection may cause. One that sends faster is read more slowly."""
    burst: float = 80_000.0
    """Cost at once after a pause: 10,000 characters to each of five models."""
    quiet_rate: float = 4_000.0
    """Cost per second that never waits for others: some 70 keys."""
    quiet_burst: float = 8_000.0
    """Cost at once that never waits for others."""
    total_rate: float = 200_000.0
    """Cost per second of all connections together, without what each causes quietly."""
    frame_cost: float = 50.0
    """Cost of a frame of any kind, beside its bytes; a symbol costs 1."""
    byte_cost: float = 1 / 16
    """Cost of a byte."""

    patience: float = 10.0
    """Seconds until a request must be complete, until a hello must have come, and that a peer may
    read nothing while something is waiting for it."""
    closing: float = 2.0
    """Seconds that a peer is given to close after it was told why."""
    discarded: int = 8_388_608
    """Bytes of a peer that are thrown away while it is given the time to close."""
    ping: float = 20.0
    """Seconds between pings. A peer that sends nothing at all between two is gone."""

    @property
    def connections(self) -> int:
        """Connections of all kinds together."""
        return self.visitors + self.unfinished


def within(limits: Limits, descriptors: int | None) -> Limits:
    """Return the limits with no more connections than file descriptors allow.

    Args:
        limits: The limits wanted.
        descriptors: File descriptors that connections may take; None where there is no limit.
    """
    if descriptors is None or limits.connections <= descriptors:
        return limits
    unfinished = min(limits.unfinished, max(1, descriptors // 4))
    visitors = max(1, min(limits.visitors, descriptors - unfinished))
    return dataclasses.replace(limits, visitors=visitors, unfinished=unfinished)


def free_descriptors() -> int | None:
    """Return how many file descriptors this process may still open, less a reserve.

    None where the system sets no limit.
    """
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    return max(0, soft - _open_descriptors() - RESERVE)


def raise_descriptors(limits: Limits) -> None:
    """Raise the soft limit of open files as far as `limits` need and the hard one allows."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _open_descriptors() + RESERVE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # refused: the soft limit stays and counts
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _open_descriptors() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        if Path(folder).is_dir():
            return len(os.listdir(folder))  # noqa: PTH208 - a list to be counted
    return 64  # unknown: what an interpreter with torch has open, rounded up
