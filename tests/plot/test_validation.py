"""The figure of validation loss and accuracy against strength, against plain numpy and scipy on the results."""

import numpy as np
import pytest
from helpers.figures import CASES, crosses, legend, lines
from helpers.results import STRENGTHS, synthetic
from matplotlib.collections import PolyCollection
from matplotlib.container import ErrorbarContainer
from scipy import stats

from l2jax.plot import validation_curve


def test_validation_curve_shows_means_and_standard_errors():
    results = synthetic(noise=0.04)
    loss, gap, accuracy = validation_curve(results).axes
    for ax, metric, label in (
        (loss, "val_loss", "validation"),
        (gap, "val_loss", "validation"),
        (gap, "train_loss", "training"),
        (accuracy, "val_accuracy", "validation"),
        (accuracy, "train_accuracy", "training"),
    ):
        values = results.data[metric].values[:, :, -1].astype(np.float64)
        bars = [bars for bars in ax.containers if isinstance(bars, ErrorbarContainer)]
        (line,) = lines(ax, label)
        (bar,) = [bar for bar in bars if bar.lines[0] is line]
        np.testing.assert_array_equal(line.get_xdata(), STRENGTHS[1:])
        np.testing.assert_allclose(line.get_ydata(), values[1:].mean(1), rtol=1e-6)
        drawn = [segment[1, 1] - segment[0, 1] for segment in bar.lines[2][0].get_segments()]
        np.testing.assert_allclose(drawn, 2 * stats.sem(values[1:], axis=1), rtol=1e-4)
        faint = [line for line in ax.get_lines() if line.get_alpha() and len(line.get_xdata()) == len(STRENGTHS) - 1]
        seeds = {tuple(np.asarray(line.get_ydata(), np.float32)) for line in faint}
        assert {tuple(seed) for seed in values[1:].T.astype(np.float32)} <= seeds


def test_strength_0_stands_apart_left_of_a_broken_axis():
    results = synthetic()
    for ax, metric in zip(validation_curve(results).axes, ("val_loss", "val_loss", "val_accuracy"), strict=True):
        assert ax.get_xscale() == "log"
        ticks = dict(zip((label.get_text() for label in ax.get_xticklabels()), ax.get_xticks(), strict=True))
        assert 0 < ticks["0"] <= STRENGTHS[1] / 3
        zeros = [line for line in ax.get_lines() if list(line.get_xdata()) == [ticks["0"]]]
        assert any(line.get_ydata()[0] == pytest.approx(results.settings_table().loc[0.0, metric]) for line in zeros)
        (slashes,) = [text for text in ax.texts if text.get_text() == "//"]
        assert ticks["0"] < slashes.get_position()[0] < STRENGTHS[1]


def test_the_axis_is_not_broken_without_strength_0():
    for ax in validation_curve(synthetic(STRENGTHS[1:])).axes:
        assert not ax.texts
        assert "0" not in [label.get_text() for label in ax.get_xticklabels()]


def test_the_choices_of_both_rules_are_marked():
    results = synthetic(noise=0.04)
    lowest, careful = results.best(), results.best(rule="1se")
    assert lowest != careful
    axes = validation_curve(results).axes
    assert f"lowest mean: {lowest:.3g}" in legend(axes[0]) and f"one standard error: {careful:.3g}" in legend(axes[0])
    for ax, metric in zip(axes, ("val_loss", "val_loss", "val_accuracy"), strict=True):
        for marker, l2 in (("*", lowest), ("D", careful)):
            (star,) = [line for line in ax.get_lines() if line.get_marker() == marker]
            assert star.get_xdata()[0] == l2
            assert star.get_ydata()[0] == pytest.approx(results.settings_table().loc[l2, metric])
            assert any(list(line.get_xdata()) == [l2, l2] for line in ax.get_lines()), "a line from bottom to top"


def test_a_choice_of_both_rules_is_marked_once():
    results = synthetic(seeds=1)
    ax = validation_curve(results).axes[0]
    assert f"lowest mean and one standard error: {results.best():.3g}" in legend(ax)
    assert [line.get_marker() for line in ax.get_lines()].count("D") == 0


def test_the_gap_is_shaded_from_training_to_validation_loss():
    results = synthetic()
    ax = validation_curve(results).axes[1]
    assert legend(ax) == ["validation", "training", "gap"]
    table = results.settings_table()
    at_zero, others = [c.get_paths()[0].vertices for c in ax.collections if isinstance(c, PolyCollection)]
    assert sorted(set(at_zero[:, 1])) == pytest.approx(list(table.loc[0.0, ["train_loss", "val_loss"]]))
    for l2 in STRENGTHS[1:]:
        heights = others[others[:, 0] == l2, 1]
        assert sorted(set(heights)) == pytest.approx(list(table.loc[l2, ["train_loss", "val_loss"]]))
    assert ax.get_ylim()[0] == 0


def test_strengths_with_a_diverged_trial_are_crossed_out():
    results = synthetic(diverged=[(0.1, seed, 4) for seed in range(3)] + [(1e-4, 1, 12)])
    for ax in validation_curve(results).axes:
        (cross,) = crosses(ax)
        assert list(cross.get_xdata()) == [1e-4, 0.1]
        (line,) = lines(ax, "validation")
        assert np.isnan(line.get_ydata()[-1]) and np.isfinite(line.get_ydata()[:-1]).all()


def test_a_sweep_in_which_every_trial_diverged_says_so():
    for ax in validation_curve(CASES["all diverged"]).axes:
        assert "every trial diverged" in [text.get_text() for text in ax.texts]
        assert not [line for line in ax.get_lines() if line.get_marker() in ("*", "D")]
