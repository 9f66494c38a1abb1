"""Event files, read back record by record."""

import struct

import numpy as np
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]: made at run time

from l2jax.engine.ledger import EpochRecord
from l2jax.run.tensorboard import event_files

AXES = {"l2": (0.0, 0.01), "learning_rate": (0.001,), "seed": (0, 1), "fold": (0,)}


def scalars(folder):
    """The values in the one file of a folder, by (tag, step); it holds length, checksum, content, checksum of each."""
    (path,) = folder.iterdir()
    content, values = path.read_bytes(), {}
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        values |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        content = content[16 + length :]
    return values


def record(number, losses):
    metrics = {"val_loss": np.array(losses), "kernel_norm": np.ones((4, 3))}
    return EpochRecord(number, (0, 1, 2, 3), metrics, 1.0, 1)


def test_values_are_means_over_trials_that_have_not_diverged(tmp_path):
    with event_files(AXES, tmp_path) as write:
        write(record(1, [1.0, 2.0, 3.0, 5.0]))
        write(record(2, [0.5, 1.0, np.nan, 2.0]))
    assert scalars(tmp_path / "l2=0") == {("val_loss", 1): 1.5, ("val_loss", 2): 0.75}
    assert scalars(tmp_path / "l2=0.01") == {("val_loss", 1): 4.0, ("val_loss", 2): 2.0}


def test_swept_hyperparameters_name_the_run(tmp_path):
    with event_files(AXES | {"learning_rate": (0.1, 0.01)}, tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {
        "l2=0,learning_rate=0.1",
        "l2=0,learning_rate=0.01",
        "l2=0.01,learning_rate=0.1",
        "l2=0.01,learning_rate=0.01",
    }
