from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.fake_data import disk_with_room_for, everything_in, images_like, write_photos
from PIL import Image

from l2jax.data import photos
from l2jax.data.dataset import load_dataset
from l2jax.data.photos import is_photo_folder, read_photos
from l2jax.errors import InputError, InvalidInputError, UnusableFileError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "l2jax" / "photos"


@pytest.fixture
def folder(tmp_path):
    """Two classes, 3 and 2 images of 6x8 pixels in colour."""
    images = [*images_like(5, 6, 8, 3)]
    write_photos(tmp_path / "photos", {"dog": images[:2], "cat": images[2:]})
    return tmp_path / "photos"


def blank(mode: str, *, size: tuple[int, int] = (8, 6), colour: object = 0) -> Image.Image:
    return Image.new(mode, size, colour)


def assert_same(arrays: dict, images: list, labels: list, part: str = "") -> None:
    assert arrays[f"{part}images"].dtype == np.uint8
    np.testing.assert_array_equal(arrays[f"{part}images"], np.stack(images))
    np.testing.assert_array_equal(arrays[f"{part}labels"], labels)


def test_sub_folders_are_classes_in_sorted_order(folder):
    images = images_like(5, 6, 8, 3)
    arrays = read_photos(folder, None)
    assert arrays.keys() == {"images", "labels", "class_names"}
    assert arrays["class_names"] == ("cat", "dog")
    assert_same(arrays, [images[index] for index in (2, 3, 4, 0, 1)], [0, 0, 0, 1, 1])


def test_sub_folders_of_parts_make_a_test_part(tmp_path):
    images = [*images_like(6, 5, 5)]
    parts = {"test/emu": images[:1], "train/cat": images[1:2], "val/cat": images[2:3], "train/dog": images[3:4]}
    write_photos(tmp_path / "photos", parts | {"test/cat": images[4:]})
    arrays = read_photos(tmp_path / "photos", None)
    assert arrays["class_names"] == ("cat", "dog", "emu")
    assert_same(arrays, [images[index][..., None] for index in (1, 3, 2)], [0, 1, 0])
    assert_same(arrays, [images[index][..., None] for index in (4, 5, 0)], [0, 0, 2], "test_")
    dataset = load_dataset(tmp_path / "photos")
    assert (dataset.num_classes, dataset.class_names) == (3, ("cat", "dog", "emu"))
    assert_same(vars(dataset), [images[index][..., None] for index in (4, 5, 0)], [0, 0, 2], "test_")


def test_a_class_may_be_called_train(tmp_path):
    write_photos(tmp_path / "photos", {"train": [*images_like(2, 5, 5)], "plane": [*images_like(1, 5, 5)]})
    assert read_photos(tmp_path / "photos", None)["class_names"] == ("plane", "train")


def test_other_files_and_folders_are_left_out(folder):
    expected = read_photos(folder, None)
    for name in "notes.txt", "cat/Thumbs.db", "cat/._000.png", ".hidden/1.png", "empty/README", "cat/more/1.png":
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no image")
    (folder / "cat" / "folder.png").mkdir()
    (folder / "cat" / "000.png").rename(folder / "cat" / "000.PNG")
    arrays = read_photos(folder, None)
    assert arrays["class_names"] == ("cat", "dog")
    assert_same(arrays, expected["images"], expected["labels"])


def test_greyscale_images_have_one_channel_unless_one_is_in_colour(folder):
    grey = images_like(3, 6, 8)
    write_photos(folder.parent / "grey", {"cat": [*grey]})
    assert_same(read_photos(folder.parent / "grey", None), [*grey[..., None]], [0, 0, 0])
    shutil.copytree(folder.parent / "grey" / "cat", folder / "ant")
    mixed = read_photos(folder, None)["images"]
    assert mixed.shape == (8, 6, 8, 3)
    np.testing.assert_array_equal(mixed[:3], np.repeat(grey[..., None], 3, -1))


@pytest.mark.parametrize(
    "mode, value, expected",
    [
        ("1", 1, [255]),
        ("L", 7, [7]),
        ("LA", (7, 3), [7]),
        ("I;16", 0x1234, [0x12]),
        ("I;16", 0xFFFF, [0xFF]),
        ("RGB", (1, 2, 3), [1, 2, 3]),
        ("RGBA", (1, 2, 3, 4), [1, 2, 3]),
        ("P", 9, [9, 19, 29]),
    ],
)
def test_pixels_of_every_kind_become_bytes(tmp_path, mode, value, expected):
    image = Image.new(mode, (8, 6), value)
    if mode == "P":
        image.putpalette([channel for index in range(10) for channel in (index, 10 + index, 20 + index)])
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    image.save(tmp_path / "photos" / "cat" / "1.png", **({"transparency": b"\1\2"} if mode == "P" else {}))
    images = read_photos(tmp_path / "photos", None)["images"]
    np.testing.assert_array_equal(images, np.broadcast_to(np.array(expected, np.uint8), (1, 6, 8, len(expected))))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpegs_are_read(tmp_path, mode):
    gradient = np.add.outer(np.arange(16), 8 * np.arange(24)).astype(np.uint8)
    image = Image.fromarray(gradient).convert("RGB").convert(mode)
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for suffix in ".jpg", ".jpeg", ".JPG":
        image.save(tmp_path / "photos" / "cat" / f"1{suffix}", "jpeg", quality=95)
    images = read_photos(tmp_path / "photos", None)["images"]
    assert images.shape == (3, 16, 24, 1 if mode == "L" else 3)
    np.testing.assert_allclose(images.astype(int), np.broadcast_to(gradient[..., None], images.shape), atol=6)


def test_photos_that_lie_on_their_side_are_turned(tmp_path):
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :8] = 255  # bright in the upper left corner
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    lying = Image.fromarray(np.rot90(upright).copy())
    lying.save(tmp_path / "photos" / "cat" / "1.jpg", exif=exif, quality=95)
    (image,) = read_photos(tmp_path / "photos", None)["images"]
    np.testing.assert_allclose(image[..., 0].astype(int), upright, atol=6)


def scaled_and_cropped(image: np.ndarray, size: int) -> np.ndarray:
    """The shorter side scaled to `size` by a triangle as wide as a new pixel, then the centre of the longer side."""
    scale = min(image.shape[:2]) / size
    width = max(scale, 1)
    for axis in 0, 1:
        length = image.shape[axis]
        centres = length / 2 + scale * (np.arange(size) + 0.5 - size / 2)
        weights = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centres[:, None]) / width)
        image = np.moveaxis(np.tensordot(weights / weights.sum(1, keepdims=True), image, (1, axis)), 0, axis)
    return image


@pytest.mark.parametrize("shape", [(40, 60, 3), (61, 40, 3), (33, 90), (90, 31), (10, 10, 3), (16, 16), (7, 11)])
def test_images_are_scaled_and_cropped_to_one_size(tmp_path, shape):
    image = images_like(*shape)
    write_photos(tmp_path / "photos", {"cat": [image]})
    (actual,) = read_photos(tmp_path / "photos", 16)["images"]
    expected = scaled_and_cropped(image.astype(float), 16).reshape(actual.shape)
    assert actual.shape[:2] == (16, 16)
    np.testing.assert_allclose(actual.astype(float), expected, atol=1.01)  # PIL rounds after each axis
    if shape == (16, 16):
        np.testing.assert_array_equal(actual[..., 0], image)


def test_images_of_several_sizes_need_an_image_size(tmp_path):
    write_photos(tmp_path / "photos", {"cat": [images_like(6, 8)], "dog": [images_like(8, 6)]})
    with pytest.raises(InvalidInputError) as error:
        load_dataset(tmp_path / "photos")
    message = "got none; accepted: a whole number, as sizes differ: one of 6x8 and one of 8x6, 000.png"
    assert str(error.value) == f"image_size: {message}"
    assert load_dataset(tmp_path / "photos", image_size=5).images.shape == (2, 5, 5, 1)


def test_an_image_size_that_takes_too_much_memory_is_refused(folder):
    with pytest.raises(InputError, match=r"^image_size: .*") as error:
        photos._empty(10**12, np.zeros((1000, 1000), np.uint8))
    assert str(error.value) == (
        "image_size: got 1000x1000 for 1000000000000 images; accepted: a size at which all images fit in memory"
    )


def test_unreadable_images_are_counted_and_the_first_is_named(folder, cache):
    whole = (folder / "cat" / "001.png").read_bytes()
    (folder / "cat" / "001.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dog" / "000.png").write_text("no image at all")
    (folder / "dog" / "001.png").write_bytes(b"")
    for size in None, 4:
        with pytest.raises(UnusableFileError) as error:
            load_dataset(folder, image_size=size)
        assert str(error.value).startswith(f"dataset: {folder}/cat/001.png: ")
        assert str(error.value).endswith("; 3 of 5 images are unreadable") and "\n" not in str(error.value)
    (folder / "cat" / "001.png").write_bytes(whole)
    with pytest.raises(UnusableFileError, match=r"dog/000.png: no PNG or JPEG image; 2 of 5 images are unreadable$"):
        load_dataset(folder)
    assert not cache.exists()


@pytest.mark.parametrize("names", [["notes"], ["test/cat/1.png"], ["train/1.png", "test/1.png"], ["cat/1.gif"]])
def test_a_folder_without_classes_of_images_is_refused_in_one_line(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        blank("L").save(tmp_path / name, "gif" if name.endswith("gif") else "png")
    problem = "holds no sub-folder of PNG or JPEG files per class|holds neither train.npz and test.npz"
    with pytest.raises(UnusableFileError, match=f"^dataset: {tmp_path}: ({problem})") as error:
        load_dataset(tmp_path)
    assert "\n" not in str(error.value)


def test_arrays_take_precedence_over_sub_folders(folder):
    assert is_photo_folder(folder) and not is_photo_folder(folder / "cat") and not is_photo_folder(folder / "none")
    np.savez(folder / "digits.npz", images=images_like(2, 3, 3), labels=[0, 1])
    assert not is_photo_folder(folder)
    assert load_dataset(folder).images.shape == (2, 3, 3, 1)


def refuse_to_decode(path: Path, image_size: int | None) -> str:
    raise AssertionError(f"{path} is decoded again")


def test_decoded_images_are_cached(folder, cache, monkeypatch):
    files = everything_in(folder)
    first = [read_photos(folder, None), read_photos(folder, 4)]
    assert everything_in(folder) == files and len(everything_in(cache)) == 2
    monkeypatch.setattr(photos, "_decode", refuse_to_decode)
    monkeypatch.chdir(folder)
    for path in folder, Path("../photos"):
        for size, expected in zip((None, 4), first, strict=True):
            arrays = read_photos(path, size)
            assert_same(arrays, expected["images"], expected["labels"])
            assert arrays["class_names"] == ("cat", "dog")


def test_a_cache_of_other_files_is_not_used(folder, cache):
    read_photos(folder, None)
    other = images_like(6, 8, 3) // 2
    Image.fromarray(other).save(folder / "cat" / "001.png")
    os.utime(folder / "cat" / "001.png", ns=(0, 0))
    np.testing.assert_array_equal(read_photos(folder, None)["images"][1], other)
    shutil.copy(folder / "cat" / "001.png", folder / "dog" / "002.png")
    assert read_photos(folder, None)["labels"].tolist() == [0, 0, 0, 1, 1, 1]
    (folder / "cat" / "001.png").unlink()
    assert read_photos(folder, None)["labels"].tolist() == [0, 0, 1, 1, 1]
    (folder / "dog").rename(folder / "ant")
    assert read_photos(folder, None)["class_names"] == ("ant", "cat")
    assert len(everything_in(cache)) == 1


def test_a_damaged_cache_is_decoded_anew(folder, cache, monkeypatch):
    expected = read_photos(folder, None)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda number: None)
    for place in range(0, len(whole), 37):
        for damaged in whole[:place], whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]:
            path.write_bytes(damaged)
            arrays = read_photos(folder, None)
            assert_same(arrays, expected["images"], expected["labels"])
            assert arrays["class_names"] == ("cat", "dog")
    read_photos(folder, None)
    assert path.read_bytes() == whole


def test_a_full_or_unwritable_cache_is_done_without(folder, cache, monkeypatch):
    expected = read_photos(folder, None)
    shutil.rmtree(cache)
    with disk_with_room_for(500):
        assert_same(read_photos(folder, None), expected["images"], expected["labels"])
    assert everything_in(cache) == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cat" / "000.png"))
    assert_same(read_photos(folder, None), expected["images"], expected["labels"])


def test_the_cache_is_in_the_home_folder_by_default(folder, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(folder.parent / "home"))
    read_photos(folder, None)
    assert len([*(folder.parent / "home" / ".cache" / "l2jax" / "photos").iterdir()]) == 1


def test_progress_is_told_and_may_end_it(folder, cache):
    calls = []
    load_dataset(folder, image_size=3, progress=lambda *numbers: calls.append(numbers))
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    load_dataset(folder, image_size=3, progress=lambda *numbers: calls.append(numbers))
    assert len(calls) == 5

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_dataset(folder, image_size=4, progress=interrupt)
    assert len(everything_in(cache)) == 1
