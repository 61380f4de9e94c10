"""The page of a bench: what a colleague who is sent it sees."""

import html
import random
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from benchmarks.report import fill, made_up

from echospan.grids import Cell
from echospan.plots import picture
from echospan.report import figures, page, plots, races, settings, svg
from echospan.store import Store, Stored


def result(cell, span, **told):
    """One that is made up, with some of its profile as told."""
    profile = replace(made_up(cell, span, random.Random(0)), **told)
    return Stored(cell, profile, None, 1, 10.0, "2026-01-01T00:00:00Z")


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
    assert f"{setting.description}: span {profile.span} ({low} to {high})" in made
    drawn = sum(len(says) for plot in plots(stored) for says in plot.says.values())
    assert made.count("<title>") == drawn + 1


def test_what_a_point_says_is_rounded_and_not_cut_off(stored):
    for plot in plots(stored[:1])[:4]:
        spoken = re.findall(r"<title>(.*?)</title>", svg(plot))
        says = [said for points in plot.says.values() for said in points]
        assert sorted(map(html.unescape, spoken)) == sorted(says)


def test_a_target_that_half_the_seeds_missed_is_not_reached():
    cell = Cell(core="gru", hidden=32, symbols=900_000)
    both = [result(replace(cell, seed=seed), span) for seed, span in enumerate((16, 9))]
    (setting,) = settings(both)
    assert setting.to_target("symbols") is None
    told = page(both)
    assert ">– (1 of 2)</td>" in told
    assert "not in 900,000 symbols (1 of 2)" in told
    (setting,) = settings(both[:1])
    assert setting.to_target("symbols") == 450_000


def test_two_hundred_cells_can_be_mailed_too_where_cores_are_many_and_delays_long():
    cell = Cell(core="gru", symbols=100_000, max_delay=256)
    told = page(
        [
            result(replace(cell, core=f"mine:Core{i % 50}", hidden=16 * (1 + i // 50)), i)
            for i in range(200)
        ]
    )
    assert len(told.encode()) < 2_000_000
    assert "50 settings of other sizes and delays are left out. One delay in 13 is" in told
    assert "One look in 3 is drawn." in told


def test_what_has_no_parameters_is_not_said_to_have_one(stored):
    line = Cell(core="delay_line", hidden=32, symbols=100_000)
    for stored_ones, said in (([result(line, 16, parameters=0)], True), (stored[:1], False)):
        span = next(plot for plot in plots(stored_ones) if plot.name == "span")
        assert ("What has none of it stands at 1." in span.caption) is said


def test_long_names_leave_room_for_the_plots():
    cell = Cell(core="lab.of_a_rather_long_name.layers:Mine" * 5, hidden=32, symbols=100_000)
    for figure in figures([result(cell, 9)]).values():
        figure.draw_without_rendering()
        assert all(ax.get_position().width * figure.get_figwidth() > 2 for ax in figure.axes)


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
    panels = list(races(settings(stored)))
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


@pytest.mark.filterwarnings("ignore:Glyph")  # no font has one for it
def test_a_name_with_a_control_character_or_an_underscore_is_drawn(stored):
    for name in ("a\x07b", "_mine:Layer"):
        one = replace(stored[0], profile=replace(stored[0].profile, name=name))
        recall = plots([one])[0]
        assert f">{name.replace(chr(7), chr(92) + 'x07')}</text>" in svg(recall)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("\ud800", "\\ud800"),
        ("\u202eright", "\\u202eright"),
        ("a\nb", "a\\nb"),
        ("\0", "\\x00"),
        ("{{ 7 * 7 }}", "{{ 7 * 7 }}"),
        ("</title>", "&lt;/title&gt;"),
    ],
)
def test_no_text_of_a_store_or_title_acts_on_who_reads_the_page(stored, name, shown):
    one = stored[0]
    odd = replace(one, cell=replace(one.cell, core=name), profile=replace(one.profile, name=name))
    text = page([odd, replace(odd, profile=None, error=name)], name)
    text.encode()
    assert f"<title>{shown}</title>" in text
    assert f">{shown}</text>" in text or name in ("</title>",)
    assert f"1 try: {shown}" in text
    assert all(c.isprintable() or c == "\n" for c in text)


def test_a_page_stays_small_and_its_figures_drawable_where_names_and_sizes_are_many(stored):
    one = stored[0]
    many = []
    for i in range(100):
        name = f"mine:Layer{i}" + "x" * 900
        cell = replace(one.cell, core=name)
        profile = replace(one.profile, name=name, hidden=10_000 + i, parameters=10 * i + 2**60)
        many.append(replace(one, cell=cell, profile=profile))
    assert len(page(many).encode()) < 3_000_000
    for figure in figures(many).values():
        assert max(figure.get_size_inches()) * 150 < 2**16  # pixels of a PNG


def race(sizes):
    """Panels of settings, by brute force: the definition of `races`."""
    left, panels = list(sizes), []
    while left:
        best = []
        for name in ("hidden", "state", "parameters"):
            for size in sorted({getattr(s.profile, name) for s in left}):
                near = {}
                for s in left:
                    if abs(getattr(s.profile, name) - size) <= 0.02 * size:
                        near.setdefault(s.profile.name, s)
                if len(near) > len(best):
                    best = [*near.values()]
        left = [s for s in left if s not in best]
        panels.append(best)
    return panels


def test_the_panels_of_a_race_are_those_that_hold_most_cores(stored):
    chance = random.Random(0)
    some = []
    for i, s in enumerate(settings(stored)):
        sizes = {n: chance.randrange(95, 106) for n in ("hidden", "state", "parameters")}
        some.append(replace(s, profile=replace(s.profile, name=f"core {i % 7}", **sizes)))
    assert [panel for _, panel in races(some)] == race(some)


@pytest.mark.parametrize("count", [0, 1])
def test_few_results_are_a_page_too(stored, count):
    told = page(stored[:count])
    assert f"{count} cells" in told
    assert told.count("<figure>") == len(plots(stored[:count]))


def test_what_cannot_be_drawn_is_left_out_and_the_page_says_why(stored):
    (seed,) = stored[0].profile.seeds
    old = replace(stored[0].profile, seeds=(replace(seed, curve=(), lengths=()),))
    bare = [replace(stored[0], profile=old)]
    assert {"training", "lengths"}.isdisjoint(figures(bare))
    told = page(bare)
    assert "There are no learning curves" in told
    assert "There is no plot beyond the training length" in told
    assert "There is nothing to draw" in page([])


def test_what_can_be_drawn_is_not_said_to_be_missing(made):
    assert "There are no" not in made
    assert "There is no" not in made


def test_every_box_that_scrolls_and_every_plot_has_a_name(made):
    boxes = re.findall(r'<div class="box"[^>]*>', made)
    assert len(boxes) == 8
    for box in boxes:
        (named,) = re.findall(r'role="region" aria-labelledby="(\w+)"', box)
        assert f'<h2 id="{named}">' in made
    assert made.count('role="img" aria-label=') == 7


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
