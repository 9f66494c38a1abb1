"""Data sets: images and labels in memory, from a name, a path or arrays."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from l2jax.config import is_dataset_path
from l2jax.data.arrays import read_images
from l2jax.data.formats import read_npz
from l2jax.data.labels import read_labels
from l2jax.data.photos import Progress, is_photo_folder, read_photos
from l2jax.data.tfds_read import data_root, find_prepared, read_prepared
from l2jax.errors import InputError, InvalidInputError, UnusableFileError, reason

EMBEDDED = {"mnist_small": Path(__file__).parent / "embedded" / "mnist_small" / "1.0.0"}


@dataclasses.dataclass(frozen=True, eq=False)  # eq: arrays do not compare to one truth value
class Dataset:
    """Examples to train and validate on, and a test part if there is one.

    Arrays are checked, and brought into the form below. Networks get `uint8` images as floats in [0, 1], and float
    images as they are: scaling those is up to you.

    Attributes:
      name: shown to people, and stored in the config.
      images: (N, ...), of any rank. `uint8`, 0 to 255, of which (N, H, W) become (N, H, W, 1); or any float type,
        which becomes `float32`, and has no NaN or infinite values.
      labels: (N,), int32, in range(num_classes). Any integer type is accepted, also as (N, 1) or as one-hot rows
        (N, num_classes), and so are the classes' names.
      num_classes: the number of classes.
      test_images: (M, ...), of the type and shape of `images`, or None.
      test_labels: (M,), int32, or None.
      class_names: by class; None for classes without names. Labels that are names have them in sorted order, unless
        another one is given here.

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
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        images, labels = {"": self.images}, {"": self.labels}
        if self.test_images is not None and self.test_labels is not None:
            images, labels = images | {"test ": self.test_images}, labels | {"test ": self.test_labels}
        elif self.test_images is not None or self.test_labels is not None:
            missing = "test_images" if self.test_images is None else "test_labels"
            raise InvalidInputError("dataset", f"no {missing}", "test images and test labels, or neither")
        images = {prefix: read_images(f"{prefix}images", array) for prefix, array in images.items()}
        labels, _, class_names = read_labels(labels, self.num_classes, self.class_names)
        for prefix, array in images.items():
            if labels[prefix].shape != array.shape[:1]:
                shapes = f"{len(array)} {prefix}images, {prefix}labels of shape {labels[prefix].shape}"
                raise InvalidInputError("dataset", shapes, f"one label per image, that is shape ({len(array)},)")
        first, last = images[""], images["test " if "test " in images else ""]
        if last.shape[1:] != first.shape[1:]:
            shapes = f"images {first.shape}, test images {last.shape}"
            raise InvalidInputError("dataset", shapes, "images of one height, width and channel count")
        if last.dtype != first.dtype:
            types = f"images of {first.dtype}, test images of {last.dtype}"
            raise InvalidInputError("dataset", types, "images of one type")
        checked = {"images": first, "labels": labels[""], "class_names": class_names}
        if self.test_images is not None:
            checked |= {"test_images": last, "test_labels": labels["test "]}
        for field, value in checked.items():
            object.__setattr__(self, field, value)  # the class is frozen

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all examples and the classes' names, in hexadecimal digits."""
        sha256 = hashlib.sha256()
        for array in (self.images, self.labels, self.test_images, self.test_labels):
            if array is not None:
                sha256.update(f"{array.dtype}{array.shape}".encode())
                sha256.update(np.ascontiguousarray(array).data)
        if self.class_names:
            sha256.update(json.dumps(self.class_names).encode())
        return sha256.hexdigest()


def load_dataset(
    name: str | os.PathLike[str] = "mnist_small",
    data_dir: str | os.PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Loads a data set by name or path.

    Args:
      name: one of
        "mnist_small", which ships with the package: 5,000 training and 2,000 test images of MNIST, 28x28x1,
        equally many of each digit;
        an image classification data set of tensorflow-datasets, all images of one size, with config and version
        if wanted: "mnist", "emnist/letters", "mnist:3.0.1". The splits "train" and, if there is one, "test" are
        used. A data set that is not yet in `data_dir` is prepared first (see `l2jax.prepare`);
        a path: a `Path`, or a name that begins with "/", "./", "../" or "~", or ends in ".npz". It leads to
        a .npz file with `images`, `labels` and, if there is a test part, `test_images` and `test_labels`. As in Keras'
        mnist.npz they may be called `x_train`, `y_train`, `x_test` and `y_test`, and as in MedMNIST `train_images` and
        `train_labels`; MedMNIST's `val_images` are trained on, too, as every seed holds out a validation part itself;
        a folder of one such file, or of train.npz and test.npz, each with `images` and `labels`;
        or a folder with one sub-folder of PNG or JPEG files per class, or such folders in its sub-folders train, test
        and val, which is trained on, too. These images become RGB unless all are greyscale. They are decoded once, and
        kept in $XDG_CACHE_HOME/l2jax.
      data_dir: the folder that holds the data sets of tensorflow-datasets; by default the one of tfds,
        $TFDS_DATA_DIR or ~/tensorflow_datasets.
      image_size: for folders of PNG or JPEG files: the shorter side of an image is scaled to it, and the longer one
        cropped around the centre. Without it, the images must have one size.
      progress: is called while images of such a folder are decoded, with the number of those decoded and of all.

    Returns:
      The data set, in memory.

    Raises:
      InputError: for an unknown name; a data set without labelled images of one size, or one that cannot be prepared,
        be it for lack of TensorFlow; a file or folder that is missing, damaged or cannot be written; an `image_size`
        for anything but a folder of PNG or JPEG files.
    """
    if not isinstance(name, str) or is_dataset_path(name):
        return _load_path(Path(name), image_size, progress)
    _refuse_image_size(name, image_size)
    # The imports below are of tfds, which takes longer than reading a cache.
    if name in EMBEDDED:
        from l2jax.data.tfds_decode import decode

        return Dataset(name, **decode(EMBEDDED[name]))
    folder = find_prepared(name, data_root(data_dir))
    if folder is None:
        from l2jax.data.tfds_prepare import prepare

        folder = prepare(name, data_dir)
    return Dataset(name, **read_prepared(folder))


def as_dataset(dataset: str | os.PathLike[str] | Dataset | tuple[ArrayLike, ArrayLike]) -> Dataset:
    """Makes a `Dataset` of a name or of plain arrays; a `Dataset` stays as it is.

    Args:
      dataset: a name or path for `load_dataset`; a `Dataset`; or `(images, labels)`, as `Dataset` accepts them. Plain
        arrays have no test part, and as many classes as the labels tell: max(labels) + 1, the columns of one-hot
        rows, or the number of names.

    Returns:
      The data set, checked.

    Raises:
      InputError: for an unknown name, or arrays that `Dataset` does not accept.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if isinstance(dataset, str | os.PathLike):
        return load_dataset(dataset)
    if isinstance(dataset, tuple) and len(dataset) == 2:
        return _with_classes_counted("arrays", *dataset)
    raise InvalidInputError("dataset", type(dataset).__name__, "a name, a Dataset, or a tuple (images, labels)")


def _load_path(path: Path, image_size: int | None, progress: Progress | None) -> Dataset:
    try:
        expanded = path.expanduser()
        arrays: dict[str, Any]
        if is_photo_folder(expanded):
            arrays = read_photos(expanded, image_size, progress)
        else:
            _refuse_image_size(path, image_size)
            arrays = read_npz(expanded)
    except (OSError, RuntimeError) as error:  # RuntimeError: of expanduser, where there is no such user
        raise UnusableFileError("dataset", path, reason(error)) from None
    try:
        return _with_classes_counted(str(path), **arrays)
    except InputError as error:
        raise UnusableFileError("dataset", path, str(error).removeprefix("dataset: ")) from None


def _refuse_image_size(name: str | Path, image_size: int | None) -> None:
    if image_size is not None:
        accepted = f"none, as {name} is no folder of PNG or JPEG files per class"
        raise InvalidInputError("image_size", image_size, accepted)


def _with_classes_counted(
    name: str,
    images: ArrayLike,
    labels: ArrayLike,
    test_images: ArrayLike | None = None,
    test_labels: ArrayLike | None = None,
    class_names: tuple[str, ...] | None = None,
) -> Dataset:
    """A data set of as many classes as its labels tell."""
    parts = {"": labels} if test_labels is None else {"": labels, "test ": test_labels}
    read = read_labels(parts, class_names=class_names)
    arrays: Any = (images, read.parts[""], read.num_classes, test_images, read.parts.get("test "), read.class_names)
    return Dataset(name, *arrays)
