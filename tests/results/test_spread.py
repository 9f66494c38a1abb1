"""The spread of very many trials, against pandas."""

import numpy as np
import pandas as pd
import pytest
from helpers.results import STRENGTHS, synthetic

from l2jax.results.spread import MOST_STRENGTHS, MOST_TRIALS, QUANTILES, is_large, spread, strength_groups

MANY = np.array([0.0, *np.geomspace(1e-6, 1, 999)])


@pytest.mark.parametrize("strengths", [MANY, MANY[1:], np.array([0, 1e-9, *np.geomspace(0.1, 0.2, 70)])])
@pytest.mark.parametrize("most", [8, 60])
def test_groups_hold_each_strength_once_and_0_alone(strengths, most):
    groups = strength_groups(strengths, most)
    assert len(groups) <= most
    assert np.concatenate([strengths[group.members] for group in groups]).tolist() == strengths.tolist()
    for group in groups:
        assert (group.low, group.high) == (strengths[group.members].min(), strengths[group.members].max())
        assert group.low <= group.middle * (1 + 1e-12) and group.middle <= group.high * (1 + 1e-12)
    if strengths[0] == 0:
        assert groups[0].high == 0 < groups[1].low
    positive = strengths[strengths > 0]
    width = np.log(positive[-1] / positive[0]) / (most - (strengths[0] == 0))
    assert all(np.log(group.high / group.low) <= width * (1 + 1e-9) for group in groups if group.low > 0)


def test_few_strengths_are_a_group_each():
    groups = strength_groups(np.array(STRENGTHS), len(STRENGTHS))
    assert [group.middle for group in groups] == list(STRENGTHS)
    assert [str(group) for group in groups] == [f"{l2:.3g}" for l2 in STRENGTHS]
    assert str(strength_groups(MANY, 3)[1]) == "1e-06 to 0.000986"


@pytest.mark.parametrize("last", [(), (4,)])
def test_mean_and_quantiles_are_those_of_pandas(last):
    rng = np.random.default_rng(0)
    values, diverged = rng.lognormal(size=(len(MANY), 7, *last)), rng.random((len(MANY), 7)) < 0.1
    values[diverged] = np.nan
    groups = strength_groups(MANY, 12)
    drawn = spread(values, diverged, groups)
    bounds = [group.low for group in groups[1:]]
    columns = pd.DataFrame(values.reshape(len(MANY) * 7, -1))
    grouped = columns.groupby(np.repeat(np.digitize(MANY, bounds), 7))
    shape = (len(groups), *last)
    np.testing.assert_allclose(drawn.mean, grouped.mean().to_numpy().reshape(shape), rtol=1e-12)
    for quantile, drawn_quantile in zip(QUANTILES, drawn.quantiles, strict=True):
        expected = grouped.quantile(quantile).to_numpy().reshape(shape)
        np.testing.assert_allclose(drawn_quantile, expected, rtol=1e-12)


def test_a_group_whose_trials_all_diverged_is_nan():
    values, diverged = np.ones((2, 3)), np.array([[True] * 3, [False] * 3])
    drawn = spread(values, diverged, strength_groups(np.array([0.0, 0.1]), 2))
    assert np.isnan(drawn.mean[0]) and np.isnan([quantile[0] for quantile in drawn.quantiles]).all()
    assert drawn.mean[1] == 1 and [quantile[1] for quantile in drawn.quantiles] == [1] * 4


def test_a_few_hundred_trials_are_not_many():
    assert not is_large(synthetic(STRENGTHS[:3], seeds=MOST_TRIALS // 3, epochs=1))
    assert is_large(synthetic(STRENGTHS[:3], seeds=MOST_TRIALS // 3 + 1, epochs=1))
    assert not is_large(synthetic(MANY[:MOST_STRENGTHS], seeds=1, epochs=1))
    assert is_large(synthetic(MANY[: MOST_STRENGTHS + 1], seeds=1, epochs=1))
