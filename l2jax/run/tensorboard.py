"""Event files for TensorBoard, written after each epoch: one TensorBoard run per setting."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from l2jax.engine.ledger import EpochRecord
from l2jax.results.metrics import REPLICATES


@contextlib.contextmanager
def event_files(axes: dict[str, tuple], folder: Path) -> Iterator[Callable[[EpochRecord], None]]:
    """Opens event files, and closes them at the end.

    Each TensorBoard run is named after its swept hyperparameters, such as "l2=0.001". Its values are means over its
    trials that have not diverged.

    Args:
      axes: as `Sweep.axes`.
      folder: for `tensorboard --logdir`.

    Yields:
      A function to call with the record of each epoch.
    """
    from tensorboardX import SummaryWriter  # of the extra "tensorboard"

    swept = [name for name, values in axes.items() if name not in REPLICATES and (name == "l2" or len(values) > 1)]
    trials = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    names = np.array([",".join(f"{name}={trial[name]:g}" for name in swept) for trial in trials])
    writers = {name: SummaryWriter(str(folder / name)) for name in dict.fromkeys(names.tolist())}

    def write(record: EpochRecord) -> None:
        record_names, finite = names[list(record.indices)], np.isfinite(record.metrics["val_loss"])
        for name in dict.fromkeys(record_names[finite].tolist()):
            rows = finite & (record_names == name)
            for metric, values in record.metrics.items():
                if values.ndim == 1:
                    writers[name].add_scalar(metric, float(values[rows].mean()), record.number)
            writers[name].flush()

    try:
        yield write
    finally:
        for writer in writers.values():
            writer.close()
