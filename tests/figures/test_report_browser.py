import io

import numpy as np
import pytest
from PIL import Image

from figures.report.page import report
from figures.tables.runs import read_material

from . import made_runs
from .browser import chromium, keep, opened

pytestmark = pytest.mark.slow

# Numbers may be typed arrays in the page.
DRAWN = """name => document.querySelector(`[data-picture="${name}"] .plot`).data.map(trace => ({
    name: trace.name, x: trace.x && Array.from(trace.x), y: trace.y && Array.from(trace.y),
    z: trace.z && Array.from(trace.z, row => row.length === undefined ? row : Array.from(row)),
    labels: trace.customdata && trace.customdata.flat().map(String)}))"""


@pytest.fixture(scope="module", name="browser")
def running_browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module", name="runs")
def two_runs_and_an_ablation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    mlp = made_runs.complete(folder / "mlp", seed=1)
    return [mlp, made_runs.complete(folder / "cmoe", mlp, seed=2), made_runs.ablation(folder / "2a.csv")]


@pytest.fixture(scope="module", name="path")
def written_report(runs, tmp_path_factory):
    return report(runs, tmp_path_factory.mktemp("out") / "report.html")


def show(page, name):
    """Scroll to a picture and wait until it is drawn."""
    page.evaluate("name => document.getElementById(name).scrollIntoView({behavior: 'instant'})", name)
    page.wait_for_function(
        "name => document.querySelector(`[data-picture='${name}'] .plot`)._fullLayout !== undefined", arg=name
    )
    return page.locator(f"[data-picture='{name}']")


def names_of(page):
    return page.eval_on_selector_all("[data-picture]", "found => found.map(one => one.dataset.picture)")


def test_every_picture_is_drawn_without_a_fault_or_a_request(browser, path, tmp_path):
    with opened(browser, path) as (page, faults):
        for name in names_of(page):
            picture = show(page, name)
            assert picture.locator(".plot .main-svg").count() > 0
            assert picture.locator(".failed").count() == 0
        for name in ("interference", "indexes", "routing", "tokens", "features-2d", "difference"):
            keep(page, f"desktop-{name}", tmp_path, show(page, name))
        page.evaluate("scrollTo(0, 0)")
        keep(page, "desktop", tmp_path)
        assert faults == []


def test_no_button_offers_to_send_anything_away(browser, path):
    with opened(browser, path) as (page, _):
        for name in ("interference", "features-3d"):
            show(page, name)
        titles = page.eval_on_selector_all(".modebar-btn", "found => found.map(one => one.dataset.title)")
        assert titles
        assert not [
            title for title in titles if any(word in title.lower() for word in ("share", "cloud", "edit", "studio"))
        ]


# Every option of every picker, one after the other, as if a reader had chosen it; what each one drew.
EVERY_OPTION = """async name => {
    const picture = document.querySelector(`[data-picture="${name}"]`);
    const plot = picture.querySelector(".plot");
    const seen = [];
    const selects = picture.querySelectorAll("select");
    for (const select of selects) {
        const begin = select.value;
        for (const value of [...[...select.options].map(option => option.value), begin]) {
            if (![...select.options].some(option => option.value === value)) continue;
            select.value = value;
            select.dispatchEvent(new Event("change"));
            await new Promise(done => setTimeout(done));
            seen.push({
                picker: select.dataset.picker, value, stands: select.value,
                failed: picture.querySelectorAll(".failed").length,
                traces: (plot.data || []).length,
                drawn: JSON.stringify([plot.data, plot.layout, picture.querySelector("h3").textContent]),
            });
        }
    }
    return seen;
}"""


def test_every_option_of_every_picker_is_drawn_and_changes_the_picture(browser, path):
    with opened(browser, path) as (page, faults):
        for name in names_of(page):
            show(page, name)
            chosen = page.evaluate(EVERY_OPTION, name)
            for one in chosen:
                assert one["stands"] == one["value"], (name, one["picker"], one["value"])
                assert one["failed"] == 0
                assert one["traces"] > 0
            for picker in {one["picker"] for one in chosen}:
                options = {one["value"]: one["drawn"] for one in chosen if one["picker"] == picker}
                if len(options) > 1:
                    assert len(set(options.values())) == len(options), (name, picker)
        assert faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_of_series_stand_out_from_the_page(browser, path, scheme):
    """WCAG's contrast of graphics, 3, in the dark; by light the fixed palette is the paper's, and is drawn as it is."""
    with opened(browser, path, scheme=scheme) as (page, _):
        for name in ("dynamics-routing", "dynamics-index", "indexes"):
            show(page, name)
            lines = page.evaluate(
                "name => document.querySelector(`[data-picture='${name}'] .plot`).data"
                ".filter(one => one.name).map(one => one.marker.color)",
                name,
            )
            surface = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--surface').trim()")
            assert lines
            if scheme == "dark" or name == "indexes":
                assert min(contrast(colour, surface) for colour in lines) >= 3


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_names_that_look_like_colours_stay_names(browser, tmp_path):
    run = made_runs.gradients(tmp_path / "run", tasks={"#332288": "VQA", "var(--ink)": "REC", "plain": "CLS"})
    with opened(browser, report([run], tmp_path / "report.html"), scheme="dark") as (page, _):
        show(page, "interference")
        shown = page.eval_on_selector_all(
            "[data-picture='interference'] .ytick text", "found => found.map(one => one.textContent)"
        )
        assert {"#332288", "var(--ink)", "plain"} <= {text.strip("■† ") for text in shown}


def test_a_finding_leads_to_the_choices_that_it_speaks_of(browser, path):
    # without motion the page is where a link leads at once
    with opened(browser, path, motion="reduce") as (page, faults):
        page.locator(".overview .card").first.locator(".more").click()
        links = page.locator(".findings a[data-at]")
        assert links.count() > 3
        for number in range(links.count()):
            link = links.nth(number)
            sentence = link.locator("xpath=..").text_content()
            link.click()
            picture = page.locator(link.get_attribute("href"))
            assert picture.locator(".finding").text_content() in sentence
            assert picture.locator(".finding").text_content()
        assert faults == []


def test_a_picker_changes_what_is_drawn_to_the_numbers_of_that_run(browser, path, runs):
    cmoe = read_material(runs).measured[1].levels["task"].gd
    with opened(browser, path) as (page, faults):
        picture = show(page, "interference")
        before = page.evaluate(DRAWN, "interference")
        title = picture.locator("h3").text_content()
        picture.locator("select[data-picker='Run']").select_option("cmoe")
        picture.locator("select[data-picker='Level']").select_option("task")
        after = page.evaluate(DRAWN, "interference")
        assert before != after
        # row, column and the rest of every cell, row by row
        names = [label.split(",")[0] for label in after[0]["labels"][:: len(cmoe)]]
        assert after[0]["z"] == cmoe.loc[names, names].to_numpy().tolist()
        assert picture.locator("h3").text_content() != title
        assert "cmoe" in picture.locator("h3").text_content()
        assert faults == []


def test_one_picker_at_the_top_changes_all_pictures(browser, path):
    with opened(browser, path) as (page, _):
        page.locator("[data-everywhere='Level']").select_option("task")
        chosen = page.eval_on_selector_all("select[data-picker='Level']", "found => found.map(one => one.value)")
        assert "dataset" not in chosen
        assert chosen.count("task") > 5


def test_the_cloud_in_space_is_drawn_and_turns(browser, path, tmp_path):
    with opened(browser, path) as (page, faults):
        picture = show(page, "features-3d")
        picture.locator("select[data-picker='Run']").select_option("cmoe")
        page.wait_for_timeout(1500)
        plot = "document.querySelector(\"[data-picture='features-3d'] .plot\")"
        camera = f"{plot}._fullLayout.scene._scene.getCamera().eye"
        before = page.evaluate(camera)
        canvas = picture.locator(".plot canvas").first
        pixels = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")).reshape(-1, 3)
        assert len(np.unique(pixels, axis=0)) > 20
        keep(page, "desktop-features-3d", tmp_path, picture)
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.6, steps=6)
        page.mouse.up()
        page.wait_for_timeout(500)
        after = page.evaluate(camera)
        assert max(abs(after[axis] - before[axis]) for axis in "xyz") > 0.05
        assert faults == []


def test_the_search_keeps_what_matches(browser, path):
    with opened(browser, path) as (page, faults):
        page.keyboard.press("/")
        page.keyboard.type("silhouette")
        page.wait_for_function("document.querySelector('#found').textContent !== ''")
        shown = page.eval_on_selector_all(
            "[data-picture]:not(.filtered)", "found => found.map(one => one.dataset.picture)"
        )
        assert "separation" in shown
        assert "interference" not in shown
        assert not page.locator("[data-entry='interference']").is_visible()
        assert page.locator(".definitions dt:visible").count() < 6
        page.keyboard.press("Escape")
        page.wait_for_function("document.querySelectorAll('.filtered').length === 0")
        page.keyboard.type("derma")
        page.wait_for_function("document.querySelectorAll('.filtered').length > 0")
        assert "forest" not in page.eval_on_selector_all(
            "[data-picture]:not(.filtered)", "found => found.map(one => one.dataset.picture)"
        )
        assert faults == []


def test_a_table_opens_sorts_filters_and_downloads_all_digits(browser, path, runs):
    table = read_material(runs).measured[0].levels["dataset"].gd_intervals
    with opened(browser, path) as (page, faults):
        details = show(page, "interference").locator("details.table")
        details.locator("summary").focus()
        page.keyboard.press("Enter")
        rows = details.locator("tbody tr")
        rows.first.wait_for()
        assert rows.count() == 2 * len(table)
        details.get_by_role("button", name="value", exact=True).click()
        assert details.locator("th[data-column='value']").get_attribute("aria-sort") == "ascending"
        first = rows.first.locator("td").nth(5)
        # the table holds GM too, which is never negative
        assert first.get_attribute("title") == repr(float(min(table["value"])))
        details.get_by_role("searchbox").fill("derma")
        assert 0 < rows.count() < 2 * len(table)
        with page.expect_download() as download:
            details.get_by_role("button", name="Download CSV").click()
        text = download.value.path().read_text(encoding="utf-8")
        assert text.startswith("run,level,measure,row,column,value")
        expected = table[table["row"] == "derma"]["value"]
        assert {repr(float(value)) for value in expected} - {"1.0"} <= {
            line.split(",")[5] for line in text.splitlines()
        }
        assert all("derma" in line for line in text.splitlines()[1:])
        assert faults == []


def test_the_keyboard_reaches_the_skip_link_and_the_pickers(browser, path):
    with opened(browser, path) as (page, _):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.picker ?? ''"):
                break
        select = "document.activeElement"
        before = page.evaluate(f"{select}.value")
        outline = page.evaluate(f"getComputedStyle({select}).outlineStyle")
        page.keyboard.press("ArrowDown")
        assert page.evaluate(f"{select}.value") != before
        assert outline != "none"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_only_downwards(browser, path, tmp_path, scheme):
    with opened(browser, path, width=360, height=740, scheme=scheme) as (page, faults):
        for name in names_of(page):
            picture = show(page, name)
            picture.locator("details.table").evaluate("one => { one.open = true; }")
        page.eval_on_selector_all("details", "found => found.forEach(one => { one.open = true; })")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        keep(page, f"phone-{scheme}-interference", tmp_path, show(page, "interference"))
        page.evaluate("scrollTo(0, 0)")
        keep(page, f"phone-{scheme}", tmp_path)
        assert faults == []


def test_dark_mode_recolours_page_and_plots(browser, path, tmp_path):
    ink = "document.querySelector(\"[data-picture='interference'] .plot\")._fullLayout.font.color"
    background = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, path) as (page, faults):
        show(page, "interference")
        light = page.evaluate(ink), page.evaluate(background)
        page.emulate_media(color_scheme="dark")
        page.wait_for_function(f"{ink} !== '{light[0]}'")
        dark = page.evaluate(ink), page.evaluate(background)
        assert light[1] != dark[1]
        keep(page, "dark-interference", tmp_path, page.locator("[data-picture='interference']"))
        page.locator("#theme").click()
        assert (page.evaluate(ink), page.evaluate(background)) == light
        assert page.locator("#theme").get_attribute("aria-pressed") == "false"
        assert faults == []


def test_print_shows_every_picture_on_white(browser, path):
    with opened(browser, path, scheme="dark") as (page, faults):
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.wait_for_function(
            "[...document.querySelectorAll('[data-picture] .plot')].every(one => one._fullLayout !== undefined)"
        )
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        widths = "[...document.querySelectorAll('[data-picture] .plot')].map(one => one._fullLayout.width)"
        # a sheet of A4 is 794 pixels wide, its margins included
        assert max(page.evaluate(widths)) <= 620
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert max(page.evaluate(widths)) > 620
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert faults == []


def test_hostile_names_do_nothing_and_are_read_as_they_are(browser, tmp_path):
    names = {"<img src=x onerror=window.hit=1>": "VQA", "<b>bold</b>&lt;": "REC", "<a href='javascript:1'>x</a>": "CLS"}
    run = made_runs.gradients(tmp_path / "run", tasks=names)
    page_path = report([run], tmp_path / "report.html")
    with opened(browser, page_path) as (page, faults):
        for name in names_of(page):
            picture = show(page, name)
            picture.locator("details.table").evaluate("one => { one.open = true; }")
        page.wait_for_timeout(300)
        assert page.evaluate("window.hit") is None
        assert page.locator("img, .plot a").count() == 0
        shown = page.eval_on_selector_all(
            "[data-picture='interference'] .ytick text", "found => found.map(one => one.textContent)"
        )
        assert "■ <b>bold</b>&lt;" in [text.replace(" †", "") for text in shown]
        assert faults == []
