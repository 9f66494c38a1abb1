"""The page in a browser: charts, switches, sorted tables, colour schemes, print, and no request."""

import json
import shutil

import pytest
from helpers.pages import NASTY
from helpers.results import synthetic

from l2jax.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
QUIET = "disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (CHROMIUM and DRIVER):
        pytest.skip("no Chromium with its chromedriver is installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    folder = tmp_path_factory.mktemp("chromium")
    for word in ("headless", "no-sandbox", *QUIET.split(), f"user-data-dir={folder}", "window-size=1200,900"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    """The page of two runs, one with a name that tries to get out; what a test changes, it puts back."""
    runs = {"first": synthetic(seeds=5, noise=0.1, diverged=[(1e-4, 1, 4)]), NASTY: synthetic((0.0, 0.01))}
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(runs, path)
    browser.get(path.as_uri())
    wait(browser, "return document.documentElement.dataset.drawn === 'yes'")
    yield browser
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    requests = [each["request"]["url"] for each in sent if each["documentURL"] == path.as_uri()]  # not the empty tab's
    assert [url for url in requests if not url.startswith(("blob:", "data:"))] == [path.as_uri()]
    assert browser.title != "out"


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(condition))


def chart_of(browser, run, title):
    """The id of a chart."""
    return browser.execute_script(
        "return [...document.querySelectorAll('article')][arguments[0]].querySelectorAll('figure').values()"
        ".find((figure) => figure.querySelector('h4').textContent === arguments[1]).querySelector('.chart').id",
        run,
        title,
    )


def switch(browser, which):
    browser.find_element("css selector", f"fieldset[data-run='0'] button[value='{which}']").click()


@pytest.mark.browser
def test_every_chart_is_drawn(opened):
    sizes = opened.execute_script(
        "return [...document.querySelectorAll('.chart')].map((chart) => {"
        " const plot = chart.querySelector('.main-svg').getBoundingClientRect();"
        " return [plot.width, plot.height, chart.querySelectorAll('.trace').length]})"
    )
    assert len(sizes) == 22 and all(width > 100 and height > 100 and traces for width, height, traces in sizes)


@pytest.mark.browser
def test_hovering_shows_strength_seed_epoch_and_value(opened):
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    chart = chart_of(opened, 0, "Training loss")
    switch(opened, "none")
    opened.find_element("css selector", "fieldset[data-run='0'] input[value='7']").click()
    x, y, value = opened.execute_script(
        "const chart = document.getElementById(arguments[0]); chart.scrollIntoView({block: 'center'});"
        "const {xaxis, yaxis} = chart._fullLayout, box = chart.getBoundingClientRect();"
        "const trace = chart.data.find((trace) => trace.hovertemplate.includes('l2 = 0.1, seed 2'));"
        "return [box.left + xaxis._offset + xaxis.d2p(trace.x[9]), box.top + yaxis._offset + yaxis.d2p(trace.y[9]),"
        " trace.y[9]]",
        chart,
    )
    for nearby in (5, 0):
        mouse = ActionBuilder(opened)
        mouse.pointer_action.move_to_location(round(x) + nearby, round(y))
        mouse.perform()
    wait(opened, "return document.querySelector('.hoverlayer .hovertext') !== null")
    text = opened.execute_script("return document.querySelector('.hoverlayer .hovertext').textContent")
    assert "l2 = 0.1, seed 2" in text and f"epoch 10: {value:.4f}" in text
    switch(opened, "all")


@pytest.mark.browser
def test_strengths_are_switched_on_and_off(opened):
    chart = chart_of(opened, 0, "Validation loss")
    other = chart_of(opened, 1, "Validation loss")

    def lines(of):
        return opened.execute_script(
            "return document.getElementById(arguments[0]).querySelectorAll('.trace').length", of
        )

    everything, of_other = lines(chart), lines(other)
    assert everything == 8 * 6
    box = opened.find_element("css selector", "fieldset[data-run='0'] input[value='3']")
    box.click()
    assert lines(chart) == everything - 6 and lines(other) == of_other
    visible = opened.execute_script(
        "return document.getElementById(arguments[0]).data.filter((t) => t.visible !== false).map((t) => t.meta)", chart
    )
    assert set(visible) == {0, 1, 2, 4, 5, 6, 7}
    switch(opened, "none")
    assert lines(chart) == 0 and lines(chart_of(opened, 0, "Validation accuracy")) == 0
    switch(opened, "all")
    assert lines(chart) == everything and box.is_selected()


@pytest.mark.browser
def test_tables_are_sorted(opened):
    def column(index):
        cells = opened.find_elements("css selector", f"article table td:nth-child({index})")
        return [cell.text for cell in cells][:8]

    losses = [float(text.split()[0]) for text in column(2)]
    heading = opened.find_element("css selector", "article table th:nth-child(2) button")
    heading.click()
    assert [float(text.split()[0]) for text in column(2)] == sorted(losses)
    heading.click()
    assert [float(text.split()[0]) for text in column(2)] == sorted(losses, reverse=True)
    assert (
        opened.find_element("css selector", "article table th:nth-child(2)").get_attribute("aria-sort") == "descending"
    )
    opened.find_element("css selector", "article table th:nth-child(4) button").click()
    assert column(1)[-1] == "0"  # it has no change against itself: what is empty comes last


@pytest.mark.browser
@pytest.mark.parametrize(
    ("width", "scheme", "darker"),
    [
        (390, "light", False),
        (1200, "dark", True),
        pytest.param(390, "dark", True, marks=pytest.mark.slow),
        pytest.param(1200, "light", False, marks=pytest.mark.slow),
    ],
)
def test_both_schemes_fit_narrow_and_wide_windows(opened, scheme, darker, width):
    try:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wait(opened, f"return document.querySelector('.chart svg').getBoundingClientRect().width <= {width}")
        back, text, plot = opened.execute_script(
            "const brightness = (colour) => colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + +part, 0);"
            "const of = (selector, name) => brightness(getComputedStyle(document.querySelector(selector))[name]);"
            "return [of('body', 'backgroundColor'), of('body', 'color'), of('.chart .main-svg', 'backgroundColor')]"
        )
        assert (back < text) == darker and (plot < 382) == darker
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.browser
def test_it_prints_in_light_colours_within_the_paper(opened):
    opened.execute_script(
        "addEventListener('beforeprint', () => { window.printed = [...document.querySelectorAll('.chart')].map("
        "(chart) => [chart.layout.width, chart.layout.paper_bgcolor]) })"
    )
    assert opened.execute_cdp_cmd("Page.printToPDF", {})["data"]
    printed = opened.execute_script("return window.printed")
    assert len(printed) == 22 and all(width == 330 and back == "#ffffff" for width, back in printed)
