"""Images and labels of a data set that tensorflow-datasets prepared, decoded without TensorFlow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from l2jax.data.formats import READ_ERRORS
from l2jax.errors import UnusableFileError, reason

Builder = Any  # a tfds.core.DatasetBuilder, most of whose attributes tfds declares as optional, or as any object


def decode(folder: Path) -> dict[str, Any]:
    """Reads and decodes a prepared data set; argument, result and errors are those of `read_prepared`."""
    try:
        builder: Builder = tfds.builder_from_directory(folder)
        image_key, label_key = builder.info.supervised_keys or ("image", "label")
        problem = _problem(builder, image_key, label_key)
    except Exception as error:  # of many types
        problem = f"no prepared data set of labelled images ({reason(error)})"
        raise UnusableFileError("dataset", folder, problem) from None
    if problem:
        raise UnusableFileError("dataset", folder, problem)

    arrays: dict[str, Any] = {"num_classes": builder.info.features[label_key].num_classes}
    for tfds_split, prefix in ("train", ""), ("test", "test_"):
        if tfds_split in builder.info.splits:
            images, labels = _read_split(builder, tfds_split, image_key, label_key)
            arrays |= {f"{prefix}images": images, f"{prefix}labels": labels}
    return arrays


def _problem(builder: Builder, image_key: str, label_key: str) -> str | None:
    """The reason why a data set cannot be used, from its description; None if it can."""
    image, label = builder.info.features[image_key], builder.info.features[label_key]
    shape, splits, file_format = image.shape, builder.info.splits, builder.info.file_format.value
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        return f"holds {image_key} and {label_key}, not images of one class each"
    if None in shape or image.np_dtype != np.uint8:
        return f"holds images of shape {shape} and type {image.np_dtype}, not of one size and uint8"
    if "train" not in splits:
        return f"has no split train, but {', '.join(splits)}"
    if file_format != "array_record":
        return f"prepared as {file_format}, not array_record; in another data_dir it is prepared anew"
    return None


def _read_split(builder: Builder, tfds_split: str, image_key: str, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the images (N, H, W, C), uint8, and labels (N,), int64, of a split, file by file."""
    shape = builder.info.features[image_key].shape
    # PIL decodes: through tfds it takes twice as long, and tfds logs a plea for OpenCV.
    decoders = {name: tfds.decode.SkipDecoding() for name in builder.info.features}
    images, labels = [], []
    for shard, path in enumerate(builder.info.splits[tfds_split].filepaths):
        source = builder.as_data_source(f"{tfds_split}[{shard}shard]", decoders=decoders)
        try:
            examples = source.__getitems__(range(len(source)))
            images += [_decode_image(example[image_key], shape) for example in examples]
        except (RuntimeError, *READ_ERRORS) as error:  # array_record raises RuntimeError
            remedy = f"if that is damage, delete {builder.data_dir} and prepare it again"
            raise UnusableFileError("dataset", path, f"{reason(error)}; {remedy}") from None
        labels += [example[label_key] for example in examples]
    return np.stack(images), np.array(labels)


def _decode_image(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Decodes an image file to (H, W, C)."""
    # The two formats that tfds writes; trying all that PIL knows takes a quarter longer.
    image = Image.open(io.BytesIO(content), formats=["PNG", "JPEG"])
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[shape[-1]]
    return np.asarray(image if image.mode == mode else image.convert(mode)).reshape(shape)
