"""Whole sweeps: against plain Python loops over single trials, and against each other."""

import dataclasses
import sys

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import plain
from helpers.compare import mlp

import l2jax
from l2jax import InputError, Sweep, SweepConfig

pytestmark = pytest.mark.usefixtures("compiled_quickly")

OPTIONS = {"epochs": 4, "batch_size": 32, "val_size": 40, "learning_rate": 0.01, "label_noise": 0.3}
STRENGTHS = (1e-2, 0.0, 0.3)  # not in order: they stay in the order in which they were given


def sweep_small(small, l2, seeds, model=mlp, **options):
    return l2jax.sweep(l2, seeds, dataset=small, model=model, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def nine_trials(small):
    return sweep_small(small, STRENGTHS, 3)


def assert_same_trials(actual, expected):
    """Every number of `actual` is that of the same trial in `expected`, up to rounding."""
    expected = expected.sel(l2=actual["l2"], seed=actual["seed"], epoch=actual["epoch"])
    for name in actual:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6, err_msg=name)


# Against plain Flax


def test_nine_trials_on_two_devices_equal_plain_flax(nine_trials, small):
    assert (nine_trials.config["num_trials"], nine_trials.config["num_devices"]) == (9, 2)
    plain.assert_equals_plain_loop(nine_trials, small, mlp)


class OwnCNN(nnx.Module):
    def __init__(self, *, rngs):
        glorot = {"kernel_init": nnx.initializers.glorot_uniform(), "rngs": rngs}
        self.conv = nnx.Conv(1, 4, (3, 3), strides=2, **glorot)
        self.dense = nnx.Linear(16, 10, use_bias=False, **glorot)

    def __call__(self, x):
        return self.dense(nnx.avg_pool(nnx.tanh(self.conv(x)), (2, 2), strides=(2, 2)).reshape(len(x), -1))


def test_own_network_and_optimizer_equal_plain_flax(small):
    own = {"model": lambda rngs: OwnCNN(rngs=rngs), "optimizer": lambda rate: optax.sgd(rate, momentum=0.9)}
    results = sweep_small(small, [1e-2, 0.0], 1, **own, val_size="test", train_size=110)
    plain.assert_equals_plain_loop(results, small, **own)
    for name in ("loss", "accuracy"):
        np.testing.assert_array_equal(results.data[f"val_{name}"].isel(epoch=-1), results.data[f"test_{name}"])


def test_every_axis_equals_plain_flax(small):
    """150 examples in 4 folds: 112 to train on in two of them and 113 in the others, which is one more batch."""
    swept = {"learning_rate": [0.01, 1e-3], "weight_decay": [0.0, 0.5], "label_smoothing": [0.0, 0.2]}
    results = sweep_small(small, [1e-2], 1, **swept, folds=4, batch_size=16, epochs=2)
    assert list(results.data["val_loss"].dims) == ["l2", *swept, "seed", "fold", "epoch"]
    for name, values in swept.items():
        assert results.data[name].values.tolist() == values
    plain.assert_equals_plain_loop(results, small, mlp)


# Against each other


def test_results_are_labelled_as_given(nine_trials):
    data = nine_trials.data
    assert data["l2"].values.tolist() == list(STRENGTHS)
    assert data["seed"].values.tolist() == [0, 1, 2]
    assert data["epoch"].values.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(data["penalty"], data["l2"] / 2 * data["kernel_sum_of_squares"], rtol=1e-6)
    np.testing.assert_array_equal(data["best_epoch"], data["val_loss"].values.argmin(-1) + 1)
    assert not data["diverged"].any()
    assert data.notnull().to_dataarray().all()


def test_permuting_trials_permutes_results(nine_trials, small):
    permuted = sweep_small(small, sorted(STRENGTHS), 3)
    assert permuted.data["l2"].values.tolist() == sorted(STRENGTHS)
    assert permuted.data.sel(l2=list(STRENGTHS)).identical(nine_trials.data)


def test_a_trial_alone_is_the_same(nine_trials, small):
    assert_same_trials(sweep_small(small, [0.3], 1).data, nine_trials.data)


def test_results_do_not_depend_on_the_number_of_devices(nine_trials, small):
    on_one = sweep_small(small, STRENGTHS, 3, devices=1)
    assert on_one.config["num_devices"] == 1
    assert_same_trials(on_one.data, nine_trials.data)


def test_results_do_not_depend_on_chunks(nine_trials, small):
    config = SweepConfig(STRENGTHS, 3, train_size=None, trials_at_once=4, **OPTIONS)
    sweep = Sweep(config, small, model=mlp)
    epochs = sweep.epochs()
    first = [next(epochs) for _ in range(4)]
    assert [(record.number, record.indices) for record in first] == [(number, (0, 1, 2)) for number in (1, 2, 3, 4)]
    assert all(values.shape[0] == 3 for record in first for values in record.metrics.values())
    assert sweep.epochs_left == 8

    data = sweep.results().data  # of the first strength alone, so far
    assert_same_trials(data.isel(l2=[0]), nine_trials.data)
    others = data.isel(l2=[1, 2])
    assert others[[*plain.CURVES, "test_loss", "test_accuracy"]].isnull().to_dataarray().all()
    assert not others["diverged"].any()
    assert not others["best_epoch"].any()

    assert [record.indices for record in epochs] == 4 * [(3, 4, 5)] + 4 * [(6, 7, 8)]
    assert sweep.epochs_left == 0
    assert_same_trials(sweep.results().data, nine_trials.data)


# Interruption


def test_interrupted_sweep_has_its_epochs_and_can_go_on(nine_trials, small):
    sweep = Sweep(SweepConfig(STRENGTHS, 3, train_size=None, **OPTIONS), small, model=mlp)
    with pytest.raises(ValueError, match="without a finished epoch"):
        sweep.results()
    for record in sweep.epochs():
        assert record.examples_per_second == pytest.approx(9 * 110 / record.seconds)
        if record.number == 2:
            break
    data = sweep.results().data
    assert data["epoch"].values.tolist() == [1, 2]
    assert_same_trials(data[plain.CURVES], nine_trials.data)
    two_epochs = dataclasses.replace(sweep.config, l2=(0.0,), epochs=2)
    expected = plain.sweep(mlp, small, two_epochs)
    for name in ("test_loss", "test_accuracy"):
        np.testing.assert_allclose(data[name].sel(l2=[0.0]), expected[name], rtol=1e-5)

    assert [record.number for record in sweep.epochs()] == [3, 4]
    assert sweep.results().data.identical(nine_trials.data)


# Divergence


def test_diverging_trials_are_marked_and_disturb_no_neighbour(small):
    """With plain SGD a kernel grows by the factor 1 - rate * l2 in each step: -9 for 1000, -1e10 for 1e12."""
    options = {"optimizer": optax.sgd, "epochs": 6}
    disturbed = sweep_small(small, [0.0, 1e12, 1000.0, 1e-2], 3, **options)
    calm = sweep_small(small, [0.0, 0.1, 1e-3, 1e-2], 3, **options)
    neighbours = [0.0, 1e-2]
    assert disturbed.data.sel(l2=neighbours).identical(calm.data.sel(l2=neighbours))
    assert not calm.data["diverged"].any()

    gone = disturbed.data.sel(l2=[1e12, 1000.0])
    assert gone["diverged"].all()
    assert gone[["test_loss", "test_accuracy"]].isnull().to_dataarray().all()
    num_finite = gone["val_loss"].notnull().sum("epoch")
    assert (num_finite.sel(l2=1e12) == 0).all()
    assert (num_finite.sel(l2=1000.0).isin(range(1, 6))).all()
    for name in plain.CURVES:  # they end together, and do not come back
        assert (gone[name].notnull() == (gone["epoch"] <= num_finite)).all()
    assert (gone["best_epoch"] <= num_finite).all()
    assert (gone["best_epoch"].sel(l2=1000.0) > 0).all()

    choices = [(metric, rule) for metric in ("val_loss", "val_accuracy") for rule in ("min", "1se")]
    assert {disturbed.best(*choice) for choice in choices} <= set(neighbours)


def test_when_all_diverge_none_is_the_best(small):
    results = sweep_small(small, STRENGTHS, 3, learning_rate=1e30)
    assert results.data["diverged"].all()
    with pytest.raises(ValueError, match="every strength has a diverged trial"):
        results.best()


# What a person gives


def test_plain_arrays_are_a_dataset_without_a_test_part(nine_trials, small):
    arrays = (small.images[..., 0], small.labels.astype(np.int64))
    data = sweep_small(arrays, [0.3], 2).data
    assert data[["test_loss", "test_accuracy"]].isnull().to_dataarray().all()
    assert not data["diverged"].any()
    assert_same_trials(data.drop_vars(["test_loss", "test_accuracy"]), nine_trials.data)


def test_config_tells_how_to_run_it_again(nine_trials):
    config = nine_trials.config
    assert SweepConfig(**config["sweep"]) == SweepConfig(STRENGTHS, 3, train_size=None, dataset="small", **OPTIONS)
    assert config["num_params"] == 49 * 16 + 16 + 16 * 10 + 10
    assert config["model"] == "MLP"
    assert config["device"] == jax.devices()[0].device_kind
    assert config["versions"]["jax"] == jax.__version__
    assert config["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert config["seconds"]["training"] > 0


@pytest.mark.parametrize(
    ("option", "value", "given"),
    [
        ("l2", [0.1, -1.0], "-1.0"),
        ("l2", [0.1, 0.1], "0.1"),
        ("l2", [], "nothing"),
        ("seeds", 0, "0"),
        ("epochs", 0, "0"),
        ("batch_size", 111, "111"),
        ("learning_rate", float("nan"), "nan"),
        ("train_size", 111, "111"),
        ("val_size", 150, "150"),
        ("folds", 151, "151"),
        ("label_noise", 1.5, "1.5"),
        ("dataset", "no_such_data", "no_such_data"),
        ("dataset", (np.zeros((20, 7, 7), np.uint8), np.zeros(19, int)), "20 images, labels of shape (19,)"),
        ("dataset", (np.zeros((20, 7, 7), np.uint8), np.arange(20) - 1), "label -1"),
        ("dataset", (np.zeros((20, 7, 7), int), np.zeros(20, int)), "images of int64"),
        ("dataset", (np.full((20, 7, 7), np.nan), np.zeros(20, int)), "images with 980 NaN or infinite values"),
        ("image_size", 32, "32"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(small, option, value, given):
    arguments = {"l2": [0.0], "seeds": 1, "dataset": small, "model": mlp, **OPTIONS}
    with pytest.raises(InputError) as caught:
        l2jax.sweep(**{**arguments, option: value})
    assert caught.value.option == option
    message = str(caught.value)
    assert message.startswith(f"{option}: got {given}; accepted: ")
    assert "\n" not in message


@pytest.mark.parametrize("optimizer", [optax.adam(1e-2), "adam"])
def test_an_optimizer_is_a_function_of_a_learning_rate(small, optimizer):
    with pytest.raises(InputError, match=r"^optimizer: got .*; accepted: a function from a learning rate to one"):
        sweep_small(small, [0.0], 1, optimizer=optimizer)


def test_unknown_option_is_an_error(small):
    with pytest.raises(TypeError, match="epoch"):
        sweep_small(small, [0.0], 1, epoch=3)


def test_classes_with_few_examples_are_warned_of(small):
    with pytest.warns(UserWarning, match=r"^the training part has fewer than 5 examples of classes 0 \(2\), "):
        sweep_small(small, [0.0], 1, train_size=20, batch_size=20, epochs=1)


def test_old_names_work_and_warn(small):
    sweep = Sweep(SweepConfig((0.0,), 1, train_size=None, val_size=40, epochs=1), small, model=mlp)
    with pytest.warns(DeprecationWarning, match=r"Sweep\.plan is now Sweep\.compile"):
        assert sweep.plan is sweep.compile()
    (record,) = sweep.epochs()
    with pytest.warns(DeprecationWarning, match=r"Sweep\.history is now Sweep\.ledger\.records"):
        assert [old.indices for old in sweep.history] == [record.indices]
