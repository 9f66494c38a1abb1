"""Class labels: the forms that they are accepted in, and classes that have too few examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from l2jax.data.arrays import as_array
from l2jax.errors import InvalidInputError

MAX_CLASSES = np.iinfo(np.int32).max
FEWEST_EXAMPLES = 5
"""A class with fewer examples to train on is warned of."""


class Labels(NamedTuple):
    """The labels of a data set.

    Attributes:
      parts: (N,), int32, in range(num_classes), by the prefix of the part: "" or "test ".
      num_classes: the number of classes.
      class_names: by class; None for classes without names.
    """

    parts: dict[str, np.ndarray]
    num_classes: int
    class_names: tuple[str, ...] | None


def read_labels(
    parts: Mapping[str, ArrayLike], num_classes: int | None = None, class_names: Sequence[str] | None = None
) -> Labels:
    """Brings labels into one form.

    Args:
      parts: labels by the prefix of the part: integers or names, (N,) or (N, 1), or one-hot rows (N, classes).
      num_classes: None counts them: the columns of one-hot rows, or up to the highest label.
      class_names: by class. None sorts the names that the labels of all parts have, if they are names.

    Raises:
      InputError: for labels of another type or shape, that are not below `num_classes`, or that would make more classes
        than there are examples; for class names that are not one per class, each once.
    """
    rows = {prefix: as_array(f"{prefix}labels", labels) for prefix, labels in parts.items()}
    columns = [labels.shape[1] for labels in rows.values() if labels.ndim == 2 and labels.shape[1] > 1]
    arrays = {prefix: _flattened(prefix, labels) for prefix, labels in rows.items()}
    if as_names := [labels for labels in arrays.values() if labels.dtype.kind == "U"]:
        names = np.unique(np.concatenate(as_names)).tolist() if class_names is None else class_names
        arrays = {prefix: _from_names(prefix, labels, names) for prefix, labels in arrays.items()}
        class_names = names
    counted = [int(labels.max()) + 1 for labels in arrays.values() if labels.size]
    known = max([1, *columns, *counted]) if class_names is None else len(class_names)
    count = known if num_classes is None else num_classes
    num_examples = sum(map(len, arrays.values()))
    if num_classes is None and class_names is None and count > max([num_examples, *columns]) > 0:
        given, accepted = f"label {count - 1} for {num_examples} examples", "labels that count classes from 0, or names"
        raise InvalidInputError("dataset", given, accepted)
    if class_names is not None and not len(class_names) == len({*class_names}) == count:
        given, accepted = f"class names {', '.join(class_names)}", f"{count} names, one per class, each once"
        raise InvalidInputError("dataset", given, accepted)
    highest = min(count, MAX_CLASSES) - 1
    for prefix, labels in arrays.items():
        wrong = labels[(labels < 0) | (labels > highest)]
        if wrong.size:
            raise InvalidInputError("dataset", f"{prefix}label {wrong[0]}", f"labels 0 to {highest}")
    checked = {prefix: labels.astype(np.int32) for prefix, labels in arrays.items()}
    return Labels(checked, count, None if class_names is None else tuple(class_names))


def _flattened(prefix: str, labels: np.ndarray) -> np.ndarray:
    """Labels (N,): integers, or names as str."""
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind not in "OSTU":
        labels = _from_one_hot(prefix, labels)
    elif labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        accepted = "labels of shape (N,) or (N, 1), or one-hot rows (N, classes)"
        raise InvalidInputError("dataset", f"{prefix}labels of shape {labels.shape}", accepted)
    if labels.dtype.kind == "S":
        return np.char.decode(labels, errors="backslashreplace")
    if labels.dtype.kind in "UT" or (labels.dtype == object and all(isinstance(label, str) for label in labels)):
        return np.array(labels.tolist(), str)
    if not np.issubdtype(labels.dtype, np.integer):
        accepted = "labels of an integer type, names, or one-hot rows"
        raise InvalidInputError("dataset", f"{prefix}labels of {labels.dtype}", accepted)
    return labels


def _from_one_hot(prefix: str, rows: np.ndarray) -> np.ndarray:
    ones = rows == 1
    is_one_hot = (ones | (rows == 0)).all(1) & (ones.sum(1) == 1)
    if not is_one_hot.all():
        row = int(is_one_hot.argmin())
        accepted = "rows with a single 1 and otherwise 0, or one label per example"
        raise InvalidInputError("dataset", f"{prefix}labels of shape {rows.shape}, row {row} not one-hot", accepted)
    return ones.argmax(1)


def _from_names(prefix: str, labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    if labels.dtype.kind != "U":
        raise InvalidInputError("dataset", f"{prefix}labels of {labels.dtype}", "names, as the other part has")
    order = {name: index for index, name in enumerate(class_names)}
    names, inverse = np.unique(labels, return_inverse=True)
    if unknown := [name for name in names.tolist() if name not in order]:
        raise InvalidInputError("dataset", f"{prefix}label {unknown[0]}", f"the {_listed(class_names)}")
    return np.array([order[name] for name in names.tolist()], np.int64)[inverse]


def check_classes(labels: np.ndarray, parts: Mapping[str, np.ndarray], class_names: Sequence[str]) -> list[str]:
    """Warns of classes that have no examples in a part, or too few to learn from in the training part.

    Args:
      labels: (N,) integers in range(len(class_names)).
      parts: (splits, L) indices into `labels`, padded with -1, by the part's name: "training", "validation", "test".
        A part without examples is not there.
      class_names: by class.

    Returns:
      Lines, at most one per part for absent classes and one for classes that are rare in training; none if all is well.
    """
    lines = []
    for part, splits in parts.items():
        counts = np.array([np.bincount(labels[row[row >= 0]], minlength=len(class_names)) for row in splits])
        if not counts.any():
            continue
        fewest, most = counts.min(0), counts.max(0)
        absent, rare = fewest == 0, (fewest > 0) & (fewest < FEWEST_EXAMPLES)
        if absent.any():
            trials = "" if (most[absent] == 0).all() else " of some trials"
            classes = _listed([class_names[int(index)] for index in np.flatnonzero(absent)])
            lines.append(f"the {part} part{trials} has no example of {classes}")
        if part == "training" and rare.any():
            trials = "" if (most[rare] < FEWEST_EXAMPLES).all() else " of some trials"
            classes = _listed([f"{class_names[int(index)]} ({fewest[index]})" for index in np.flatnonzero(rare)])
            lines.append(f"the {part} part{trials} has fewer than {FEWEST_EXAMPLES} examples of {classes}")
    return lines


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ("class " if len(names) == 1 else "classes ") + ", ".join(names[:most]) + more
