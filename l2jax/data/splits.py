"""Training and validation parts, by a random split or by folds, and labels made wrong on purpose. NumPy alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from l2jax.errors import InvalidInputError


def count_examples(size: float | None, num_examples: int, rounded: Callable[[float], int]) -> int | None:
    """The number of examples that a size stands for: a fraction, as scikit-learn takes them, a number, or None.

    Args:
      rounded: `math.floor` for training parts and `math.ceil` for others, so that fractions of 1 in all are all.
    """
    # Fractions have no exact floats: 0.2 of 5 is 1.
    return rounded(round(size * num_examples, 6)) if isinstance(size, float) else size


def split(labels: np.ndarray, seed: int, train_size: int | None, val_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a training and a validation part, both stratified by class.

    The validation part holds every class in proportion to `labels`, and the training part in proportion to the
    rest, each count rounded up or down so that the sizes are exact. One seed gives one split, and its validation
    part does not depend on `train_size`.

    Args:
      labels: (N,) integers.
      seed: seed of the draw, >= 0.
      train_size: examples in the training part; None takes all that are not held out.
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
    max_train_size = num_examples - val_size
    if train_size is not None and not 1 <= train_size <= max_train_size:
        accepted = f"1 to {max_train_size}, as val_size {val_size} is held out of {num_examples} examples"
        raise InvalidInputError("train_size", train_size, accepted)
    rng = np.random.default_rng(seed)
    all_indices = np.arange(num_examples, dtype=np.int32)
    val = _draw(rng, all_indices, labels, val_size)
    rest = np.setdiff1d(all_indices, val)
    return (rest if train_size is None else _draw(rng, rest, labels, train_size)), val


def subset(labels: np.ndarray, seed: int, train_size: int | None) -> np.ndarray:
    """Draws examples to train on where none are held out, stratified by class.

    Args:
      labels: (N,) integers.
      seed: seed of the draw, >= 0.
      train_size: number of examples; None takes all.

    Returns:
      Indices (train_size,) into `labels`: int32, ascending.

    Raises:
      InputError: for more examples than there are, or none.
    """
    all_indices = np.arange(len(labels), dtype=np.int32)
    if train_size is None:
        return all_indices
    if not 1 <= train_size <= len(labels):
        raise InvalidInputError("train_size", train_size, f"1 to {len(labels)}, the number of examples")
    return _draw(np.random.default_rng(seed), all_indices, labels, train_size)


def folds(labels: np.ndarray, seed: int, num_folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Deals the examples into folds for cross-validation, stratified by class.

    Each example is in the validation part of exactly one fold. Between folds the sizes of validation parts
    differ by at most 1, and so do the counts of each class in them; `num_folds` need not divide either.

    Args:
      labels: (N,) integers.
      seed: seed of the shuffle before dealing, >= 0.
      num_folds: 2 to N.

    Returns:
      For each fold the training and the validation indices into `labels`: int32, ascending, together 0 to N-1.

    Raises:
      InputError: for fewer than 2 folds, or more than there are examples.
    """
    num_examples = len(labels)
    if not 2 <= num_folds <= num_examples:
        raise InvalidInputError("folds", num_folds, f"2 to {num_examples}, the number of examples")
    shuffled = np.random.default_rng(seed).permutation(num_examples).astype(np.int32)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    all_indices = np.arange(num_examples, dtype=np.int32)
    vals = [np.sort(by_class[fold::num_folds]) for fold in range(num_folds)]  # as cards are dealt
    return [(np.setdiff1d(all_indices, val), val) for val in vals]


def with_label_noise(labels: np.ndarray, train: np.ndarray, seed: int, fraction: float, num_classes: int) -> np.ndarray:
    """Replaces a fraction of the training labels by other classes, drawn uniformly; the others stay clean.

    The draw is independent of the one that `split` makes from the same seed. For one seed, a larger fraction replaces
    a superset, with the same wrong labels.

    Args:
      labels: (N,) integers in range(num_classes).
      train: (n,) indices of the training examples, each once.
      seed: seed of the draw, >= 0.
      fraction: share of the n labels to replace, 0 to 1; their number is rounded to the nearest integer.
      num_classes: at least 2, unless the fraction is 0.

    Returns:
      A copy of the labels (N,), int32.

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
    """Draws `size` of `indices`, each class in proportion, by largest remainders; ties are broken at random."""
    labels = labels[indices]
    classes, counts = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(size * counts, len(indices))
    by_remainder = np.lexsort((rng.permutation(len(classes)), -remainders))
    quotas[by_remainder[: size - quotas.sum()]] += 1
    drawn = [
        rng.choice(indices[labels == label], quota, replace=False) for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn))
