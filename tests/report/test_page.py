"""The page: what it says, and that no text gets out of its place."""

import json
import re
import subprocess
import sys

import pytest
from helpers.pages import NASTY, Page
from helpers.results import STRENGTHS, SWEEPS, grid_of_methods, synthetic

from l2jax.config import SweepConfig
from l2jax.report.page import render, write_report
from l2jax.results.results import Results
from l2jax.results.verdict import verdict


def config_of(config: SweepConfig) -> dict:
    return {
        "sweep": json.loads(json.dumps(config.__dict__)),
        "device": "cpu",
        "num_devices": 2,
        "versions": {"jax": "9"},
    }


@pytest.mark.parametrize("name", SWEEPS)
def test_every_shape_of_sweep_has_a_page(name):
    page = Page(render({name: SWEEPS[name]}))
    assert not re.search(r"\b(nan|undefined)\b", page.text)
    drawn = json.loads(page.scripts["charts"])
    assert page.tags.count("figure") == len(drawn) >= 9


def test_the_page_says_what_was_done_and_what_came_out():
    config = SweepConfig(l2=STRENGTHS, seeds=3, epochs=20)
    results = Results(synthetic().data, config_of(config) | {"seconds": {"training": 60.4, "compiling": 9.0}})
    text = Page(render({"runs/1": results})).text
    done = "24 networks (8 L2 strengths x 3 seeds), trained for 20 epochs on mnist_small, 400 training examples each"
    assert f"{done}, in 69 s on 2 CPU devices." in text
    for finding in verdict(results)[1:]:
        assert str(finding) in text.replace(" : ", ": ").replace(":  ", ": ")
    assert "jax 9" in text and f"{results.settings_table()['val_loss'][0.01]:.4f}" in text


def test_runs_are_compared_in_one_table():
    runs = {"a": synthetic(diverged=[(0.1, 1, 4)]), "b": synthetic((0.0, 0.01))}
    page = Page(render(runs))
    heading, *rows = page.rows[:11]
    assert heading[:2] == ["run", "L2 strength"] and "diverged" in heading
    assert [row[0] for row in rows] == ["a"] * 8 + ["b"] * 2
    assert "2 runs compared" in page.text and page.tags.count("article") == 2


def test_names_stay_text_wherever_they_come_from():
    hostile = {"sweep": {"dataset": NASTY, NASTY: NASTY}, "model": NASTY, NASTY: NASTY, "versions": {NASTY: NASTY}}
    plain, results = synthetic(), Results(synthetic().data, hostile)
    harmless = Page(render({"a": plain, "b": plain}))
    page = Page(render({NASTY: results, "b": results}))
    assert set(page.tags) == set(harmless.tags) and page.tags.count("script") == 3
    assert page.text.count(NASTY) > 5
    assert NASTY not in page.scripts["charts"] and "&lt;/script&gt;" in json.dumps(json.loads(page.scripts["charts"]))


def test_the_page_requests_nothing():
    page = render({"run": synthetic()})
    own = page[: page.index('<script type="text/plain"')]
    assert not re.search(r"(src|href)\s*=|https?:|url\(|@import", own)
    assert "default-src 'none'" in own


def test_other_hyperparameters_are_mapped_and_compared():
    text = Page(render({"run": grid_of_methods()})).text
    assert "Validation loss by learning rate and strength" in text and "decoupled weight decay" in text
    assert "at the best of the other hyperparameters: learning rate 0.01, decoupled weight decay 0.1." in text


def test_the_page_mentions_a_network_of_ones_own():
    note = "The command trains the network that comes with l2jax; this run had its own, Net."
    assert note in Page(render({"run": Results(synthetic().data, {"model": "Net"})})).text
    assert "this run had its own" not in Page(render({"run": Results(synthetic().data, {"model": "cnn"})})).text


def test_the_file_appears_whole(tmp_path):
    write_report({"run": synthetic()}, tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    content = (tmp_path / "report.html").read_text()
    assert content.endswith("</html>\n") and len(content) < 2.5e6


def test_the_answer_and_the_labels_of_findings_stand_out():
    results = synthetic()
    page, (answer, *others) = render({"run": results}), verdict(results)
    assert f'<p class="lead">{answer.lead.removesuffix(".")}</p><p>{answer.details}</p>' in page
    for label, lead, details in others:
        assert f"<p><strong>{label}:</strong> {f'{lead} {details}'.rstrip()}</p>" in page


def test_a_comparison_shows_warning_and_answer_of_each_run():
    warned = Results(synthetic().data, {"sweep": {"val_size": "test"}})
    text = Page(render({"a": synthetic(), "b": warned})).text
    (answer, *_), (warning, warned_answer, *_) = verdict(synthetic()), verdict(warned)
    assert f"a : {answer}" in text and f"b : {warning} {warned_answer}" in text


def test_plot_and_report_load_without_jax():
    command = "import sys, l2jax.plot, l2jax.report; print('jax' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", command], text=True) == "False\n"
