"""Does l2jax train what Keras trains? The same CNN in both: step by step, and over epochs from several seeds.

    python benchmarks/parity_keras.py [--dataset NAME] [--data-dir DIR] [--epochs N] [--seeds N]

Keras' `regularizers.l2(c)` adds c * sum(kernel**2) to the loss, and counts it in `loss` and `val_loss`: that is
l2 = 2c, and the objective here. Its `loss` and `accuracy` are averages over the steps of an epoch.

First, both start from the same parameters and see the same batches: with the optimizer that each has, and with Keras'
Adam in l2jax, too. The two differ in where they add epsilon, which matters in the first steps. Then each draws its own
parameters and batches, and the means over seeds of the metrics at the end are compared by Welch's t test, with Holm's
correction for the number of comparisons.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from flax import nnx
from peers.keras_cnn import cnn

import l2jax
from l2jax.arguments import Arguments
from l2jax.network.model import make_network
from l2jax.stats import holm
from l2jax.trial import train
from l2jax.trial.optimizer import Optimizer, OptimizerFn
from l2jax.trial.penalty import default_penalty

STRENGTHS = (0.0, 1e-3, 1e-2)
"""Keras' c."""
STEPS, BATCH_SIZE, LEARNING_RATE = 20, 32, 1e-3
TOLERANCE = 1e-4
"""The largest relative difference between the objectives of a step that counts as equal."""
SIGNIFICANCE = 1e-3
"""A corrected p-value below it says that they differ; one in a thousand comparisons of equals has one."""


def keras_adam(learning_rate: Any, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-7) -> Any:
    """Adam as Keras defines it: epsilon is added to the root of the second moment before the bias correction.

    Kingma and Ba (2015) give both: optax follows their algorithm 1, with 1e-8, Keras the form at the end of section 2.
    """

    def update(grads: Any, state: optax.ScaleByAdamState, params: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, grads)
        rate = learning_rate * jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = jax.tree.map(lambda m, v: -rate * m / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def steps(dataset: l2jax.Dataset, c: float, adam: OptimizerFn) -> np.ndarray:
    """The objective before each of the first steps in l2jax and in Keras, from the same parameters on the same batches.

    Returns:
      (STEPS, 2): l2jax's, Keras'.
    """
    images, labels = dataset.images[: STEPS * BATCH_SIZE], dataset.labels[: STEPS * BATCH_SIZE]
    network = l2jax.CNN(images.shape[1:], dataset.num_classes, rngs=nnx.Rngs(0))
    _, params, model_state = nnx.split(network, nnx.Param, ...)

    theirs = cnn(2 * c, LEARNING_RATE)
    layers = (network.conv1, network.conv2, network.dense)
    theirs.set_weights([np.asarray(array[...]) for layer in layers for array in (layer.kernel, layer.bias)])

    made = make_network(functools.partial(l2jax.CNN, images.shape[1:], dataset.num_classes), images.shape[1:])
    scalars = {"l2": 2 * c, "learning_rate": LEARNING_RATE, "weight_decay": 0, "label_smoothing": 0, "l1": 0}
    scalars = {name: jnp.float32(value) for name, value in scalars.items()}
    trial = train.Trial(scalars, seed=jnp.uint32(0), split_index=jnp.int32(0))
    optimizer = Optimizer(adam, Arguments(("learning_rate",)))
    penalty = default_penalty(params, "*", with_l1=False)
    functions = {"network": made, "optimizer": optimizer, "penalty": penalty}
    one_step = jax.jit(functools.partial(train.train_epoch, **functions, batch_size=BATCH_SIZE, sizes=(BATCH_SIZE,)))
    state, objectives = train.TrainState(params, adam(LEARNING_RATE).init(params), model_state), []
    for start in range(0, len(labels), BATCH_SIZE):
        # An epoch of one batch is a step.
        batch = np.arange(start, start + BATCH_SIZE, dtype=np.int32)
        examples = train.Examples(images, labels, labels[None], np.tile(batch, (3, 1, 1)))
        state, means = one_step(state, trial, 1, examples)
        theirs.reset_metrics()
        loss, *_ = theirs.train_on_batch(images[batch].astype("float32") / 255, labels[batch])
        objectives.append((float(means.objective), float(loss)))
    return np.array(objectives)


def train_l2jax(dataset: l2jax.Dataset, epochs: int, seeds: int) -> dict[str, np.ndarray]:
    """Trains with l2jax; returns the metrics of the last epoch as Keras defines and names them: (strengths, seeds)."""
    strengths = [2 * c for c in STRENGTHS]
    results = l2jax.sweep(strengths, seeds, dataset=dataset, epochs=epochs, batch_size=BATCH_SIZE, val_size="test")
    last = results.data.isel(epoch=-1)
    return {
        "loss": last["running_objective"].values,
        "accuracy": last["running_accuracy"].values,
        "val_loss": (last["val_loss"] + last["penalty"]).values,
        "val_accuracy": last["val_accuracy"].values,
    }


def train_keras(dataset: l2jax.Dataset, epochs: int, seeds: int) -> dict[str, np.ndarray]:
    """Trains with `keras.Model.fit`, which draws its own seeds; returns the same metrics: (strengths, seeds).

    After `keras.utils.set_random_seed` it would repeat the order of the first epoch in all others, and report a higher
    accuracy while training.
    """
    x, x_test = (images.astype("float32") / 255 for images in (dataset.images, dataset.test_images))
    histories = []
    for c in STRENGTHS:
        for _ in range(seeds):
            model = cnn(2 * c, LEARNING_RATE)
            model.compile(model.optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
            test = x_test, dataset.test_labels
            fit = model.fit(x, dataset.labels, batch_size=BATCH_SIZE, epochs=epochs, validation_data=test, verbose=0)
            histories.append({name: values[-1] for name, values in fit.history.items()})
    return {name: np.array([row[name] for row in histories]).reshape(-1, seeds) for name in histories[0]}


def main() -> int:
    """Returns an exit code: 1 if they differ."""
    parser = argparse.ArgumentParser(description="Compares what l2jax and Keras train.")
    parser.add_argument("--dataset", default="mnist_small")
    parser.add_argument("--data-dir")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    dataset = l2jax.load_dataset(options.dataset, options.data_dir)

    print(f"From the same parameters on the same batches, {STEPS} steps, the objective of each:\n")
    print("| c | first step | last step | largest relative difference | with Keras' Adam in l2jax |")
    print("|---|---|---|---|---|")
    largest = 0.0
    for c in STRENGTHS:
        by_own_adam, by_same_adam = (steps(dataset, c, adam) for adam in (optax.adam, keras_adam))
        own, same = (np.abs(pair[:, 0] / pair[:, 1] - 1).max() for pair in (by_own_adam, by_same_adam))
        largest = max(largest, same)
        print(f"| {c:g} | {by_own_adam[0, 0]:.6f} | {by_own_adam[-1, 0]:.6f} | {own:.1e} | {same:.1e} |")

    begin = time.perf_counter()
    ours = train_l2jax(dataset, options.epochs, options.seeds)
    between = time.perf_counter()
    theirs = train_keras(dataset, options.epochs, options.seeds)
    end = time.perf_counter()
    examples, trials = len(dataset.labels), len(STRENGTHS) * options.seeds
    print(f"\n{options.dataset}, {examples:,} examples, epoch {options.epochs}, mean and standard deviation over")
    print(f"{options.seeds} seeds. The {trials} trials took {between - begin:.0f} s, in Keras {end - between:.0f} s.\n")
    print("| c | as Keras reports it | l2jax | Keras | p, corrected |\n|---|---|---|---|---|")
    pairs = {(c, name): (ours[name][row], theirs[name][row]) for row, c in enumerate(STRENGTHS) for name in ours}
    p = holm(np.array([scipy.stats.ttest_ind(*pair, equal_var=False).pvalue for pair in pairs.values()]))
    for ((c, name), pair), corrected in zip(pairs.items(), p, strict=True):
        cells = [f"{values.mean():.4f} ± {values.std(ddof=1):.4f}" for values in pair]
        print(f"| {c:g} | `{name}` | {cells[0]} | {cells[1]} | {corrected:.2g} |")
    return 0 if largest <= TOLERANCE and p.min() >= SIGNIFICANCE else 1


if __name__ == "__main__":
    sys.exit(main())
