"""Flax Linen modules as pure functions."""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen
from jax import Array

from l2jax.network.network import ModelState, Network, Params, abstract_init, mode_arguments


def from_linen(module: linen.Module, image_shape: tuple[int, ...]) -> Network:
    """The network of a Linen module: `module.init(key, images)` gives its variables.

    The state is every collection but `params`, and as `rng` a key and the number of steps. Random streams, such as
    `dropout`, get a new key in each step: `jax.random.fold_in(jax.random.fold_in(key, 1), step)`, from step 0.
    """

    def init(key: Array) -> tuple[Params, ModelState]:
        images = jnp.zeros((1, *image_shape))
        collections = dict(module.init(key, images, **mode_arguments(module.__call__, False)))
        params = collections.pop("params", {})
        stream = jax.random.key_data(jax.random.fold_in(key, 1))
        return params, collections | {"rng": {"key": stream, "step": jnp.uint32(0)}}

    def apply(params: Params, state: ModelState, images: Array, train: bool) -> tuple[Array, Params, ModelState]:
        modes = mode_arguments(module.__call__, train)
        if not train:
            return cast(Array, module.apply(variables(params, state), images, **modes)), params, state
        rng = state["rng"]
        streams = {"dropout": jax.random.fold_in(jax.random.wrap_key_data(rng["key"]), rng["step"])}
        mutable = [name for name in state if name != "rng"]
        logits, collections = module.apply(variables(params, state), images, rngs=streams, mutable=mutable, **modes)
        return logits, params, dict(collections) | {"rng": rng | {"step": rng["step"] + 1}}

    def bound(params: Params, state: ModelState) -> linen.Module:
        return module.bind(variables(params, state))

    def variables(params: Params, state: ModelState) -> dict:
        return {"params": params} | {name: state[name] for name in state if name != "rng"}

    _, state = abstract_init(init)
    return Network(init, apply, uses_batch=len(state) > 1, module=bound)
