"""The page in a real browser: nothing leaves, nothing is cut off, everybody can read and use it.

Needs Chromium and its driver (on Debian: apt install chromium chromium-driver). With AXE_PATH naming axe.min.js of the
npm package axe-core, the page is also held to its rules.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up
import pytest
from made_up import CLAIMS, REPORTS

from repro import folders, registry
from repro.report import page, summary

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no browser here: on Debian and Ubuntu, apt install chromium chromium-driver",
)

CONTRAST = """
const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const background = (e) => {
  for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c.slice(0, 3);
  }
  return [255, 255, 255];
};
const bad = [], seen = new Set();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let texts = 0;
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || e.closest("script, style")) continue;
  texts += 1;
  const style = getComputedStyle(e), inside = e.closest("svg");
  const ink = parse(inside && e.tagName === "text" ? style.fill : style.color).slice(0, 3), paper = background(e);
  const key = `${ink} on ${paper}`;
  if (seen.has(key)) continue;
  seen.add(key);
  const [a, b] = [luminance(ink), luminance(paper)].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(`${key}: ${walker.currentNode.textContent.trim().slice(0, 40)}`);
}
return [texts, bad];
"""

CLIPPED = """
const bad = [];
for (const e of document.querySelectorAll("body *")) {
  const box = e.getBoundingClientRect();
  if (!box.width || e.closest(".scroll, .skip, svg, thead")) continue;
  if (box.right > innerWidth + 1 || box.left < -1) bad.push(`${e.tagName} ${e.className} ${box.left}..${box.right}`);
}
for (const e of document.querySelectorAll("svg text")) {
  const box = e.getBoundingClientRect(), figure = e.closest("svg").getBoundingClientRect();
  const past = [box.right - figure.right, figure.left - box.left, box.bottom - figure.bottom, figure.top - box.top];
  if (Math.max(...past) > 2)
    bad.push(`cut off in a figure: ${e.textContent}`);
}
for (const e of document.querySelectorAll("figure svg path")) {
  const box = e.getBoundingClientRect(), figure = e.closest("svg").getBoundingClientRect();
  if (e.closest("defs") || e.closest("[clip-path]")) continue;
  const past = [box.right - figure.right, figure.left - box.left, box.bottom - figure.bottom, figure.top - box.top];
  if (Math.max(...past) > 2) bad.push(`a line leaves its figure: ${e.getAttribute("d")}`);
}
return [document.documentElement.scrollWidth, innerWidth, bad];
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the whole registry, with two measured conditions of relu-speedup."""
    root = tmp_path_factory.mktemp("store")
    found = registry.load_registry(CLAIMS)
    times = {"relu": [6.0, 6.1, 5.9, 6.0, 6.05], "tanh": [36.0, 37.0, 35.0, 36.5, 36.0]}
    for name in ("cifar10", "cifar10-modern-18pct"):
        made_up.condition(root, found["relu-speedup"], name, times)
    (root / "page.html").write_text(page.render(summary.summarise(found, root), root), encoding="utf-8")
    return root / "page.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions",
                           {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0})  # fmt: skip
    yield driver
    driver.quit()


def opened(browser: Any, path: Path, *, width: int = 1280, dark: bool = False, scripts: bool = True) -> Any:
    """Show the page in a window of this width, with the reader's preferences."""
    send = browser.execute_cdp_cmd
    send("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    shape = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    send("Emulation.setDeviceMetricsOverride", shape)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    send("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(path.as_uri())
    return browser


def test_nothing_leaves_and_nothing_complains(browser: Any, path: Path) -> None:
    """With the network cut the page opens without an error; the file itself is all that is asked for."""
    import json

    browser.get_log("performance"), browser.get_log("browser")
    opened(browser, path)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert browser.get_log("browser") == []


def test_every_claim_is_there(browser: Any, path: Path) -> None:
    """A row and a part for every claim of the registry."""
    opened(browser, path)
    ids = {file.stem for file in folders.claim_files(CLAIMS)}
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.dataset.id || e.id)"
    assert set(browser.execute_script(script, "#overview tbody tr")) == ids
    assert ids <= set(browser.execute_script(script, "article h3"))


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_cut_off(browser: Any, path: Path, width: int, committed: bool) -> None:
    """Neither on a phone nor on a desk does text leave the window or a figure, or the page scroll sideways."""
    opened(browser, REPORTS / "index.html" if committed else path, width=width)
    for unfold in (False, True):
        if unfold:
            browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
        scroll, inner, bad = browser.execute_script(CLIPPED)
        assert bad == []
        assert scroll <= inner == width
    counts = browser.find_element("css selector", ".counts-table")
    assert counts.size["width"] <= browser.execute_script("return arguments[0].parentElement.clientWidth", counts)


HIDDEN = """
const shown = (e) => e.checkVisibility({ contentVisibilityAuto: true }) && e.getBoundingClientRect().height > 0;
return [...document.querySelectorAll("article")].filter((a) => !shown(a.querySelector("blockquote")))
  .map((a) => a.querySelector("h3").id);
"""


ON_PAPER = """
const shown = (e) => e.checkVisibility({ contentVisibilityAuto: true }) && e.getBoundingClientRect().height > 0;
const parts = document.querySelectorAll("article[aria-labelledby=relu-speedup] details");
return Object.fromEntries([...parts].map(
  (d) => [d.querySelector("summary").textContent.split(" (")[0], shown(d.lastElementChild)]));
"""


def folded(browser: Any, wanted: set[str]) -> set[str]:
    """The claims whose text is not shown: `wanted` as soon as they are, else those after 20 seconds.

    A browser shows what was opened with one of the next frames, and a loaded machine draws few of them.
    """
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.support.wait import WebDriverWait

    def read(browser: Any) -> set[str]:
        return set(browser.execute_script(HIDDEN))

    with contextlib.suppress(TimeoutException):
        WebDriverWait(browser, 20).until(lambda b: read(b) == wanted)
    return read(browser)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_untested_claims_are_folded_and_open(browser: Any, path: Path, scripts: bool) -> None:
    """All that nothing was tested of, and no other: a click on its first line opens one. Paper shows what was opened.

    Unfolded, the untested ones would be most of the pages; of a tested claim, paper has all but its tables of trials.
    """
    ids = {file.stem for file in folders.claim_files(CLAIMS)}
    untested = ids - {"relu-speedup"}
    opened(browser, path, scripts=scripts)
    assert folded(browser, untested) == untested
    browser.find_element("css selector", "article[aria-labelledby=lrn-error] summary").click()
    assert folded(browser, untested - {"lrn-error"}) == untested - {"lrn-error"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert folded(browser, untested - {"lrn-error"}) == untested - {"lrn-error"}
    shown = browser.execute_script(ON_PAPER)
    assert {"Known differences from the paper", "Every trial of cifar10"} <= set(shown)
    assert shown["Known differences from the paper"]
    assert not shown["Every trial of cifar10"]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_link_unfolds_its_claim(browser: Any, path: Path) -> None:
    """From the table, and from outside; a button opens the rest and closes all."""
    from selenium.webdriver.support.expected_conditions import text_to_be_present_in_element
    from selenium.webdriver.support.wait import WebDriverWait

    every = {file.stem for file in folders.claim_files(CLAIMS)} - {"relu-speedup"}
    opened(browser, path)
    link = browser.find_element("css selector", "#overview a[href='#lrn-error']")
    browser.execute_script("arguments[0].click()", link)
    assert folded(browser, every - {"lrn-error"}) == every - {"lrn-error"}
    top = "return document.getElementById(arguments[0]).getBoundingClientRect().top"
    assert 0 <= browser.execute_script(top, "lrn-error") < 100
    browser.get(f"{path.as_uri()}#parameters")
    browser.refresh()
    assert folded(browser, every - {"parameters"}) == every - {"parameters"}
    button = browser.find_element("css selector", "#folds button")
    for told, left in (("Close all", set[str]()), ("Open all", every)):
        browser.execute_script("arguments[0].click()", button)
        assert folded(browser, left) == left
        WebDriverWait(browser, 20).until(text_to_be_present_in_element(("css selector", "#folds button"), told))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_has_contrast(browser: Any, path: Path, dark: bool) -> None:
    """Every text stands out from what is behind it by 4.5 to 1 (WCAG AA), by day and by night."""
    texts, bad = opened(browser, path, dark=dark).execute_script(CONTRAST)
    assert texts > 1000
    assert bad == []


def test_filter_and_sort(browser: Any, path: Path) -> None:
    """Rows can be found by text and outcome, sorted and put back; every state says how many are shown."""
    from selenium.webdriver.support.select import Select

    opened(browser, path)
    shown = "[...document.querySelectorAll('#overview tbody tr')].filter((r) => !r.hidden)"
    rows = f"return {shown}.map((r) => r.dataset.id)"
    count = "return document.getElementById('filter-count').textContent"
    all_rows = browser.execute_script(rows)
    box = browser.find_element("id", "filter-text")
    box.send_keys("relu-speedup")
    assert browser.execute_script(rows) == ["relu-speedup"]
    assert browser.execute_script(count) == f"1 of {len(all_rows)} claims shown"
    box.clear()
    box.send_keys(" ")  # a blank finds everything again
    outcome = Select(browser.find_element("id", "filter-outcome"))
    outcome.select_by_value("REPRODUCED")
    assert browser.execute_script(rows) == ["relu-speedup"]
    outcome.select_by_value("")
    assert browser.execute_script(rows) == all_rows
    assert all_rows[0] == "relu-speedup"  # what was tested comes first
    button = browser.find_element("css selector", "th[data-sort=place] button")
    button.send_keys("\ue007")  # the Enter key: no mouse is needed
    assert browser.execute_script(rows) == list(registry.load_registry(CLAIMS))  # the paper's order
    button.click()
    assert browser.execute_script(rows) == list(registry.load_registry(CLAIMS))[::-1]
    button.click()
    assert browser.execute_script(rows) == all_rows


def test_without_scripts_nothing_is_missing(browser: Any, path: Path) -> None:
    """With scripts off every row stands, and there is no control that does nothing."""
    opened(browser, path, scripts=False)
    rows = browser.find_elements("css selector", "#overview tbody tr")
    assert len(rows) == len(folders.claim_files(CLAIMS))
    assert all(row.is_displayed() for row in rows[:5])
    assert not browser.find_element("id", "tools").is_displayed()
    assert browser.find_elements("tag name", "button") == []


def test_axe_finds_nothing_serious(browser: Any, path: Path) -> None:
    """axe-core's rules for accessibility hold, by day and by night, wide and narrow."""
    axe = os.environ.get("AXE_PATH")
    if not axe:
        pytest.skip("set AXE_PATH to axe.min.js of the npm package axe-core to check the page by its rules")
    for width, dark in ((1280, False), (1280, True), (360, False)):
        opened(browser, path, width=width, dark=dark)
        browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
        browser.get(path.as_uri())
        browser.execute_script(Path(axe).read_text(encoding="utf-8"))
        kept = "r.violations.map((v) => [v.impact, v.id, v.nodes.length, v.nodes[0].html])"
        browser.set_script_timeout(120)
        found = browser.execute_async_script(f"axe.run().then((r) => arguments[0]({kept}))")
        assert [v for v in found if v[0] in ("serious", "critical")] == []
