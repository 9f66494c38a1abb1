"""Data sets: `uint8` images and labels in memory, from a name, a path or arrays."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from l2jax.data.formats import read_npz
from l2jax.data.tfds_read import data_root, decode, find_prepared, read_prepared
from l2jax.errors import InputError, InvalidInputError, UnusableFileError

EMBEDDED = {"mnist_small": Path(__file__).parent / "embedded" / "mnist_small" / "1.0.0"}
MAX_CLASSES = np.iinfo(np.int32).max  # where labels alone tell the number


@dataclasses.dataclass(frozen=True, eq=False)  # eq: arrays do not compare to one truth value
class Dataset:
    """Images and labels to train and validate on, and a test part where there is one.

    Images are 0 to 255, as (examples, height, width, channels); labels are in range(num_classes).
    """

    name: str
    images: np.ndarray
    """(N, H, W, C), uint8"""
    labels: np.ndarray
    """(N,), int32"""
    num_classes: int
    test_images: np.ndarray | None = None
    """(M, H, W, C), uint8"""
    test_labels: np.ndarray | None = None
    """(M,), int32"""

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all examples, in hexadecimal digits."""
        sha256 = hashlib.sha256()
        for array in (self.images, self.labels, self.test_images, self.test_labels):
            if array is not None:
                sha256.update(f"{array.dtype}{array.shape}".encode())
                sha256.update(np.ascontiguousarray(array).data)
        return sha256.hexdigest()


def load_dataset(
    name: str | os.PathLike[str] = "mnist_small", data_dir: str | os.PathLike[str] | None = None
) -> Dataset:
    """Loads a data set by name.

    Args:
      name: one of
        "mnist_small", which ships with the package: 5,000 training and 2,000 test images of MNIST, 28x28x1,
        equally many of each digit;
        an image classification data set of tensorflow-datasets, all images of one size, with config and version
        where wanted: "mnist", "emnist/letters", "mnist:3.0.1". The splits "train" and, if there is one, "test" are
        used. What is not prepared in `data_dir` is prepared first (see `l2jax.prepare`);
        a path to .npz files: it begins with "/", "./", "../" or "~", or ends in ".npz". One file holds `images`,
        `labels` and, if there is a test part, `test_images` and `test_labels` (or, as in Keras' mnist.npz,
        `x_train`, `y_train`, `x_test`, `y_test`); a folder holds one such file, or train.npz and test.npz, each
        with `images` and `labels`.
      data_dir: the folder that holds the data sets of tensorflow-datasets; by default the one of tfds,
        $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      InputError: for an unknown name; a data set that is no images of one size and a class label each, cannot be
        prepared, or would need TensorFlow for it; a file or folder that is missing, damaged or cannot be written.
    """
    if not isinstance(name, str) or re.match(r"\.{0,2}/|~|.*\.npz$", name):
        return _load_npz(Path(name))
    if name in EMBEDDED:
        return as_dataset(Dataset(name, **decode(EMBEDDED[name])))
    folder = find_prepared(name, data_root(data_dir))
    if folder is None:
        from l2jax.data.tfds_prepare import prepare  # imports tfds

        folder = prepare(name, data_dir)
    return as_dataset(Dataset(name, **read_prepared(folder)))


def _load_npz(path: Path) -> Dataset:
    arrays = read_npz(path.expanduser())
    try:
        return _with_num_classes(Dataset(str(path), **arrays, num_classes=MAX_CLASSES))
    except InputError as error:
        raise UnusableFileError("dataset", path, str(error).removeprefix("dataset: ")) from None


def as_dataset(dataset: str | Dataset | tuple[ArrayLike, ArrayLike]) -> Dataset:
    """Makes a checked `Dataset` of a name, of a `Dataset`, or of plain arrays.

    Args:
      dataset: a name for `load_dataset`; a `Dataset`; or `(images, labels)` with images (N, H, W, C) or
        (N, H, W), uint8, and labels (N,) of any integer type. Plain arrays have no test part, and
        max(labels) + 1 classes.

    Raises:
      InputError: for an unknown name, images or labels of another type or shape, different numbers of
        images and labels, no images at all, a label that is negative or not below `num_classes`, half a test
        part, or one with images of another shape.
    """
    if isinstance(dataset, str):
        return load_dataset(dataset)
    if isinstance(dataset, tuple) and len(dataset) == 2:
        images, labels = _array("images", dataset[0]), _array("labels", dataset[1])
        return _with_num_classes(Dataset("arrays", images, labels, MAX_CLASSES))
    if not isinstance(dataset, Dataset):
        accepted = "a name, a Dataset, or a tuple (images, labels)"
        raise InvalidInputError("dataset", type(dataset).__name__, accepted)

    num_classes, test_images, test_labels = dataset.num_classes, dataset.test_images, dataset.test_labels
    images, labels = _checked("", dataset.images, dataset.labels, num_classes)
    if test_images is not None and test_labels is not None:
        test_images, test_labels = _checked("test ", test_images, test_labels, num_classes)
        if test_images.shape[1:] != images.shape[1:]:
            shapes = f"images {images.shape}, test images {test_images.shape}"
            raise InvalidInputError("dataset", shapes, "images of one height, width and channel count")
    elif test_images is not None or test_labels is not None:
        missing = "test_images" if test_images is None else "test_labels"
        raise InvalidInputError("dataset", f"no {missing}", "test images and test labels, or neither")
    return Dataset(dataset.name, images, labels, num_classes, test_images, test_labels)


def _with_num_classes(dataset: Dataset) -> Dataset:
    """Checks a data set and counts its classes: up to the highest label."""
    checked = as_dataset(dataset)
    labels = [part for part in (checked.labels, checked.test_labels) if part is not None]
    return dataclasses.replace(checked, num_classes=int(np.concatenate(labels).max()) + 1)


def _checked(part: str, images: ArrayLike, labels: ArrayLike, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Checks a part, "" or "test ", and returns its images (N, H, W, C), uint8, and labels (N,), int32."""
    images, labels = _array(f"{part}images", images), _array(f"{part}labels", labels)
    if images.dtype != np.uint8:
        accepted = "images of uint8"
        if images.dtype.kind == "f":
            accepted += "; from floats in [0, 1]: (255 * images).round().astype('uint8')"
        raise InvalidInputError("dataset", f"{part}images of {images.dtype}", accepted)
    if images.ndim not in (3, 4) or images.size == 0:
        accepted = "(N, H, W, C) or (N, H, W), none of them 0"
        raise InvalidInputError("dataset", f"{part}images of shape {images.shape}", accepted)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InvalidInputError("dataset", f"{part}labels of {labels.dtype}", "labels of an integer type")
    if labels.shape != images.shape[:1]:
        shapes = f"{len(images)} {part}images, {part}labels of shape {labels.shape}"
        raise InvalidInputError("dataset", shapes, f"one label an image, that is shape ({len(images)},)")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise InvalidInputError("dataset", f"{part}label {wrong[0]}", f"labels 0 to {num_classes - 1}")
    return images.reshape(*images.shape[:3], -1), labels.astype(np.int32)


def _array(what: str, values: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError):  # such as nested lists of different lengths
        raise InvalidInputError("dataset", f"{what} that make no array", "arrays (images, labels)") from None
