"""Whole sweeps: against single trials trained by a plain Python loop, and against each other."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import optax
import plain
import pytest
import xarray as xr
from flax import nnx

import l2jax
from l2jax import Dataset, InvalidInput, Sweep, SweepConfig, engine
from l2jax.tuning import Tuning

CURVES = ["train_loss", "train_accuracy", "penalty", "val_loss", "val_accuracy", "l2_norm"]
TEST = ["test_loss", "test_accuracy"]

OPTIONS = {"epochs": 4, "batch_size": 32, "val_size": 40, "learning_rate": 0.01}
STRENGTHS = (1e-2, 0.0, 0.3)


@pytest.fixture(scope="module")
def small(digits):
    """Few digits of 7x7 pixels, for tests that are not about the CNN. 110 are left for training: 3 batches and 14."""
    return Dataset(
        "small digits",
        digits.images[:150, ::4, ::4],
        digits.labels[:150],
        10,
        digits.test_images[:70, ::4, ::4],
        digits.test_labels[:70],
    )


def mlp(rngs):
    return plain.MLP(49, 10, rngs=rngs)


@pytest.fixture(scope="module")
def sweep_small(small):
    def sweep_small(l2, seeds, **options):
        return l2jax.sweep(l2, seeds, dataset=small, model=mlp, **{**OPTIONS, **options})

    return sweep_small


@pytest.fixture(scope="module")
def six_trials(sweep_small):
    return sweep_small(STRENGTHS, 2)


def assert_equals_plain_loop(results, dataset, model, tolerance, optimizer=optax.adam):
    """Each trial equals the same one trained alone; accuracies exactly, losses and norms up to a relative tolerance."""
    config = SweepConfig(**results.config["sweep"])
    for l2 in config.l2:
        for seed in range(config.seeds):
            expected = plain.train(model, dataset, config, l2, seed, optimizer)
            trial = results.data.sel(l2=l2, seed=seed)
            for name, values in expected.items():
                rtol = 1e-6 if name.endswith("accuracy") else tolerance
                np.testing.assert_allclose(trial[name], values, rtol=rtol, err_msg=f"{name} at {l2=} {seed=}")


# Against plain Flax


def test_cnn_sweep_equals_plain_flax_trial_by_trial(digits):
    # 100 examples in batches of 16: the last one holds 4.
    dataset = dataclasses.replace(digits, test_images=digits.test_images[:150], test_labels=digits.test_labels[:150])
    options = {"epochs": 3, "batch_size": 16, "train_size": 100, "val_size": 40}
    results = l2jax.sweep([0.0, 3e-2], 2, dataset=dataset, **options)
    assert_equals_plain_loop(results, dataset, lambda rngs: plain.CNN((28, 28, 1), 10, rngs=rngs), tolerance=1e-5)


def test_three_trials_on_two_devices_equal_plain_flax(sweep_small, small):
    results = sweep_small(STRENGTHS, 1)
    assert (results.config["num_trials"], results.config["num_devices"]) == (3, 2)
    assert dict(results.data.sizes) == {"l2": 3, "seed": 1, "epoch": 4}
    assert_equals_plain_loop(results, small, mlp, tolerance=1e-5)


class OwnCNN(nnx.Module):
    def __init__(self, *, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), strides=2, rngs=rngs)
        self.dense = nnx.Linear(16, 10, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.dense(nnx.avg_pool(nnx.tanh(self.conv(x)), (2, 2), strides=(2, 2)).reshape(len(x), -1))


def test_own_network_and_optimizer_equal_plain_flax(small):
    def momentum(learning_rate):
        return optax.sgd(learning_rate, momentum=0.9)

    results = l2jax.sweep(
        [0.0, 1e-2], 1, dataset=small, model=lambda rngs: OwnCNN(rngs=rngs), optimizer=momentum, **OPTIONS
    )
    assert_equals_plain_loop(results, small, lambda rngs: OwnCNN(rngs=rngs), tolerance=1e-5, optimizer=momentum)
