"""The ledger and its records, against what was added."""

import numpy as np
import pytest

from l2jax.engine.collect import collect
from l2jax.engine.ledger import AFTER_EPOCHS, EpochRecord, new_ledger


@pytest.mark.parametrize(("old", "new"), [("epoch", "number"), ("trials", "indices")])
def test_old_names_work_and_warn(old, new):
    record = EpochRecord(number=3, indices=(0, 1), metrics={}, seconds=2.0, num_examples=100)
    with pytest.warns(DeprecationWarning, match=f"EpochRecord.{old} is now EpochRecord.{new}"):
        assert getattr(record, old) == getattr(record, new)


def filled(num_trials=12, num_epochs=3):
    """A ledger of chunks of 5, 5 and 2 trials, of which the last one is an epoch behind; and what it was told."""
    rng, told = np.random.default_rng(0), {}
    ledger = new_ledger(np.arange(100, 100 + num_trials), num_epochs, 2)
    for first, epochs in ((0, 3), (5, 3), (10, 2)):
        indices = tuple(range(first, min(first + 5, num_trials)))
        for number in range(1, epochs + 1):
            shapes = {name: (len(indices), 2) if name == "kernel_norm" else (len(indices),) for name in AFTER_EPOCHS}
            metrics = {name: rng.lognormal(size=shape).astype(np.float32) for name, shape in shapes.items()}
            if indices[0] == 5 and number == 2:
                metrics["penalty"][1] = np.inf
            ledger.add_epoch(indices, number, metrics, 0.5)
            told[first, number] = (indices, metrics)
    return ledger, told


def test_records_are_those_that_were_added_chunk_after_chunk():
    ledger, told = filled()
    records = list(ledger.records())
    assert ledger.num_records == len(records) == len(told)
    assert [(record.indices[0], record.number) for record in records] == sorted(told)
    for record in records:
        indices, metrics = told[record.indices[0], record.number]
        assert record.indices == indices and record.seconds == pytest.approx(0.5)
        assert record.num_examples == sum(100 + index for index in indices)
        for name, values in metrics.items():
            diverged = [index == 6 and record.number >= 2 for index in indices]
            expected = np.where(np.reshape(diverged, (-1, *[1] * (values.ndim - 1))), np.nan, values)
            np.testing.assert_array_equal(record.metrics[name], expected)


def test_what_is_left_to_train_the_furthest_first():
    ledger, _ = filled()
    assert {done: indices.tolist() for done, indices in ledger.unfinished().items()} == {2: [10, 11]}
    assert np.flatnonzero(ledger.diverged).tolist() == [6]
    ledger.epochs_done[3] = 0
    assert list(ledger.unfinished()) == [2, 0]


def test_results_hold_every_digit_that_was_recorded():
    ledger, told = filled()
    axes = {"l2": (0.0, 0.1, 0.2), "seed": (0, 1, 2, 3), "fold": (0,)}
    data = collect(ledger, axes, ("conv", "dense"), {}).data
    for (_, number), (indices, metrics) in told.items():
        for index, loss in zip(indices, metrics["val_loss"], strict=True):
            held = data["val_loss"].values[index // 4, index % 4, number - 1]
            assert held.dtype == np.float64
            assert np.isnan(held) if index == 6 and number >= 2 else held == np.float64(loss)
