"""The memory that compiled programs work in: what is copied, and what is used again."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import plain
from helpers.compare import mlp

import l2jax
from l2jax.engine.compile import tuned_network
from l2jax.engine.sweep import Sweep
from l2jax.engine.tuning import Tuning
from l2jax.trial.evaluate import evaluate
from l2jax.trial.train import Part, init

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def sweep_of(small, model=mlp):
    return Sweep(l2jax.SweepConfig((0.0, 1e-3), 2, epochs=5, train_size=None, val_size=40), small, model=model)


def test_a_step_changes_the_first_kernel_where_it_is(small):
    def model(rngs):
        flat = functools.partial(jnp.reshape, shape=(-1, 49))
        return nnx.Sequential(flat, nnx.Linear(49, 23, rngs=rngs), nnx.Linear(23, 10, rngs=rngs))

    program = sweep_of(small, model).compile().fit.programs.train_epoch.as_text()
    assert re.findall(r"f32\[49,23\]\S* fusion\(", program)
    assert not re.findall(r"f32\[49,23\]\S* copy\(", program)


def test_loops_are_of_known_length(small):
    setup = sweep_of(small).setup
    np.testing.assert_array_equal(setup.part_sizes, (np.asarray(setup.examples.parts) >= 0).sum(-1))
    part_sizes = tuple(setup.part_sizes.max(-1).tolist())
    network, trial = tuned_network(setup, Tuning(1)), jax.tree.map(lambda values: values[0], setup.trials)
    state = init(trial, network=network, optimizer=setup.optimizer)
    options = {"network": network, "penalty": setup.penalty, "batch_size": 16, "part_sizes": part_sizes}
    program = plain.jit(functools.partial(evaluate, **options)).lower(state, trial, np.int32(0), setup.examples)
    text = program.compile().as_text()
    assert text.count(" while(") == text.count('"known_trip_count"') == len(Part)


def test_epochs_take_the_memory_of_those_before(small):
    sweep, places = sweep_of(small), []
    for _ in sweep.epochs():
        largest = max(jax.tree.leaves(sweep.chunk.state.params), key=lambda values: values.size)
        places.append([shard.data.unsafe_buffer_pointer() for shard in largest.addressable_shards])
    assert places[2] == places[0] and places[3] == places[1]
    assert places[0] != places[1]
