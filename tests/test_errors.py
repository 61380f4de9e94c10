"""An error names arguments in Python and flags on the command line."""

import pickle

import pytest

from echospan import cli
from echospan.errors import SettingError, by_caller, option


@pytest.mark.parametrize(
    ("text", "python", "command_line"),
    [
        (option("max_delay"), "max_delay", "--max-delay"),
        (option("max_delay", 9), "max_delay=9", "--max-delay 9"),
        (option("engine", "dask"), "engine='dask'", "--engine dask"),
        (option("overwrite", True), "overwrite=True", "--overwrite"),
        (by_caller("shipped('fixed')", "--model fixed"), "shipped('fixed')", "--model fixed"),
        ("--seed is a flag of both", "--seed is a flag of both", "--seed is a flag of both"),
    ],
)
def test_a_part_of_a_message_is_worded_for_its_caller(text, python, command_line):
    error = SettingError(f"{text} is wrong", f"change {text}")
    assert str(error) == f"{python} is wrong; change {python}"
    assert (error.fact, error.remedy) == (f"{python} is wrong", f"change {python}")
    assert error.command_line() == f"{command_line} is wrong; change {command_line}"


def test_an_error_from_another_process_keeps_both_wordings():
    error = SettingError(f"{option('seed')} is wrong", "change it")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "seed is wrong; change it"
    assert copy.command_line() == "--seed is wrong; change it"


def test_the_command_line_prints_flags(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "fixed", "--learning-rate", "nan"])
    assert capsys.readouterr().err == (
        "echospan: --learning-rate is nan; use a finite number above 0\n"
    )
