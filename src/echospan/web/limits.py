"""What one visitor may take of the server, so that there is enough for all."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one server; each ends in a wait, or in a close that says its reason."""

    frame: int = 16_384
    """Bytes of a frame."""
    symbols: int = 512
    """Symbols of a frame: a long text comes in several."""
    connections: int = 2_000
    """Visitors at a time."""
    kept: int = 500
    """Visitors whose connection is lost and whose state is kept; the oldest goes first."""
    seconds_kept: float = 600.0
    """How long it is kept."""
    rate: float = 20_000.0
    """Symbols a second for each visitor, of which a frame costs `frame_cost` on its own. Who sends
    faster is read more slowly."""
    burst: float = 60_000.0
    """What a visitor may send at once after a pause: 10,000 characters to each of five models."""
    frame_cost: float = 50.0
    """What a frame costs beside its symbols."""
    patience: float = 10.0
    """Seconds until a visitor must have said hello, and until one who does not read is let go."""
    unread: int = 1_000_000
    """Bytes that wait for a visitor who does not read, at most."""
