"""`l2jax.sweep` in a run folder: resumed, extended, interrupted and refused as the command's runs are."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import plain, tiny_run

import l2jax
from l2jax.engine import compile as compiling
from l2jax.errors import InputError
from l2jax.run import metrics_log, output
from l2jax.run.lock import locked

pytestmark = pytest.mark.usefixtures("compiled_quickly", "not_drawn")

ROOT = Path(__file__).parents[2]
OPTIONS = {"epochs": 3, "batch_size": 16, "train_size": 40, "val_size": 32, "trials_at_once": 2}
STRENGTHS = [0.0, 1e-2]


def sweep(run_dir=None, l2=STRENGTHS, seeds=2, **options):
    """Two chunks of two trials, as `tiny_run` has them."""
    return l2jax.sweep(
        l2, seeds, run_dir=run_dir, **{"dataset": tiny_run.dataset(), "model": tiny_run.mlp, **OPTIONS, **options}
    )


@pytest.fixture(scope="module")
def expected():
    with tiny_run.compiled_quickly():
        return sweep(keep="all")


def assert_same_outcome(results, expected):
    """Bitwise the same metrics and parameters."""
    assert results.data.identical(expected.data)
    jax.tree.map(np.testing.assert_array_equal, results.params(), expected.params())


@contextlib.contextmanager
def at_record(number, act):
    """Calls a function while the record of an epoch of a chunk is being written, the `number`-th of the run."""

    def append(path, line, append=metrics_log._append):
        append(path, line)
        if path.read_bytes().count(b"\n") == number:
            act()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics_log, "_append", append)
        yield


def interrupt():
    raise KeyboardInterrupt


def contents(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


# The folder


def test_the_folder_holds_what_the_command_leaves(tmp_path, finished_run, expected):
    results = sweep(tmp_path / "run", keep="all")
    assert_same_outcome(results, expected)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {path.name for path in finished_run.iterdir()} | {"all_params.npz"}
    loaded = l2jax.load_results(tmp_path / "run")
    assert loaded == results
    for l2 in STRENGTHS:
        for seed in range(2):
            jax.tree.map(
                np.testing.assert_array_equal, loaded.params(l2=l2, seed=seed), expected.params(l2=l2, seed=seed)
            )


def test_a_run_of_the_command_goes_on_in_python(tmp_path, finished_run, monkeypatch, expected):
    shutil.copytree(finished_run, tmp_path / "run")
    monkeypatch.setattr(compiling, "compile_programs", lambda *_, **__: pytest.fail("it compiles"))
    assert_same_outcome(sweep(tmp_path / "run"), expected)


def test_a_loaded_network_computes_what_was_trained(finished_run):
    results, data = l2jax.load_results(finished_run), tiny_run.dataset()
    with pytest.raises(InputError, match=r"^model: got none; accepted: the network that was trained, .*: MLP$"):
        results.network()
    network = results.network(model=tiny_run.mlp)
    assert isinstance(network, plain.MLP)
    accuracy = (network(plain.as_floats(data.test_images)).argmax(-1) == data.test_labels).mean()
    assert accuracy == pytest.approx(results.data["test_accuracy"].sel(results.best_trial()).item())
    with pytest.raises(InputError, match=r"^model: got MLP with layers/0/bias \(17,\); accepted: .*\(16,\)$"):
        results.network(plain.mlp(49, 4, width=17))


def test_a_folder_of_version_0_1_has_a_network(tmp_path, finished_run):
    shutil.copytree(finished_run, tmp_path / "run")
    description = json.loads((tmp_path / "run" / "config.json").read_text())
    for name in ("image_shape", "num_classes", "program_sha256"):
        del description[name]
    (tmp_path / "run" / "config.json").write_text(json.dumps(description | {"model": "cnn"}))
    (tmp_path / "run" / "SHA256SUMS").unlink()
    results = l2jax.load_results(tmp_path / "run")
    with pytest.raises(InputError, match=r"l2jax.CNN of this size$"):
        results.network()
    jax.tree.map(np.testing.assert_array_equal, results.params(), l2jax.load_results(finished_run).params())
    assert isinstance(results.network(tiny_run.mlp), plain.MLP)


def test_parameters_are_read_without_jax(finished_run):
    lines = [
        "import sys, l2jax",
        f"results = l2jax.load_results({str(finished_run)!r})",
        "print(sorted(results.params()), sorted({'jax', 'flax', 'optax', 'matplotlib'} & {*sys.modules}))",
    ]
    words = [sys.executable, "-c", "\n".join(lines)]
    out = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert out.stdout == "['layers/0/bias', 'layers/0/kernel', 'layers/1/bias', 'layers/1/kernel'] []\n"


def test_parameters_written_again_are_not_taken_for_the_old(tmp_path):
    before = sweep(tmp_path, l2=[1e-2])
    assert before.params()
    sweep(tmp_path)
    with pytest.raises(InputError, match=r"^run_dir: .*best_params.npz: it has changed since; l2jax.load_results"):
        before.params()


def test_a_run_that_kept_all_goes_on_keeping_all(tmp_path, expected):
    sweep(tmp_path, l2=[1e-2], keep="all")
    results = sweep(tmp_path, l2=[1e-2, 0.0])
    for l2 in STRENGTHS:
        for path, values in results.params(l2=l2, seed=1).items():
            np.testing.assert_allclose(values, expected.params(l2=l2, seed=1)[path], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda _: b"", lambda content: content[::-1]])
def test_damaged_parameters_are_one_line(damage, tmp_path, finished_run):
    shutil.copytree(finished_run, tmp_path / "run")
    path = tmp_path / "run" / "best_params.npz"
    path.write_bytes(damage(path.read_bytes()))
    results = l2jax.load_results(tmp_path / "run")
    with pytest.raises(InputError, match=r"^run_dir: .*best_params.npz: ") as raised:
        results.params()
    assert "\n" not in str(raised.value)


# Interruption


@pytest.mark.parametrize("number", [1, 3, 4, 6])
def test_ctrl_c_saves_what_is_complete_and_then_interrupts(number, tmp_path, expected):
    with at_record(number, lambda: os.kill(os.getpid(), signal.SIGINT)), pytest.raises(KeyboardInterrupt):
        sweep(tmp_path)
    assert l2jax.load_results(tmp_path).data["val_loss"].notnull().sum() == 2 * number
    assert_same_outcome(sweep(tmp_path), expected)


def test_sigterm_is_passed_on_after_saving(tmp_path, expected):
    received = []
    usual = signal.signal(signal.SIGTERM, lambda *_: received.append(tmp_path.joinpath("results.nc").exists()))
    try:
        with at_record(2, lambda: os.kill(os.getpid(), signal.SIGTERM)):
            sweep(tmp_path)
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert received == [True]
    assert_same_outcome(sweep(tmp_path), expected)


@pytest.mark.parametrize("number", range(1, 7))
def test_an_exception_at_any_epoch_leaves_a_run_to_resume(number, tmp_path, expected):
    with at_record(number, interrupt), pytest.raises(KeyboardInterrupt):
        sweep(tmp_path)
    assert_same_outcome(sweep(tmp_path), expected)


def test_a_sweep_in_a_thread_is_saved_too(tmp_path, expected):
    results = []
    thread = threading.Thread(target=lambda: results.append(sweep(tmp_path)))
    thread.start()
    thread.join()
    assert_same_outcome(results[0], expected)


def test_a_full_disk_is_an_error_that_says_how_to_go_on(tmp_path, expected):
    def full():
        raise OSError(28, "No space left on device")

    with at_record(4, full), pytest.raises(OSError, match="No space left") as raised:
        sweep(tmp_path)
    assert raised.value.__notes__ == [
        f"What was written to {tmp_path} before is intact: the same call goes on from there."
    ]
    assert_same_outcome(sweep(tmp_path), expected)


def test_a_folder_left_by_a_start_that_was_killed_is_taken(tmp_path, expected):
    (tmp_path / ".lock").write_text("1\n")
    (tmp_path / ".config.json.partial").write_text("{")
    assert_same_outcome(sweep(tmp_path), expected)


# The same folder again


def test_a_run_is_extended(tmp_path, expected):
    sweep(tmp_path, l2=[1e-2], seeds=1, epochs=2)
    results = sweep(tmp_path)
    for name in expected.data:
        np.testing.assert_allclose(results.data[name], expected.data[name], rtol=1e-6, err_msg=str(name))
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    trained = [(trial, line["epoch"]) for line in log for trial in line["trials"]]
    assert sorted(trained) == [(trial, epoch) for trial in range(4) for epoch in (1, 2, 3)]


class Linear(nnx.Module):
    def __init__(self, rngs):
        self.logits = nnx.Linear(49, 4, rngs=rngs)

    def __call__(self, x):
        return self.logits(x.reshape(len(x), -1))


class Scaled(plain.MLP):
    """An MLP that differs by a number alone."""

    def __call__(self, x):
        return super().__call__(0.5 * x)


Scaled.__name__ = "MLP"

OTHERS = {
    "fewer strengths": ({"l2": [0.0]}, "l2: got 0; accepted: 0 0.01 of the run to resume, and more"),
    "fewer epochs": ({"epochs": 2}, "epochs: got 2; accepted: 3 of the run to resume, or more"),
    "other batches": ({"batch_size": 8}, "batch_size: got 8; accepted: 16, as in the run to resume"),
    "other data": (
        {"dataset": (tiny_run.dataset().images // 2, tiny_run.dataset().labels)},
        "dataset: got arrays; accepted: made up, as in the run to resume",
    ),
    "other examples": (
        {"dataset": l2jax.Dataset("made up", tiny_run.dataset().images // 2, tiny_run.dataset().labels, 4)},
        "dataset: got made up; accepted: the examples that the run to resume was trained on",
    ),
    "another class": (
        {"model": Linear},
        "model: got Linear of 200 parameters; accepted: MLP of 868 parameters, as in the run to resume",
    ),
    "another width": (
        {"model": plain.mlp(49, 4, width=8)},
        "model: got MLP of 436 parameters; accepted: MLP of 868 parameters, as in the run to resume",
    ),
    "another function": (
        {"model": lambda rngs: Scaled(49, 4, rngs=rngs)},
        "model: got one that computes something else; accepted: the network of the run to resume, as it was",
    ),
    "another optimizer": (
        {"optimizer": functools.partial(optax.adam, b1=0.8)},
        "optimizer: got one that computes something else; accepted: that of the run to resume",
    ),
    "another optimizer's state": (
        {"optimizer": optax.sgd},
        "optimizer: got one that computes something else; accepted: that of the run to resume",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_sweep_is_refused_and_changes_nothing(kind, tmp_path, finished_run):
    options, message = OTHERS[kind]
    shutil.copytree(finished_run, tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(InputError) as raised:
        sweep(tmp_path / "run", **options)
    assert str(raised.value).startswith(message)
    assert contents(tmp_path / "run") == before


def test_a_schedule_cannot_be_made_longer_afterwards(tmp_path):
    def optimizer(rate, total_steps):
        return optax.adam(optax.cosine_decay_schedule(rate, total_steps))

    sweep(tmp_path, optimizer=optimizer)
    assert sweep(tmp_path, optimizer=optimizer, seeds=3).data.sizes["seed"] == 3
    with pytest.raises(InputError, match=r"^optimizer: .*; as many epochs if it names total_steps"):
        sweep(tmp_path, optimizer=optimizer, seeds=3, epochs=4)


@pytest.mark.parametrize("make", ["a file", "a folder of other files", "a damaged run"])
def test_what_is_no_run_folder_is_refused(make, tmp_path):
    path = tmp_path / "run"
    if make == "a file":
        path.write_text("")
    else:
        path.mkdir()
        (path / ("config.json" if make == "a damaged run" else "notes.txt")).write_text("{")
    with pytest.raises(InputError, match=r"^run_dir: got .*; accepted: a ") as raised:
        sweep(path)
    assert "\n" not in str(raised.value) and path.exists()


def test_a_folder_in_use_is_refused(tmp_path, finished_run):
    shutil.copytree(finished_run, tmp_path / "run")
    with locked(tmp_path / "run"), pytest.raises(InputError, match=r"^run_dir: got .*no other process"):
        sweep(tmp_path / "run")


# Progress


@pytest.mark.parametrize("in_folder", [False, True])
def test_progress_is_few_lines_where_there_is_no_terminal(in_folder, tmp_path, capfd):
    sweep(tmp_path if in_folder else None, epochs=60, l2=[0.0], progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "\r" not in err and "\x1b" not in err
    work, plan, *lines = err.splitlines()
    assert work.startswith("made up: 40 training, 32 validation and 20 test examples of 4 classes; 2 trials ")
    assert plan.startswith("2 trials at once: ") and lines[0].startswith("epoch 1/60: 2 trials, ")
    assert lines[-1].startswith("epoch 60/60: ") and 10 <= len(lines) <= 21
    sweep(tmp_path / "quiet" if in_folder else None, l2=[0.0])
    assert capfd.readouterr() == ("", "")


def test_a_notebook_without_widgets_shows_lines(monkeypatch, capfd):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(output.importlib.util, "find_spec", lambda _: None)
    sweep(l2=[0.0], progress=True)
    assert [line.split(":")[0] for line in capfd.readouterr().err.splitlines()[1:]] == [
        "2 trials at once",
        *(f"epoch {number}/3" for number in (1, 2, 3)),
    ]


def test_a_clone_that_is_not_installed_trains(tmp_path, monkeypatch):
    version = importlib.metadata.version

    def of_others(package):
        if package == "l2jax":
            raise importlib.metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(importlib.metadata, "version", of_others)
    assert sweep(tmp_path / "run").config["versions"]["l2jax"] == "not installed"
