"""The documentation is run as printed, built with warnings as errors, and asks no other server."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.documented import commands, promised, say, shape

import echospan
from echospan import shipping
from echospan.checks import CORE_CHECKS
from echospan.cli import main

HOME = Path(__file__).parents[1]
PAGES = sorted((HOME / "docs").rglob("*.md"))

NOT_HERE = {
    "python3 -m venv": "the tests run in one",
    "pip install": "what it installs is what is tested",
    ".venv/bin/jupyter": "opens a page; tests/test_notebook.py runs the notebook",
    "echospan bench size": "asks for a cluster; tests/test_bench.py has one",
}
"""Commands that are shown and not run, and why."""


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_each_block_of_a_page_says_what_is_printed(page, tmp_path, monkeypatch):
    text = page.read_text()
    languages = re.findall(r"^```(\w*)\n(?:.*?)^```", text, re.S | re.M)
    assert set(languages) <= {"console", "python", "toml"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for lead, language, block in re.findall(
        r"(<!-- figures vary -->\n)?^```(\w+)\n(.*?)^```", text, re.S | re.M
    ):
        named = re.match(r"# (\w+\.\w+)\n", block)
        if named:
            Path(named[1]).write_text(block)
            # Another test may have a module of that name.
            monkeypatch.delitem(sys.modules, Path(named[1]).stem, raising=False)
        elif language == "python":
            printed = said(lambda block=block: exec(block, {"__name__": "__main__"}))
            assert printed.split() == " ".join(promised(block)).split(), block
        else:
            assert language == "console", "a file is named in its first line"
            for command, expected in commands(block):
                if not command.startswith(tuple(NOT_HERE)):
                    printed, alike = run(command), shape if lead else str.split
                    assert alike(printed) == alike(expected), command


def said(what):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        what()
    return out.getvalue()


def run(command):
    """What it says: in this process where no shell is needed, which spares a start each."""
    words = shlex.split(command)
    if words[0] != "echospan" or set(command) & set("|&<>"):
        return say(command, Path.cwd())

    def ours():
        with pytest.raises(SystemExit) as end:
            main(words[1:])
        assert end.value.code == 0

    return said(ours)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make docs` builds it."""
    made = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(made)],
        cwd=HOME,
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return made


def test_make_docs_builds_it_with_warnings_as_errors(site):
    made = subprocess.run(["make", "-n", "docs"], cwd=HOME, capture_output=True, text=True)
    assert "mkdocs build --strict" in made.stdout
    pages = {p.relative_to(HOME / "docs").with_suffix(".html") for p in PAGES}
    assert pages <= {p.relative_to(site) for p in site.rglob("*.html")}


def test_no_page_asks_another_server(site):
    loads = r"<(?:script|link|img|iframe|source|video)\b[^>]*?(?:src|href)=[\"']?"
    elsewhere = loads + r"((?:https?:)?//[^\s\"'>]+)"
    for page in site.rglob("*.html"):
        assert not re.findall(elsewhere, page.read_text()), page
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\([\"']?(?:https?:)?//|@import", style.read_text()), style


def test_every_link_and_picture_leads_to_a_file_of_the_site(site):
    for page in site.rglob("*.html"):
        for link in re.findall(r"(?:src|href)=[\"']?([^\s\"'>#?:]+)[\"'#?> ]", page.read_text()):
            assert (page.parent / link).exists() or page.name == "404.html", (page, link)


def test_the_reference_has_every_public_name_check_and_core(site):
    text = "".join(p.read_text() for p in (site / "reference").glob("*.html"))
    ids = {i.rpartition(".")[2] for i in re.findall(r'id="echospan\.([\w.]+)"', text)}
    assert set(echospan.__all__) - ids == set()
    assert {check.__name__ for check in CORE_CHECKS} - ids == set()
    cores = {p.stem for p in (HOME / "src/echospan/cores").glob("*.py")}
    assert {c for c in echospan.CORES if c in cores} - ids == set()


def test_delay_is_drawn_where_it_is_explained():
    for name in ("index", "students", "researchers", "engineers", "definitions"):
        text = (HOME / "docs" / f"{name}.md").read_text()
        assert "say    · · · a b a c" in text, name


def test_the_site_and_the_readme_name_the_same_models():
    for text in ((HOME / "README.md").read_text(), (HOME / "docs/students.md").read_text()):
        assert all(f"{name}" in text for name in shipping.names())
