"""Folders of images: one sub-folder of PNG or JPEG files per class, decoded to arrays of one size, and cached."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from l2jax.data.cache import cache_folder, read_cache, write_cache
from l2jax.errors import InvalidInputError, UnusableFileError, reason

SUFFIXES = (".png", ".jpg", ".jpeg")
TRAIN_FOLDERS, TEST_FOLDER = ("train", "val"), "test"
CACHE_VERSION = 1  # raise it when decoding, or the layout of the cache, changes

Progress = Callable[[int, int], None]
"""Called after each image with the number of decoded images and of all."""


class Photo(NamedTuple):
    """An image file, the name of its class, and whether it belongs to the test part."""

    path: Path
    class_name: str
    is_test: bool


def is_photo_folder(path: Path) -> bool:
    """Whether a path is a folder that holds sub-folders, and no .npz file."""
    return path.is_dir() and not any(path.glob("*.npz")) and bool(_subfolders(path))


def read_photos(folder: Path, image_size: int | None, progress: Progress | None = None) -> dict[str, Any]:
    """Reads a folder of images, from the cache of this machine if the files are the same.

    Args:
      folder: one sub-folder per class, named after it, with PNG or JPEG files; or sub-folders train and, if there are
        such parts, val and test, each with one sub-folder per class. Images in val are trained on, too. Other files,
        hidden ones, and sub-folders without images are left out.
      image_size: the shorter side of an image is scaled to it, and the longer one cropped around the centre. None: the
        images have one size.
      progress: is called while images are decoded.

    Returns:
      By name: images (N, H, W, C), uint8, and labels (N,), int64, of the training part; test_images and test_labels, if
      there is a test part; and class_names, in sorted order. C is 1 if all images are greyscale, otherwise 3.

    Raises:
      InputError: for a folder without such images, images that cannot be read, or images of several sizes.
    """
    photos = _list_photos(folder)
    files = [[str(photo.path.relative_to(folder)), *_size_and_time(photo.path)] for photo in photos]
    fingerprint = json.dumps([CACHE_VERSION, image_size, files])
    place = hashlib.sha256(json.dumps([str(folder.resolve()), image_size]).encode()).hexdigest()[:16]
    path = cache_folder() / "photos" / f"{place}.npz"
    arrays = read_cache(path, fingerprint)
    if arrays is None:
        class_names, labels = np.unique([photo.class_name for photo in photos], return_inverse=True)
        images = _decode_all(photos, image_size, progress)
        num_train = sum(not photo.is_test for photo in photos)
        arrays = {"images": images[:num_train], "labels": labels[:num_train], "class_names": class_names}
        if num_train < len(photos):
            arrays |= {"test_images": images[num_train:], "test_labels": labels[num_train:]}
        write_cache(path, fingerprint, arrays)
    return arrays | {"class_names": tuple(arrays["class_names"].tolist())}


def _list_photos(folder: Path) -> list[Photo]:
    """The image files of a folder, those of the test part last."""
    folders = {path.name: path for path in _subfolders(folder)}
    parts = [folder]
    if "train" in folders and folders.keys() <= {*TRAIN_FOLDERS, TEST_FOLDER}:
        parts = [folders[name] for name in (*TRAIN_FOLDERS, TEST_FOLDER) if name in folders]
    photos = [
        Photo(path, class_folder.name, part is folders.get(TEST_FOLDER))
        for part in parts
        for class_folder in _subfolders(part)
        for path in sorted(class_folder.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if all(photo.is_test for photo in photos):
        problem = "holds no sub-folder of PNG or JPEG files per class, neither itself nor in train"
        raise UnusableFileError("dataset", folder, problem)
    return photos


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _size_and_time(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _decode_all(photos: list[Photo], image_size: int | None, progress: Progress | None) -> np.ndarray:
    """Decodes images in parallel threads, to (N, H, W, C)."""
    images, unreadable, all_grey = np.empty(0, np.uint8), [], True
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.filterwarnings("ignore", module="PIL")  # of metadata and palettes, which do not change a pixel
        try:
            decoded = pool.map(lambda photo: _decode(photo.path, image_size), photos)
            for index, (photo, image) in enumerate(zip(photos, decoded, strict=True)):
                if isinstance(image, str):
                    unreadable.append((photo.path, image))
                    continue
                if not images.size:
                    images = _empty(len(photos), image)
                if image.shape[:2] != images.shape[1:3]:
                    _refuse_sizes(photo.path, image, images)
                images[index] = image if image.ndim == 3 else image[..., None]
                all_grey &= image.ndim == 2
                if progress:
                    progress(index + 1, len(photos))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if unreadable:
        path, problem = unreadable[0]
        raise UnusableFileError("dataset", path, f"{problem}; {len(unreadable)} of {len(photos)} images are unreadable")
    return images[..., :1].copy() if all_grey else images


def _empty(number: int, image: np.ndarray) -> np.ndarray:
    """An array for RGB images of the size of `image`."""
    height, width = image.shape[:2]
    try:
        return np.empty((number, height, width, 3), np.uint8)
    except MemoryError:
        given = f"{height}x{width} for {number} images"
        raise InvalidInputError("image_size", given, "a size at which all images fit in memory") from None


def _refuse_sizes(path: Path, image: np.ndarray, images: np.ndarray) -> None:
    sizes = "one of {}x{} and one of {}x{}, {}".format(*images.shape[1:3], *image.shape[:2], path.name)
    raise InvalidInputError("image_size", "none", f"a whole number, as sizes differ: {sizes}")


def _decode(path: Path, image_size: int | None) -> np.ndarray | str:
    """Decodes an image file to (H, W) if it is greyscale, otherwise to (H, W, 3); or says why that fails."""
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as file:
            image = _grey_or_rgb(ImageOps.exif_transpose(file))
        if image_size:
            image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
        return np.asarray(image)
    except Image.UnidentifiedImageError:
        return "no PNG or JPEG image"
    except Exception as error:  # of many types: PIL's decoders
        return reason(error)


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per pixel, of which PIL would clip what is above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
