"""The heat map of two hyperparameters."""

import numpy as np
import pytest
from helpers.figures import crosses
from helpers.results import swept_twice, synthetic

from l2jax.plot import heat_map


def test_cells_are_means_and_the_star_marks_the_best():
    results = swept_twice()
    ax = heat_map(results).axes[0]
    np.testing.assert_allclose(ax.images[0].get_array(), [[4.0, 2.0, 1.0001], [3.0, 1.2, 1.0]])  # low rates below
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.01", "0.1"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.001", "0.01"]
    (star,) = ax.lines
    np.testing.assert_allclose(star.get_xydata(), [[2, 1.25]], atol=0.25)
    assert {text.get_text() for text in ax.texts} == {"4", "2", "1", "3", "1.2"}


def test_settings_with_a_diverged_trial_are_crossed_out():
    results = swept_twice(diverged=[(1e-2, 1, 3)])
    ax = heat_map(results).axes[0]
    np.testing.assert_array_equal(np.ma.getmaskarray(ax.images[0].get_array()), [[False, False, True]] * 2)
    np.testing.assert_array_equal([np.ravel(line.get_xydata()) for line in crosses(ax)], [[2, 0], [2, 1]])


def test_a_hyperparameter_that_was_not_swept_is_an_error():
    with pytest.raises(ValueError, match="learning_rate did not take several values"):
        heat_map(synthetic())


def test_the_former_argument_other_still_works():
    with pytest.warns(DeprecationWarning, match="hyperparameter"):
        figure = heat_map(swept_twice(), other="learning_rate")
    assert figure.axes[0].get_ylabel() == "learning rate"
