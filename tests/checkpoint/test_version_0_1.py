"""Checkpoints of version 0.1, whose arrays had other names, are read and trained on."""

import json

import numpy as np
import pytest
from helpers import tiny_run

from l2jax.atomic import seal
from l2jax.checkpoint import checkpoint
from l2jax.checkpoint.checkpoints import Checkpoints
from l2jax.checkpoint.folders import Folders

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def write_as_version_0_1(run_dir, number, snapshot, description):
    """Writes what 0.1 wrote: hyperparameters beside seed and split, an evaluation of the test part, float32 metrics."""
    trials = snapshot.trials
    metrics = {name: values.astype(np.float32) for name, values in snapshot.metrics.items()}
    metrics["l2_norm"] = metrics.pop("kernel_sum_of_squares")
    tested = None
    if snapshot.test:
        counts = snapshot.test["kernel_magnitudes"].astype(np.float32)
        zeros = np.zeros(len(trials.seed), np.float32)
        tested = {
            "loss": snapshot.test["test_loss"].astype(np.float32),
            "accuracy": snapshot.test["test_accuracy"].astype(np.float32),
            "ece": zeros,
            "penalty": zeros,
            "squared_norms": {"layers/0": zeros, "layers/1": zeros},
            "magnitudes": {"layers/0": counts[:, 0], "layers/1": counts[:, 1]},
        }
    tree = {
        "trials": trials.hyperparameters | {"seed": trials.seed, "split": trials.split_index},
        "metrics": metrics,
        "seconds": snapshot.seconds,
        "tested": tested,
        "state": snapshot.state,
    }
    folder = run_dir / "checkpoints" / f"{number:06}"
    folder.mkdir(parents=True)
    description = {name: value for name, value in description.items() if name != "data_sha256"}
    (folder / "config.json").write_text(json.dumps(description | {"model": "cnn", "data": tiny_run.dataset().digest}))
    checkpoint._write_arrays(folder / "arrays", tree)
    seal(folder)


@pytest.mark.parametrize("num_epochs", [2, 4])
def test_checkpoints_of_version_0_1_are_trained_on(num_epochs, tmp_path):
    undisturbed = tiny_run.sweep()
    for number, _ in enumerate(undisturbed.epochs(), start=1):
        if number <= num_epochs:
            write_as_version_0_1(tmp_path, number, undisturbed.snapshot(), undisturbed.description())

    sweep = tiny_run.sweep()
    for snapshot, description in Checkpoints(Folders(tmp_path / "checkpoints")).load(sweep.check_snapshot, pytest.fail):
        sweep.restore(snapshot)
        sweep.reproduce(description)
    assert sweep.ledger.num_records == num_epochs
    list(sweep.epochs())
    assert sweep.results().data.identical(undisturbed.results().data)
