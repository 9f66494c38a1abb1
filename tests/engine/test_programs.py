"""The memory that compiled programs work in: what is copied, and what is used again."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def sweep_of(small, model=mlp, l1=(0.0,), **options):
    config = l2jax.SweepConfig((0.0, 1e-3), 2, l1=l1, epochs=5, train_size=None, val_size=40)
    return Sweep(config, small, model=model, **options)


@pytest.mark.parametrize("options", [{}, {"l1": (1e-3,)}, {"optimizer": functools.partial(optax.sgd, momentum=0.9)}])
def test_a_step_changes_large_kernels_where_they_are(small, options):
    def model(rngs):
        flat = functools.partial(jnp.reshape, shape=(-1, 49))
        sizes = (49, 90, 70, 10)
        return nnx.Sequential(flat, *(nnx.Linear(*pair, rngs=rngs) for pair in itertools.pairwise(sizes)))

    program = sweep_of(small, model, **options).compile().fit.programs.train_epoch.as_text()
    for kernel in (r"f32\[49,90\]", r"f32\[90,70\]"):
        assert re.findall(rf"{kernel}\S* custom-call\(|\({kernel}.* custom-call\(", program)
        assert not re.findall(rf"{kernel}\S* copy\(", program)


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
