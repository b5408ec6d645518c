"""The report page of a finished study in a real browser, and in Snakemake's own report."""

import subprocess
import sys
import zipfile

import pytest

from tests.browser import MISSING, chromium
from tests.conftest import may_separate

pytestmark = pytest.mark.slow
in_a_browser = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as window:
        yield window


@pytest.fixture(scope="module")
def page(finished):
    return finished.results / "report.html"


@in_a_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_whole_and_asks_for_nothing(browser, page, width, dark):
    browser.open(page, width, dark=dark)
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.console() == []
    browser.press("#recovery .closer summary")
    drawn = "return [...document.querySelectorAll('svg.models, svg.workflow, svg.curves')]"
    sizes = browser.run(drawn + ".map(drawing => [drawing.classList[0], drawing.getBoundingClientRect().height])")
    assert [kind for kind, _ in sizes] == ["models", *["curves"] * 5, "workflow"]  # two DesNets, and closer
    assert all(height > 100 for _, height in sizes)
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(22, 24, 27)") == dark


@in_a_browser
def test_nothing_is_wider_than_a_phone(browser, page):
    browser.open(page, 390)
    assert browser.run("return innerWidth") == 390
    browser.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.run("return document.documentElement.scrollWidth") == 390
    outside = browser.run(
        "return [...document.querySelectorAll('body *')]"
        ".filter(each => !each.closest('.wide > *') && each.getBoundingClientRect().right > 390.5)"
        ".map(each => each.outerHTML.slice(0, 80))"
    )
    assert outside == []
    assert browser.run("return [...document.querySelectorAll('.wide')].some(box => box.scrollWidth > box.clientWidth)")


COLUMN = """
const heading = document.querySelectorAll('#scores table')[0].tHead.rows[0].cells[arguments[0]];
const rows = [...heading.closest('table').tBodies[0].rows];
return [heading.ariaSort, rows.map(row => row.cells[arguments[0]].dataset.value ?? null)];
"""


@in_a_browser
def test_a_press_on_a_heading_sorts_blanks_last(browser, page):
    browser.open(page)
    order, before = browser.run(COLUMN, 2)  # tokens: members have none
    assert order is None and None in before
    known = sorted(float(value) for value in before if value is not None)
    blanks = [None] * before.count(None)
    heading = "#scores table th:nth-child(3) button"
    for direction, values in (("ascending", known), ("descending", known[::-1]), ("ascending", known)):
        browser.press(heading)
        order, after = browser.run(COLUMN, 2)
        assert order == direction
        assert [value if value is None else float(value) for value in after] == values + blanks
    browser.press("#scores table th:nth-child(1) button")
    assert browser.run(COLUMN, 2)[0] is None
    assert (
        browser.run("return document.querySelectorAll('#scores table')[0].tBodies[0].rows[0].cells[0].innerText")
        == "bridge"
    )


@in_a_browser
def test_infinite_numbers_sort_as_such(browser, page):
    browser.open(page)
    shown = "return [...document.querySelectorAll('#recovery tbody tr')].map(row => row.cells[5].dataset.value)"
    browser.run(
        "const [one, other] = document.querySelectorAll('#recovery tbody tr');"
        "one.cells[5].dataset.value = 'Infinity'; other.cells[5].dataset.value = '3';"
        "other.after(...['0', 'Infinity', '12'].map(value => {"
        "  const row = one.cloneNode(true); row.cells[5].dataset.value = value; return row; }))"
    )
    browser.press("#recovery th:nth-child(6) button")
    assert browser.run(shown) == ["0", "3", "12", "Infinity", "Infinity"]


@in_a_browser
def test_tables_are_sorted_and_scrolled_with_the_keyboard(browser, page):
    browser.open(page)
    browser.run("document.querySelector('#scores table th:nth-child(4) button').focus()")
    browser.type("\ue007")  # enter
    order, losses = browser.run(COLUMN, 3)
    assert order == "ascending" and list(map(float, losses)) == sorted(map(float, losses))
    assert browser.run("return [...document.querySelectorAll('.wide')].every(box => box.tabIndex === 0)")


@in_a_browser
def test_pointing_at_a_name_fades_the_other_curves(browser, page):
    browser.open(page)
    faded = "return [...document.querySelectorAll('#recovery .method')].map(way => way.classList.contains('faded'))"
    ways = browser.run("return [...document.querySelectorAll('#recovery .method')].map(way => way.dataset.method)")
    assert sorted(ways) == ["0", "0", "0", "0", "1", "1"] and not any(browser.run(faded))
    browser.press("#recovery .legend button[data-method='1']")
    browser.run("document.activeElement.blur()")
    assert browser.run(faded) == [way != "1" for way in ways]
    browser.press("#recovery .legend button[data-method='1']")
    browser.press("h1")
    assert not any(browser.run(faded))
    assert browser.run("return document.querySelector('#recovery circle title').textContent").endswith(
        "recovery tokens"
    )


@in_a_browser
def test_the_theme_can_be_chosen_and_is_remembered(browser, page):
    background = "return getComputedStyle(document.body).backgroundColor"
    browser.open(page)
    light = browser.run(background)
    for _ in range(2):
        browser.press("#theme")
    assert browser.run(background) != light
    browser.open(page)
    assert browser.run("return document.getElementById('theme').textContent") == "Theme: dark"
    assert browser.run(background) != light
    browser.press("#theme")
    assert browser.run(background) == light


def test_snakemakes_report_holds_the_page_and_needs_no_network(finished, page, tmp_path):
    offline = ["unshare", "--net"] if may_separate("net") else []
    command = [*offline, sys.executable, "-m", "snakemake", "--snakefile", str(finished.home / "Snakefile")]
    command += ["--configfile", "my-study.yaml", "--report", str(tmp_path / "out.zip")]
    result = subprocess.run(command, cwd=finished.home, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(tmp_path / "out.zip") as report:
        names = {name.rpartition("/")[2]: name for name in report.namelist() if "/raw/" in name}
        assert set(names) == {"report.html", "summary.csv", "cost.csv", "summary.txt"}
        assert report.read(names["report.html"]) == page.read_bytes()
        about = report.read("out/report.html").decode()
        assert "models of any size" in about and "every score" in about
        report.extractall(tmp_path)
    if MISSING:
        return
    (tmp_path / "profile").mkdir()
    with chromium(tmp_path / "profile") as window:
        window.open(tmp_path / "out/report.html")
        assert all(address.startswith("file:") for address in window.requests())
        assert [line for line in window.console() if line.startswith("SEVERE")] == []
        window.open(tmp_path / names["report.html"])
        assert window.run("return document.querySelectorAll('svg.curves').length") == 5 and window.console() == []
