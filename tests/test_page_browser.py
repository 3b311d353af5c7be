"""The live report in a real browser, the network off: sliders, keyboard, themes, print. Needs Chromium (``CHROMIUM`` or on the path)."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, chromium
from pages import CPU, NASTY, nasty_graph, page_of

import memest
from memest.machines.claims import claim_on
from memest.network.graph import Graph
from memest.planning.page import PageModel
from memest.planning.page.model import OPTIMIZERS
from memest.planning.page.reading import Reading
from memest.render.page import render
from memest.shown import visible
from memest.sizes.units import format_bytes

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium() is None, reason="no Chromium here")]
NETWORKS: dict[str, dict[str, Any]] = {
    "unet3d:base_filters=8": {"input_shape": (2, 1, 32, 32, 32), "batches": (1, 2, 4, 16), "sizes": {"": (32, 48, 96)}},
    "resnet50": {"input_shape": (8, 3, 224, 224), "batches": (1, 2, 8, 32), "sizes": {"": (64, 224, 320)}},
}
Shown = tuple[Path, PageModel, Graph]
LOWEST_CONTRAST = r"""(() => {  // WCAG 2's ratio of the text that has the least, and where it is
  const parts = (c) => c.match(/[\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (c) => parts(c).slice(0, 3).map((v) => linear(v / 255)).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    while (e.parentElement && parts(getComputedStyle(e).backgroundColor)[3] === 0) e = e.parentElement;
    return getComputedStyle(e).backgroundColor;
  };
  const texts = "h1,h2,h3,p,label,legend,td,th,button,li,output,footer,.note,.segmented span,small";
  return [...document.querySelectorAll(texts)].filter((e) => e.offsetParent && e.textContent.trim()).map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.className || e.tagName];
  }).sort((x, y) => x[0] - y[0])[0];
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """A page of each network."""
    folder, found = tmp_path_factory.mktemp("pages"), {}
    for number, (name, how) in enumerate(NETWORKS.items()):
        graph = memest.model(name)
        model = page_of(graph, optimizers=OPTIMIZERS, **how)
        path = folder / f"{number}.html"
        path.write_text(render(model, title=name, hardware=memest.hardware(), budget="2GiB"))
        found[name] = path, model, graph
    return found


@pytest.fixture
def shown(browser: Browser, pages: dict[str, Shown]) -> PageModel:
    """The browser at the U-Net's page, as opened."""
    path, model, _ = pages["unet3d:base_filters=8"]
    browser.media()
    browser.resize(1280, 900)
    browser.open(path)
    return model


def peak(browser: Browser) -> int:
    """The bytes that the page shows."""
    text: str = browser.run("document.getElementById('peak-bytes').textContent")
    return int(text.removesuffix(" bytes").replace(",", ""))


def move(browser: Browser, symbol: str, index: int) -> None:
    """Move a slider to a stop, as dragging it does."""
    browser.run(
        f"(() => {{ const s = document.querySelector('[data-symbol={json.dumps(symbol)}]'); s.value = {index};"
        " s.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


def choose(browser: Browser, ident: str, value: str) -> None:
    """Choose in a select."""
    browser.run(
        f"(() => {{ const s = document.getElementById({json.dumps(ident)}); s.value = {json.dumps(value)};"
        " s.dispatchEvent(new Event('change', { bubbles: true })); })()"
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_moving_a_slider_shows_the_bytes_of_the_library(name: str, browser: Browser, pages: dict[str, Shown]) -> None:
    path, model, graph = pages[name]
    browser.resize(1280, 900)
    browser.open(path)
    rng = random.Random(name)
    for _ in range(50):
        axis = rng.choice(model.axes)
        move(browser, axis.symbol, rng.randrange(len(axis.values)))
        if rng.random() < 0.4:
            chosen = rng.choice(model.data["choices"])
            browser.run(f"document.querySelector('[name=mode][value={chosen['mode']}]').click()")
            if chosen["optimizer"]:
                choose(browser, "optimizer", chosen["optimizer"])
        sizes = {a.symbol: a.values[browser.run(f"+document.querySelector('[data-symbol={a.symbol}]').value")] for a in model.axes}
        mode = browser.run("document.querySelector('[name=mode]:checked').value")
        optimizer = browser.run("document.getElementById('optimizer').value")
        shape = tuple(d if isinstance(d, int) else d.evaluate(sizes) for d in graph.inputs[0].shape)
        truth = memest.estimate(graph, input_shape=shape, mode=mode, machine=CPU, **({"optimizer": optimizer} if mode == "train" else {}))
        assert peak(browser) == truth.peak_bytes, (shape, mode, optimizer)
        assert browser.run("document.getElementById('peak-short').textContent") == format_bytes(truth.peak_bytes)
        parts = "[...document.querySelectorAll('#legend li')].map((l) => [l.dataset.category, +l.dataset.bytes])"
        shown = browser.run(f"Object.fromEntries({parts})")
        assert shown == truth.by_category()
    assert browser.errors == []
    assert {r.partition("#")[0] for r in browser.requests} <= {p.as_uri() for p, _, _ in pages.values()} | {"about:blank"}


def test_the_address_holds_the_settings(browser: Browser, shown: PageModel, pages: dict[str, Shown]) -> None:
    path, model, _ = pages["unet3d:base_filters=8"]
    browser.open(path, "N=16&D=48&H=96&W=40&mode=train&optimizer=adam&budget=1GiB&on=t4")
    reading = Reading(model.data)
    setting = next(s for s in range(200) if reading.sizes_at(s) == {"N": 16, "D": 48, "H": 96, "W": 32})
    choice = next(i for i, c in enumerate(model.data["choices"]) if c["optimizer"] == "adam")
    assert peak(browser) == reading.at(choice, setting).peak_bytes
    assert browser.run("document.querySelectorAll('.verdict').length") == 2
    move(browser, "N", 0)
    browser.run("new Promise((done) => setTimeout(done, 200))")
    assert "N=1&D=48" in browser.run("location.hash") and "optimizer=adam" in browser.run("location.hash")


def test_the_keyboard_reaches_and_moves_everything(browser: Browser, shown: PageModel) -> None:
    focused = "(({ id, name, className, tagName }) => id || name || className || tagName)(document.activeElement)"
    seen: list[str] = []
    while "filter" not in seen and len(seen) < 60:
        browser.press("Tab")
        seen.append(browser.run(focused))
    wanted = ["skip", "theme", "print", "mode", "optimizer", "axis-0", "axis-3"]
    wanted += ["hardware", "budget", "reset", "chart", "by-axis-of", "filter"]
    assert [w for w in seen if w in wanted] == wanted
    ring = browser.run("(() => { const b = document.getElementById('reset'); b.focus(); return getComputedStyle(b).outlineStyle; })()")
    assert ring == "solid"
    before = peak(browser)
    browser.run("document.getElementById('axis-0').focus()")
    browser.press("ArrowRight")
    assert peak(browser) > before
    assert browser.run("document.activeElement.id") == "axis-0"
    assert browser.run("document.activeElement.getAttribute('aria-valuetext')") == "4"
    browser.run("document.getElementById('chart').focus()")
    text = "document.activeElement.getAttribute('aria-valuetext')"
    assert "the peak" in browser.run(text)
    browser.press("ArrowLeft")
    assert "the peak" not in browser.run(text)
    browser.press("Home")
    assert "before the first event" in browser.run(text)
    browser.press("p")
    assert "the peak" in browser.run(text)


def test_an_alternative_is_a_button_and_keeps_the_focus(browser: Browser, shown: PageModel) -> None:
    browser.run("document.querySelectorAll('#by-axis button')[2].focus()")
    browser.press("Enter")
    assert browser.run("document.querySelector('[data-symbol=N]').value") == "2"
    assert browser.run("document.activeElement.textContent") == "N = 4"


def test_layers_sort_and_filter(browser: Browser, shown: PageModel) -> None:
    column = "[...document.querySelectorAll('#layers tbody tr')].map((r) => r.children[{}].textContent)"
    names = browser.run(column.format(1))
    browser.run("document.querySelectorAll('#layers thead button')[1].focus()")
    browser.press("Enter")
    assert browser.run(column.format(1)) == sorted(names)
    browser.press("Enter")
    assert browser.run(column.format(1)) == sorted(names, reverse=True)
    assert browser.run("document.querySelector('[aria-sort]').textContent") == "Layer"
    browser.run("document.getElementById('filter').focus()")
    browser.type("pool")
    assert browser.run(column.format(1)) == sorted((n for n in names if "pool" in n), reverse=True)


@pytest.mark.parametrize("text", ["24", "x", "1 parsec", "0GiB", "1.5.2GiB", "-1GiB"])
def test_a_budget_that_cannot_be_is_said(text: str, browser: Browser, shown: PageModel) -> None:
    browser.run("(() => { const b = document.getElementById('budget'); b.focus(); b.select(); })()")
    browser.type(text)
    assert browser.run("document.getElementById('budget-error').textContent")
    assert browser.run("document.getElementById('budget').getAttribute('aria-invalid')") == "true"
    assert browser.run("document.querySelectorAll('.verdict').length") == 0


@pytest.mark.parametrize("name", ["t4", "server-1.5tb", "server-4.5tb-pmem"])
@pytest.mark.parametrize("budget", ["100MiB", "1.5 GiB", "4GB", "24gib"])
def test_verdicts_are_the_librarys(name: str, budget: str, browser: Browser, pages: dict[str, Shown]) -> None:
    path, _, _ = pages["resnet50"]
    browser.open(path, f"on={name}&budget={budget}&N=32&optimizer=adam")
    for number, place in enumerate((memest.hardware_named(name), memest.budget(budget))):
        truth = memest.verdict(place, peak(browser))
        assert browser.run(f"document.querySelectorAll('.verdict .word')[{number}].textContent").lower() == truth.outcome.lower()
        said = browser.run(f"document.querySelectorAll('.verdict .detail')[{number}].textContent")
        amount = truth.short_bytes or truth.spilled_bytes or truth.headroom_bytes
        assert format_bytes(amount) in said


def test_the_largest_says_so_where_the_slider_ends(browser: Browser, pages: dict[str, Shown]) -> None:
    path, model, _ = pages["resnet50"]
    batch = next(a for a in model.axes if a.is_batch)

    def largest(settings: str) -> str:
        browser.open(path, f"optimizer=adam&{settings}")
        text: str = browser.run("document.getElementById('largest').textContent")
        return text

    assert largest("budget=100TiB") == f"The largest {batch.symbol} here that fits is {batch.values[-1]} or more."
    assert largest("budget=1KiB") == f"No {batch.symbol} here fits."
    peaks = []
    for stop in (0, 1):
        move(browser, batch.symbol, stop)
        peaks.append(peak(browser))
    assert largest(f"budget={sum(peaks) // 2}B") == f"The largest {batch.symbol} here that fits is {batch.values[0]}."
    assert largest("on=mi355x&budget=") == (
        f"The largest {batch.symbol} here at which torch CPU's bytes fit is {batch.values[-1]} or more."
    )


def test_a_verdict_on_an_accelerator_says_whose_bytes_and_what_is_missing(browser: Browser, pages: dict[str, Shown]) -> None:
    path, _, _ = pages["resnet50"]
    claims = "[...document.querySelectorAll('#verdicts .claim')].map((c) => c.textContent)"
    for where, kind in (("on=t4&budget=", "accelerator"), ("on=t4&budget=1GiB", "accelerator"), ("on=&budget=1GiB", "budget")):
        browser.open(path, where)
        assert [c.lower() for c in browser.run(claims)] == [f"{claim_on(kind).note}.".lower()], where


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(width: int, browser: Browser, shown: PageModel) -> None:
    browser.resize(width, 844)
    browser.run("new Promise((done) => setTimeout(done, 100))")
    assert browser.run("document.documentElement.scrollWidth") == width


def test_dark_follows_the_system_and_the_toggle(browser: Browser, shown: PageModel) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.run("localStorage.removeItem('memest-theme')")
    browser.media(prefers_color_scheme="light")
    light = browser.run(ground)
    browser.media(prefers_color_scheme="dark")
    dark = browser.run(ground)
    assert light != dark
    browser.run("document.getElementById('theme').click()")
    assert browser.run(ground) == light
    browser.media(prefers_color_scheme="light")
    browser.run("document.getElementById('theme').click()")
    assert browser.run(ground) == dark
    browser.run("document.getElementById('theme').click()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme: str, browser: Browser, shown: PageModel) -> None:
    browser.media(prefers_color_scheme=scheme)
    ratios = browser.run(LOWEST_CONTRAST)
    assert ratios[0] >= 4.5, ratios


def test_it_prints_without_controls(browser: Browser, shown: PageModel) -> None:
    browser.media("print")
    visible = "(id) => document.getElementById(id).getClientRects().length > 0"
    assert not browser.run(f"({visible})('controls')") and not browser.run(f"({visible})('theme')")
    assert browser.run(f"({visible})('peak')") and browser.run(f"({visible})('layers')")
    browser.media()
    assert browser.pdf().startswith(b"%PDF")


def test_motion_is_reduced_where_asked(browser: Browser, shown: PageModel) -> None:
    spent = "getComputedStyle(document.querySelector('#bar i')).transitionDuration"
    browser.media(prefers_reduced_motion="reduce")
    assert browser.run(spent) == "0s"
    browser.media(prefers_reduced_motion="no-preference")
    assert browser.run(spent) != "0s"


def test_formulas_are_mathml(browser: Browser, shown: PageModel) -> None:
    first = "document.querySelector('#formula math')"
    assert browser.run(f"{first}.namespaceURI") == "http://www.w3.org/1998/Math/MathML"
    assert "N" in browser.run(f"{first}.textContent")
    amounts = browser.run("[...document.querySelectorAll('#formula tbody tr')].map((r) => r.children[1].textContent)")
    assert sum(int(a.replace(",", "")) for a in amounts) == peak(browser)


def test_names_are_texts_and_big_numbers_stay_exact(browser: Browser, tmp_path: Path) -> None:
    graph, side = nasty_graph(), 2**26
    model = page_of(graph, 1, 3, side, side, batches=(1, 7), sizes={"": (side,)})
    path = tmp_path / "nasty.html"
    path.write_text(render(model, title=NASTY))
    before = len(browser.errors)
    browser.open(path, "N=7")
    assert peak(browser) == memest.estimate(graph, input_shape=(7, 3, side, side), machine=CPU).peak_bytes
    assert browser.run("document.querySelector('h1').textContent") == visible(NASTY)
    assert visible(NASTY) in browser.run("document.getElementById('layers').textContent")
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert browser.errors[before:] == []


# what there is no room for -----------------------------------------------------------------------------------------------

OUTSIDE = """(selector) => [...document.querySelectorAll(selector)].filter((e) => {
  const box = e.getBoundingClientRect();
  return e.textContent.trim() && (box.width < 2 || box.left < 0 || box.right > innerWidth || e.scrollWidth > e.clientWidth + 1);
}).map((e) => e.textContent)"""


@pytest.mark.parametrize("width", [320, 390, 620])
def test_a_narrow_page_shows_every_column_and_the_whole_formula(width: int, browser: Browser, shown: PageModel) -> None:
    browser.resize(width, 844)
    browser.run("new Promise((done) => setTimeout(done, 100))")
    for selector in ("#tensors td", "#layers td", "#formula td", "#definition math"):
        assert browser.run(f"({OUTSIDE})('{selector}')") == [], selector
    why = browser.run("[...document.querySelectorAll('#tensors td.wide')].map((e) => e.textContent)")
    assert any("kept for backward" in text for text in why)
    label = browser.run("getComputedStyle(document.querySelector('#layers td[data-of=kept]'), '::before').content")
    assert "kept" in label or "data-of" in label


@pytest.mark.parametrize("width", [390, 1280])
def test_the_layers_say_that_they_scroll(width: int, browser: Browser, shown: PageModel) -> None:
    browser.resize(width, 844)
    later = "new Promise((done) => setTimeout(done, 150))"
    more = "document.getElementById('layers-more').textContent"
    browser.run(later)
    assert "More layers below" in browser.run(more)
    assert not browser.run("document.querySelector('#layers').closest('.scroller').classList.contains('right')")
    total = "(() => { const b = document.querySelector('#layers tfoot td').getBoundingClientRect(), s = document.querySelector('.tall'); "
    assert browser.run(total + "return b.bottom <= s.getBoundingClientRect().bottom + 2 })()"), "the total is in sight"
    browser.run("(() => { const s = document.querySelector('.tall'); s.scrollTop = s.scrollHeight; })()")
    browser.run(later)
    assert browser.run(more) == ""
    browser.run("document.getElementById('filter').focus()")
    browser.type("pool.0")
    browser.run(later)
    assert browser.run(more) == ""


def test_a_wide_table_in_a_narrow_window_shows_that_it_goes_on(browser: Browser, shown: PageModel) -> None:
    browser.resize(700, 844)
    browser.run("document.querySelector('#layers td.name').textContent = 'a.very.long.name.'.repeat(8)")
    browser.run("new Promise((done) => setTimeout(done, 150))")
    side = "document.querySelector('#layers').closest('.scroller')"
    assert browser.run(f"{side}.classList.contains('right') && getComputedStyle({side}, '::after').opacity") == "1"


def test_the_verdict_stands_beside_its_number(browser: Browser, shown: PageModel) -> None:
    between = (
        "document.querySelector('.verdict').getBoundingClientRect().left - document.getElementById('peak').getBoundingClientRect().right"
    )
    assert 0 < browser.run(between) < 60
    browser.resize(390, 844)
    below = (
        "document.querySelector('.verdict').getBoundingClientRect().top - document.getElementById('peak').getBoundingClientRect().bottom"
    )
    assert 0 <= browser.run(below) < 20


def test_a_card_is_still_a_table_to_a_screen_reader(browser: Browser, shown: PageModel) -> None:
    browser.resize(390, 844)
    for table in ("tensors", "layers", "formula"):
        roles = f"[...document.getElementById('{table}').querySelectorAll('tr, td')].map((e) => e.getAttribute('role'))"
        assert set(browser.run(f"document.getElementById('{table}').tBodies[0].rows.length && {roles}")) <= {"row", "cell", None}
        assert browser.run(f"document.getElementById('{table}').getAttribute('role')") == "table"
