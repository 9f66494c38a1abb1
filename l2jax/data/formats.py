"""Readers of files with images and labels: IDX, the format that MNIST is published in, and NumPy's .npz."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from l2jax.errors import UnusableFileError, reason

READ_ERRORS = (OSError, EOFError, ValueError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""Errors that gzip, zipfile and NumPy raise for damaged files; BadGzipFile is an OSError."""

KERAS_NAMES = {"x_train": "images", "y_train": "labels", "x_test": "test_images", "y_test": "test_labels"}
MEDMNIST_NAMES = {"train_images": "images", "train_labels": "labels"}


def read_idx(path: Path, option: str = "from") -> np.ndarray:
    """Reads an IDX file of bytes: 0 0 8 ndim, the sizes as big-endian uint32, the data.

    Args:
      path: the file, gzipped or not. If it is missing, path.gz is read.
      option: the option that an error names.

    Returns:
      An array of uint8, of the shape in the file's header.

    Raises:
      UnusableFileError: if there is no such file, or it is not a complete IDX file.
    """
    try:
        if not path.exists() and path.with_name(f"{path.name}.gz").exists():
            path = path.with_name(f"{path.name}.gz")
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except READ_ERRORS as error:
        raise UnusableFileError(option, path, reason(error)) from None
    num_dimensions = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * num_dimensions:
        raise UnusableFileError(option, path, "not an IDX file of bytes: these begin with 0 0 8 ndim and ndim sizes")
    shape = tuple(np.frombuffer(content, ">u4", num_dimensions, offset=4).tolist())
    data = content[4 + 4 * num_dimensions :]
    if len(data) != math.prod(shape):
        raise UnusableFileError(option, path, f"holds {len(data)} bytes of data instead of {math.prod(shape)}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_npz(path: Path, option: str = "dataset") -> dict[str, np.ndarray]:
    """Reads images and labels that `numpy.savez` wrote.

    Args:
      path: a .npz file with `images`, `labels` and, if there is a test part, `test_images`, `test_labels`; with Keras'
        names, `x_train`, `y_train`, `x_test`, `y_test`; or with those of MedMNIST, `train_images`, `train_labels`,
        `val_images`, `val_labels`, `test_images`, `test_labels`. What is in `val_images` is trained on, too: every seed
        holds out a validation part of its own. Or a folder that holds one such file, or train.npz and test.npz, each
        with `images` and `labels`.
      option: the option that an error names.

    Returns:
      The arrays by name: images, labels, and test_images, test_labels if the file holds them.

    Raises:
      UnusableFileError: if there is no such file, it is damaged, its arrays have other names, or an array would have
        to be unpickled.
    """
    if not path.is_dir():
        return _read_arrays(path, option)
    files = sorted(path.glob("*.npz"))
    if [file.name for file in files] == ["test.npz", "train.npz"]:
        test, train = (_read_arrays(file, option) for file in files)
        return train | {f"test_{name}": test[name] for name in ("images", "labels")}
    if len(files) != 1:
        raise UnusableFileError(
            option, path, "holds neither train.npz and test.npz nor one .npz file alone, nor sub-folders of images"
        )
    return _read_arrays(files[0], option)


def _read_arrays(path: Path, option: str) -> dict[str, np.ndarray]:
    """Reads one .npz file; names of Keras and MedMNIST are translated."""
    try:
        with path.open("rb") as content:
            if not zipfile.is_zipfile(content):
                raise zipfile.BadZipFile("not a .npz file, or not a whole one")
            with np.load(content, allow_pickle=False) as file:
                stored_names = {(KERAS_NAMES | MEDMNIST_NAMES).get(name, name): name for name in file}
                names = ("images", "labels", "test_images", "test_labels")
                arrays = {name: file[stored_names[name]] for name in names if name in stored_names}
                if {*MEDMNIST_NAMES, "val_images", "val_labels"} <= {*file}:
                    for name in ("images", "labels"):
                        arrays[name] = np.concatenate([arrays[name], file[f"val_{name}"]])
    except READ_ERRORS as error:
        raise UnusableFileError(option, path, reason(error)) from None
    if not {"images", "labels"} <= set(arrays):
        names = ", ".join(stored_names.values()) or "nothing"
        accepted = "images and labels, x_train and y_train, or train_images and train_labels"
        raise UnusableFileError(option, path, f"holds {names}, not {accepted}")
    return arrays
