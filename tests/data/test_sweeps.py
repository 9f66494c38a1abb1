"""Sweeps of a person's own data: floats, images of any rank, names of classes, files."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers import plain, tiny_run
from helpers.fake_data import write_photos

import l2jax
from l2jax.data.dataset import load_dataset
from l2jax.results.metrics import METRICS
from l2jax.run import saving, session
from l2jax.run.options import RunOptions

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


OPTIONS = {"epochs": 3, "batch_size": 16, "val_size": 32}


def sweep(dataset, **options):
    return l2jax.sweep([0.0, 1e-2], 2, dataset=dataset, model=tiny_run.mlp, **OPTIONS, **options)


def assert_same(actual, expected, rtol=0.0):
    for name in METRICS:
        np.testing.assert_allclose(actual.data[name], expected.data[name], rtol=rtol, err_msg=name)


@pytest.fixture(scope="module")
def from_bytes():
    return sweep(tiny_run.dataset())


def test_floats_train_as_bytes_do(from_bytes):
    """The same pixels, divided by 255 here and there, give the same numbers up to rounding."""
    dataset = tiny_run.dataset()
    images, test_images = (array.astype(np.float32) / 255 for array in (dataset.images, dataset.test_images))
    from_floats = sweep(dataclasses.replace(dataset, images=images, test_images=test_images))
    assert_same(from_floats, from_bytes, rtol=1e-5)
    for name in "test_loss", "test_accuracy":
        np.testing.assert_allclose(from_floats.data[name], from_bytes.data[name], rtol=1e-5)


def test_floats_are_not_scaled_and_may_have_any_rank():
    dataset = tiny_run.dataset()
    images = np.random.default_rng(0).normal(3, 2, (100, 7, 7)).astype(np.float32).reshape(100, 49)
    dataset = l2jax.Dataset("normal", images[:80], dataset.labels, 4, images[80:], dataset.test_labels)
    plain.assert_equals_plain_loop(sweep(dataset, train_size=40), dataset, tiny_run.mlp)


def test_labels_of_every_form_train_alike():
    images, labels = tiny_run.dataset().images, tiny_run.dataset().labels
    expected = sweep((images, labels))
    for same in labels[:, None], np.eye(4)[labels], np.array(["ant", "bee", "cat", "dog"])[labels]:
        assert_same(sweep((images, same)), expected)


def test_paths_of_arrays_are_trained_on_whole(tmp_path, monkeypatch, from_bytes):
    monkeypatch.chdir(tmp_path)
    dataset = tiny_run.dataset()
    arrays = {"x_train": dataset.images, "y_train": dataset.labels}
    np.savez("digits.npz", **arrays, x_test=dataset.test_images, y_test=dataset.test_labels)
    for path in Path("digits.npz"), "./digits.npz", Path():
        results = sweep(path)
        assert results.config["sweep"]["train_size"] is None
        assert load_dataset(results.config["sweep"]["dataset"]).digest == results.config["data_sha256"]
        assert_same(results, from_bytes)


@pytest.fixture
def photos(tmp_path):
    """The tiny data set as PNG files: each class has its own sub-folder."""
    dataset = tiny_run.dataset()
    names = np.array(["ant", "bee", "cat", "dog"])
    for part, images, labels in [
        ("train", dataset.images, dataset.labels),
        ("test", dataset.test_images, dataset.test_labels),
    ]:
        write_photos(
            tmp_path / "photos", {f"{part}/{name}": [*images[names[labels] == name, ..., 0]] for name in names}
        )
    return tmp_path / "photos"


def test_folders_of_images_train_as_their_arrays_do(photos):
    dataset = load_dataset(photos)
    assert dataset.class_names == ("ant", "bee", "cat", "dog")
    results = sweep(str(photos), image_size=7)
    assert results.config["sweep"]["image_size"] == 7
    assert_same(results, sweep(dataset))
    with pytest.raises(l2jax.InputError, match=r"^image_size: got 7; accepted: none, as arrays have a size$"):
        sweep(dataset, image_size=7)


def test_the_command_trains_on_a_folder_of_images(photos, tmp_path, monkeypatch):
    config = dataclasses.replace(tiny_run.CONFIG, dataset=photos, train_size="auto", image_size=7)
    monkeypatch.setattr(session, "Sweep", tiny_run.sweep)
    monkeypatch.setattr(saving.plot, "figures", lambda _: [])
    assert session.run(config, RunOptions(run_dir=tmp_path / "run", quiet=True)) == 0
    again = dataclasses.replace(config, seeds=3)
    assert session.run(again, RunOptions(resume=tmp_path / "run", quiet=True)) == 0
    assert l2jax.load_results(tmp_path / "run").data.sizes["seed"] == 3
    for part in "train", "test":
        (photos / part / "cat").rename(photos / part / "cow")
    with pytest.raises(l2jax.InputError, match=r"^dataset: got .*; accepted: the examples that the run to resume"):
        session.run(again, RunOptions(resume=tmp_path / "run", quiet=True))


def test_what_cannot_be_loaded_leaves_no_run_folder(photos, tmp_path):
    (photos / "train" / "cat" / "000.png").write_text("no image")
    config = dataclasses.replace(tiny_run.CONFIG, dataset=photos, image_size=7)
    with pytest.raises(l2jax.InputError, match=r"^dataset: .*/000.png: no PNG or JPEG image; 1 of 100 images are"):
        session.run(config, RunOptions(run_dir=tmp_path / "run", quiet=True))
    assert not (tmp_path / "run").exists()


def test_fractions_train_as_the_numbers_that_they_stand_for(from_bytes):
    fractions = {"val_size": 0.4, "train_size": 0.6}  # of 80
    results = l2jax.sweep([0.0, 1e-2], 2, dataset=tiny_run.dataset(), model=tiny_run.mlp, **OPTIONS | fractions)
    assert_same(results, from_bytes)
    assert results.config["sweep"]["val_size"] == 0.4


def test_labels_that_are_all_equal_are_refused():
    images = np.zeros((80, 7, 7, 1), np.uint8)
    for labels, label in ((np.full(80, 3), "3"), (["cat"] * 80, "cat")):
        with pytest.raises(l2jax.InputError, match=rf"labels that are all {label}; accepted: examples of two classes"):
            sweep((images, labels))


def test_classes_without_examples_are_in_terminal_and_report(tmp_path, monkeypatch, capfd):
    data = tiny_run.dataset()
    data = dataclasses.replace(data, labels=np.where(data.labels == 3, 0, data.labels))
    monkeypatch.setattr(tiny_run, "dataset", lambda: data)
    assert tiny_run.run(tmp_path / "run", draw=True, quiet=False) == 0
    first, second, *_ = capfd.readouterr().err.splitlines()
    examples, trials = first.split("; ")
    assert examples == "made up: 40 training, 32 validation and 20 test examples of 4 classes"
    assert trials == "4 trials (2 strengths x 2 seeds), 3 epochs"
    assert second == "warning: the training part has no example of class 3"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Warning: the training part has no example of class 3." in page
    assert "Warning: the validation part has no example of class 3." in page
