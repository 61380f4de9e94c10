"""Text from outside is printed as text: nothing in it acts on a terminal, on rich or on a line."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from echospan import cli
from echospan.text import literal, plain, shown


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("gru", "gru"),
        ("Größe µs 学习", "Größe µs 学习"),
        ("a[/b] [red]x", "a[/b] [red]x"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("two\nlines\r\tand a tab", "two\\nlines\\r\\tand a tab"),
        ("\u202eright to left", "\\u202eright to left"),
        ("c1 \x9b31m", "c1 \\x9b31m"),
        ("no utf-8 \udcff", "no utf-8 \\udcff"),
        ("tag \U000e0041", "tag \\U000e0041"),
    ],
)
def test_what_a_terminal_acts_on_is_escaped(text, printed):
    assert plain(text) == printed


@given(st.text(st.characters()))
def test_one_printable_line_comes_out_that_any_unicode_terminal_can_encode(text):
    line = plain(text)
    line.encode()
    assert len(f"{line}\n".splitlines()) == 1
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in line)


def test_a_long_text_is_cut():
    assert plain("x" * 9, longest=5) == "xxxx…"
    assert len(plain("x" * 10**6)) == 1_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8, "8"),
        ("it's", '"it\'s"'),
        ("\x1b", "'\\x1b'"),
        (10**400, "a number of 1,329 bits"),
        ([10**5_000], "a list"),
        ("x" * 10**7, "'" + "x" * 58 + "…"),
        ([[]] * 10**6, "a list of 1,000,000 items"),
        ({i: i for i in range(2_000)}, "a dict of 2,000 items"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_a_value_in_a_message_is_short(value, text):
    assert shown(value) == text


@pytest.mark.parametrize("name", ["a[/b]", "[red]x", ":warning:", "[link=http://x]y[/link]"])
def test_rich_prints_a_literal_as_it_is(name):
    out = io.StringIO()
    table = Table()
    table.add_column("core")
    table.add_row(literal(name))
    console = Console(file=out, force_terminal=True, width=100)
    console.print(table)
    console.print(literal(name), highlight=False)
    assert out.getvalue().count(name) == 2


def test_the_sentence_of_an_error_holds_no_escape_sequence(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["results", str(tmp_path / "\x1b]0;owned\x07")])
    error = capsys.readouterr().err
    assert "\\x1b]0;owned\\x07" in error
    assert "\x1b" not in error
