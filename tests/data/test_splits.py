from __future__ import annotations

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from l2jax.data.splits import count_examples, folds, split, with_label_noise
from l2jax.errors import InputError


def within_one_of_share(drawn: np.ndarray, source: np.ndarray) -> bool:
    """Whether each class has its share of `source` among `drawn`, rounded up or down; both are labels."""
    classes = range(source.max() + 1)
    shares = np.array([np.sum(source == label) * len(drawn) / len(source) for label in classes])
    counts = np.array([np.sum(drawn == label) for label in classes])
    return bool((np.abs(counts - shares) < 1).all())


@hypothesis.settings(database=None, deadline=None)
@hypothesis.given(st.data())
def test_split_is_exact_disjoint_and_stratified(data):
    labels = np.array(data.draw(st.lists(st.integers(0, 5), min_size=2, max_size=80)), np.int32)
    val_size = data.draw(st.integers(1, len(labels) - 1))
    train_size = data.draw(st.none() | st.integers(1, len(labels) - val_size))
    seed = data.draw(st.integers(0, 2**32))

    train, val = split(labels, seed, train_size, val_size)
    assert train.dtype == val.dtype == np.int32
    assert len(val) == val_size and len(train) == (train_size or len(labels) - val_size)
    both = np.concatenate([train, val])
    assert len(np.unique(both)) == len(both) and both.min() >= 0 and both.max() < len(labels)
    assert (np.diff(train) > 0).all() and (np.diff(val) > 0).all()
    assert within_one_of_share(labels[val], labels)
    assert within_one_of_share(labels[train], np.delete(labels, val))

    again_train, again_val = split(labels, seed, train_size, val_size)
    np.testing.assert_array_equal(again_train, train)
    np.testing.assert_array_equal(again_val, val)
    np.testing.assert_array_equal(split(labels, seed, None, val_size)[1], val)


def test_split_gives_each_example_the_same_chance():
    labels = np.repeat([0, 1, 2, 3], 3)
    seeds, train_counts, val_counts = 3000, np.zeros(12), np.zeros(12)
    for seed in range(seeds):
        train, val = split(labels, seed, 5, 2)  # neither size divides by the classes: ties decide
        train_counts[train] += 1
        val_counts[val] += 1
    for counts, chance in (train_counts, 5 / 12), (val_counts, 2 / 12):
        spread = np.sqrt(seeds * chance * (1 - chance))
        assert np.abs(counts - seeds * chance).max() < 4 * spread


def test_different_seeds_give_different_splits(digits):
    labels = digits.labels
    (first, first_val), (second, second_val) = split(labels, 0, 500, 500), split(labels, 1, 500, 500)
    for part in first, first_val, second, second_val:
        np.testing.assert_array_equal(np.bincount(labels[part]), [50] * 10)
    assert len(np.intersect1d(first_val, second_val)) < 100 and len(np.intersect1d(first, second)) < 100


@pytest.mark.parametrize(
    "train_size, val_size, message",
    [
        (None, 0, "^val_size: got 0; accepted: 1 or more, and fewer than all 10 examples$"),
        (None, -1, "^val_size: got -1; "),
        (None, 10, "^val_size: got 10; accepted: .* fewer than all 10 examples$"),
        (1, 11, "^val_size: got 11; "),
        (8, 3, "^train_size: got 8; accepted: 1 to 7, as val_size 3 is held out of 10 examples$"),
        (0, 3, "^train_size: got 0; "),
        (-1, 3, "^train_size: got -1; "),
    ],
)
def test_sizes_that_do_not_fit_are_refused(train_size, val_size, message):
    with pytest.raises(InputError, match=message):
        split(np.arange(10) % 2, 0, train_size, val_size)


@hypothesis.settings(database=None, deadline=None)
@hypothesis.given(st.data())
def test_folds_hold_each_example_once_and_are_stratified(data):
    labels = np.array(data.draw(st.lists(st.integers(0, 5), min_size=2, max_size=80)), np.int32)
    num_folds, seed = data.draw(st.integers(2, len(labels))), data.draw(st.integers(0, 2**32))

    parts = folds(labels, seed, num_folds)
    assert len(parts) == num_folds
    np.testing.assert_array_equal(np.sort(np.concatenate([val for _, val in parts])), np.arange(len(labels)))
    for train, val in parts:
        assert train.dtype == val.dtype == np.int32 and val.size and train.size
        assert (np.diff(train) > 0).all() and (np.diff(val) > 0).all()
        np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(len(labels)))
    assert np.ptp([len(val) for _, val in parts]) <= 1
    for label in range(6):
        assert np.ptp([np.sum(labels[val] == label) for _, val in parts]) <= 1

    for (train, val), (again_train, again_val) in zip(parts, folds(labels, seed, num_folds), strict=True):
        np.testing.assert_array_equal(again_train, train)
        np.testing.assert_array_equal(again_val, val)


def test_folds_pair_examples_of_a_class_equally_often():
    labels, seeds, num_folds = np.repeat([0, 1], 6), 3000, 4
    together = np.zeros((12, 12))
    for seed in range(seeds):
        for _, val in folds(labels, seed, num_folds):
            together[np.ix_(val, val)] += 1
    # A class has six examples for four folds: two folds hold two of them, so that of its 15 pairs 2 are together.
    for same_class in together[:6, :6], together[6:, 6:]:
        counts = same_class[np.triu_indices(6, 1)]
        assert np.abs(counts - seeds * 2 / 15).max() < 4 * np.sqrt(seeds * 2 / 15 * 13 / 15)


def test_different_seeds_give_different_folds(digits):
    first, second = (folds(digits.labels, seed, 3)[0][1] for seed in (0, 1))
    assert len(first) == len(second) == 1667
    assert len(np.intersect1d(first, second)) < 1667 / 2


@pytest.mark.parametrize("num_folds", [-1, 0, 1, 11])
def test_fold_counts_that_do_not_fit_are_refused(num_folds):
    with pytest.raises(InputError, match=f"^folds: got {num_folds}; accepted: 2 to 10, the number of examples$"):
        folds(np.arange(10) % 2, 0, num_folds)


@hypothesis.settings(database=None, deadline=None)
@hypothesis.given(st.data())
def test_label_noise_replaces_a_fraction_of_the_training_labels(data):
    num_classes = data.draw(st.integers(2, 5))
    labels = np.array(data.draw(st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=80)), np.uint8)
    train = np.array(data.draw(st.lists(st.integers(0, len(labels) - 1), min_size=1, unique=True)), np.int32)
    low, high = sorted(data.draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
    seed, clean = data.draw(st.integers(0, 2**32)), labels.copy()

    less, more = (with_label_noise(labels, train, seed, fraction, num_classes) for fraction in (low, high))
    np.testing.assert_array_equal(labels, clean)
    for noisy, fraction in (less, low), (more, high):
        assert noisy.dtype == np.int32 and noisy.min() >= 0 and noisy.max() < num_classes
        assert np.sum(noisy != labels) == round(fraction * len(train))
        assert np.isin(np.flatnonzero(noisy != labels), train).all()
    np.testing.assert_array_equal(less[less != labels], more[less != labels])
    np.testing.assert_array_equal(with_label_noise(labels, train, seed, high, num_classes), more)


def test_label_noise_is_uniform_over_examples_and_classes():
    labels, train, seeds = np.repeat([0, 1, 2, 3], 3), np.arange(8), 3000
    counts = np.zeros((12, 4))
    for seed in range(seeds):
        noisy = with_label_noise(labels, train, seed, 0.25, 4)
        counts[np.arange(12), noisy] += noisy != labels
    chance = 0.25 / 3
    others = counts[:8][np.arange(4) != labels[:8, None]]
    assert np.abs(others - seeds * chance).max() < 4 * np.sqrt(seeds * chance * (1 - chance))
    assert not counts[8:].any() and not counts[np.arange(12), labels].any()


def test_label_noise_does_not_follow_the_split_of_the_same_seed():
    labels, seeds, common = np.zeros(100, np.int32), 300, 0
    for seed in range(seeds):
        train, _ = split(labels, seed, None, 50)
        replaced = np.flatnonzero(with_label_noise(labels, np.arange(100), seed, 0.5, 2))
        common += len(np.intersect1d(train, replaced))
    # Half of the 50 by chance: hypergeometric, with a variance of 50/4 * 50/99 a seed.
    assert abs(common - 25 * seeds) < 4 * np.sqrt(seeds * 12.5 * 50 / 99)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, 20, float("nan")])
def test_label_noise_must_be_a_fraction(fraction):
    with pytest.raises(InputError, match=f"^label_noise: got {fraction}; accepted: a fraction, 0 to 1$"):
        with_label_noise(np.arange(4), np.arange(4), 0, fraction, 4)


def test_label_noise_needs_another_class():
    with pytest.raises(InputError, match=r"^label_noise: got 0.5; accepted: 0, as there is no other class"):
        with_label_noise(np.zeros(4, int), np.arange(4), 0, 0.5, 1)
    np.testing.assert_array_equal(with_label_noise(np.zeros(4, int), np.arange(4), 0, 0.0, 1), np.zeros(4))


@pytest.mark.parametrize(
    ("fraction", "total", "floor", "ceiling"), [(0.2, 5, 1, 1), (0.8, 5, 4, 4), (0.3, 5, 1, 2), (0.1, 1000, 100, 100)]
)
def test_fractions_are_rounded_as_in_scikit_learn(fraction, total, floor, ceiling):
    assert count_examples(fraction, total, math.floor) == floor
    assert count_examples(fraction, total, math.ceil) == ceiling
    assert count_examples(7, total, math.floor) == 7 and count_examples(None, total, math.floor) is None
