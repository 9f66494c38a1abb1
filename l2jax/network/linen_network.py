"""Flax Linen modules as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen
from jax import Array

from l2jax.arguments import Arguments
from l2jax.network.dropout import linen_dropout
from l2jax.network.network import ModelState, Network, Params, abstract_init, mode_arguments

RNG, HYPERPARAMETERS = "rng", "hyperparameters"
"""Names in the state beside those of collections."""


def from_linen(
    name: str,
    construct: Callable[[Mapping[str, Any]], linen.Module],
    arguments: Arguments,
    image_shape: tuple[int, ...],
) -> Network:
    """The network of the Linen module that a constructor makes: `module.init(key, images)` gives its variables.

    The state is every collection but `params`, as `rng` a key and the number of steps, and the hyperparameters that the
    constructor takes. Random streams, such as `dropout`, get a new key in each step:
    `jax.random.fold_in(jax.random.fold_in(key, 1), step)`, from step 0.
    """

    def init(key: Array, hyperparameters: Mapping[str, Array]) -> tuple[Params, ModelState]:
        module, images = construct(arguments.select(hyperparameters)), jnp.zeros((1, *image_shape))
        with linen.intercept_methods(linen_dropout):
            state = dict(module.init(key, images, **mode_arguments(module.__call__, False)))
        params = state.pop("params", {})
        stream = jax.random.key_data(jax.random.fold_in(key, 1))
        state |= {RNG: {"key": stream, "step": jnp.uint32(0)}}
        arrays = {name: hyperparameters[name] for name in arguments.arrays}
        return params, state | ({HYPERPARAMETERS: arrays} if arrays else {})

    def apply(params: Params, state: ModelState, images: Array, train: bool) -> tuple[Array, Params, ModelState]:
        module, variables = made(state), {"params": params} | collections(state)
        modes = mode_arguments(module.__call__, train)
        with linen.intercept_methods(linen_dropout):
            if not train:
                return cast(Array, module.apply(variables, images, **modes)), params, state
            rng = state[RNG]
            streams = {"dropout": jax.random.fold_in(jax.random.wrap_key_data(rng["key"]), rng["step"])}
            mutable = list(collections(state))
            logits, after = module.apply(variables, images, rngs=streams, mutable=mutable, **modes)
        return logits, params, state | dict(after) | {RNG: rng | {"step": rng["step"] + 1}}

    def bound(params: Params, state: ModelState) -> linen.Module:
        return made(state).bind({"params": params} | collections(state))

    def made(state: ModelState) -> linen.Module:
        return construct(arguments.select(state.get(HYPERPARAMETERS, {})))

    def collections(state: ModelState) -> dict[str, Any]:
        return {name: state[name] for name in state if name not in (RNG, HYPERPARAMETERS)}

    _, state = abstract_init(init, arguments)
    return Network(name, arguments, init, apply, uses_batch=bool(collections(state)), module=bound)
