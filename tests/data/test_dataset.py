from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.fake_data import TRAP_FOR_TENSORFLOW, images_like, prepared, write_mnist

import l2jax.data.dataset
from l2jax.data.dataset import Dataset, as_dataset, load_dataset
from l2jax.data.tfds_decode import decode
from l2jax.errors import InputError

SCRIPT = Path(__file__).parents[2] / "scripts" / "embed_mnist.py"


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
    folder = Path(l2jax.data.dataset.__file__).parent / "embedded"
    assert 2e6 < sum(path.stat().st_size for path in folder.rglob("*")) < 3e6
    assert "Attribution-ShareAlike 3.0" in (folder / "LICENCE.md").read_text()


def test_loading_needs_no_tensorflow_and_is_silent():
    code = """
from l2jax.data.dataset import load_dataset
assert "tensorflow_datasets" not in sys.modules
assert len(load_dataset().images) == 5000
assert "tensorflow_datasets" in sys.modules and "tensorflow" not in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", TRAP_FOR_TENSORFLOW + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.full
@pytest.mark.skipif("L2JAX_DATA_DIR" not in os.environ, reason="L2JAX_DATA_DIR, with mnist/ in it, is not set")
def test_embedded_images_are_those_that_the_script_draws(script):
    folder, dataset = Path(os.environ["L2JAX_DATA_DIR"], "mnist"), load_dataset()
    for part, images, labels in [
        ("train", dataset.images, dataset.labels),
        ("test", dataset.test_images, dataset.test_labels),
    ]:
        expected_images, expected_labels = script.draw(folder, part)
        np.testing.assert_array_equal(images[..., 0], expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


def test_script_draws_the_same_balanced_parts_each_time(tmp_path):
    folder, zipped = tmp_path / "idx", tmp_path / "zipped"
    folder.mkdir()
    zipped.mkdir()
    parts = write_mnist(folder, 6000, 2400)
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

    written_parts = decode(tmp_path / "output" / "mnist_small" / "1.0.0")
    for split, prefix, per_digit in ("train", "", 500), ("test", "test_", 200):
        images, labels = written_parts[f"{prefix}images"], written_parts[f"{prefix}labels"]
        index = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 1, 0]
        assert (np.diff(index) > 0).all() and not images[:, 1:].any()
        np.testing.assert_array_equal(labels, parts[split][1][index])
        np.testing.assert_array_equal(np.bincount(labels), [per_digit] * 10)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64, None])
def test_plain_arrays_become_a_dataset(dtype):
    images = images_like(4, 5, 6)
    labels = [0, 2, 1, 2] if dtype is None else np.array([0, 2, 1, 2], dtype)
    for array in images, images[..., None], jnp.asarray(images):
        dataset = as_dataset((array, labels))
        assert dataset.num_classes == 3
        assert dataset.images.dtype == np.uint8 and dataset.labels.dtype == np.int32
        np.testing.assert_array_equal(dataset.images, images[..., None])
        np.testing.assert_array_equal(dataset.labels, [0, 2, 1, 2])
        assert dataset.test_images is None and dataset.test_labels is None
    assert as_dataset((images_like(4, 5, 6, 3), labels)).images.shape == (4, 5, 6, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(4, 9), (4, 5, 6), (4, 5, 6, 3), (4, 2, 3, 2, 1)])
def test_floats_of_any_type_and_shape_stay_as_they_are(dtype, shape):
    values = np.random.default_rng(0).normal(0, 100, shape).astype(dtype)
    for given in values, jnp.asarray(values), values.tolist():
        dataset = as_dataset((given, GOOD_LABELS))
        assert dataset.images.dtype == np.float32
        np.testing.assert_array_equal(dataset.images, values.astype(np.float32))


@pytest.mark.parametrize(
    "shape, expected", [((4, 9), (4, 9)), ((4, 5, 6), (4, 5, 6, 1)), ((4, 2, 3, 2, 1), (4, 2, 3, 2, 1))]
)
def test_bytes_get_a_channel_if_they_are_images_without_one(shape, expected):
    images = as_dataset((images_like(*shape), GOOD_LABELS)).images
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, images_like(*shape).reshape(expected))


def test_the_digest_covers_examples_and_names():
    """It is compared on --resume: that of data without names must stay as it is."""
    parts = {"images": GOOD_IMAGES, "labels": GOOD_LABELS, "test_images": GOOD_IMAGES[:3], "test_labels": [1, 0, 1]}
    dataset = Dataset("mine", **parts, num_classes=2)
    expected = hashlib.sha256(b"uint8(4, 5, 6, 1)" + GOOD_IMAGES.tobytes())
    expected.update(b"int32(4,)" + GOOD_LABELS.astype(np.int32).tobytes())
    expected.update(b"uint8(3, 5, 6, 1)" + GOOD_IMAGES[:3].tobytes())
    expected.update(b"int32(3,)" + np.array([1, 0, 1], np.int32).tobytes())
    assert dataset.digest == expected.hexdigest()
    others = [
        dataclasses.replace(dataset, class_names=("no", "yes")),
        dataclasses.replace(dataset, class_names=("yes", "no")),
        Dataset("mine", GOOD_IMAGES / 255, GOOD_LABELS, 2),
    ]
    assert len({dataset.digest, *(other.digest for other in others)}) == 4


def test_names_and_datasets_become_a_dataset(tmp_path):
    assert as_dataset("mnist_small").images.shape == (5000, 28, 28, 1)
    np.savez(tmp_path / "digits.npz", images=GOOD_IMAGES, labels=GOOD_LABELS)
    for path in tmp_path, tmp_path / "digits.npz", str(tmp_path):
        np.testing.assert_array_equal(as_dataset(path).images, GOOD_IMAGES[..., None])
    labels = np.array([0, 1, 1, 0])
    original = Dataset("mine", images_like(4, 5, 6), labels, 3, images_like(2, 5, 6), labels[:2])
    dataset = as_dataset(original)
    assert (dataset.name, dataset.num_classes) == ("mine", 3)
    assert dataset.images.shape == (4, 5, 6, 1) and dataset.test_images.shape == (2, 5, 6, 1)
    assert dataset.labels.dtype == dataset.test_labels.dtype == np.int32
    np.testing.assert_array_equal(dataset.test_labels, [0, 1])
    without_test = dataclasses.replace(original, test_images=None, test_labels=None)
    assert as_dataset(without_test).test_images is None


def assert_same(dataset: Dataset, images: np.ndarray, labels: np.ndarray, part: str = "") -> None:
    assert getattr(dataset, f"{part}images").dtype == np.uint8
    assert getattr(dataset, f"{part}labels").dtype == np.int32
    np.testing.assert_array_equal(getattr(dataset, f"{part}images"), images)
    np.testing.assert_array_equal(getattr(dataset, f"{part}labels"), labels)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (5, 7, 4)])
def test_prepared_data_sets_are_loaded_by_name(tmp_path, monkeypatch, shape):
    images, labels = images_like(6, *shape), np.array([0, 1, 1, 0, 2, 0])
    prepared(tmp_path, {"train": (images, labels), "test": (images[:2], labels[:2])}, num_classes=4)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for name in "made_up", "made_up:1.2.3", "made_up:1.*.*":
        for data_dir in None, tmp_path, str(tmp_path):
            dataset = load_dataset(name, data_dir)
            assert (dataset.name, dataset.num_classes) == (name, 4)
            assert_same(dataset, images, labels)
            assert_same(dataset, images[:2], labels[:2], "test_")
    with pytest.raises(InputError, match=r"^dataset: got made_up:2\.0\.0; accepted: "):
        load_dataset("made_up:2.0.0")


def test_npz_data_sets_are_loaded_by_path(tmp_path, monkeypatch):
    images, labels = images_like(6, 5, 7), np.array([0, 1, 1, 0, 2, 0])
    folder = tmp_path / "digits"
    folder.mkdir()
    np.savez(folder / "digits.npz", images=images, labels=labels, test_images=images[:1], test_labels=[4])
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    for path in folder, str(folder), "./", "../digits", "digits.npz", "./digits.npz", "~", "~/digits.npz":
        dataset = load_dataset(path)
        assert dataset.num_classes == 5 and dataset.name == str(Path(path))
        assert_same(dataset, images[..., None], labels)
        assert_same(dataset, images[:1, ..., None], [4], "test_")


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images": images_like(2, 5, 7), "labels": [0, -1]}, "got label -1; accepted: labels 0 to"),
        ({"images": images_like(2, 5, 7), "labels": [0, 1, 2]}, "got 2 images, labels of shape"),
        (
            {"x_train": images_like(2, 5, 7).astype(int), "y_train": [0, 1]},
            "got images of int64; accepted: images of uint8",
        ),
        (
            {"train_images": np.full((2, 5), np.nan), "train_labels": [0, 1]},
            "got images with 10 NaN or infinite values",
        ),
        ({"images": images_like(2, 5, 7), "labels": [0, 1], "test_labels": [0]}, "got no test_images"),
        (
            {"images": images_like(2, 5, 7), "labels": [[0, 1], [1, 1]]},
            r"got labels of shape \(2, 2\), row 1 not one-hot",
        ),
    ],
)
def test_unusable_arrays_in_a_file_name_the_file(tmp_path, arrays, message):
    path = tmp_path / "digits.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=f"^dataset: {path}: {message}"):
        load_dataset(path)


GOOD_IMAGES, GOOD_LABELS = images_like(4, 5, 6), np.array([0, 1, 1, 0])


def with_values(values):
    images = GOOD_IMAGES / 255
    for index, value in values.items():
        images[index] = value
    return images


@pytest.mark.parametrize(
    "given, message",
    [
        ("mnist_smal", "mnist_smal; accepted: mnist_small, .*a data set of tensorflow-datasets, or a path to .npz"),
        ("no such thing", "no such thing; accepted: mnist_small, a data set of tensorflow-datasets"),
        ("mnist:1.0.0", "mnist:1.0.0; accepted: mnist or mnist:3.0.1$"),
        ("mnist/upside_down", "mnist/upside_down; accepted: mnist or mnist:3.0.1$"),
        (7, "int; accepted: a name, a Dataset, or a tuple"),
        ((GOOD_IMAGES,), "tuple; accepted: a name, a Dataset, or a tuple"),
        (
            (with_values({(1, 2, 3): np.nan}), GOOD_LABELS),
            r"images with 1 NaN .*; the first other .* \[1, 2, 3\]$",
        ),
        (
            (with_values({(2, 0, 0): np.inf, (1, 4, 5): -np.inf}), GOOD_LABELS),
            r"images with 2 NaN or infinite values; .* \[1, 4, 5\]$",
        ),
        ((with_values({(3, 0, 1): 1e39}), GOOD_LABELS), r"images with 1 NaN .* \[3, 0, 1\]$"),
        ((np.full((40, 50, 60), np.nan), GOOD_LABELS), "images with 120,000 NaN or infinite values; accepted: finite"),
        ((GOOD_IMAGES.astype(int), GOOD_LABELS), "images of int64; accepted: images of uint8, .* or floats"),
        ((GOOD_IMAGES.astype(complex), GOOD_LABELS), "images of complex128; accepted: images of uint8"),
        ((GOOD_IMAGES > 9, GOOD_LABELS), "images of bool; accepted: images of uint8"),
        ((GOOD_IMAGES[:, 0, 0], GOOD_LABELS), r"images of shape \(4,\); accepted: \(N, H, W, C\)"),
        ((GOOD_IMAGES[0], GOOD_LABELS), r"5 images, labels of shape \(4,\); accepted"),
        ((GOOD_IMAGES[:0], GOOD_LABELS[:0]), r"images of shape \(0, 5, 6\); accepted: .* none of them 0"),
        ((GOOD_IMAGES[:, :0], GOOD_LABELS), r"images of shape \(4, 0, 6\); accepted: .* none of them 0"),
        (([[1, 2], [3]], GOOD_LABELS), "images that make no array"),
        ((GOOD_IMAGES, [[1, 2], [3]]), "labels that make no array"),
        ((GOOD_IMAGES, np.array([0, 1, np.nan, 0])), "labels of float64; accepted: labels of an integer"),
        ((GOOD_IMAGES, GOOD_LABELS == 1), "labels of bool; accepted: labels of an integer"),
        ((GOOD_IMAGES, GOOD_LABELS[:3]), r"4 images, labels of shape \(3,\); accepted: .* shape \(4,\)"),
        ((GOOD_IMAGES, np.eye(2, dtype=int)[GOOD_LABELS[:3]]), r"4 images, labels of shape \(3,\)"),
        ((GOOD_IMAGES, np.array([0, -1, 1, 0])), "label -1; accepted: labels 0 to"),
        ((GOOD_IMAGES, np.array([0, 2**40, 1, 0])), "label 1099511627776 for 4 examples; accepted: labels that count"),
    ],
)
def test_bad_data_is_refused_in_one_line(given, message, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match=f"^dataset: got {message}") as error:
        as_dataset(given)
    assert error.value.option == "dataset" and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"labels": GOOD_LABELS - 1}, "label -1; accepted: labels 0 to 1"),
        ({"labels": GOOD_LABELS + 1}, "label 2; accepted: labels 0 to 1"),
        ({"test_labels": GOOD_LABELS + 1}, "test label 2; accepted: labels 0 to 1"),
        ({"test_labels": GOOD_LABELS[1:]}, r"4 test images, test labels of shape \(3,\)"),
        ({"test_images": GOOD_IMAGES.astype(int)}, "test images of int64"),
        ({"test_images": GOOD_IMAGES[..., None] / 255}, "images of uint8, test images of float32; accepted"),
        ({"test_images": GOOD_IMAGES[:, 1:]}, r"images \(4, 5, 6, 1\), test images \(4, 4, 6, 1\)"),
        ({"class_names": ("no", "yes", "maybe")}, "class names no, yes, maybe; accepted: 2 names, one per class, each"),
        ({"class_names": ("no", "no")}, "class names no, no; accepted: 2 names"),
        ({"labels": list("abca"), "test_labels": list("abca")}, "class names a, b, c; accepted: 2 names"),
        ({"labels": list("abba")}, "test labels of int32; accepted: names"),
        ({"test_images": None}, "no test_images; accepted: test images and test labels"),
        ({"test_labels": None}, "no test_labels; accepted: test images and test labels"),
    ],
)
def test_a_dataset_is_checked_when_it_is_made(parts, message):
    good = Dataset("mine", GOOD_IMAGES, GOOD_LABELS, 2, GOOD_IMAGES, GOOD_LABELS)
    with pytest.raises(InputError, match=f"^dataset: got {message}") as error:
        dataclasses.replace(good, **parts)
    assert error.value.option == "dataset" and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["./" + "x" * 300, "~no_such_user_here/digits", "./a/b.npz", "/"])
def test_paths_that_lead_nowhere_are_refused_in_one_line(name):
    with pytest.raises(InputError, match=r"^dataset: .+: ") as error:
        load_dataset(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mnist_small", "mnist", "made_up", Path("digits.npz"), "./digits.npz"])
def test_an_image_size_is_for_folders_of_images(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    np.savez("digits.npz", images=GOOD_IMAGES, labels=GOOD_LABELS)
    with pytest.raises(InputError, match=r"^image_size: got 32; accepted: none, as \S+ is no folder of PNG or JPEG"):
        load_dataset(name, image_size=32)
