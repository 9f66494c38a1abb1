"""Figures over epochs, against plain numpy on the results."""

import numpy as np
import pytest
from helpers.figures import CASES, crosses, legend, lines
from helpers.results import STRENGTHS, synthetic
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb

from l2jax.plot import loss_curves, objective_curves


def test_lines_are_means_over_seeds_and_bands_their_range():
    results = synthetic()
    training, validation = loss_curves(results).axes
    for ax, metric in ((training, "train_loss"), (validation, "val_loss")):
        assert ax.get_yscale() == "log"
        bands = [band for band in ax.collections if isinstance(band, PolyCollection)]
        assert len(bands) == len(STRENGTHS)
        for index, l2 in enumerate(STRENGTHS):
            (line,) = lines(ax, f"{l2:.3g}")
            values = results.data[metric].values[index]
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 21))
            np.testing.assert_allclose(line.get_ydata(), values.mean(0), rtol=1e-6)
            band = np.asarray(bands[index].get_paths()[0].vertices)
            assert band[:, 1].min() == pytest.approx(values.min())
            assert band[:, 1].max() == pytest.approx(values.max())
            assert line.get_linestyle() == ("--" if l2 == 0 else "-")


def test_colours_darken_with_strength_in_grey_too():
    ax = loss_curves(synthetic()).axes[0]
    grey = [np.dot(to_rgb(lines(ax, f"{l2:.3g}")[0].get_color()), [0.299, 0.587, 0.114]) for l2 in STRENGTHS]
    assert grey[0] == 0
    assert (np.diff(grey[1:]) < -0.04).all(), "neighbours must differ"
    assert max(grey) < 0.8, "white is 1"


def test_the_legend_lists_every_strength_strongest_first():
    ax = loss_curves(synthetic()).axes[1]
    assert legend(ax) == [f"{l2:.3g}" for l2 in reversed(STRENGTHS)]
    assert legend(loss_curves(CASES["some diverged"]).axes[1])[-1] == "diverged"


def test_a_diverged_trial_ends_in_a_cross_and_leaves_the_mean():
    results = synthetic(diverged=[(1e-4, 1, 12)])
    ax = loss_curves(results).axes[1]
    trial = results.data["val_loss"].sel(l2=1e-4).values
    (cross,) = crosses(ax)
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (11, pytest.approx(trial[1, 10]))
    np.testing.assert_allclose(lines(ax, "0.0001")[0].get_ydata(), trial[[0, 2]].mean(0), rtol=1e-6)
    assert any(len(line.get_xdata()) == 11 and line.get_ydata()[-1] == trial[1, 10] for line in ax.get_lines())


def test_a_trial_without_a_finite_loss_is_marked_at_epoch_1():
    ax = loss_curves(synthetic(diverged=[(1e-1, 0, 1)])).axes[0]
    (cross,) = crosses(ax)
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (1, ax.get_ylim()[1])


def test_diverged_trials_do_not_squeeze_the_others():
    results = synthetic(diverged=[(1e-1, 0, 4)])
    results.data["train_loss"].values[-1, 0, 1:3] = 1e30, np.inf
    ax = loss_curves(results).axes[0]
    (cross,) = crosses(ax)
    assert ax.get_ylim()[1] < 100 and cross.get_ydata()[0] == ax.get_ylim()[1]


def test_objective_curves_are_keras_loss_and_val_loss():
    results = synthetic((0.0, 0.01))
    training, validation = (
        {line.get_label(): line.get_ydata() for line in ax.lines} for ax in objective_curves(results).axes
    )
    data = results.data.mean("seed")
    for l2, name in ((0.0, "0"), (0.01, "0.01")):
        np.testing.assert_allclose(training[name], data["running_objective"].sel(l2=l2), rtol=1e-5)
        with_penalty = data["val_loss"].sel(l2=l2) + data["penalty"].sel(l2=l2)
        np.testing.assert_allclose(validation[name], with_penalty, rtol=1e-5)


def test_losses_whose_ratio_float32_cannot_hold_are_drawn():
    results = synthetic((0.0, 0.1), epochs=400)
    smallest = float(results.data["train_loss"].min())
    low, high = loss_curves(results).axes[0].get_ylim()
    assert 0 < smallest < 1e-40 and low < smallest and high > 1
