"""Characters and their ids: the only place that knows letters. Id 0 is the blank."""

from collections.abc import Iterable
from dataclasses import dataclass

from echospan.errors import AlphabetError, by_caller
from echospan.validation import shown

BLANK = 0
"""The id of the blank: nothing to say yet."""

BLANK_MARK = "·"
"""How a blank is drawn for people."""

NAMED = {
    "letters": "abcdefghijklmnopqrstuvwxyz",
    "letters-digits": "abcdefghijklmnopqrstuvwxyz0123456789",
    "bits": "01",
}
"""The alphabets that have a name; any string of distinct characters is one too."""


@dataclass(frozen=True)
class Alphabet:
    """Distinct characters; the first has id 1, the last id `len(alphabet)`.

    Raises AlphabetError when there are fewer than two characters or one comes twice.
    """

    characters: str

    def __post_init__(self) -> None:
        """Refuse what cannot be told apart."""
        if not isinstance(self.characters, str):
            raise AlphabetError(
                f"the alphabet is {shown(self.characters)}, which is no text",
                "give its characters, or one of the names " + ", ".join(NAMED),
            )
        seen: set[str] = set()
        for c in self.characters:
            if c in seen:
                raise AlphabetError(
                    f"the alphabet {self.characters!r} has {c!r} twice",
                    "give each character once, or one of the names " + ", ".join(NAMED),
                )
            if c == BLANK_MARK or "\ud800" <= c <= "\udfff":
                what = "stands for a blank" if c == BLANK_MARK else "is half a character"
                raise AlphabetError(
                    f"the alphabet {self.characters!r} has {c!r}, which {what}",
                    "leave it out, or give another in its place",
                )
            seen.add(c)
        if len(seen) < 2:
            raise AlphabetError(
                f"the alphabet {self.characters!r} has fewer than two characters",
                "give at least two, or one of the names " + ", ".join(NAMED),
            )

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str, start: int = 0) -> list[int]:
        """Return the ids of `text`; `start` is added to the position an AlphabetError names."""
        if not isinstance(text, str):
            raise AlphabetError(
                f"the text is {shown(text)}", f"give a str of {shown(self.characters)}"
            )
        ids = [self.characters.find(c) + 1 for c in text]
        if BLANK in ids:
            at = ids.index(BLANK)
            c = text[at]
            lower = c.lower() in self.characters and c != c.lower()
            hint = "write it in lower case" if lower else f"write only {self.characters!r}"
            raise AlphabetError(
                f"the character {c!r} at position {start + at} is not in the alphabet",
                hint
                + by_caller("", ", or let such characters go by with --other skip or --other keep"),
            )
        return ids

    def decode(self, ids: Iterable[int], blank: str = BLANK_MARK) -> str:
        """Return the text of `ids`, each from 0 to `len(self)`; 0 is drawn as `blank`."""
        drawn = dict(enumerate((blank, *self.characters)))
        try:
            return "".join(map(drawn.__getitem__, ids))
        except (KeyError, TypeError):
            raise AlphabetError(
                f"the ids are {shown(ids)}", f"give whole numbers from 0 to {len(self)}"
            ) from None


def alphabet(name_or_characters: str) -> Alphabet:
    """Return the named alphabet, or the one made of these characters."""
    if isinstance(name_or_characters, str):
        name_or_characters = NAMED.get(name_or_characters, name_or_characters)
    return Alphabet(name_or_characters)
