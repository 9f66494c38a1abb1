"""The network and the programs of a sweep, for a way of computing and a number of trials."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from l2jax.engine.devices import put_per_trial
from l2jax.engine.examples import EVALUATION_BATCH
from l2jax.engine.grid import tree_take
from l2jax.engine.programs import Programs, compile_programs
from l2jax.engine.setup import Setup
from l2jax.engine.tuning import Tuning
from l2jax.network.cnn import default_model
from l2jax.network.model import make_network
from l2jax.network.network import Network
from l2jax.trial.train import TrainState, init


def tuned_network(setup: Setup, tuning: Tuning) -> Network:
    """The person's own network, or the built-in one, which alone can be tuned."""
    image_shape, num_classes = setup.dataset.images.shape[1:], setup.dataset.num_classes
    options: dict[str, Any] = {"bfloat16": setup.config.bfloat16, "few_products": tuning.few_products}
    model = setup.own_model if setup.own_model is not None else default_model(image_shape, num_classes, **options)
    return make_network(model, image_shape)


def compile_for(setup: Setup, num_trials: int, tuning: Tuning) -> Programs:
    """Compiles the programs for a number of trials."""
    return compile_programs(
        put_per_trial(tree_take(setup.trials, range(num_trials)), setup.mesh, num_trials),
        setup.examples,
        network=tuned_network(setup, tuning),
        optimizer=setup.optimizer,
        batch_size=setup.config.batch_size,
        sizes=tuple(np.unique(setup.num_examples).tolist()),
        evaluation_batch=EVALUATION_BATCH,
        mesh=setup.mesh,
        side_by_side=tuning.side_by_side,
    )


def abstract_state(setup: Setup) -> TrainState:
    """The shapes and types of one trial's state."""
    trial = jax.tree.map(lambda values: jax.ShapeDtypeStruct((), values.dtype), setup.trials)
    make_state = functools.partial(init, network=tuned_network(setup, Tuning(1)), optimizer=setup.optimizer)
    return jax.eval_shape(make_state, trial)
