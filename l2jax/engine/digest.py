"""Digests of a person's own network and optimizer, by which a resumed run tells whether they are still the same."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from l2jax.arguments import Arguments
from l2jax.engine.compile import abstract_state, tuned_network
from l2jax.engine.setup import Setup
from l2jax.engine.tuning import Tuning
from l2jax.network.network import abstract_init
from l2jax.trial.penalty import Penalty, elastic_net, l2_penalty
from l2jax.trial.train import Examples, train_epoch

BUILT_IN = (l2_penalty, elastic_net)


def program_digests(setup: Setup) -> dict[str, str] | None:
    """SHA-256 of what one trial computes, as it is handed to XLA.

    Whatever changes a number changes the text, a rate of dropout for example. The text also depends on the versions of
    JAX, Flax and optax, and on the kind of device.

    Returns:
      That of the `model`, and that of the `optimizer` together with it; None for the built-in ones, which are those of
      a version of l2jax.
    """
    if setup.own_model is None and setup.optimizer.function is optax.adam and setup.penalty.function in BUILT_IN:
        return None
    network, batch_size = tuned_network(setup, Tuning(1)), setup.config.batch_size
    params, state = abstract_init(network.init, network.arguments)
    # A run may be extended by strengths of L1: a built-in penalty is that of the config.
    penalty = setup.penalty if setup.penalty.function not in BUILT_IN else Penalty(_no_penalty, Arguments())
    trial = jax.tree.map(lambda values: jax.ShapeDtypeStruct((), values.dtype), setup.trials)
    images = jax.ShapeDtypeStruct((batch_size, *setup.dataset.images.shape[1:]), np.float32)
    calls = [
        _text(lambda seed, scalars: network.init(jax.random.key(seed), scalars), trial.seed, trial.hyperparameters),
        *(_text(functools.partial(_call, network.apply, train), params, state, images) for train in (True, False)),
    ]
    functions: dict[str, Any] = {"network": network, "optimizer": setup.optimizer, "penalty": penalty}
    sizes = tuple(np.unique(setup.num_examples).tolist())
    train_one = functools.partial(train_epoch, **functions, batch_size=batch_size, sizes=sizes)
    number = jax.ShapeDtypeStruct((), np.int32)
    training = _text(train_one, abstract_state(setup), trial, number, _of_one_split(setup.examples))
    return {"model": _sha256(*calls), "optimizer": _sha256(*calls, training)}


def _no_penalty(_: Any) -> jax.Array:
    return jnp.float32(0)


def _call(apply: Callable, train: bool, params: Any, state: Any, images: Any) -> Any:
    return apply(params, state, images, train)


def _of_one_split(examples: Examples) -> Examples:
    """The shapes of the examples if there were one split: a run may be extended by seeds."""
    shapes = jax.tree.map(lambda values: jax.ShapeDtypeStruct(values.shape, values.dtype), examples)
    labels, parts = shapes.train_labels, shapes.parts
    return shapes._replace(
        train_labels=jax.ShapeDtypeStruct((1, *labels.shape[1:]), labels.dtype),
        parts=jax.ShapeDtypeStruct((parts.shape[0], 1, *parts.shape[2:]), parts.dtype),
    )


def _text(f: Callable, *shapes: Any) -> str:
    return jax.jit(f).lower(*shapes).as_text()


def _sha256(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
