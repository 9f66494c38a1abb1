"""Makes the embedded data set, l2jax/data/embedded/mnist_small, from the original MNIST files.

    python scripts/embed_mnist.py FOLDER

FOLDER holds the four IDX files of MNIST, gzipped or not. The same number of images of each digit is drawn
with a fixed seed, train from the original training set and test from the original test set, and written as a
tensorflow-datasets directory in array_record format, without TensorFlow. A second run writes the same bytes.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from l2jax.data.formats import read_idx

EMBEDDED = Path(__file__).resolve().parents[1] / "l2jax" / "data" / "embedded"
SPLITS = {"train": ("train", 500), "test": ("t10k", 200)}  # name: (prefix of the IDX files, images per digit)
SEED = 0


def draw(folder: Path, tfds_split: str) -> tuple[np.ndarray, np.ndarray]:
    """Draws the images (n, 28, 28) and labels (n,) of "train" or "test", in their original order."""
    prefix, per_digit = SPLITS[tfds_split]
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte", option="FOLDER")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte", option="FOLDER")
    rng = np.random.default_rng(SEED)
    drawn = [rng.choice(np.flatnonzero(labels == digit), per_digit, replace=False) for digit in range(10)]
    indices = np.sort(np.concatenate(drawn))
    return images[indices], labels[indices]


class MnistSmall(tfds.core.GeneratorBasedBuilder):
    """MNIST, smaller: 500 training and 200 test images of each digit, drawn from the original two parts."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, folder: Path, **kwargs: Any) -> None:
        self.folder = folder
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        image, label = tfds.features.Image(shape=(28, 28, 1)), tfds.features.ClassLabel(num_classes=10)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            supervised_keys=("image", "label"),
            homepage="http://yann.lecun.com/exdb/mnist/",
            license="CC BY-SA 3.0",
            citation="Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits.",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {tfds_split: self._generate_examples(tfds_split) for tfds_split in SPLITS}

    def _generate_examples(self, tfds_split: str) -> Iterator[tuple[int, dict]]:
        for index, (image, label) in enumerate(zip(*draw(self.folder, tfds_split), strict=True)):
            # A PIL image: tfds encodes it as PNG by itself, where an array needs TensorFlow.
            yield index, {"image": Image.fromarray(image), "label": int(label)}


def serialize(self: ExampleSerializer, example: dict) -> bytes:
    """Serialises as tfds does, but with the features in a fixed order, which protobuf otherwise leaves to chance."""
    return self.get_tf_example(example).SerializeToString(deterministic=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=EMBEDDED, help="folder to write mnist_small into")
    arguments = parser.parse_args()
    tfds.disable_progress_bar()
    ExampleSerializer.serialize_example = serialize
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.output) as scratch:
        builder = MnistSmall(arguments.folder, data_dir=scratch, file_format="array_record")
        builder.download_and_prepare()
        shutil.rmtree(arguments.output / builder.name, ignore_errors=True)
        (Path(scratch) / builder.name).rename(arguments.output / builder.name)


if __name__ == "__main__":
    main()
