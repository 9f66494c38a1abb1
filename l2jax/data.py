"""Data sets: `uint8` images and labels in memory, and their split into training and validation part."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from l2jax.config import InvalidInput

EMBEDDED = {"mnist_small": Path(__file__).parent / "embedded" / "mnist_small" / "1.0.0"}


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


def load_dataset(name: str = "mnist_small") -> Dataset:
    """Loads a data set by name.

    Args:
      name: "mnist_small", which ships with the package: 5,000 training and 2,000 test images of MNIST,
        28x28x1, equally many of each digit.

    Raises:
      InvalidInput: for an unknown name.
    """
    if name not in EMBEDDED:
        raise InvalidInput("dataset", name, " or ".join(EMBEDDED))
    return _read_tfds(name, EMBEDDED[name])


def as_dataset(dataset: str | Dataset | tuple[ArrayLike, ArrayLike]) -> Dataset:
    """Makes a checked `Dataset` of a name, of a `Dataset`, or of plain arrays.

    Args:
      dataset: a name for `load_dataset`; a `Dataset`; or `(images, labels)` with images (N, H, W, C) or
        (N, H, W), uint8, and labels (N,) of any integer type. Plain arrays have no test part, and
        max(labels) + 1 classes.

    Raises:
      InvalidInput: for an unknown name, images or labels of another type or shape, different numbers of
        images and labels, no images at all, a label that is negative or not below `num_classes`, half a test
        part, or one with images of another shape.
    """
    if isinstance(dataset, str):
        return load_dataset(dataset)
    if isinstance(dataset, tuple) and len(dataset) == 2:
        images, labels = _checked("", *dataset)
        return Dataset("arrays", images, labels, num_classes=int(labels.max()) + 1)
    if not isinstance(dataset, Dataset):
        accepted = "a name, a Dataset, or a tuple (images, labels)"
        raise InvalidInput("dataset", type(dataset).__name__, accepted)

    num_classes, test_images, test_labels = dataset.num_classes, dataset.test_images, dataset.test_labels
    images, labels = _checked("", dataset.images, dataset.labels, num_classes)
    if test_images is not None and test_labels is not None:
        test_images, test_labels = _checked("test ", test_images, test_labels, num_classes)
        if test_images.shape[1:] != images.shape[1:]:
            shapes = f"images {images.shape}, test images {test_images.shape}"
            raise InvalidInput("dataset", shapes, "images of one height, width and channel count")
    elif test_images is not None or test_labels is not None:
        missing = "test_images" if test_images is None else "test_labels"
        raise InvalidInput("dataset", f"no {missing}", "test images and test labels, or neither")
    return Dataset(dataset.name, images, labels, num_classes, test_images, test_labels)


def split(
    labels: np.ndarray, seed: int, train_size: int | None, val_size: int
) -> tuple[np.ndarray, np.ndarray]:
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
      InvalidInput: for a part without examples, or parts larger than the data.
    """
    num_examples = len(labels)
    if not 1 <= val_size < num_examples:
        raise InvalidInput("val_size", val_size, f"1 or more, and fewer than all {num_examples} examples")
    most = num_examples - val_size
    if train_size is not None and not 1 <= train_size <= most:
        accepted = f"1 to {most}, as val_size {val_size} is held out of {num_examples} examples"
        raise InvalidInput("train_size", train_size, accepted)
    rng = np.random.default_rng(seed)
    everything = np.arange(num_examples, dtype=np.int32)
    val = _draw(rng, everything, labels, val_size)
    rest = np.setdiff1d(everything, val)
    return (rest if train_size is None else _draw(rng, rest, labels, train_size)), val


def _draw(rng: np.random.Generator, indices: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    """Draws `size` of `indices`, every class in proportion: largest remainders, ties broken at random."""
    labels = labels[indices]
    classes, counts = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(size * counts, len(indices))
    by_remainder = np.lexsort((rng.permutation(len(classes)), -remainders))
    quotas[by_remainder[: size - quotas.sum()]] += 1
    drawn = [
        rng.choice(indices[labels == label], quota, replace=False)
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _checked(
    part: str, images: ArrayLike, labels: ArrayLike, num_classes: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Checks a part, "" or "test ", and returns its images (N, H, W, C), uint8, and labels (N,), int32."""
    images, labels = _array(f"{part}images", images), _array(f"{part}labels", labels)
    if images.dtype != np.uint8:
        accepted = "images of uint8"
        if images.dtype.kind == "f":
            accepted += "; from floats in [0, 1]: (255 * images).round().astype('uint8')"
        raise InvalidInput("dataset", f"{part}images of {images.dtype}", accepted)
    if images.ndim not in (3, 4) or images.size == 0:
        accepted = "(N, H, W, C) or (N, H, W), none of them 0"
        raise InvalidInput("dataset", f"{part}images of shape {images.shape}", accepted)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InvalidInput("dataset", f"{part}labels of {labels.dtype}", "labels of an integer type")
    if labels.shape != images.shape[:1]:
        shapes = f"{len(images)} {part}images, {part}labels of shape {labels.shape}"
        raise InvalidInput("dataset", shapes, f"one label an image, that is shape ({len(images)},)")
    limit = np.iinfo(np.int32).max if num_classes is None else num_classes
    wrong = labels[(labels < 0) | (labels >= limit)]
    if wrong.size:
        raise InvalidInput("dataset", f"{part}label {wrong[0]}", f"labels 0 to {limit - 1}")
    return images.reshape(*images.shape[:3], -1), labels.astype(np.int32)


def _array(what: str, values: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError):  # such as nested lists of different lengths
        raise InvalidInput("dataset", f"{what} that make no array", "arrays (images, labels)") from None


def _read_tfds(name: str, folder: Path) -> Dataset:
    """Reads a prepared tensorflow-datasets folder (array_record format), without TensorFlow."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    # PIL decodes below: through tfds it takes twice as long, and tfds logs a plea for OpenCV.
    sources = builder.as_data_source(decoders={"image": tfds.decode.SkipDecoding()})
    shape, num_classes = builder.info.features["image"].shape, builder.info.features["label"].num_classes
    images, labels = _decoded(sources["train"], shape)
    test_images, test_labels = _decoded(sources["test"], shape)
    return Dataset(name, images, labels, num_classes, test_images, test_labels)


def _decoded(source: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    examples = source.__getitems__(range(len(source)))
    files = (io.BytesIO(example["image"]) for example in examples)
    # The two formats tfds writes; trying all that PIL knows takes a quarter longer.
    images = np.stack([np.asarray(Image.open(file, formats=["PNG", "JPEG"])) for file in files])
    labels = np.array([example["label"] for example in examples], np.int32)
    return images.reshape(len(examples), *shape), labels
