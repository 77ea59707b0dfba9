"""The report in a browser: it draws, says nothing wrong, asks for nothing, and answers keys and the pointer."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import numpy as np
import pytest

from helpers import ArrayTokens, model_folder
from throughtime.models.saved import load
from throughtime.probe import inspection
from throughtime.probe.report import html as report
from throughtime.training.journal import Journal

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip
TEXT = 'A word, "and more" of them (here)\nor </script><img src=x onerror=alert(1)> there.\n\n' * 9


@pytest.fixture(scope="module")
def browser():
    missing = [name for name, there in (("chromium", CHROMIUM), ("playwright", find_spec("playwright"))) if not there]
    if missing:
        reason = f"{' and '.join(missing)} missing: apt-get install chromium, pip install playwright"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model_folder(folder, TEXT, spread=0.3, cell="lstm", hidden_size=7)
    journal = Journal(folder / "journal.jsonl")
    journal.rewrite("")
    for step in range(1, 9):
        losses = {"nats_per_token": 3 / step, "gradient_norm": 1.0 / step, "clipped_share": 0.5}
        journal.write("train", tokens=100 * step, **losses)
        journal.write("valid", tokens=100 * step, valid=losses)
    loaded = load(folder)
    found = inspection.inspect(loaded, "a text", ArrayTokens(loaded.tokenizer.encode(TEXT).astype(np.int64)))
    (folder / "report.html").write_text(report.render(found), "utf-8")
    return folder / "report.html"


@pytest.fixture(params=["light", "dark"])
def page(browser, file, request):
    """The report; whatever a test does with it, nothing may be wrong or asked for."""
    said: list[str] = []
    page = browser.new_page(color_scheme=request.param, viewport={"width": 1280, "height": 900})
    page.on("console", lambda message: said.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    page.on("request", lambda asked: said.append(f"request: {asked.url}"))
    page.goto(file.as_uri())
    yield page
    page.close()
    assert [line for line in said if not line.startswith(("request: data:", f"request: {file.as_uri()}"))] == []


def colours(page) -> list[str]:
    return page.evaluate(
        "[...document.querySelectorAll('#tokens span')].map((s) => getComputedStyle(s).backgroundColor)"
    )


def test_it_draws(page):
    shown = page.evaluate("[...document.querySelectorAll('#tokens span')].map((s) => s.textContent)")
    assert "".join(shown).replace("↵", "") == TEXT
    assert page.locator("figure svg[role=img]").count() == page.locator("figure").count() > 2
    assert page.locator("#follow h4").count() > 3
    assert len(set(colours(page))) > 10
    paper, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (sum(rgb(paper)) < sum(rgb(ink))) == dark


def rgb(colour: str) -> list[int]:
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]


def test_it_fits_the_screen(page):
    for width in (320, 400, 860, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function("(width) => document.documentElement.scrollWidth <= width", arg=width, timeout=5000)


def test_arrow_keys_flip_through_units(page):
    surprise = colours(page)
    page.keyboard.press("ArrowRight")
    names, looks = [page.locator("#which b").inner_text()], [colours(page)]
    page.keyboard.press("ArrowRight")
    names.append(page.locator("#which b").inner_text())
    looks.append(colours(page))
    assert len(set(names)) == 2
    assert surprise != looks[0] != looks[1]
    assert page.locator("#unit").get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#which b").inner_text() == names[0]
    page.keyboard.press("s")
    assert colours(page) == surprise
    page.select_option("#order", "number")
    page.keyboard.press("u")
    assert colours(page) == looks[0]


def test_a_feature_s_unit_can_be_jumped_to(page):
    chip = page.locator("#follow button").first
    chip.click()
    assert chip.get_attribute("aria-pressed") == "true"
    assert chip.inner_text().startswith(page.locator("#which b").inner_text())


def test_hover_shows_the_guesses_and_what_they_depend_on(page):
    page.hover("#tokens span[data-t='30']")
    card = page.locator("#card")
    assert card.is_visible()
    assert "token 31" in card.inner_text()
    assert card.locator("tr").count() in (5, 6)
    assert card.locator("tr.hit").count() == 1
    past = page.evaluate("[...document.querySelectorAll('#tokens .past')].map((s) => Number(s.dataset.t))")
    assert past
    assert all(t < 30 for t in past)
    assert 29 in past
    page.hover("h1")
    assert card.is_hidden()
    assert page.locator("#tokens .past").count() == 0


def test_shift_and_arrows_walk_through_the_text(page):
    place = "Number(document.querySelector('#tokens .here').dataset.t)"
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert page.evaluate(place) == 1
    page.keyboard.press("Shift+ArrowDown")
    assert page.evaluate(place) == TEXT.index("\n") + 2
    page.keyboard.press("Shift+ArrowUp")
    assert page.evaluate(place) == 1
    assert page.locator("#card").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#card").is_hidden()


def test_a_click_pins_and_the_strip_leads_there(page):
    page.click("#tokens span[data-t='5']")
    page.hover("#tokens span[data-t='90']")
    assert "token 6" in page.locator("#card").inner_text()
    page.locator("#strip").click(position={"x": 600, "y": 20})
    assert page.locator("#tokens .here").count() == 1
    assert "token 6" not in page.locator("#card .head").inner_text().splitlines()


def test_the_theme_can_be_switched(page):
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.keyboard.press("t")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == before


def test_charts_say_their_values(page):
    figure = page.locator("#loss")
    figure.locator(".plot svg").hover()
    tip = figure.locator(".tip")
    assert "training" in tip.inner_text()
    assert "validation" in tip.inner_text()
    figure.locator(".plot svg").focus()
    page.keyboard.press("ArrowRight")
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() != first
    assert page.locator("#unit").get_attribute("aria-pressed") == "false", "the chart has the arrow keys to itself"
    figure.locator("summary").click()
    figure.locator("table").wait_for()  # it is made when the browser says that it opened, which it does later
    assert figure.locator("td").count() == 2 * (8 + 8)


def test_the_policy_holds(browser, file):
    """Nothing loads and nothing foreign runs, even if a script were to try."""
    page = browser.new_page()
    page.goto(file.as_uri())
    broken = page.evaluate("""async () => {
        const broken = [];
        document.addEventListener("securitypolicyviolation", (event) => broken.push(event.effectiveDirective));
        await fetch("data:,x").catch(() => 0);
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        await new Promise((done) => setTimeout(done, 50));
        return [broken, window.ran ?? false];
    }""")
    page.close()
    assert sorted(broken[0]) == ["connect-src", "script-src-elem"]
    assert broken[1] is False
