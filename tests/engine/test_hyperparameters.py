"""Hyperparameters of a person's own, penalties, L1: each trial as in a plain loop of Flax and optax with numbers."""

from __future__ import annotations

import functools
from itertools import product

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from helpers import plain
from helpers.compare import mlp
from helpers.plain_nnx import train_linen, train_nnx

import l2jax
from l2jax.config import SweepConfig
from l2jax.errors import InputError

pytestmark = pytest.mark.usefixtures("compiled_quickly")

OPTIONS = {"epochs": 3, "batch_size": 32, "val_size": 40, "learning_rate": 0.01}


class Net(nnx.Module):
    def __init__(self, rate=0.1, *, rngs):
        self.hidden, self.logits = nnx.Linear(49, 12, use_bias=False, rngs=rngs), nnx.Linear(12, 10, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(12, momentum=0.8, rngs=rngs), nnx.Dropout(rate, rngs=rngs)

    def __call__(self, images):
        return self.logits(self.dropout(nnx.relu(self.norm(self.hidden(images.reshape(len(images), -1))))))


class LinenNet(linen.Module):
    rate: float = 0.1

    @linen.compact
    def __call__(self, images, train: bool):
        x = linen.Dense(12, use_bias=False)(images.reshape(len(images), -1))
        x = linen.relu(linen.BatchNorm(use_running_average=not train, momentum=0.8)(x))
        return linen.Dense(10)(linen.Dropout(self.rate, deterministic=not train)(x))


def sgd(learning_rate, momentum):
    return optax.sgd(learning_rate, momentum)


def assert_trial_is(curves, results, **trial):
    for name, values in curves.items():
        actual = results.data[name].sel({dim: trial[dim] for dim in results.data["diverged"].dims})
        np.testing.assert_allclose(actual, values, rtol=2e-5, err_msg=f"{name} of {trial}")


def test_model_and_optimizer_take_hyperparameters_by_name(small):
    values = {"rate": [0, 0.25, 0.5], "momentum": [0.8, 0.9]}
    results = l2jax.sweep([0.0, 0.03], 2, dataset=small, model=Net, optimizer=sgd, hyperparameters=values, **OPTIONS)
    assert results.data["val_loss"].dims == ("l2", "rate", "momentum", "seed", "epoch")
    assert results.data["rate"].attrs["long_name"] == "rate"
    assert set(results.best_setting()) == {"l2", "rate", "momentum"}
    config = SweepConfig(**results.config["sweep"])
    for l2, rate, momentum, seed in product([0.0, 0.03], [0.0, 0.25], values["momentum"], range(2)):
        loop = functools.partial(
            train_nnx, functools.partial(Net, rate), functools.partial(optax.sgd, momentum=momentum)
        )
        assert_trial_is(loop(small, config, l2, seed), results, l2=l2, rate=rate, momentum=momentum, seed=seed)


@pytest.mark.parametrize(
    "model", [LinenNet, LinenNet(), lambda rate: LinenNet(rate)], ids=["class", "module", "lambda"]
)
def test_linen_modules_take_hyperparameters_by_name(model, small):
    results = l2jax.sweep([0.03], 1, dataset=small, model=model, hyperparameters={"rate": [0, 0.4]}, **OPTIONS)
    config = SweepConfig(**results.config["sweep"])
    for rate in (0.0, 0.4):
        assert_trial_is(train_linen(LinenNet(rate), small, config, 0.03, 0), results, l2=0.03, rate=rate, seed=0)


def test_a_trial_does_not_depend_on_the_values_beside_it(small):
    options = {"dataset": small, "model": Net, "devices": 1, **OPTIONS}
    several = l2jax.sweep([0.03], 1, hyperparameters={"rate": [0.0, 0.4]}, **options).data
    alone = l2jax.sweep([0.03], 1, hyperparameters={"rate": 0.4}, **options).data
    for name in ("train_loss", "val_loss", "test_loss"):
        np.testing.assert_allclose(several[name].sel(rate=0.4), alone[name], rtol=1e-6)


def test_all_is_dropped_at_a_rate_of_1(small):
    results = l2jax.sweep([0.0], 1, dataset=small, model=Net, hyperparameters={"rate": [0.5, 1.0]}, **OPTIONS)
    config = SweepConfig(**results.config["sweep"])
    curves = train_nnx(functools.partial(Net, 1.0), optax.adam, small, config, 0.0, 0)
    assert_trial_is(curves, results, l2=0.0, rate=1.0, seed=0)


def test_a_number_that_the_model_branches_on_takes_one_value(small):
    def branching(width, *, rngs):
        return (
            nnx.Sequential(jnp.ravel, nnx.Linear(49, width, rngs=rngs))
            if width < 0
            else plain.MLP(49, 10, rngs=rngs, width=width)
        )

    results = l2jax.sweep([0.0], 1, dataset=small, model=branching, hyperparameters={"width": 16}, **OPTIONS)
    expected = l2jax.sweep([0.0], 1, dataset=small, model=mlp, **OPTIONS)
    np.testing.assert_array_equal(results.data["val_loss"], expected.data["val_loss"])
    with pytest.raises(InputError, match=r"^width: got 16 32; accepted: one value, because the model branches on it$"):
        l2jax.sweep([0.0], 1, dataset=small, model=branching, hyperparameters={"width": [16, 32]}, **OPTIONS)


def conv_and_dense(params, l2_first, l2_second, l2):
    first, second = params["layers"][0]["kernel"], params["layers"][1]["kernel"]
    bias = params["layers"][1]["bias"]
    return l2_first / 2 * jnp.sum(first**2) + l2_second / 2 * jnp.sum(second**2) + l2 * jnp.sum(bias**2)


def test_a_penalty_takes_parameters_and_hyperparameters(small):
    values = {"l2_first": [0, 0.1], "l2_second": [0.02]}
    results = l2jax.sweep([0.3], 1, dataset=small, model=mlp, penalty=conv_and_dense, hyperparameters=values, **OPTIONS)
    config = SweepConfig(**results.config["sweep"])
    for first in (0.0, 0.1):

        def penalty(module, first=first):
            kernels = [layer.kernel[...] for layer in module.layers]
            squares = [(kernel**2).sum() for kernel in kernels]
            return first / 2 * squares[0] + 0.01 * squares[1] + 0.3 * (module.layers[1].bias[...] ** 2).sum()

        curves = train_nnx(lambda rngs: mlp(rngs), optax.adam, small, config, 0.0, 0, penalty=penalty)
        assert_trial_is(curves, results, l2=0.3, l2_first=first, seed=0)


def test_a_penalty_without_l2_leaves_it_out(small):
    options = {"dataset": small, "model": mlp, "penalty": lambda params, strength: strength * 1.0, **OPTIONS}
    results = l2jax.sweep(seeds=1, hyperparameters={"strength": [1, 2]}, **options)
    assert results.data["l2"].values.tolist() == [0.0]
    np.testing.assert_array_equal(results.data["penalty"].sel(strength=2), 2)
    with pytest.raises(InputError, match=r"^l2: got 0.1; accepted: none, as the penalty has no argument l2$"):
        l2jax.sweep(0.1, 1, hyperparameters={"strength": 1}, **options)


def test_l1_and_elastic_net_train_as_in_a_plain_loop(small):
    results = l2jax.sweep([0.0, 0.03], 2, dataset=small, model=mlp, l1=[0.0, 1e-3, 1e-2], **OPTIONS)
    config = SweepConfig(**results.config["sweep"])
    expected = plain.sweep(mlp, small, config)
    for name, values in expected.items():
        np.testing.assert_allclose(results.data[name], values, rtol=2e-5, atol=1e-6, err_msg=name)


def test_l2_on_some_layers_trains_as_in_a_plain_loop(small):
    results = l2jax.sweep([0.1], 1, dataset=small, model=mlp, l2_on="*/1", **OPTIONS)
    config = SweepConfig(**results.config["sweep"])
    curves = train_nnx(
        lambda rngs: mlp(rngs),
        optax.adam,
        small,
        config,
        0.0,
        0,
        penalty=lambda module: 0.05 * (module.layers[1].kernel[...] ** 2).sum(),
    )
    assert_trial_is(curves, results, l2=0.1, seed=0)


ONE_OF = "an argument of one of model, optimizer, penalty: it is one of"
CANNOT_BE_USED = [
    ({"hyperparameters": {"width": 3}}, f"hyperparameters: got width; accepted: {ONE_OF} none"),
    (
        {"hyperparameters": {"rate": 3}, "optimizer": lambda lr, rate: optax.sgd(lr, rate)},
        f"hyperparameters: got rate; accepted: {ONE_OF} model and optimizer",
    ),
    (
        {"hyperparameters": {"seed": 3}, "optimizer": lambda lr, seed: optax.sgd(lr, seed)},
        "hyperparameters: got seed; accepted: other names: the results have a seed",
    ),
    ({"hyperparameters": {"l2": 3}}, "hyperparameters: got l2; accepted: other names, as l2 is an option of its own"),
    ({"hyperparameters": {"a b": 3}}, "hyperparameters: got a b; accepted: names of arguments with their values"),
    ({"hyperparameters": ["a"]}, "hyperparameters: got ['a']; accepted: names of arguments with their values"),
    (
        {"hyperparameters": {"rate": "many"}},
        "rate: got many; accepted: numbers from -1e38 to 1e38, each once, or log:LOW:HIGH:COUNT with 0 < LOW < HIGH, "
        "COUNT >= 2",
    ),
    ({"penalty": 1}, "penalty: got 1; accepted: a function of the parameters, and of hyperparameters by name"),
    (
        {"penalty": lambda params, l2: jnp.ones(3)},
        "penalty: got <lambda>, which returns (3,); accepted: one that returns a scalar",
    ),
    (
        {"penalty": functools.partial(lambda params, l2: jnp.ones(3))},
        "penalty: got partial, which returns (3,); accepted: one that returns a scalar",
    ),
    (
        {"penalty": lambda params, l2: l2, "l2_on": "conv*"},
        "l2_on: got conv*; accepted: none with a penalty of your own",
    ),
    ({"l2_on": "conv*"}, "l2_on: got conv*; accepted: patterns of layers that have a kernel: hidden, logits"),
]


@pytest.mark.parametrize(("options", "message"), CANNOT_BE_USED)
def test_what_cannot_be_used_is_said_in_one_line(options, message, small):
    with pytest.raises(InputError) as error:
        l2jax.sweep(seeds=1, dataset=small, model=Net, **OPTIONS | options)
    assert str(error.value) == message


def test_trained_networks_have_the_values_of_their_trials(small):
    values = {"rate": [0.0, 0.5]}
    results = l2jax.sweep([0.0], 1, dataset=small, model=Net, hyperparameters=values, keep="all", **OPTIONS)
    images = plain.as_floats(small.test_images)
    for rate in values["rate"]:
        network = results.network(rate=rate)
        logits = np.asarray(network(images), np.float64)
        loss = plain.cross_entropy(logits, small.test_labels)
        np.testing.assert_allclose(results.data["test_loss"].sel(rate=rate), loss, rtol=1e-5)
        assert float(network.dropout.rate) == rate
        network.train()
        assert (np.asarray(network(images)) == np.asarray(network(images))).all() == (rate == 0)
