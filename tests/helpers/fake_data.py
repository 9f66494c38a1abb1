"""Small data sets for tests: arrays, IDX files, and folders prepared as tensorflow-datasets does it."""

from __future__ import annotations

import contextlib
import io
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

TRAP_FOR_TENSORFLOW = """
import importlib.machinery, sys
class Trap:
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "tensorflow" else None
    def create_module(self, spec):
        sys.exit("TensorFlow was imported")
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Trap())
"""
"""Code under which TensorFlow seems to be installed, but importing it ends the program."""


def images_like(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def write_photos(folder: Path, classes: dict[str, list[np.ndarray]], suffix: str = ".png") -> None:
    """Writes one sub-folder of image files per class; names of classes may have several parts, as in "train/cat"."""
    for name, images in classes.items():
        (folder / name).mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f"{index:03}{suffix}")


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


def write_mnist(folder: Path, train_size: int, test_size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Writes IDX files whose images hold their own index in their first two pixels; returns images and labels."""
    splits = {}
    for name, prefix, size in [("train", "train", train_size), ("test", "t10k", test_size)]:
        images = np.zeros((size, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(size), 256)
        labels = np.random.default_rng(1).permutation(np.arange(size) % 10).astype(np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
        splits[name] = images, labels
    return splits


def prepared(
    data_dir: Path,
    splits: dict[str, tuple[Any, Any]],
    num_classes: int = 3,
    configs: tuple[str, ...] = (),
    num_shards: int | None = None,
    **features: Any,
) -> list[Path]:
    """Prepares a data set named made_up, in each config, in the order of `splits`; returns the folders."""
    shape = next(iter(splits.values()))[0].shape[1:]
    label = tfds.features.ClassLabel(num_classes=num_classes)
    features = {"image": tfds.features.Image(shape=shape), "label": label} | features

    class MadeUp(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.3")
        url_infos = None  # nothing is downloaded
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config) for config in configs]  # noqa: RUF012, as tfds asks for

        def _info(self) -> tfds.core.DatasetInfo:
            feature_dict = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(
                builder=self, features=feature_dict, supervised_keys=("image", "label"), disable_shuffling=True
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            return {name: self._generate_examples(*arrays) for name, arrays in splits.items()}

        def _generate_examples(self, images: Any, labels: Any) -> Iterator[tuple[int, dict]]:
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                pixels = image[..., 0] if image.shape[-1] == 1 else image
                yield index, {"image": Image.fromarray(pixels), "label": int(label)}

    tfds.disable_progress_bar()
    folders = []
    for config in configs or [None]:
        builder = MadeUp(data_dir=data_dir, config=config, file_format="array_record")
        with contextlib.redirect_stdout(io.StringIO()):
            shards = tfds.download.DownloadConfig(num_shards=num_shards)
            builder.download_and_prepare(download_config=shards)
        folders.append(Path(builder.data_dir))
    return folders


@contextlib.contextmanager
def disk_with_room_for(num_bytes: int) -> Iterator[None]:
    """Limits the size of files: writing more fails as on a full disk, in C++ code, too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
