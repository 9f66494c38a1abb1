"""From a config and a data set to the arrays that the engine works on: the grid of trials, and what they share."""

from __future__ import annotations

import itertools

import numpy as np

from l2jax.config import SweepConfig
from l2jax.data.dataset import Dataset
from l2jax.data.splits import folds, split, subset, with_label_noise
from l2jax.errors import InvalidInputError
from l2jax.trial.train import Data, Part, Trial

EVALUATION_BATCH = 32
"""Fits the cache of a core (measured), and leaves few places of the last batch empty."""


def make_trials(axes: dict[str, tuple]) -> Trial:
    """Every combination of the axes' values, the last axis fastest."""
    columns = dict(zip(axes, np.array(list(itertools.product(*axes.values()))).T, strict=True))
    columns["split"] = columns["seed"] * len(axes["fold"]) + columns["fold"]
    types = {"seed": np.uint32, "split": np.int32}
    return Trial._make(columns[name].astype(types.get(name, np.float32)) for name in Trial._fields)


def share_data(config: SweepConfig, dataset: Dataset) -> Data:
    """What all trials share, as NumPy arrays: parts have room for whole batches of training and of evaluation.

    Raises:
      InputError: for parts that the data set has not the examples for.
    """
    images, labels, test = dataset.images, dataset.labels, _test_part(dataset)
    if config.val_size == "test" and not len(test):
        raise InvalidInputError("val_size", "test", f"a whole number >= 1, as {dataset.name} has no test part")
    if dataset.test_images is not None and dataset.test_labels is not None:
        images = np.concatenate((images, dataset.test_images))
        labels = np.concatenate((labels, dataset.test_labels))
    splits = [(*examples, test) for examples in _splits(config, dataset)]
    most = max(len(part) for parts in splits for part in parts)
    room = max(most + -most % batch_size for batch_size in (config.batch_size, EVALUATION_BATCH))
    parts = np.full((len(splits[0]), len(splits), room), -1, np.int32)
    train_labels = np.empty((len(splits), len(labels)), np.int32)
    for number, examples in enumerate(splits):
        for part, indices in enumerate(examples):
            parts[part, number, : len(indices)] = indices
        seed = number // config.folds
        noise = config.label_noise
        train_labels[number] = with_label_noise(labels, examples[Part.TRAIN], seed, noise, dataset.num_classes)
    return Data._make((images, labels, train_labels, parts))


def _splits(config: SweepConfig, dataset: Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and validation indices: seed by seed, and within it fold by fold."""
    labels, splits = dataset.labels, []
    for seed in range(config.seeds):
        if config.folds > 1:
            dealt = subset(labels, seed, config.train_size)
            splits += [(dealt[fit], dealt[val]) for fit, val in folds(labels[dealt], seed, config.folds)]
        elif config.val_size == "test":
            splits.append((subset(labels, seed, config.train_size), _test_part(dataset)))
        else:
            assert isinstance(config.val_size, int)  # the config has checked it
            splits.append(split(labels, seed, config.train_size, config.val_size))
    return splits


def _test_part(dataset: Dataset) -> np.ndarray:
    num_test = 0 if dataset.test_labels is None else len(dataset.test_labels)
    return np.arange(len(dataset.labels), len(dataset.labels) + num_test, dtype=np.int32)
