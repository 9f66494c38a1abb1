"""The figure of kernel magnitudes, against numpy on the results."""

import numpy as np
from helpers.magnitudes import with_magnitudes
from helpers.results import STRENGTHS, synthetic
from matplotlib.patches import StepPatch

from l2jax.plot import figures, kernel_magnitudes
from l2jax.results.metrics import MAGNITUDE_EDGES


def test_each_layer_has_a_panel_with_one_line_per_strength():
    results = with_magnitudes(synthetic(diverged=[(STRENGTHS[-1], 0, 4)]))
    figure = kernel_magnitudes(results)
    assert [ax.get_title() for ax in figure.axes] == ["conv", "dense"]
    for ax, layer in zip(figure.axes, ("conv", "dense"), strict=True):
        *_, (values, edges, _) = (patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch))
        expected = results.data["kernel_magnitudes"].sel(layer=layer, l2=STRENGTHS[-1]).values[1:].sum(0)
        np.testing.assert_allclose(values, 100 * expected / expected.sum())
        np.testing.assert_allclose(edges, MAGNITUDE_EDGES)
    assert "kernel_magnitudes" in dict(figures(results))


def test_few_of_many_strengths_are_drawn_both_ends_among_them():
    figure = kernel_magnitudes(with_magnitudes(synthetic((0.0, *np.logspace(-6, 0, 19)))))
    words = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert len(words) == 5 and (words[0], words[-1]) == ("1", "0")


def test_magnitudes_of_diverged_trials_are_not_drawn():
    everywhere = [(l2, seed, 2) for l2 in (0.0, 0.1) for seed in range(3)]
    all_diverged = with_magnitudes(synthetic((0.0, 0.1), diverged=everywhere))
    assert not any(ax.patches for ax in kernel_magnitudes(all_diverged).axes)


def test_older_results_have_no_figure_of_magnitudes():
    assert "kernel_magnitudes" not in dict(figures(synthetic()))
