"""Sweeps by any executor: processes that spawn, and jobs of submitit."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_run
from helpers.plain import MLP

import l2jax
from l2jax.errors import InputError

pytestmark = pytest.mark.timeout(300)

OPTIONS = {"epochs": 3, "batch_size": 16, "train_size": 40, "val_size": 32, "trials_at_once": 2}


def model(rngs):
    """A network that other processes can import, as the closure of `tiny_run` is not."""
    return MLP(49, 4, rngs=rngs)


def sweep(**options):
    return l2jax.sweep([0.0, 1e-2], 2, dataset=tiny_run.dataset(), model=model, **OPTIONS, **options)


@pytest.fixture(scope="module")
def expected():
    return sweep(keep="all")


def assert_same_outcome(results, expected):
    assert results.data.identical(expected.data)
    trial = {"l2": 1e-2, "seed": 1}
    for path, values in expected.params(**trial).items():
        np.testing.assert_array_equal(results.params(**trial)[path], values)


def test_processes_that_spawn(expected):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert_same_outcome(sweep(executor=executor, keep="all"), expected)


def test_jobs_of_submitit_in_a_run_folder(tmp_path, expected, not_drawn, monkeypatch):
    submitit = pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # for the model
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="local")
    executor.update_parameters(timeout_min=5)
    results = sweep(executor=executor, run_dir=tmp_path / "run", keep="all")
    assert_same_outcome(results, expected)
    assert_same_outcome(sweep(run_dir=tmp_path / "run", keep="all"), expected)  # without workers: nothing is left


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"storage": "s3://bucket"}, "storage: got s3://bucket; accepted: none without ray or an executor"),
        ({"executor": 1, "ray": "auto"}, "executor: got 1; accepted: none with ray"),
        ({"ray": "127.0.0.1:1", "devices": 2}, "devices: got 2; accepted: none with a cluster that runs"),
        ({"ray": "127.0.0.1:1"}, "ray: got 127.0.0.1:1; accepted: the address of a Ray cluster that runs"),
        (
            {"executor": 1, "storage": "nothing://x"},
            "storage: got nothing://x; accepted: a folder that all machines see",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(options, message):
    if "ray" in options and "executor" not in options:
        pytest.importorskip("ray")
    with pytest.raises(InputError) as error:
        sweep(**options)
    assert str(error.value).startswith(message)
