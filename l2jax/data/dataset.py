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
from l2jax.data.tfds_read import data_root, find_prepared, read_prepared
from l2jax.errors import InputError, InvalidInputError, UnusableFileError

EMBEDDED = {"mnist_small": Path(__file__).parent / "embedded" / "mnist_small" / "1.0.0"}
MAX_CLASSES = np.iinfo(np.int32).max
"""The limit of labels until the classes have been counted."""


@dataclasses.dataclass(frozen=True, eq=False)  # eq: arrays do not compare to one truth value
class Dataset:
    """Images and labels to train and validate on, and a test part if there is one.

    Arrays are checked, and brought into the form below: images (N, H, W) become (N, H, W, 1), labels of any integer
    type become int32.

    Attributes:
      name: shown to people, and stored in the config.
      images: (N, H, W, C), uint8, 0 to 255.
      labels: (N,), int32, in range(num_classes).
      num_classes: the number of classes.
      test_images: (M, H, W, C), uint8, or None.
      test_labels: (M,), int32, or None.

    Raises:
      InputError: for images or labels of another type or shape, different numbers of images and labels, no images at
        all, a label that is negative or not below `num_classes`, half a test part, or one with images of another shape.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    test_images: np.ndarray | None = None
    test_labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        checked: dict[str, np.ndarray] = {}
        checked["images"], checked["labels"] = _checked("", self.images, self.labels, self.num_classes)
        if self.test_images is not None and self.test_labels is not None:
            test_images, test_labels = _checked("test ", self.test_images, self.test_labels, self.num_classes)
            if test_images.shape[1:] != checked["images"].shape[1:]:
                shapes = f"images {checked['images'].shape}, test images {test_images.shape}"
                raise InvalidInputError("dataset", shapes, "images of one height, width and channel count")
            checked |= {"test_images": test_images, "test_labels": test_labels}
        elif self.test_images is not None or self.test_labels is not None:
            missing = "test_images" if self.test_images is None else "test_labels"
            raise InvalidInputError("dataset", f"no {missing}", "test images and test labels, or neither")
        for field, array in checked.items():
            object.__setattr__(self, field, array)  # the class is frozen

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
        if wanted: "mnist", "emnist/letters", "mnist:3.0.1". The splits "train" and, if there is one, "test" are
        used. A data set that is not yet in `data_dir` is prepared first (see `l2jax.prepare`);
        a path to .npz files: it begins with "/", "./", "../" or "~", or ends in ".npz". One file holds `images`,
        `labels` and, if there is a test part, `test_images` and `test_labels` (or, as in Keras' mnist.npz,
        `x_train`, `y_train`, `x_test`, `y_test`); a folder holds one such file, or train.npz and test.npz, each
        with `images` and `labels`.
      data_dir: the folder that holds the data sets of tensorflow-datasets; by default the one of tfds,
        $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Returns:
      The data set, in memory.

    Raises:
      InputError: for an unknown name; a data set without labelled images of one size, or one that cannot be prepared,
        such as for lack of TensorFlow; a file or folder that is missing, damaged or cannot be written.
    """
    if not isinstance(name, str) or re.match(r"\.{0,2}/|~|.*\.npz$", name):
        return _load_npz(Path(name))
    # The modules imported below import tfds, which takes longer than reading a cache.
    if name in EMBEDDED:
        from l2jax.data.tfds_decode import decode

        return Dataset(name, **decode(EMBEDDED[name]))
    folder = find_prepared(name, data_root(data_dir))
    if folder is None:
        from l2jax.data.tfds_prepare import prepare

        folder = prepare(name, data_dir)
    return Dataset(name, **read_prepared(folder))


def as_dataset(dataset: str | Dataset | tuple[ArrayLike, ArrayLike]) -> Dataset:
    """Makes a `Dataset` of a name or of plain arrays; a `Dataset` stays as it is.

    Args:
      dataset: a name for `load_dataset`; a `Dataset`; or `(images, labels)` with images (N, H, W, C) or
        (N, H, W), uint8, and labels (N,) of any integer type. Plain arrays have no test part, and
        max(labels) + 1 classes.

    Returns:
      The data set, checked.

    Raises:
      InputError: for an unknown name, or arrays that `Dataset` does not accept.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if isinstance(dataset, str):
        return load_dataset(dataset)
    if isinstance(dataset, tuple) and len(dataset) == 2:
        images, labels = _array("images", dataset[0]), _array("labels", dataset[1])
        return _with_classes_counted(Dataset("arrays", images, labels, MAX_CLASSES))
    raise InvalidInputError("dataset", type(dataset).__name__, "a name, a Dataset, or a tuple (images, labels)")


def _load_npz(path: Path) -> Dataset:
    arrays = read_npz(path.expanduser())
    try:
        return _with_classes_counted(Dataset(str(path), **arrays, num_classes=MAX_CLASSES))
    except InputError as error:
        raise UnusableFileError("dataset", path, str(error).removeprefix("dataset: ")) from None


def _with_classes_counted(dataset: Dataset) -> Dataset:
    """Counts the classes of a data set: up to the highest label."""
    labels = [part for part in (dataset.labels, dataset.test_labels) if part is not None]
    return dataclasses.replace(dataset, num_classes=int(np.concatenate(labels).max()) + 1)


def _checked(prefix: str, images: ArrayLike, labels: ArrayLike, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Checks one part, named by "" or "test ", and returns its images (N, H, W, C), uint8, and labels (N,), int32."""
    images, labels = _array(f"{prefix}images", images), _array(f"{prefix}labels", labels)
    if images.dtype != np.uint8:
        accepted = "images of uint8"
        if images.dtype.kind == "f":
            accepted += "; from floats in [0, 1]: (255 * images).round().astype('uint8')"
        raise InvalidInputError("dataset", f"{prefix}images of {images.dtype}", accepted)
    if images.ndim not in (3, 4) or images.size == 0:
        accepted = "(N, H, W, C) or (N, H, W), none of them 0"
        raise InvalidInputError("dataset", f"{prefix}images of shape {images.shape}", accepted)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InvalidInputError("dataset", f"{prefix}labels of {labels.dtype}", "labels of an integer type")
    if labels.shape != images.shape[:1]:
        shapes = f"{len(images)} {prefix}images, {prefix}labels of shape {labels.shape}"
        raise InvalidInputError("dataset", shapes, f"one label per image, that is shape ({len(images)},)")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise InvalidInputError("dataset", f"{prefix}label {wrong[0]}", f"labels 0 to {num_classes - 1}")
    return images.reshape(*images.shape[:3], -1), labels.astype(np.int32)


def _array(name: str, values: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError):  # such as nested lists of different lengths
        raise InvalidInputError("dataset", f"{name} that make no array", "arrays (images, labels)") from None
