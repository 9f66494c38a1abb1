"""Event files for TensorBoard, written at the end of each epoch: a run a setting."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from l2jax.results.metrics import REPLICATES

if TYPE_CHECKING:
    from l2jax.engine.snapshot import Epoch


@contextlib.contextmanager
def event_files(axes: dict[str, tuple], folder: Path) -> Iterator[Callable[[Epoch], None]]:
    """Makes event files, gives a function that writes an epoch into them, and closes them at the end.

    A run is named by its hyperparameters that took several values, such as "l2=0.001". Its values are means over its
    trials that have not diverged.

    Args:
      axes: as `Sweep.axes`.
      folder: for `tensorboard --logdir`.
    """
    from tensorboardX import SummaryWriter  # of the extra "tensorboard"

    named = [name for name, values in axes.items() if name not in REPLICATES and (name == "l2" or len(values) > 1)]
    grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    names = np.array([",".join(f"{name}={trial[name]:g}" for name in named) for trial in grid])
    writers = {name: SummaryWriter(str(folder / name)) for name in dict.fromkeys(names.tolist())}

    def write(epoch: Epoch) -> None:
        of_epoch = names[list(epoch.trials)]
        going_on = np.isfinite(epoch.metrics["val_loss"])
        for name in dict.fromkeys(of_epoch[going_on].tolist()):
            trials = going_on & (of_epoch == name)
            for metric, values in epoch.metrics.items():
                if values.ndim == 1:
                    writers[name].add_scalar(metric, float(values[trials].mean()), epoch.epoch)
            writers[name].flush()

    try:
        yield write
    finally:
        for writer in writers.values():
            writer.close()
