"""Histograms of the values of kernels: counted against numpy, drawn, and what L2 does to them."""

import jax
import numpy as np
import pytest
import xarray as xr
from helpers.compare import mlp
from helpers.results import STRENGTHS, synthetic
from matplotlib.patches import StepPatch

from l2jax import Sweep, SweepConfig
from l2jax.plot import figures, kernel_magnitudes
from l2jax.report import charts
from l2jax.results.metrics import MAGNITUDE_EDGES, MAGNITUDES
from l2jax.results.results import Results
from l2jax.trial.magnitudes import count_magnitudes


def counted(values: np.ndarray) -> np.ndarray:
    inside = np.clip(np.abs(values), np.float32(MAGNITUDE_EDGES[0]), np.float32(MAGNITUDE_EDGES[-1]))
    return np.histogram(inside, MAGNITUDE_EDGES.astype(np.float32))[0]


def with_magnitudes(results: Results) -> Results:
    """Two layers of 100 and 1,000 values, whose magnitudes fall with the strength."""
    rng = np.random.default_rng(0)
    strengths, seeds = results.data["l2"].values, results.data["seed"].values
    counts = [
        [[counted(rng.normal(0, 0.1 / (1 + 100 * l2), size)) for size in (100, 1000)] for _ in seeds]
        for l2 in strengths
    ]
    dims = ("l2", "seed", "layer", "magnitude")
    coords = {"layer": ["conv", "dense"], "magnitude": MAGNITUDES}
    of_trials = xr.DataArray(counts, {"l2": strengths, "seed": seeds, **coords}, dims).astype(float)
    return Results(results.data.assign(kernel_magnitudes=of_trials.where(~results.data["diverged"])), results.config)


def test_counts_are_those_of_numpy():
    values = np.random.default_rng(0).normal(0, 0.1, (3, 3, 4, 5)).astype(np.float32)
    values[0, 0, 0] = 0, 1e-9, -1e9, 1e-3, -1e-3
    counts = np.asarray(jax.jit(count_magnitudes)(values))
    np.testing.assert_array_equal(counts, counted(values))
    assert counts.sum() == values.size and counts[0] >= 2 and counts[-1] == 1


@pytest.mark.usefixtures("compiled_quickly")
def test_a_sweep_counts_the_kernels_that_it_ends_with(small):
    sweep = Sweep(SweepConfig(l2=(0, 0.1, 1), seeds=3, epochs=3, train_size=None, val_size=40), small, model=mlp)
    for _ in sweep.epochs():
        pass
    snapshot, counts = sweep.snapshot(), sweep.results().data["kernel_magnitudes"]
    assert counts.dims == ("l2", "seed", "layer", "magnitude")
    for layer in counts["layer"].values:
        kernels = snapshot.state[f"params/{layer}/kernel"]
        for trial, kernel in enumerate(kernels):
            np.testing.assert_array_equal(counts.sel(layer=layer).values.reshape(9, -1)[trial], counted(kernel))
    large = counts.where(counts["magnitude"] > 1e-2, 0).sum(["seed", "layer", "magnitude"])
    assert large.sel(l2=1) < large.sel(l2=0)


def test_a_panel_a_layer_and_a_line_a_strength():
    results = with_magnitudes(synthetic(diverged=[(STRENGTHS[-1], 0, 4)]))
    figure = kernel_magnitudes(results)
    assert [ax.get_title() for ax in figure.axes] == ["conv", "dense"]
    for ax, layer in zip(figure.axes, ("conv", "dense"), strict=True):
        *_, (values, edges, _) = (patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch))
        expected = results.data["kernel_magnitudes"].sel(layer=layer, l2=STRENGTHS[-1]).values[1:].sum(0)
        np.testing.assert_allclose(values, 100 * expected / expected.sum())
        np.testing.assert_allclose(edges, MAGNITUDE_EDGES)
    assert "kernel_magnitudes" in dict(figures(results))


def test_of_many_strengths_a_few_are_drawn_from_end_to_end():
    figure = kernel_magnitudes(with_magnitudes(synthetic((0.0, *np.logspace(-6, 0, 19)))))
    words = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert len(words) == 5 and (words[0], words[-1]) == ("1", "0")


def test_the_page_draws_every_strength():
    drawn = charts.kernel_magnitudes(with_magnitudes(synthetic()))
    assert [chart.title for chart in drawn] == ["Values of the kernel of conv", "Values of the kernel of dense"]
    for chart in drawn:
        assert [trace["meta"] for trace in chart.figure["data"]] == list(range(len(STRENGTHS)))
        assert all(sum(trace["y"]) == pytest.approx(100, abs=1e-3) for trace in chart.figure["data"])


def test_where_all_diverged_or_results_are_older_nothing_is_drawn():
    all_diverged = with_magnitudes(
        synthetic((0.0, 0.1), diverged=[(l2, seed, 2) for l2 in (0.0, 0.1) for seed in range(3)])
    )
    assert not any(ax.patches for ax in kernel_magnitudes(all_diverged).axes)
    assert not any(chart.figure["data"] for chart in charts.kernel_magnitudes(all_diverged))
    assert charts.kernel_magnitudes(synthetic()) == []
    assert "kernel_magnitudes" not in dict(figures(synthetic()))
