"""Interactive pictures: numbers against the results, and figures that Plotly's own schema accepts."""

import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from helpers.results import STRENGTHS, SWEEPS, grid_of_methods, synthetic
from scipy import stats as scipy_stats

from l2jax import stats
from l2jax.report import charts, marks
from l2jax.results.results import Results


def in_scheme(value, scheme):
    if isinstance(value, dict):
        return {key: in_scheme(item, scheme) for key, item in value.items()}
    if isinstance(value, list):
        return [in_scheme(item, scheme) for item in value]
    return value.split("|")[scheme] if isinstance(value, str) and re.fullmatch(r"#\w{6}\|#\w{6}", value) else value


@pytest.mark.parametrize("name", SWEEPS)
def test_plotly_accepts_every_figure_in_both_schemes(name):
    results = SWEEPS[name]
    pictures = [*charts.over_strengths(results), *charts.over_epochs(results), *charts.compared_runs({"a": results})]
    assert len(pictures) >= 11 - (name in ("only 0", "one strength", "all diverged"))
    for title, reading, figure in pictures:
        assert title and reading.endswith(".")
        text = json.dumps(figure, allow_nan=False)
        for scheme in (0, 1):
            go.Figure(in_scheme(json.loads(text), scheme))  # raises for what is no property, or no value of it


def figures(results: Results) -> dict[str, list[dict]]:
    pictures = [*charts.over_strengths(results), *charts.over_epochs(results)]
    return {picture.title: picture.figure["data"] for picture in pictures}


def close(actual, expected):
    np.testing.assert_allclose(np.array(actual, float), expected, rtol=1e-5, atol=1e-9)


def test_means_and_bars_are_those_of_the_table():
    results = synthetic()
    table, drawn = results.settings_table(), figures(results)
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
    (trace,) = figures(results)["Change of validation loss against no L2"]
    table = stats.compare(stats.outcomes(results))
    close(trace["y"], table["mean"])
    close(np.array(trace["y"]) + trace["error_y"]["array"], table["high"])
    filled = [symbol == "circle" for symbol in trace["marker"]["symbol"]]
    assert filled == (table["p_holm"] < 0.05).tolist() and sum(filled) > 0


def test_choices_are_marked():
    results = synthetic(noise=0.04)
    traces = {trace["name"]: trace for trace in figures(results)["Validation loss against strength"] if "name" in trace}
    for rule, l2 in (("lowest mean", results.best()), ("one standard error", results.best(rule="1se"))):
        close(traces[rule]["x"], [np.log10(l2)])
        close(traces[rule]["y"], [results.settings_table()["val_loss"][l2]])


@pytest.mark.parametrize(
    ("title", "metric"), [("Training loss", "train_loss"), ("Validation accuracy", "val_accuracy")]
)
def test_curves_are_every_trial_and_the_mean_of_those_that_finished(title, metric):
    results = synthetic(diverged=[(0.1, 1, 4)])
    for index, l2 in enumerate(STRENGTHS):
        traces = [trace for trace in figures(results)[title] if trace["meta"] == index]
        trials, (mean,) = traces[:-1], traces[-1:]
        curves = results.data[metric].sel(l2=l2).values.astype(np.float64)
        for seed, trial in enumerate(trials):
            close(trial["y"], curves[seed])
            assert f"l2 = {l2:.3g}, seed {seed}" in trial["hovertemplate"]
        finished = curves[[0, 2]] if l2 == 0.1 else curves
        close(mean["y"], finished.mean(0))
        assert f"l2 = {l2:.3g}, mean of {len(finished)}" in mean["hovertemplate"]
    diverged = next(trace for trace in figures(results)[title] if "diverged" in trace["hovertemplate"])
    assert np.flatnonzero(diverged["marker"]["size"]).tolist() == [2]  # a cross at the third epoch, the last


def test_kernel_norms_of_layers_are_drawn_where_they_were_measured():
    results = synthetic()
    assert "Norm of all kernels" in figures(results)
    close(figures(results)["Norm of all kernels"][0]["y"], np.sqrt(results.data["kernel_sum_of_squares"][0, 0]))
    layers = xr.DataArray([1.0, 2.0], dims="layer", coords={"layer": ["conv", "dense"]})
    drawn = figures(Results(results.data.assign(kernel_norm=results.data["kernel_sum_of_squares"] * layers), {}))
    close(drawn["Kernel norm of dense"][0]["y"], 2 * results.data["kernel_sum_of_squares"][0, 0])
    assert "Norm of all kernels" not in drawn


def test_a_large_sweep_is_drawn_in_part():
    drawn = figures(synthetic((0.0, 0.1), seeds=30, epochs=1000))["Validation loss"]
    assert len(drawn) == 2 * (marks.MOST_TRIALS + 1)
    assert {len(trace["x"]) for trace in drawn} == {250}


def test_learning_rates_are_a_map_of_means():
    results = grid_of_methods()
    (picture,) = charts.learning_rates(results)
    (trace,) = picture.figure["data"]
    assert (trace["x"], trace["y"]) == (["0.001", "0.01"], ["0", "0.01"])
    last = results.data["val_loss"].isel(epoch=-1).astype(np.float64).mean("seed").min("weight_decay")
    expected = last.transpose("l2", "learning_rate").values
    assert trace["text"][1][0] == "diverged" and trace["z"][1][0] is None
    expected[1, 0] = np.nan
    close([[np.nan if z is None else 10**z for z in row] for row in trace["z"]], expected)
    go.Figure(in_scheme(picture.figure, 0))
    assert charts.learning_rates(synthetic()) == []


def test_runs_are_compared_on_one_axis():
    runs = {"a <b>": synthetic(), "c": synthetic(STRENGTHS[1:])}
    loss, _ = charts.compared_runs(runs)
    first, second = loss.figure["data"]
    assert (first["name"], second["name"]) == ("a &lt;b&gt;", "c")
    assert first["x"][1:] == second["x"] and first["line"]["dash"] != second["line"]["dash"]
    close(second["y"], runs["c"].settings_table()["val_loss"])


def test_colours_of_strengths_differ_and_stand_out():
    for scheme, back in ((0, 1.0), (1, 0.1)):
        colours = [colour.split("|")[scheme] for colour in marks.strength_colours([0, *np.logspace(-4, -1, 7)])]
        assert len(set(colours)) == 8
        for colour in colours:
            red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
            assert abs(0.2126 * red + 0.7152 * green + 0.0722 * blue - back) > 0.15
