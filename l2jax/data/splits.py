"""Which examples a trial trains on and which it validates on, and labels made wrong on purpose. NumPy alone."""

from __future__ import annotations

import numpy as np

from l2jax.errors import InvalidInputError


def split(labels: np.ndarray, seed: int, train_size: int | None, val_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a training and a validation part, both stratified by class.

    The validation part holds every class in proportion to `labels`, and the training part in proportion to
    what the validation part leaves, each count rounded up or down so that the sizes are exact. One seed gives
    one split, and its validation part does not depend on `train_size`.

    Args:
      labels: (N,) integers.
      seed: of the draw, >= 0.
      train_size: examples in the training part; None: all that the validation part leaves.
      val_size: examples in the validation part.

    Returns:
      Training indices (train_size,) and validation indices (val_size,) into `labels`: int32, ascending,
      disjoint.

    Raises:
      InputError: for a part without examples, or parts larger than the data.
    """
    num_examples = len(labels)
    if not 1 <= val_size < num_examples:
        raise InvalidInputError("val_size", val_size, f"1 or more, and fewer than all {num_examples} examples")
    most = num_examples - val_size
    if train_size is not None and not 1 <= train_size <= most:
        accepted = f"1 to {most}, as val_size {val_size} is held out of {num_examples} examples"
        raise InvalidInputError("train_size", train_size, accepted)
    rng = np.random.default_rng(seed)
    everything = np.arange(num_examples, dtype=np.int32)
    val = _draw(rng, everything, labels, val_size)
    rest = np.setdiff1d(everything, val)
    return (rest if train_size is None else _draw(rng, rest, labels, train_size)), val


def subset(labels: np.ndarray, seed: int, train_size: int | None) -> np.ndarray:
    """Draws examples to train on where none are held out, stratified by class.

    Args:
      labels: (N,) integers.
      seed: of the draw, >= 0.
      train_size: how many; None: all.

    Returns:
      Indices (train_size,) into `labels`: int32, ascending.

    Raises:
      InputError: for more than there are.
    """
    everything = np.arange(len(labels), dtype=np.int32)
    if train_size is None:
        return everything
    if not 1 <= train_size <= len(labels):
        raise InvalidInputError("train_size", train_size, f"1 to {len(labels)}, the number of examples")
    return _draw(np.random.default_rng(seed), everything, labels, train_size)


def folds(labels: np.ndarray, seed: int, num_folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Deals the examples into folds for cross-validation, stratified by class.

    Each example is in the validation part of exactly one fold. Between folds the sizes of validation parts
    differ by at most 1, and so do the counts of each class in them; `num_folds` need not divide either.

    Args:
      labels: (N,) integers.
      seed: of the dealing, >= 0.
      num_folds: 2 to N.

    Returns:
      For each fold its training and its validation indices into `labels`: int32, ascending, together 0 to N-1.

    Raises:
      InputError: for fewer than 2 folds, or more than there are examples.
    """
    num_examples = len(labels)
    if not 2 <= num_folds <= num_examples:
        raise InvalidInputError("folds", num_folds, f"2 to {num_examples}, the number of examples")
    shuffled = np.random.default_rng(seed).permutation(num_examples).astype(np.int32)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    everything = np.arange(num_examples, dtype=np.int32)
    vals = [np.sort(by_class[fold::num_folds]) for fold in range(num_folds)]  # as cards are dealt
    return [(np.setdiff1d(everything, val), val) for val in vals]


def with_label_noise(labels: np.ndarray, train: np.ndarray, seed: int, fraction: float, num_classes: int) -> np.ndarray:
    """Replaces a fraction of the training labels by other classes, drawn uniformly; the others stay clean.

    The draw is independent of the one that `split` makes from the same seed. With one seed, the labels that a
    smaller fraction replaces are among those that a larger one does, by the same classes.

    Args:
      labels: (N,) integers in range(num_classes).
      train: (n,) indices into `labels`, each once: the examples that are trained on.
      seed: of the draw, >= 0.
      fraction: of the n labels, 0 to 1; their number is rounded to the nearest whole one.
      num_classes: at least 2, where a label is to be replaced.

    Returns:
      (N,) labels, int32: a copy.

    Raises:
      InputError: for a fraction outside 0 to 1, or a single class.
    """
    if not 0 <= fraction <= 1:
        raise InvalidInputError("label_noise", fraction, "a fraction, 0 to 1")
    if num_classes < 2 and fraction > 0:
        raise InvalidInputError("label_noise", fraction, "0, as there is no other class to replace labels by")
    noisy = labels.astype(np.int32)
    rng = np.random.default_rng([seed, 1])
    replaced = rng.permutation(train)[: round(fraction * len(train))]
    if replaced.size:
        noisy[replaced] += rng.integers(1, num_classes, len(train), np.int32)[: replaced.size]
        noisy[replaced] %= num_classes
    return noisy


def _draw(rng: np.random.Generator, indices: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    """Draws `size` of `indices`, every class in proportion: largest remainders, ties broken at random."""
    labels = labels[indices]
    classes, counts = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(size * counts, len(indices))
    by_remainder = np.lexsort((rng.permutation(len(classes)), -remainders))
    quotas[by_remainder[: size - quotas.sum()]] += 1
    drawn = [
        rng.choice(indices[labels == label], quota, replace=False) for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn))
