"""Positions, colours and limits that figures and charts share."""

import numpy as np
import pytest

from l2jax.plot.strengths import axis_positions, log_limits, segments, strength_colours


def test_positive_strengths_stand_at_their_values():
    strengths = np.array([1e-4, 1e-2])
    np.testing.assert_array_equal(axis_positions(strengths), strengths)
    np.testing.assert_array_equal(axis_positions(np.array([0.0, *strengths]))[1:], strengths)


@pytest.mark.parametrize(("weakest", "strongest"), [(1e-4, 1e-1), (0.02, 0.08), (0.003, 0.003)])
def test_strength_0_is_a_step_left_of_the_others(weakest, strongest):
    positions = axis_positions(np.unique([0.0, weakest, strongest]))
    assert 0 < positions[0] <= weakest / 3
    assert np.log(weakest / positions[0]) >= 0.18 * np.log(strongest / weakest)


def test_strength_0_alone_has_a_position():
    np.testing.assert_array_equal(axis_positions(np.zeros(1)), [1])


def test_a_line_does_not_connect_strength_0_with_the_others():
    connected = [segment.tolist() for segment in segments(np.array([0.0, 0.1, 1.0]))]
    assert connected == [[True, False, False], [False, True, True]]
    assert [segment.tolist() for segment in segments(np.array([0.1, 1.0]))] == [[True, True]]
    assert [segment.tolist() for segment in segments(np.zeros(1))] == [[True]]


def brightness(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_stronger_colours_differ_more_from_the_background():
    strengths = np.array([0.0, *np.logspace(-4, -1, 7)])
    for dark in (False, True):
        zero, *others = strength_colours(strengths, "#123456", dark=dark)
        assert zero == "#123456"
        steps = np.diff([brightness(colour) for colour in others])
        assert (steps > 0.02).all() if dark else (steps < -0.02).all()


def test_limits_hold_all_values_of_trials_that_finished():
    values = np.array([[[0.5, 2.0]], [[0.0, np.nan]]])
    low, high = log_limits(values, np.zeros((2, 1), bool))
    assert 0.4 < low < 0.5 and 2 < high < 2.5


def test_limits_are_not_stretched_by_diverged_trials():
    values = np.array([[[0.5, 2.0], [3.0, 1e30]]])
    assert 20 < log_limits(values, np.array([[False, True]]))[1] < 30
    assert log_limits(values, np.array([[True, True]]))[1] > 1e30


def test_limits_exist_where_no_value_is_finite():
    assert log_limits(np.full((1, 1, 2), np.nan), np.ones((1, 1), bool)) == (0.1, 10)
