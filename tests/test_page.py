"""The page in a browser: type, paste, change the delay, compare, play, lose the connection.

`ECHOSPAN_SCREENSHOTS=docs pytest tests/test_page.py -k looks` writes the pictures of the page.
"""

import contextlib
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from echospan import EchoModel, ModelConfig, Recipe, TrainingConfig, train
from echospan.checkpoint import save
from echospan.cli import main
from echospan.export import pack
from echospan.recipes import RECIPES
from echospan.web.served import Served
from echospan.web.single_file import single_file
from serving import proxied, serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
SIZES = {
    "light": {"viewport": {"width": 1280, "height": 800}},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 360, "height": 740},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
        "reduced_motion": "reduce",
    },
}


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("there is no Chromium, and CI must have one: make browser")
        pytest.skip("there is no Chromium: make browser, or apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


def trained(core, **config):
    """A model of six letters that remembers a little, in a second."""
    settings = {"core": core, "alphabet": "abcdef", "hidden": 32, "max_delay": 4} | config
    rate = 3e-3 if core == "attention" else 1e-2
    training = TrainingConfig(steps=250, learning_rate=rate)
    return train(Recipe(model=ModelConfig(**settings), training=training)).model


@pytest.fixture(scope="module")
def models():
    return {core: trained(core) for core in ("gru", "lru", "attention")}


@pytest.fixture(scope="module")
def served(models):
    with serving([Served(name, model) for name, model in models.items()]) as served:
        yield served


@pytest.fixture
def page(chromium, served):
    """The page of three models, opened; in the end nothing may stand in its console."""
    with opened(chromium, served.url) as page:
        yield page


class opened:
    """A page that must say nothing in its console and ask nothing of another machine."""

    def __init__(self, browser, url, size="light"):
        self.context = browser.new_context(**SIZES[size])
        self.page = self.context.new_page()
        self.said = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked(request.url))
        self.url, self.elsewhere = url, []

    def asked(self, url):
        if not url.startswith((self.url.partition("#")[0], "data:")):
            self.elsewhere.append(url)

    def __enter__(self):
        self.page.goto(self.url)
        if self.url != "about:blank":
            self.page.wait_for_selector(".model canvas", state="attached")
        return self.page

    def __exit__(self, kind, *_):
        self.context.close()
        if kind is None:
            assert self.said == []
            assert self.url == "about:blank" or self.elsewhere == []


def wait_for(page, condition):
    """Until `condition`, in JavaScript, holds and is drawn; nothing of ours takes half a minute.

    Playwright's own wait evaluates text in the page, which the page's policy forbids.
    """
    page.evaluate(
        """() => new Promise((done, failed) => {
          const last = performance.now() + 30000;
          const look = () => {
            if ((CONDITION) && !Echospan.page.due) done();
            else if (performance.now() > last) failed(new Error("waited in vain"));
            else setTimeout(look, 5);
          };
          look();
        })""".replace("CONDITION", condition)
    )


def typed(page, text):
    """Type, and wait until it is answered and drawn."""
    before = read(page)
    page.keyboard.type(text)
    wait_for(page, f"Echospan.page.histories.every((h) => h.read === {before + len(text)})")


def read(page):
    return page.evaluate("Echospan.page.histories[0].read")


def row(page, place):
    """The letters of a row of the tape: 0 is what was read, then a model each."""
    cells = page.locator("#tape .row").nth(place).locator(".cell i")
    return "".join(cells.all_inner_texts())


def letters(count, alphabet="abcdef", seed=0):
    return "".join(random.Random(seed).choices(alphabet, k=count))


def test_each_key_is_answered_below_it_and_marked_right_or_wrong(page, models):
    text = letters(20)
    typed(page, text)
    assert row(page, 0) == text
    for place, model in enumerate(models.values(), 1):
        said = model.echo(text, 4)
        assert row(page, place) == said
        marks = page.locator("#tape .row").nth(place).locator(".cell u").all_inner_texts()
        right = ("····" + text)[:20]
        expected = [
            "✗" if s != t else "" if t == "·" else "✓" for s, t in zip(said, right, strict=True)
        ]
        assert marks[-20:] == expected


def test_the_delay_changes_while_one_types(page, models):
    text = letters(24)
    typed(page, text[:8])
    page.keyboard.press("Alt+ArrowDown")
    page.keyboard.press("Alt+ArrowDown")
    typed(page, text[8:16])
    page.locator("#delay").fill("0")
    page.locator("#keys").focus()
    typed(page, text[16:])
    gru = models["gru"]
    whole = [gru.echo(text, d) for d in range(5)]
    assert row(page, 1) == whole[4][:8] + whole[2][8:16] + whole[0][16:]
    above = page.locator("#tape .row").nth(0).locator(".cell b").all_inner_texts()
    assert [a for a in above if a] == ["d 4", "d 2", "d 0"]


def test_the_memory_lies_open_at_every_delay(page, models):
    text = letters(15)
    typed(page, text)
    card = page.locator(".model").first
    with torch.inference_mode():
        gru = models["gru"]
        sure, said = gru(torch.tensor([gru.alphabet.encode(text)]))[0][0, -1].softmax(-1).max(-1)
    believed = card.locator(".believes span").all_inner_texts()
    assert believed == list(gru.alphabet.decode(said.tolist()))[::-1]
    shown = [int(s) for s in card.locator("tr.sure td").all_inner_texts()]
    assert shown == pytest.approx([100 * s for s in sure.tolist()][::-1], abs=1.1)
    assert "".join(card.locator("tr.read td").all_inner_texts()) == text[-5:]


def test_the_heat_map_shows_the_last_64_steps(page):
    typed(page, letters(10))
    painted = """() => {
      const canvas = document.querySelector("canvas").cloneNode();
      const copy = canvas.getContext("2d");
      copy.drawImage(document.querySelector("canvas"), 0, 0);
      const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
      const columns = new Set();
      for (let i = 0; i < data.length; i += 4)
        if (data[i] !== data[0] || data[i + 1] !== data[1]) columns.add((i / 4) % canvas.width);
      return [canvas.width, canvas.height, columns.size];
    }"""
    assert page.evaluate(painted) == [64, 32, 10]
    typed(page, letters(70))
    assert page.evaluate(painted) == [64, 32, 64]


def paste(page, text):
    page.locator("#keys").evaluate(
        """(field, text) => {
          field.value = text;
          field.dispatchEvent(new InputEvent("input", { inputType: "insertFromPaste" }));
        }""",
        text,
    )


def test_ten_thousand_characters_are_pasted_and_counted(page, models):
    text = letters(10_000)
    paste(page, text)
    wait_for(page, "Echospan.page.histories.every((h) => h.read === 10000)")
    assert row(page, 0) == text[-len(row(page, 0)) :]
    for place, model in enumerate(models.values()):
        said = model.echo(text, 4)
        history = f"Echospan.page.histories[{place}]"
        right = sum(a == b for a, b in zip(said[4:], text, strict=False))
        counted = page.evaluate(f"[{history}.score(4).answers, {history}.score(4).correct]")
        assert counted[0] == 9996
        assert counted[1] == pytest.approx(right, abs=2)  # a tie may fall either way in a batch
        assert row(page, place + 1)[-10:] == said[-10:]
    by_delay = page.evaluate("Echospan.page.histories[0].byDelay.map((d) => d.answers)")
    assert by_delay == [10_000, 9_999, 9_998, 9_997, 9_996]
    assert "of 9,996 answers right" in page.locator(".score").first.inner_text()


def test_what_is_no_letter_of_the_models_is_left_out_and_said(page):
    page.keyboard.type("a")
    paste(page, "Fä c!")
    wait_for(page, "Echospan.page.histories[0].read === 3")
    assert row(page, 0) == "afc"
    assert "3 characters are no symbol" in page.locator("#waiting").inner_text()


def test_pause_keeps_what_is_typed_until_it_goes_on(page):
    typed(page, "abc")
    page.keyboard.press("Escape")
    page.keyboard.type("def")
    assert page.locator("#waiting").inner_text() == "3 letters wait."
    assert page.get_by_role("button", name="Pause").get_attribute("aria-pressed") == "true"
    assert row(page, 0) == "abc"
    page.keyboard.press("Escape")
    wait_for(page, "Echospan.page.histories[0].read === 6")
    assert row(page, 0) == "abcdef"


def test_a_long_text_may_be_held_and_let_go_on(page):
    paste(page, letters(20_000))
    page.keyboard.press("Escape")
    wait_for(page, "!Echospan.page.feed.running")
    held = read(page)
    assert held < 20_000
    assert page.locator("#waiting").inner_text() == f"{20_000 - held:,} letters wait."
    page.keyboard.press("Escape")
    wait_for(page, "Echospan.page.histories[0].read === 20000")


def test_random_letters_run_at_the_speed_that_is_set_and_a_reset_forgets(page):
    page.locator("#speed").fill("7")
    assert page.locator("#speed-now").inner_text() == "500 a second"
    page.get_by_role("button", name="Random letters").click()
    wait_for(page, "Echospan.page.histories[2].read > 100")
    page.get_by_role("button", name="Random letters").click()
    page.get_by_role("button", name="Reset").click()
    wait_for(page, "Echospan.page.histories.every((h) => h.read === 0)")
    assert row(page, 0) == ""
    page.locator("#keys").focus()
    typed(page, "abcdef")
    assert row(page, 0) == "abcdef"
    assert row(page, 1)[:4] == "····"


def test_a_model_that_was_not_trained_so_far_says_nothing(chromium, models):
    near = trained("gru", max_delay=1)
    both = [Served("far", models["gru"]), Served("near", near)]
    with serving(both) as served, opened(chromium, served.url) as page:
        assert page.locator("#delay-now").inner_text() == "1"  # at which both answer
        page.locator("#delay").fill("4")
        page.locator("#keys").focus()
        typed(page, "abcdef")
        assert row(page, 2) == "––––––"
        page.locator("#delay").fill("1")
        page.locator("#keys").focus()
        typed(page, "fed")
        assert row(page, 2) == "––––––" + near.echo("abcdeffed", 1)[6:]


ROUND = "[Echospan.page.game.round.n, Echospan.page.game.round.place].join()"


def play(page, answers):
    """Play the game to its end: `answers(n)` says whether to answer a round rightly."""
    seen = []
    for _ in range(200):
        if page.locator("#result").is_visible():
            return
        asked = page.locator("#asked").inner_text()
        n = int(asked.split("=")[1].split(":")[0])
        if "remember" in asked:
            seen = seen if "Letter 1 " not in asked else []
            key = " "
        else:
            right = seen[-n]
            key = right if answers(n) else next(c for c in "abcdef" if c != right)
        seen.append(page.locator("#letter").inner_text())
        place = page.evaluate(ROUND)
        page.keyboard.press("Space" if key == " " else key)
        wait_for(
            page,
            f"{ROUND} !== '{place}' && "
            "(!Echospan.page.game.round.over || !document.getElementById('result').hidden)",
        )
    raise AssertionError("the game does not end")


def test_the_game_is_played_to_its_end_and_tells_both_spans(page):
    page.get_by_role("link", name="n-back game").click()
    page.get_by_role("button", name="Start").press("Enter")
    play(page, lambda n: n <= 2)
    rows = [r.split("\t") for r in page.locator("#spans tr").all_inner_texts()]
    assert rows[0] == ["You", "2", "2 mistakes at n = 3"]
    assert [r[0] for r in rows[1:]] == ["gru", "lru", "attention"]
    assert rows[1][1:] == ["4", "it was trained no further than 4"]
    assert page.evaluate("document.activeElement.id") == "result-title"
    page.get_by_role("button", name="Play again").press("Enter")
    play(page, lambda n: False)
    assert page.locator("#spans td").nth(1).inner_text() == "0"


@contextlib.contextmanager
def through_a_line(chromium, url):
    """The page, and its line to the server, which may be cut, or swallow what the server says."""
    line = {"swallow": False, "ends": []}

    def connects(ws):
        server = ws.connect_to_server()
        server.on_message(lambda text: None if line["swallow"] else ws.send(text))
        line["ends"] = [ws, server]

    with opened(chromium, "about:blank") as page:
        page.route_web_socket("**/socket", connects)
        page.goto(url)
        page.wait_for_selector(".model canvas", state="attached")
        yield page, line


def cut(line):
    for end in line["ends"]:
        end.close(code=3000, reason="a cable was pulled")


def test_a_lost_connection_is_taken_up_again_and_no_key_is_read_twice(chromium, models):
    text, gru = letters(30), models["gru"]
    with (
        serving([Served("gru", gru)]) as served,
        through_a_line(chromium, served.url) as (page, line),
    ):
        typed(page, text[:10])
        line["swallow"] = True
        page.keyboard.type(text[10:12])
        wait_for(page, "Echospan.page.sources[0].unanswered.length === 1")
        cut(line)
        wait_for(page, "!document.getElementById('notice').hidden")
        assert "a cable was pulled" in page.locator("#notice").inner_text()
        line["swallow"] = False
        page.keyboard.type(text[12:])
        wait_for(page, "Echospan.page.histories[0].read === 30")
        assert row(page, 0) == text
        assert row(page, 1) == gru.echo(text, 4)
        assert page.locator("#notice").is_hidden()


def test_a_state_that_was_not_kept_is_said_to_be_lost(chromium, models):
    text, gru = letters(30), models["gru"]
    with (
        serving([Served("gru", gru)], seconds_kept=0.0) as served,
        through_a_line(chromium, served.url) as (page, line),
    ):
        typed(page, text[:10])
        cut(line)
        wait_for(page, "document.getElementById('notice').textContent.includes('begin anew')")
        assert row(page, 0) == ""
        typed(page, text[10:])
        assert row(page, 1) == gru.echo(text[10:], 4)


def test_letters_keep_the_delay_that_was_set_when_they_were_typed(page, models):
    page.keyboard.press("Escape")
    page.keyboard.type("abcdef")
    page.keyboard.press("Alt+ArrowDown")
    page.keyboard.type("fedcba")
    assert page.locator("#waiting").inner_text() == "12 letters wait."
    page.keyboard.press("Escape")
    wait_for(page, "Echospan.page.histories[0].read === 12")
    text, gru = "abcdeffedcba", models["gru"]
    assert row(page, 1) == gru.echo(text, 4)[:6] + gru.echo(text, 3)[6:]


def test_the_score_is_that_of_the_delay_that_is_named(page, models):
    text, gru = letters(40), models["gru"]
    typed(page, text)
    for delay in (4, 1, 3):
        page.locator("#delay").fill(str(delay))
        wait_for(page, f"Echospan.page.delay === {delay}")
        right = sum(a == b for a, b in zip(gru.echo(text, delay)[delay:], text, strict=False))
        score = page.locator(".score").first.inner_text().split()
        assert f"of {40 - delay} answers" in " ".join(score)
        assert float(score[0]) == pytest.approx(100 * right / (40 - delay), abs=0.06)


def test_a_server_that_takes_few_symbols_at_once_is_sent_few(chromium, models):
    text, gru = letters(100), models["gru"]
    with (
        serving([Served("gru", gru)], answers=64) as served,
        opened(chromium, served.url) as page,
    ):
        assert page.evaluate("Echospan.page.sources[0].batch") == 12
        paste(page, text)
        wait_for(page, "Echospan.page.histories[0].read === 100")
        assert row(page, 1)[-20:] == gru.echo(text, 4)[-20:]


ALPHABETS = {
    "emoji": "🌍🎲🧠ab",
    "beyond the first plane": "𝔸𝔹𠮷😀",
    "one half in common": "😀😁😂",
    "joined": "👩\u200d💻e\u0301",
    "combining": "e\u0301\u0308a",
    "right to left": "אבגדab",
    "spaces": " \u00a0\u3000\tab\n",
    "special in HTML": "<>&'\"/",
    "line separators": "\u2028\u2029ab",
    "controls": "\x00\x1b\x7fab",
    "cases": "aAbBßİŉ",
    "like words of JavaScript": "_$\\`{}",
}


@pytest.mark.parametrize("name", ALPHABETS)
def test_any_alphabet_is_answered_as_in_python(chromium, tmp_path, name):
    alphabet = ALPHABETS[name]
    torch.manual_seed(0)
    gru = EchoModel(ModelConfig(alphabet=alphabet, hidden=16, max_delay=3)).eval()
    torch.nn.init.normal_(gru.readouts.weight)
    text = letters(600, alphabet)  # more than goes in one batch
    answers = [list(step) for step in zip(*(gru.echo(text, d) for d in range(4)), strict=True)]
    file = tmp_path / "echo.html"
    file.write_text(single_file(pack(gru, "gru")))
    with serving([Served("gru", gru)]) as served:
        for url in (served.url, file.as_uri()):
            with opened(chromium, url) as page:
                paste(page, text.replace("\n", ""))  # which a field does not hold
                got = page.evaluate(
                    """async (text) => {
                      await Echospan.page.feed.busy;
                      await Echospan.page.reset();
                      const [source] = Echospan.page.sources;
                      const spoken = (id) => (id ? source.alphabet.characters[id - 1] : "·");
                      const steps = await source.push(text, 3);
                      return steps.map((s) => s.beliefs.map((b) => spoken(b.id)));
                    }""",
                    text,
                )
                assert got == answers
                assert page.locator("#waiting").inner_text() == ""


def test_an_emoji_is_typed_shown_and_counted_as_one_letter(chromium, tmp_path):
    torch.manual_seed(0)
    gru = EchoModel(ModelConfig(alphabet="🌍🎲🧠", hidden=16, max_delay=3)).eval()
    file = tmp_path / "echo.html"
    file.write_text(single_file(pack(gru, "gru")))
    with serving([Served("gru", gru)]) as served:
        for url in (served.url, file.as_uri()):
            with opened(chromium, url) as page:
                for emoji in "🌍🧠🎲🧠":
                    page.keyboard.insert_text(emoji)
                paste(page, "🌍💻x🎲")
                wait_for(page, "Echospan.page.histories[0].read === 6")
                assert row(page, 0) == "🌍🧠🎲🧠🌍🎲"
                assert row(page, 1) == gru.echo("🌍🧠🎲🧠🌍🎲", 3)
                told = page.locator("#waiting").inner_text()
                assert told == "2 characters are no symbol of 🌍 to 🧠 and left out."
                page.get_by_role("link", name="n-back game").click()
                page.get_by_role("button", name="Start").press("Enter")
                shown = page.locator("#letter").inner_text()
                assert shown in "🌍🎲🧠"
                page.keyboard.press("Space")
                wait_for(page, "Echospan.page.game.round.asks")
                page.keyboard.insert_text(shown)
                assert page.locator("#feedback").inner_text() == f"✓ {shown} is right"


def test_lines_are_pasted_and_typed_where_the_alphabet_has_them(chromium):
    gru = EchoModel(ModelConfig(alphabet="ab \n", hidden=8, max_delay=1)).eval()
    with serving([Served("gru", gru)]) as served, opened(chromium, served.url) as page:
        page.locator("#keys").evaluate(
            """(field) => {
              const clipboardData = new DataTransfer();
              clipboardData.setData("text/plain", "a\\r\\nb");
              field.dispatchEvent(new ClipboardEvent("paste", { clipboardData, cancelable: true }));
            }"""
        )
        page.keyboard.type("b a")
        page.keyboard.press("Enter")
        wait_for(page, "Echospan.page.histories[0].read === 7")
        assert row(page, 0) == "a␊bb␣a␊"


SEEN = """() => {
  const texts = (selector) => [...document.querySelectorAll(selector)].map((e) => e.innerText);
  const canvas = document.querySelector("canvas").cloneNode();
  const copy = canvas.getContext("2d");
  copy.drawImage(document.querySelector("canvas"), 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  return {
    title: document.title,
    page: texts("body > header, #echo .panel"),
    marks: [...document.querySelectorAll(".cell, .memory td")].map((e) => e.className),
    labels: [...document.querySelectorAll("[aria-label]")].map((e) => e.ariaLabel),
    sure: [...document.querySelectorAll(".believes td")].map((e) => e.style.cssText),
    game: document.getElementById("game").textContent,
    pixels: [...data],
  };
}"""


@pytest.mark.parametrize("conditioning", ["readout", "input"])
def test_the_file_and_the_served_page_show_the_same(chromium, tmp_path, conditioning):
    gru = trained("gru", conditioning=conditioning)
    recall = [0.99996, 0.5, 0.25, 0.125, 0.0625]
    file = tmp_path / "echo.html"
    file.write_text(single_file(pack(gru, "gru", recall)))
    text, shown = letters(70), []
    with serving([Served("gru", gru, recall)]) as served:
        for url in (file.as_uri(), served.url):
            with opened(chromium, url) as page:
                typed(page, text[:9])
                shown.append([page.evaluate(SEEN)])
                page.keyboard.press("Alt+ArrowDown")
                typed(page, text[9:])
                shown[-1].append(page.evaluate(SEEN))
                shown[-1].append({"where": page.locator("footer").inner_text()})
    for alone, served_page in zip(*(views[:2] for views in shown), strict=True):
        apart = [
            abs(a - b) for a, b in zip(alone.pop("pixels"), served_page.pop("pixels"), strict=True)
        ]
        assert max(apart) <= 4  # a server sends hidden states in a byte
        assert alone == served_page
    assert shown[0][2]["where"] == "The model runs in this page: nothing that you type leaves it."
    address = served.url.split("/")[2]
    assert shown[1][2]["where"] == f"What you type is sent to {address}, where the models run."


def test_a_model_that_diverges_is_shown_alike(chromium, tmp_path):
    rnn = EchoModel(ModelConfig(core="rnn", alphabet="abcdef", hidden=8, max_delay=2)).eval()
    with torch.no_grad():
        rnn.core.weight_hh_l0.fill_(1e9)
        rnn.readouts.weight.fill_(-1.0)
        rnn.readouts.weight[3::7] = float("nan")
    text = letters(12)
    file = tmp_path / "echo.html"
    file.write_text(single_file(pack(rnn, "rnn")))
    shown = []
    with serving([Served("rnn", rnn)]) as served:
        for url in (file.as_uri(), served.url):
            with opened(chromium, url) as page:
                typed(page, text)
                assert row(page, 1) == rnn.echo(text, 2)
                shown.append(page.locator(".memory").inner_text())
    assert shown[0] == shown[1]
    assert "NaN" not in shown[0]


@pytest.mark.parametrize("keeps_host", [True, False], ids=["host kept", "host replaced"])
def test_the_page_works_under_the_path_of_a_proxy(chromium, models, keeps_host):
    prefix, gru, text = "/user/me/proxy/8737/", models["gru"], letters(9)
    with (
        serving([Served("gru", gru)], names=["hub.localhost"]) as served,
        proxied(served, prefix, keeps_host) as port,
        opened(chromium, f"http://hub.localhost:{port}{prefix}") as page,
    ):
        typed(page, text)
        assert row(page, 1) == gru.echo(text, 4)
        assert page.locator("footer").inner_text().startswith("What you type is sent to hub.local")


def test_a_page_under_a_name_that_is_not_admitted_says_so(chromium, models):
    with (
        serving([Served("gru", models["gru"])], names=["hub.localhost"]) as served,
        proxied(served, "/", keeps_host=False) as port,
    ):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"http://elsewhere.localhost:{port}/")
        notice = page.locator("#notice")
        notice.wait_for()
        assert "is not this server: open the page that it serves" in notice.inner_text()
        context.close()


@pytest.mark.parametrize("size", SIZES)
def test_it_looks_well_and_has_no_barrier(chromium, served, size):
    folder = os.environ.get("ECHOSPAN_SCREENSHOTS")
    from axe_playwright_python.sync_playwright import Axe

    with opened(chromium, served.url, size) as page:
        typed(page, letters(45))
        page.keyboard.press("Alt+ArrowDown")
        typed(page, letters(12, seed=1))
        for view in ("echo", "game"):
            page.evaluate(f"location.hash = '{view}'")  # which forgets nothing where it is shown
            page.locator(f"#{view}").wait_for()
            assert (view == "game") or read(page) == 57
            found = Axe().run(page).response["violations"]
            grave = [v for v in found if v["impact"] in ("serious", "critical")]
            assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in grave] == []
            wide = "document.documentElement.scrollWidth <= innerWidth"
            assert page.evaluate(wide), "it must be scrolled sideways"
            if folder:
                page.screenshot(path=Path(folder, f"page-{view}-{size}.png"), full_page=True)


@pytest.fixture
def file(models, tmp_path):
    """The GRU's page as one file."""
    path = tmp_path / "echo.html"
    path.write_text(single_file(pack(models["gru"], "alone", [1.0] * 5)))
    return path


def test_the_page_as_one_file_answers_as_pytorch_does(chromium, models, file):
    text, gru = letters(10_000), models["gru"]
    with opened(chromium, file.as_uri()) as page:
        typed(page, text[:10])
        assert row(page, 1) == gru.echo(text[:10], 4)
        page.evaluate("Echospan.page.reset()")
        wait_for(page, "Echospan.page.histories[0].read === 0")
        believed = page.evaluate(
            """async (text) => {
              const steps = await Echospan.page.sources[0].push(text, 4);
              return steps.map((s) => s.beliefs.map((b) => b.symbol).join(""));
            }""",
            text,
        )
        page.evaluate("Echospan.page.reset()")
        paste(page, text)
        wait_for(page, "Echospan.page.histories[0].read === 10000")
        shown = row(page, 1)
    with torch.inference_mode():
        logits = gru(torch.tensor([gru.alphabet.encode(text)]))[0][0]
    best = logits.topk(2).values
    tied = (best[..., 0] - best[..., 1] < 1e-4).any(-1).tolist()
    answers = [gru.alphabet.decode(ids) for ids in logits.argmax(-1).tolist()]
    assert sum(tied) < 10
    wrong = [t for t in range(10_000) if believed[t] != answers[t] and not tied[t]]
    assert wrong == []
    assert shown[-10:] == gru.echo(text, 4)[-10:]


def test_the_file_has_the_game_too_and_no_barrier(chromium, file):
    from axe_playwright_python.sync_playwright import Axe

    with opened(chromium, file.as_uri()) as page:
        page.get_by_role("link", name="n-back game").click()
        page.get_by_role("button", name="Start").press("Enter")
        play(page, lambda n: n <= 1)
        assert page.locator("#spans td").nth(1).inner_text() == "1"
        found = Axe().run(page).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


def test_the_file_may_run_nothing_but_itself(chromium, file):
    page = file.read_text()
    policy = page.split('Content-Security-Policy" content="')[1].split('"')[0]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    planted = page.replace("</body>", "<script>globalThis.ran = true</script></body>")
    file.write_text(planted)
    context = chromium.new_context()
    tab = context.new_page()
    tab.goto(file.as_uri())
    assert tab.evaluate("globalThis.ran") is None
    assert tab.evaluate("Echospan.page.sources[0].name") == "alone"
    context.close()
    file.write_text(page.replace('"read"', '"raed"'))  # a script that was tampered with
    context = chromium.new_context()
    tab = context.new_page()
    tab.goto(file.as_uri())
    assert tab.evaluate("globalThis.Echospan?.Memory") is None
    context.close()


@pytest.mark.parametrize("recipe", ["fixed", "variable"])
def test_the_file_of_a_recipe_is_small(recipe):
    assert len(single_file(pack(EchoModel(RECIPES[recipe].model)))) < 1_000_000


def test_what_a_model_is_called_cannot_break_out(models):
    page = single_file(pack(models["gru"], "</script><script>alert(1)</script>"))
    assert "alert(1)</script>" not in page.split("</title>")[1]
    assert "<title>Echospan: &lt;/script&gt;" in page


def test_the_command_writes_the_file_or_says_why_not(fixed_run, tmp_path, capsys):
    out = tmp_path / "echo.html"
    command = ["export", str(fixed_run), "--format", "html", "-o", str(out)]
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 0
    written = out.read_bytes()
    assert "open it in a browser" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_bytes() == written
    other = tmp_path / "attention"
    config = ModelConfig(core="attention", hidden=16, max_delay=2)
    save(EchoModel(config), TrainingConfig(), other, {})
    with pytest.raises(SystemExit) as end:
        main(["export", str(other), "--format", "html", "-o", str(tmp_path / "other.html")])
    assert end.value.code == 2
    assert "open it with echospan serve" in capsys.readouterr().err
    assert not (tmp_path / "other.html").exists()
