"""The setup of a sweep: everything that training does not change, checked and put on the devices."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from l2jax.config import HYPERPARAMETERS, SweepConfig
from l2jax.data.dataset import Dataset
from l2jax.engine.devices import make_mesh, put_shared, use_every_core
from l2jax.engine.examples import check_classes_differ, make_examples, warn_of_classes
from l2jax.engine.grid import make_trials
from l2jax.engine.surroundings import check_process
from l2jax.errors import InvalidInputError
from l2jax.network.cnn import default_model
from l2jax.network.model import ModelFn, check_network, make_network, model_name
from l2jax.trial.kernels import sums_of_squares
from l2jax.trial.optimizer import OptimizerFn, bind_learning_rate, bind_steps
from l2jax.trial.train import Examples, Part, Trial


class Setup(NamedTuple):
    """The work of a sweep of T trials, and its devices.

    Attributes:
      config: the options.
      dataset: the data set, whose examples are on the devices.
      own_model: a person's own network; None is the built-in one.
      model_name: of the class of a person's own network; None for the built-in one.
      optimizer: makes the optimizer from a learning rate.
      axes: the values of each hyperparameter, of `seed` and of `fold`; trials are in the order of their product.
      trials: (T,), on the host.
      mesh: the devices.
      examples: on the devices.
      num_examples: (T,), in the training part of each trial.
      layers: the names of the layers that have a kernel.
      num_params: of one network.
      warnings: what a person should know of the data.
    """

    config: SweepConfig
    dataset: Dataset
    own_model: ModelFn | None
    model_name: str | None
    optimizer: OptimizerFn
    axes: dict[str, tuple]
    trials: Trial
    mesh: Mesh
    examples: Examples
    num_examples: np.ndarray
    layers: tuple[str, ...]
    num_params: int
    warnings: tuple[str, ...]


def make_setup(config: SweepConfig, dataset: Dataset, *, own_model: ModelFn | None, optimizer: OptimizerFn) -> Setup:
    """Checks that config, data set and model go together.

    Raises:
      InputError: if they do not.
    """
    use_every_core(config.devices)
    check_process()
    if own_model is not None and config.bfloat16:
        accepted = "l2jax.CNN, or layers with dtype=jnp.bfloat16"
        raise InvalidInputError("bfloat16", "a model of your own", accepted)
    if isinstance(optimizer, tuple) or not callable(optimizer):  # optax' optimizers are tuples
        given = "an optimizer that is made already" if isinstance(optimizer, tuple) else optimizer
        raise InvalidInputError("optimizer", given, "a function from a learning rate to one, such as optax.adam")
    check_classes_differ(dataset)
    image_shape, num_classes = dataset.images.shape[1:], dataset.num_classes
    model = own_model if own_model is not None else default_model(image_shape, num_classes)
    network, name = make_network(model, image_shape), model_name(model)
    params = check_network(network, name, image_shape, num_classes)
    axes = {name: getattr(config, name) for name in HYPERPARAMETERS}
    axes |= {"seed": tuple(range(config.seeds)), "fold": tuple(range(config.folds))}
    trials = make_trials(axes)
    examples = make_examples(config, dataset)
    num_examples = np.count_nonzero(examples.parts[Part.TRAIN] >= 0, axis=-1)
    if config.batch_size > num_examples.min():
        accepted = f"at most the {num_examples.min()} examples of the training part"
        raise InvalidInputError("batch_size", config.batch_size, accepted)
    steps_per_epoch = math.ceil(num_examples.max() / config.batch_size)
    optimizer = bind_steps(optimizer, steps_per_epoch=steps_per_epoch, num_epochs=config.epochs)
    optimizer = bind_learning_rate(optimizer, config.learning_rate, params)
    warnings = warn_of_classes(examples, dataset)
    mesh = make_mesh(config.num_trials, config.devices)
    return Setup(
        config,
        dataset,
        own_model,
        name if own_model is not None else None,
        optimizer,
        axes,
        trials,
        mesh,
        examples=put_shared(examples, mesh),
        num_examples=num_examples[trials.split_index],
        layers=tuple(jax.eval_shape(sums_of_squares, params)),
        num_params=sum(param.size for param in jax.tree.leaves(params)),
        warnings=warnings,
    )
