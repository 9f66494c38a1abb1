"""Runs that are interrupted, resumed, extended, killed, and whose disk fails: against runs that nothing disturbed."""

import dataclasses
import errno
import gc
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import psutil
import pytest
from endurance import faults, kill
from flax import nnx
from helpers import tiny_run
from helpers.tiny_run import CONFIG
from hypothesis import given, settings
from hypothesis import strategies as st

import l2jax
from l2jax import cli
from l2jax.checkpoint.checkpoint import Checkpoint
from l2jax.checkpoint.checkpoints import Checkpoints
from l2jax.checkpoint.folders import Folders
from l2jax.engine import compile as compiling
from l2jax.errors import InputError, SweepWarning
from l2jax.run import metrics_log, saving, session
from l2jax.run.lock import locked
from l2jax.run.options import RunOptions
from l2jax.run.parameters import params_file
from l2jax.run.signals import stop_signals

pytestmark = pytest.mark.usefixtures("compiled_quickly")

NUM_YIELDS = 6  # 3 epochs of 2 chunks


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("undisturbed")
    assert tiny_run.run(run_dir) == 0
    return run_dir


def finished(sweep):
    """Metrics and the last state of every trial."""
    states = {}
    for _ in sweep.epochs():
        state = sweep.snapshot().state
        states |= dict(zip(sweep.chunk.indices, zip(*state.values(), strict=True), strict=True))
    return sweep.results().data, states


@pytest.fixture(scope="module")
def expected():
    return finished(tiny_run.sweep())


def assert_same_outcome(actual, expected):
    assert actual[0].identical(expected[0])
    for trial, state in actual[1].items():
        for values, others in zip(state, expected[1][trial], strict=True):
            np.testing.assert_array_equal(values, others)


def restore(sweep, folder):
    for snapshot, description in Checkpoints(Folders(folder / "checkpoints")).load(sweep.check_snapshot, pytest.fail):
        sweep.restore(snapshot)
        sweep.reproduce(description)


def train(sweep, folder, num_epochs):
    """Trains so many epochs, with a checkpoint after each."""
    checkpoints = Checkpoints(Folders(folder / "checkpoints"))
    for _, _ in zip(range(num_epochs), sweep.epochs(), strict=False):
        checkpoints.save(Checkpoint(sweep.snapshot(), sweep.description()))


# Resume


@pytest.mark.parametrize("num_epochs", range(NUM_YIELDS + 1))
def test_a_run_resumed_after_any_epoch_is_bitwise_the_same(num_epochs, tmp_path, expected):
    train(tiny_run.sweep(), tmp_path, num_epochs)
    sweep = tiny_run.sweep()
    restore(sweep, tmp_path)
    assert sweep.ledger.num_records == num_epochs
    assert sweep.epochs_left == NUM_YIELDS - num_epochs
    assert_same_outcome(finished(sweep), expected)


@settings(max_examples=5, deadline=None)
@given(
    epochs=st.integers(1, 3),
    l2=st.sampled_from([(0.0,), (1e-2,), (1e-2, 0.0)]),
    stops=st.lists(st.integers(0, 4), max_size=3),
)
def test_an_extended_run_trains_nothing_twice(expected, epochs, l2, stops):
    """Any grid within the last one, with fewer epochs, interrupted anywhere and any number of times."""
    with tempfile.TemporaryDirectory() as folder:
        for stop in stops:
            smaller = tiny_run.sweep(dataclasses.replace(CONFIG, l2=l2, epochs=epochs))
            restore(smaller, Path(folder))
            train(smaller, Path(folder), stop)
        sweep = tiny_run.sweep()
        restore(sweep, Path(folder))
        done = sum(len(record.indices) for record in sweep.ledger.records())
        assert done == 2 * min(sum(stops), len(l2) * epochs)
        data, states = finished(sweep)
    assert_same_outcome((data, states), expected)
    trained = [(index, record.number) for record in sweep.ledger.records() for index in record.indices]
    assert sorted(trained) == [(trial, epoch) for trial in range(4) for epoch in (1, 2, 3)]


def test_extended_by_seeds(tmp_path, expected):
    train(tiny_run.sweep(), tmp_path, NUM_YIELDS)
    larger = dataclasses.replace(CONFIG, seeds=3)
    sweep = tiny_run.sweep(larger)
    restore(sweep, tmp_path)
    assert sorted({index for record in sweep.ledger.records() for index in record.indices}) == [0, 1, 3, 4]
    data, states = finished(sweep)
    assert sorted(states) == [2, 5]
    assert data.isel(seed=[0, 1]).drop_vars("seed").equals(expected[0].drop_vars("seed"))
    fresh, _ = finished(tiny_run.sweep(larger))
    for name in data:
        np.testing.assert_allclose(data[name], fresh[name], rtol=1e-6, err_msg=str(name))


@pytest.mark.slow
def test_resumed_on_one_device_equal_up_to_rounding(tmp_path, expected):
    train(tiny_run.sweep(), tmp_path, 4)
    sweep = tiny_run.sweep(dataclasses.replace(CONFIG, devices=1))
    restore(sweep, tmp_path)
    data, _ = finished(sweep)
    assert sweep.setup.mesh.size == 1
    for name in data:
        np.testing.assert_allclose(data[name], expected[0][name], rtol=1e-5, err_msg=str(name))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_run_which_can_be_resumed(number, tmp_path, undisturbed, monkeypatch, capfd):
    def ask(path, line, append=metrics_log._append):
        append(path, line)
        if path.read_bytes().count(b"\n") == 4:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(metrics_log, "_append", ask)
        assert tiny_run.run(tmp_path / "run", checkpoint_minutes=100) == 128 + number
    assert capfd.readouterr().err.splitlines()[-1] == "interrupted: saved the 4 of 6 epochs that are complete"
    assert l2jax.load_results(tmp_path / "run").data["val_loss"].notnull().sum() == 2 * 4
    assert tiny_run.run(tmp_path / "run", resume=True) == 0
    kill.assert_same_outcome(tmp_path / "run", undisturbed)


def test_nohup_goes_on_when_its_terminal_is_closed(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
        assert received == [] and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_finished_run_is_resumed_without_training(tmp_path, undisturbed, monkeypatch):
    shutil.copytree(undisturbed, tmp_path / "run")
    monkeypatch.setattr(compiling, "compile_programs", lambda *_, **__: pytest.fail("it compiles"))
    assert tiny_run.run(tmp_path / "run", resume=True) == 0
    kill.assert_same_outcome(tmp_path / "run", undisturbed)


def test_other_data_under_the_same_name_are_refused(tmp_path, undisturbed, monkeypatch):
    shutil.copytree(undisturbed, tmp_path / "run")
    data = tiny_run.dataset()
    monkeypatch.setattr(tiny_run, "dataset", lambda: dataclasses.replace(data, images=data.images // 2))
    with pytest.raises(InputError, match=r"^dataset: got made up; accepted: the examples"):
        tiny_run.run(tmp_path / "run", resume=True)


@pytest.fixture
def run_of_a_file(tmp_path, monkeypatch):
    """A run in tmp_path/here, of digits.npz there, given by a relative path."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    data = tiny_run.dataset()
    np.savez(tmp_path / "here" / "digits.npz", images=data.images, labels=data.labels)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(session, "Sweep", tiny_run.sweep)
    monkeypatch.setattr(saving, "plot", SimpleNamespace(drawings=lambda _: {}))
    words = "--l2 0 1e-2 --seeds 2 --epochs 1 --batch-size 16 --train-size 40 --val-size 32 --quiet --run-dir run"
    assert cli.main([*words.split(), "--dataset", "./digits.npz"]) == 0
    return tmp_path / "here" / "run"


@pytest.mark.parametrize("path", [None, "../here/digits.npz", "absolute", "linked.npz"])
def test_a_run_is_resumed_from_another_folder(path, run_of_a_file, tmp_path, monkeypatch, capfd):
    digits = tmp_path / "here" / "digits.npz"
    monkeypatch.chdir(tmp_path / "there")
    (tmp_path / "there" / "linked.npz").symlink_to(digits)
    words = ["--dataset", str(digits) if path == "absolute" else path] if path else []
    before = l2jax.load_results(run_of_a_file).data
    assert cli.main(["--resume", str(run_of_a_file), *words, "--quiet", "--epochs", "2"]) == 0, capfd.readouterr().err
    after = l2jax.load_results(run_of_a_file).data
    assert after.isel(epoch=[0])["val_loss"].equals(before["val_loss"])


def test_other_examples_on_another_path_are_refused(run_of_a_file, capfd):
    data = tiny_run.dataset()
    np.savez("others.npz", images=data.images // 2, labels=data.labels)
    assert cli.main(["--resume", str(run_of_a_file), "--dataset", "others.npz"]) == 2
    assert "accepted: the examples that the run to resume was trained on" in capfd.readouterr().err


def test_warnings_of_other_libraries_are_not_printed(tmp_path, monkeypatch, capfd):
    def noisy(*_):
        warnings.warn("noise of a library", UserWarning, stacklevel=1)
        warnings.warn("noise of a library", DeprecationWarning, stacklevel=1)
        warnings.warn("of l2jax", SweepWarning, stacklevel=1)
        return {}

    monkeypatch.setattr(session, "Sweep", lambda *words, **_: noisy() or tiny_run.sweep(*words))
    monkeypatch.setattr(session, "load_with_progress", lambda *_: tiny_run.dataset())
    monkeypatch.setattr(saving, "plot", SimpleNamespace(drawings=noisy))
    assert session.run(CONFIG, RunOptions(run_dir=tmp_path / "run")) == 0
    err = capfd.readouterr().err
    assert "noise" not in err and err.count("warning: of l2jax\n") == 2


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunOptions(run_dir=Path("~/run")).run_dir == tmp_path / "run"
    assert RunOptions(profile=Path("~/trace")).profile == tmp_path / "trace"
    assert tiny_run.run(Path("~/run")) == 0
    assert cli.parse(["--resume", "~/run", "--epochs", "9"]).sweep.epochs == 9
    assert RunOptions(run_dir=Path("~nobody_of_that_name/x")).run_dir == Path("~nobody_of_that_name/x")


def test_a_folder_in_use_is_refused(tmp_path, undisturbed):
    shutil.copytree(undisturbed, tmp_path / "run")
    with locked(tmp_path / "run"), pytest.raises(InputError, match=f"process {os.getpid()} does"):
        tiny_run.run(tmp_path / "run", resume=True)
    (tmp_path / "run" / ".lock").write_text("1\n")  # left behind
    assert tiny_run.run(tmp_path / "run", resume=True) == 0


def test_two_checkpoints_per_trial_are_kept(undisturbed):
    assert sorted(path.name for path in (undisturbed / "checkpoints").iterdir()) == [
        "000002",
        "000003",
        "000005",
        "000006",
    ]


def test_best_parameters_load_into_a_network(undisturbed):
    model = nnx.eval_shape(lambda: tiny_run.mlp(nnx.Rngs(1)))
    params = dict(np.load(undisturbed / "best_params.npz"))
    state = nnx.state(model)
    nnx.update(
        model, jax.tree.map_with_path(lambda path, _: params["/".join(str(key.key) for key in path[:-1])], state)
    )

    results = l2jax.load_results(undisturbed)
    best = results.best_trial()
    assert best["l2"] == results.best()
    data = tiny_run.dataset()
    logits = model(data.test_images.astype(np.float32) / 255)
    accuracy = (logits.argmax(-1) == data.test_labels).mean()
    assert accuracy == pytest.approx(results.data["test_accuracy"].sel(best).item())
    reached = results.data["val_loss"].sel(l2=best["l2"]).isel(epoch=-1)
    assert reached.sel(seed=best["seed"]) == reached.min()


def test_all_parameters_are_in_the_order_of_the_summary(undisturbed):
    results, sweep = l2jax.load_results(undisturbed), tiny_run.sweep()
    content = params_file("all", results, sweep, lambda _: [Checkpoints(Folders(undisturbed / "checkpoints"))])
    params = dict(np.load(io.BytesIO(content)))
    summary = pd.read_csv(undisturbed / "summary.csv")
    norms = sum((values**2).reshape(len(summary), -1).sum(1) for path, values in params.items() if "kernel" in path)
    np.testing.assert_allclose(norms, summary["kernel_sum_of_squares"], rtol=1e-5)
    assert len({*summary["kernel_sum_of_squares"]}) == len(summary)  # or no order could be told from another
    best = results.best_trial()
    row = np.flatnonzero((summary["l2"] == best["l2"]) & (summary["seed"] == best["seed"]))
    for path, values in np.load(undisturbed / "best_params.npz").items():
        np.testing.assert_array_equal(params[path][row[0]], values)


# Divergence


def test_a_diverged_trial_freezes_at_its_last_finite_epoch():
    """With a learning rate of 3e17, Adam adds some 3e17 to a kernel in a step, until the sum of squares is infinite."""
    sweep = tiny_run.sweep(dataclasses.replace(CONFIG, learning_rate=(1e-3, 3e17), epochs=16))
    states = {}
    for record in sweep.epochs():
        state = sweep.snapshot().state
        assert all(np.isfinite(values).all() for values in state.values())
        for row, index in enumerate(record.indices):
            states[index, record.number] = {name: values[row] for name, values in state.items()}
    data = sweep.results().data
    num_finite = data["val_loss"].notnull().sum("epoch")
    assert (num_finite.sel(learning_rate=1e-3) == 16).all()
    np.testing.assert_array_equal(data["diverged_epoch"], np.where(data["diverged"], num_finite + 1, 0))
    for trial in np.flatnonzero(data["diverged"]).tolist():
        last = max(num_finite.values.ravel()[trial], 1)  # 0: it is as it was at the start, from the first epoch on
        for name, values in states[trial, 16].items():
            np.testing.assert_array_equal(values, states[trial, last][name], err_msg=name)
    assert len({*num_finite.values.ravel()} - {0, 16}) >= 2


def test_if_every_trial_diverges_the_exit_code_is_1(tmp_path, capfd):
    config = dataclasses.replace(CONFIG, learning_rate=(1e30,))
    assert tiny_run.run(tmp_path / "run", config, draw=True) == 1
    assert capfd.readouterr().err == "error: every trial diverged: lower --learning-rate or --l2\n"
    assert l2jax.load_results(tmp_path / "run").data["diverged"].all()
    assert (tmp_path / "run" / "report.html").exists() and not (tmp_path / "run" / "best_params.npz").exists()


# Faults


@pytest.mark.parametrize("gone", ["folder removed", "read-only", "disk full"])
def test_a_lost_folder_ends_the_run_with_one_line(gone, tmp_path, undisturbed, monkeypatch, capfd):
    run_dir = tmp_path / "run"

    def act(path, line, append=metrics_log._append):
        append(path, line)
        if path.read_bytes().count(b"\n") < 4:
            return
        if gone == "folder removed":
            shutil.rmtree(run_dir)
        else:
            number = {"disk full": errno.ENOSPC, "read-only": errno.EROFS}[gone]
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(metrics_log, "_append", act)
        assert tiny_run.run(run_dir) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {run_dir}: ")
    if gone == "folder removed":
        assert not run_dir.exists() and line.endswith("the folder is gone")
    else:
        assert line.endswith(f"intact: --resume {run_dir}")
        assert tiny_run.run(run_dir, resume=True) == 0
        kill.assert_same_outcome(run_dir, undisturbed)


needs_cc = pytest.mark.skipif(not shutil.which("cc") or sys.platform != "linux", reason="needs a C compiler and Linux")


@needs_cc
@pytest.mark.parametrize(
    ("what", "every"),
    [
        ("checkpoints", 317),
        pytest.param("checkpoints", 1, marks=pytest.mark.slow),
        pytest.param("run", 1, marks=pytest.mark.slow),
    ],
)
def test_every_write_fails_in_turn(what, every):
    finished = faults.start(every, what)
    assert finished.returncode == 0, finished.stderr
    print(finished.stdout)


def test_a_killed_run_is_bitwise_the_same(tmp_path, undisturbed):
    assert kill.kill(tmp_path, 1, undisturbed).total() == 1


@pytest.mark.slow
def test_fifty_killed_runs_are_bitwise_the_same(tmp_path):
    print(kill.kill(tmp_path, 50))


@pytest.mark.slow
def test_memory_and_files_do_not_grow_over_1000_epochs(tmp_path):
    process, samples = psutil.Process(), []
    checkpoints = Checkpoints(Folders(tmp_path / "checkpoints"))
    sweep = tiny_run.sweep(dataclasses.replace(CONFIG, l2=(0.0,), epochs=1000))
    for record in sweep.epochs():
        if record.number % 10 == 0:
            checkpoints.save(Checkpoint(sweep.snapshot(), sweep.description()))
        if record.number % 100 == 0:
            gc.collect()
            names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
            pool = names.count("ts_pool_worker")
            samples.append((process.memory_info().rss, process.num_fds(), process.num_threads() - pool, pool))
    memory, files, threads, pool = zip(*samples, strict=True)
    print(json.dumps(samples))
    # TensorStore starts another worker now and then, when all are busy. One left by each checkpoint would make 90.
    assert pool[-1] - pool[0] < 5
    assert max(files) <= files[0] and max(threads) <= threads[0]
    assert max(memory[2:]) - memory[2] < 20e6
