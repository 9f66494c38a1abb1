"""The examples that all trials share, with the parts that each seed and fold trains, validates and tests on."""

from __future__ import annotations

import math
import warnings

import numpy as np

from l2jax.config import SweepConfig
from l2jax.data.dataset import Dataset
from l2jax.data.labels import check_classes
from l2jax.data.splits import count_examples, folds, split, subset, with_label_noise
from l2jax.errors import InvalidInputError, SweepWarning
from l2jax.trial.train import Examples, Part

EVALUATION_BATCH = 32
"""Examples to evaluate at a time on CPU: they fit the cache of a core (measured), and little of the last is padding."""
EVALUATED_AT_ONCE = 2**14
"""Examples to evaluate at a time on accelerators, over all trials: enough to keep one busy, in little memory."""


def make_examples(config: SweepConfig, dataset: Dataset) -> Examples:
    """NumPy arrays of all examples; parts are padded to whole batches of training and of evaluation.

    Raises:
      InputError: for parts that the data set has not the examples for.
    """
    images, labels, test = dataset.images, dataset.labels, _test_part(dataset)
    if config.val_size == "test" and not len(test):
        raise InvalidInputError("val_size", "test", f"a whole number >= 1, as {dataset.name} has no test part")
    if dataset.test_images is not None and dataset.test_labels is not None:
        images = np.concatenate((images, dataset.test_images))
        labels = np.concatenate((labels, dataset.test_labels))
    splits = [(*train_and_val, test) for train_and_val in _splits(config, dataset)]
    largest = max(len(part) for parts in splits for part in parts)
    length = max(math.ceil(largest / size) * size for size in (config.batch_size, EVALUATION_BATCH))
    parts = np.full((len(Part), len(splits), length), -1, np.int32)
    train_labels = np.empty((len(splits), len(labels)), np.int32)
    for row, indices_by_part in enumerate(splits):
        for part, indices in zip(Part, indices_by_part, strict=True):
            parts[part, row, : len(indices)] = indices
        seed, noise = row // config.folds, config.label_noise
        train_labels[row] = with_label_noise(labels, indices_by_part[Part.TRAIN], seed, noise, dataset.num_classes)
    return Examples._make((images, labels, train_labels, parts))


def check_classes_differ(dataset: Dataset) -> None:
    """Raises InputError if all examples are of one class: there is nothing to learn."""
    first = dataset.labels[0]
    if (dataset.labels == first).all():
        label = dataset.class_names[first] if dataset.class_names else first
        raise InvalidInputError("dataset", f"labels that are all {label}", "examples of two classes or more")


def evaluation_batch(platform: str, side_by_side: int) -> int:
    """Examples to evaluate at a time, for each of the trials that a device works on at a time."""
    if platform == "cpu":
        return EVALUATION_BATCH
    return min(1024, max(EVALUATION_BATCH, 2 ** int(math.log2(EVALUATED_AT_ONCE / side_by_side))))


def warn_of_classes(examples: Examples, dataset: Dataset) -> tuple[str, ...]:
    """Warns of classes that have no or very few examples in a part, and returns what it says."""
    names = dataset.class_names or [str(label) for label in range(dataset.num_classes)]
    train, val, test = np.asarray(examples.parts)
    parts = {"training": train, "validation": val, "test": test}
    lines = check_classes(np.asarray(examples.labels), parts, names)
    for line in lines:
        warnings.warn(line, SweepWarning, stacklevel=2)
    return tuple(lines)


def _splits(config: SweepConfig, dataset: Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and validation indices: seed by seed, and within a seed fold by fold."""
    labels, splits = dataset.labels, []
    assert config.train_size != "auto"  # the config has replaced it
    train_size = count_examples(config.train_size, len(labels), math.floor)
    for seed in range(config.seeds):
        if config.folds > 1:
            indices = subset(labels, seed, train_size)
            splits += [(indices[train], indices[val]) for train, val in folds(labels[indices], seed, config.folds)]
        elif config.val_size == "test":
            splits.append((subset(labels, seed, train_size), _test_part(dataset)))
        else:
            assert not isinstance(config.val_size, str)  # the config has checked it
            val_size = count_examples(config.val_size, len(labels), math.ceil)
            assert val_size is not None
            splits.append(split(labels, seed, train_size, val_size))
    return splits


def _test_part(dataset: Dataset) -> np.ndarray:
    num_test = 0 if dataset.test_labels is None else len(dataset.test_labels)
    return np.arange(len(dataset.labels), len(dataset.labels) + num_test, dtype=np.int32)
