"""Prepares data sets of tensorflow-datasets in array_record format; MNIST, Fashion-MNIST and KMNIST without TensorFlow.

python -m l2jax.prepare mnist                download it, and check its checksums
python -m l2jax.prepare mnist --from DIR     without a network: read the four IDX files in DIR
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import fnmatch
import importlib.util
import io
import os
import re
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.utils import temporary_assignment

from l2jax.data.formats import read_idx
from l2jax.data.tfds_read import data_root, find_prepared
from l2jax.errors import InputError, InvalidInputError, UnusableFileError, reason

IDX_PREFIXES = {"train": "train", "test": "t10k"}
"""The beginning of the names of IDX files, by the split that tfds makes of them."""

Splits = dict[str, tuple[np.ndarray, np.ndarray]]  # by name: images (N, 28, 28), uint8, and labels (N,), uint8


class _FromArrays:
    """Makes a builder of tfds write given arrays, without the TensorFlow that its own code needs.

    Everything else stays as it is: name, version and features.
    """

    url_infos = None  # no downloads; looking them up would need a package that tfds does not declare

    def __init__(self, splits: Splits, **kwargs: Any):
        self.splits = splits
        super().__init__(**kwargs)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        return {tfds_split: self._examples(*arrays) for tfds_split, arrays in self.splits.items()}

    def _examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, dict]]:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            # A PIL image: tfds encodes it as PNG by itself, where an array needs TensorFlow.
            yield index, {"image": Image.fromarray(image), "label": int(label)}


# tfds derives the name of a data set from that of its class.
class MNIST(_FromArrays, tfds.image_classification.MNIST, skip_registration=True): ...


class FashionMNIST(_FromArrays, tfds.image_classification.FashionMNIST, skip_registration=True): ...


class KMNIST(_FromArrays, tfds.image_classification.KMNIST, skip_registration=True): ...


BUILDERS = {builder_class.name: builder_class for builder_class in (MNIST, FashionMNIST, KMNIST)}


def prepare(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    source: str | os.PathLike[str] | None = None,
    show_progress: bool = False,
) -> Path:
    """Prepares a data set in array_record format, unless it is prepared already.

    "mnist", "fashion_mnist" and "kmnist" do without TensorFlow. Others are left to tfds' own builders, which need it.

    Args:
      name: as tensorflow-datasets calls it, such as "mnist" or "emnist/letters:3.1.0".
      data_dir: the folder that holds data sets; by default the one of tfds.
      source: a folder with the four IDX files, gzipped or not; without it they are downloaded, and must have the
        checksums that tfds knows.
      show_progress: whether to show the progress bars of tfds on stderr.

    Returns:
      The folder of the prepared data set. It appears whole or not at all.

    Raises:
      InputError: for an unknown data set, version or config, or one that would need TensorFlow; for a download
        that fails, IDX files that are missing or damaged, or a folder that cannot be written.
    """
    root = data_root(data_dir)
    if folder := find_prepared(name, root):
        return folder
    base = re.split("[/:]", name)[0]
    (tfds.enable_progress_bar if show_progress else tfds.disable_progress_bar)()
    # tfds prints to stdout, and without a network it would retry for minutes.
    no_retries = temporary_assignment(downloader, "MAX_RETRIES", 0)
    # tfds looks for statistics of the data set on the network, and leaves a temporary folder behind.
    no_bucket = temporary_assignment(tfds.core.DatasetInfo, "initialize_from_bucket", lambda info: None)
    with contextlib.redirect_stdout(io.StringIO()), no_retries, no_bucket:
        if base in BUILDERS:
            return _prepare_idx(name, base, root, None if source is None else Path(source))
        if source is not None:
            raise InvalidInputError("from", source, f"a folder of IDX files for {', '.join(BUILDERS)} alone")
        return _prepare_by_tfds(name, base, root)


def _prepare_idx(name: str, base: str, root: Path, source: Path | None) -> Path:
    """Prepares one of `BUILDERS` from the IDX files in `source`, or from downloaded ones."""
    builder_class = BUILDERS[base]
    full_name = f"{base}:{builder_class.VERSION}"
    if not fnmatch.fnmatchcase(full_name, name if ":" in name else f"{name}:*"):
        raise InvalidInputError("dataset", name, f"{base} or {full_name}")
    splits = _read_splits(lambda file: source / file, "from") if source else None  # before anything is written
    folder, root_is_new = root / base / str(builder_class.VERSION), not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".preparing_") as scratch:
            splits = splits or _read_splits(_downloader(builder_class, Path(scratch)), "dataset")
            builder = builder_class(splits, data_dir=scratch, file_format="array_record")
            builder.download_and_prepare()
            folder.parent.mkdir(exist_ok=True)
            try:
                Path(builder.data_dir).rename(folder)
            except OSError:
                if not find_prepared(name, root):  # otherwise another process was faster
                    raise
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError on a full disk
        raise UnusableFileError("data_dir", root, f"cannot write {base} ({reason(error)})") from None
    finally:
        for empty in (folder.parent, root) if root_is_new else (folder.parent,):
            with contextlib.suppress(OSError):  # a folder that is not empty stays
                empty.rmdir()
    return folder


def _read_splits(find: Callable[[str], Path], option: str) -> Splits:
    """Reads and checks the four IDX files; `find` maps a file's name to its path."""
    splits = {}
    for tfds_split, prefix in IDX_PREFIXES.items():
        image_path, label_path = find(f"{prefix}-images-idx3-ubyte"), find(f"{prefix}-labels-idx1-ubyte")
        images, labels = read_idx(image_path, option), read_idx(label_path, option)
        if images.shape[1:] != (28, 28) or not len(images):
            raise UnusableFileError(option, image_path, f"images of shape {images.shape}, not (N, 28, 28)")
        if labels.shape != images.shape[:1] or labels.max() > 9:
            problem = f"labels of shape {labels.shape}, up to {labels.max(initial=0)}, not {len(images)} up to 9"
            raise UnusableFileError(option, label_path, problem)
        splits[tfds_split] = images, labels
    return splits


def _downloader(builder_class: type[tfds.image_classification.MNIST], folder: Path) -> Callable[[str], Path]:
    """A function that downloads an IDX file by name into `folder`, and returns its path."""
    manager = tfds.download.DownloadManager(download_dir=folder, force_checksums_validation=True)

    def download(file: str) -> Path:
        url = urllib.parse.urljoin(builder_class.URL, f"{file}.gz")
        try:
            return Path(manager.download(url))
        except (requests.RequestException, tfds.download.DownloadError, NonMatchingChecksumError) as error:
            remedy = f"where there is no network: python -m l2jax.prepare {builder_class.name} --from DIR"
            raise UnusableFileError("dataset", url, f"{_reason(error)}; {remedy}") from None

    return download


def _reason(error: BaseException) -> str:
    """`errors.reason`, with the errors of downloads in plain words."""
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, NonMatchingChecksumError):
        return "not the published file: its checksum differs"
    return reason(error)


def _prepare_by_tfds(name: str, base: str, root: Path) -> Path:
    """Leaves a data set to the builder of tfds, which needs TensorFlow."""
    try:
        tfds.builder_cls(base)
    except ValueError:
        names = ["mnist_small", *tfds.list_builders(with_community_datasets=False)]
        similar = difflib.get_close_matches(base, names)
        others = "a data set of tensorflow-datasets, or a path to .npz files or images, such as ./digits"
        raise InvalidInputError("dataset", name, ", ".join([*(similar or ["mnist_small"]), others])) from None
    if importlib.util.find_spec("tensorflow") is None:
        remedy = f"TensorFlow prepares {base}: pip install 'l2jax[tensorflow]'"
        raise InvalidInputError("dataset", name, f"data sets that are prepared in {root} ({remedy})")
    try:
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # of many types: no such version, config or file, no network, a full disk
        raise InvalidInputError("dataset", name, f"what tfds can prepare ({_reason(error)})") from error
    return Path(builder.data_path)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command `python -m l2jax.prepare`; returns the exit code: 0, or 2 after bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m l2jax.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="name of the data set, such as mnist")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="folder with the IDX files")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of data sets (default: the one of tfds)")
    options = parser.parse_args(argv)
    try:
        folder = prepare(options.name, options.data_dir, source=options.source, show_progress=sys.stderr.isatty())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(folder)
    return 0
