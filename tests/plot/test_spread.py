"""Figures of very many trials, against NumPy on the results."""

import io

import numpy as np
import pytest
import xarray as xr
from helpers.figures import legend, lines
from helpers.magnitudes import with_magnitudes
from helpers.results import synthetic
from matplotlib.collections import PolyCollection

from l2jax.plot import figures, heat_map, loss_curves, overfitting, validation_curve
from l2jax.plot.heat_map import LARGEST
from l2jax.results.results import Results
from l2jax.results.spread import LINES, POINTS

FEW_STRENGTHS = (0.0, 1e-3, 1e-2, 1e-1)
MANY_STRENGTHS = (0.0, *np.geomspace(1e-6, 1, 299))


def bands(ax):
    return [band.get_paths()[0].vertices for band in ax.collections if isinstance(band, PolyCollection)]


def test_bands_against_strength_hold_half_and_90_percent():
    results = synthetic(FEW_STRENGTHS, seeds=200, noise=0.04, diverged=[(1e-1, 0, 4)])
    ax = validation_curve(results).axes[0]
    last = results.data["val_loss"].values[:, :, -1]
    zero, others = bands(ax)[:2], bands(ax)[2:]
    for bounds, drawn in (((0.05, 0.95), 0), ((0.25, 0.75), 1)):
        low, high = np.nanquantile(last.astype(float), bounds, axis=1)
        assert sorted(set(zero[drawn][:, 1])) == pytest.approx([low[0], high[0]])
        for index, l2 in enumerate(FEW_STRENGTHS[1:], 1):
            heights = np.asarray(others[drawn][others[drawn][:, 0] == l2, 1])
            assert (heights.min(), heights.max()) == pytest.approx((low[index], high[index]))
    (mean,) = lines(ax, "validation")
    np.testing.assert_allclose(mean.get_ydata(), np.nanmean(last, 1)[1:], rtol=1e-6)
    assert "800 trials (1 diverged)" in ax.figure.get_suptitle()


def test_many_strengths_share_few_lines():
    results = synthetic(MANY_STRENGTHS, seeds=2)
    training, validation = loss_curves(results).axes
    assert len(training.get_lines()) == len(legend(validation)) == LINES
    assert legend(validation)[-1] == "0" and legend(validation)[0].endswith(" to 1")
    weakest = results.data["val_loss"].values[0].mean(0)
    assert any(np.allclose(line.get_ydata(), weakest, rtol=1e-6) for line in validation.get_lines())
    assert all(len(line.get_xdata()) <= POINTS for ax in validation_curve(results).axes for line in ax.get_lines())
    gap = overfitting(results).axes[0].get_lines()[0].get_ydata()
    last = results.data.isel(epoch=-1, l2=0)
    assert gap[0] == pytest.approx(float((last["val_loss"] - last["train_loss"]).mean()), rel=1e-5)


@pytest.mark.parametrize("results", [synthetic(FEW_STRENGTHS, 100), synthetic(MANY_STRENGTHS, 1, epochs=1)])
def test_figures_of_many_trials_are_small(results):
    for name, figure in figures(with_magnitudes(results)):  # warnings are errors
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=150)
        assert png.tell() < 400_000 and (figure.get_size_inches() <= (14, 9)).all(), name


def test_groups_whose_trials_all_diverged_are_crossed_out():
    diverged = [(l2, seed, 3) for l2 in FEW_STRENGTHS[2:] for seed in range(100)]
    ax = validation_curve(synthetic(FEW_STRENGTHS, 100, diverged=diverged)).axes[0]
    (cross,) = [line for line in ax.get_lines() if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [1e-2, 1e-1] and cross.get_label() == "half of the trials diverged"


def test_a_large_heat_map_fits_a_page():
    rates = np.geomspace(1e-4, 1e-1, 40)
    data = synthetic(MANY_STRENGTHS, seeds=1, epochs=1, diverged=[(MANY_STRENGTHS[5], 0, 1)]).data
    scale = xr.DataArray(1 + np.log(rates / 3e-3) ** 2, {"learning_rate": rates})
    grid = data.assign({name: data[name] * scale for name in data.data_vars if name != "diverged"})
    grid = grid.assign(diverged=data["diverged"] & (scale > 0))
    results = Results(grid.transpose("l2", "learning_rate", ...), {})
    figure = heat_map(results)
    ax = figure.axes[0]
    assert (figure.get_size_inches() <= LARGEST).all() and len(ax.get_xticks()) <= 12 and not ax.texts
    cells = ax.images[0].get_array()
    last = grid["val_loss"].isel(epoch=-1, seed=0).transpose("learning_rate", "l2").values
    assert np.ma.getmaskarray(cells)[:, 5].all() and "grey: has a diverged trial" in ax.get_title()
    np.testing.assert_allclose(cells[:, 6:], last[:, 6:])
