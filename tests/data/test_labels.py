from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2jax.data.arrays import read_images
from l2jax.data.labels import check_classes, read_labels
from l2jax.errors import InputError

INDICES = np.array([2, 0, 1, 2, 0])
NAMES = np.array(["emu", "cat", "dog", "emu", "cat"])


@pytest.mark.parametrize(
    "labels",
    [
        INDICES,
        INDICES[:, None].astype(np.uint8),
        INDICES.tolist(),
        np.eye(3)[INDICES],
        np.eye(3, dtype=bool)[INDICES],
        np.eye(3, dtype=np.int8)[INDICES].tolist(),
        jax.nn.one_hot(jnp.asarray(INDICES), 3, dtype=jnp.bfloat16),
    ],
)
def test_labels_of_every_form_become_integers(labels):
    parts, num_classes, class_names = read_labels({"": labels})
    assert parts[""].dtype == np.int32
    np.testing.assert_array_equal(parts[""], INDICES)
    assert (num_classes, class_names) == (3, None)


@pytest.mark.parametrize(
    "labels",
    [
        NAMES,
        NAMES[:, None],
        NAMES.tolist(),
        NAMES.astype("S"),
        NAMES.astype(object),
        NAMES.astype(np.dtypes.StringDType()),
        pd.Series(NAMES),
        pd.Categorical(NAMES),
    ],
)
def test_names_become_integers_in_sorted_order(labels):
    parts, num_classes, class_names = read_labels({"": labels})
    assert (num_classes, class_names) == (3, ("cat", "dog", "emu"))
    assert parts[""].dtype == np.int32
    np.testing.assert_array_equal(parts[""], INDICES)


def test_columns_of_one_hot_rows_are_classes_even_without_examples():
    assert read_labels({"": np.eye(5)[INDICES]}).num_classes == 5
    assert read_labels({"": INDICES, "test ": np.eye(5)[INDICES]}).num_classes == 5


def test_names_of_all_parts_are_classes():
    parts, num_classes, class_names = read_labels({"": ["dog", "cat"], "test ": ["emu", "cat", "ant"]})
    assert (num_classes, class_names) == (4, ("ant", "cat", "dog", "emu"))
    assert (parts[""].tolist(), parts["test "].tolist()) == ([2, 1], [3, 1, 0])


def test_class_names_decide_the_order_and_may_have_no_examples():
    names = ("emu", "dog", "cat", "ant")
    parts, num_classes, class_names = read_labels({"": NAMES}, 4, names)
    assert (num_classes, class_names) == (4, names)
    np.testing.assert_array_equal(np.array(names)[parts[""]], NAMES)


@given(st.lists(st.text("ab c\xe9", max_size=3), min_size=1))
def test_any_names_come_back(names):
    parts, num_classes, class_names = read_labels({"": names})
    assert list(class_names) == sorted({*names}) and num_classes == len(class_names)
    assert [class_names[label] for label in parts[""]] == names


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.array([0.0, 1.0]), "labels of float64; accepted: labels of an integer type, names, or one-hot rows"),
        (np.array([["a", "b"]]), r"labels of shape \(1, 2\); accepted: labels of shape \(N,\) or \(N, 1\), or one-hot"),
        (np.zeros((2, 1, 1), int), r"labels of shape \(2, 1, 1\); accepted"),
        (np.zeros((2, 0), int), r"labels of shape \(2, 0\); accepted"),
        (np.int64(3), r"labels of shape \(\); accepted"),
        (np.array(["a", None], object), "labels of object; accepted"),
        (np.array([[0, 1], [1, 1]]), r"labels of shape \(2, 2\), row 1 not one-hot; accepted: rows with a single 1"),
        (np.array([[0, 0], [1, 0]]), r"labels of shape \(2, 2\), row 0 not one-hot"),
        (np.array([[0, 1], [0.9, 0.1]]), r"labels of shape \(2, 2\), row 1 not one-hot"),
        (np.array([[0, 1], [np.nan, 1]]), r"labels of shape \(2, 2\), row 1 not one-hot"),
    ],
)
def test_other_labels_are_refused_in_one_line(labels, message):
    for prefix in "", "test ":
        with pytest.raises(InputError, match=f"^dataset: got {prefix}{message}"):
            read_labels({prefix: labels})


def test_labels_that_are_no_class_are_refused():
    with pytest.raises(InputError, match=r"got label emu; accepted: the classes cat, dog$"):
        read_labels({"": NAMES}, class_names=("cat", "dog"))
    with pytest.raises(InputError, match=r"got test label 3; accepted: labels 0 to 2$"):
        read_labels({"": INDICES, "test ": [3]}, 3)


def padded(*rows: list[int]) -> np.ndarray:
    length = max(map(len, rows)) + 1
    return np.array([row + [-1] * (length - len(row)) for row in rows])


def test_classes_with_enough_examples_are_not_warned_of():
    labels = np.arange(60) % 3
    parts = {"training": padded([*range(30)], [*range(15)]), "validation": padded([30, 31, 32]), "test": padded([])}
    assert check_classes(labels, parts, ["a", "b", "c"]) == []


def test_classes_without_examples_or_with_few_are_warned_of():
    labels = np.repeat([0, 1, 2, 3], [10, 4, 5, 9])  # 0-9, 10-13, 14-18, 19-27
    names = ["ant", "bee", "cat", "dog"]
    everything = padded([*range(28)])
    assert check_classes(labels, {"training": everything}, names) == [
        "the training part has fewer than 5 examples of class bee (4)"
    ]
    few = padded([0, 1, 2, 3, 4, 5, 10, 20, 21])
    assert check_classes(labels, {"training": few, "validation": few, "test": few[:, :6]}, names) == [
        "the training part has no example of class cat",
        "the training part has fewer than 5 examples of classes bee (1), dog (2)",
        "the validation part has no example of class cat",
        "the test part has no example of classes bee, cat, dog",
    ]


def test_parts_of_some_trials_are_told_apart():
    labels = np.repeat([0, 1], [10, 10])
    splits = padded([*range(17)], [*range(12)], [*range(10)])
    assert check_classes(labels, {"training": splits, "validation": splits[:2]}, ["ant", "bee"]) == [
        "the training part of some trials has no example of class bee"
    ]
    assert check_classes(labels, {"training": splits[:2]}, ["ant", "bee"]) == [
        "the training part of some trials has fewer than 5 examples of class bee (2)"
    ]


def test_many_classes_make_a_short_line():
    (line,) = check_classes(np.zeros(9, int), {"training": padded([*range(9)])}, [str(n) for n in range(100)])
    assert line == "the training part has no example of classes 1, 2, 3, 4, 5 and 94 more"


def test_labels_of_more_classes_than_examples_are_refused():
    message = r"^dataset: got label 1000000 for 8 examples; accepted: labels that count classes from 0, or names$"
    with pytest.raises(InputError, match=message):
        read_labels({"": INDICES, "test ": [0, 1, 1_000_000]})
    assert read_labels({"": [1, 8, 15] * 6}).num_classes == 16
    assert read_labels({"": [3]}, num_classes=10).num_classes == 10


def test_masked_values_are_refused():
    masked = np.ma.array(INDICES, mask=[False, True, False, True, False])
    with pytest.raises(
        InputError, match=r"^dataset: got labels with 2 masked values; accepted: arrays without a mask$"
    ):
        read_labels({"": masked})
    assert read_labels({"": np.ma.array(INDICES)}).num_classes == 3
    with pytest.raises(InputError, match=r"^dataset: got images with 4 masked values"):
        read_images("images", np.ma.array(np.zeros((1, 2, 2)), mask=True))
