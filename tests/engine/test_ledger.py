"""The record of an epoch."""

import pytest

from l2jax.engine.ledger import EpochRecord


@pytest.mark.parametrize(("old", "new"), [("epoch", "number"), ("trials", "indices")])
def test_old_names_work_and_warn(old, new):
    record = EpochRecord(number=3, indices=(0, 1), metrics={}, seconds=2.0, num_examples=100)
    with pytest.warns(DeprecationWarning, match=f"EpochRecord.{old} is now EpochRecord.{new}"):
        assert getattr(record, old) == getattr(record, new)
