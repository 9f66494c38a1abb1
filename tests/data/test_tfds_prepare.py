from __future__ import annotations

import gzip
import hashlib
import http.server
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.fake_data import (
    TRAP_FOR_TENSORFLOW,
    disk_with_room_for,
    everything_in,
    images_like,
    write_idx,
    write_mnist,
)
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.utils import Size

from l2jax.data.dataset import load_dataset
from l2jax.data.tfds_prepare import BUILDERS, main, prepare
from l2jax.errors import InputError

STOCK = tfds.image_classification
KINDS = ("images-idx3", "labels-idx1")
FILES = [f"{prefix}-{kind}-ubyte" for prefix in ("train", "t10k") for kind in KINDS]
needs_tensorflow = pytest.mark.skipif(not importlib.util.find_spec("tensorflow"), reason="TensorFlow is not installed")
full = [
    pytest.mark.full,
    pytest.mark.skipif("L2JAX_DATA_DIR" not in os.environ, reason="L2JAX_DATA_DIR, with IDX files, is not set"),
]


@pytest.fixture
def source(tmp_path):
    """A folder with the IDX files of 30 + 12 made-up images, each with its own index in its first pixels."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder, write_mnist(folder, 30, 12)


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[str, Path]]:
    """The network: a loopback server of a folder; its address, and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, format, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}/", folder
        served.shutdown()
        thread.join()


@pytest.fixture
def mnist_on_server(source, server, monkeypatch):
    """Serves the made-up files, gzipped, as the published MNIST, whose checksums tfds knows."""
    url, served = server
    for name in FILES:
        content = gzip.compress((source[0] / name).read_bytes())
        (served / f"{name}.gz").write_bytes(content)
        known = checksums.UrlInfo(
            size=Size(len(content)), checksum=hashlib.sha256(content).hexdigest(), filename=f"{name}.gz"
        )
        monkeypatch.setitem(checksums.get_all_url_infos(), f"{url}{name}.gz", known)
    monkeypatch.setattr(STOCK.MNIST, "URL", url)
    return served


def assert_made_up(dataset, parts) -> None:
    """Asserts that a data set holds the made-up images, in any order, each with its label."""
    for images, labels, part in [
        (dataset.images, dataset.labels, parts["train"]),
        (dataset.test_images, dataset.test_labels, parts["test"]),
    ]:
        index = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 1, 0]
        np.testing.assert_array_equal(np.sort(index), np.arange(len(part[0])))
        np.testing.assert_array_equal(images[..., 0], part[0][index])
        np.testing.assert_array_equal(labels, part[1][index])


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_name_version_and_features_are_the_official_ones(source, tmp_path, name):
    folder = prepare(name, tmp_path / "data", source=source[0])
    stock = tfds.builder(name, data_dir=tmp_path / "nothing_here")
    written = tfds.builder_from_directory(folder)
    assert folder == tmp_path / "data" / name / str(stock.version)
    assert written.info.full_name == stock.info.full_name == f"{name}/3.0.1"
    assert repr(written.info.features) == repr(stock.info.features)
    assert written.info.features["label"].names == stock.info.features["label"].names
    assert written.info.supervised_keys == stock.info.supervised_keys
    assert {split: info.num_examples for split, info in written.info.splits.items()} == {"train": 30, "test": 12}
    assert tfds.builder_cls(name) is type(stock)  # which is not replaced

    read = tfds.data_source(name, split="train", data_dir=tmp_path / "data", download=False)
    dataset = load_dataset(name, tmp_path / "data")
    np.testing.assert_array_equal([example["image"] for example in read], dataset.images)
    np.testing.assert_array_equal([example["label"] for example in read], dataset.labels)
    assert_made_up(dataset, source[1])


@pytest.mark.parametrize("zipped", [False, True])
def test_the_command_prepares_from_files_without_tensorflow(source, tmp_path, zipped):
    folder, parts = source
    if zipped:
        for path in list(folder.iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    code = """
from l2jax.data.tfds_prepare import main
sys.exit(main())
"""
    data_dir = tmp_path / "data"
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        TRAP_FOR_TENSORFLOW + code,
        "mnist",
        "--from",
        str(folder),
        "--data-dir",
        str(data_dir),
    ]
    for _ in range(2):  # the second time it is already there
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{data_dir}/mnist/3.0.1\n", "")
    assert [path.name for path in data_dir.iterdir()] == ["mnist"]
    assert [path.name for path in (data_dir / "mnist").iterdir()] == ["3.0.1"]
    assert_made_up(load_dataset("mnist", data_dir), parts)


def test_mnist_is_downloaded_if_there_is_a_network(mnist_on_server, source, tmp_path, capfd):
    for name, data_dir in ("mnist", tmp_path / "data"), ("mnist:3.0.1", tmp_path / "more" / "data"):
        assert_made_up(load_dataset(name, data_dir), source[1])
        assert [path.name for path in data_dir.iterdir()] == ["mnist"]
    (mnist_on_server / f"{FILES[0]}.gz").unlink()
    assert_made_up(load_dataset("mnist", tmp_path / "data"), source[1])  # as it is there
    assert capfd.readouterr() == ("", "")


def test_tfds_knows_the_checksums_of_the_published_files():
    known = checksums.get_all_url_infos()
    for builder in BUILDERS.values():
        for name in FILES:
            info = known[urllib.parse.urljoin(builder.URL, f"{name}.gz")]
            assert len(info.checksum) == 64 and info.filename == f"{name}.gz"


def test_files_without_a_known_checksum_are_not_taken(mnist_on_server, tmp_path, monkeypatch):
    monkeypatch.delitem(checksums.get_all_url_infos(), f"{STOCK.MNIST.URL}{FILES[0]}.gz")
    with pytest.raises(ValueError, match="Missing checksums"):
        prepare("mnist", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def error_line(option: str, *args, **kwargs) -> str:
    """Asserts that `prepare` fails with one line, and returns the line."""
    with pytest.raises(InputError) as error:
        prepare(*args, **kwargs)
    assert error.value.option == option and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "spoil, problem",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "not the published file: its checksum differs"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "not the published file: its checksum differs"),
        (Path.unlink, "HTTP code: 404"),
    ],
)
@pytest.mark.parametrize("name", [FILES[0], FILES[3]])
def test_a_failed_download_is_reported_and_leaves_nothing(mnist_on_server, tmp_path, name, spoil, problem):
    spoil(mnist_on_server / f"{name}.gz")
    line = error_line("dataset", "mnist", tmp_path / "data")
    assert line.startswith(f"dataset: {STOCK.MNIST.URL}{name}.gz: ") and problem in line
    assert line.endswith("; where there is no network: python -m l2jax.prepare mnist --from DIR")
    assert not (tmp_path / "data").exists()


def test_a_missing_network_is_reported_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(STOCK.MNIST, "URL", "http://127.0.0.1:9/")  # where nothing listens
    url = f"http://127.0.0.1:9/{FILES[0]}.gz"
    known = checksums.get_all_url_infos()
    monkeypatch.setitem(known, url, next(iter(known.values())))
    start = time.monotonic()
    line = error_line("dataset", "mnist", tmp_path)
    assert line.startswith(f"dataset: {url}: no connection; where there is no network: ")
    assert time.monotonic() - start < 5
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize(
    "file, content, problem",
    [
        (FILES[0], None, "No such file or directory"),
        (FILES[0], images_like(30, 28, 27), "images of shape (30, 28, 27), not (N, 28, 28)"),
        (FILES[2], images_like(0, 28, 28), "images of shape (0, 28, 28), not (N, 28, 28)"),
        (FILES[1], np.zeros(29, np.uint8), "labels of shape (29,), up to 0, not 30 up to 9"),
        (FILES[1], np.zeros((30, 1), np.uint8), "labels of shape (30, 1), up to 0, not 30 up to 9"),
        (FILES[3], np.full(12, 10, np.uint8), "labels of shape (12,), up to 10, not 12 up to 9"),
        (FILES[3], b"\0\0\x08\1\0\0\0\x0c????", "holds 4 bytes of data instead of 12"),
        (FILES[2], b"\0\0\x09\3", "not an IDX file of bytes"),
        (FILES[2], b"\x1f\x8b\x08", "ended before"),
    ],
)
def test_unusable_files_are_named_and_nothing_is_left(source, tmp_path, file, content, problem):
    path = source[0] / file
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write_idx(path, content)
    line = error_line("from", "mnist", tmp_path / "data", source=source[0])
    assert line.startswith(f"from: {path}: ") and problem in line
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("room", [0, 1000, 70_000])
def test_a_full_disk_is_reported_and_leaves_nothing(source, tmp_path, room):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with disk_with_room_for(room):
        line = error_line("data_dir", "mnist", data_dir, source=source[0])
    assert line.startswith(f"data_dir: {data_dir}: cannot write mnist (") and "File too large" in line
    assert everything_in(data_dir) == []


def test_a_download_that_fills_the_disk_leaves_nothing(mnist_on_server, tmp_path):
    with disk_with_room_for(100):
        line = error_line("data_dir", "mnist", tmp_path / "data")
    assert line == f"data_dir: {tmp_path / 'data'}: cannot write mnist (File too large)"
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_made_is_reported(source, tmp_path):
    data_dir = tmp_path / "a_file" / "data"
    data_dir.parent.write_text("")
    assert error_line("data_dir", "mnist", data_dir, source=source[0]) == (
        f"data_dir: {data_dir}: cannot write mnist (Not a directory)"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_reported(source, tmp_path):
    tmp_path.chmod(0o555)
    try:
        for data_dir in tmp_path, tmp_path / "data":
            line = error_line("data_dir", "mnist", data_dir, source=source[0])
            assert line == f"data_dir: {data_dir}: cannot write mnist (Permission denied)"
    finally:
        tmp_path.chmod(0o755)


def test_other_content_of_the_target_folder_stays(source, tmp_path):
    (tmp_path / "data" / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "data" / "mnist" / "3.0.1" / "mine").write_text("")
    line = error_line("data_dir", "mnist", tmp_path / "data", source=source[0])
    assert line == f"data_dir: {tmp_path / 'data'}: cannot write mnist (Directory not empty)"
    assert everything_in(tmp_path / "data") == ["mnist", "mnist/3.0.1", "mnist/3.0.1/mine"]


def test_processes_that_prepare_at_once_make_one_folder(source, tmp_path):
    data_dir = tmp_path / "data"
    code = """
import sys, time
from l2jax.data.tfds_prepare import prepare
time.sleep(max(0, float(sys.argv[3]) - time.time()))
print(prepare("mnist", sys.argv[1], source=sys.argv[2]))
"""
    command = [sys.executable, "-W", "error", "-c", code, str(data_dir), str(source[0]), str(time.time() + 3)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = {process.communicate()[0].strip() for process in processes}
    assert outputs == {str(data_dir / "mnist" / "3.0.1")}
    assert not any(process.returncode for process in processes)
    assert [path.name for path in data_dir.rglob("*") if path.is_dir()] == ["mnist", "3.0.1"]
    assert_made_up(load_dataset("mnist", data_dir), source[1])


def test_other_data_sets_are_refused_without_tensorflow(tmp_path, monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find_spec(name))
    for name in "cifar10", "cifar10:3.0.2", "emnist/letters":
        line = error_line("dataset", name, tmp_path)
        assert line.startswith(f"dataset: got {name}; accepted: data sets that are prepared in {tmp_path} (")
        assert line.endswith(
            f"TensorFlow prepares {name.split(':')[0].split('/')[0]}: pip install 'l2jax[tensorflow]')"
        )
    assert main(["cifar10", "--data-dir", str(tmp_path)]) == 2
    assert capsys.readouterr() == ("", f"error: {error_line('dataset', 'cifar10', tmp_path)}\n")
    assert everything_in(tmp_path) == []


def test_wrong_names_are_refused(source, tmp_path, capsys):
    for name, accepted in [
        ("mnits", "mnist, "),
        ("no_such_thing_at_all", "mnist_small, a data set of tensorflow-datasets, or a path to .npz files"),
        ("mnist:3.0.0", "mnist or mnist:3.0.1"),
        ("mnist/letters", "mnist or mnist:3.0.1"),
        ("kmnist:latest", "kmnist or kmnist:3.0.1"),
    ]:
        assert error_line("dataset", name, tmp_path / "data").startswith(f"dataset: got {name}; accepted: {accepted}")
        assert main([name, "--data-dir", str(tmp_path / "data"), "--from", str(source[0])]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    line = error_line("from", "cifar10", tmp_path / "data", source="here")
    assert line == "from: got here; accepted: a folder of IDX files for mnist, fashion_mnist, kmnist alone"
    assert not (tmp_path / "data").exists()


@needs_tensorflow
@pytest.mark.filterwarnings("default")  # of TensorFlow and what it imports
def test_tfds_prepares_the_same_records_in_the_same_order(mnist_on_server, tmp_path, monkeypatch):
    for split, size in ("TRAIN", 30), ("TEST", 12):
        monkeypatch.setattr(f"tensorflow_datasets.image_classification.mnist._{split}_EXAMPLES", size)
    stock = STOCK.MNIST(data_dir=tmp_path / "stock", file_format="array_record")
    stock.download_and_prepare()
    ours, theirs = load_dataset("mnist", tmp_path / "ours"), load_dataset("mnist", tmp_path / "stock")
    for name in "images", "labels", "test_images", "test_labels":
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert (tmp_path / "ours" / "mnist" / "3.0.1" / "features.json").read_text() == (
        Path(stock.data_dir) / "features.json"
    ).read_text()


@needs_tensorflow
@pytest.mark.filterwarnings("default")
def test_cifar10_is_prepared_with_tensorflow(server, tmp_path, monkeypatch):
    url, served = server
    rng, parts = np.random.default_rng(0), {}
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    with tarfile.open(served / "cifar-10-binary.tar.gz", "w:gz") as archive:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        add("batches.meta.txt", "\n".join(names).encode())
        for batch in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
            images = rng.integers(0, 256, (4, 3, 32, 32), np.uint8)
            labels = rng.integers(0, 10, 4, np.uint8)
            add(f"{batch}.bin", np.hstack([labels[:, None], images.reshape(4, -1)]).tobytes())
            parts[batch] = images.transpose(0, 2, 3, 1), labels
    info = STOCK.Cifar10._cifar_info
    monkeypatch.setattr(
        STOCK.Cifar10,
        "_cifar_info",
        property(lambda self: info.fget(self)._replace(url=f"{url}cifar-10-binary.tar.gz")),
    )

    dataset = load_dataset("cifar10", tmp_path / "data")
    assert dataset.num_classes == 10 and dataset.test_images.shape == (4, 32, 32, 3)
    train = [parts[batch] for batch in parts if batch != "test_batch"]
    images, labels = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    order = [np.flatnonzero((images == image).all((1, 2, 3)))[0] for image in dataset.images]
    assert sorted(order) == list(range(20))
    np.testing.assert_array_equal(dataset.labels, labels[order])

    with pytest.raises(InputError, match=r"^dataset: got cifar10:1\.0\.0; accepted: what tfds can prepare ") as error:
        load_dataset("cifar10:1.0.0", tmp_path / "data")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [pytest.param(name, marks=full) for name in ("mnist", "fashion_mnist")])
def test_full_data_sets_load_in_a_second_the_second_time(tmp_path, name):
    folder = Path(os.environ["L2JAX_DATA_DIR"], name)
    prepare(name, tmp_path, source=folder)
    dataset = load_dataset(name, tmp_path)
    for prefix, images, labels in [
        ("train", dataset.images, dataset.labels),
        ("t10k", dataset.test_images, dataset.test_labels),
    ]:
        pixels, classes = (gzip.decompress((folder / f"{prefix}-{kind}-ubyte.gz").read_bytes()) for kind in KINDS)
        pixels = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 784)
        published = np.column_stack([pixels, np.frombuffer(classes, np.uint8, offset=8)])
        loaded = np.column_stack([images.reshape(-1, 784), labels.astype(np.uint8)])
        assert sorted(map(bytes, loaded)) == sorted(map(bytes, published))
    code = f"from l2jax.data import load_dataset; print(len(load_dataset({name!r}, {str(tmp_path)!r}).images))"
    start = time.monotonic()
    outputs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert outputs == "60000\n" and time.monotonic() - start < 1
