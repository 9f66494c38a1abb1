"""One table of everything that is measured. Files, tables, figures, charts and sentences all look it up here."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import numpy as np

REPLICATES = ("seed", "fold")
"""Dimensions that repeat a setting, and that means are taken over. Trials with the same seed and fold are pairs."""


class Metric(NamedTuple):
    """A kind of number that is recorded of each trial.

    Attributes:
      name: its name in sentences.
      long_name: its definition in a few words, for files and axes.
      unit: "nat" for cross-entropies, otherwise "1".
      better: the direction of an improvement, if there is one.
      percent: whether it is a fraction that people read as a percentage, and its changes as points.
      dims: dimensions besides those of a trial.
      heading: its name in tables, if that differs from `name`.
      optional: whether results of older versions lack it.
    """

    name: str
    long_name: str
    unit: str = "1"
    better: Literal["lower", "higher"] | None = None
    percent: bool = False
    dims: tuple[str, ...] = ()
    heading: str = ""
    optional: bool = False


EPOCH, PER_LAYER = ("epoch",), ("epoch", "layer")
_loss = functools.partial(Metric, unit="nat", better="lower")
_accuracy = functools.partial(Metric, better="higher", percent=True)

METRICS = {
    # After each epoch
    "running_objective": _loss(
        "training objective while training",
        "training cross-entropy with the penalty, averaged while training",
        dims=EPOCH,
        optional=True,
    ),
    "running_accuracy": _accuracy(
        "training accuracy while training", "training accuracy, averaged while training", dims=EPOCH, optional=True
    ),
    "train_loss": _loss("training loss", "training cross-entropy, without the penalty", dims=EPOCH),
    "train_accuracy": _accuracy("training accuracy", "training accuracy", dims=EPOCH),
    "penalty": Metric("penalty", "penalty of the objective", unit="nat", dims=EPOCH),
    "val_loss": _loss("validation loss", "validation cross-entropy, without the penalty", dims=EPOCH),
    "val_accuracy": _accuracy("validation accuracy", "validation accuracy", dims=EPOCH),
    "val_ece": Metric(
        "calibration error", "validation calibration error", better="lower", percent=True, dims=EPOCH, optional=True
    ),
    "kernel_sum_of_squares": Metric("sum of squared kernels", "sum of squared kernels", dims=EPOCH),
    "kernel_norm": Metric("kernel norm", "Euclidean norm of a layer's kernel", dims=PER_LAYER, optional=True),
    # At the end
    "kernel_magnitudes": Metric(
        "kernel magnitudes",
        "values of a layer's kernel by magnitude, at the end",
        dims=("layer", "magnitude"),
        optional=True,
    ),
    "test_loss": _loss("test loss", "test cross-entropy at the end"),
    "test_accuracy": _accuracy("test accuracy", "test accuracy at the end"),
    "diverged": Metric("diverged", "the trial stopped being finite"),
    "diverged_epoch": Metric("epoch of divergence", "epoch in which it did, 0 if it did not", optional=True),
    "best_epoch": Metric("best epoch", "epoch of the lowest validation loss, 0 if there is none"),
}
"""Metrics that are recorded of every trial, in the order in which files hold them."""

OUTCOMES = {
    "gap": Metric(
        "gap between validation and training loss", "validation minus training loss", unit="nat", heading="gap"
    ),
    "accuracy_gap": Metric(
        "gap between validation and training accuracy", "validation minus training accuracy", percent=True
    ),
    "rise": _loss(
        "rise of validation loss after its lowest", "validation loss at the end minus its own lowest", heading="rise"
    ),
    "fall": Metric(
        "fall of validation accuracy after its highest",
        "highest validation accuracy minus that at the end",
        better="lower",
        percent=True,
        heading="fall",
    ),
}
"""Metrics that are derived from them for a finished trial: overfitting in its two meanings, for loss and accuracy."""

ALL_METRICS = METRICS | OUTCOMES

COORDINATES = {
    "seed": "seed of split, initial params and data order",
    "fold": "fold that is validated on",
    "epoch": "epochs finished",
    "layer": "layer",
    "magnitude": "magnitude of a kernel's value, the middle of its bin",
}
"""Long names of the dimensions that are not hyperparameters."""

RENAMED = {"l2_norm": "kernel_sum_of_squares"}
"""Present names of metrics, by their names in version 0.1."""

MAGNITUDE_EDGES = np.logspace(-7, 1, 33)
"""Bin edges, four per decade; the outermost bins are open."""
MAGNITUDES = np.sqrt(MAGNITUDE_EDGES[:-1] * MAGNITUDE_EDGES[1:])
"""The middle of each bin."""
