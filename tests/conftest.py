"""Two CPU devices, so that sharding is tested, and no silent broadcasting between ranks."""

import functools
import os

import jax
import numpy as np
import plain
import pytest
import tiny_run

import l2jax
from l2jax.programs import COMPILER_OPTIONS

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """What several tests need, or commands that they start, is compiled once: most of their time is XLA's.

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
    """For sweeps of a small network. Those of the CNN are compiled as a person's are."""
    with tiny_run.compiled_quickly():
        yield


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


def mlp(rngs):
    """A network for `small`: quick to compile."""
    return plain.MLP(49, 10, rngs=rngs)


def as_in_sweeps(f):
    """Compiled with the options of a sweep."""
    return jax.jit(f, compiler_options=COMPILER_OPTIONS)


def assert_equal(of, ours, theirs, *arguments, tolerance=2e-6):
    """What `of` makes of our function and these arguments is what it makes of theirs, but for rounding."""
    ours, theirs = (functools.partial(of, function) for function in (ours, theirs))
    assert_close(as_in_sweeps(ours)(*arguments), plain.jit(theirs)(*arguments), tolerance)


def assert_close(actual, expected, tolerance=2e-6):
    """Equal up to float32 rounding, relative to the largest value of each array."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())
