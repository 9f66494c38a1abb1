from __future__ import annotations

import dataclasses
import gzip
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

import l2jax.data
from l2jax.config import InvalidInput
from l2jax.data import Dataset, as_dataset, load_dataset, split

SCRIPT = Path(__file__).parents[1] / "scripts" / "embed_mnist.py"


@pytest.fixture(scope="module")
def script():
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def test_embedded_data_set_is_balanced_digits():
    dataset = load_dataset()
    assert (dataset.name, dataset.num_classes) == ("mnist_small", 10)
    assert dataset.images.shape == (5000, 28, 28, 1) and dataset.test_images.shape == (2000, 28, 28, 1)
    assert dataset.images.dtype == dataset.test_images.dtype == np.uint8
    assert dataset.labels.dtype == dataset.test_labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(dataset.labels), [500] * 10)
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), [200] * 10)
    together = np.concatenate([dataset.images, dataset.test_images]).reshape(7000, -1)
    assert len(np.unique(together, axis=0)) == 7000
    assert together.min() == 0 and together.max() == 255
    # Digits they are: the nearest class mean, the plainest classifier there is, gets MNIST's well-known 80 %.
    means = np.stack([dataset.images[dataset.labels == digit].mean(0).ravel() for digit in range(10)])
    test = dataset.test_images.reshape(2000, -1).astype(float)
    distances = (means**2).sum(1) - 2 * test @ means.T
    assert 0.75 < (distances.argmin(1) == dataset.test_labels).mean() < 0.9


def test_embedded_data_set_is_small_and_names_its_licence():
    folder = Path(l2jax.data.__file__).parent / "embedded"
    assert 2e6 < sum(path.stat().st_size for path in folder.rglob("*")) < 3e6
    assert "Attribution-ShareAlike 3.0" in (folder / "LICENCE.md").read_text()


def test_loading_needs_no_tensorflow_and_is_silent():
    code = """
import importlib.machinery, sys
class Trap:  # TensorFlow seems to be installed, but importing it ends the program
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "tensorflow" else None
    def create_module(self, spec):
        sys.exit("TensorFlow was imported")
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Trap())
from l2jax.data import load_dataset
assert "tensorflow_datasets" not in sys.modules
assert len(load_dataset().images) == 5000
assert "tensorflow_datasets" in sys.modules and "tensorflow" not in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(
    "L2JAX_MNIST_DIR" not in os.environ, reason="L2JAX_MNIST_DIR, MNIST's IDX files, is not set"
)
def test_embedded_images_are_the_ones_the_script_cuts(script):
    folder, dataset = Path(os.environ["L2JAX_MNIST_DIR"]), load_dataset()
    for part, images, labels in [
        ("train", dataset.images, dataset.labels),
        ("test", dataset.test_images, dataset.test_labels),
    ]:
        expected_images, expected_labels = script.cut(folder, part)
        np.testing.assert_array_equal(images[..., 0], expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture(scope="module")
def made_up_mnist(tmp_path_factory):
    """IDX files whose images hold their own index in their first two pixels; and the labels."""
    folder, labels = tmp_path_factory.mktemp("idx"), {}
    for prefix, size in [("train", 6000), ("t10k", 2400)]:
        images = np.zeros((size, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(size), 256)
        labels[prefix] = np.random.default_rng(1).permutation(np.arange(size) % 10).astype(np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels[prefix])
    return folder, labels


def test_script_cuts_balanced_parts_the_same_way_each_time(made_up_mnist, tmp_path):
    folder, labels = made_up_mnist
    zipped = tmp_path / "zipped"
    zipped.mkdir()
    for path in folder.iterdir():
        (zipped / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    written = []
    for source in folder, zipped:  # the second time in place of the first
        command = [sys.executable, str(SCRIPT), str(source), "--output", str(tmp_path / "output")]
        subprocess.run(command, check=True, capture_output=True)
        files = (tmp_path / "output").rglob("*")
        written.append({path.name: path.read_bytes() for path in files if path.is_file()})
    assert written[0] == written[1]
    assert not any(str(tmp_path).encode() in content for content in written[0].values())

    dataset = l2jax.data._read_tfds("made_up", tmp_path / "output" / "mnist_small" / "1.0.0")
    for prefix, images, drawn_labels, per_digit in [
        ("train", dataset.images, dataset.labels, 500),
        ("t10k", dataset.test_images, dataset.test_labels, 200),
    ]:
        index = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 1, 0]
        assert (np.diff(index) > 0).all() and not images[:, 1:].any()
        np.testing.assert_array_equal(drawn_labels, labels[prefix][index])
        np.testing.assert_array_equal(np.bincount(drawn_labels), [per_digit] * 10)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\0\0\x0d\x01\0\0\0\x01\0", "not an IDX file"),
        (b"\0\0\x08\x01\0\0\0\x02\0", "1 bytes of data instead of 2"),
    ],
)
def test_script_refuses_broken_idx_files(script, tmp_path, content, message):
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        script.read_idx(tmp_path, "labels")


def images_like(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64, None])
def test_plain_arrays_become_a_dataset(dtype):
    images = images_like(4, 5, 6)
    labels = [0, 2, 1, 2] if dtype is None else np.array([0, 2, 1, 2], dtype)
    for given in images, images[..., None], jnp.asarray(images):
        dataset = as_dataset((given, labels))
        assert dataset.num_classes == 3
        assert dataset.images.dtype == np.uint8 and dataset.labels.dtype == np.int32
        np.testing.assert_array_equal(dataset.images, images[..., None])
        np.testing.assert_array_equal(dataset.labels, [0, 2, 1, 2])
        assert dataset.test_images is None and dataset.test_labels is None
    assert as_dataset((images_like(4, 5, 6, 3), labels)).images.shape == (4, 5, 6, 3)


def test_names_and_datasets_become_a_dataset():
    assert as_dataset("mnist_small").images.shape == (5000, 28, 28, 1)
    labels = np.array([0, 1, 1, 0])
    given = Dataset("mine", images_like(4, 5, 6), labels, 3, images_like(2, 5, 6), labels[:2])
    dataset = as_dataset(given)
    assert (dataset.name, dataset.num_classes) == ("mine", 3)
    assert dataset.images.shape == (4, 5, 6, 1) and dataset.test_images.shape == (2, 5, 6, 1)
    assert dataset.labels.dtype == dataset.test_labels.dtype == np.int32
    np.testing.assert_array_equal(dataset.test_labels, [0, 1])
    without_test = dataclasses.replace(given, test_images=None, test_labels=None)
    assert as_dataset(without_test).test_images is None


GOOD_IMAGES, GOOD_LABELS = images_like(4, 5, 6), np.array([0, 1, 1, 0])


def changed(**parts: Any) -> Dataset:
    good = Dataset("mine", GOOD_IMAGES, GOOD_LABELS, 2, GOOD_IMAGES, GOOD_LABELS)
    return dataclasses.replace(good, **parts)


@pytest.mark.parametrize(
    "given, message",
    [
        ("imagenette", "imagenette; accepted: mnist_small"),
        (7, "int; accepted: a name, a Dataset, or a tuple"),
        ((GOOD_IMAGES,), "tuple; accepted: a name, a Dataset, or a tuple"),
        ((GOOD_IMAGES / 255, GOOD_LABELS), r"images of float64; accepted: images of uint8; .*255 \* images"),
        ((np.full((4, 5, 6), np.nan), GOOD_LABELS), "images of float64; accepted: images of uint8"),
        ((GOOD_IMAGES.astype(int), GOOD_LABELS), "images of int64; accepted: images of uint8$"),
        ((GOOD_IMAGES[0], GOOD_LABELS), r"images of shape \(5, 6\); accepted: \(N, H, W, C\)"),
        ((GOOD_IMAGES[..., None, None], GOOD_LABELS), r"images of shape .*; accepted: \(N, H, W, C\)"),
        ((GOOD_IMAGES[:0], GOOD_LABELS[:0]), r"images of shape \(0, 5, 6\); accepted: .* none of them 0"),
        ((GOOD_IMAGES[:, :0], GOOD_LABELS), r"images of shape \(4, 0, 6\); accepted: .* none of them 0"),
        (([[1, 2], [3]], GOOD_LABELS), "images that make no array"),
        ((GOOD_IMAGES, [[1, 2], [3]]), "labels that make no array"),
        ((GOOD_IMAGES, np.array([0, 1, np.nan, 0])), "labels of float64; accepted: labels of an integer"),
        ((GOOD_IMAGES, np.array(list("0110"))), "labels of <U1; accepted: labels of an integer"),
        ((GOOD_IMAGES, GOOD_LABELS == 1), "labels of bool; accepted: labels of an integer"),
        ((GOOD_IMAGES, GOOD_LABELS[:3]), r"4 images, labels of shape \(3,\); accepted: .* shape \(4,\)"),
        ((GOOD_IMAGES, np.eye(2, dtype=int)[GOOD_LABELS]), r"4 images, labels of shape \(4, 2\)"),
        ((GOOD_IMAGES, np.array([0, -1, 1, 0])), "label -1; accepted: labels 0 to"),
        ((GOOD_IMAGES, np.array([0, 2**40, 1, 0])), "label 1099511627776; accepted: labels 0 to"),
        (changed(labels=GOOD_LABELS - 1), "label -1; accepted: labels 0 to 1"),
        (changed(labels=GOOD_LABELS + 1), "label 2; accepted: labels 0 to 1"),
        (changed(test_labels=GOOD_LABELS + 1), "test label 2; accepted: labels 0 to 1"),
        (changed(test_labels=GOOD_LABELS[1:]), r"4 test images, test labels of shape \(3,\)"),
        (changed(test_images=GOOD_IMAGES / 255), "test images of float64"),
        (changed(test_images=GOOD_IMAGES[:, 1:]), r"images \(4, 5, 6, 1\), test images \(4, 4, 6, 1\)"),
        (changed(test_images=None), "no test_images; accepted: test images and test labels"),
        (changed(test_labels=None), "no test_labels; accepted: test images and test labels"),
    ],
)
def test_bad_data_is_refused_in_one_line(given, message):
    with pytest.raises(InvalidInput, match=f"^dataset: got {message}") as error:
        as_dataset(given)
    assert error.value.option == "dataset" and "\n" not in str(error.value)


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


def test_seeds_split_differently():
    labels = load_dataset().labels
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
    with pytest.raises(InvalidInput, match=message):
        split(np.arange(10) % 2, 0, train_size, val_size)
