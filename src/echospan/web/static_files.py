"""The files of the page: these and no others, read once, so that no path leads anywhere else."""

from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).parent / "static"

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

NAMES = (
    "page.html",
    "page.css",
    "icon.svg",
    "alphabet.js",
    "history.js",
    "tape.js",
    "memory.js",
    "heat.js",
    "voice.js",
    "feed.js",
    "game.js",
    "socket.js",
    "page.js",
)
"""All that the server gives out."""


@dataclass(frozen=True)
class File:
    """A file as it is sent."""

    content: bytes
    kind: str


def files() -> dict[str, File]:
    """By name."""
    return {n: File((HOME / n).read_bytes(), KINDS[Path(n).suffix]) for n in NAMES}
