"""Figures: what is drawn, against plain numpy on the results."""

import io
import itertools

import matplotlib
import numpy as np
import pytest
from helpers.results import STRENGTHS, swept_twice, synthetic
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from l2jax.plot import figures, heat_map, loss_curves, objective_curves, overfitting, validation_curve

ALL_DIVERGED = [(l2, seed, 1 + 3 * seed) for l2 in (0.0, 0.01, 0.1) for seed in range(3)]
CASES = {
    "default": synthetic(),
    "only 0": synthetic((0.0,)),
    "one strength": synthetic((0.003,)),
    "no 0": synthetic(STRENGTHS[1:]),
    "one seed": synthetic(seeds=1),
    "one epoch": synthetic(epochs=1),
    "one trial, one epoch": synthetic((0.0,), seeds=1, epochs=1),
    "all diverged": synthetic((0.0, 0.01, 0.1), diverged=ALL_DIVERGED),
    "some diverged": synthetic(diverged=[(0.1, 0, 4), (0.1, 1, 1), (1e-4, 1, 12)]),
    "20 strengths": synthetic((0.0, *np.logspace(-6, 0, 19))),
    "within a decade": synthetic((0.0, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08)),
}
BETWEEN = "one strength", "one seed", "one epoch", "only 0", "no 0", "default"
"""Of these, "one trial, one epoch", "some diverged", "20 strengths" and "within a decade" are the extremes."""


def lines(ax, label):
    return [line for line in ax.get_lines() if line.get_label() == label]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def crosses(ax):
    return [line for line in ax.get_lines() if line.get_marker() == "x"]


@pytest.mark.parametrize("draw", [loss_curves, validation_curve])
@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in BETWEEN)) for case in CASES])
def test_nothing_is_clipped_or_overlaps(draw, case):
    figure = draw(CASES[case])
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    pixels = np.asarray(Image.open(png).convert("L"))
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all(), "something runs over the edge of the figure"
    for ax in figure.axes:
        labels = [label for label in ax.get_xticklabels() if label.get_text() and label.get_window_extent().width]
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes)), "tick labels overlap"
    titled = [ax.get_tightbbox() for ax in figure.axes]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(titled)), "panels overlap"


@pytest.mark.parametrize("draw", [loss_curves, validation_curve])
def test_drawing_leaves_pyplot_and_results_alone(draw):
    import matplotlib.pyplot as plt

    results, before = synthetic(), synthetic()
    draw(results)
    assert plt.get_fignums() == [] and results == before


@pytest.mark.parametrize(("draw", "count"), [(loss_curves, 2), (overfitting, 2), (validation_curve, 3)])
def test_axes_of_a_person_are_drawn_in(draw, count):
    figure = Figure(layout="constrained")
    axes = list(figure.subplots(1, count))
    assert draw(synthetic(), axes) is figure
    assert all(ax.has_data() and ax.get_title() for ax in axes) and figure.get_suptitle() == ""
    with pytest.raises(ValueError, match=r"argument|unpack"):
        draw(synthetic(), axes[:1])


def test_loss_curves_are_means_over_seeds_with_the_range_as_a_band():
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


def test_colours_darken_with_strength_and_stay_visible_in_grey():
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


def test_a_trial_that_was_never_finite_is_marked_at_its_first_epoch():
    ax = loss_curves(synthetic(diverged=[(1e-1, 0, 1)])).axes[0]
    (cross,) = crosses(ax)
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (1, ax.get_ylim()[1])


def test_what_diverged_does_not_squeeze_the_others():
    results = synthetic(diverged=[(1e-1, 0, 4)])
    results.data["train_loss"].values[-1, 0, 1:3] = 1e30, np.inf
    ax = loss_curves(results).axes[0]
    (cross,) = crosses(ax)
    assert ax.get_ylim()[1] < 100 and cross.get_ydata()[0] == ax.get_ylim()[1]


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


def test_zero_stands_apart_left_of_a_broken_axis():
    results = synthetic()
    for ax, metric in zip(validation_curve(results).axes, ("val_loss", "val_loss", "val_accuracy"), strict=True):
        assert ax.get_xscale() == "log"
        ticks = dict(zip((label.get_text() for label in ax.get_xticklabels()), ax.get_xticks(), strict=True))
        assert 0 < ticks["0"] <= STRENGTHS[1] / 3
        zeros = [line for line in ax.get_lines() if list(line.get_xdata()) == [ticks["0"]]]
        assert any(line.get_ydata()[0] == pytest.approx(results.settings_table().loc[0.0, metric]) for line in zeros)
        (slashes,) = [text for text in ax.texts if text.get_text() == "//"]
        assert ticks["0"] < slashes.get_position()[0] < STRENGTHS[1]


def test_no_break_without_zero():
    for ax in validation_curve(synthetic(STRENGTHS[1:])).axes:
        assert not ax.texts
        assert "0" not in [label.get_text() for label in ax.get_xticklabels()]


def test_both_choices_are_marked_where_results_choose():
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


def test_strengths_with_a_diverged_trial_are_crossed_and_never_chosen():
    results = synthetic(diverged=[(0.1, seed, 4) for seed in range(3)] + [(1e-4, 1, 12)])
    for ax in validation_curve(results).axes:
        (cross,) = crosses(ax)
        assert list(cross.get_xdata()) == [1e-4, 0.1]
        (line,) = lines(ax, "validation")
        assert np.isnan(line.get_ydata()[-1]) and np.isfinite(line.get_ydata()[:-1]).all()


def test_a_sweep_that_diverged_says_so():
    for ax in validation_curve(CASES["all diverged"]).axes:
        assert "every trial diverged" in [text.get_text() for text in ax.texts]
        assert not [line for line in ax.get_lines() if line.get_marker() in ("*", "D")]


def test_the_order_of_strengths_does_not_matter():
    results = synthetic()
    shuffled = type(results)(results.data.isel(l2=[5, 0, 7, 2, 1, 6, 3, 4]), results.config)
    with matplotlib.rc_context({"savefig.dpi": 50}):
        for draw in (loss_curves, validation_curve):
            drawn = [io.BytesIO(), io.BytesIO()]
            for figure, png in zip((draw(results), draw(shuffled)), drawn, strict=True):
                figure.savefig(png, format="png")
            assert drawn[0].getvalue() == drawn[1].getvalue()


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


def test_heat_map_shows_the_mean_of_each_setting_and_marks_the_best():
    results = swept_twice()
    ax = heat_map(results).axes[0]
    np.testing.assert_allclose(ax.images[0].get_array(), [[4.0, 2.0, 1.0001], [3.0, 1.2, 1.0]])  # low rates below
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.01", "0.1"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.001", "0.01"]
    (star,) = ax.lines
    np.testing.assert_allclose(star.get_xydata(), [[2, 1.25]], atol=0.25)
    assert {text.get_text() for text in ax.texts} == {"4", "2", "1", "3", "1.2"}


def test_heat_map_crosses_out_what_diverged():
    results = swept_twice(diverged=[(1e-2, 1, 3)])
    ax = heat_map(results).axes[0]
    np.testing.assert_array_equal(np.ma.getmaskarray(ax.images[0].get_array()), [[False, False, True]] * 2)
    crosses = [np.ravel(line.get_xydata()) for line in ax.lines if line.get_marker() == "x"]
    np.testing.assert_array_equal(crosses, [[2, 0], [2, 1]])


def test_overfitting_shows_gap_and_rise_with_intervals():
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
def test_overfitting_is_drawn_whatever_came_out(case):
    figure = overfitting(CASES[case])
    figure.savefig(io.BytesIO(), format="png")
    assert [text.get_text() for ax in figure.axes for text in ax.texts if "diverged" in text.get_text()] == (
        ["every trial diverged"] * 2 if case == "all diverged" else []
    )


def test_heat_map_of_what_was_not_swept_is_an_error():
    with pytest.raises(ValueError, match="learning_rate did not take several values"):
        heat_map(synthetic())


def test_figures_are_those_that_fit_the_results():
    expected = ["loss_curves", "validation_curve", "overfitting", "objective_curves"]
    assert [name for name, _ in figures(synthetic())] == expected
    assert [name for name, _ in figures(swept_twice())][-1] == "heat_map_learning_rate"
