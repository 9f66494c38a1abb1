from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.fake_data import disk_with_room_for, everything_in, images_like, prepared
from tensorflow_datasets.core.read_only_builder import builder_from_files

import l2jax.data.tfds_decode
from l2jax.data.tfds_decode import decode
from l2jax.data.tfds_read import CACHE, data_root, find_prepared, read_prepared
from l2jax.errors import UnusableFileError

LABELS = np.array([0, 1, 1, 0, 2, 0, 2])


def two_splits(*shape: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    images = images_like(len(LABELS), *shape)
    return {"train": (images, LABELS), "test": (images[::-2], LABELS[::-2])}


def assert_splits(read: dict, splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    expected = {"num_classes": 3, "images": splits["train"][0], "labels": splits["train"][1]}
    if "test" in splits:
        expected |= {"test_images": splits["test"][0], "test_labels": splits["test"][1]}
    assert read.keys() == expected.keys() and isinstance(read["num_classes"], int)
    for name, values in expected.items():
        np.testing.assert_array_equal(read[name], values)


@pytest.fixture
def folder(tmp_path):
    """A prepared data set, 5x7x3, its training part in two shards."""
    return prepared(tmp_path, two_splits(5, 7, 3), num_shards=2)[0]


def test_the_folder_is_the_one_that_tfds_uses(monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data_root(None) == tmp_path / "home" / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert data_root(None) == data_root("") == tmp_path
    code = "import tensorflow_datasets as tfds; print(tfds.core.constants.DATA_DIR)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert Path(output.strip()) == data_root(None)
    assert data_root("~/here") == tmp_path / "home" / "here"


def test_versions_and_configs_are_found_as_tfds_finds_them(tmp_path):
    first, second = prepared(tmp_path, {"train": two_splits(5, 7, 1)["train"]}, configs=("letters", "all.of-them"))
    for version in "1.10.0", "0.9.9":
        shutil.copytree(first, first.with_name(version))
    shutil.copytree(first, first.with_name("incomplete.ABC_3.0.0"))
    for name in ["", "/letters", ":1.2.3", "/letters:1.2.3", "/letters:1.2.*", "/letters:0.*.*", "/all.of-them"]:
        by_tfds = builder_from_files(f"made_up{name}", data_dir=str(tmp_path))
        assert find_prepared(f"made_up{name}", tmp_path) == Path(by_tfds.data_dir), name
    first.with_name("2.0.0").mkdir()  # nothing in it
    assert find_prepared("made_up", tmp_path) == first.with_name("1.10.0")
    assert find_prepared("made_up/all.of-them:*.*.*", tmp_path) == second
    for name in ["made_up:3.0.0", "made_up/digits", "made", "", "made up", "made_up:1", "../x", "made_up/../x"]:
        assert find_prepared(name, tmp_path) is None
    assert find_prepared("made_up", tmp_path / "elsewhere") is None


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (5, 7, 4), (1, 2, 1)])
def test_images_of_any_size_are_decoded(tmp_path, shape):
    splits = two_splits(*shape)
    (folder,) = prepared(tmp_path, splits)
    assert_splits(decode(folder), splits)
    source = tfds.builder_from_directory(folder).as_data_source("train")
    np.testing.assert_array_equal(decode(folder)["images"], [example["image"] for example in source])


def test_a_data_set_may_have_no_test_part(tmp_path):
    splits = {"train": two_splits(5, 7, 3)["train"]}
    assert_splits(read_prepared(prepared(tmp_path, splits)[0]), splits)


def test_jpeg_images_get_the_channels_of_the_description(tmp_path):
    jpeg = tfds.features.Image(shape=(8, 8, 3), encoding_format="jpeg")
    grey = np.full((7, 8, 8, 3), 77, np.uint8)
    (folder,) = prepared(tmp_path, {"train": (grey[..., :1], LABELS)}, image=jpeg)
    np.testing.assert_array_equal(decode(folder)["images"], grey)


def refuse_to_decode(folder: Path) -> dict:
    raise AssertionError(f"{folder} is decoded again")


def test_decoded_arrays_are_cached(folder, monkeypatch):
    files = everything_in(folder)
    assert_splits(read_prepared(folder), two_splits(5, 7, 3))
    assert everything_in(folder) == sorted([*files, CACHE])
    monkeypatch.setattr(l2jax.data.tfds_decode, "decode", refuse_to_decode)
    assert_splits(read_prepared(folder), two_splits(5, 7, 3))
    assert Path(tfds.builder_from_directory(folder).data_dir) == folder  # tfds does not mind


def test_a_cache_of_other_files_is_not_used(folder, tmp_path):
    read_prepared(folder)
    splits = {name: (255 - images, labels) for name, (images, labels) in two_splits(5, 7, 3).items()}
    (other,) = prepared(tmp_path / "other", splits, num_shards=2)
    for path in other.iterdir():
        shutil.copy2(path, folder / path.name)
    assert_splits(read_prepared(folder), splits)
    shard = next(folder.glob("*train*00000-of-*"))
    content, cache_stat = shard.read_bytes(), (folder / CACHE).stat()
    os.utime(shard, ns=(0, 0))
    assert_splits(read_prepared(folder), splits)
    assert (folder / CACHE).stat().st_ino != cache_stat.st_ino
    shard.write_bytes(content[:-1])
    with pytest.raises(UnusableFileError, match=f"^dataset: {shard}: "):
        read_prepared(folder)


def test_a_damaged_cache_is_not_used(folder, monkeypatch):
    splits, calls = two_splits(5, 7, 3), []
    read_prepared(folder)
    whole, arrays = (folder / CACHE).read_bytes(), decode(folder)
    monkeypatch.setattr(l2jax.data.tfds_decode, "decode", lambda folder: calls.append(folder) or arrays)
    monkeypatch.setattr(os, "fsync", lambda number: None)
    places = [*range(0, len(whole) - 250, 9), *range(len(whole) - 250, len(whole))]  # at the end: zip's directory
    flipped = [whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :] for i in places]
    cut = [whole[:i] for i in range(0, len(whole), 97)]
    for damaged in [*flipped, *cut, b"", bytes(len(whole))]:
        (folder / CACHE).write_bytes(damaged)
        assert_splits(read_prepared(folder), splits)
    assert len(calls) > len(flipped) / 2 + len(cut)
    assert (folder / CACHE).read_bytes() == whole


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), PermissionError(13, "denied")])
def test_a_full_or_unwritable_folder_gets_no_cache(folder, monkeypatch, error):
    def savez(file, **arrays):
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(np, "savez", savez)
    files = everything_in(folder)
    assert_splits(read_prepared(folder), two_splits(5, 7, 3))
    assert everything_in(folder) == files


def test_a_full_disk_leaves_no_partial_cache(folder):
    files = everything_in(folder)
    with disk_with_room_for(1000):
        assert_splits(read_prepared(folder), two_splits(5, 7, 3))
    assert everything_in(folder) == files
    read_prepared(folder)
    assert (folder / CACHE).stat().st_size > 1000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_gets_no_cache(folder):
    folder.chmod(0o555)
    try:
        assert_splits(read_prepared(folder), two_splits(5, 7, 3))
        assert not (folder / CACHE).exists()
    finally:
        folder.chmod(0o755)


def test_a_folder_in_place_of_the_cache_stays(folder):
    (folder / CACHE / "in_it").mkdir(parents=True)
    files = everything_in(folder)
    assert_splits(read_prepared(folder), two_splits(5, 7, 3))
    assert everything_in(folder) == files


def test_processes_that_start_at_once_share_the_cache(folder):
    files = everything_in(folder)
    code = """
import hashlib, pathlib, sys, time
import tensorflow_datasets
from l2jax.data.tfds_read import read_prepared
time.sleep(max(0, float(sys.argv[2]) - time.time()))
for _ in range(20):
    read = read_prepared(pathlib.Path(sys.argv[1]))
    (pathlib.Path(sys.argv[1]) / "l2jax.npz").unlink(missing_ok=True)
    print(hashlib.sha256(b"".join(read[name].tobytes() for name in ("images", "labels", "test_images"))).hexdigest())
"""
    command = [sys.executable, "-W", "error", "-c", code, str(folder), str(time.time() + 3)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    digests = [line for process in processes for line in process.communicate()[0].split()]
    assert len(digests) == 60 and len(set(digests)) == 1
    assert everything_in(folder) == files


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def overwrite(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b""), shorten, overwrite, lambda path: path.write_text("?")]
)
def test_a_damaged_record_file_is_named_in_one_line(folder, damage):
    shard = next(folder.glob("*train*00001-of-*"))
    damage(shard)
    with pytest.raises(UnusableFileError) as error:
        read_prepared(folder)
    assert str(error.value).startswith(f"dataset: {shard}: ")
    assert str(error.value).endswith(f"; if that is damage, delete {folder} and prepare it again")
    assert "\n" not in str(error.value) and not (folder / CACHE).exists()


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("damage", [Path.unlink, shorten, lambda path: path.write_text(""), overwrite])
def test_damaged_descriptions_are_named_in_one_line(folder, name, damage):
    damage(folder / name)
    with pytest.raises(UnusableFileError) as error:
        read_prepared(folder)
    assert str(error.value).startswith(f"dataset: {folder}: ") and "\n" not in str(error.value)


def test_other_kinds_of_data_are_refused_in_one_line(tmp_path):
    images, splits = tfds.features.Image(shape=(None, None, 1)), two_splits(5, 7, 1)
    deep = tfds.features.Image(shape=(5, 7, 1), dtype=np.uint16)
    deep_parts = {"train": (splits["train"][0].astype(np.uint16), LABELS)}
    for number, (given, features, problem) in enumerate(
        [
            (splits, {"label": tfds.features.Scalar(np.int64)}, "holds image and label, not images of one class each"),
            (splits, {"image": images}, "holds images of shape (None, None, 1) and type uint8, not of one size"),
            (deep_parts, {"image": deep}, "holds images of shape (5, 7, 1) and type uint16, not of one size and uint8"),
            ({"all_of_it": splits["train"]}, {}, "has no split train, but all_of_it"),
        ]
    ):
        (folder,) = prepared(tmp_path / str(number), given, **features)
        with pytest.raises(UnusableFileError) as error:
            read_prepared(folder)
        assert str(error.value).startswith(f"dataset: {folder}: {problem}") and "\n" not in str(error.value)


def test_another_format_is_refused_in_one_line(folder):
    described = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(described | {"fileFormat": "tfrecord"}))
    with pytest.raises(UnusableFileError, match=f"^dataset: {folder}: prepared as tfrecord, not array_record; "):
        read_prepared(folder)
