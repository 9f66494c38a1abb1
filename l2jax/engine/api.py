"""`l2jax.sweep`: a whole sweep in one call."""

from __future__ import annotations

import os
from typing import Any, Literal

import optax
from numpy.typing import ArrayLike

from l2jax.config import SweepConfig
from l2jax.data.dataset import Dataset, as_dataset, load_dataset
from l2jax.engine.sweep import Sweep
from l2jax.errors import InvalidInputError
from l2jax.hyperparameters import Values
from l2jax.network.model import ModelFn
from l2jax.results.results import Results
from l2jax.trial.optimizer import OptimizerFn


def sweep(
    l2: Values = SweepConfig.l2,
    seeds: int = SweepConfig.seeds,
    *,
    dataset: str | os.PathLike[str] | Dataset | tuple[ArrayLike, ArrayLike] = SweepConfig.dataset,
    model: ModelFn | None = None,
    optimizer: OptimizerFn = optax.adam,
    epochs: int = SweepConfig.epochs,
    batch_size: int = SweepConfig.batch_size,
    learning_rate: Values = SweepConfig.learning_rate,
    weight_decay: Values = SweepConfig.weight_decay,
    label_smoothing: Values = SweepConfig.label_smoothing,
    train_size: float | Literal["auto"] | None = SweepConfig.train_size,
    val_size: float | Literal["test"] | None = 400,
    folds: int = SweepConfig.folds,
    label_noise: float = SweepConfig.label_noise,
    image_size: int | None = SweepConfig.image_size,
    data_dir: str | None = SweepConfig.data_dir,
    bfloat16: bool = SweepConfig.bfloat16,
    devices: int | None = SweepConfig.devices,
    trials_at_once: int | None = SweepConfig.trials_at_once,
    autotune: bool = SweepConfig.autotune,
) -> Results:
    """Trains every combination of hyperparameters from every seed on every fold, all at the same time.

    Hyperparameters take one value or several, or logarithmic grids such as "log:1e-5:1e-1:9".

    Args:
      l2: strengths; each adds (l2/2) * sum(kernel**2) to the loss, where kernels are the parameters of that name.
      seeds: trials per setting. Trials that share a seed share split, initial parameters and data order.
      dataset: a name or a path, as `load_dataset` takes them, a `Dataset`, or (images, labels), as a `Dataset` takes
        them: images (N, H, W, C), or (N, ...) for a model of your own, uint8 or floats.
      model: makes one trial's network: a Flax NNX module from `nnx.Rngs`, such as its class, a function or a partial;
        or a Linen module, or its class. It maps images (B, H, W, C), uint8 scaled to [0, 1] and floats as they are, to
        logits (B, classes). Parameters, `nnx.Param`, are trained; all other variables, such as batch statistics and
        dropout's streams, are carried from step to step. None takes `CNN`. Convolutions and pooling are fast if they
        are of `l2jax.ops`.
      optimizer: makes the optimizer from a learning rate, its first argument. If it names `total_steps` or
        `steps_per_epoch` as arguments, it gets them, for schedules. Optimizers that ask for the value of the objective
        get it; schedule-free ones are evaluated at their evaluation parameters.
      epochs: passes over the training examples.
      batch_size: examples per step.
      learning_rate: learning rates, which `optimizer` gets.
      weight_decay: decoupled weight decays, as in AdamW, of kernels.
      label_smoothing: the part of a label that is spread over all classes.
      train_size: training examples per trial, or a fraction of all; with folds, in all folds together. None: all;
        "auto": 400 of "mnist_small" given by name, otherwise all.
      val_size: examples held out for validation, or a fraction of all; "test": the test set instead.
      folds: cross-validation folds; 1 holds out `val_size` examples.
      label_noise: fraction of the training labels to make wrong.
      image_size: pixels per side, to which the images of a folder are brought; see `load_dataset`.
      data_dir: folder of the data sets of tensorflow-datasets.
      bfloat16: multiply matrices in bfloat16, and sum in float32.
      devices: how many devices to use; on CPU one device is one core. None: all.
      trials_at_once: trials to hold in memory. None: as many as fit.
      autotune: time the ways to compute, and keep the fastest.

    Returns:
      The metrics of every trial at every epoch.

    Raises:
      InputError: for what cannot be used; says what was given and what is accepted.
    """
    data = None if isinstance(dataset, str | os.PathLike) else as_dataset(dataset)
    if data is not None and image_size is not None:
        raise InvalidInputError("image_size", image_size, "none, as arrays have a size")
    name: Any = dataset if data is None else data.name  # the config converts a path
    config = SweepConfig(
        l2=l2,
        seeds=seeds,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        train_size=None if data is not None and train_size == "auto" else train_size,
        val_size=val_size,
        folds=folds,
        label_noise=label_noise,
        dataset=name,
        image_size=image_size,
        data_dir=data_dir,
        bfloat16=bfloat16,
        devices=devices,
        trials_at_once=trials_at_once,
        autotune=autotune,
    )
    if data is None:
        data = load_dataset(config.dataset, config.data_dir, image_size=config.image_size)
    trained = Sweep(config, data, model=model, optimizer=optimizer)
    for _ in trained.epochs():
        pass
    return trained.results()
