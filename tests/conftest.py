"""Two CPU devices, so that sharding is tested, and no silent broadcasting between ranks."""

import os

import jax
import pytest
from helpers import tiny_run

import l2jax

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Compiles once what several tests need, or commands that they start: most of their time is XLA's.

    The processes of pytest-xdist share it. JAX writes its files in place, but where their total has a limit it takes a
    lock, of the package filelock, to read and to write.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    cache = {
        "jax_compilation_cache_dir": str(folder / "compiled"),
        "jax_compilation_cache_max_size": 10**9,
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_raise_persistent_cache_errors": True,
    }
    for name, value in cache.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(scope="module")
def compiled_quickly():
    """Compiles sweeps of a small network in less time. Sweeps of the CNN are compiled as a person's are."""
    with tiny_run.compiled_quickly():
        yield


@pytest.fixture
def not_drawn(monkeypatch):
    """Run folders without figures and report, which take seconds."""
    monkeypatch.setattr("l2jax.run.saving.plot.drawings", lambda _: {})
    monkeypatch.setattr("l2jax.run.saving.write_report", lambda _, path: path.write_bytes(b"not drawn"))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of a tiny run that has ended; for reading only."""
    run_dir = tmp_path_factory.mktemp("finished")
    with tiny_run.compiled_quickly():
        assert tiny_run.run(run_dir) == 0
    return run_dir


@pytest.fixture(scope="session")
def digits():
    """The embedded data set: real digits, with the blank regions in which pooling meets ties."""
    return l2jax.load_dataset("mnist_small")


@pytest.fixture(scope="session")
def small(digits):
    """Few digits of 7x7 pixels, for tests that are not about the CNN. 110 are left for training: 3 batches and 14."""
    train, test = slice(150), slice(70)
    images, test_images = digits.images[train, ::4, ::4], digits.test_images[test, ::4, ::4]
    return l2jax.Dataset("small", images, digits.labels[train], 10, test_images, digits.test_labels[test])
