"""Charts over epochs and at the end: numbers against the results."""

import numpy as np
import pytest
import xarray as xr
from helpers.charts import close, traces
from helpers.magnitudes import with_magnitudes
from helpers.results import STRENGTHS, synthetic

from l2jax.report.curves import MOST_EPOCHS, kernel_magnitudes, over_epochs
from l2jax.report.traces import MOST_TRIALS
from l2jax.results import words
from l2jax.results.results import Results


@pytest.mark.parametrize(
    ("title", "metric"), [("Training loss", "train_loss"), ("Validation accuracy", "val_accuracy")]
)
def test_curves_are_all_trials_and_the_mean_of_finished_ones(title, metric):
    results = synthetic(diverged=[(0.1, 1, 4)])
    for index, l2 in enumerate(STRENGTHS):
        drawn = [trace for trace in traces(over_epochs(results))[title] if trace["meta"] == index]
        trials, (mean,) = drawn[:-1], drawn[-1:]
        curves = results.data[metric].sel(l2=l2).values.astype(np.float64)
        for seed, trial in enumerate(trials):
            close(trial["y"], curves[seed])
            assert f"{words.strength(l2)}, seed {seed}" in trial["hovertemplate"]
        finished = curves[[0, 2]] if l2 == 0.1 else curves
        close(mean["y"], finished.mean(0))
        assert f"{words.strength(l2)}, mean of {len(finished)}" in mean["hovertemplate"]
    diverged = next(trace for trace in traces(over_epochs(results))[title] if "diverged" in trace["hovertemplate"])
    assert np.flatnonzero(diverged["marker"]["size"]).tolist() == [2]  # a cross at the third epoch, the last


def test_kernel_norms_are_drawn_by_layer_if_measured():
    results = synthetic()
    assert "Norm of all kernels" in traces(over_epochs(results))
    close(
        traces(over_epochs(results))["Norm of all kernels"][0]["y"],
        np.sqrt(results.data["kernel_sum_of_squares"][0, 0]),
    )
    layers = xr.DataArray([1.0, 2.0], dims="layer", coords={"layer": ["conv", "dense"]})
    by_layer = results.data["kernel_sum_of_squares"] * layers
    drawn = traces(over_epochs(Results(results.data.assign(kernel_norm=by_layer), {})))
    close(drawn["Kernel norm of dense"][0]["y"], 2 * results.data["kernel_sum_of_squares"][0, 0])
    assert "Norm of all kernels" not in drawn


def test_a_large_sweep_is_drawn_in_part():
    drawn = traces(over_epochs(synthetic((0.0, 0.1), seeds=30, epochs=1000)))["Validation loss"]
    assert len(drawn) == 2 * (MOST_TRIALS + 1)
    assert {len(trace["x"]) for trace in drawn} == {MOST_EPOCHS}


def test_accuracies_have_linear_axes_all_others_logarithmic():
    results = synthetic()
    calibration = results.data.assign(val_ece=results.data["val_loss"] / 10)
    charts = over_epochs(Results(calibration, {}))
    linear = [chart.title for chart in charts if chart.figure["layout"]["yaxis"].get("type") != "log"]
    assert linear == ["Validation accuracy"]
    units = {chart.title: chart.figure["layout"]["yaxis"]["title"]["text"] for chart in charts}
    assert units == {
        "Training loss": "cross-entropy (nat)",
        "Validation loss": "cross-entropy (nat)",
        "Validation accuracy": "fraction",
        "Calibration error": "fraction",
        "Norm of all kernels": "Euclidean norm",
    }


def test_magnitudes_of_every_strength_are_drawn():
    drawn = kernel_magnitudes(with_magnitudes(synthetic()))
    assert [chart.title for chart in drawn] == ["Values of the kernel of conv", "Values of the kernel of dense"]
    for chart in drawn:
        assert [trace["meta"] for trace in chart.figure["data"]] == list(range(len(STRENGTHS)))
        assert all(sum(trace["y"]) == pytest.approx(100, abs=1e-3) for trace in chart.figure["data"])


def test_magnitudes_of_diverged_trials_are_not_drawn():
    everywhere = [(l2, seed, 2) for l2 in (0.0, 0.1) for seed in range(3)]
    all_diverged = with_magnitudes(synthetic((0.0, 0.1), diverged=everywhere))
    assert not any(chart.figure["data"] for chart in kernel_magnitudes(all_diverged))


def test_older_results_have_no_chart_of_magnitudes():
    assert kernel_magnitudes(synthetic()) == []
