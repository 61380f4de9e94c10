"""Characters and their ids: the only place that knows letters. Id 0 is the blank."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from echospan.errors import AlphabetError, by_caller
from echospan.text import shown

BLANK = 0
"""The id of the blank: nothing to say yet."""

BLANK_MARK = "·"
"""How a blank is drawn for people."""

_LETTERS, _DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"

NAMED = {
    "letters": _LETTERS,
    "digits": _DIGITS,
    "letters-digits": _LETTERS + _DIGITS,
    "bits": "01",
}
"""The alphabets that have a name; a string of distinct characters is one too."""

_OTHER_WORDS = {
    "alphabet": "letters",
    "latin": "letters",
    "lower": "letters",
    "numbers": "digits",
    "decimal": "digits",
    "alnum": "letters-digits",
    "alphanumeric": "letters-digits",
    "binary": "bits",
}
"""What the named alphabets are called elsewhere."""

_NEAR = 0.75
"""Similarity (difflib's ratio) from which on a word is taken for a name that was meant: `bit`,
`bist` and `digts` are, `abc` and `vowels` are not."""


@dataclass(frozen=True)
class Alphabet:
    """Distinct characters; the first has id 1, the last id `len(alphabet)`.

    Args:
        characters: At least two, each once. They are taken literally: a name is none here.

    Raises:
        AlphabetError: There are fewer than two characters, or one comes twice.
    """

    characters: str

    def __post_init__(self) -> None:
        """Refuse what cannot be told apart."""
        if not isinstance(self.characters, str):
            raise AlphabetError(
                f"the alphabet is {shown(self.characters)}", f"use a string or {_names()}"
            )
        seen: set[str] = set()
        for c in self.characters:
            if c in seen:
                raise AlphabetError(
                    f"the alphabet {shown(self.characters)} has {c!r} twice",
                    f"give each character once, or {_names()}",
                )
            if c == BLANK_MARK or "\ud800" <= c <= "\udfff":
                what = "stands for a blank" if c == BLANK_MARK else "is half a character"
                raise AlphabetError(
                    f"the alphabet {shown(self.characters)} has {c!r}, which {what}",
                    "leave it out, or give another in its place",
                )
            seen.add(c)
        if len(seen) < 2:
            raise AlphabetError(
                f"the alphabet {shown(self.characters)} has fewer than two characters",
                f"give at least two, or {_names()}",
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
            hint = "write it in lower case" if lower else f"write only {shown(self.characters)}"
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
    """Return the named alphabet, or the one made of these characters.

    A word that is nearly a name is refused, since it would be an alphabet of its own letters. These
    characters in another order are taken; only their ids depend on the order.

    Args:
        name_or_characters: `letters`, `digits`, `letters-digits`, `bits`, or at least two
            characters, each once.

    Raises:
        AlphabetError: It is nearly a name, or the characters are no alphabet.
    """
    text = name_or_characters
    if not isinstance(text, str):
        return Alphabet(text)  # which refuses it
    if text in NAMED:
        return Alphabet(NAMED[text])
    near = difflib.get_close_matches(text.casefold(), [*NAMED, *_OTHER_WORDS], 1, _NEAR)
    if near and text not in NAMED.values():
        meant = _OTHER_WORDS.get(near[0], near[0])
        literally = ""
        if len(set(text)) == len(text):
            literally = f", or, for an alphabet of these characters, another order: {text[::-1]!r}"
        raise AlphabetError(
            f"no alphabet has the name {text!r}", f"did you mean {meant}? use {_names()}{literally}"
        )
    return Alphabet(text)


def _names() -> str:
    return "one of the names " + ", ".join(NAMED)
