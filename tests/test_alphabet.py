"""Which alphabets have a name, which are their own characters, and which words are neither."""

import pytest

from echospan.alphabet import NAMED, Alphabet, alphabet
from echospan.errors import AlphabetError
from echospan.grids import Grid
from echospan.recipes import ModelConfig


def test_letters_or_digits_as_the_assignment_says_and_both_and_bits():
    assert alphabet("letters").characters == "abcdefghijklmnopqrstuvwxyz"
    assert alphabet("digits").characters == "0123456789"
    assert alphabet("letters-digits").characters == "abcdefghijklmnopqrstuvwxyz0123456789"
    assert alphabet("bits").characters == "01"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *(
            ("leters", "letters"),
            ("letter", "letters"),
            ("Letters", "letters"),
            ("alpha", "letters"),
        ),
        *(
            ("lettrs", "letters"),
            ("LETTERS", "letters"),
            ("latin", "letters"),
            ("lower", "letters"),
        ),
        *(("digit", "digits"), ("digts", "digits"), ("Digits", "digits"), ("numbers", "digits")),
        *(
            ("bit", "bits"),
            ("bist", "bits"),
            ("BITS", "bits"),
            ("binary", "bits"),
            ("bits ", "bits"),
        ),
        *(("letters_digits", "letters-digits"), ("lettersdigits", "letters-digits")),
        *(("letters+digits", "letters-digits"), ("alnum", "letters-digits")),
    ],
)
def test_a_word_that_is_nearly_a_name_is_not_an_alphabet_of_its_letters(word, meant):
    for take in (
        alphabet,
        lambda w: ModelConfig(alphabet=w),
        lambda w: Grid(cores=("gru",), alphabet=w),
    ):
        with pytest.raises(AlphabetError, match=f"did you mean {meant}\\?"):
            take(word)


@pytest.mark.parametrize("word", ["bit", "bits ", "digts", "binary", "Bits", "lower"])
def test_the_characters_of_such_a_word_are_taken_in_the_order_that_the_refusal_names(word):
    with pytest.raises(AlphabetError) as refused:
        alphabet(word)
    other = word[::-1]
    assert str(refused.value).endswith(
        f"or, for an alphabet of these characters, another order: {other!r}"
    )
    assert alphabet(other).characters == other
    assert Alphabet(word).characters == word  # the class takes characters, and no names


@pytest.mark.parametrize(
    "characters",
    ["ab", "abc", "it", "01", "10", "ACGT", "aeiou", "zyx", "0123", "é-\u4e00", *NAMED.values()],
)
def test_other_strings_of_distinct_characters_are_alphabets(characters):
    assert alphabet(characters).characters == characters
    config = ModelConfig(alphabet=characters)
    assert config.alphabet == ModelConfig(alphabet=config.alphabet).alphabet == characters


@pytest.mark.parametrize("wrong", [None, 3, 0.5, b"ab", ["a", "b"], ("ab",), True])
def test_what_is_no_string_is_refused(wrong):
    with pytest.raises(AlphabetError, match="the alphabet is"):
        ModelConfig(alphabet=wrong)
