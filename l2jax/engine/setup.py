"""The setup of a sweep: everything that training does not change, checked and put on the devices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from l2jax.arguments import argument_names
from l2jax.config import SweepConfig
from l2jax.data.dataset import Dataset
from l2jax.engine.devices import make_mesh, put_shared, use_every_core
from l2jax.engine.examples import check_classes_differ, make_examples, warn_of_classes
from l2jax.engine.grid import make_trials
from l2jax.engine.surroundings import check_process
from l2jax.errors import InvalidInputError
from l2jax.network.cnn import default_model
from l2jax.network.model import ModelFn, check_network, make_network
from l2jax.network.network import Network, Params
from l2jax.results.metrics import ALL_METRICS, COORDINATES
from l2jax.trial.kernels import sums_of_squares
from l2jax.trial.optimizer import Optimizer, OptimizerFn, default_weight_decay, make_optimizer
from l2jax.trial.penalty import Penalty, PenaltyFn, default_penalty, make_penalty
from l2jax.trial.train import Examples, Part, Trial


class Setup(NamedTuple):
    """The work of a sweep of T trials, and its devices.

    Attributes:
      config: the options.
      dataset: the data set, whose examples are on the devices.
      own_model: a person's own network; None is the built-in one.
      model_name: of the class of a person's own network; None for the built-in one.
      optimizer: makes the optimizer of a trial.
      penalty: of the objective.
      code: the SHA-256 of the files that the person's own functions come from, by option.
      axes: the values of each hyperparameter, of `seed` and of `fold`; trials are in the order of their product.
      trials: (T,), on the host.
      mesh: the devices.
      examples: on the devices.
      num_examples: (T,), in the training part of each trial.
      part_sizes: (parts, splits), the examples that each `Part` has.
      layers: the names of the layers that have a kernel.
      num_params: of one network.
      warnings: what a person should know of the data.
    """

    config: SweepConfig
    dataset: Dataset
    own_model: ModelFn | None
    model_name: str | None
    optimizer: Optimizer
    penalty: Penalty
    code: Mapping[str, str]
    axes: dict[str, tuple]
    trials: Trial
    mesh: Mesh
    examples: Examples
    num_examples: np.ndarray
    part_sizes: np.ndarray
    layers: tuple[str, ...]
    num_params: int
    warnings: tuple[str, ...]


def make_setup(
    config: SweepConfig,
    dataset: Dataset,
    *,
    model: ModelFn | None,
    optimizer: OptimizerFn,
    penalty: PenaltyFn | None = None,
    code: Mapping[str, str] | None = None,
) -> Setup:
    """Checks that config, data set, model, optimizer and penalty go together.

    Raises:
      InputError: if they do not.
    """
    use_every_core(config.devices)
    check_process()
    if model is not None and config.bfloat16:
        accepted = "l2jax.CNN, or layers with dtype=jnp.bfloat16"
        raise InvalidInputError("bfloat16", "a model of your own", accepted)
    if config.weight_decay == SweepConfig.weight_decay:
        # An optimizer that decays weights keeps its own default, and the results say which it is.
        config = dataclasses.replace(config, weight_decay=default_weight_decay(optimizer))
    check_classes_differ(dataset)
    image_shape, num_classes = dataset.images.shape[1:], dataset.num_classes
    default = default_model(image_shape, num_classes) if model is None else model
    network = make_network(default, image_shape, config.values)
    params = check_network(network, image_shape, num_classes)
    config, made_penalty = _penalty(config, params, penalty)
    axes = config.values | {"seed": tuple(range(config.seeds)), "fold": tuple(range(config.folds))}
    trials = make_trials(axes)
    examples = make_examples(config, dataset)
    part_sizes = np.count_nonzero(examples.parts >= 0, axis=-1)
    num_examples = part_sizes[Part.TRAIN]
    if config.batch_size > num_examples.min():
        accepted = f"at most the {num_examples.min()} examples of the training part"
        raise InvalidInputError("batch_size", config.batch_size, accepted)
    steps_per_epoch = math.ceil(num_examples.max() / config.batch_size)
    made_optimizer = make_optimizer(
        optimizer, config.values, params, steps_per_epoch=steps_per_epoch, num_epochs=config.epochs
    )
    _check_names(config, network, made_optimizer, made_penalty)
    warnings = warn_of_classes(examples, dataset)
    mesh = make_mesh(config.num_trials, config.devices)
    return Setup(
        config,
        dataset,
        model,
        network.name if model is not None else None,
        made_optimizer,
        made_penalty,
        code or {},
        axes,
        trials,
        mesh,
        examples=put_shared(examples, mesh),
        num_examples=num_examples[trials.split_index],
        part_sizes=part_sizes,
        layers=tuple(jax.eval_shape(sums_of_squares, params)),
        num_params=sum(param.size for param in jax.tree.leaves(params)),
        warnings=warnings,
    )


def _penalty(config: SweepConfig, params: Params, own_penalty: PenaltyFn | None) -> tuple[SweepConfig, Penalty]:
    """The penalty, and the config with a strength of 0 where a penalty of a person's own does not take it."""
    if own_penalty is None:
        return config, default_penalty(params, config.l2_on, with_l1=config.l1 != SweepConfig.l1)
    if not callable(own_penalty):
        raise InvalidInputError("penalty", own_penalty, "a function of the parameters, and of hyperparameters by name")
    if config.l2_on != SweepConfig.l2_on:
        raise InvalidInputError("l2_on", config.l2_on, "none with a penalty of your own")
    names = [name for name in argument_names(own_penalty)[1:] if name in config.values]
    for name in ("l2", "l1"):
        if name not in names and getattr(config, name) not in (getattr(SweepConfig, name), (0.0,)):
            given = " ".join(f"{value:g}" for value in getattr(config, name))
            raise InvalidInputError(name, given, f"none, as the penalty has no argument {name}")
        if name not in names:
            config = dataclasses.replace(config, **{name: 0.0})
    return config, make_penalty(own_penalty, names, config.values, params)


def _check_names(config: SweepConfig, network: Network, optimizer: Optimizer, penalty: Penalty) -> None:
    """Checks that each hyperparameter of a person's own is an argument of one function, and its name is free."""
    functions = {"model": network.arguments, "optimizer": optimizer.arguments, "penalty": penalty.arguments}
    for name in config.hyperparameters:
        takers = [option for option, arguments in functions.items() if name in arguments.names]
        if len(takers) != 1:
            accepted = f"an argument of one of {', '.join(functions)}: it is one of {' and '.join(takers) or 'none'}"
            raise InvalidInputError("hyperparameters", name, accepted)
        if name in ALL_METRICS or name in COORDINATES:
            raise InvalidInputError("hyperparameters", name, f"other names: the results have a {name}")
