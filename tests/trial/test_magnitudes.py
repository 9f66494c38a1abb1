"""Histograms of the values of kernels: counted against numpy, and what L2 does to them."""

import jax
import numpy as np
import pytest
from helpers.compare import mlp
from helpers.magnitudes import counted

from l2jax import Sweep, SweepConfig
from l2jax.trial.magnitudes import count_magnitudes


def test_counts_are_those_of_numpy():
    values = np.random.default_rng(0).normal(0, 0.1, (3, 3, 4, 5)).astype(np.float32)
    values[0, 0, 0] = 0, 1e-9, -1e9, 1e-3, -1e-3
    counts = np.asarray(jax.jit(count_magnitudes)(values))
    np.testing.assert_array_equal(counts, counted(values))
    assert counts.sum() == values.size and counts[0] >= 2 and counts[-1] == 1


@pytest.mark.usefixtures("compiled_quickly")
def test_a_sweep_counts_the_kernels_that_it_ends_with(small):
    sweep = Sweep(SweepConfig(l2=(0, 0.1, 1), seeds=3, epochs=3, train_size=None, val_size=40), small, model=mlp)
    for _ in sweep.epochs():
        pass
    snapshot, counts = sweep.snapshot(), sweep.results().data["kernel_magnitudes"]
    assert counts.dims == ("l2", "seed", "layer", "magnitude")
    for layer in counts["layer"].values:
        kernels = snapshot.state[f"params/{layer}/kernel"]
        for trial, kernel in enumerate(kernels):
            np.testing.assert_array_equal(counts.sel(layer=layer).values.reshape(9, -1)[trial], counted(kernel))
    large = counts.where(counts["magnitude"] > 1e-2, 0).sum(["seed", "layer", "magnitude"])
    assert large.sel(l2=1) < large.sel(l2=0)
