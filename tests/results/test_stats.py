"""The public facade of the statistics."""

import pytest

from l2jax import stats


def test_all_public_names_exist():
    assert all(hasattr(stats, name) for name in stats.__all__)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mean_of", stats.nanmean),
        ("against_first", stats.differences_to_first),
        ("DRAWS", stats.REPLICATES),
        ("FEWEST", stats.FEWEST_PAIRS),
    ],
)
def test_old_names_work_and_warn(old, new):
    with pytest.warns(DeprecationWarning, match=f"l2jax.stats.{old} is now l2jax.stats."):
        assert getattr(stats, old) is new


def test_other_names_are_unknown():
    with pytest.raises(AttributeError, match="no_such_name"):
        stats.no_such_name  # noqa: B018
