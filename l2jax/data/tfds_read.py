"""Data sets that tensorflow-datasets prepared: found, read without TensorFlow, and kept decoded for next time."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from l2jax.data.formats import DAMAGE
from l2jax.errors import UnusableFileError, reason

CACHE = "l2jax.npz"
CACHE_VERSION = 1  # raise it when what is decoded, or how it is kept, changes


def data_root(data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder that holds data sets: the given one; $TFDS_DATA_DIR; ~/tensorflow_datasets, as tfds has it."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def find_prepared(name: str, root: Path) -> Path | None:
    """Finds the folder of a prepared data set.

    tensorflow-datasets does this too, but takes longer to import than all else takes that a start does with data.

    Args:
      name: NAME, NAME/CONFIG, NAME:VERSION or NAME/CONFIG:VERSION, as in "emnist/letters:3.*.*". Where none is
        given, the config is the default one, and the version the highest.
      root: the folder that holds data sets.
    """
    match = re.fullmatch(r"(\w+)(?:/([\w.-]+))?(?::((?:(?:\d+|\*)\.){2}(?:\d+|\*)))?", name)
    if not match:
        return None
    base, config, version = match.groups()
    folder, default = root / base, root / base / ".config" / "metadata.json"
    with contextlib.suppress(*DAMAGE):
        if config or default.exists():
            folder /= config or json.loads(default.read_text())["default_config_name"]
        found = [path.parent for path in folder.glob(f"{version or '*.*.*'}/dataset_info.json")]
        versions = [path for path in found if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
        return max(versions, key=lambda path: [int(part) for part in path.name.split(".")], default=None)
    return None


def read_prepared(folder: Path) -> dict[str, Any]:
    """Reads a prepared data set, from the arrays that were kept beside it if these are of the same files.

    Args:
      folder: of one version, such as ~/tensorflow_datasets/mnist/3.0.1, in array_record format.

    Returns:
      num_classes, an int; images (N, H, W, C), uint8; labels (N,), int64; of the split "train"; and the same of the
      split "test", if there is one, as test_images and test_labels.

    Raises:
      UnusableFileError: for damaged files, another format, and what is no images of one size, of one class each.
    """
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if CACHE not in path.name]
    of_files = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]
    fingerprint = json.dumps([CACHE_VERSION, of_files])
    kept = _read_cache(folder / CACHE, fingerprint)
    if kept is None:
        kept = decode(folder)
        with contextlib.suppress(OSError):  # read-only or full: it will be decoded next time as well
            _write_cache(folder / CACHE, fingerprint, kept)
    return kept


def _read_cache(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """What was kept; None where nothing was, or it belongs to other files, or is damaged."""
    # zipfile checks sums as it reads. The names are kept, too, as a damaged directory may lose a few.
    with contextlib.suppress(*DAMAGE), path.open("rb") as content, np.load(content, allow_pickle=False) as file:
        if file["fingerprint"].item() == fingerprint:
            kept = {name: file[name] for name in file["names"].tolist()}
            return kept | {"num_classes": kept["num_classes"].item()}
    return None


def _write_cache(path: Path, fingerprint: str, kept: dict[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # another process may be writing, too
    try:
        with beside.open("wb") as file:
            np.savez(file, fingerprint=np.array(fingerprint), names=np.array(list(kept)), **kept)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def decode(folder: Path) -> dict[str, Any]:
    """Reads and decodes a prepared data set; all as in `read_prepared`."""
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder_from_directory(folder)
        features, splits = builder.info.features, builder.info.splits
        image_name, label_name = builder.info.supervised_keys or ("image", "label")
        image, label = features[image_name], features[label_name]
        shape: Any = image.shape
    except Exception as error:  # of many types
        raise UnusableFileError(
            "dataset", folder, f"no prepared data set of labelled images ({reason(error)})"
        ) from None
    file_format = builder.info.file_format.value
    problem = None
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        problem = f"holds {image_name} and {label_name}, not images of one class each"
    elif None in shape or image.np_dtype != np.uint8:
        problem = f"holds images of shape {shape} and type {image.np_dtype}, not of one size and uint8"
    elif "train" not in splits:
        problem = f"has no split train, but {', '.join(splits)}"
    elif file_format != "array_record":
        problem = f"prepared as {file_format}, not array_record; in another data_dir it is prepared anew"
    if problem:
        raise UnusableFileError("dataset", folder, problem)

    decoded: dict[str, Any] = {"num_classes": label.num_classes}
    # PIL decodes: through tfds it takes twice as long, and tfds logs a plea for OpenCV.
    decoders = {name: tfds.decode.SkipDecoding() for name in features}
    for split, prefix in ("train", ""), ("test", "test_"):
        if split not in splits:
            continue
        images, labels = [], []
        for shard, path in enumerate(splits[split].filepaths):
            source = builder.as_data_source(f"{split}[{shard}shard]", decoders=decoders)
            try:
                examples = source.__getitems__(range(len(source)))
                images += [_pixels(example[image_name], shape) for example in examples]
            except (RuntimeError, *DAMAGE) as error:  # RuntimeError: array_record's
                remedy = f"if that is damage, delete {folder} and prepare it again"
                raise UnusableFileError("dataset", path, f"{reason(error)}; {remedy}") from None
            labels += [example[label_name] for example in examples]
        decoded |= {f"{prefix}images": np.stack(images), f"{prefix}labels": np.array(labels)}
    return decoded


def _pixels(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    # The two formats tfds writes; trying all that PIL knows takes a quarter longer.
    image = Image.open(io.BytesIO(content), formats=["PNG", "JPEG"])
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[shape[-1]]
    return np.asarray(image if image.mode == mode else image.convert(mode)).reshape(shape)
