"""Networks as people write them: each trains in a sweep as in a plain loop of Flax and optax."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from helpers.plain_nnx import add_metrics, train_linen, train_nnx

import l2jax
from l2jax.checkpoint.checkpoint import Checkpoint
from l2jax.checkpoint.checkpoints import Checkpoints
from l2jax.checkpoint.folders import Folders
from l2jax.config import SweepConfig
from l2jax.engine.describe import Computation, devices
from l2jax.engine.tuning import Tuning

pytestmark = pytest.mark.usefixtures("compiled_quickly")

WIDTH = 12
OPTIONS = {"epochs": 3, "batch_size": 32, "val_size": 40, "learning_rate": 0.01}  # 110 examples: 3 batches and 14


# A bias in front of batch norm has a gradient of 0 but for rounding, which Adam scales up to whole steps: no two
# programs agree on it. The networks here have none there. Kernels under weight norm have such a direction, so SGD
# trains them.


def flat(images):
    return images.reshape(len(images), -1)


class BatchNorm(nnx.Module):
    def __init__(self, *, rngs):
        self.hidden = nnx.Linear(49, WIDTH, use_bias=False, rngs=rngs)
        self.logits = nnx.Linear(WIDTH, 10, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.8, rngs=rngs)

    def __call__(self, images):
        return self.logits(nnx.relu(self.norm(self.hidden(flat(images)))))


class Dropout(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.logits = nnx.Linear(49, WIDTH, rngs=rngs), nnx.Linear(WIDTH, 10, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, images):
        return self.logits(self.dropout(nnx.relu(self.hidden(flat(images)))))


class ConvBatchNormDropout(nnx.Module):
    def __init__(self, *, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)
        self.logits = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images):
        return self.logits(flat(self.dropout(nnx.relu(self.norm(self.conv(images))))))


class Constants(nnx.Module):
    """A random projection drawn by the constructor, and arrays of JAX and NumPy as attributes."""

    def __init__(self, rngs):
        self.projection = jax.random.normal(rngs.params(), (49, WIDTH)) / 7
        self.shift, self.scale = jnp.linspace(-1, 1, WIDTH), np.linspace(1, 2, WIDTH, dtype=np.float32)
        self.logits = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, images):
        return self.logits(nnx.tanh(flat(images) @ self.projection + self.shift[None]) * self.scale[None])


class Jitted(Dropout):
    @nnx.jit
    def __call__(self, images):  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().__call__(images)


class Remat(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.logits = nnx.Linear(49, WIDTH, rngs=rngs), nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, images):
        return self.logits(nnx.remat(lambda layer, x: nnx.tanh(layer(x)))(self.hidden, flat(images)))


class Scanned(nnx.Module):
    """Layers made by `nnx.vmap`, called under `nnx.scan`."""

    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap
        def layers(rngs):
            return nnx.Linear(WIDTH, WIDTH, rngs=rngs)

        self.first, self.layers = nnx.Linear(49, WIDTH, rngs=rngs), layers(rngs)
        self.logits = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, images):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def call(x, layer):
            return nnx.tanh(layer(x))

        return self.logits(call(self.first(flat(images)), self.layers))


class WeightNorm(nnx.Module):
    def __init__(self, rngs):
        linear = nnx.Linear(49, WIDTH, rngs=rngs)
        self.hidden, self.norm = linear, nnx.WeightNorm(linear, rngs=rngs)
        self.logits = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, images):
        return self.logits(nnx.relu(self.norm(flat(images))))


class TiedWeights(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(WIDTH, WIDTH, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.second.kernel = self.first.kernel
        self.embed, self.logits = nnx.Linear(49, WIDTH, rngs=rngs), nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, images):
        return self.logits(nnx.tanh(self.second(nnx.tanh(self.first(self.embed(flat(images)))))))


class TrainArgument(nnx.Module):
    """Is told by an argument whether it trains."""

    def __init__(self, rngs):
        self.hidden, self.logits = nnx.Linear(49, WIDTH, rngs=rngs), nnx.Linear(WIDTH, 10, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, deterministic=None, rngs=rngs)

    def __call__(self, images, train=None):
        train = not self.dropout.deterministic if train is None else train
        return self.logits(self.dropout(nnx.relu(self.hidden(flat(images))), deterministic=not train))


class Half(nnx.Module):
    """Computes in bfloat16."""

    def __init__(self, rngs):
        half = {"dtype": jnp.bfloat16, "rngs": rngs}
        self.hidden, self.logits = nnx.Linear(49, WIDTH, **half), nnx.Linear(WIDTH, 10, **half)

    def __call__(self, images):
        return self.logits(nnx.relu(self.hidden(flat(images))))


class LinenNet(linen.Module):
    width: int = WIDTH

    @linen.compact
    def __call__(self, images, train: bool):
        x = linen.Dense(self.width, use_bias=False)(flat(images))
        x = linen.relu(linen.BatchNorm(use_running_average=not train, momentum=0.8)(x))
        return linen.Dense(10)(linen.Dropout(0.2, deterministic=not train)(x))


def assert_trains_as(plain_loop, results, small, **tolerance):
    """Each trial's curves are those of the plain loop."""
    config = SweepConfig(**results.config["sweep"])
    for l2 in config.l2:
        for seed in range(config.seeds):
            for name, values in plain_loop(small, config, l2, seed).items():
                trial = results.data[name].sel(l2=l2, seed=seed)
                np.testing.assert_allclose(trial, values, err_msg=name, **tolerance)


@pytest.mark.parametrize(
    "model",
    [
        BatchNorm,
        Dropout,
        ConvBatchNormDropout,
        Constants,
        Jitted,
        Remat,
        Scanned,
        WeightNorm,
        TiedWeights,
        TrainArgument,
    ],
)
def test_an_nnx_network_trains_as_in_a_plain_loop(model, small):
    optimizer = optax.sgd if model is WeightNorm else optax.adam
    results = l2jax.sweep([0.0, 0.03], 2, dataset=small, model=model, optimizer=optimizer, **OPTIONS)
    assert results.config["model"] == model.__name__
    assert_trains_as(functools.partial(train_nnx, model, optimizer), results, small, rtol=2e-5)


@pytest.mark.parametrize("model", [LinenNet, LinenNet(), lambda: LinenNet(WIDTH)], ids=["class", "module", "lambda"])
def test_a_linen_network_trains_as_in_a_plain_loop(model, small):
    results = l2jax.sweep([0.0, 0.03], 2, dataset=small, model=model, **OPTIONS)
    assert results.config["model"] == "LinenNet"
    assert_trains_as(functools.partial(train_linen, LinenNet()), results, small, rtol=2e-5)


@pytest.mark.parametrize(
    "construct", [lambda rngs: Dropout(rngs), functools.partial(BatchNorm), lambda *, rngs: BatchNorm(rngs=rngs)]
)
def test_constructors_are_called_as_they_are_written(construct, small):
    results = l2jax.sweep([0.0], 1, dataset=small, model=construct, **OPTIONS | {"epochs": 1})
    assert results.config["model"] in ("Dropout", "BatchNorm")


def small_sweep(small, model=ConvBatchNormDropout, **options):
    return l2jax.sweep([0.0, 0.03, 0.3], 2, dataset=small, model=model, **OPTIONS | options)


@pytest.fixture(scope="module")
def six_trials(small):
    return small_sweep(small).data


@pytest.mark.parametrize("options", [{"trials_at_once": 4}, {"devices": 1}], ids=["chunks", "one device"])
def test_state_depends_neither_on_chunks_nor_on_devices(options, small, six_trials):
    data = small_sweep(small, **options).data
    for name in data:
        np.testing.assert_allclose(data[name], six_trials[name], rtol=2e-5, err_msg=str(name))


@pytest.mark.parametrize("model", [ConvBatchNormDropout, Constants])
def test_trials_side_by_side_train_as_one_by_one(model, small):
    """As accelerators compute: two trials at a time on each device."""
    config = SweepConfig((0.0, 0.03), 2, train_size=None, **OPTIONS | {"epochs": 1})
    losses = []
    for side_by_side in (1, 2):
        sweep = l2jax.Sweep(config, small, model=model)
        sweep.computation = Computation(4, Tuning(side_by_side), *devices(sweep.setup))
        losses.append([record.metrics["train_loss"] for record in sweep.epochs()])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)


def test_a_restored_sweep_is_bitwise_the_same(small, six_trials, tmp_path):
    config = SweepConfig((0.0, 0.03, 0.3), 2, train_size=None, **OPTIONS)
    checkpoints = Checkpoints(Folders(tmp_path / "checkpoints"))
    interrupted = l2jax.Sweep(config, small, model=ConvBatchNormDropout)
    for record in interrupted.epochs():
        checkpoints.save(Checkpoint(interrupted.snapshot(), interrupted.description()))
        if record.number == 2:
            break
    sweep = l2jax.Sweep(config, small, model=ConvBatchNormDropout)
    for snapshot, description in checkpoints.load(sweep.check_snapshot, pytest.fail):
        sweep.restore(snapshot)
        sweep.reproduce(description)
    assert [record.number for record in sweep.epochs()] == [3]
    assert sweep.results().data.identical(six_trials)


@pytest.mark.parametrize("batch_size", [32, 16])
def test_folds_whose_last_batches_differ_train_as_alone(small, batch_size):
    """150 examples in 4 folds leave 112 or 113 to train on: last batches of 16 or 17, or none or one of 1."""
    options = OPTIONS | {"batch_size": batch_size}
    folds = l2jax.sweep([0.01], 1, dataset=small, model=BatchNorm, folds=4, **options)
    config = SweepConfig(**folds.config["sweep"])
    for fold in range(4):
        plain_loop = functools.partial(train_nnx, BatchNorm, optax.adam, fold=fold)
        for name, values in plain_loop(small, config, 0.01, 0).items():
            trial = folds.data[name].sel(l2=0.01, seed=0, fold=fold)
            np.testing.assert_allclose(trial, values, rtol=2e-5, err_msg=name)


def test_a_diverged_trial_freezes_its_state_too(small):
    config = SweepConfig((0.0, 1e12), 1, train_size=None, **OPTIONS)
    sweep = l2jax.Sweep(config, small, model=BatchNorm, optimizer=optax.sgd)
    snapshots = []
    for _ in sweep.epochs():
        snapshots.append(sweep.snapshot())
        assert all(np.isfinite(values).all() for values in snapshots[-1].state.values())
    assert sweep.results().data["diverged"].values.ravel().tolist() == [False, True]
    means = [snapshot.state["model_state/norm/mean"].copy() for snapshot in snapshots]
    np.testing.assert_array_equal(means[0][1], means[2][1])
    assert (means[0][0] != means[2][0]).any()


def test_losses_are_computed_in_float32(small):
    """The logits of a bfloat16 network, taken as they are and evaluated in float64."""
    config = SweepConfig((0.01,), 1, train_size=None, **OPTIONS)
    sweep = l2jax.Sweep(config, small, model=Half)
    list(sweep.epochs())
    state = sweep.snapshot().state
    module = Half(nnx.Rngs(0))
    flat_state = [(path, state["/".join(("params", *path))][0]) for path, _ in nnx.to_flat_state(nnx.state(module))]
    nnx.update(module, nnx.from_flat_state([(path, nnx.Param(jnp.asarray(array))) for path, array in flat_state]))
    curves: dict = {}
    logits = jax.jit(lambda images: module(images))(small.test_images / np.float32(255))
    assert logits.dtype == jnp.bfloat16
    add_metrics(curves, "test", logits, small.test_labels)
    np.testing.assert_allclose(sweep.results().data["test_loss"].item(), curves["test_loss"], rtol=1e-5)


def test_seeds_that_begin_alike_are_warned_of(small):
    def model(rngs):
        return Dropout(nnx.Rngs(0, dropout=rngs()))

    with pytest.warns(UserWarning, match="all seeds begin with the same kernels"):
        l2jax.sweep([0.0], 2, dataset=small, model=model, **OPTIONS | {"epochs": 1})
