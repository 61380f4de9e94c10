"""The page of a bench: what a colleague who is sent it sees."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from benchmarks.report import fill

from echospan.plots import picture
from echospan.report import figures, page, plots, races, settings
from echospan.store import Store


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Two hundred results that are made up: sixteen cores, three sizes, five seeds."""
    path = tmp_path_factory.mktemp("report") / "made-up.sqlite"
    fill(path, 200)
    with Store(path, write=False) as opened:
        return list(opened.stored())


@pytest.fixture(scope="module")
def made(stored):
    return page(stored, "Mine & yours")


def test_it_asks_nothing_of_any_network_and_can_be_sent_by_mail(made):
    asked = re.findall(r'(?:src|href|action|url)\s*[=(]\s*["\']?([^"\'\s>)]+)', made)
    assert asked
    assert all(a.startswith("#") for a in asked)
    assert "default-src 'none'" in made
    assert len(made.encode()) < 2_000_000


def test_the_same_results_give_the_same_bytes(stored, made):
    assert page(stored, "Mine & yours") == made


def test_every_id_is_there_once_and_what_is_referred_to_is_there(made):
    ids = re.findall(r'\bid="([^"]+)"', made)
    assert len(ids) == len(set(ids))
    referred = re.findall(r'(?:href="|url\()#([^")]+)', made)
    assert set(referred) <= set(ids)


def test_hovering_over_a_point_tells_its_figure(stored, made):
    setting = settings(stored)[0]
    profile = setting.profile
    low, high = profile.band[3]
    said = f"{profile.name}, delay 3: {profile.recall[3]:.2%} ({low:.2%} to {high:.2%})"
    assert f"<title>{said}</title>" in made
    low, high = profile.span_interval
    assert f"{setting.told}: span {profile.span} ({low} to {high})" in made
    drawn = sum(len(says) for plot in plots(stored) for says in plot.says.values())
    assert made.count("<title>") == drawn + 1


def test_the_table_has_a_line_for_each_setting_and_how_to_repeat_it(stored, made):
    rows = settings(stored)
    assert len(rows) == 40
    assert made.count("<summary>command</summary>") == 40
    low, high = rows[0].profile.span_interval
    assert f">{rows[0].profile.span} ({low}–{high})</td>" in made
    assert (
        "echospan bench --cores attention --hidden 16 --max-delay 16 --symbols 100000 "
        "--seeds 0 1 2 3 4" in made
    )


def test_a_race_has_each_core_once_and_all_at_one_size(stored):
    panels = races(settings(stored))
    assert sum(len(some) for _, some in panels) == 40
    for title, some in panels:
        names = [s.profile.name for s in some]
        assert len(names) == len(set(names))
        assert title.startswith(f"hidden {some[0].profile.hidden}")


def test_what_failed_is_named_with_its_reason(stored):
    bad = replace(stored[0], profile=None, error="<b>out of luck</b>", tries=3)
    told = page([*stored[1:3], bad])
    assert "after 3 tries: &lt;b&gt;out of luck&lt;/b&gt;" in told
    assert "1 failed" in told


def test_a_name_is_a_name_whatever_it_holds(stored):
    name = '<script>alert("$x^2")</script>'
    one = stored[0]
    evil = replace(one, cell=replace(one.cell, core=name), profile=replace(one.profile, name=name))
    told = page([evil], name)
    assert "<script>alert" not in told
    assert told.count("<script>") == 1
    assert "$x^2$" not in told


@pytest.mark.parametrize("count", [0, 1])
def test_few_results_are_a_page_too(stored, count):
    told = page(stored[:count])
    assert f"{count} cells" in told
    assert told.count("<figure>") == len(plots(stored[:count]))


def test_results_without_a_curve_leave_that_plot_out(stored):
    (seed,) = stored[0].profile.seeds
    old = replace(stored[0].profile, seeds=(replace(seed, curve=()),))
    assert "training" not in figures([replace(stored[0], profile=old)])


def test_those_of_other_versions_stand_alone(stored):
    same = [s for s in stored if s.cell.core == "gru" and s.cell.hidden == 16]
    odd = replace(same[0], profile=replace(same[0].profile, threads=9))
    assert len(settings(same)) == 1
    assert len(settings([odd, *same[1:]])) == len(same)


def test_for_a_paper_the_plots_are_files_of_svg_and_png(stored):
    drawn = figures(stored)
    assert [*drawn] == ["recall", "span", "bits", "target", "lengths", "cost", "training"]
    told = picture(drawn["span"], "svg")
    assert ET.fromstring(told).tag.endswith("svg")
    assert b"#010203" not in told
    assert picture(drawn["cost"], "png").startswith(b"\x89PNG")
