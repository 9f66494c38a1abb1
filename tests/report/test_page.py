"""The report: what the page says, that nothing gets out of its place, and how it behaves in a browser."""

import json
import re
import shlex
import shutil
from html.parser import HTMLParser

import pytest
from helpers.results import STRENGTHS, SWEEPS, grid_of_methods, synthetic

from l2jax import cli
from l2jax.config import SweepConfig
from l2jax.report import page as report
from l2jax.report import reproduce as repeat
from l2jax.results.results import Results
from l2jax.results.verdict import verdict

NASTY = "</script><script>document.title = 'out'</script><img src=x onerror=alert(1)>\"'&"


class Page(HTMLParser):
    """Tags, text, and rows of cells, as a browser would take them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.rows, self.scripts, self.inside = [], [], [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = dict(attrs).get("id", "code") if tag == "script" else tag
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside in ("plotly", "charts", "code", "style"):
            self.scripts[self.inside] = data
            return
        self.words.append(data)
        if self.inside == "td" or (self.inside == "button" and self.rows):
            self.rows[-1].append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def config_of(config: SweepConfig) -> dict:
    return {
        "sweep": json.loads(json.dumps(config.__dict__)),
        "device": "cpu",
        "num_devices": 2,
        "versions": {"jax": "9"},
    }


@pytest.mark.parametrize("name", SWEEPS)
def test_every_shape_of_sweep_has_a_page(name):
    page = Page(report.render({name: SWEEPS[name]}))
    assert not re.search(r"\b(nan|undefined)\b", page.text)
    drawn = json.loads(page.scripts["charts"])
    assert page.tags.count("figure") == len(drawn) >= 9


def test_the_page_says_what_was_done_and_what_came_out():
    config = SweepConfig(l2=STRENGTHS, seeds=3, epochs=20)
    results = Results(synthetic().data, config_of(config) | {"seconds": {"training": 60.4, "compiling": 9.0}})
    text = Page(report.render({"runs/1": results})).text
    done = "24 networks (8 L2 strengths x 3 seeds), trained for 20 epochs on mnist_small, 400 training examples each"
    assert f"{done}, in 69 s on 2 CPU devices." in text
    for finding in verdict(results)[1:]:
        assert str(finding) in text.replace(" : ", ": ").replace(":  ", ": ")
    assert "jax 9" in text and f"{results.settings_table()['val_loss'][0.01]:.4f}" in text


def test_the_table_has_a_row_a_strength():
    results = synthetic(diverged=[(0.1, 1, 4)])
    heading, *rows = Page(report.render({"run": results})).rows[:9]
    assert heading[:4] == ["L2 strength", "validation loss", "change [95% interval]", "p (Holm)"]
    assert heading[-1] == "diverged" and [row[0] for row in rows] == [f"{l2:.3g}" for l2 in STRENGTHS]
    assert rows[5][1].startswith(f"{results.settings_table()['val_loss'][0.01]:.4f} ± ")
    assert rows[-1][-1] == "1"


def test_runs_are_compared_in_one_table():
    runs = {"a": synthetic(diverged=[(0.1, 1, 4)]), "b": synthetic((0.0, 0.01))}
    page = Page(report.render(runs))
    heading, *rows = page.rows[:11]
    assert heading[:2] == ["run", "L2 strength"] and "diverged" in heading
    assert [row[0] for row in rows] == ["a"] * 8 + ["b"] * 2
    assert "2 runs compared" in page.text and page.tags.count("article") == 2


def test_names_stay_text_wherever_they_come_from():
    hostile = {"sweep": {"dataset": NASTY, NASTY: NASTY}, "model": NASTY, NASTY: NASTY, "versions": {NASTY: NASTY}}
    plain, results = synthetic(), Results(synthetic().data, hostile)
    harmless = Page(report.render({"a": plain, "b": plain}))
    page = Page(report.render({NASTY: results, "b": results}))
    assert set(page.tags) == set(harmless.tags) and page.tags.count("script") == 3
    assert page.text.count(NASTY) > 5
    assert NASTY not in page.scripts["charts"] and "&lt;/script&gt;" in json.dumps(json.loads(page.scripts["charts"]))


def test_the_page_asks_for_nothing():
    page = report.render({"run": synthetic()})
    own = page[: page.index('<script type="text/plain"')]
    assert not re.search(r"(src|href)\s*=|https?:|url\(|@import", own)
    assert "default-src 'none'" in own


@pytest.mark.parametrize(
    "config",
    [
        SweepConfig(),
        SweepConfig(
            l2=(0, 1e-5, 0.123456789), seeds=7, train_size=None, bfloat16=True, trials_at_once=2, dataset="a b'c"
        ),
    ],
)
def test_the_command_repeats_the_run(config):
    python, script, *words = shlex.split(repeat.command(config_of(config)["sweep"]))
    assert (python, script) == ("python", "run_sweep.py")
    assert cli.parse(words).sweep == config


def test_other_hyperparameters_are_mapped_and_compared():
    text = Page(report.render({"run": grid_of_methods()})).text
    assert "Validation loss by learning rate and strength" in text and "decoupled weight decay" in text
    assert "at the best of the other hyperparameters: learning rate 0.01, weight decay 0.1." in text


def test_a_network_of_ones_own_is_told():
    note = "The command trains the network that comes with l2jax; this run had its own, Net."
    assert note in Page(report.render({"run": Results(synthetic().data, {"model": "Net"})})).text
    assert "this run had its own" not in Page(report.render({"run": Results(synthetic().data, {"model": "cnn"})})).text


def test_the_file_appears_whole(tmp_path):
    report.write_report({"run": synthetic()}, tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    content = (tmp_path / "report.html").read_text()
    assert content.endswith("</html>\n") and len(content) < 2.5e6


# In a browser

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
    report.write_report(runs, path)
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
    """The id of a picture."""
    return browser.execute_script(
        "return [...document.querySelectorAll('article')][arguments[0]].querySelectorAll('figure').values()"
        ".find((figure) => figure.querySelector('h4').textContent === arguments[1]).querySelector('.chart').id",
        run,
        title,
    )


def switch(browser, which):
    browser.find_element("css selector", f"fieldset[data-run='0'] button[value='{which}']").click()


@pytest.mark.browser
def test_every_picture_is_drawn(opened):
    sizes = opened.execute_script(
        "return [...document.querySelectorAll('.chart')].map((chart) => {"
        " const plot = chart.querySelector('.main-svg').getBoundingClientRect();"
        " return [plot.width, plot.height, chart.querySelectorAll('.trace').length]})"
    )
    assert len(sizes) == 22 and all(width > 100 and height > 100 and traces for width, height, traces in sizes)


@pytest.mark.browser
def test_hovering_tells_strength_seed_epoch_and_value(opened):
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
    told = opened.execute_script("return document.querySelector('.hoverlayer .hovertext').textContent")
    assert "l2 = 0.1, seed 2" in told and f"epoch 10: {value:.4f}" in told
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
    shown = opened.execute_script(
        "return document.getElementById(arguments[0]).data.filter((t) => t.visible !== false).map((t) => t.meta)", chart
    )
    assert set(shown) == {0, 1, 2, 4, 5, 6, 7}
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
def test_schemes_and_widths(opened, scheme, darker, width):
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
