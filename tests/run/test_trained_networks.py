"""The trained networks of `l2jax.sweep`, in memory: against plain loops, and against NumPy."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from flax import linen, nnx
from helpers import plain
from helpers.plain_nnx import add_metrics, fit_linen, fit_nnx
from helpers.results import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

import l2jax
from l2jax.config import SweepConfig
from l2jax.errors import InputError
from l2jax.network.network import by_path
from l2jax.run.loading import best_index
from l2jax.run.parameters import may_be_best

pytestmark = pytest.mark.usefixtures("compiled_quickly")

OPTIONS = {"epochs": 3, "batch_size": 32, "val_size": 40, "learning_rate": 0.01}
CLOSE = {"rtol": 2e-4, "atol": 2e-6}
"""Adam divides by gradients' sizes, so that rounding is larger in parameters than in losses."""


class Net(nnx.Module):
    def __init__(self, *, rngs):
        self.hidden = nnx.Linear(49, 12, use_bias=False, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(12, momentum=0.8, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)
        self.logits = nnx.Linear(12, 10, rngs=rngs)

    def __call__(self, images):
        return self.logits(self.dropout(nnx.relu(self.norm(self.hidden(images.reshape(len(images), -1))))))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, images, train: bool):
        x = linen.Dense(12, use_bias=False)(images.reshape(len(images), -1))
        x = linen.relu(linen.BatchNorm(use_running_average=not train, momentum=0.8)(x))
        return linen.Dense(10)(linen.Dropout(0.2, deterministic=not train)(x))


def small_sweep(small, model=Net, **options):
    return l2jax.sweep([0.0, 0.03, 0.3], 2, dataset=small, model=model, **OPTIONS | options)


@pytest.fixture(scope="module")
def all_trials(small):
    return small_sweep(small, keep="all")


@pytest.fixture(scope="module")
def images(small):
    return plain.as_floats(small.test_images)


def test_parameters_and_state_are_those_of_a_plain_loop(all_trials, small, images):
    config = SweepConfig(**all_trials.config["sweep"])
    for l2 in (0.0, 0.3):
        _, module = fit_nnx(Net, optax.adam, small, config, l2, seed=1)
        arrays = all_trials.params(l2=l2, seed=1)
        expected = by_path(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat)))
        assert {"hidden/kernel", "norm/mean", "norm/var", "logits/bias"} <= expected.keys() <= arrays.keys()
        for path, values in expected.items():
            np.testing.assert_allclose(arrays[path], values, err_msg=path, **CLOSE)
        np.testing.assert_allclose(all_trials.network(l2=l2, seed=1)(images), module(images), rtol=1e-3, atol=1e-4)


def test_the_network_computes_in_eval_mode_what_numpy_does(all_trials, small, images):
    network, arrays = all_trials.network(l2=0.03, seed=0), all_trials.params(l2=0.03, seed=0)
    hidden = images.reshape(len(images), -1).astype(np.float64) @ arrays["hidden/kernel"]
    normed = (hidden - arrays["norm/mean"]) / np.sqrt(arrays["norm/var"] + 1e-5)
    features = np.maximum(normed * arrays["norm/scale"] + arrays["norm/bias"], 0)
    logits = features @ arrays["logits/kernel"] + arrays["logits/bias"]
    np.testing.assert_allclose(network(images), logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(network(images), network(images))  # no dropout
    trial = all_trials.data.sel(l2=0.03, seed=0)
    assert trial["test_accuracy"].item() == pytest.approx((logits.argmax(1) == small.test_labels).mean())
    assert trial["test_loss"].item() == pytest.approx(plain.cross_entropy(logits, small.test_labels), rel=1e-5)


def test_a_linen_network_is_bound_to_its_variables(small, images):
    results = l2jax.sweep([0.03], 2, dataset=small, model=LinenNet, keep="all", **OPTIONS)
    config = SweepConfig(**results.config["sweep"])
    _, variables = fit_linen(LinenNet(), small, config, 0.03, 1)
    network = results.network(seed=1, l2=0.03)
    assert isinstance(network, LinenNet)
    expected = by_path(variables["params"]) | by_path({"batch_stats": variables["batch_stats"]})
    arrays = results.params(seed=1, l2=0.03)
    assert expected.keys() == arrays.keys() - {"rng/key", "rng/step"}
    for path, values in expected.items():
        np.testing.assert_allclose(arrays[path], values, err_msg=path, **CLOSE)
    np.testing.assert_array_equal(
        network(images, train=False), LinenNet().apply(network.variables, images, train=False)
    )
    np.testing.assert_allclose(
        network(images, train=False), LinenNet().apply(variables, images, train=False), rtol=1e-3, atol=1e-4
    )


def test_schedule_free_parameters_are_those_evaluated(small, images, tmp_path, not_drawn):
    def optimizer(rate):
        return optax.contrib.schedule_free_adamw(rate, weight_decay=0.0)

    options = {"model": Net, "optimizer": optimizer, **OPTIONS}
    for keep, run_dir in (("best", None), ("all", None), ("best", tmp_path / "a"), ("all", tmp_path / "b")):
        results = l2jax.sweep([0.0], 2, dataset=small, keep=keep, run_dir=run_dir, **options)
        trial = results.best_trial() if keep == "best" else {"l2": 0.0, "seed": 1}
        curves: dict = {}
        add_metrics(curves, "test", results.network(**trial)(images), small.test_labels)
        assert results.data["test_loss"].sel(trial).item() == pytest.approx(curves["test_loss"][0], rel=1e-5)


@pytest.mark.parametrize("trials_at_once", [None, 2, 4])
@pytest.mark.parametrize("keep", ["best", "all"])
def test_chunks_keep_the_same_trials(keep, trials_at_once, small, all_trials):
    results = small_sweep(small, keep=keep, trials_at_once=trials_at_once)
    best = all_trials.best_trial()
    for path, values in all_trials.params(**best).items():
        for trial in ({}, best):
            np.testing.assert_allclose(results.params(**trial)[path], values, err_msg=path, **CLOSE)
    other = {"l2": 0.3, "seed": 0}
    assert best != other
    if keep == "all":
        np.testing.assert_allclose(
            results.params(**other)["norm/mean"], all_trials.params(**other)["norm/mean"], **CLOSE
        )
    else:
        message = r"^params: got l2=0.3, seed=0; accepted: the best trial alone; after sweep\(..., keep=\"all\"\) every"
        with pytest.raises(InputError, match=message):
            results.params(**other)


@settings(max_examples=200, deadline=None)
@given(
    losses=st.lists(st.sampled_from([1.0, 2.0, 3.0, 3.0000000000000004, np.nan]), min_size=6, max_size=6),
    chunk_size=st.integers(1, 6),
    order=st.permutations(range(6)),
)
def test_what_may_be_best_is_little_and_holds_the_best(losses, chunk_size, order):
    """Chunks of trials of 3 settings finish in any order."""
    data = synthetic((0.0, 1e-3, 1e-2), seeds=2, epochs=1).data
    val_loss, diverged = data["val_loss"].astype(float), data["diverged"].copy()
    val_loss.values[:], diverged.values[:] = np.reshape(losses, (3, 2, 1)), np.isnan(losses).reshape(3, 2)
    best = best_index(l2jax.Results(data.assign(val_loss=val_loss, diverged=diverged), {}))
    ledger = SimpleNamespace(
        num_epochs=1, epochs_done=np.zeros(6, int), metrics={"val_loss": np.reshape(losses, (6, 1))}
    )
    kept = set()
    for start in range(0, 6, chunk_size):
        chunk = order[start : start + chunk_size]
        ledger.epochs_done[list(chunk)] = 1
        kept = (kept | {*chunk}) & may_be_best(ledger, 2)
        unfinished = len({index // 2 for index in order[: start + chunk_size]}) + 1
        assert len(kept) <= unfinished
    assert best in kept or best is None
    if len(set(losses)) == 6:
        assert len(kept) <= 2


def test_if_every_trial_diverged_there_is_no_best_network(small):
    results = l2jax.sweep([1e12], 1, dataset=small, model=Net, optimizer=optax.sgd, **OPTIONS)
    assert results.data["diverged"].all()
    with pytest.raises(ValueError, match="no best trial"):
        results.network()


def test_a_diverged_trial_has_its_last_finite_parameters(small):
    options = {"model": Net, "optimizer": optax.sgd, "keep": "all", **OPTIONS}
    results = l2jax.sweep([0.0, 1e12], 1, dataset=small, **options)
    assert results.data["diverged"].values.ravel().tolist() == [False, True]
    assert all(np.isfinite(values).all() for values in results.params(l2=1e12, seed=0).values())


def test_pickled_results_take_the_model_again(small, images, all_trials):
    results = l2jax.sweep([0.0], 1, dataset=small, model=lambda rngs: Net(rngs=rngs), **OPTIONS)
    loaded = pickle.loads(pickle.dumps(results))
    assert loaded == results
    with pytest.raises(InputError, match=r"^model: got none; accepted: the network that was trained.*: Net$"):
        loaded.network()
    np.testing.assert_array_equal(loaded.network(Net)(images), results.network()(images))


@pytest.mark.parametrize("keep", ["none", None])
def test_keep_is_checked(keep, small):
    with pytest.raises(InputError, match=r"^keep: got .*; accepted: best, all$"):
        small_sweep(small, keep=keep)


def test_another_network_is_refused(all_trials):
    def wider(rngs):
        net = Net(rngs=rngs)
        net.logits = nnx.Linear(12, 11, rngs=rngs)
        return net

    with pytest.raises(InputError, match=r"^model: got Net with logits/bias \(11,\); accepted: .* \(10,\)$"):
        all_trials.network(wider)


def test_results_along_l2_keep_their_parameters(small):
    options = OPTIONS | {"learning_rate": [1e-3, 1e-2]}
    results = l2jax.sweep([0.0, 0.03], 2, dataset=small, model=Net, keep="all", **options)
    along = results.along_l2()
    trial = {"l2": 0.03, "seed": 1}
    jax.tree.map(
        np.testing.assert_array_equal, along.params(**trial), results.params(**trial, **results.along_l2().fixed)
    )
    jax.tree.map(np.testing.assert_array_equal, along.params(), results.params())
    with pytest.raises(InputError, match=r"^learning_rate: got nothing; accepted: 0.001 or 0.01$"):
        results.params(**trial)
