"""The figure of gap and rise, against scipy on the results."""

import io

import numpy as np
import pytest
from helpers.figures import CASES
from helpers.results import synthetic
from matplotlib.container import ErrorbarContainer
from scipy import stats

from l2jax.plot import overfitting


def test_gap_and_rise_are_shown_with_intervals():
    results = synthetic(noise=0.04, diverged=[(1e-1, 0, 4)])
    val, train = results.data["val_loss"].values.astype(float), results.data["train_loss"].values.astype(float)
    gap_ax, rise_ax = overfitting(results).axes
    for ax, trials in ((gap_ax, val[..., -1] - train[..., -1]), (rise_ax, val[..., -1] - np.nanmin(val, -1))):
        parts = [bars for bars in ax.containers if isinstance(bars, ErrorbarContainer)]
        drawn = np.concatenate([bars.lines[0].get_ydata() for bars in parts])
        np.testing.assert_allclose(drawn, np.nanmean(trials, 1))
        half = stats.t.ppf(0.975, 2) * trials[:-1].std(1, ddof=1) / np.sqrt(3)  # 2 trials are left of the last one
        ends = np.concatenate([bars.lines[2][0].get_segments() for bars in parts])[:-1, :, 1]
        low, high = trials[:-1].mean(1) - half, trials[:-1].mean(1) + half
        np.testing.assert_allclose(ends, np.stack([low if ax is gap_ax else low.clip(0), high], 1), atol=1e-12)


@pytest.mark.parametrize("case", ["only 0", "one trial, one epoch", "all diverged", "20 strengths"])
def test_every_kind_of_sweep_can_be_drawn(case):
    figure = overfitting(CASES[case])
    figure.savefig(io.BytesIO(), format="png")
    assert [text.get_text() for ax in figure.axes for text in ax.texts if "diverged" in text.get_text()] == (
        ["every trial diverged"] * 2 if case == "all diverged" else []
    )
