"""A driver and workers train what one process does, bitwise, whatever fails on the way."""

import dataclasses
from concurrent.futures.process import BrokenProcessPool

import jax
import numpy as np
import pytest
from helpers import tiny_run
from helpers.at_once import AtOnce

from l2jax.checkpoint.storage import Storage
from l2jax.distributed import worker
from l2jax.distributed.driver import MOST_FAILURES, Driver
from l2jax.distributed.ledger_file import read_ledger_file
from l2jax.distributed.workers import Workers
from l2jax.errors import InputError, SweepWarning
from l2jax.run.parameters import arrays_of_all

pytestmark = pytest.mark.usefixtures("compiled_quickly")

EPOCHS = [(number, chunk) for chunk in ((0, 1), (2, 3)) for number in (1, 2, 3)]
"""The records of a tiny sweep."""


def make_driver(folder, sweep=None, executor=None, **options):
    """Workers with the devices of this process, as programs that compile quickly differ by rounding between numbers."""
    return Driver(
        sweep or tiny_run.sweep(), Workers(executor or AtOnce(), 2, devices=None), Storage(str(folder)), **options
    )


def train(driver):
    """Trains to the end; returns the number and the trials of each record."""
    driver.plan()
    return [(record.number, record.indices) for record in driver.epochs()]


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    """Workers say after each epoch how far they are."""
    monkeypatch.setattr(worker, "SAY_EVERY", 0.0)


@pytest.fixture
def trained(monkeypatch):
    """The epochs that workers train, in order: the number, and the seeds of the chunk."""
    epochs = []

    def write(self, name, content, write=Storage.write):
        if name == worker.NAME:
            trials, ledger = read_ledger_file(content)
            epochs.append((int(ledger.epochs_done.max()), trials.hyperparameters["l2"].tolist()))
        write(self, name, content)

    monkeypatch.setattr(Storage, "write", write)
    return epochs


@pytest.fixture(scope="module")
def expected():
    with tiny_run.compiled_quickly():
        sweep = tiny_run.sweep()
        states = {}
        for record in sweep.epochs():
            if record.number == sweep.config.epochs:
                states |= zip(record.indices, sweep.snapshot().state["params/layers/0/kernel"], strict=True)
        return sweep.results().data, states


def assert_same_outcome(driver, expected):
    data, states = expected
    assert driver.sweep.results().data.identical(data)
    kernels = arrays_of_all(driver.sweep, driver.checkpoints)["layers/0/kernel"]
    for index, kernel in states.items():
        np.testing.assert_array_equal(kernels[index], kernel)


def failing(monkeypatch, *, times, at=2):
    """The first chunk's worker fails so many times when it has finished this epoch, before it says so."""
    left = [OSError("the node is gone") for _ in range(times)]

    def write(self, name, content, write=Storage.write):
        if name == worker.NAME and left:
            trials, ledger = read_ledger_file(content)
            if ledger.epochs_done.max() == at and not trials.hyperparameters["l2"].any():
                raise left.pop()
        write(self, name, content)

    monkeypatch.setattr(Storage, "write", write)


def test_results_and_parameters_are_those_of_one_process(tmp_path, expected):
    driver = make_driver(tmp_path)
    assert train(driver) == EPOCHS
    assert_same_outcome(driver, expected)
    assert not driver.lost


def test_files_may_be_in_any_storage_that_fsspec_knows(expected):
    driver = make_driver("memory://bucket/sweep")
    assert train(driver) == EPOCHS
    assert_same_outcome(driver, expected)


def test_a_storage_may_have_any_name(tmp_path, expected):
    driver = make_driver(tmp_path / "a::b [256, 256] #?")
    assert train(driver) == EPOCHS
    assert_same_outcome(driver, expected)


def test_a_chunk_goes_on_from_its_last_checkpoint(tmp_path, expected, monkeypatch, trained):
    failing(monkeypatch, times=1, at=2)
    driver = make_driver(tmp_path, checkpoint_minutes=0.0)
    assert sorted(train(driver)) == sorted(EPOCHS)
    assert_same_outcome(driver, expected)
    assert [epoch for epoch, strengths in trained if strengths == [0, 0]] == [1, 3]


def test_a_chunk_without_a_checkpoint_is_trained_anew(tmp_path, expected, monkeypatch):
    failing(monkeypatch, times=MOST_FAILURES - 1)
    driver = make_driver(tmp_path)
    assert sorted(train(driver)) == sorted(EPOCHS)
    assert_same_outcome(driver, expected)


def test_a_chunk_is_given_up_and_the_others_finish(tmp_path, expected, monkeypatch):
    failing(monkeypatch, times=MOST_FAILURES)
    driver = make_driver(tmp_path)
    records = train(driver)
    assert driver.lost == ["trials 1-2 (OSError: the node is gone)"]
    assert set(records) == {(1, (0, 1)), *EPOCHS[3:]}
    second = driver.sweep.results().data.isel(l2=1)
    assert second.identical(expected[0].isel(l2=1))

    again = make_driver(tmp_path)
    again.restore()
    assert set(train(again)) >= {(2, (0, 1)), (3, (0, 1))}
    assert_same_outcome(again, expected)


def test_a_broken_pool_loses_nothing_that_is_done(tmp_path, expected):
    class Breaks(AtOnce):
        def submit(self, fn, /, *args, **kwargs):
            if fn is worker.train and args[-1] == (2, 3):
                raise BrokenProcessPool("a process was killed")
            return super().submit(fn, *args, **kwargs)

    with pytest.raises(BrokenProcessPool):
        train(make_driver(tmp_path, executor=Breaks()))
    again = make_driver(tmp_path)
    again.restore()
    assert train(again) == EPOCHS[3:]
    assert_same_outcome(again, expected)


def assert_tested(driver, trials):
    """The trials have test metrics, as they have where one process was stopped at the same epochs; others have none."""
    if not trials:
        return
    data = driver.sweep.results().data
    test = data["test_loss"].values.ravel()
    assert set(np.flatnonzero(np.isfinite(test))) == trials
    epochs_done = driver.sweep.ledger.epochs_done
    for number in set(epochs_done[list(trials)].tolist()):
        sweep = tiny_run.sweep(dataclasses.replace(tiny_run.CONFIG, epochs=number))
        assert sum(1 for _ in sweep.epochs())
        rows = [index for index in trials if epochs_done[index] == number]
        np.testing.assert_array_equal(test[rows], sweep.results().data["test_loss"].values.ravel()[rows])


@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
def test_a_sweep_that_was_stopped_is_continued(tmp_path, expected, epochs, trained):
    stopped = make_driver(tmp_path)
    stopped.storage.write(worker.STOP, b"")  # of an earlier time
    stopped.plan()

    def exists(self, name, exists=Storage.exists):
        return len(trained) + 1 >= epochs if name == worker.STOP else exists(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "exists", exists)
        done = [(record.number, record.indices) for record in stopped.epochs()]
    assert not stopped.lost
    assert_tested(stopped, {index for _, indices in done for index in indices})
    again = make_driver(tmp_path)
    again.restore()
    assert done + train(again) == EPOCHS
    assert len(trained) == len(EPOCHS)
    assert_same_outcome(again, expected)


def test_what_a_finished_sweep_has_is_not_trained_again(tmp_path, trained):
    train(make_driver(tmp_path))
    trained.clear()
    again = make_driver(tmp_path)
    again.restore()
    assert again.sweep.finished
    assert not again.tasks
    assert not trained


def test_a_damaged_file_is_told_and_trained_again(tmp_path, expected):
    train(make_driver(tmp_path))
    damaged = sorted(tmp_path.glob("*/ledger.npz"))[0]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 255
    damaged.write_bytes(content)
    again = make_driver(tmp_path)
    with pytest.warns(SweepWarning, match=r"ledger\.npz is left out"):
        again.restore()
    assert len(train(again)) == 3
    assert_same_outcome(again, expected)


def test_a_worker_that_does_not_see_the_storage_says_so(tmp_path, monkeypatch):
    driver = make_driver(tmp_path)
    monkeypatch.setattr(Storage, "exists", lambda *_: False)
    with pytest.raises(InputError, match=r"storage: got .* accepted: a folder that all machines see"):
        driver.plan()


def test_devices_of_different_kinds_are_told(tmp_path, monkeypatch):
    kinds = iter(["H100", "A100"])
    monkeypatch.setattr(worker, "_device", lambda _: next(kinds))
    with pytest.warns(SweepWarning, match="devices of different kinds, A100 and H100: last digits may differ"):
        train(make_driver(tmp_path))


def test_programs_are_compiled_once_per_worker(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(worker, "Sweep", lambda *args, **kwargs: made.append(1) or tiny_run.sweep(*args, **kwargs))
    driver = make_driver(tmp_path)
    train(driver)
    assert made == [1]
    assert jax.tree.leaves(driver.sweep.waiting) == []
