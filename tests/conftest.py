"""Two CPU devices, so that sharding is tested, and no silent broadcasting between ranks."""

import os

import jax
import numpy as np
import pytest
from flax import nnx

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """What several tests need, or commands that they start, is compiled once: most of their time is XLA's."""
    cache = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_raise_persistent_cache_errors": True,
    }
    for name, value in cache.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(scope="session")
def digits():
    """The embedded data set: real digits, with the blank regions in which pooling meets ties."""
    from l2jax import load_dataset

    return load_dataset("mnist_small")


def assert_close(actual, expected, tolerance=2e-6):
    """Equal up to float32 rounding, relative to the largest value of each array."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


class Mlp(nnx.Module):
    """A network that compiles quickly."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden, self.out = nnx.Linear(784, 16, rngs=rngs), nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, images):
        return self.out(jax.nn.relu(self.hidden(images.reshape(len(images), -1))))
