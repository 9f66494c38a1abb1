"""The network and the programs of a sweep, for a way of computing and a number of trials."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l2jax.engine.devices import put_per_trial
from l2jax.engine.examples import evaluation_batch
from l2jax.engine.grid import tree_take
from l2jax.engine.programs import Programs, compile_programs
from l2jax.engine.setup import Setup
from l2jax.engine.tuning import Tuning
from l2jax.network.cnn import default_model
from l2jax.network.model import make_network
from l2jax.network.network import ModelState, Network, Params
from l2jax.rewrite.interpreter import Rules, rewrite
from l2jax.rewrite.lowering import Lowering
from l2jax.rewrite.platforms import rules_for
from l2jax.trial.train import Examples, TrainState, Trial, init


def tuned_network(setup: Setup, tuning: Tuning) -> Network:
    """The person's own network, or the built-in one, in operations that the devices do fast."""
    image_shape, num_classes = setup.dataset.images.shape[1:], setup.dataset.num_classes
    model = setup.own_model if setup.own_model is not None else default_model(image_shape, num_classes)
    lowering = Lowering(jnp.bfloat16 if setup.config.bfloat16 else jnp.float32, tuning.few_products)
    rules = rules_for(setup.mesh.devices.flat[0].platform, lowering)
    return rewritten(make_network(model, image_shape, setup.config.values), rules)


def rewritten(network: Network, rules: Rules) -> Network:
    """The network with the rules applied, before there are gradients or batches of trials."""

    def apply(params: Params, state: ModelState, images: Array, train: bool) -> tuple[Array, Params, ModelState]:
        return rewrite(lambda p, s, x: network.apply(p, s, x, train), rules)(params, state, images)

    return network._replace(apply=apply)


def compile_for(setup: Setup, num_trials: int, tuning: Tuning) -> Programs:
    """Compiles the programs for a number of trials."""
    trials = put_per_trial(tree_take(setup.trials, range(num_trials)), setup.mesh, num_trials)
    return compile_arrays(setup, trials, setup.examples, tuning)


def compile_arrays(setup: Setup, trials: Trial, examples: Examples, tuning: Tuning) -> Programs:
    """Compiles the programs for these trials and examples, or for the shapes of such on devices that are not there."""
    return compile_programs(
        trials,
        examples,
        network=tuned_network(setup, tuning),
        optimizer=setup.optimizer,
        penalty=setup.penalty,
        batch_size=setup.config.batch_size,
        sizes=tuple(np.unique(setup.num_examples).tolist()),
        evaluation_batch=evaluation_batch(setup.mesh.devices.flat[0].platform, tuning.side_by_side),
        part_sizes=tuple(setup.part_sizes.max(-1).tolist()),
        mesh=setup.mesh,
        side_by_side=tuning.side_by_side,
    )


def abstract_state(setup: Setup) -> TrainState:
    """The shapes and types of one trial's state."""
    trial = jax.tree.map(lambda values: jax.ShapeDtypeStruct((), values.dtype), setup.trials)
    make_state = functools.partial(init, network=tuned_network(setup, Tuning(1)), optimizer=setup.optimizer)
    return jax.eval_shape(make_state, trial)
