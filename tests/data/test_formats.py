from __future__ import annotations

import gzip

import numpy as np
import pytest
from helpers.fake_data import images_like, write_idx

from l2jax.data.formats import read_idx, read_npz
from l2jax.errors import UnusableFileError, reason


@pytest.mark.parametrize("shape", [(7,), (2, 3), (4, 5, 6), (2, 3, 4, 5), (0, 28, 28)])
def test_idx_files_are_read_gzipped_or_not(tmp_path, shape):
    array, path = images_like(*shape), tmp_path / "images-idx-ubyte"
    write_idx(path, array)
    np.testing.assert_array_equal(read_idx(path), array)
    zipped = tmp_path / "images-idx-ubyte.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_idx(zipped), array)
    path.unlink()
    np.testing.assert_array_equal(read_idx(path), array)  # path.gz in its place
    zipped.rename(path)
    np.testing.assert_array_equal(read_idx(path), array)  # gzipped, whatever its name


IDX = b"\0\0\x08\x02\0\0\0\2\0\0\0\3abcdef"


@pytest.mark.parametrize(
    "content, problem",
    [
        (None, "No such file or directory"),
        (b"", "not an IDX file of bytes"),
        (IDX[:3], "not an IDX file of bytes"),
        (b"\1" + IDX[1:], "not an IDX file of bytes"),
        (b"\0\0\x0d" + IDX[3:], "not an IDX file of bytes"),
        (b"\0\0\x08\xff" + IDX[4:], "not an IDX file of bytes"),
        (IDX[:4], "not an IDX file of bytes"),
        (IDX[:9], "not an IDX file of bytes"),
        (b"\0\0\x08\0" + IDX[4:], "holds 14 bytes of data instead of 1"),
        (IDX[:-1], "holds 5 bytes of data instead of 6"),
        (IDX + b"g", "holds 7 bytes of data instead of 6"),
        (gzip.compress(IDX, mtime=0)[:-9], "ended before the end-of-stream marker"),
        (gzip.compress(IDX, mtime=0)[:-8] + bytes(8), "CRC check failed"),
        (gzip.compress(IDX, mtime=0)[:10] + b"\xff" * 20, "invalid"),
        (gzip.compress(IDX[:-1], mtime=0), "holds 5 bytes of data instead of 6"),
    ],
)
def test_broken_idx_files_are_named_in_one_line(tmp_path, content, problem):
    path = tmp_path / "labels"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnusableFileError) as error:
        read_idx(path)
    assert str(error.value).startswith(f"from: {path}: ") and problem in str(error.value)
    assert "\n" not in str(error.value) and error.value.option == "from"


def test_a_folder_is_no_idx_file(tmp_path):
    with pytest.raises(UnusableFileError, match=f"^FOLDER: {tmp_path}: Is a directory$"):
        read_idx(tmp_path, option="FOLDER")


IMAGES, LABELS = images_like(4, 5, 6), np.array([0, 1, 1, 0])
PART = {"images": IMAGES, "labels": LABELS}
FEW = {"images": IMAGES[:2], "labels": LABELS[:2]}
TEST = {"test_images": IMAGES[:2], "test_labels": LABELS[:2]}


def medmnist(**parts):
    return {f"{part}_{name}": array for part, arrays in parts.items() for name, array in arrays.items()}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "files, expected",
    [
        ({"digits.npz": PART}, PART),
        ({"digits.npz": PART | TEST}, PART | TEST),
        ({"train.npz": PART}, PART),
        ({"train.npz": PART, "test.npz": {"images": IMAGES[:2], "labels": LABELS[:2]}}, PART | TEST),
        (
            {"mnist.npz": dict(zip(["x_train", "y_train", "x_test", "y_test"], (PART | TEST).values(), strict=True))},
            PART | TEST,
        ),
        ({"digits.npz": PART | {"names": np.array(["zero", "one"]), "val_images": IMAGES, "val_labels": LABELS}}, PART),
        ({"pathmnist.npz": medmnist(train=PART)}, PART),
        ({"pathmnist.npz": medmnist(train=PART, test=FEW)}, PART | TEST),
        (
            {"pathmnist.npz": medmnist(train=PART, val=FEW, test=FEW)},
            {"images": IMAGES[[0, 1, 2, 3, 0, 1]], "labels": LABELS[[0, 1, 2, 3, 0, 1]]} | TEST,
        ),
    ],
)
def test_npz_files_are_read(tmp_path, files, expected, save):
    for name, arrays in files.items():
        save(tmp_path / name, **arrays)
    (tmp_path / "README").write_text("neither of the two")
    for path in [tmp_path, *([tmp_path / name for name in files] if len(files) == 1 else [])]:
        arrays = read_npz(path)
        assert arrays.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path.read_bytes()


@pytest.mark.parametrize(
    "damaged, problem",
    [
        (lambda whole: b"", "not a .npz file, or not a whole one"),
        (lambda whole: b"PK but no more of a zip", "not a .npz file, or not a whole one"),
        (lambda whole: whole[: len(whole) // 2], "not a .npz file, or not a whole one"),
        (lambda whole: whole[:300] + bytes([whole[300] ^ 1]) + whole[301:], "Bad CRC-32 for file 'images.npy'"),
    ],
)
def test_damaged_npz_files_are_named_in_one_line(tmp_path, damaged, problem):
    path = tmp_path / "digits.npz"
    path.write_bytes(damaged(saved(path, **PART)))
    with pytest.raises(UnusableFileError) as error:
        read_npz(tmp_path)
    assert str(error.value) == f"dataset: {path}: {problem}"


def test_other_npz_files_are_named_in_one_line(tmp_path):
    with pytest.raises(UnusableFileError, match=f"^dataset: {tmp_path}/none.npz: No such file or directory$"):
        read_npz(tmp_path / "none.npz")
    with pytest.raises(UnusableFileError, match=f"^dataset: {tmp_path}: holds neither train.npz and test.npz nor one"):
        read_npz(tmp_path)
    path = tmp_path / "digits.npz"
    np.savez(path, x=IMAGES, labels=LABELS)
    with pytest.raises(
        UnusableFileError, match=f"^dataset: {path}: holds x, labels, not images and labels, x_train and y"
    ):
        read_npz(path)
    np.savez(path, images=IMAGES, labels=np.array([{}, None], object))
    with pytest.raises(UnusableFileError, match=f"^dataset: {path}: Object arrays cannot be loaded") as error:
        read_npz(path)
    assert "\n" not in str(error.value)
    np.savez(path, **medmnist(train=PART, val=PART | {"images": IMAGES[:, 1:]}))
    with pytest.raises(UnusableFileError, match=f"^dataset: {path}: all the input array dimensions"):
        read_npz(path)
    np.savez(tmp_path / "more.npz", **PART)
    with pytest.raises(UnusableFileError, match="holds neither"):
        read_npz(tmp_path)


def test_reasons_are_one_line():
    assert reason(FileNotFoundError(2, "No such file or directory", "here")) == "No such file or directory"
    assert reason(OSError("Not enough disk space.")) == "Not enough disk space"
    assert reason(ValueError("\n first line:\nsecond line")) == "first line"
    assert reason(EOFError()) == "EOFError"
