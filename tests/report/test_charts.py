"""Charts against strength: numbers against the results, and figures that Plotly's own schema accepts."""

import json

import numpy as np
import plotly.graph_objects as go
import pytest
from helpers.charts import close, in_scheme, traces
from helpers.results import STRENGTHS, SWEEPS, grid_of_methods, synthetic
from scipy import stats as scipy_stats

from l2jax import stats
from l2jax.report.charts import compared_runs, heat_maps, over_strengths
from l2jax.report.curves import over_epochs


@pytest.mark.parametrize("name", SWEEPS)
def test_plotly_accepts_every_chart_in_both_schemes(name):
    results = SWEEPS[name]
    charts = [*over_strengths(results), *over_epochs(results), *compared_runs({"a": results})]
    assert len(charts) >= 11 - (name in ("only 0", "one strength", "all diverged"))
    for title, reading, figure in charts:
        assert title and reading.endswith(".")
        text = json.dumps(figure, allow_nan=False)
        for scheme in (0, 1):
            go.Figure(in_scheme(json.loads(text), scheme))  # raises for what is no property, or no value of it


def test_means_and_bars_are_those_of_the_table():
    results = synthetic()
    table, drawn = results.settings_table(), traces(over_strengths(results))
    means = [trace for trace in drawn["Validation loss against strength"] if "error_y" in trace]
    close([*means[0]["y"], *means[1]["y"]], table["val_loss"])
    close(means[1]["error_y"]["array"], table["val_loss_se"][1:])
    close(means[1]["x"], np.log10(STRENGTHS[1:]))
    assert means[0]["x"][0] < -4.4  # 0 stands left of the weakest other, and no line leads there
    losses = [trace for trace in drawn["Training and validation loss"] if "error_y" in trace]
    assert [trace["name"] for trace in losses] == ["validation", "validation", "training", "training"]
    close(losses[3]["y"], table["train_loss"][1:])
    gap = [trace for trace in drawn["Gap against strength"] if "error_y" in trace]
    last = results.data.isel(epoch=-1).astype(np.float64)
    test = scipy_stats.ttest_1samp(last["val_loss"] - last["train_loss"], 0, axis=1).confidence_interval()
    close(np.array(gap[1]["y"]) + gap[1]["error_y"]["array"], test.high[1:])
    close(np.array(gap[1]["y"]) - gap[1]["error_y"]["arrayminus"], test.low[1:])


def test_the_change_is_filled_where_it_is_clear():
    results = synthetic(seeds=5)
    (trace,) = traces(over_strengths(results))["Change of validation loss against no L2"]
    table = stats.compare(stats.outcomes(results))
    close(trace["y"], table["mean"])
    close(np.array(trace["y"]) + trace["error_y"]["array"], table["high"])
    filled = [symbol == "circle" for symbol in trace["marker"]["symbol"]]
    assert filled == (table["p_holm"] < 0.05).tolist() and sum(filled) > 0


def test_choices_are_marked():
    results = synthetic(noise=0.04)
    (chart, *_) = over_strengths(results)
    by_name = {trace["name"]: trace for trace in chart.figure["data"] if "name" in trace}
    for rule, l2 in (("lowest mean", results.best()), ("one standard error", results.best(rule="1se"))):
        close(by_name[rule]["x"], [np.log10(l2)])
        close(by_name[rule]["y"], [results.settings_table()["val_loss"][l2]])


def test_heat_maps_hold_means():
    results = grid_of_methods()
    chart, other = heat_maps(results)
    assert "weight decay" in other.title and len(other.figure["data"][0]["x"]) == results.data.sizes["weight_decay"]
    (trace,) = chart.figure["data"]
    assert (trace["x"], trace["y"]) == (["0.001", "0.01"], ["0", "0.01"])
    last = results.data["val_loss"].isel(epoch=-1).astype(np.float64).mean("seed").min("weight_decay")
    expected = last.transpose("l2", "learning_rate").values
    assert trace["text"][1][0] == "diverged" and trace["z"][1][0] is None
    expected[1, 0] = np.nan
    close([[np.nan if z is None else 10**z for z in row] for row in trace["z"]], expected)
    go.Figure(in_scheme(chart.figure, 0))
    assert heat_maps(synthetic()) == []


def test_runs_are_compared_on_one_axis():
    runs = {"a <b>": synthetic(), "c": synthetic(STRENGTHS[1:])}
    loss, _ = compared_runs(runs)
    first, second = loss.figure["data"]
    assert (first["name"], second["name"]) == ("a &lt;b&gt;", "c")
    assert first["x"][1:] == second["x"] and first["line"]["dash"] != second["line"]["dash"]
    close(second["y"], runs["c"].settings_table()["val_loss"])
