"""Text from outside, made safe to print: names of cores, errors of layers, paths, stored results.

print(plain(name))                 # one line, nothing that a terminal acts on
table.add_row(literal(name))       # the same for rich: no markup, no emoji codes, no links
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text


def plain(text: object, longest: int = 1_000) -> str:
    r"""Return text as one printable line.

    Characters that are not printable (`str.isprintable`) are escaped as Python writes them: control
    characters and escape sequences of terminals (`\x1b`), line ends (`\n`), marks that change the
    direction of writing (`\u202e`), bytes of a path that are no UTF-8 (`\udcff`).

    Args:
        text: Anything; what is no string is converted with `str`.
        longest: The number of characters to keep; a longer text ends in `…`.
    """
    line = str(text)[: longest + 1]
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def literal(text: object, longest: int = 1_000) -> "Text":
    """Return `plain(text)` for rich, which reads markup, emoji codes and links in a string."""
    from rich.text import Text

    return Text(plain(text, longest))


def percent(share: float) -> str:
    """Return a share in percent with as many digits as it has: 99%, 99.5%."""
    return f"{100 * share:.6g}%"


def shown(value: object, longest: int = 60) -> str:
    """Return a value for use inside an error message: its `repr`, plain and short.

    Args:
        value: Anything, also a number with more digits than Python converts.
        longest: The number of characters to keep.
    """
    if isinstance(value, int) and value.bit_length() > 4 * longest:
        return f"a number of {value.bit_length():,} bits"
    if isinstance(value, str | bytes):
        value = value[: longest + 1]  # a repr is longer than that
    elif isinstance(value, list | tuple | dict | set) and len(value) > 1_000:
        return f"a {type(value).__name__} of {len(value):,} items"
    try:
        return plain(repr(value), longest)
    except Exception:  # such a number inside of it, nested too deeply, or a repr of someone else's
        return f"a {type(value).__name__}"
